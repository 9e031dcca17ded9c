"""Growth is judged by its slope after warm-up, with an interval that says when it is undecided."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fixtures.catalogue import limits
from fixtures.core.errors import NotJudged
from fixtures.core.units import MIB
from fixtures.instruments.growth import CYCLES, Growth, check_decided, slope_per_cycle
from fixtures.instruments.trials import Interval

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 4.0
"""MiB per cycle of four requests: what MEM-04 calls a leak."""


def cycles_wanted(memory: Callable[[int], float]) -> int:
    growth = Growth(limits.Limit("growth", "at most", LIMIT, "MiB/cycle"))
    while growth.wants_more:
        growth.samples.append(memory(len(growth.samples)))
    return len(growth.samples)


def test_a_growth_that_is_decided_takes_no_further_cycle() -> None:
    assert cycles_wanted(lambda cycle: 1000.0) == CYCLES
    assert cycles_wanted(lambda cycle: 1000.0 + 2 * LIMIT * cycle) == CYCLES


def test_a_growth_across_its_limit_takes_further_cycles_until_it_is_decided() -> None:
    """A leak that shows nothing in the first cycles, since it takes what earlier tests have given back."""
    wanted = cycles_wanted(lambda cycle: 1000.0 + 2 * LIMIT * max(cycle - 7, 0))
    assert CYCLES < wanted < 2 * CYCLES


def test_a_growth_that_stays_undecided_comes_to_an_end() -> None:
    assert cycles_wanted(lambda cycle: 1000.0 + LIMIT * cycle + random.Random(cycle).uniform(-50, 50) * LIMIT) == 28


@given(slope=st.floats(-1000, 1000), offset=st.floats(-1e5, 1e5), cycles=st.integers(3, 30))
def test_the_slope_of_a_line_is_its_slope(slope: float, offset: float, cycles: int) -> None:
    samples = [slope * cycle + offset for cycle in range(cycles)]
    assert slope_per_cycle(samples).median == pytest.approx(slope, abs=1e-6, rel=1e-6)


COUNTS = st.integers(0, 10**5)


@given(
    samples=st.lists(COUNTS, min_size=3, max_size=20), slope=st.integers(-100, 100), offset=st.integers(-(10**4), 10**4)
)
def test_growth_adds_to_the_slope(samples: list[int], slope: int, offset: int) -> None:
    grown = [sample + slope * cycle + offset for cycle, sample in enumerate(samples)]
    assert slope_per_cycle(grown).median == pytest.approx(slope_per_cycle(samples).median + slope, abs=1e-4)


@given(samples=st.lists(st.floats(0, 1e5), min_size=3, max_size=20))
def test_memory_that_never_shrinks_has_no_negative_slope(samples: list[float]) -> None:
    assume(samples != sorted(samples, reverse=True))
    assert slope_per_cycle(sorted(samples)).median >= 0


@pytest.mark.parametrize("at", range(1, 12))
def test_one_jump_is_no_leak(at: int) -> None:
    """A buffer that grows once by 500 MiB; least squares would call it up to 70 MiB a cycle, plain Theil-Sen 45."""
    assert slope_per_cycle([1000.0] * at + [1500.0] * (12 - at)).median == 0


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_leak_that_shows_in_jumps_is_one(every: int) -> None:
    """Allocators take memory in arenas: 8 MiB a cycle may show as 24 MiB every third one."""
    assert slope_per_cycle([cycle // every * every * 8.0 for cycle in range(12)]).median > LIMIT


@pytest.mark.parametrize("at", [0, 5, 7, 11])
def test_one_wild_reading_is_no_leak(at: int) -> None:
    samples = [1000.0] * 12
    samples[at] = 9000.0
    assert slope_per_cycle(samples).median == 0


@pytest.mark.parametrize("seed", range(6))
def test_steady_growth_shows_through_noise(seed: int) -> None:
    source = random.Random(seed)
    noise = [source.gauss(0, 3) for _ in range(12)]
    assert abs(slope_per_cycle(noise).median) < LIMIT / 2
    leak = [8.0 * cycle + one for cycle, one in enumerate(noise)]
    assert slope_per_cycle(leak).median == pytest.approx(8, abs=2)


@pytest.mark.parametrize("jump", [1, 5, 9])
def test_slope_and_interval_by_their_definition(jump: int) -> None:
    """The pairs on either side of the jump, sorted; Kendall's variance says how many at each end are left out."""
    source = random.Random(jump)
    samples = [source.uniform(0, 9) + 2.0 * cycle + 500 * (cycle > jump) for cycle in range(12)]
    left, right = jump + 1, 11 - jump
    slopes = sorted(
        (samples[later] - samples[first]) / (later - first)
        for first in range(12)
        for later in range(first + 1, 12)
        if (first > jump) == (later > jump)
    )
    variance = sum(n * (n - 1) * (2 * n + 5) for n in (left, right)) / 18
    out = int((len(slopes) - 2.3 * variance**0.5) / 2)
    found = slope_per_cycle(samples)
    assert (found.low, found.high) == pytest.approx((slopes[out - 1], slopes[-out]))
    assert found.median == pytest.approx(statistics.median(slopes))
    assert found.enough


def test_an_interval_covers_the_slope_as_often_as_it_says() -> None:
    source, covered = random.Random(5), 0
    for _ in range(300):
        found = slope_per_cycle([2.0 * cycle + source.gauss(0, 3) for cycle in range(12)])
        assert found.enough
        covered += found.low <= 2.0 <= found.high
    assert covered >= 0.92 * 300


@pytest.mark.parametrize(
    ("low", "high", "decided"),
    [(0.0, 1.0, True), (3.0, 4.0, True), (1.0, 3.0, False)],
    ids=["below", "above", "across"],
)
def test_growth_across_its_limit_is_not_judged(low: float, high: float, decided: bool) -> None:
    growth = Interval((low + high) / 2, low, high, 12)
    if decided:
        check_decided(growth, 2.0, "MiB/cycle")
    else:
        with pytest.raises(NotJudged, match="includes the limit of 2 MiB/cycle"):
            check_decided(growth, 2.0, "MiB/cycle")
    with pytest.raises(NotJudged):
        check_decided(replace(growth, enough=False), 2.0, "MiB/cycle")


def test_a_quarter_of_a_mebibyte_a_load_is_a_leak() -> None:
    """Sixteen loads a cycle, arenas of 3 MiB, and noise as healthy processes have it."""
    source = random.Random(7)
    noise = [source.uniform(0, 2) for _ in range(12)]
    leak = slope_per_cycle([4.0 * cycle // 3 * 3 + one for cycle, one in enumerate(noise)])
    assert leak.low > 2.0
    assert slope_per_cycle(noise).high < 2.0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_slope_needs_three_samples(count: int) -> None:
    with pytest.raises(ValueError, match=f"at least three samples, got {count}"):
        slope_per_cycle([1.0] * count)


def test_growth_wants_cycles_until_they_decide_and_says_what_it_saw() -> None:
    growth = Growth(limits.HOST_GROWTH)
    while growth.wants_more:
        growth.add(100 * MIB)
    growth.check_decided()
    assert len(growth.samples) == 14
    assert growth.per_cycle.high == 0
    assert str(growth) == "0 [0, 0], n=12 MiB per cycle (100 MiB to 100 MiB)"
