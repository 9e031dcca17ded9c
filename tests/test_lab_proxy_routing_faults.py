"""Faults of the proxy in front of a router and several engines."""

from __future__ import annotations

import socket
import threading
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.instruments.client import bearer
from tests.fakes import proxied_engine
from tests.fakes.proxied_engine import Engine, ask, gone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.proxy.server import Proxy


engine = proxied_engine.engine
through = proxied_engine.through


def test_a_list_of_models_gets_one_that_is_gone_or_loses_all(through: Any) -> None:
    client, proxy = through("list-models")
    assert [one["id"] for one in client.get("/v1/models").json["data"]] == ["m", "gone"]
    assert proxy.fired == 1
    client, _ = through("list-models", none=True)
    assert client.get("/v1/models").json["data"] == []
    client, proxy = through("list-models", name="m", status=404)
    assert [one["id"] for one in client.get("/v1/models").json["data"]] == ["m"], "it is there already"
    assert (ask(client).status, client.post("/tokenize", {"model": "m"}).status) == (404, 404)


@pytest.fixture
def others() -> Iterator[list[ThreadingHTTPServer]]:
    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Engine,), {"seen": [], "gone": threading.Event()}))
        for _ in range(2)
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def behind(proxy: Proxy, others: list[ThreadingHTTPServer]) -> list[list[Any]]:
    """What each of the other engines was asked, which the fault may send requests to from now on."""
    proxy.fault.engines = tuple(f"http://127.0.0.1:{one.server_address[1]}" for one in others)
    return [one.RequestHandlerClass.seen for one in others]  # type: ignore[attr-defined]


def test_requests_go_astray_in_turn(through: Any, others: list[ThreadingHTTPServer]) -> None:
    client, proxy = through("astray")
    first, second = behind(proxy, others)
    for prompt in "abcd":
        assert ask(client, prompt).status == 200
    assert ([one["prompt"] for one in first], [one["prompt"] for one in second]) == (["b", "d"], ["a", "c"])
    assert client.get("/v1/models").status == 200, "what generates nothing takes its way"
    assert proxy.fired == 4


def test_every_so_many_repeats_go_to_another_engine(through: Any, others: list[ThreadingHTTPServer]) -> None:
    client, proxy = through("astray", by="repeats", every=2)
    first, second = behind(proxy, others)
    for prompt in "abba":
        ask(client, prompt)
    assert [one["prompt"] for one in first] == ["a"]
    assert [one["prompt"] for one in second] == ["b", "b", "a"], "the second repeat is not where it was before"
    assert proxy.fired == 1


def test_a_header_is_lost_on_the_way(through: Any) -> None:
    client, proxy = through("without-header", name="authorization")
    assert client.post("/v1/completions", {"prompt": "x", "key": "k"}, headers=bearer("k")).status == 401
    assert proxy.fired == 1


def test_a_dead_engine_is_kept(engine: Any, through: Any) -> None:
    client, proxy = through("keeps-dead", then="error")
    proxy.fault.engines = (f"http://127.0.0.1:{engine.server_address[1]}",)
    assert [ask(client).status for _ in range(4)] == [200] * 4
    assert proxy.fired == 0, "nothing is wrong while it lives"
    proxy.fault.engines = (gone(),)
    assert sorted(ask(client).status for _ in range(4)) == [200, 200, 502, 502]
    assert proxy.fired == 2


def test_the_end_of_a_dead_engine_looks_like_an_answer(through: Any) -> None:
    client, proxy = through("keeps-dead", then="end")
    proxy.fault.engines = (gone(),)
    ask(client)
    answer = ask(client)
    assert (answer.status, answer.usage["completion_tokens"]) == (200, 3)


def test_an_engine_that_failed_once_is_forgotten(through: Any, others: list[ThreadingHTTPServer]) -> None:
    client, proxy = through("keeps-dead", then="forget")
    _, second = behind(proxy, others)
    alive = proxy.fault.engines
    proxy.fault.engines = (gone(), alive[1])
    assert [ask(client, prompt).status for prompt in "ab"] == [200, 200]
    proxy.fault.engines = alive
    assert [ask(client, prompt).status for prompt in "cd"] == [200, 200]
    assert [one["prompt"] for one in second] == ["b", "c", "d"], "also once the first one is back"
    assert proxy.fired == 1


def test_a_stream_begins_again_in_its_middle(through: Any) -> None:
    client, proxy = through("send-again", after=2)
    response = ask(client, "w", stream=True)
    assert response.stream is not None
    assert response.stream.text == "w0w1w0w1w2w3"
    assert proxy.fired == 1


def test_an_answer_of_a_dead_engine_begins_again_on_another_one(
    through: Any, others: list[ThreadingHTTPServer]
) -> None:
    client, proxy = through("keeps-dead", then="again")
    behind(proxy, others)
    others[0].RequestHandlerClass.dies_after = 2  # type: ignore[attr-defined]
    ask(client)
    response = ask(client, "w", stream=True)
    assert response.stream is not None
    assert response.stream.text == "w0w1w0w1w2w3"
    assert proxy.fired == 1


def test_an_engine_that_hangs_is_given_up(through: Any, others: list[ThreadingHTTPServer]) -> None:
    client, proxy = through("gives-up", seconds=1.0)
    _, second = behind(proxy, others)
    with socket.create_server(("127.0.0.1", 0)) as hung:  # takes connections and says nothing
        proxy.fault.engines = (f"http://127.0.0.1:{hung.getsockname()[1]}", proxy.fault.engines[1])
        statuses = [ask(client).status for _ in range(4)]
    assert statuses == [200, 504, 200, 504]
    assert proxy.fired == statuses.count(504)
    behind(proxy, others)
    assert [ask(client).status for _ in range(2)] == [200, 200]
    assert len(second) < 6, "the first one is used again once it answers"


def test_what_an_engine_that_hangs_does_not_answer_goes_to_another_one(
    through: Any, others: list[ThreadingHTTPServer]
) -> None:
    client, proxy = through("gives-up", seconds=0.5, again=True)
    _, second = behind(proxy, others)
    with socket.create_server(("127.0.0.1", 0)) as hung:
        proxy.fault.engines = (f"http://127.0.0.1:{hung.getsockname()[1]}", proxy.fault.engines[1])
        answers = [ask(client, prompt) for prompt in "abcd"]
    assert [one.status for one in answers] == [200] * 4
    assert [one["prompt"] for one in second] == list("abcd")
    assert [one.total_s > 0.5 for one in answers] == [False, True, False, True], "it is asked again and again"
    assert proxy.fired == 2


def test_an_engine_that_hangs_is_excluded_until_it_is_well(through: Any, others: list[ThreadingHTTPServer]) -> None:
    client, proxy = through("gives-up", seconds=0.5, again=True, excludes=True)
    first, second = behind(proxy, others)
    alive = proxy.fault.engines
    with socket.create_server(("127.0.0.1", 0)) as hung:
        proxy.fault.engines = (f"http://127.0.0.1:{hung.getsockname()[1]}", alive[1])
        assert [ask(client, prompt).status for prompt in "abcd"] == [200] * 4
    assert [one["prompt"] for one in second] == list("abcd")
    assert proxy.fired == 1
    proxy.fault.silent = {alive[0]}  # it has come back
    proxy.fault.engines, proxy.fault.looked = alive, 0.0
    assert [ask(client, prompt).status for prompt in "ef"] == [200] * 2
    assert len(first) == 1, "it answers every second request again"
