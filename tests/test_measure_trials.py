"""Intervals, the stopping rule, and the gates of latency trials."""

from __future__ import annotations

import itertools
import random
import statistics
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.errors import NotJudged
from fixtures.measure.trials import (
    MAX_TRIALS,
    MIN_TRIALS,
    STEP,
    Interval,
    Trial,
    Trials,
    bootstrap_median,
    sequential,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS = st.floats(0.001, 100, allow_nan=False)


def trial(ratio: float, cold: float = 1.0, fixed: float = 0.01) -> Trial:
    return Trial(cold_s=cold, reload_s=ratio * cold, fixed_s=fixed)


def trials(*all_trials: Trial, transfer: float = 0.0) -> Trials:
    return Trials(prompt_tokens=4097, loaded_tokens=4096, transfer_s=transfer, trials=all_trials)


# --- intervals --------------------------------------------------------------------------------------------------------


@given(samples=st.lists(SECONDS, min_size=1, max_size=30), confidence=st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=60, deadline=None)
def test_an_interval_covers_its_median_and_stays_within_its_samples(samples: list[float], confidence: float) -> None:
    found = bootstrap_median(samples, confidence)
    assert found.median == statistics.median(samples)
    assert found.n == len(samples)
    least = 1e-9
    assert min(samples) - least <= found.low <= found.median + least
    assert found.median - least <= found.high <= max(samples) + least


@given(samples=st.lists(SECONDS, min_size=1, max_size=24))
@settings(max_examples=20, deadline=None)
def test_an_interval_is_the_same_every_time(samples: list[float]) -> None:
    assert bootstrap_median(samples) == bootstrap_median(samples)


def test_one_sample_is_its_own_interval() -> None:
    assert bootstrap_median([0.5]) == Interval(0.5, 0.5, 0.5, 1)


def test_no_sample_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        bootstrap_median([])


def test_more_confidence_is_wider_and_more_samples_are_narrower() -> None:
    source = random.Random(4)
    samples = [source.gauss(1, 0.2) for _ in range(200)]
    few, sure, many = bootstrap_median(samples[:12]), bootstrap_median(samples[:12], 0.99), bootstrap_median(samples)
    assert sure.low <= few.low <= few.high <= sure.high
    assert sure.high - sure.low > few.high - few.low > many.high - many.low


def test_an_interval_covers_the_true_median_as_often_as_it_says() -> None:
    source = random.Random(11)
    covered = 0
    for _ in range(120):
        found = bootstrap_median([source.lognormvariate(0, 0.5) for _ in range(15)], resamples=400)
        covered += found.low <= 1.0 <= found.high
    assert covered >= 0.88 * 120


def test_one_wild_sample_does_not_move_a_verdict() -> None:
    assert bootstrap_median([0.5] * 9 + [50.0]).high < 0.9


# --- when to stop -----------------------------------------------------------------------------------------------------


def counted(ratios: Sequence[float], gate: float = 0.9, **options: int) -> int:
    source = itertools.cycle(ratios)
    return len(sequential(lambda: trial(next(source)), gate, **options))


@pytest.mark.parametrize("ratios", [[0.3, 0.35, 0.4], [2.0, 1.8, 2.2]], ids=["clearly-faster", "clearly-slower"])
def test_a_clear_case_ends_at_the_first_look(ratios: list[float]) -> None:
    assert counted(ratios) == MIN_TRIALS


def test_an_undecided_case_goes_to_the_maximum() -> None:
    assert counted([0.7, 1.1]) == MAX_TRIALS
    assert counted([0.9]) == MAX_TRIALS, "exactly at the gate is undecided"
    assert counted([0.7, 1.1], most=10) == 10
    assert counted([0.3], most=2) == 2


def test_looks_come_in_steps() -> None:
    """Two slow pairs among the first six leave it open; the next look decides."""
    assert counted([1.2, 1.2, 0.3, 0.3, 0.3, 0.3, *[0.3] * 20]) in range(MIN_TRIALS + STEP, MAX_TRIALS, STEP)


@given(ratios=st.lists(st.floats(0.1, 3), min_size=24, max_size=24), gate=st.floats(0.5, 1.5))
@settings(max_examples=15, deadline=None)
def test_every_trial_that_was_run_is_kept(ratios: list[float], gate: float) -> None:
    source = iter(ratios)
    kept = sequential(lambda: trial(next(source)), gate)
    assert [one.ratio for one in kept] == pytest.approx(ratios[: len(kept)])
    assert MIN_TRIALS <= len(kept) <= MAX_TRIALS
    assert len(kept) == MAX_TRIALS or (len(kept) - MIN_TRIALS) % STEP == 0


# --- what is claimed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "judged"),
    [(0.5, 0.8, True), (0.95, 1.2, True), (0.8, 1.0, False), (0.8, 0.9, False), (0.9, 1.2, True), (0.9, 0.9, True)],
    ids=["below", "above", "across", "up-to-the-gate", "from-the-gate-on", "the-gate"],
)
def test_not_judged_exactly_where_the_interval_lies_across_the_gate(
    low: float, high: float, judged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trials, "ratio", property(lambda self: Interval((low + high) / 2, low, high, 24)))
    if judged:
        trials(trial(1)).check_decided(0.9)
    else:
        with pytest.raises(NotJudged, match=r"after 24 pairs .* still lies across 0\.9"):
            trials(trial(1)).check_decided(0.9)


