"""The clock and the manners of the HTTP client, against a server that sends exactly the bytes it is told to."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.core.errors import NoAnswer, SubjectFault
from fixtures.instruments import connections
from fixtures.instruments.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STREAM = {"stream": True}


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

    def wait_for_the_hang_up(self, connection: socket.socket) -> None:
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
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def plain(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return (head + "Connection: close\r\n\r\n").encode() + body


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(payload: object) -> bytes:
    return f"data: {payload if isinstance(payload, str) else json.dumps(payload)}\n\n".encode()


def chat(delta: dict[str, object], finish_reason: str | None = None) -> bytes:
    return event({"id": "chat-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})


def completion(text: str, finish_reason: str | None = None) -> bytes:
    return event({"id": "cmpl-1", "choices": [{"index": 0, "text": text, "finish_reason": finish_reason}]})


DONE = event("[DONE]")


@pytest.fixture
def server() -> Iterator[RawServer]:
    started = RawServer()
    yield started
    started.close()


# --- the clock --------------------------------------------------------------------------------------------------------

ROLES = {
    "role-alone": {"role": "assistant"},
    "role-first": {"role": "assistant", "content": ""},
    "role-last": {"content": "", "role": "assistant"},
}


@pytest.mark.parametrize("role", ROLES.values(), ids=ROLES)
def test_a_role_is_no_token(server: RawServer, role: dict[str, object]) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(CHUNKED + chunk(chat(role)))
        time.sleep(0.15)
        connection.sendall(chunk(chat({"content": "Hi"})))
        time.sleep(0.05)
        connection.sendall(chunk(chat({}, "stop")) + chunk(DONE) + END)

    server.script = script
    response = Client(server.url).post("/v1/chat/completions", STREAM)
    assert response.ttft_s is not None
    assert 0.15 <= response.ttft_s < response.total_s
    assert response.stream is not None
    assert (response.stream.text, response.stream.violations) == ("Hi", ())


@pytest.mark.parametrize(
    "first",
    [completion("Hi"), completion(""), chat({"content": "Hi"}), chat({"role": "assistant", "content": "Hi"})],
    ids=["text", "half-a-character", "content", "content-with-the-role"],
)
def test_the_first_token_stops_the_clock(server: RawServer, first: bytes) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(CHUNKED + chunk(first))
        time.sleep(0.3)
        connection.sendall(chunk(DONE) + END)

    server.script = script
    response = Client(server.url).post("/v1/completions", STREAM)
    assert response.ttft_s is not None
    assert response.total_s - response.ttft_s > 0.1


@pytest.mark.parametrize(
    "events",
    [b": ping\n\n", event({"id": "a", "choices": [], "usage": {"prompt_tokens": 1}}), event({"error": "x"}), DONE],
    ids=["comment", "usage", "error", "done"],
)
def test_a_stream_without_a_token_has_no_ttft(server: RawServer, events: bytes) -> None:
    server.script = lambda connection: connection.sendall(CHUNKED + chunk(events) + END)
    assert Client(server.url).post("/v1/completions", STREAM).ttft_s is None


def test_the_clock_starts_before_the_request_is_sent(server: RawServer) -> None:
    def script(connection: socket.socket) -> None:
        time.sleep(0.1)
        connection.sendall(CHUNKED + chunk(completion("a", "length")) + chunk(DONE) + END)

    server.script = script
    response = Client(server.url).post("/v1/completions", STREAM)
    assert response.ttft_s is not None
    assert response.ttft_s >= 0.1, "the wait for the headers belongs to the time to first token"


def test_what_comes_before_the_request_is_written_is_not_on_the_clock(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = connections._FreshPool._get_conn

    def slow(pool: Any, timeout: float | None = None) -> Any:
        time.sleep(0.3)
        return get(pool, timeout)

    monkeypatch.setattr(connections._FreshPool, "_get_conn", slow)
    server.script = lambda connection: connection.sendall(
        CHUNKED + chunk(completion("a", "length")) + chunk(DONE) + END
    )
    response = Client(server.url).post("/v1/completions", STREAM)
    assert response.ttft_s is not None
    assert response.ttft_s < 0.3


@pytest.mark.parametrize("head", [CLOSED, CLOSED.replace(b"1.1", b"1.0")], ids=["connection-close", "http-1.0"])
def test_a_stream_without_chunks_is_read_as_it_arrives(server: RawServer, head: bytes) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(head + completion("a"))
        time.sleep(0.3)
        connection.sendall(completion("b", "length") + DONE)

    server.script = script
    response = Client(server.url).post("/v1/completions", STREAM)
    assert response.ttft_s is not None
    assert response.total_s - response.ttft_s > 0.1, "the whole body was read before the first event was seen"
    assert response.stream is not None
    assert (response.stream.text, response.stream.violations, response.cut) == ("ab", (), None)


# --- streams ----------------------------------------------------------------------------------------------------------

BODY = completion("gr\u00fc\u00df") + completion(" dich \u4f60\u597d") + completion("", "length") + DONE


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RawServer]:
    started = RawServer()
    yield started
    started.close()


@given(cuts=st.sets(st.integers(1, len(BODY) - 1), max_size=12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_stream_may_be_cut_into_pieces_anywhere(shared_server: RawServer, cuts: set[int]) -> None:
    borders = [0, *sorted(cuts), len(BODY)]
    pieces = [BODY[begin:end] for begin, end in itertools.pairwise(borders)]
    shared_server.script = lambda connection: connection.sendall(CHUNKED + b"".join(map(chunk, pieces)) + END)
    response = Client(shared_server.url).post("/v1/completions", STREAM)
    assert response.stream is not None
    assert response.stream.violations == ()
    assert response.stream.text == "gr\u00fc\u00df dich \u4f60\u597d"
    assert response.ttft_s is not None
    assert response.content_type == "text/event-stream"


@pytest.mark.parametrize("head", [CHUNKED, None], ids=["chunked", "content-length"])
def test_a_connection_cut_in_mid_stream_is_told(server: RawServer, head: bytes | None) -> None:
    body = completion("a") + completion("b")
    counted = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"
    server.script = lambda connection: connection.sendall(head + chunk(body) if head else counted + body)
    response = Client(server.url).post("/v1/completions", STREAM)
    assert response.cut
    assert response.stream is not None
    assert "the stream does not end with [DONE]" in response.stream.violations
    assert response.stream.text == "ab", "what came before the cut is kept"


def test_a_stream_that_ends_without_its_end_mark_is_told(server: RawServer) -> None:
    server.script = lambda connection: connection.sendall(CHUNKED + chunk(completion("a", "length")) + END)
    response = Client(server.url).post("/v1/completions", STREAM)
    assert response.cut is None
    assert response.stream is not None
    assert response.stream.violations == ("the stream does not end with [DONE]",)


@pytest.mark.parametrize("head", [CHUNKED, CLOSED], ids=["chunked", "connection-close"])
def test_a_stream_that_trickles_for_ever_ends_at_the_deadline(server: RawServer, head: bytes) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(head)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            connection.sendall(chunk(completion("a")) if head is CHUNKED else completion("a"))
            time.sleep(0.02)

    server.script = script
    begin = time.monotonic()
    with pytest.raises(SubjectFault, match=r"did not end within"):
        Client(server.url).post("/v1/completions", STREAM, deadline_s=0.4)
    assert time.monotonic() - begin < 2.0


@pytest.mark.parametrize("pauses", [0, 3], ids=["at-once", "after-some-events"])
def test_a_stream_that_stalls_ends_at_the_deadline(server: RawServer, pauses: int) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(CHUNKED + chunk(completion("a")))
        for _ in range(pauses):
            time.sleep(0.2)
            connection.sendall(chunk(completion("a")))
        server.wait_for_the_hang_up(connection)

    server.script = script
    begin = time.monotonic()
    with pytest.raises(NoAnswer, match=r"the answer did not end within 0\.8 s, only \d+ bytes came") as raised:
        Client(server.url).post("/v1/completions", STREAM, deadline_s=0.8)
    assert raised.value.overdue
    assert 0.8 <= time.monotonic() - begin < 1.3, "each event must not begin the deadline anew"


def test_what_a_request_waits_for_is_looked_at_while_it_waits(server: RawServer) -> None:
    server.script = server.wait_for_the_hang_up
    client = Client(server.url)

    def look() -> str:
        assert not server.hung_up_after, "the connection is still open"
        return "1 running, 1 waiting for KV"

    client.on_overdue = look
    with pytest.raises(NoAnswer, match=r"no answer within 0\.3 s; 1 running, 1 waiting for KV"):
        client.post("/v1/completions", {}, deadline_s=0.3)
    client.on_overdue = lambda: "x" * (1 // 0)
    with pytest.raises(NoAnswer, match=r"no answer within 0\.3 s$"):
        client.post("/v1/completions", {}, deadline_s=0.3)


def test_the_deadline_grows_with_the_payload(server: RawServer) -> None:
    server.script = server.wait_for_the_hang_up
    client = Client(server.url)
    told: list[float] = []
    client.deadline_of = lambda payload: payload["n"] / 10
    client.on_post = told.append
    with pytest.raises(NoAnswer, match=r"within 0\.2 s"):
        client.post("/v1/completions", {"n": 2})
    assert told == [0.2]


def test_a_body_that_is_cut_says_how_much_came(server: RawServer) -> None:
    whole = plain(b'{"choices": [{"text": "a long answer"}]}')
    server.script = lambda connection: connection.sendall(whole[:-20])
    response = Client(server.url).post("/v1/completions", {})
    assert response.cut == "the answer broke off after 20 of 40 bytes"
    with pytest.raises(SubjectFault, match="HTTP 200: the answer broke off after 20 of 40 bytes"):
        _ = response.answer


def test_a_request_that_is_refused_is_not_abandoned(server: RawServer) -> None:
    server.script = lambda connection: connection.sendall(plain(b'{"error": {}}', "400 Bad Request"))
    with pytest.raises(SubjectFault, match="expected HTTP 200, got 400"):
        Client(server.url).abort_after("/v1/completions", {}, 0.2)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None, "reasoning_content": "because"}, "because"),
        ({"content": None, "reasoning": "because"}, "because"),
        ({"content": "so", "reasoning": "because ", "reasoning_content": "because "}, "because so"),
        ({"content": None}, ""),
        ({"content": "Hi", "reasoning": None}, "Hi"),
    ],
)
def test_reasoning_is_text(server: RawServer, message: dict[str, Any], text: str) -> None:
    body = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant"} | message}]}).encode()
    server.script = lambda connection: connection.sendall(plain(body))
    assert Client(server.url).post("/v1/chat/completions", {}).answer == text
    stream = chat({"role": "assistant", "content": ""}) + chat(message) + chat({}, "length") + DONE
    server.script = lambda connection: connection.sendall(CHUNKED + chunk(stream) + END)
    response = Client(server.url).post("/v1/chat/completions", STREAM)
    assert response.stream is not None
    assert (response.stream.text, response.stream.violations) == (text, ())


# --- no answer, or a strange one --------------------------------------------------------------------------------------


def test_no_answer_is_a_fault_at_the_deadline(server: RawServer) -> None:
    server.script = server.wait_for_the_hang_up
    begin = time.monotonic()
    with pytest.raises(SubjectFault, match=f"GET {server.url}/health: no answer within"):
        Client(server.url).get("/health", deadline_s=0.3)
    assert 0.3 <= time.monotonic() - begin < 2.0


def test_a_connection_that_is_not_accepted_ends_at_the_deadline() -> None:
    with socket.socket() as listener, contextlib.ExitStack() as others:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # they fill the queue; nobody accepts
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
    assert len(server.requests) == 1, "nothing may be retried: a second request would be counted as somebody else's"


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"", b'{"a": '], ids=["html", "empty", "broken"])
def test_a_body_that_is_no_json_is_a_fault(server: RawServer, body: bytes) -> None:
    server.script = lambda connection: connection.sendall(plain(body, "503 Service Unavailable"))
    response = Client(server.url).get("/v1/models")
    assert (response.status, response.text) == (503, body.decode())
    with pytest.raises(SubjectFault, match="expected a JSON body, got HTTP 503"):
        _ = response.json


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

    server.script = trickle if streams else server.wait_for_the_hang_up
    assert Client(server.url).abort_after("/v1/completions", {"stream": streams}, 0.15)
    until = time.monotonic() + 2
    while not server.hung_up_after and time.monotonic() < until:
        time.sleep(0.01)
    (after,) = server.hung_up_after
    assert 0.1 <= after < 2.0


def test_an_answer_in_time_is_no_hang_up(server: RawServer) -> None:
    assert not Client(server.url).abort_after("/v1/completions", {"stream": False}, 1.0)


def test_hanging_up_at_once_does_not_wait_at_all(server: RawServer) -> None:
    server.script = server.wait_for_the_hang_up
    begin = time.monotonic()
    assert Client(server.url).abort_after("/v1/completions", {}, 0.0)
    assert time.monotonic() - begin < 2.0


def test_every_thread_gets_its_own_answer(server: RawServer) -> None:
    server.echoes = True
    client = Client(server.url)
    with ThreadPoolExecutor(max_workers=24) as pool:
        got = list(pool.map(lambda number: client.post("/x", {"number": number}).json["number"], range(24)))
    assert got == list(range(24))
