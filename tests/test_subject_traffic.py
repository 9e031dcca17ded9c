"""Requests of other clients: what they may have changed is not judged."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NotJudged, SubjectGone
from fixtures.core.record import EngineServer, Server
from fixtures.evidence.metrics import EngineCounters
from fixtures.experiments.aborts import abort_requests
from fixtures.subject.exchange import TokenSources
from fixtures.subject.stack import Stack
from fixtures.subject.traffic import assert_idle
from tests.fakes import engine_server
from tests.fakes.engine_server import FakeServer, record, serving

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.instruments.prompts import Prompts
    from fixtures.subject.exchange import Exchange

cache = engine_server.cache
engine = engine_server.engine
prompts = engine_server.prompts


def test_foreign_traffic_is_not_judged(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    def two(payload: dict[str, Any]) -> None:
        engine.count(payload)
        engine.count({"prompt": [1] * 17})

    engine.on_post = two
    stack = Stack(record(tmp_path, engine.url))
    seen: list[Exchange] = []
    stack.context.on_exchange = seen.append
    with pytest.raises(
        NotJudged, match=r"engine-0 finished 2 requests, but this suite sent only 1: it has other clients"
    ):
        stack.complete(prompts.of_length(50))
    assert seen == [], "what is thrown away is not evidence"
    with pytest.raises(NotJudged, match="engine-0 finished 6 requests, but this suite sent only 3"):
        stack.complete_concurrently([prompts.of_length(50) for _ in range(3)], at_once=3)


@pytest.mark.parametrize("together", [False, True], ids=["alone", "together"])
def test_a_request_of_another_client_that_still_runs_is_not_judged(
    tmp_path: Path, engine: FakeServer, prompts: Prompts, together: bool
) -> None:
    def another_begins(payload: dict[str, Any]) -> None:
        engine.count(payload)
        engine.counts["computed"] += 700  # prefilled, and still decoding when ours is answered
        engine.running = 1

    engine.on_post = another_begins
    stack = Stack(record(tmp_path, engine.url), deadlines=Deadlines(counted_s=0.2))
    ask = (lambda prompt: stack.complete_concurrently([prompt])) if together else stack.complete
    with pytest.raises(NotJudged, match=r"engine-0 is still busy \(1 running, 0 waiting\) although the 1 request\(s\)"):
        ask(prompts.of_length(50))


def test_another_engine_on_the_same_cache_server_is_watched(
    tmp_path: Path, engine: FakeServer, cache: FakeServer, prompts: Prompts
) -> None:
    with serving() as second:
        engines = [
            EngineServer(name=name, url=one.url, cache_server="kv")
            for name, one in (("engine-0", engine), ("engine-1", second))
        ]
        stack = Stack(record(tmp_path, engines=engines, cache_servers=[Server(name="kv", url=cache.url)]))
        assert stack.complete(prompts.of_length(50)).tokens == TokenSources(50, 0, 0)

        def both(payload: dict[str, Any]) -> None:
            engine.count(payload)
            second.count(payload)

        engine.on_post = both
        with pytest.raises(
            NotJudged, match="engine engine-1 shares the cache server of engine-0 and served other clients"
        ):
            stack.complete(prompts.of_length(50))


def test_a_busy_engine_is_not_judged(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    engine.running, engine.waiting = 2, 1
    with pytest.raises(
        NotJudged, match=r"engine-0 is busy \(2 running, 1 waiting\), although this suite sends no request"
    ):
        Stack(record(tmp_path, engine.url), deadlines=Deadlines(idle_s=0.2)).complete(prompts.of_length(50))
    assert engine.posts == []


def test_requests_that_this_suite_aborted_are_its_own(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    stack = Stack(record(tmp_path, engine.url), deadlines=Deadlines(idle_s=0.2, drained_s=0.1))
    engine.on_post = lambda _: setattr(engine, "running", 1)
    abort_requests(stack, [prompts.of_length(50)])
    with pytest.raises(
        SubjectGone, match=r"busy \(1 running, 0 waiting\) with requests of this suite that were aborted"
    ):
        stack.complete(prompts.of_length(50))
    (incident,) = stack.context.incidents.of("MEM-03")
    assert "expected an idle engine" in incident.text
    engine.running, engine.on_post = 0, engine.count
    stack.traffic.wait_until_idle()
    assert stack.complete(prompts.of_length(50)).sources.computed == 50


def test_an_engine_that_comes_to_rest_is_waited_for(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    engine.running = 1
    threading.Timer(0.15, setattr, [engine, "running", 0]).start()
    assert Stack(record(tmp_path, engine.url)).complete(prompts.of_length(50)).sources.computed == 50


def test_what_is_left_of_a_load_is_reported() -> None:
    assert_idle(EngineCounters(running=0, waiting=0, kv_usage=0.5), "afterwards", pool=False)
    with pytest.raises(AssertionError, match=r"held after the load, got 50\.00% of the pool"):
        assert_idle(EngineCounters(running=0, waiting=0, kv_usage=0.5), "after the load")
    with pytest.raises(AssertionError, match="nothing waiting afterwards, got 0 running and 2 waiting requests"):
        assert_idle(EngineCounters(running=0, waiting=2, kv_usage=0.1), "afterwards")
    for silent in (EngineCounters(), EngineCounters(running=0, waiting=0)):
        with pytest.raises(NotJudged, match="do not say what runs"):
            assert_idle(silent, "afterwards")
