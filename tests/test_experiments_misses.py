"""What a request waits for that finds nothing in the tier."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.catalogue import limits
from fixtures.core.errors import NotJudged
from fixtures.evidence.metrics import EngineCounters
from fixtures.experiments import misses
from fixtures.instruments.prompts import Prompt, Prompts
from fixtures.instruments.trials import Interval
from tests.fakes.timed_stack import CHUNK, FakeStack

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.subject.exchange import Exchange


def waits(*seen: float, inside: float | None = None) -> tuple[misses.RequestWait, ...]:
    return tuple(misses.RequestWait(one, one if inside is None else inside) for one in seen)


QUICK = waits(*[0.01] * 9)


def misses_of(fixed: Any = QUICK, found: Any = QUICK, **fields: Any) -> misses.Misses:
    return misses.Misses(fixed, found, **{"without": None, "load": 0.5} | fields)


def test_quick_answers_are_decided() -> None:
    misses_of().check_decided()


@pytest.mark.parametrize("name", ["fixed", "found"])
def test_a_wait_of_every_request_inside_of_the_engine_is_the_caches(name: str) -> None:
    held = misses_of(**{name: waits(*[0.3] * 9)})
    held.check_decided()
    assert max(held.fixed_wait.low, held.miss_wait.low) == 0.3


@pytest.mark.parametrize("name", ["fixed", "found"])
def test_a_wait_outside_of_the_engine_is_not_the_caches(name: str) -> None:
    """A proxy holds the first event of every stream for 300 ms, cold and warm alike."""
    with pytest.raises(NotJudged, match=r"waits 300 ms, but by the engine's own clock only 10 ms: .*proxy"):
        misses_of(**{name: waits(*[0.3] * 9, inside=0.01)}).check_decided()


def test_a_wait_without_the_connector_too_is_not_the_caches() -> None:
    with pytest.raises(NotJudged, match="310 ms on the same engine without its connector"):
        misses_of(waits(*[0.3] * 9), without=Interval(0.31, 0.3, 0.32, 9)).check_decided()
    misses_of(waits(*[0.3] * 9), without=Interval(0.01, 0.01, 0.02, 9)).check_decided()


@pytest.mark.parametrize("name", ["fixed", "found"])
def test_a_busy_machine_is_not_judged(name: str) -> None:
    noisy = waits(*[0.02] * 4, *[0.269] * 5)
    with pytest.raises(NotJudged, match="too noisy"):
        misses_of(**{name: noisy}).check_decided()
    with pytest.raises(NotJudged, match=r"15\.0 runnable processes per core"):
        misses_of(**{name: waits(*[0.3] * 9)}, load=15.0).check_decided()


def test_one_stall_is_not_a_verdict_and_two_are() -> None:
    one = misses_of(found=waits(*[0.01] * 20, 2.5))
    with pytest.raises(NotJudged, match=r"only one of 21 misses waited, for 2\.5 s"):
        one.check_decided()
    two = misses_of(found=waits(*[0.01] * 19, 2.5, 3.0))
    two.check_decided()
    assert two.stalls == 2


class Timed(FakeStack):
    """Its engine counts TTFT itself; ``holds`` seconds pass between the engine and the client."""

    holds: float = 0.0
    waits: Callable[[Prompt], float] = staticmethod(lambda prompt: 0.0)
    ttft_sum: float = 0.0

    @property
    def engine(self) -> Any:
        return SimpleNamespace(
            counters=lambda: EngineCounters(ttft_sum=self.ttft_sum, ttft_count=len(self.asked)),
            client=SimpleNamespace(get=lambda path: None),
        )

    def complete(self, prompt: Prompt, *, stream: bool, **_: Any) -> Exchange:
        exchange = super().complete(prompt, stream=stream)
        inside = exchange.ttft_s + self.waits(prompt)
        self.ttft_sum += inside
        response = replace(exchange.response, content_s=(inside + self.holds,), total_s=inside + self.holds)
        return replace(exchange, response=response)


@pytest.mark.parametrize("holder", ["nothing", "proxy", "lookup"])
def test_who_holds_the_first_event_is_told_apart(holder: str) -> None:
    stack = Timed()
    stack.holds = 0.3 if holder == "proxy" else 0.0
    stack.waits = lambda prompt: 0.3 if holder == "lookup" and prompt.tokens >= CHUNK else 0.0
    found = misses.measure_misses(stack, Prompts(3, "misses", CHUNK, 20000))  # type: ignore[arg-type]
    assert len(found.misses) == misses.MISSES
    if holder == "proxy":
        with pytest.raises(NotJudged, match="proxy"):
            found.check_decided()
    else:
        found.check_decided()
        assert (found.miss_wait.low >= limits.MISS_WAIT_S) == (holder == "lookup")


def test_a_miss_by_hand() -> None:
    """Of 15 tokens 2.5 ms, of 33 tokens 4.3 ms inside, 2 ms more outside; the second one has counters from before."""
    stack, source = Timed(), Prompts(3, "misses", CHUNK, 20000)
    stack.holds = 0.002
    for _ in range(2):
        found = misses._miss(stack, source)  # type: ignore[arg-type]
        assert found.seen_s == pytest.approx(0.0063 - 3 * 0.0045)
        assert found.engine_s == pytest.approx(0.0043 - 3 * 0.0025)


@pytest.mark.parametrize("counted", [None, 2], ids=["not-counted", "beside-another"])
def test_the_engines_clock_says_nothing_of_one_request_among_others(counted: int | None) -> None:
    class Others(Timed):
        @property
        def engine(self) -> Any:
            count = None if counted is None else counted * len(self.asked)
            return SimpleNamespace(counters=lambda: EngineCounters(ttft_sum=1.0, ttft_count=count))

    assert misses._miss(Others(), Prompts(3, "misses", CHUNK, 20000)).engine_s is None  # type: ignore[arg-type]


def test_a_stall_is_looked_for_again() -> None:
    stack = Timed()
    stack.waits = lambda prompt: 3.0 if len(stack.asked) == 3 else 0.0
    found = misses.measure_misses(stack, Prompts(3, "misses", CHUNK, 20000))  # type: ignore[arg-type]
    assert found.stalls == 1
    assert len(found.misses) == misses.MISSES + misses.MORE_MISSES
