"""The verdicts on throughput, memory, soaks and routers, each with an effect of known size on a simulated machine.

Invariant: what decides is the suite: the test function itself is called, and the experiment behind it. Only the requests are
replaced, by times drawn from a `World`; the effect is none at distance 0 and what the gate allows at distance 1.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from fixtures.catalogue import limits
from fixtures.core.record import Load
from fixtures.experiments import load_cost, router_cost
from fixtures.experiments.load import Served
from fixtures.experiments.soak import Cycle, Soak
from fixtures.subject.exchange import TokenSources
from lab.power.simulated import FIGURES, SOURCE, simulated
from lab.power.verdict import Verdict, between, compared_with, speed_known
from suite import test_bounded, test_resilient, test_routed, test_throughput

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

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
SOAK_CYCLES: Final = 20
"""In a window: what a soak of 90 s has on two cores, and a fraction of what one of an hour has."""


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


def _mem_02(world: World, rng: random.Random, distance: float) -> None:
    """Readings of a card scatter by nothing (12 of 12 recorded ones are alike); its driver gives memory by 2 MiB."""
    slope, step = distance * limits.GPU_GROWTH, 2.0
    jump, at = rng.choice((0, 256)) * rng.random(), rng.randrange(20)
    cycles = iter(range(10**6))

    def now() -> Any:
        cycle = next(cycles)
        amount = 20_000 + slope * cycle + (jump if cycle >= at else 0.0)
        return SimpleNamespace(whole_stack=int(amount // step * step * 1024**2))

    gpu = SimpleNamespace(read=now, check_alone=lambda: None)
    stack = simulated(world, rng)
    stack.gpu_memory = lambda: contextlib.nullcontext(gpu)
    test_bounded.test_gpu_memory_does_not_grow(stack, SOURCE, FIGURES)


def _mem_04(world: World, rng: random.Random, distance: float) -> None:
    after_cycle = world.memory(rng, distance * limits.HOST_GROWTH * 1024**2)
    memory: Any = SimpleNamespace(read_all=after_cycle)
    stack = simulated(world, rng)
    test_bounded.test_host_memory_stays_within_the_buffer(stack, SOURCE, memory, FIGURES)


def _mem_07(world: World, rng: random.Random, distance: float) -> None:
    kinds = ("open files", "sockets", "threads", "processes", "segments")
    counted = {kind: world.count(rng, 0.0) for kind in kinds}
    counted[kinds[0]] = world.count(rng, distance * limits.RESOURCE_GROWTH)
    stack = simulated(world, rng)
    stack.resources = lambda: {kind: now() for kind, now in counted.items()}
    test_bounded.test_nothing_else_grows_with_the_requests(stack, SOURCE, FIGURES)


def _rtr_05(world: World, rng: random.Random, added: Callable[[], float]) -> None:
    def pairs(*_: Any) -> tuple[float, ...]:
        return tuple(world.difference(rng) + added() for _ in range(router_cost.PAIRS))

    with mock.patch.object(router_cost, "_pairs", pairs):
        test_routed.test_the_router_adds_little_latency(simulated(world, rng), SOURCE, FIGURES)


def _rtr_05_all(world: World, rng: random.Random, distance: float) -> None:
    _rtr_05(world, rng, lambda: distance * limits.ROUTER_MEDIAN_S)


def _rtr_05_tenth(world: World, rng: random.Random, distance: float) -> None:
    late_s = world.late_s
    _rtr_05(world, rng, lambda: distance * (limits.ROUTER_MOST_S - late_s) * (rng.random() < 0.1))


def _rtr_05_fifth(world: World, rng: random.Random, distance: float) -> None:
    late_s = world.late_s
    _rtr_05(world, rng, lambda: distance * (limits.ROUTER_MOST_S - late_s) * (rng.random() < 0.2))


def _res_09(world: World, rng: random.Random, reload_factor: float, more_bytes: float) -> None:
    memory = world.memory(rng, 0.0, jump=False)

    def cycle(at: int, factor: float, more: float) -> Cycle:
        trial = world.pair(rng, 1.0, 0.5 * factor, 0.1)
        return Cycle(at, trial.fixed_s, trial.cold_s, trial.reload_s, memory() + round(more), "")

    first = [cycle(at, 1.0, 0.0) for at in range(SOAK_CYCLES)]
    last = [cycle(at, reload_factor, more_bytes) for at in range(SOAK_CYCLES)]
    with mock.patch.object(test_resilient, "soak", return_value=Soak(first, last, 3 * SOAK_CYCLES)):
        test_resilient.test_an_hour_of_mixed_use_changes_nothing(
            simulated(world, rng),
            SOURCE,
            SOURCE,
            90.0,
            FIGURES,
        )


def _res_09_ttft(world: World, rng: random.Random, distance: float) -> None:
    _res_09(world, rng, between(distance, 1.0, limits.SOAK_TTFT), 0.0)


def _res_09_memory(world: World, rng: random.Random, distance: float) -> None:
    _res_09(world, rng, 1.0, distance * limits.SOAK_MEMORY.in_bytes)


VERDICTS: Final = (
    Verdict("THR-01, TTFT", "with / without: as recorded, then 1", ("beyond_pool_ttft",), _thr_01_ttft),
    Verdict("THR-01, duration", "with / without: as recorded, then 1", ("beyond_pool",), _thr_01_duration),
    Verdict("THR-03", "time of a conversation, with / without: 1, then 1.05 (CPU: 2)", ("within_pool",), _thr_03),
    Verdict("MEM-02", "growth: none, then 16 MiB a cycle", (), _mem_02),
    Verdict("MEM-04", "growth: none, then 2 MiB a cycle", ("host_bytes",), _mem_04),
    Verdict("MEM-07", "growth of one kind of five: none, then one in two cycles", ("counts",), _mem_07),
    Verdict("RES-09, TTFT", "reloads at the end: as at first, then x 1.5", ("pairs", "host_bytes"), _res_09_ttft),
    Verdict("RES-09, memory", "at the end: as at first, then + 64 MiB", ("pairs", "host_bytes"), _res_09_memory),
    Verdict("RTR-05, every request", "added TTFT: none, then 20 ms", ("pairs",), _rtr_05_all),
    Verdict("RTR-05, one in ten", "added TTFT: none, then 50 ms", ("pairs",), _rtr_05_tenth),
    Verdict("RTR-05, one in five", "added TTFT: none, then 50 ms", ("pairs",), _rtr_05_fifth),
)
