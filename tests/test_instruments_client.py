"""The manners of the HTTP client: answers, errors, connections."""

from __future__ import annotations

import contextlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fixtures.core.errors import SubjectFault
from fixtures.instruments.client import Client
from tests.fakes import raw_server
from tests.fakes.raw_server import CHUNKED, RawServer, chunk, completion, plain

server = raw_server.server


def test_a_request_that_is_refused_is_not_aborted(server: RawServer) -> None:
    server.script = lambda connection: connection.sendall(plain(b'{"error": {}}', "400 Bad Request"))
    with pytest.raises(SubjectFault, match="expected HTTP 200, got 400"):
        Client(server.url).abort_after("/v1/completions", {}, 0.2)


# --- no answer, or a strange one --------------------------------------------------------------------------------------


def test_no_answer_is_a_fault_at_the_deadline(server: RawServer) -> None:
    server.script = server.wait_for_the_disconnect
    begin = time.monotonic()
    with pytest.raises(SubjectFault, match=f"GET {server.url}/health: no answer within"):
        Client(server.url).get("/health", deadline_s=0.3)
    assert 0.3 <= time.monotonic() - begin < 2.0


def test_a_connection_that_is_not_accepted_ends_at_the_deadline() -> None:
    with socket.socket() as listener, contextlib.ExitStack() as others:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # they fill the queue; none is accepted
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(listener.getsockname())
        begin = time.monotonic()
        with pytest.raises(SubjectFault, match="no answer within"):
            Client(f"http://127.0.0.1:{listener.getsockname()[1]}").get("/health", deadline_s=0.4)
        assert time.monotonic() - begin < 2.0


def test_a_refused_connection_is_a_fault_in_few_words() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(SubjectFault) as refused:
        Client(url).get("/health")
    message = str(refused.value)
    assert message.startswith(f"GET {url}/health: ")
    assert "refused" in message
    assert "HTTPConnectionPool" not in message
    assert len(message) < 120


def test_a_connection_closed_without_an_answer_is_a_fault(server: RawServer) -> None:
    server.script = lambda connection: None
    with pytest.raises(SubjectFault, match=f"{server.url}/health"):
        Client(server.url).get("/health")
    assert len(server.requests) == 1, "nothing may be retried: a second request would be counted as another client's"


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"", b'{"a": '], ids=["html", "empty", "broken"])
def test_a_body_that_is_no_json_is_a_fault(server: RawServer, body: bytes) -> None:
    server.script = lambda connection: connection.sendall(plain(body, "503 Service Unavailable"))
    response = Client(server.url).get("/v1/models")
    assert (response.status, response.text) == (503, body.decode())
    with pytest.raises(SubjectFault, match="expected a JSON body, got HTTP 503"):
        _ = response.json


@pytest.mark.parametrize(
    ("body", "cut"),
    [(b'{"a": ', True), (b'{"a": "b', True), (b'{"a": 1}\n{', False), (b"<html>", False), (b"", False)],
)
def test_a_body_without_a_length_that_ends_within_its_json_says_so(server: RawServer, body: bytes, cut: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    server.script = lambda connection: connection.sendall(head + body)
    with pytest.raises(SubjectFault) as fault:
        _ = Client(server.url).get("/v1/models").json
    assert (f"ends within its JSON after {len(body)} characters" in str(fault.value)) == cut


def test_a_plain_answer_has_no_stream_and_no_ttft(server: RawServer) -> None:
    server.script = lambda connection: connection.sendall(plain(b'{"id": "a"}'))
    response = Client(f"{server.url}/").post("/v1/completions", {"stream": False})
    assert response.json == {"id": "a"}
    assert (response.ttft_s, response.stream, response.cut, response.events) == (None, None, None, ())
    assert server.requests[0].startswith(b"POST /v1/completions HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("sent", "type_", "body"),
    [
        ({"payload": {"a": 1}}, b"application/json", b'{"a": 1}'),
        ({"payload": {"a": 1}, "headers": {"Content-Type": "text/plain"}}, b"text/plain", b'{"a": 1}'),
        ({"data": b'{"a": '}, b"application/json", b'{"a": '),
        ({"data": b""}, b"application/json", b""),
        ({}, None, b""),
    ],
    ids=["json", "other-type", "raw", "empty", "nothing"],
)
def test_a_body_is_sent_as_it_is_given(
    server: RawServer, sent: dict[str, object], type_: bytes | None, body: bytes
) -> None:
    Client(server.url, headers={"X-Run": "7"}).post("/x", **sent)  # type: ignore[arg-type]
    head, _, got = server.requests[0].partition(b"\r\n\r\n")
    types = [line[14:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-type: ")]
    assert (types, got) == ([type_] if type_ else [], body)
    assert b"X-Run: 7" in head


def test_no_proxy_of_the_environment_stands_between(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = RawServer()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    try:
        assert Client(server.url).get("/metrics").status == 200
        assert (len(server.requests), len(proxy.requests)) == (1, 0)
    finally:
        proxy.close()


# --- impatience -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [False, True], ids=["silent", "streaming"])
def test_hanging_up_closes_the_connection_early(server: RawServer, streams: bool) -> None:
    def trickle(connection: socket.socket) -> None:
        begin = time.monotonic()
        connection.sendall(CHUNKED)
        try:
            while time.monotonic() - begin < 3:
                connection.sendall(chunk(completion("a")))
                time.sleep(0.01)
        except OSError:
            server.hung_up_after.append(time.monotonic() - begin)

    server.script = trickle if streams else server.wait_for_the_disconnect
    assert Client(server.url).abort_after("/v1/completions", {"stream": streams}, 0.15)
    until = time.monotonic() + 2
    while not server.hung_up_after and time.monotonic() < until:
        time.sleep(0.01)
    (after,) = server.hung_up_after
    assert 0.1 <= after < 2.0


def test_an_answer_in_time_is_no_disconnect(server: RawServer) -> None:
    assert not Client(server.url).abort_after("/v1/completions", {"stream": False}, 1.0)


def test_hanging_up_at_once_does_not_wait_at_all(server: RawServer) -> None:
    server.script = server.wait_for_the_disconnect
    begin = time.monotonic()
    assert Client(server.url).abort_after("/v1/completions", {}, 0.0)
    assert time.monotonic() - begin < 2.0


def test_every_thread_gets_its_own_answer(server: RawServer) -> None:
    server.echoes = True
    client = Client(server.url)
    with ThreadPoolExecutor(max_workers=24) as pool:
        got = list(pool.map(lambda number: client.post("/x", {"number": number}).json["number"], range(24)))
    assert got == list(range(24))
