"""The fault proxy: passes everything through untouched, and each fault does to an answer what its name says."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.instruments.client import Client
from lab.proxy.fault import Fault
from lab.proxy.faults import FAULTS
from lab.proxy.server import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.instruments.response import Response


METRICS = 'vllm:prompt_tokens_by_source_total{source="external_kv_transfer"} 12.0\nvllm:kv_cache_usage_perc 0.5\n'


class Engine(BaseHTTPRequestHandler):
    """Answers like an engine: echoes the prompt, streams word by word."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, Any]]
    gone: threading.Event
    dies_after: int | None = None
    """Events after which it closes the connection in the middle of a stream."""

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.reply(200, METRICS.encode(), "text/plain")
        else:
            self.reply(200, json.dumps({"data": [{"id": "m", "max_model_len": 8192}]}).encode())

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(asked)
        if asked.get("key") is not None:
            allowed = self.headers.get("Authorization") == f"Bearer {asked['key']}"
            self.reply(200 if allowed else 401, b"{}")
            return
        if asked.get("bad"):
            self.reply(400, json.dumps({"error": {"message": "bad"}}).encode())
            return
        time.sleep(asked.get("wait", 0.0))
        text = str(asked["prompt"])
        usage: dict[str, Any] = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        if "cached" in asked:
            usage["prompt_tokens_details"] = {"cached_tokens": asked["cached"]}
        head = {"id": "cmpl-1", "object": "text_completion", "created": 1}
        if not asked.get("stream"):
            choice = {"index": 0, "text": text, "finish_reason": "length"}
            self.reply(200, json.dumps(head | {"choices": [choice], "usage": usage}).encode())
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for number in range(asked.get("pieces", 4)):
                if number == self.dies_after:
                    self.close_connection = True
                    return
                reason = "length" if number == asked.get("pieces", 4) - 1 else None
                choice = {"index": 0, "text": f"{text}{number}", "finish_reason": reason}
                self.event(json.dumps(head | {"choices": [choice]}))
                time.sleep(asked.get("pause", 0.0))
            self.event(json.dumps(head | {"choices": [], "usage": usage}))
            self.event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.gone.set()
            self.close_connection = True

    def event(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # clients that come together; the default of 5 resets some of them


@pytest.fixture
def engine() -> Iterator[ThreadingHTTPServer]:
    handler = type("Handler", (Engine,), {"seen": [], "gone": threading.Event()})
    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def through(engine: ThreadingHTTPServer) -> Iterator[Any]:
    """Makes a client that talks to the engine through a proxy with the given fault."""
    running: list[Proxy] = []

    def make(fault: str, /, **params: Any) -> tuple[Client, Proxy]:
        proxy = Proxy(f"http://127.0.0.1:{engine.server_address[1]}", (FAULTS | {"none": Fault})[fault](**params))
        running.append(proxy.__enter__())
        return Client(proxy.url, deadline_s=10.0), proxy

    yield make
    for proxy in running:
        proxy.__exit__()


def ask(client: Client, prompt: Any = "hello", **options: Any) -> Response:
    return client.post("/v1/completions", {"prompt": prompt, "model": "m", **options})


def gone() -> str:
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        return f"http://127.0.0.1:{server.server_address[1]}"
