"""What conversations and memory scatter by: the parts of a recording that take longest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fixtures.catalogue import limits
from fixtures.experiments import load
from fixtures.experiments.filling import fill_tier
from fixtures.instruments.growth import CYCLES, Growth

if TYPE_CHECKING:
    from fixtures.core.baseline_record import Baseline, Load
    from fixtures.instruments.prompts import Prompts
    from fixtures.subject.stack import Stack


def loads(stack: Stack, source: Prompts, baseline: Baseline) -> dict[str, Any]:
    """Times of conversations with / without the connector, by user, as far as the engine without it was asked them."""
    found: dict[str, Any] = {}
    if baseline.within_pool is not None:
        within = load.serve(stack, source, load.shape_of(baseline.within_pool)).load
        found["within_pool"] = _by_user(within, baseline.within_pool, lambda one: one.latency_s)
    if baseline.beyond_pool is not None:
        closed, opened = (one.load for one in load.serve_beyond_pool(stack, source))
        found["beyond_pool"] = _by_user(closed, baseline.beyond_pool[0], lambda one: one.latency_s)
        found["beyond_pool_ttft"] = _by_user(opened, baseline.beyond_pool[1], lambda one: one.ttft_s, first_round=1)
    return found


def _by_user(
    ours: Load, theirs: Load, times: Callable[[Load], Sequence[float | None]], first_round: int = 0
) -> tuple[float, ...]:
    return tuple(
        load.ratio(
            times(ours)[start : start + ours.rounds],
            times(theirs)[start : start + ours.rounds],
            ours.rounds,
            first_round,
        ).median
        for start in range(0, len(times(ours)), ours.rounds)
    )


def cycles(stack: Stack, source: Prompts) -> dict[str, Any]:
    """Host memory and counts after each of so many cycles as MEM-04 and MEM-07 have at least, with a full tier."""
    fill_tier(stack, source)
    with stack.host_memory() as memory:
        host = Growth(limits.HOST_GROWTH)
        counts: dict[str, list[int]] = {kind: [] for kind in stack.resource_counts()}
        sizes: list[int] = []
        for _ in range(CYCLES):
            cycle = [source.unique(chunks=2) for _ in range(16)]
            stack.complete_concurrently(cycle, at_once=4)
            stack.clear_prefix_cache()
            stack.complete_concurrently(cycle, at_once=4)
            sizes.append(memory.read_all())
            host.add(sizes[-1])
            for kind, count in stack.resource_counts().items():
                counts[kind].append(count)
    return {"host_bytes": tuple(sizes), "counts": {kind: tuple(values) for kind, values in counts.items()}}
