"""A server that sends what it is told, byte by byte."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class RawServer:
    """Accepts connections and lets ``script`` write to each; keeps what it was asked."""

    def __init__(self) -> None:
        self.script: Callable[[socket.socket], None] = lambda connection: connection.sendall(plain(b"{}"))
        self.echoes = False
        self.requests: list[bytes] = []
        self.hung_up_after: list[float] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = read_request(connection)
            self.requests.append(request)
            if self.echoes:
                connection.sendall(plain(request.partition(b"\r\n\r\n")[2]))
            else:
                self.script(connection)

    def wait_for_the_disconnect(self, connection: socket.socket) -> None:
        """Note how long it takes until the other side closes the connection."""
        begin = time.monotonic()
        connection.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(4096):
                pass
        self.hung_up_after.append(time.monotonic() - begin)


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length and (piece := connection.recv(65536)):
        body += piece
    return head + b"\r\n\r\n" + body


def plain(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return (head + "Connection: close\r\n\r\n").encode() + body


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(payload: object) -> bytes:
    return f"data: {payload if isinstance(payload, str) else json.dumps(payload)}\n\n".encode()


def completion(text: str, finish_reason: str | None = None) -> bytes:
    return event({"id": "cmpl-1", "choices": [{"index": 0, "text": text, "finish_reason": finish_reason}]})


@pytest.fixture
def server() -> Iterator[RawServer]:
    started = RawServer()
    yield started
    started.close()
