"""Faults of the proxy that change requests, metrics or delays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import SubjectFault
from fixtures.instruments.client import Client
from lab.proxy.fault import Fault
from lab.proxy.server import Proxy
from tests.fakes import proxied_engine
from tests.fakes.proxied_engine import ask

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

engine = proxied_engine.engine
through = proxied_engine.through


def test_status(through: Any) -> None:
    client, _ = through("status", status=500, every=3)
    assert [ask(client).status for _ in range(6)] == [200, 200, 500, 200, 200, 500]


def test_status_when_busy(through: Any) -> None:
    client, proxy = through("status", status=503, busy=3)
    assert ask(client).status == 200
    with ThreadPoolExecutor(4) as pool:
        assert 503 in list(pool.map(lambda _: ask(client, wait=0.3).status, range(4)))
    assert proxy.fired >= 1


def test_bad_requests(through: Any) -> None:
    client, _ = through("bad-requests", status=200)
    assert ask(client, bad=True).status == 200
    client, _ = through("bad-requests", body="no")
    response = ask(client, bad=True)
    assert (response.status, response.text) == (400, "no")
    assert ask(client).status == 200


def test_forward_as(engine: ThreadingHTTPServer, through: Any) -> None:
    client, proxy = through("forward-as", change={"temperature": 2.0}, drop=("stop",))
    ask(client, stop=["x"], temperature=0)
    assert engine.RequestHandlerClass.seen[-1]["temperature"] == 2.0  # type: ignore[attr-defined]
    assert "stop" not in engine.RequestHandlerClass.seen[-1]  # type: ignore[attr-defined]
    assert proxy.fired == 1


def test_swap(through: Any) -> None:
    client, proxy = through("swap", seconds=2.0)
    with ThreadPoolExecutor(2) as pool:
        texts = list(pool.map(lambda p: ask(client, p, wait=0.1).json["choices"][0]["text"], ["a", "b"]))
    assert texts == ["b", "a"]
    assert proxy.fired == 1


def test_delay(through: Any) -> None:
    client, _ = through("delay", seconds=0.2)
    assert ask(client).total_s > 0.2


def test_delay_of_one_path(through: Any) -> None:
    client, proxy = through("delay", seconds=0.2, path="/metrics")
    assert client.get("/metrics").total_s > 0.2
    ask(client)
    assert proxy.fired == 1


def test_an_engine_that_is_gone_breaks_the_connection() -> None:
    with Proxy("http://127.0.0.1:9", Fault()) as proxy, pytest.raises(SubjectFault):
        Client(proxy.url).get("/health")
