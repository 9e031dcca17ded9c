"""Reloads of many requests at once, and the curve over lengths."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.catalogue import limits
from fixtures.core.errors import NotJudged
from fixtures.evidence.metrics import EngineCounters
from fixtures.experiments import latency
from fixtures.instruments.prompts import Prompt, Prompts
from fixtures.instruments.response import Response
from fixtures.instruments.trials import MIN_TRIALS, Interval
from fixtures.subject.exchange import Exchange, TokenSources
from tests.fakes.timed_stack import CHUNK, FakeStack

# --- LAT-06 -----------------------------------------------------------------------------------------------------------


@dataclass
class Together:
    """Rounds whose ratio of reload to cold is chosen here."""

    ratios: list[float]
    lost: int = 0
    rounds: int = 0
    cold: bool = False
    kept: list[TokenSources] = field(default_factory=list)

    engine = SimpleNamespace(counters=lambda: EngineCounters(preemptions=0))

    def clear_prefix_cache(self) -> None:
        pass

    @property
    def tier(self) -> Any:
        return SimpleNamespace(expect_kept=lambda _, tokens: self.kept.append(tokens))

    def complete_concurrently(
        self, prompts: list[Prompt], *, at_once: int, stream: bool
    ) -> tuple[list[Exchange], TokenSources]:
        assert stream
        self.cold = not self.cold
        self.rounds += self.cold
        seconds = 1.0 if self.cold else self.ratios[(self.rounds - 1) % len(self.ratios)]
        loaded = 0 if self.cold else sum(prompt.whole_chunk_tokens for prompt in prompts) - self.lost
        response = Response(200, {}, "", total_s=seconds, content_s=(seconds,))
        return [Exchange(one, {}, response, "engine-0") for one in prompts], TokenSources(at_once, 0, loaded)

    @property
    def accounting(self) -> Any:
        return SimpleNamespace(expect_retrieved=lambda exchange: None)


def together(stack: Together) -> Interval:
    return latency.measure_together(stack, Prompts(3, "together", CHUNK, 20000))  # type: ignore[arg-type]


@pytest.mark.parametrize(("ratio", "below"), [(0.5, True), (1.2, False)])
def test_clear_rounds_decide(ratio: float, below: bool) -> None:
    stack = Together([ratio])
    assert (together(stack).high < limits.RELOAD_OVER_COLD) == below
    assert stack.rounds == latency.ROUNDS + (0 if below else latency.MORE_ROUNDS), "to fail takes more confidence"


def test_one_slow_round_is_outvoted_by_three_more() -> None:
    stack = Together([0.5, 0.5, 2.0, *[0.5] * 6])
    assert together(stack).high == 0.5
    assert stack.rounds == latency.ROUNDS + latency.MORE_ROUNDS


def test_rounds_that_disagree_are_too_noisy() -> None:
    with pytest.raises(NotJudged, match="after 9 rounds"):
        together(Together([0.5, 1.2]))


def test_rounds_that_load_too_little_are_reported_and_not_timed() -> None:
    stack = Together([0.5], lost=CHUNK)
    with pytest.raises(NotJudged, match=r"no round .* was loaded completely \(ACC-02\)"):
        together(stack)
    assert len(stack.kept) == latency.ROUNDS


# --- LAT-08 -----------------------------------------------------------------------------------------------------------


def curve_of(stack: FakeStack, longest: int = 20000) -> tuple[Any, ...]:
    source = Prompts(3, "curve", CHUNK, longest)
    return latency.measure_curve(stack, source, latency.measure(stack, source))  # type: ignore[arg-type]


def test_every_length_with_room_has_pairs_that_decide() -> None:
    assert {(one.room, len(one.trials) >= MIN_TRIALS) for one in curve_of(FakeStack())} == {(True, True)}


def test_a_length_without_room_is_a_picture_only() -> None:
    """A fixed cost of 60 ms is more than half of a prompt of 1 k, which takes 100 ms beyond it, and less of any longer one."""
    curve = curve_of(FakeStack(fixed_s=0.12, reload_s=lambda _: 0.121))
    assert [(one.prompt_tokens, one.room, len(one.trials)) for one in curve if one.prompt_tokens <= 1025] == [
        (1025, False, latency.CURVE_PAIRS)
    ]
    assert all(one.room for one in curve if one.prompt_tokens > 1025)


def test_a_load_that_is_slow_for_long_prompts_only_is_seen_at_its_length() -> None:
    slow = FakeStack(reload_s=lambda prompt: 2.0 if prompt.tokens > 4000 else 0.002)
    found = {one.prompt_tokens: one.ratio.low >= limits.RELOAD_OVER_COLD for one in curve_of(slow)}
    assert found == {257: False, 1025: False, 2049: False, 4097: True, 8193: True}
