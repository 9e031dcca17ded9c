"""Metrics of vLLM's own offloading."""

from __future__ import annotations

from fixtures.evidence.metrics import CacheCounters, EngineCounters, TierTokens
from fixtures.evidence.prometheus import Samples
from fixtures.evidence.watched import missing_metrics
from tests.recorded_metrics import recorded

NATIVE = "native-vllm0.32.0.metrics.txt"
"""OffloadingConnector on a CPU (``host_tier``) after 6 prompts, each cold, repeated, and reloaded; 8 KiB of KV a token."""


SIZE = TierTokens(bytes_per_token=8192, tokens=131072)


def test_native_counters_are_bytes_over_all_ranks() -> None:
    found = CacheCounters.read(recorded(NATIVE), 128, tier=SIZE)
    engine = EngineCounters.read(recorded(NATIVE))
    assert (found.flavour, found.stored_tokens, found.loaded_tokens) == ("native", 5632, 5760)
    assert (found.loaded_tokens, found.hit_tokens, found.lookup_tokens) == (engine.loaded, 5760, 11785)
    assert (found.pinned, found.store_failures, found.evicted, found.counts_stores) == (0, None, None, True)
    assert missing_metrics(recorded(NATIVE), "native") == ()
    assert missing_metrics(recorded(NATIVE), "engine") == ()


def test_native_counters_of_a_gpu() -> None:
    """OffloadingConnector on an H200 with a tier of 32 GiB, in the midst of a load; 128 KiB of KV a token, blocks of 16."""
    samples = recorded("native-h200-vllm0.32.0.metrics.txt")
    found = CacheCounters.read(samples, 16, tier=TierTokens(bytes_per_token=131072, tokens=262144))
    engine = EngineCounters.read(samples)
    assert (found.flavour, found.stored_tokens, found.loaded_tokens) == ("native", 632112, 199280)
    assert (found.loaded_tokens, found.hit_tokens, found.lookup_tokens) == (engine.loaded, 199280, 833036)
    assert (found.pinned, found.store_failures, found.evicted) == (64, None, None)
    assert missing_metrics(samples, "native") == missing_metrics(samples, "engine") == ()


def test_without_the_size_of_a_token_bytes_say_nothing() -> None:
    found = CacheCounters.read(recorded(NATIVE), 128)
    assert (found.stored_tokens, found.loaded_tokens, found.hit_tokens, found.counts_stores) == (
        None,
        None,
        5760,
        False,
    )


def test_the_older_names_of_native_counters() -> None:
    """vLLM 0.11 to 0.32, which still has them; by its source, the same bytes."""
    text = (
        'vllm:kv_offload_total_bytes_total{engine="0",transfer_type="GPU_to_CPU"} 1048576\n'
        'vllm:kv_offload_total_bytes_total{engine="0",transfer_type="CPU_to_GPU"} 2097152\n'
    )
    found = CacheCounters.read(Samples.parse(text), 128, tier=SIZE)
    assert (found.stored_tokens, found.loaded_tokens, found.pinned) == (128, 256, None)


def test_what_is_in_use_by_native_transfers() -> None:
    text = 'vllm:kv_offload_cpu_cache_usage_perc{engine="0"} 0.0078125\n'
    assert CacheCounters.read(Samples.parse(text), 128, tier=SIZE).pinned == 8


def test_the_simple_connector_counts_blocks_and_no_stores() -> None:
    """Names of vLLM 0.32, v1/simple_kv_offload/metrics.py; not recorded."""
    text = (
        'vllm:simple_kv_offload_load_blocks_total{engine="0"} 64\nvllm:simple_kv_offload_used_blocks{engine="0"} 1\n'
        'vllm:external_prefix_cache_hits_total{engine="0"} 1024\n'
    )
    found = CacheCounters.read(Samples.parse(text), 16, tier=SIZE)
    assert (found.flavour, found.loaded_tokens, found.hit_tokens, found.pinned) == ("native", 1024, 1024, 1)
    assert (found.stored_tokens, found.counts_stores) == (None, False)
    assert missing_metrics(Samples.parse(text), "native") == ("vllm:external_prefix_cache_queries_total",)
