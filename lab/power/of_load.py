"""The verdicts on throughput, each with an effect of known size on a simulated machine.

Invariant: what decides is the suite: the test function itself is called, and the experiment behind it. Only the requests are
replaced, by times drawn from a `World`; the effect is none at distance 0 and what the gate allows at distance 1.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final
from unittest import mock

from fixtures.catalogue import limits
from fixtures.core.baseline_record import Load
from fixtures.experiments import load_cost
from fixtures.experiments.load import Served
from fixtures.subject.exchange import TokenSources
from lab.power.simulated import FIGURES, SOURCE, simulated
from lab.power.verdict import Verdict, between, compared_with, speed_known
from suite import test_throughput

if TYPE_CHECKING:
    from lab.power.world import World

USERS, ROUNDS = 8, 3
LOAD: Final = Load(
    users=USERS,
    rounds=ROUNDS,
    system_tokens=1000,
    question_tokens=100,
    answer_tokens=16,
    per_second=None,
    seconds=60.0,
    ttft_s=(0.2,) * (USERS * ROUNDS),
    latency_s=(1.0,) * (USERS * ROUNDS),
)


def _loads(world: World, rng: random.Random, ttft: float, duration: float) -> tuple[Served, Served]:
    def served(ttfts: tuple[float, ...], durations: tuple[float, ...]) -> Served:
        load = LOAD.model_copy(
            update={
                "ttft_s": tuple(one * 0.2 for one in ttfts for _ in range(ROUNDS)),
                "latency_s": tuple(one for one in durations for _ in range(ROUNDS)),
            }
        )
        return Served(load, TokenSources(0, 0, 0), 0)

    def users(true: float, kind: str) -> tuple[float, ...]:
        return tuple(one * true for one in world.multiples(rng, USERS, kind))

    return (
        served((1.0,) * USERS, users(duration, "beyond_pool")),
        served(users(ttft, "beyond_pool_ttft"), (1.0,) * USERS),
    )


def _thr_01(world: World, rng: random.Random, ttft: float, duration: float) -> None:
    loads, baseline = _loads(world, rng, ttft, duration), compared_with(world, rng, beyond_pool=(LOAD, LOAD))
    test_throughput.test_more_conversations_fit_on_the_same_card(simulated(world, rng), loads, baseline, FIGURES)


def _thr_01_ttft(world: World, rng: random.Random, distance: float) -> None:
    reference = world.median("beyond_pool_ttft")
    _thr_01(world, rng, between(distance, reference, limits.LOAD_WITH_OFFLOAD), world.median("beyond_pool"))


def _thr_01_duration(world: World, rng: random.Random, distance: float) -> None:
    reference = world.median("beyond_pool")
    _thr_01(world, rng, world.median("beyond_pool_ttft"), between(distance, reference, limits.LOAD_WITH_OFFLOAD))


def _thr_03(world: World, rng: random.Random, distance: float) -> None:
    device = "cpu" if world.on_cpu else "cuda"
    gate = limits.LOAD_COST_ON_CPU if world.on_cpu else limits.LOAD_COST
    drift = world.drift(rng)
    true = between(distance, 1.0, gate) * drift
    ratios = tuple(one * true for one in world.multiples(rng, USERS, "within_pool"))
    load = LOAD.model_copy(update={"latency_s": tuple(one for one in ratios for _ in range(ROUNDS))})
    served = Served(load, TokenSources(0, 0, 0), 0)
    baseline, stack = compared_with(world, rng, within_pool=LOAD), simulated(world, rng, device)
    with speed_known(world, rng, drift), mock.patch.object(load_cost, "serve", return_value=served):
        test_throughput.test_offload_is_cheap_where_it_cannot_help(
            stack,
            SOURCE,
            baseline,
            FIGURES,
            lambda *_, **__: None,
        )


VERDICTS: Final = (
    Verdict("THR-01, TTFT", "with / without: as recorded, then 1", ("beyond_pool_ttft",), _thr_01_ttft),
    Verdict("THR-01, duration", "with / without: as recorded, then 1", ("beyond_pool",), _thr_01_duration),
    Verdict("THR-03", "time of a conversation, with / without: 1, then 1.05 (CPU: 2)", ("within_pool",), _thr_03),
)
