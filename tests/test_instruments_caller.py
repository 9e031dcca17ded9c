"""A client that disconnects when it is told to, against a server that streams what it is told to."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NoAnswer, SubjectFault
from fixtures.core.waiting import poll
from fixtures.instruments.caller import Caller
from fixtures.instruments.client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = b'data: {"choices": [{"text": "a"}]}\n\n'
ROLE = b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n'


class Server(ThreadingHTTPServer):
    """Sends ``events`` and, where ``ends``, ``[DONE]``; else it waits for the client to go."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.events: list[bytes] = []
        self.ends, self.status = False, 200
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []
        self.client_left = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, self.headers["Authorization"]))
        self.send_response(self.server.status)
        self.end_headers()
        for event in self.server.events:
            self.wfile.write(event)
        if self.server.ends:
            self.wfile.write(b"data: [DONE]\n\n")
        elif self.server.status == 200:
            with contextlib.suppress(OSError):
                if not self.connection.recv(1):
                    self.server.client_left.set()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def call(server: Server, **options: Any) -> Caller:
    client = Client(f"{server.url}/prefix", headers={"Authorization": "Bearer key"})
    return Caller(client, "/v1/completions", {"prompt": "x", **options}, 5.0)


def test_it_disconnects_in_mid_stream_and_the_server_sees_it(server: Server) -> None:
    server.events = [ROLE, TOKEN, TOKEN]
    caller = call(server, max_tokens=9)
    assert poll(lambda: caller.events, lambda found: found == 2, 5.0) == 2, "a role is not a token"
    assert not caller.over
    assert caller.disconnect()
    assert server.client_left.wait(5.0)
    assert caller.over
    path, body, key = server.asked[0]
    assert (path, key) == ("/prefix/v1/completions", "Bearer key")
    assert body == {"prompt": "x", "max_tokens": 9, "stream": True}


def test_before_the_first_token_too(server: Server) -> None:
    caller = call(server)
    assert poll(lambda: server.asked, bool, 5.0)
    assert caller.disconnect()
    assert caller.events == 0
    assert server.client_left.wait(5.0)


def test_an_answer_that_is_complete_was_not_aborted(server: Server) -> None:
    server.events, server.ends = [TOKEN], True
    caller = call(server)
    assert poll(lambda: caller.over, bool, 5.0)
    assert caller.complete
    assert not caller.disconnect()


def test_a_stream_that_breaks_off_is_not_complete(server: Server) -> None:
    server.events, server.status = [TOKEN], 299
    caller = call(server)
    assert poll(lambda: caller.over, bool, 5.0)
    assert caller.status == 299


def test_a_request_that_is_refused_is_a_fault(server: Server) -> None:
    server.status = 400
    caller = call(server)
    assert poll(lambda: caller.over, bool, 5.0)
    with pytest.raises(SubjectFault, match="expected HTTP 200, got 400"):
        caller.disconnect()


def test_no_connection_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NoAnswer, match="/v1/completions"):
        Caller(Client(f"http://127.0.0.1:{port}"), "/v1/completions", {}, 1.0)
