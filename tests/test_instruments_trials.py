"""Intervals, the stopping rule, and the gates of latency trials."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.core.errors import NotJudged
from fixtures.instruments.trials import (
    MAX_TRIALS,
    MIN_TRIALS,
    STEP,
    Interval,
    Trial,
    Trials,
    median_interval,
    sequential,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS = st.floats(0.001, 100, allow_nan=False)


def trial(ratio: float, cold: float = 1.0, fixed: float = 0.01) -> Trial:
    return Trial(cold_s=cold, reload_s=ratio * cold, fixed_s=fixed)


def trials(*all_trials: Trial, transfer: float | None = 0.0) -> Trials:
    return Trials(prompt_tokens=4097, loaded_tokens=4096, transfer_s=transfer, trials=all_trials)


# --- intervals --------------------------------------------------------------------------------------------------------


@given(samples=st.lists(SECONDS, min_size=1, max_size=30), confidence=st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=60, deadline=None)
def test_an_interval_covers_its_median_and_stays_within_its_samples(samples: list[float], confidence: float) -> None:
    found = median_interval(samples, confidence)
    assert found.median == statistics.median(samples)
    assert found.n == len(samples)
    least = 1e-9
    assert min(samples) - least <= found.low <= found.median + least
    assert found.median - least <= found.high <= max(samples) + least


@given(samples=st.lists(SECONDS, min_size=1, max_size=24))
@settings(max_examples=20, deadline=None)
def test_an_interval_is_the_same_every_time(samples: list[float]) -> None:
    assert median_interval(samples) == median_interval(samples)


def test_one_sample_is_its_own_interval() -> None:
    assert median_interval([0.5]) == Interval(0.5, 0.5, 0.5, 1, enough=False)


def test_no_sample_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        median_interval([])


def test_more_confidence_is_wider_and_more_samples_are_narrower() -> None:
    source = random.Random(4)
    samples = [source.gauss(1, 0.2) for _ in range(200)]
    few, sure, many = median_interval(samples[:12]), median_interval(samples[:12], 0.99), median_interval(samples)
    assert sure.low <= few.low <= few.high <= sure.high
    assert sure.high - sure.low > few.high - few.low > many.high - many.low


def test_an_interval_covers_the_true_median_as_often_as_it_says() -> None:
    source = random.Random(11)
    covered = 0
    for _ in range(120):
        found = median_interval([source.lognormvariate(0, 0.5) for _ in range(15)])
        covered += found.low <= 1.0 <= found.high
    assert covered >= 0.92 * 120


@pytest.mark.parametrize(
    ("n", "confidence", "rank"),
    [
        (5, 0.95, None),
        (6, 0.95, 1),
        (8, 0.95, 1),
        (9, 0.95, 2),
        (12, 0.95, 3),
        (24, 0.95, 7),
        (7, 0.99, None),
        (8, 0.99, 1),
    ],
)
def test_the_ranks_are_those_of_the_tables(n: int, confidence: float, rank: int | None) -> None:
    """Conover, Practical Nonparametric Statistics, table of the binomial distribution."""
    found = median_interval([float(value) for value in range(1, n + 1)], confidence)
    assert found.enough == (rank is not None)
    assert (found.low, found.high) == (rank or 1, n + 1 - (rank or 1))


@given(n=st.integers(5, 40), confidence=st.sampled_from([0.9, 0.95, 0.99]))
@settings(deadline=None)
def test_an_interval_covers_the_median_at_least_as_often_as_it_says(n: int, confidence: float) -> None:
    """By counting: each sample is below the median of a continuous distribution with probability one half."""
    found = median_interval([float(value) for value in range(1, n + 1)], confidence)
    rank = int(found.low)
    within = sum(math.comb(n, below) for below in range(rank, n - rank + 1)) / 2**n
    assert found.enough == (within >= confidence)
    one_narrower = sum(math.comb(n, below) for below in range(rank + 1, n - rank)) / 2**n
    assert not found.enough or one_narrower < confidence, "no wider than it has to be"


@pytest.mark.parametrize("n", [5, 6, 8, 9, 13, 24, 40])
def test_samples_of_a_skewed_distribution_are_covered_as_often(n: int) -> None:
    source, runs = random.Random(n), 2000
    found = [median_interval([source.lognormvariate(0, 1.0) for _ in range(n)]) for _ in range(runs)]
    share = sum(one.low <= 1.0 <= one.high for one in found) / runs
    assert share >= 0.93 or n < 6


def test_looking_again_and_again_does_not_decide_wrongly() -> None:
    """At a true median that is the gate itself; at one below it nothing is ever called too slow."""
    source, wrong, slow = random.Random(3), 0, 0
    for _ in range(300):
        found = trials(*sequential(lambda: trial(0.9 * source.lognormvariate(0, 0.1)), 0.9))
        wrong += not found.ratio.undecided(0.9)
        found = trials(*sequential(lambda: trial(0.83 * source.lognormvariate(0, 0.1)), 0.9))
        slow += found.ratio.low >= 0.9
    assert wrong <= 0.07 * 300
    assert slow == 0


def test_one_wild_sample_does_not_move_a_verdict() -> None:
    assert median_interval([0.5] * 9 + [50.0]).high < 0.9


# --- when to stop -----------------------------------------------------------------------------------------------------


def counted(ratios: Sequence[float], gate: float = 0.9) -> int:
    source = itertools.cycle(ratios)
    return len(sequential(lambda: trial(next(source)), gate))


@pytest.mark.parametrize("ratios", [[0.3, 0.35, 0.4], [2.0, 1.8, 2.2]], ids=["clearly-faster", "clearly-slower"])
def test_a_clear_case_ends_at_the_first_look(ratios: list[float]) -> None:
    assert counted(ratios) == MIN_TRIALS


def test_an_undecided_case_goes_to_the_maximum() -> None:
    assert counted([0.7, 1.1]) == MAX_TRIALS
    assert counted([0.89, 0.91]) == MAX_TRIALS
    assert len(sequential(lambda: trial(0.3), 0.9, also=lambda done: len(done) >= 15)) == MIN_TRIALS + 2 * STEP


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
    ("ratios", "judged"),
    [
        ([0.5] * 12 + [0.8] * 12, True),
        ([0.95] * 12 + [1.2] * 12, True),
        ([0.9] * 24, True),
        ([0.8] * 12 + [1.0] * 12, False),
        ([0.8] * 6 + [1.0] * 18, False),
        ([0.8] * 5 + [1.0] * 19, True),
        ([1.0] * 7, False),
    ],
    ids=["below", "above", "the-gate", "across", "above-with-95", "above-with-99", "above-but-few"],
)
def test_slower_than_the_gate_needs_more_confidence_than_faster(ratios: list[float], judged: bool) -> None:
    found = trials(*map(trial, ratios))
    if judged:
        found.check_decided(0.9)
        assert found.loses(0.9) == (found.ratio.high >= 0.9)
    else:
        with pytest.raises(NotJudged, match=rf"after {len(ratios)} pairs .* includes 0\.9, or just exceeds it"):
            found.check_decided(0.9)


@given(ratios=st.lists(st.floats(0.1, 3), min_size=1, max_size=24))
@settings(max_examples=40, deadline=None)
def test_decided_means_that_the_gate_says_yes_or_no(ratios: list[float]) -> None:
    """Never both: what is judged is either wholly below the gate or wholly at or above it."""
    judged = trials(*(trial(ratio) for ratio in ratios))
    try:
        judged.check_decided(0.9)
    except NotJudged:
        assert judged.ratio.high >= 0.9 or len(ratios) < 6
        assert not judged.loses(0.9)
    else:
        assert (judged.ratio.high < 0.9) != judged.loses(0.9)


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
    """Where cold is not slower than the floor nothing can be saved: such trials are left out, not divided by zero."""
    below = Trial(cold_s=0.2, reload_s=0.1, fixed_s=0.15)
    assert trials(below, transfer=0.05).efficiency == Interval(0.0, 0.0, 0.0, 1, enough=False)
    good = Trial(cold_s=1.0, reload_s=0.6, fixed_s=0.15)
    assert trials(below, good, transfer=0.05).efficiency.median == pytest.approx(0.5)


def test_an_interval_is_readable() -> None:
    assert str(Interval(0.42, 0.4012, 0.5, 9)) == "0.42 [0.401, 0.5], n=9"


# --- LAT-02 and LAT-03 ------------------------------------------------------------------------------------------------


def test_without_a_link_there_is_no_floor() -> None:
    unknown = Trials(4097, 4096, None, tuple(trial(0.3) for _ in range(8)), no_link="the link is not known")
    assert unknown.ratio.high < 0.9
    for ask in (lambda: unknown.floor_s, lambda: unknown.efficiency):
        with pytest.raises(NotJudged, match="the link is not known"):
            ask()


@pytest.mark.parametrize(
    ("ratios", "outcome"),
    [([0.2, 0.25, 0.3], "above"), ([0.7, 0.75, 0.8], "below"), ([0.3, 0.7], "across")],
)
def test_efficiency_is_decided_by_its_interval(ratios: list[float], outcome: str) -> None:
    """A busy machine: 0.484 [0.353, 0.721] is neither met nor missed."""
    source = itertools.cycle(ratios)
    found = trials(*(trial(next(source)) for _ in range(12)))
    if outcome == "across":
        with pytest.raises(NotJudged, match=r"offload efficiency .* includes 0\.5"):
            found.check_efficiency(0.5)
    else:
        found.check_efficiency(0.5)
        assert (found.efficiency.low >= 0.5) == (outcome == "above")


@pytest.mark.parametrize(("reloads", "decided"), [([0.2], True), ([0.05], True), ([0.05, 0.2], False)])
def test_a_reload_is_possible_or_not_by_its_interval(reloads: list[float], decided: bool) -> None:
    source = itertools.cycle(reloads)
    found = trials(*(trial(next(source)) for _ in range(12)), transfer=0.1)
    if decided:
        found.check_possible(0.9)
    else:
        with pytest.raises(NotJudged, match=r"includes 0\.9 x the floor"):
            found.check_possible(0.9)
