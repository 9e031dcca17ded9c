"""Gauges that are read while requests run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fixtures.core.errors import NotJudged
from fixtures.core.waiting import poll
from fixtures.evidence.metrics import EngineCounters
from fixtures.experiments.watch import Watch


def test_gauges_are_read_while_requests_run() -> None:
    engine: Any = SimpleNamespace(counters=lambda: EngineCounters(running=2, waiting=3, kv_usage=0.25))
    with Watch(engine) as watch:
        poll(lambda: len(watch.seen), bool, 5.0)
    assert (watch.most_in_flight, watch.most_waiting, watch.most_of_pool) == (5, 3, 0.25)


def test_what_a_page_does_not_have_is_none_and_the_most_of_all_readings_counts() -> None:
    watch = Watch(None)  # type: ignore[arg-type]
    watch.seen = [EngineCounters(running=2), EngineCounters(waiting=1, kv_usage=0.5), EngineCounters(kv_usage=0.25)]
    assert (watch.most_in_flight, watch.most_waiting, watch.most_of_pool) == (2, 1, 0.5)


def test_a_page_that_cannot_be_read_is_left_out() -> None:
    def fails() -> EngineCounters:
        raise NotJudged("no metrics")

    engine: Any = SimpleNamespace(counters=fails)
    with Watch(engine) as watch:
        pass
    assert (watch.most_in_flight, watch.most_waiting, watch.most_of_pool) == (0, 0, 0.0)
