"""The verdicts on latency, each with an effect of known size on a simulated machine.

Invariant: what decides is the suite: the test function itself is called, and the experiment behind it. Only the requests are
replaced, by times drawn from a `World`; the effect is none at distance 0 and what the gate allows at distance 1.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from fixtures.catalogue import limits
from fixtures.experiments import decoding, latency, misses, store_cost
from fixtures.experiments.misses import RequestWait
from lab.power.simulated import CHUNK, FIGURES, KV_BYTES, SOURCE, simulated
from lab.power.verdict import Verdict, between, compared_with, speed_known
from suite import test_tiers, test_useful

if TYPE_CHECKING:
    from lab.power.world import World

FLOOR_SHARE: Final = 0.1
"""Of the floor in a cold prompt: there is room, and the prompt needs not be made longer."""


@contextlib.contextmanager
def _pairs(world: World, rng: random.Random, cold_s: float, reload_s: float, fixed_s: float) -> Iterator[None]:
    def pair(_: Any, __: Any, chunks: int, *___: Any) -> Any:
        share = chunks / latency.START_CHUNKS
        return world.pair(rng, cold_s * share, reload_s * share, fixed_s * share)

    with mock.patch.object(latency, "_verified_pair", pair):
        yield


def _latency(world: World, rng: random.Random, reload_over_cold: float, floor_share: float = FLOOR_SHARE) -> Any:
    """Pairs with a cold prompt of a second, a reload of this share of it, and half of a floor of that share fixed."""
    stack = simulated(world, rng)
    transfer_s = fixed_s = floor_share / 2
    stack.link_bytes_per_s = latency.START_CHUNKS * CHUNK * KV_BYTES / transfer_s
    with _pairs(world, rng, 1.0, reload_over_cold, fixed_s):
        return latency.measure(stack, SOURCE)


def _lat_01(world: World, rng: random.Random, distance: float) -> None:
    ratio = between(distance, world.reload_over_cold, limits.RELOAD_OVER_COLD)
    test_useful.test_a_reload_reaches_the_first_token_sooner(_latency(world, rng, ratio), FIGURES)


def _tir_05(world: World, rng: random.Random, distance: float) -> None:
    ratio = between(distance, world.reload_over_cold, limits.RELOAD_OVER_COLD)
    below = SimpleNamespace(read_s=lambda _: 0.0)
    stack = simulated(world, rng)
    stack.link_bytes_per_s = latency.START_CHUNKS * CHUNK * KV_BYTES / (FLOOR_SHARE / 2)

    def measured(*_: Any) -> Any:
        with _pairs(world, rng, 1.0, ratio, FLOOR_SHARE / 2):
            return latency.measure(stack, SOURCE, below)

    with mock.patch.object(test_tiers, "measure_below", measured):
        test_tiers.test_a_reload_from_below_reaches_the_first_token_sooner(stack, SOURCE, FIGURES)


def _lat_02(world: World, rng: random.Random, distance: float) -> None:
    over_floor = between(distance, 1.2, limits.RELOAD_OVER_FLOOR)
    found = _latency(world, rng, over_floor * FLOOR_SHARE)
    test_useful.test_the_figure_is_physically_possible(found, FIGURES)


def _lat_03(world: World, rng: random.Random, distance: float) -> None:
    efficiency = between(distance, 0.95, limits.EFFICIENCY)
    found = _latency(world, rng, 1 - efficiency * (1 - FLOOR_SHARE))
    test_useful.test_half_of_the_possible_saving_is_realised(found, FIGURES)


def _lat_08(world: World, rng: random.Random, distance: float) -> None:
    ratio = between(distance, world.reload_over_cold, limits.RELOAD_OVER_COLD)
    judged, stack = _latency(world, rng, ratio), simulated(world, rng)
    stack.link_bytes_per_s = latency.START_CHUNKS * CHUNK * KV_BYTES / (FLOOR_SHARE / 2)
    with _pairs(world, rng, 1.0, ratio, FLOOR_SHARE / 2), mock.patch.object(latency, "COLD_AT_MOST_S", 4.0):
        curve = latency.measure_curve(stack, SOURCE, judged)
    test_useful.test_a_reload_wins_at_every_length_with_room(curve, FIGURES)


def _lat_06(world: World, rng: random.Random, distance: float) -> None:
    stack = simulated(world, rng)
    stack.reload_over_cold = between(distance, world.together_ratio, limits.RELOAD_OVER_COLD)
    test_useful.test_a_reload_wins_under_concurrency_too(stack, SOURCE, FIGURES)


def _lat_04(world: World, rng: random.Random, distance: float) -> None:
    drift, cold_s = world.drift(rng), world.median("cold_without_s")
    true_s = between(distance, cold_s, (1 + limits.STORE_SHARE) * cold_s + limits.STORE_FIXED_S) * drift
    without = world.multiples(rng, store_cost.COLD_TRIALS, "cold_without_s")
    baseline = compared_with(world, rng, cold_s=tuple(one * cold_s for one in without))

    def cold(*_: Any) -> tuple[float, ...]:
        found = world.multiples(rng, store_cost.COLD_TRIALS, "cold_s", "cold_without_s")
        return tuple(one * true_s for one in found)

    with speed_known(world, rng, drift), mock.patch.object(store_cost, "measure_cold", cold):
        test_useful.test_misses_stay_cheap(simulated(world, rng), SOURCE, baseline, FIGURES)


def _lat_05(world: World, rng: random.Random, fixed_s: float, miss_s: float) -> None:
    fixed = iter(world.added(rng, 2 * misses.MISSES, "fixed_wait_s"))
    missed = iter(world.added(rng, 2 * misses.MISSES + misses.MORE_MISSES, "miss_wait_s"))

    def waited(extra_s: float, more_s: float) -> RequestWait:
        return RequestWait(extra_s + more_s, extra_s + more_s)

    with (
        mock.patch.object(misses, "fixed_wait", side_effect=lambda *_: waited(fixed_s, next(fixed))),
        mock.patch.object(misses, "_miss", side_effect=lambda *_: waited(miss_s, next(missed))),
    ):
        test_useful.test_a_miss_never_waits_on_the_cache(simulated(world, rng), SOURCE, FIGURES)


def _lat_05_fixed(world: World, rng: random.Random, distance: float) -> None:
    _lat_05(world, rng, between(distance, world.median("fixed_wait_s"), limits.FIXED_WAIT_S), 0.0)


def _lat_05_miss(world: World, rng: random.Random, distance: float) -> None:
    _lat_05(world, rng, 0.0, between(distance, world.median("miss_wait_s"), limits.MISS_WAIT_S))


def _lat_07(world: World, rng: random.Random, distance: float) -> None:
    gap_s = world.median("gaps_without_s")
    true_s = between(distance, gap_s, limits.GAP_FACTOR * gap_s + limits.GAP_FIXED_S) * world.drift(rng)
    without = world.multiples(rng, decoding.ROUNDS, "gaps_without_s")
    baseline = compared_with(world, rng, gaps_s=tuple(one * gap_s for one in without))

    def gaps(_: Any, __: Any, rounds: int = decoding.ROUNDS) -> tuple[float, ...]:
        return tuple(one * true_s for one in world.multiples(rng, rounds, "gaps_s", "gaps_without_s"))

    with mock.patch.object(decoding, "measure_gaps", gaps):
        test_useful.test_running_answers_are_not_held_up(simulated(world, rng), SOURCE, baseline, FIGURES)


def _lat_09(world: World, rng: random.Random, distance: float) -> None:
    drift, rate = world.drift(rng), world.median("decode_without")
    true = between(distance, rate, limits.DECODE_SHARE * rate) / drift
    without = world.multiples(rng, decoding.DECODES, "decode_without")
    baseline = compared_with(world, rng, decode_tokens_per_s=tuple(one * rate for one in without))

    def decoded(*_: Any) -> tuple[float, ...]:
        return tuple(one * true for one in world.multiples(rng, decoding.DECODES, "decode", "decode_without"))

    with speed_known(world, rng, drift), mock.patch.object(decoding, "measure_decoding", decoded):
        test_useful.test_offload_does_not_slow_decoding(simulated(world, rng), SOURCE, baseline, FIGURES)


VERDICTS: Final = (
    Verdict("LAT-01", "reload / cold: as recorded, then 0.9", ("pairs",), _lat_01),
    Verdict("LAT-02", "reload / floor: 1.2, then 0.9", ("pairs",), _lat_02),
    Verdict("LAT-03", "offload efficiency: 0.95, then 0.5", ("pairs",), _lat_03),
    Verdict("LAT-04", "cold TTFT with the store: as without, then + 25 % + 50 ms", ("cold_without_s",), _lat_04),
    Verdict("LAT-05, every request", "wait: as recorded, then 0.15 s", ("fixed_wait_s",), _lat_05_fixed),
    Verdict("LAT-05, every miss", "wait: as recorded, then 0.25 s", ("miss_wait_s",), _lat_05_miss),
    Verdict("LAT-06", "reload / cold, 8 at once: as recorded, then 0.9", ("together",), _lat_06),
    Verdict("LAT-07", "gaps of running answers: as without, then x 1.5 + 20 ms", ("gaps_without_s",), _lat_07),
    Verdict("LAT-08", "reload / cold at every length: as recorded, then 0.9", ("pairs",), _lat_08),
    Verdict("LAT-09", "rate of decoding: as without, then x 0.95", ("decode_without",), _lat_09),
    Verdict("TIR-05", "reload from below / cold: as recorded, then 0.9", ("pairs",), _tir_05),
)
