"""Metrics of LMCache, as a server and in process."""

from __future__ import annotations

import pytest

from fixtures.evidence.metrics import CacheCounters
from fixtures.evidence.prometheus import Samples
from fixtures.evidence.shape import FULL, KvShape
from tests.recorded_metrics import COLD, IN_PROCESS, RELOADED, exposition, recorded

# A server of LMCache 0.5.6: before and after one cold prompt of 2049 tokens in chunks of 256, and after its reload.
BEFORE = """\
# HELP lmcache_mp_l1_memory_usage_bytes Bytes currently held in L1 cache
# TYPE lmcache_mp_l1_memory_usage_bytes gauge
lmcache_mp_l1_memory_usage_bytes{backend="dram",l1_tag="_default"} 0.0
# TYPE lmcache_mp_l1_usage_ratio gauge
lmcache_mp_l1_usage_ratio{backend="dram",l1_tag="_default"} 0.0
"""


# --- the cache --------------------------------------------------------------------------------------------------------


def cache(text: str, shape: KvShape | None = None) -> CacheCounters:
    return CacheCounters.read(Samples.parse(text), 256, shape)


def test_cold_prompt_on_a_server_of_0_5_6() -> None:
    delta = cache(COLD).delta(cache(BEFORE))
    assert delta == CacheCounters(
        "multi-process",
        stored_tokens=2048,
        lookup_tokens=2048,
        hit_tokens=0,
        usage_ratio=0.0078125,
    )


def test_reload_on_a_server_of_0_5_6() -> None:
    delta = cache(RELOADED).delta(cache(COLD))
    assert (delta.stored_tokens, delta.lookup_tokens, delta.hit_tokens) == (0, 2048, 2048)
    assert delta.loaded_tokens == 2048
    assert (delta.evicted, delta.store_failures, delta.pinned) == (None, None, None)


def test_a_server_that_serves_engines_without_a_gpu_counts_no_loads() -> None:
    counters = cache("".join(line for line in RELOADED.splitlines(keepends=True) if "chunks_loaded" not in line))
    assert counters.loaded_tokens is None


@pytest.mark.parametrize(
    ("write", "read", "evicted"),
    [
        ("lmcache_mp_l1_write_chunks_total", "lmcache_mp_l1_read_chunks_total", "lmcache_mp_l1_evicted_chunks_total"),
        ("lmcache_mp_l1_write_keys_total", "lmcache_mp_l1_read_keys_total", "lmcache_mp_l1_evicted_keys_total"),
        ("lmcache_mp:l1_write_keys_total", "lmcache_mp:l1_read_keys_total", "lmcache_mp:l1_evicted_keys_total"),
    ],
    ids=["0.5.0-0.5.6", "0.4.5", "0.3.15-0.4.1"],
)
def test_every_generation_of_servers(write: str, read: str, evicted: str) -> None:
    counters = CacheCounters.read(exposition(**{write: 8, read: 4, evicted: 2}), 256)
    assert counters.flavour == "multi-process"
    assert (counters.stored_tokens, counters.evicted) == (2048, 2)


BELOW = """\
lmcache_mp_l1_write_chunks_total{l1_tag="_default"} 192.0
lmcache_mp_lookup_hit_tokens_total{cache_salt="",model_name="/models/tiny"} 12288.0
lmcache_mp_lookup_hit_l1_tokens_total{cache_salt="",model_name="/models/tiny"} 4096.0
lmcache_mp_lookup_hit_l2_tokens_total{cache_salt="",model_name="/models/tiny"} 8192.0
lmcache_mp_l2_store_completed_objects_chunks_total 160.0
lmcache_mp_l2_prefetch_load_completed_chunks_total 32.0
lmcache_mp_l2_usage_bytes{l2_name="fs"} 1.6777216e+08
"""
"""Of a recording of LMCache 0.5.6 with a tier of files: ten prompts of 4 097 tokens, and two that came from below."""


def test_a_tier_below_the_cpu_tier_has_counters_of_its_own() -> None:
    found = cache(BELOW)
    assert (found.below_hit_tokens, found.below_loaded_tokens, found.below_stored_tokens) == (8192, 8192, 40960)
    assert found.stored_tokens == 192 * 256, "what came from below was written to the CPU tier, too"
    assert found.newly_stored_tokens == 40960
    assert cache(COLD).below_hit_tokens is None
    assert cache(COLD).newly_stored_tokens == cache(COLD).stored_tokens
    older = cache("".join(line for line in BELOW.splitlines(keepends=True) if "hit_l" not in line))  # 0.5.3
    assert (older.below_hit_tokens, older.below_loaded_tokens) == (None, 8192)
    two = cache(BELOW, KvShape(2, 2))
    assert two.below_stored_tokens == 20480, "two ranks have two keys for a chunk"


@pytest.mark.parametrize("name", ["l1_allocation_failure_chunks_total", "l1_allocation_failure_total"])
def test_store_failures(name: str) -> None:
    assert cache(f'lmcache_mp_{name}{{during="l1_store"}} 3\n').store_failures == 3


def test_tensor_parallel_server_counts_a_key_per_rank() -> None:
    assert cache("lmcache_mp_l1_write_chunks_total 16\n", KvShape(2, 2)).stored_tokens == 2048


def test_in_process_tokens_are_not_summed_over_ranks() -> None:
    assert cache(IN_PROCESS) == CacheCounters(
        "in-process",
        stored_tokens=2048,
        lookup_tokens=4096,
        hit_tokens=2048,
        loaded_tokens=1024,
        evicted=5,
        store_failures=0,
        pinned=4,
    )


def test_no_cache_metrics_is_no_cache() -> None:
    counters = CacheCounters.read(recorded("inprocess-vllm0.25.1.metrics.txt"), 256)
    assert counters == CacheCounters()
    assert counters.flavour is None


# --- ranks and groups -------------------------------------------------------------------------------------------------


def test_what_ranks_write_and_load_counts_once() -> None:
    text = "lmcache_mp_l1_write_chunks_total 16\nlmcache_mp_num_chunks_loaded_total 32\nlmcache_mp_l1_read_chunks_total 32\n"
    found = cache(text, KvShape(4, 2))  # MLA: two parts of a chunk, that four ranks load
    assert (found.stored_tokens, found.loaded_tokens) == (8 * 256, 8 * 256)


def test_keys_of_a_sliding_window_do_not_count_tokens() -> None:
    text = "lmcache_mp_l1_write_chunks_total 14\nlmcache_mp_lookup_hit_tokens_total 2816\n"
    found = cache(text, KvShape(1, 1, (FULL, 1, 1, 1)))
    assert (found.stored_tokens, found.hit_tokens) == (None, 2816)


def test_data_parallel_engines_in_process_are_added() -> None:
    """Each serves other requests; in their own group both are worker 0."""
    text = "".join(f'lmcache:num_stored_tokens_total{{engine="{at}",worker_id="0"}} 1024\n' for at in (0, 1))
    assert cache(text).stored_tokens == 2048


@pytest.mark.parametrize(
    ("counters", "evicted"),
    [
        (CacheCounters("native", stored_tokens=1500), 500),
        (CacheCounters("native", stored_tokens=1000), 0),
        (CacheCounters("native"), None),
        (CacheCounters("multi-process", stored_tokens=1500), None),
        (CacheCounters("multi-process", stored_tokens=1000), 0),
        (CacheCounters("multi-process", stored_tokens=1500, evicted=3), 3),
    ],
)
def test_what_a_tier_of_1000_tokens_evicted(counters: CacheCounters, evicted: int | None) -> None:
    assert counters.evictions(1000) == evicted
