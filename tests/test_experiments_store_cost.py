"""What storing costs, beside what the machine itself costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.baseline_record import Baseline
from fixtures.core.errors import NotJudged
from fixtures.experiments import store_cost
from fixtures.instruments.prompts import Prompt, Prompts
from fixtures.instruments.trials import Interval
from tests.fakes.timed_stack import CHUNK, FakeStack

if TYPE_CHECKING:
    from fixtures.subject.exchange import Exchange


@pytest.mark.parametrize(
    ("cold_s", "decided", "within"),
    [(100e-6, True, True), (200e-6, True, False), ([*[300e-6] * 5, *[50e-6] * 5], False, False)],
    ids=["as-without", "twice", "noisy"],
)
def test_what_the_store_costs(cold_s: Any, decided: bool, within: bool) -> None:
    baseline = Baseline(pool_tokens=1, prompt_tokens=4097, cold_s=(0.4107,) * 8)
    times = iter(cold_s if isinstance(cold_s, list) else [cold_s] * 10)

    class Varying(FakeStack):
        def complete(self, prompt: Prompt, *, stream: bool, **_: Any) -> Exchange:
            self.cold_s = next(times)
            return super().complete(prompt, stream=stream)

    cost = store_cost.store_cost(Varying(), Prompts(3, "cost", CHUNK, 20000), baseline)  # type: ignore[arg-type]
    assert cost.allowed_s(0.4107) == pytest.approx(1.25 * 0.4107 + 0.05)
    if decided:
        cost.check_decided()
        assert cost.too_slow != within
    else:
        with pytest.raises(NotJudged, match=r"includes the limit \(0\.563 to 0\.563 s"):
            cost.check_decided()


def test_a_machine_that_is_faster_now_does_not_hide_the_store() -> None:
    """Cold prompts take as long as without the connector, while what is not stored takes half as long."""
    baseline = Baseline(pool_tokens=1, prompt_tokens=4097, cold_s=(0.4107,) * 8, unstored_s=(2 * 0.4107,) * 8)
    cost = store_cost.store_cost(FakeStack(), Prompts(3, "cost", CHUNK, 20000), baseline)  # type: ignore[arg-type]
    assert not cost.too_slow
    with pytest.raises(NotJudged, match=r"takes 0\.\d+ times as long as then"):
        cost.check_decided()


@pytest.mark.parametrize("slower", [1, 2], ids=["same-machine", "slower-machine"])
def test_a_machine_that_is_slower_now_is_not_the_store(slower: int) -> None:
    """Cold prompts take twice as long: the store's doing, unless those that are not stored do, too."""
    as_then = 0.001 + 100e-6 * 4097
    baseline = Baseline(pool_tokens=1, prompt_tokens=4097, cold_s=(0.4107,) * 8, unstored_s=(as_then,) * 8)

    class Slower(FakeStack):
        def complete(self, prompt: Prompt, *, stream: bool, **_: Any) -> Exchange:
            self.cold_s = 200e-6 if prompt.tokens == 4097 else slower * 100e-6
            return super().complete(prompt, stream=stream)

    cost = store_cost.store_cost(Slower(), Prompts(3, "cost", CHUNK, 20000), baseline)  # type: ignore[arg-type]
    if slower == 1:
        cost.check_decided()
        assert cost.too_slow
    else:
        with pytest.raises(NotJudged, match=r"also take \S+ times as long"):
            cost.check_decided()


@pytest.mark.parametrize(
    ("pace", "slower", "faster"),
    [
        (store_cost.Pace(), 1.0, 1.0),
        (store_cost.Pace(1.0, 0.95, 1.05), 1.05, 1.0),
        (store_cost.Pace(0.8, 0.75, 0.85), 1.0, 0.8),
        (store_cost.Pace(0.8, 0.5, 1.2), 1.2, 0.5),
        (store_cost.Pace(1.5, 0.7, 2.0), 2.0, 0.7),
    ],
    ids=["unknown", "the-same", "faster", "unsteady", "slower-and-unsteady"],
)
def test_an_unsteady_machine_may_have_helped_as_much_as_it_ever_did(
    pace: store_cost.Pace, slower: float, faster: float
) -> None:
    assert (pace.slower, pace.faster) == (slower, faster)


def test_prompts_of_which_nothing_is_stored_are_shorter_than_a_chunk() -> None:
    stack = FakeStack()
    found = store_cost.measure_unstored(stack, Prompts(3, "cost", CHUNK, 20000), 4097)  # type: ignore[arg-type]
    assert len(found) == store_cost.UNSTORED_TRIALS
    assert {prompt.tokens for prompt in stack.asked} == {CHUNK - 1}
    assert not any(prompt.storable_tokens for prompt in stack.asked)
    assert len(stack.asked) == (store_cost.UNSTORED_TRIALS + 1) * (4097 // (CHUNK - 1)), "as many tokens as are stored"


@pytest.mark.parametrize(
    ("cold_s", "longest", "tokens"),
    [(100e-6, 20000, 9985), (100e-6, 160, 145), (100e-6, 161, 161), (1.0, 20000, 17)],
    ids=["half-of-the-longest", "one-less-than-whole", "whole", "slow"],
)
def test_the_longest_prompt_of_a_second_is_halved_until_it_is_one(cold_s: float, longest: int, tokens: int) -> None:
    stack, source = FakeStack(cold_s=cold_s), Prompts(3, "cost", CHUNK, longest)
    assert store_cost.longest_within_a_second(stack, source) == tokens  # type: ignore[arg-type]


def cost_of(factor: float, pace: store_cost.Pace) -> store_cost.StoreCost:
    """Every cold prompt takes ``factor`` times what is allowed."""
    without = Interval(0.4, 0.4, 0.4, 8)
    cold_s = factor * store_cost.StoreCost(without, without, pace).allowed_s(0.4)
    return store_cost.StoreCost(Interval(cold_s, cold_s, cold_s, 8), without, pace)


def test_the_limit_itself_is_met_and_what_a_slower_machine_just_explains_is_not_judged() -> None:
    met = cost_of(1.0, store_cost.Pace())
    met.check_decided()
    assert not met.too_slow
    with pytest.raises(NotJudged, match=r"also take 1\.5 times as long"):
        cost_of(1.5, store_cost.Pace(1.2, 1.0, 1.5)).check_decided()
    beyond = cost_of(1.51, store_cost.Pace(1.2, 1.0, 1.5))
    beyond.check_decided()
    assert beyond.too_slow
