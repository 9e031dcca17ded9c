"""A stand-in for an engine and for a cache server, and records of stacks that lead to it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.processes import ProcessRef
from fixtures.core.record import EngineServer, Server, StackRecord
from fixtures.core.units import GIB
from fixtures.instruments.prompts import Prompts
from fixtures.subject.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


MODEL = "tiny"


SOURCES = {"computed": "local_compute", "gpu_hit": "local_cache_hit", "loaded": "external_kv_transfer"}


class FakeServer(ThreadingHTTPServer):
    """Serves an engine's and a cache server's endpoints from plain attributes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.lock = threading.Lock()
        self.counts = dict.fromkeys(SOURCES, 0)
        self.finished = self.running = self.waiting = 0
        self.usage = 0.0
        self.cache: dict[str, float] = {}
        self.info: dict[str, str] = {"block_size": "16", "num_gpu_blocks": "100", "enable_prefix_caching": "True"}
        self.config: Any = None
        self.status: Any = None
        self.models: list[dict[str, Any]] = [{"id": MODEL, "max_model_len": 4096}]
        self.answer: tuple[int, Any] = (200, {"id": "cmpl-1", "choices": [{"text": "a"}]})
        self.on_post: Callable[[dict[str, Any]], None] = self.count
        self.posts: list[dict[str, Any]] = []
        self.metrics_status = 200
        self.metrics_s = 0.0
        self.page = ""
        self.pages = self.fetching = 0

    def count(self, payload: dict[str, Any]) -> None:
        """One request, computed from nothing."""
        with self.lock:
            self.counts["computed"] += len(payload.get("prompt") or ())
            self.finished += 1

    def metrics(self) -> str:
        label = f'engine="0",model_name="{MODEL}"'
        config = ",".join(f'{name}="{value}"' for name, value in self.info.items())
        lines = [f"vllm:cache_config_info{{{config}}} 1.0"] if self.info else []
        lines += [
            f'vllm:prompt_tokens_by_source_total{{{label},source="{SOURCES[name]}"}} {float(value)}'
            for name, value in self.counts.items()
        ]
        lines.append(f'vllm:request_success_total{{{label},finished_reason="length"}} {float(self.finished)}')
        lines.append(f"vllm:num_requests_running{{{label}}} {float(self.running)}")
        lines.append(f"vllm:num_requests_waiting{{{label}}} {float(self.waiting)}")
        lines.append(f"vllm:kv_cache_usage_perc{{{label}}} {self.usage}")
        lines.append(f'vllm:num_requests_kv_fetch_by_stage{{{label},stage="in_progress"}} {float(self.fetching)}')
        lines += [f"lmcache_mp_{name} {value}" for name, value in self.cache.items()]
        return "\n".join(lines) + "\n"


class Handler(BaseHTTPRequestHandler):
    server: FakeServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.server.pages += 1
            time.sleep(self.server.metrics_s)
            if not self.server.metrics_status:
                self.close_connection = True
                return
            self.reply(self.server.metrics_status, (self.server.page or self.server.metrics()).encode(), "text/plain")
        elif self.path == "/v1/models":
            self.reply(200, json.dumps({"data": self.server.models}).encode())
        elif self.path == "/status" and self.server.status is not None:
            self.reply(200, json.dumps(self.server.status).encode())
        elif self.path == "/config" and self.server.config is not None:
            self.reply(200, json.dumps(self.server.config).encode())
        else:
            self.reply(404, b"{}")

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if self.path == "/reset_prefix_cache":
            return self.reply(200, b'{"success": true}')
        self.server.posts.append(payload)
        try:
            self.server.on_post(payload)
        except ConnectionAbortedError:
            self.close_connection = True
            return None
        status, body = self.server.answer
        if isinstance(body, str):
            return self.reply(status, body.encode(), "text/event-stream")
        return self.reply(status, json.dumps(body).encode())

    def reply(self, status: int, data: bytes, content_type: str = "application/json") -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


@contextlib.contextmanager
def serving() -> Iterator[FakeServer]:
    with FakeServer() as started:
        threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield started
        started.shutdown()


@pytest.fixture
def engine() -> Iterator[FakeServer]:
    with serving() as started:
        yield started


@pytest.fixture
def cache() -> Iterator[FakeServer]:
    """A cache server of 1 GiB, with LMCache 0.5.6's names."""
    with serving() as started:
        started.cache = {"l1_write_chunks_total": 0, "lookup_requested_tokens_total": 0, "lookup_hit_tokens_total": 0}
        started.config = {
            "mp": {"chunk_size": 64},
            "storage_manager": {"l1_manager_config": {"memory_config": {"size_in_bytes": GIB}}},
        }
        yield started


@pytest.fixture
def prompts() -> Prompts:
    return Prompts(1, "stack", 16, 4000)


def record(folder: Path, url: str = "http://127.0.0.1:9", **fields: Any) -> StackRecord:
    engines = fields.pop("engines", None) or [EngineServer(name="engine-0", url=url)]
    return StackRecord(
        id="s", kind="process", config="c", folder=folder, model=MODEL, engines=engines, **{"device": "cpu"} | fields
    )


def with_cache(folder: Path, engine: FakeServer, cache: FakeServer, **fields: Any) -> Stack:
    engines = [EngineServer(name="engine-0", url=engine.url, cache_server="kv", log=folder / "engine-0.log")]
    servers = [Server(name="kv", url=cache.url, log=folder / "kv.log")]
    return Stack(record(folder, engines=engines, cache_servers=servers, **fields))


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield started
    started.kill()
    started.wait()


def engine_of(process: subprocess.Popen[bytes], url: str, log: Path | None) -> EngineServer:
    return EngineServer(name="engine-0", url=url, process=ProcessRef.of(process.pid), log=log)


CONFIGURATION = (
    "[2026-11-25 04:25:21,672] LMCache INFO: Creating LMCacheEngine with config: "
    "{'chunk_size': 128, 'max_local_cpu_size': 2.5} (cache_engine.py:1:x)\n"
)


# --- names and memory -------------------------------------------------------------------------------------------------


def environment(folder: Path, known: tuple[str, ...] | None, **env: str) -> Stack:
    server = EngineServer(name="engine-0", url="http://127.0.0.1:9", env=env)
    return Stack(record(folder, engines=[server], lmcache_names=known))


# --- one log, read once -----------------------------------------------------------------------------------------------

STORED_64 = "[2026-11-25 04:31:45,869] LMCache INFO: Stored 64 tokens in 0.017 seconds (x.py:1:y)\n"


START = "(EngineCore pid=7) INFO 11-25 04:25:20 [core.py:1] Initializing a V1 LLM engine (v0.32.0) with config: x\n"
