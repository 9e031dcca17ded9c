"""The two stand-in programs; runs on the standard library alone. See the package's docstring."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, NoReturn

SHM = Path("/dev/shm")
BLOCK = 128


def argument(flag: str, default: str = "") -> str:
    """Value of the last ``flag VALUE`` of the command line."""
    found = [sys.argv[i + 1] for i, word in enumerate(sys.argv[:-1]) if word == flag]
    return found[-1] if found else default


def behaviour(part: str) -> list[str]:
    """What this process was told to do."""
    words: list[str] = json.loads((Path(sys.prefix) / "behaviour.json").read_text())[part]
    return words


def say(text: str, *, level: str = "INFO", process: str = "EngineCore") -> None:
    """A line of vLLM's log."""
    stamp = time.strftime("%m-%d %H:%M:%S")
    for line in text.splitlines():
        print(f"({process} pid={os.getpid()}) {level} {stamp} [core.py:1] {line}", flush=True)


def lmcache_says(text: str, *, level: str = "INFO") -> None:
    """A line of LMCache's log."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S,000")
    print(f"[{stamp}] LMCache {level}: {text} (server.py:1:lmcache)", flush=True)


def map_shared_memory() -> Path | None:
    """Map a file of shared memory, which whoever ends in good order removes; children inherit it."""
    if not SHM.is_dir():
        return None
    path = SHM / f"kvoc-fake-{os.getpid()}"
    with path.open("wb+") as file:
        file.write(os.fsencode(sys.prefix).ljust(4096, b"\0"))  # whose it is
        file.flush()
        globals()["_shared"] = mmap.mmap(file.fileno(), 4096)
    return path


class Handler(BaseHTTPRequestHandler):
    """Answers JSON or text; ``routes`` maps ``"GET /path"`` to what makes the body."""

    routes: ClassVar[dict[str, Any]] = {}

    def answer(self) -> None:
        """Any request."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        route = self.routes.get(f"{self.command} {self.path.split('?')[0]}")
        status, result = (404, "") if route is None else route(json.loads(body or b"null"))
        data = (result if isinstance(result, str) else json.dumps(result)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer  # noqa: N815 - the names that http.server wants

    def log_message(self, *args: object) -> None:
        """Quiet."""


def serve(port: int) -> None:
    """Serve until the process ends."""
    ThreadingHTTPServer.allow_reuse_address = (
        True  # as uvicorn: a port is free again at once, though not beside a listener
    )
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        end_without_port(error)
    server.serve_forever()


def end_without_port(error: OSError) -> NoReturn:
    """As uvicorn, asyncio and ZeroMQ end their programs."""
    say(f"[Errno {error.errno}] error while attempting to bind on address: address already in use", level="ERROR")
    os._exit(1)


def engine() -> None:
    """``python -m vllm.entrypoints.openai.api_server``."""
    does = behaviour("engine")
    say("non-default args: {}", process="APIServer")
    shared = map_shared_memory()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        _engine_core(reader, does)
    os.close(reader)

    def end(*_: object) -> None:
        say("[shutdown] API server: shutdown triggered", process="APIServer")
        if "orphans" not in does:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
        if shared is not None:
            shared.unlink()
        os._exit(0)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in does else end)
    say("Initializing a V1 LLM engine (v0.32.0) with config: ...")
    say("Starting to load model ...")
    if "dies" in does:
        say("\n".join(f"step {number}" for number in range(3000)))
        say(
            "Traceback (most recent call last):\n  File 'loader.py', line 1\nValueError: no weights here", level="ERROR"
        )
        os.kill(child, signal.SIGKILL)
        os._exit(1)
    while "hangs" in does:
        time.sleep(1)
    if "slow" in does:
        time.sleep(2)
    _register()
    Handler.routes = Engine(does).routes()
    say("Available routes are: ...", process="APIServer")
    serve(int(argument("--port")))


def _engine_core(parent: int, does: list[str]) -> None:
    if {"stubborn", "orphans"} & set(does):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(1)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.read(parent, 1)  # returns when the parent is gone
    os._exit(0)


def _register() -> None:
    text = argument("--kv-transfer-config")
    if not text:
        return
    say("Registering kv caches!")
    extra = json.loads(text).get("kv_connector_extra_config") or {}
    address = (extra["lmcache.mp.host"].removeprefix("tcp://"), int(extra["lmcache.mp.port"]))
    while True:
        with contextlib.suppress(OSError), socket.create_connection(address) as connection:
            if connection.recv(16):
                return
        time.sleep(0.05)