@given(ratios=st.lists(st.floats(0.1, 3), min_size=1, max_size=24))
@settings(max_examples=40, deadline=None)
def test_decided_means_that_the_gate_says_yes_or_no(ratios: list[float]) -> None:
    """Never both: what is judged is either wholly below the gate or wholly at or above it."""
    judged = trials(*(trial(ratio) for ratio in ratios))
    try:
        judged.check_decided(0.9)
    except NotJudged:
        assert judged.ratio.low < 0.9 <= judged.ratio.high
    else:
        assert judged.ratio.high < 0.9 or judged.ratio.low >= 0.9


def test_floor_and_efficiency_by_hand() -> None:
    """Floor = 0.06 moved + median(0.02, 0.04, 0.09) fixed = 0.10 s."""
    judged = trials(
        Trial(cold_s=1.1, reload_s=0.3, fixed_s=0.02),  # (1.1 - 0.3) / (1.1 - 0.1) = 0.8
        Trial(cold_s=0.6, reload_s=0.35, fixed_s=0.04),  # 0.25 / 0.5 = 0.5
        Trial(cold_s=2.1, reload_s=0.3, fixed_s=0.09),  # 1.8 / 2.0 = 0.9
        transfer=0.06,
    )
    assert judged.floor_s == pytest.approx(0.10)
    assert judged.efficiency.median == pytest.approx(0.8)
    assert (judged.efficiency.low, judged.efficiency.high) == pytest.approx((0.5, 0.9))
    assert judged.ratio.median == pytest.approx(0.3 / 1.1)
    assert (judged.cold.median, judged.reload.median) == pytest.approx((1.1, 0.3))


@pytest.mark.parametrize(
    ("reload", "expected"),
    [(0.2, 1.0), (1.0, 0.0), (1.8, -1.0), (0.1, 1.125)],
    ids=["floor", "cold", "slower", "below"],
)
def test_efficiency_is_one_at_the_floor_and_nought_at_cold(reload: float, expected: float) -> None:
    judged = trials(Trial(cold_s=1.0, reload_s=reload, fixed_s=0.15), transfer=0.05)
    assert judged.efficiency.median == pytest.approx(expected)


def test_a_trial_below_the_floor_has_no_efficiency() -> None:
    """Where cold is no slower than the floor nothing can be saved: such trials are left out, not divided by zero."""
    below = Trial(cold_s=0.2, reload_s=0.1, fixed_s=0.15)
    assert trials(below, transfer=0.05).efficiency == Interval(0.0, 0.0, 0.0, 1)
    good = Trial(cold_s=1.0, reload_s=0.6, fixed_s=0.15)
    assert trials(below, good, transfer=0.05).efficiency.median == pytest.approx(0.5)


def test_an_interval_is_readable() -> None:
    assert str(Interval(0.42, 0.4012, 0.5, 9)) == "0.42 [0.401, 0.5], n=9"
