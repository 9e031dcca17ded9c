"""Configured: do the requested settings reach the engine?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import gib, requirement

if TYPE_CHECKING:
    from fixtures.plugin.recording import Figures
    from fixtures.subject.stack import Stack


@requirement("CFG-01")
def test_the_engine_has_a_connector_that_saves_and_loads(stack: Stack) -> None:
    """The effective connector of every engine offloads, and its role both stores and loads."""
    for engine in stack.engines:
        fault = stack.connector_fault(engine)
        assert fault is None, fault


@requirement("CFG-02")
def test_the_values_asked_for_are_in_effect(stack: Stack) -> None:
    """Buffer, chunk size and disk tier in the values equal those that the cache of every engine reports."""
    compared = [stack.compare_config(engine) for engine in stack.engines]
    different = [text for one in compared for text in one.different]
    assert not different, "; ".join(different)
    for one in compared:
        one.check_known()


@requirement("CFG-03")
def test_no_setting_is_unknown_unparsable_or_shadowed(stack: Stack) -> None:
    """LMCache knows and can parse every setting, and no setting is given twice."""
    for engine in stack.engines:
        twice = stack.record.requested_of(engine.server).duplicate_env
        assert not twice, (
            f"expected every environment variable of {engine.name} once, got {', '.join(twice)} twice: one shadows the other"
        )
        shadowed = stack.shadowed_settings(engine)
        assert not shadowed, (
            f"expected every setting of {engine.name} to be given once, got {'; '.join(shadowed)} with another value: the "
            "connector's own wins"
        )
    unknown = stack.unknown_lmcache_names()
    assert not unknown, f"expected only names that the installed LMCache reads, got {'; '.join(unknown)}"
    complaints = stack.logs.findings("config")
    assert not complaints, f"expected every setting to be accepted, got in the log: {complaints[0]}"


@requirement("CFG-04")
def test_every_key_of_the_values_has_an_effect(stack: Stack) -> None:
    """Removing any single value from the values file changes what the chart renders."""
    idle = stack.release.keys_without_effect(stack.lmcache_names)
    assert not idle, f"expected every key of the values to have an effect, got none for {', '.join(idle)}"


@requirement("CFG-05")
def test_the_manifests_are_accepted_and_complete(stack: Stack) -> None:
    """The API server accepts every rendered object, and every reference of the objects resolves."""
    refused = stack.release.refused()
    assert not refused, f"expected the API server to accept every object, got refusals: {'; '.join(refused)}"
    dangling = stack.release.dangling()
    assert not dangling, f"expected every reference to resolve, got {'; '.join(dangling)}"


@requirement("CFG-06")
def test_engines_that_share_a_tier_hash_alike(stack: Stack) -> None:
    """Engines that share a tier have the same model, data types, chunk, hash algorithm and hash seed."""
    for engines in stack.sharing():
        different = stack.unlike(engines)
        assert not different, f"expected engines that share a tier to be alike, got {'; '.join(different)}"


@requirement("CFG-07")
def test_the_host_buffer_fits_the_memory_limit(stack: Stack, figures: Figures) -> None:
    """The buffers of all workers and the engine itself fit within the memory limit."""
    for budget in stack.memory_budgets():
        figures("host memory needed", gib(budget.needed_bytes), "GiB")
        figures("host memory limit", gib(budget.limit_bytes), "GiB")
        assert budget.needed_bytes <= budget.limit_bytes, (
            f"expected at most {gib(budget.limit_bytes):.1f} GiB ({budget.limit_is}), "
            f"got {gib(budget.needed_bytes):.1f} GiB: {budget.terms}"
        )


@requirement("CFG-08")
def test_the_cpu_tier_is_larger_than_the_gpu_pool(stack: Stack, figures: Figures) -> None:
    """The CPU tier holds more tokens than the GPU pool; under LRU, a smaller tier never serves what the GPU evicted."""
    tier, pool = stack.tier.capacity_tokens(), stack.tier.pool_tokens()
    figures("CPU tier", tier, "tokens")
    figures("GPU KV pool", pool, "tokens", better="higher")
    assert tier > pool, (
        f"expected a CPU tier above the {pool} tokens of the GPU pool, got {tier} tokens: the tier evicts every prompt "
        f"before the GPU does; set a buffer of at least {stack.tier.buffer_gib_for(pool):.0f} GiB"
    )
