"""The verdicts on memory, soaks and routers, each with an effect of known size on a simulated machine.

Invariant: what decides is the suite: the test function itself is called, and the experiment behind it. Only the requests are
replaced, by times drawn from a `World`; the effect is none at distance 0 and what the gate allows at distance 1.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from fixtures.catalogue import limits
from fixtures.experiments import router_cost
from fixtures.experiments.soak import Cycle, Soak
from lab.power.simulated import FIGURES, SOURCE, simulated
from lab.power.verdict import Verdict, between
from suite import test_bounded, test_resilient, test_routed

if TYPE_CHECKING:
    from lab.power.world import World

SOAK_CYCLES: Final = 20
"""In a window: what a soak of 90 s has on two cores, and a fraction of what one of an hour has."""


def _mem_02(world: World, rng: random.Random, distance: float) -> None:
    """Readings of a card scatter by nothing (12 of 12 recorded ones are alike); its driver gives memory by 2 MiB."""
    slope, step = distance * limits.GPU_GROWTH, 2.0
    jump, at = rng.choice((0, 256)) * rng.random(), rng.randrange(20)
    cycles = iter(range(10**6))

    def now() -> Any:
        cycle = next(cycles)
        amount = 20_000 + slope * cycle + (jump if cycle >= at else 0.0)
        return SimpleNamespace(whole_stack=int(amount // step * step * 1024**2))

    gpu = SimpleNamespace(read=now, check_alone=lambda _: None)
    stack = simulated(world, rng)
    stack.gpu_memory = lambda: contextlib.nullcontext(gpu)
    stack.gpu_budget_bytes = lambda: 0
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
    Verdict("MEM-02", "growth: none, then 16 MiB a cycle", (), _mem_02),
    Verdict("MEM-04", "growth: none, then 2 MiB a cycle", ("host_bytes",), _mem_04),
    Verdict("MEM-07", "growth of one kind of five: none, then one in two cycles", ("counts",), _mem_07),
    Verdict("RES-09, TTFT", "reloads at the end: as at first, then x 1.5", ("pairs", "host_bytes"), _res_09_ttft),
    Verdict("RES-09, memory", "at the end: as at first, then + 64 MiB", ("pairs", "host_bytes"), _res_09_memory),
    Verdict("RTR-05, every request", "added TTFT: none, then 20 ms", ("pairs",), _rtr_05_all),
    Verdict("RTR-05, one in ten", "added TTFT: none, then 50 ms", ("pairs",), _rtr_05_tenth),
    Verdict("RTR-05, one in five", "added TTFT: none, then 50 ms", ("pairs",), _rtr_05_fifth),
)
