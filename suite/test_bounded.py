"""Bounded: do GPU and host memory stay inside what was promised?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import (
    GIB,
    MIB,
    WARM_UP,
    abort_requests,
    check_decided,
    fill_tier,
    limits,
    requirement,
    slope_per_cycle,
    undecided,
)

if TYPE_CHECKING:
    from fixtures.core.record import Baseline
    from fixtures.instruments.host_memory import HostMemory
    from fixtures.instruments.prompts import Prompts
    from fixtures.plugin.recording import RecordFigure
    from fixtures.provide.provider import TearDown
    from fixtures.subject.stack import Stack

pytestmark = pytest.mark.exclusive_host

AT_ONCE = 16
"""Prompts of a cycle: each is stored, loses its GPU copy, and is loaded again."""


@requirement("MEM-01")
def test_gpu_memory_stays_within_its_budget(stack: Stack, prompts: Prompts, figures: RecordFigure) -> None:
    """Idle and under a full-length concurrent load, the engine stays within utilisation x total + tolerance."""
    with stack.gpu_memory() as gpu:
        budget = stack.gpu_budget_bytes()
        idle = gpu.read()
        longest = [prompts.of_length(prompts.max_tokens) for _ in range(8)]
        stack.complete_concurrently(longest, at_once=8)
        stack.clear_prefix_cache()
        stack.complete_concurrently(longest, at_once=8)
        abort_requests(stack, (prompts.unique(chunks=8) for _ in range(8)))
        stack.traffic.wait_until_idle()
    gpu.check_alone()
    figures("GPU memory idle", idle.engine / MIB, "MiB")
    figures("GPU memory peak of a card", gpu.peak_bytes / MIB, "MiB", n=len(gpu.samples), better="lower")
    if len(idle.cards) > 1:
        figures(f"GPU memory peak of {len(idle.cards)} cards", gpu.peak_sum_bytes / MIB, "MiB", better="lower")
    figures("GPU memory budget of a card", budget / MIB, "MiB")
    if all(card.own is not None for card in idle.cards.values()):
        figures("GPU memory of the cache server", idle.servers / MIB, "MiB", better="lower")
    figures("GPU memory samples", gpu.per_second, "1/s")
    if gpu.busy_share is not None:
        figures("sampling", gpu.busy_share * 100, "% of a core")
    assert gpu.peak_bytes <= budget, (
        f"expected at most {budget / MIB:.0f} MiB of each card (utilisation x total + tolerance), "
        f"got a peak of {gpu.peak_bytes / MIB:.0f} MiB ({gpu.by})"
    )


@requirement("MEM-02")
def test_gpu_memory_does_not_grow(stack: Stack, prompts: Prompts, figures: RecordFigure) -> None:
    """Over cycles of store, evict and reload, GPU memory does not grow once everything has been touched."""
    samples: list[float] = []
    with stack.gpu_memory() as gpu:
        while undecided(samples, limits.GPU_GROWTH):
            cycle = [prompts.unique(chunks=8) for _ in range(4)]
            stack.complete_concurrently(cycle, at_once=4)
            stack.clear_prefix_cache()
            stack.complete_concurrently(cycle, at_once=4)
            now = gpu.read()
            samples.append((now.engine + now.servers) / MIB)
    gpu.check_alone()
    growth = slope_per_cycle(samples[WARM_UP:])
    figures("GPU memory growth", growth.median, "MiB/cycle", n=growth.n, low=growth.low, high=growth.high)
    check_decided(growth, limits.GPU_GROWTH, "MiB/cycle")
    assert growth.high <= limits.GPU_GROWTH, (
        f"expected no growth of GPU memory, got {growth} MiB per cycle ({samples[WARM_UP]:.0f} to {samples[-1]:.0f} MiB)"
    )


@requirement("MEM-03")
def test_the_kv_pool_drains(stack: Stack, prompts: Prompts, figures: RecordFigure) -> None:
    """After load, and after clients that hung up, nothing runs, nothing waits and no block is held."""
    asked = [prompts.unique(chunks=4) for _ in range(12)]
    stack.complete_concurrently(asked, at_once=12)
    abandoned = abort_requests(stack, asked[:6] + [prompts.unique(chunks=8) for _ in range(6)], at_least=1)
    figures("requests abandoned", abandoned, "")
    rest = stack.traffic.wait_until_idle()
    assert (rest.running, rest.waiting) == (0, 0), (
        f"expected nothing running and nothing waiting after load and aborts, got {rest.running:.0f} and {rest.waiting:.0f}"
    )
    assert rest.kv_usage == 0, f"expected no KV block held at rest, got {rest.kv_usage:.2%} of the pool"
    longest = prompts.of_length(prompts.max_tokens)
    whole = stack.complete(longest)
    assert whole.sources.total == longest.tokens, (
        f"expected a prompt of {longest.tokens} tokens to fit, got {whole.sources}"
    )


@requirement("MEM-04")
def test_host_memory_stays_within_the_buffer(
    stack: Stack, prompts: Prompts, host_memory: HostMemory, figures: RecordFigure
) -> None:
    """Engine and cache server stay within buffer and overhead, and stores, evictions and loads do not make them grow."""
    filled = fill_tier(stack, prompts)
    figures("tokens sent to fill the tier", filled, "tokens")
    samples: list[float] = []
    while undecided(samples, limits.HOST_GROWTH):
        cycle = [prompts.unique(chunks=2) for _ in range(AT_ONCE)]
        stack.complete_concurrently(cycle, at_once=4)
        stack.clear_prefix_cache()
        _, tokens = stack.complete_concurrently(cycle, at_once=4)
        stack.tier.expect_kept(cycle, tokens)
        samples.append(sum(host_memory.read().values()) / MIB)
    growth = slope_per_cycle(samples[WARM_UP:])
    figures("growth with a full buffer", growth.median, "MiB/cycle", n=growth.n, low=growth.low, high=growth.high)
    for bound in stack.host_memory_bounds(host_memory):
        figures(f"peak of {bound.name}", bound.peak_bytes / GIB, "GiB", better="lower")
        assert bound.peak_bytes <= bound.limit_bytes, (
            f"expected {bound.name} within {bound.limit_bytes / GIB:.2f} GiB ({bound.terms}), "
            f"got {bound.peak_bytes / GIB:.2f} GiB"
        )
    check_decided(growth, limits.HOST_GROWTH, "MiB/cycle")
    assert growth.high <= limits.HOST_GROWTH, (
        f"expected no growth once the buffer is full, got {growth} MiB per cycle of {AT_ONCE} stores and {AT_ONCE} loads "
        f"({samples[WARM_UP]:.0f} to {samples[-1]:.0f} MiB)"
    )


@requirement("MEM-05")
def test_offload_costs_no_kv_pool(stack: Stack, baseline: Baseline, figures: RecordFigure) -> None:
    """The KV pool holds at least 0.9 x the tokens that it holds in the same engine without a connector."""
    figures("KV pool", stack.pool_tokens, "tokens", better="higher")
    figures("KV pool without offload", baseline.pool_tokens, "tokens")
    assert stack.pool_tokens >= limits.POOL_SHARE * baseline.pool_tokens, (
        f"expected a KV pool of at least {limits.POOL_SHARE} x the {baseline.pool_tokens} tokens of an engine without a "
        f"connector, got {stack.pool_tokens}"
    )


@requirement("MEM-06")
@pytest.mark.run_last
def test_tear_down_gives_the_memory_back(teardown_report: TearDown, figures: RecordFigure) -> None:
    """After tear-down no process of the stack runs, and none of its memory, shared memory included, is still taken."""
    figures("given back", (teardown_report.resident_before_bytes - teardown_report.resident_after_bytes) / MIB, "MiB")
    figures("tear-down", teardown_report.seconds, "s")
    assert not teardown_report.left_running, (
        f"expected every process to end, pids {teardown_report.left_running} still run"
    )
    assert teardown_report.resident_after_bytes == 0, (
        f"expected 0 MiB resident, got {teardown_report.resident_after_bytes / MIB:.0f}"
    )
    assert not teardown_report.left_in_shared_memory, (
        f"expected no shared memory left, got {teardown_report.shared_memory_bytes / MIB:.3g} MiB in "
        f"{', '.join(teardown_report.left_in_shared_memory)}"
    )
