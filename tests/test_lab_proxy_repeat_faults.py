"""Faults of the proxy that treat a repeated prompt differently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.waiting import poll
from tests.fakes import proxied_engine
from tests.fakes.proxied_engine import ask

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

engine = proxied_engine.engine
through = proxied_engine.through


def test_an_answer_alone_is_not_swapped(through: Any) -> None:
    client, proxy = through("swap", seconds=0.05)
    assert ask(client, "a").json["choices"][0]["text"] == "a"
    assert proxy.fired == 0


@pytest.mark.parametrize("stream", [True, False])
def test_slow_repeat(through: Any, stream: bool) -> None:
    client, proxy = through("slow-repeat")
    first = ask(client, [1, 2, 3], wait=0.3, stream=stream)
    again = ask(client, [1, 2, 3], wait=0.3, stream=stream)
    assert again.text == first.text
    assert again.total_s > 0.55
    assert proxy.fired == 1


@pytest.mark.long
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("shadow", [True, False])
def test_edge_cache(engine: ThreadingHTTPServer, through: Any, stream: bool, shadow: bool) -> None:
    client, proxy = through("edge-cache", shadow=shadow, most=1)
    seen = engine.RequestHandlerClass.seen  # type: ignore[attr-defined]
    first = ask(client, [1, 2, 3], wait=1.0, stream=stream)
    again = ask(client, [1, 2, 3], wait=1.0, stream=stream)
    assert again.text == first.text
    assert again.total_s < 0.9
    assert proxy.fired == 1
    wanted = 2 if shadow else 1
    assert poll(lambda: len(seen), lambda count: count >= wanted, 10.0) == wanted
    ask(client, [1, 2, 3], wait=1.0, stream=stream)
    assert proxy.fired == 1
    assert len(seen) == (3 if shadow else 2)
