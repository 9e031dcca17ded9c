"""The clock of the HTTP client, and streams that stall, break off or trickle."""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.core.errors import NoAnswer, SubjectFault
from fixtures.instruments import connections
from fixtures.instruments.client import Client
from tests.fakes import raw_server
from tests.fakes.raw_server import CHUNKED, RawServer, chunk, completion, event, plain

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

server = raw_server.server


STREAM = {"stream": True}


CLOSED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


END = b"0\r\n\r\n"


def chat(delta: dict[str, object], finish_reason: str | None = None) -> bytes:
    return event({"id": "chat-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})


DONE = event("[DONE]")


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
def test_a_connection_cut_in_mid_stream_is_reported(server: RawServer, head: bytes | None) -> None:
    body = completion("a") + completion("b")
    counted = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"
    server.script = lambda connection: connection.sendall(head + chunk(body) if head else counted + body)
    response = Client(server.url).post("/v1/completions", STREAM)
    assert response.cut
    assert response.stream is not None
    assert "the stream does not end with [DONE]" in response.stream.violations
    assert response.stream.text == "ab", "what came before the cut is kept"


def test_a_stream_that_ends_without_its_end_mark_is_reported(server: RawServer) -> None:
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
        server.wait_for_the_disconnect(connection)

    server.script = script
    begin = time.monotonic()
    with pytest.raises(NoAnswer, match=r"the answer did not end within 0\.8 s, only \d+ bytes arrived") as raised:
        Client(server.url).post("/v1/completions", STREAM, deadline_s=0.8)
    assert raised.value.overdue
    assert 0.8 <= time.monotonic() - begin < 1.3, "each event must not begin the deadline anew"


def test_what_a_request_waits_for_is_looked_at_while_it_waits(server: RawServer) -> None:
    server.script = server.wait_for_the_disconnect
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
    server.script = server.wait_for_the_disconnect
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


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("raw", "cut"),
    [
        (OK + b'Transfer-Encoding: chunked\r\n\r\n40\r\n{"choices": [', "the answer broke off after 13 bytes"),
        (OK + b'Transfer-Encoding: chunked\r\n\r\n4\r\n{"ch\r\n', "the answer broke off after 4 bytes"),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnone", "Content-Encoding gzip"),
    ],
    ids=["within a chunk", "between chunks", "not packed"],
)
def test_why_a_body_is_not_whole(server: RawServer, raw: bytes, cut: str) -> None:
    server.script = lambda connection: connection.sendall(raw)
    response = Client(server.url).post("/v1/completions", {})
    assert response.cut is not None
    assert response.cut.endswith(cut)


def test_a_servers_reason_is_quoted_whole(server: RawServer) -> None:
    reason = b'{"error": {"message": "' + b"why " * 500 + b'the end"}}'
    server.script = lambda connection: connection.sendall(plain(reason))
    response = Client(server.url).post("/v1/completions", {})
    assert response.excerpt.encode() == reason
    server.script = lambda connection: connection.sendall(plain(b"x" * 10_000))
    assert Client(server.url).post("/v1/completions", {}).excerpt == "x" * 4000 + "... (6000 more characters)"


def test_a_server_that_speaks_something_else_is_named(server: RawServer) -> None:
    server.script = lambda connection: connection.sendall(b"-ERR unknown command 'POST'\r\n")
    with pytest.raises(NoAnswer, match=r"does not speak HTTP, its answer begins with .-ERR unknown command 'POST'"):
        Client(server.url).post("/v1/completions", {})


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
