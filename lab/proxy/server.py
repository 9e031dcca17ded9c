"""The proxy itself: it listens, passes on, and disconnects from the engine when its client disconnects."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from lab.proxy.fault import Answer, Cut, Fault, Request

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date", "expect", "host"}


@dataclass
class Proxy:
    """Listens on a free port of this machine and passes on to ``upstream`` until closed."""

    upstream: str
    fault: Fault = field(default_factory=Fault)

    def __enter__(self) -> Proxy:
        proxy = self

        class Handler(_Handler):
            def exchange(self, request: Request) -> Answer:
                return proxy.fault.exchange(request, lambda asked: _forward(proxy.upstream, asked, self.connection))

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where clients find it."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def fired(self) -> int:
        """How often the fault has acted."""
        return self.fault.fired


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # clients that come together; the default of 5 resets some of them

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that disconnects is not an event."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def exchange(self, request: Request) -> Answer:
        raise NotImplementedError

    def log_message(self, *_: Any) -> None:
        """Nothing: the engine has an access log."""

    def _serve(self) -> None:
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        length = int(self.headers.get("content-length") or 0)
        request = Request(
            self.command,
            self.path,
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(length),
        )
        try:
            answer = self.exchange(request)
            self._send(answer)
        except (Cut, OSError, http.client.HTTPException):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name not in HOP_BY_HOP:
                self.send_header(name, value)
        if answer.events is None:
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if answer.cut:
                self.wfile.write(answer.body[: len(answer.body) // 2])
                raise Cut
            self.wfile.write(answer.body)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in answer.events:
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815 - the names that http.server looks for


def _forward(upstream: str, request: Request, client: socket.socket) -> Answer:
    """Ask the engine; disconnect from it when the client has disconnected."""
    parts = urlsplit(request.to or upstream)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=request.within_s)
    headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
    connection.request(request.method, request.path, body=request.body or None, headers=headers)
    engine, latest = connection.sock, time.monotonic() + request.within_s
    while not select.select([engine], [], [], 0.02)[0]:
        if _gone(client):
            connection.close()
            raise Cut
        if time.monotonic() > latest:
            connection.close()
            raise TimeoutError
    response = connection.getresponse()
    received = {name.lower(): value for name, value in response.getheaders()}
    if received.get("content-type", "").startswith("text/event-stream"):
        return Answer(response.status, received, events=_events(response, connection, client))
    with contextlib.closing(connection):
        return Answer(response.status, received, response.read())


def _events(
    response: http.client.HTTPResponse, connection: http.client.HTTPConnection, client: socket.socket
) -> Iterator[bytes]:
    """The events of a stream as they come, each with its blank line; it disconnects from the engine when its client has."""
    waiting = b""
    with contextlib.closing(connection):
        while piece := response.read1(65536):
            waiting += piece
            while (end := waiting.find(b"\n\n")) >= 0:
                yield waiting[: end + 2]
                waiting = waiting[end + 2 :]
            if _gone(client):
                raise Cut
        if waiting:
            yield waiting


def _gone(client: socket.socket) -> bool:
    """Whether the client has closed its end."""
    try:
        if not select.select([client], [], [], 0)[0]:
            return False
        return client.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True