class Engine:
    """State and answers of one engine."""

    def __init__(self, does: list[str]) -> None:
        self.model = argument("--served-model-name", argument("--model"))
        self.fails = "fails" in does
        self.left, self.stalls = (
            next((int(word.rpartition("-")[2]) for word in does if word.startswith(f"{what}-after-")), -1)
            for what in ("dies", "stalls")
        )
        self.running = 0
        self.lock = threading.Lock()
        self.stored: set[tuple[int, ...]] = set()
        self.on_gpu: set[tuple[int, ...]] = set()
        self.finished = 0
        self.tokens = {"local_compute": 0, "local_cache_hit": 0, "external_kv_transfer": 0}

    def routes(self) -> dict[str, Any]:
        """By method and path."""
        card = {"id": self.model, "object": "model", "max_model_len": int(argument("--max-model-len", "4096"))}
        return {
            "GET /health": lambda _: (200, ""),
            "GET /v1/models": lambda _: (200, {"object": "list", "data": [card]}),
            "GET /metrics": lambda _: (200, self.metrics()),
            "POST /v1/completions": self.complete,
            "POST /reset_prefix_cache": lambda _: (200, self.on_gpu.clear() or ""),
        }

    def complete(self, request: dict[str, Any]) -> tuple[int, Any]:
        """A completion: one token, the same for the same prompt."""
        if self.fails:
            return 500, {"error": {"message": "the engine core is gone"}}
        text = request["prompt"]
        prompt = tuple(map(ord, text) if isinstance(text, str) else text)
        with self.lock:
            if self.left == 0:
                say("Traceback (most recent call last):\nRuntimeError: out of luck", level="ERROR")
                os._exit(1)
            self.left -= 1
            stalls = self.stalls == 0
            self.stalls -= not stalls
            self.running += stalls
        if stalls:
            say("request cmpl-1 waits for a load")
            time.sleep(3600)
        with self.lock:
            known = (len(prompt) - 1) // BLOCK * BLOCK
            source = "local_cache_hit" if prompt in self.on_gpu else "external_kv_transfer"
            known = known if prompt in self.on_gpu | self.stored else 0
            self.tokens[source] += known
            self.tokens["local_compute"] += len(prompt) - known
            self.on_gpu.add(prompt)
            self.stored.add(prompt)
            self.finished += 1
        number = sum(prompt) % 1000
        logprobs = {"tokens": [str(number)], "token_logprobs": [-1.0], "top_logprobs": [{str(number): -1.0}]}
        choice = {"index": 0, "text": str(number), "finish_reason": "length"}
        choice["logprobs"] = logprobs if request.get("logprobs") else None
        usage = {"prompt_tokens": len(prompt), "completion_tokens": 1, "total_tokens": len(prompt) + 1}
        return 200, {
            "id": "cmpl-0",
            "object": "text_completion",
            "model": self.model,
            "choices": [choice],
            "usage": usage,
        }

    def metrics(self) -> str:
        """The counters that the suite reads."""
        by_source = [f'vllm:prompt_tokens_by_source_total{{source="{key}"}} {n}' for key, n in self.tokens.items()]
        lines = [
            'vllm:cache_config_info{block_size="128",enable_prefix_caching="True",num_gpu_blocks="512"} 1',
            *by_source,
            f"vllm:prompt_tokens_total {sum(self.tokens.values())}",
            f'vllm:request_success_total{{finished_reason="length"}} {self.finished}',
            f"vllm:num_requests_running {self.running}",
            "vllm:num_requests_waiting 0",
            "vllm:kv_cache_usage_perc 0",
        ]
        return "\n".join(lines) + "\n"


def server() -> None:
    """``lmcache server``."""
    does = behaviour("server")
    shared = map_shared_memory()

    def end(*_: object) -> None:
        if shared is not None:
            shared.unlink()
        os._exit(0)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in does else end)
    if "dies" in does:
        lmcache_says("cannot allocate the L1 buffer", level="ERROR")
        os._exit(1)
    while "hangs" in does:
        time.sleep(1)
    size, chunk = float(argument("--l1-size-gb", "5")), int(argument("--chunk-size", "256"))
    memory = {"l1_manager_config": {"memory_config": {"size_in_bytes": int(size * 1024**3)}}}
    Handler.routes = {
        "GET /healthcheck": lambda _: (200, {"status": "healthy"}),
        "GET /config": lambda _: (200, {"mp": {"chunk_size": chunk}, "storage_manager": memory}),
        "GET /metrics": lambda _: (200, "lmcache_mp_l1_write_chunks_total 0\nlmcache_mp_l1_memory_usage_bytes 0\n"),
    }
    try:
        listener = socket.create_server(("127.0.0.1", int(argument("--port"))))
    except OSError as error:
        end_without_port(error)
    threading.Thread(target=_registrations, args=(listener, "refuses" in does), daemon=True).start()
    serve(int(argument("--http-port")))


def _registrations(listener: socket.socket, refuses: bool) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            if refuses:
                lmcache_says("REGISTER_KV_CACHE failed: unknown message type", level="ERROR")
            else:
                lmcache_says("Registered KV cache for GPU ID 1 with 2 layers")
                connection.sendall(b"ok")


def router() -> None:
    """``python -m vllm_router.launch_router``, or production-stack's ``vllm_router.app``: asks the workers in turn."""
    say("Starting router", process="Router")
    if "dies" in behaviour("router"):
        say("no policy of that name", level="ERROR", process="Router")
        os._exit(1)
    given = argument("--static-backends").split(",")
    workers = [word for word in (*given, *sys.argv) if word.startswith("http")]
    asked: list[int] = []

    def to_worker(path: str) -> Any:
        def ask(payload: Any) -> tuple[int, Any]:
            asked.append(1)
            request = urllib.request.Request(workers[len(asked) % len(workers)] + path)
            if payload is not None:
                request.data = json.dumps(payload).encode()
                request.add_header("Content-Type", "application/json")
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()

        return ask

    Handler.routes = {
        "GET /health": lambda _: (200, ""),
        "GET /v1/models": to_worker("/v1/models"),
        "POST /v1/completions": to_worker("/v1/completions"),
    }
    serve(int(argument("--port")))
