"""Bounded: do GPU and host memory stay within their limits?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import Growth, abort_requests, assert_idle, fill_tier, gib, limits, mib, requirement

if TYPE_CHECKING:
    from fixtures.core.baseline_record import Baseline
    from fixtures.instruments.host_memory import HostMemory
    from fixtures.instruments.prompts import Prompts
    from fixtures.plugin.recording import Figures
    from fixtures.provide.provider import TearDown
    from fixtures.subject.stack import Stack

pytestmark = pytest.mark.exclusive_host

STORED = 16
"""Prompts of a cycle of MEM-04: each is stored, evicted from the GPU, and loaded again."""
LOADS = 4
"""Loads of each prompt of a cycle: enough that a leak outgrows the memory that the allocator of a process had free, which is
40 MiB and more in a cache server (measured)."""

SENT_TWICE = 8
"""Prompts of a cycle of MEM-07."""


@requirement("MEM-01")
def test_gpu_memory_stays_within_its_budget(stack: Stack, prompts: Prompts, figures: Figures) -> None:
    """When idle and under a full-length concurrent load, the engine stays within utilisation x total + tolerance."""
    with stack.gpu_memory() as gpu:
        budget = stack.gpu_budget_bytes()
        idle = gpu.read()
        longest = [prompts.of_length(prompts.max_tokens) for _ in range(8)]
        stack.complete_concurrently(longest, at_once=8)
        stack.clear_prefix_cache()
        stack.complete_concurrently(longest, at_once=8)
        abort_requests(stack, (prompts.unique(chunks=8) for _ in range(8)))
        stack.traffic.wait_until_idle()
    gpu.check_alone(stack.gpu_budget_bytes)
    figures("GPU memory idle", mib(idle.engine), "MiB")
    figures("GPU memory peak of a card", mib(gpu.peak_bytes), "MiB", n=len(gpu.samples), better="lower")
    if len(idle.cards) > 1:
        figures(f"GPU memory peak of {len(idle.cards)} cards", mib(gpu.peak_sum_bytes), "MiB", better="lower")
    figures("GPU memory budget of a card", mib(budget), "MiB")
    if idle.by_process:
        figures("GPU memory of the cache server", mib(idle.servers), "MiB", better="lower")
    figures("GPU memory samples", gpu.per_second, "1/s")
    if gpu.busy_percent is not None:
        figures("sampling", gpu.busy_percent, "% of a core")
    assert gpu.peak_bytes <= budget, (
        f"expected at most {mib(budget):.0f} MiB on each GPU (utilisation x total + tolerance), "
        f"got a peak of {mib(gpu.peak_bytes):.0f} MiB ({gpu.by})"
    )


@requirement("MEM-02")
def test_gpu_memory_does_not_grow(stack: Stack, prompts: Prompts, figures: Figures) -> None:
    """Over cycles of store, evict and reload, GPU memory does not grow after the warm-up."""
    growth = Growth(limits.GPU_GROWTH)
    with stack.gpu_memory() as gpu:
        while growth.wants_more:
            cycle = [prompts.unique(chunks=8) for _ in range(4)]
            stack.complete_concurrently(cycle, at_once=4)
            stack.clear_prefix_cache()
            stack.complete_concurrently(cycle, at_once=4)
            growth.add(gpu.read().whole_stack)
    gpu.check_alone(stack.gpu_budget_bytes)
    figures.interval("GPU memory growth", growth.per_cycle, "MiB/cycle")
    growth.check_decided()
    assert growth.per_cycle.high <= limits.GPU_GROWTH, f"expected no growth of GPU memory, got {growth}"


@requirement("MEM-03")
def test_the_kv_pool_drains(stack: Stack, prompts: Prompts, figures: Figures) -> None:
    """After load and after aborted requests, no request is running or waiting, and no KV block is held."""
    asked = [prompts.unique(chunks=4) for _ in range(12)]
    stack.complete_concurrently(asked, at_once=12)
    aborted = abort_requests(stack, [*asked[:6], *(prompts.unique(chunks=8) for _ in range(6))], at_least=1)
    figures("requests aborted", aborted, "")
    assert_idle(stack.traffic.wait_until_idle(), "after load and aborts")
    longest = prompts.of_length(prompts.max_tokens)
    whole = stack.complete(longest)
    assert whole.sources.total == longest.tokens, (
        f"expected a prompt of {longest.tokens} tokens to fit, got {whole.sources}"
    )


@requirement("MEM-04")
def test_host_memory_stays_within_the_buffer(
    stack: Stack, prompts: Prompts, host_memory: HostMemory, figures: Figures
) -> None:
    """Engine and cache server stay within buffer + overhead, and do not grow with stores, evictions and loads."""
    filled = fill_tier(stack, prompts)
    figures("tokens sent to fill the tier", filled, "tokens")
    growth = Growth(limits.HOST_GROWTH)
    while growth.wants_more:
        cycle = [prompts.unique(chunks=2) for _ in range(STORED)]
        stack.complete_concurrently(cycle, at_once=4)
        for _ in range(LOADS):
            stack.clear_prefix_cache()
            _, tokens = stack.complete_concurrently(cycle, at_once=4)
            stack.tier.expect_kept(cycle, tokens)
        growth.add(host_memory.read_all())
    figures.interval("growth with a full buffer", growth.per_cycle, "MiB/cycle")
    for bound in stack.host_memory_bounds(host_memory):
        figures(f"peak of {bound.name}", gib(bound.peak_bytes), "GiB", better="lower")
        assert bound.peak_bytes <= bound.limit_bytes, (
            f"expected {bound.name} within {gib(bound.limit_bytes):.2f} GiB ({bound.terms}), "
            f"got {gib(bound.peak_bytes):.2f} GiB"
        )
    growth.check_decided()
    assert growth.per_cycle.high <= limits.HOST_GROWTH, (
        f"expected no growth once the buffer is full, got {growth}, with {STORED} stores per cycle and {LOADS} loads of each"
    )


@requirement("MEM-07")
def test_nothing_else_grows_with_the_requests(stack: Stack, prompts: Prompts, figures: Figures) -> None:
    """Over 200 requests that store and load, the number of files, sockets, threads, processes and segments does not grow."""
    growths = {kind: Growth(limits.RESOURCE_GROWTH) for kind in stack.resource_counts()}
    while any(growth.wants_more for growth in growths.values()):
        cycle = [prompts.unique(chunks=1) for _ in range(SENT_TWICE)]
        stack.complete_concurrently(cycle, at_once=4)
        stack.clear_prefix_cache()
        stack.complete_concurrently(cycle, at_once=4)
        for kind, count in stack.resource_counts().items():
            growths[kind].add(count)
    for kind, growth in growths.items():
        figures.interval(f"growth of {kind}", growth.per_cycle, "1/cycle", better="lower")
    for kind, growth in growths.items():
        assert growth.per_cycle.low <= limits.RESOURCE_GROWTH, (
            f"expected no growth of {kind} with the requests, got {growth}, with {SENT_TWICE} prompts per cycle, sent twice"
        )
    for growth in growths.values():
        growth.check_decided()


@requirement("MEM-05")
def test_offload_costs_no_kv_pool(stack: Stack, baseline: Baseline, figures: Figures) -> None:
    """The connector leaves the KV pool nearly all tokens that the same engine has without one."""
    figures("KV pool", stack.pool_tokens, "tokens", better="higher")
    figures("KV pool without offload", baseline.pool_tokens, "tokens")
    assert stack.pool_share(baseline) >= limits.POOL_SHARE, (
        f"expected a KV pool of at least {limits.POOL_SHARE} x the {baseline.pool_tokens} tokens of the engine without a "
        f"connector, got {stack.pool_tokens} tokens"
    )


@requirement("MEM-06")
@pytest.mark.run_last
def test_tear_down_gives_the_memory_back(teardown_report: TearDown, figures: Figures) -> None:
    """After tear-down, no process of the stack is running, and all its memory, including shared memory, is free."""
    figures("given back", mib(teardown_report.given_back_bytes), "MiB")
    figures("tear-down", teardown_report.seconds, "s")
    assert not teardown_report.left_running, (
        f"expected every process to end, got running pids {teardown_report.left_running}"
    )
    assert teardown_report.resident_after_bytes == 0, (
        f"expected 0 MiB resident, got {mib(teardown_report.resident_after_bytes):.0f} MiB"
    )
    assert not teardown_report.left_in_shared_memory, (
        f"expected no remaining shared memory, got {mib(teardown_report.shared_memory_bytes):.3g} MiB in "
        f"{', '.join(teardown_report.left_in_shared_memory)}"
    )
