"""Configured: did what the values ask for reach the engine?"""

from __future__ import annotations

from fixtures.evidence.manifest import LMCACHE_CONNECTORS
from fixtures.measure.memory import GIB
from fixtures.verdict.plugin import requirement


@requirement("CFG-01")
def test_the_engine_has_a_connector_that_saves_and_loads(stack):
    """Every engine runs with an LMCache connector in the role that stores and loads."""
    for engine in stack.engines:
        connector = engine.connector()
        assert connector is not None, (
            f"expected --kv-transfer-config on the command line of {engine.name}, got none: it offloads nothing"
        )
        assert connector.name in LMCACHE_CONNECTORS, (
            f"expected an LMCache connector ({', '.join(sorted(LMCACHE_CONNECTORS))}) on {engine.name}, "
            f"got {connector.name!r}"
        )
        assert connector.role == "kv_both", (
            f"expected kv_role 'kv_both' (stores and loads) on {engine.name}, got {connector.role!r}"
        )


@requirement("CFG-02")
def test_the_values_asked_for_are_in_effect(stack):
    """Buffer and chunk size of the values are those that the cache itself says it runs with."""
    asked, effect = stack.record.requested, stack.in_effect
    assert effect.chunk_tokens == asked.chunk_tokens, (
        f"expected a chunk of {asked.chunk_tokens} tokens (values), got {effect.chunk_tokens} ({effect.source})"
    )
    if asked.buffer_text is not None:
        assert asked.buffer_gb is not None, (
            f"expected a CPU buffer in GB as a plain number, got {asked.buffer_text!r}: the cache runs with "
            f"{effect.buffer_bytes / GIB:g} GiB instead ({effect.source})"
        )
        assert effect.buffer_bytes == int(asked.buffer_gb * GIB), (
            f"expected a CPU buffer of {asked.buffer_gb:g} GiB (values: {asked.buffer_text!r}), "
            f"got {effect.buffer_bytes / GIB:g} GiB ({effect.source})"
        )


@requirement("CFG-03")
def test_no_setting_is_unknown_unparsable_or_shadowed(stack):
    """LMCache knows and could read every setting it was given, and none was given twice."""
    assert not stack.record.requested.duplicate_env, (
        f"expected every environment name once, got {', '.join(stack.record.requested.duplicate_env)} twice: "
        "one value shadows the other"
    )
    unknown = stack.unknown_lmcache_names()
    assert not unknown, f"expected only names that the installed LMCache reads, got {'; '.join(unknown)}"
    complaints = stack.findings("config")
    assert not complaints, f"expected every setting to be accepted, the log says: {complaints[0]}"


@requirement("CFG-04")
def test_every_key_of_the_values_has_an_effect(stack):
    """Taking any one value out of the values file changes what the chart renders for the engine."""
    idle = stack.release.keys_without_effect(stack.lmcache_names)
    assert not idle, f"expected every key of the values to have an effect, got none for {', '.join(idle)}"


@requirement("CFG-05")
def test_the_manifests_are_accepted_and_complete(stack):
    """The API server accepts every rendered object, and everything that they refer to exists."""
    refused = stack.release.refused()
    assert not refused, f"expected the API server to accept every object, it refuses {'; '.join(refused)}"
    dangling = stack.release.dangling()
    assert not dangling, f"expected every reference to lead somewhere: {'; '.join(dangling)}"


@requirement("CFG-07")
def test_the_host_buffer_fits_the_memory_limit(stack, figures):
    """All workers' buffers plus the engine itself stay under the memory limit."""
    for budget in stack.memory_budgets():
        figures("host memory needed", budget.needed_bytes / GIB, "GiB")
        figures("host memory limit", budget.limit_bytes / GIB, "GiB")
        assert budget.needed_bytes <= budget.limit_bytes, (
            f"expected at most {budget.limit_bytes / GIB:.1f} GiB ({budget.limit_is}), "
            f"got {budget.needed_bytes / GIB:.1f} GiB: {budget.sum}"
        )


@requirement("CFG-08")
def test_the_cpu_tier_is_larger_than_the_gpu_pool(stack, figures):
    """The CPU tier holds more tokens than the GPU pool; under LRU a smaller one never serves what the GPU evicted."""
    tier, pool = stack.tier_capacity_tokens(), stack.pool_tokens
    figures("CPU tier", tier, "tokens")
    figures("GPU KV pool", pool, "tokens", better="higher")
    assert tier > pool, (
        f"expected a CPU tier above the {pool} tokens of the GPU pool, got {tier} tokens: whatever the GPU evicts, the "
        f"tier has evicted before; a buffer of {stack.buffer_gib_for(pool):.0f} GiB or more would do"
    )
