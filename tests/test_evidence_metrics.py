"""Metrics: the numbers of real scrapes, every renaming, and absence that stays absence."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fixtures.evidence.metrics import (
    CacheCounters,
    CounterReset,
    EngineCounters,
    TierSize,
)
from fixtures.evidence.prometheus import Samples
from fixtures.evidence.shape import FULL, KvShape
from fixtures.evidence.watched import EXPECTED_METRICS, missing_metrics

DATA = Path(__file__).parent / "data" / "evidence"


def recorded(name: str) -> Samples:
    return Samples.parse((DATA / name).read_text())


def exposition(**values: float) -> Samples:
    return Samples.parse("".join(f"{name} {value}\n" for name, value in values.items()))


def vllm(text: str) -> EngineCounters:
    return EngineCounters.read(Samples.parse(text))


# A server of LMCache 0.5.6: before and after one cold prompt of 2049 tokens in chunks of 256, and after its reload.
BEFORE = """\
# HELP lmcache_mp_l1_memory_usage_bytes Bytes currently held in L1 cache
# TYPE lmcache_mp_l1_memory_usage_bytes gauge
lmcache_mp_l1_memory_usage_bytes{backend="dram",l1_tag="_default"} 0.0
# TYPE lmcache_mp_l1_usage_ratio gauge
lmcache_mp_l1_usage_ratio{backend="dram",l1_tag="_default"} 0.0
"""
COLD = """\
# TYPE lmcache_mp_l1_write_chunks_total counter
lmcache_mp_l1_write_chunks_total{model_name="m"} 8.0
# TYPE lmcache_mp_lookup_requested_tokens_total counter
lmcache_mp_lookup_requested_tokens_total{model_name="m"} 2048.0
lmcache_mp_lookup_hit_tokens_total{model_name="m"} 0.0
lmcache_mp_lookups_requests_total{model_name="m"} 1.0
lmcache_mp_l1_memory_usage_bytes{backend="dram",l1_tag="_default"} 16777216.0
lmcache_mp_l1_usage_ratio{backend="dram",l1_tag="_default"} 0.0078125
"""
RELOADED = """\
lmcache_mp_l1_write_chunks_total{model_name="m"} 8.0
lmcache_mp_l1_read_chunks_total{model_name="m"} 8.0
lmcache_mp_lookup_requested_tokens_total{model_name="m"} 4096.0
lmcache_mp_lookup_hit_tokens_total{model_name="m"} 2048.0
lmcache_mp_lookups_requests_total{model_name="m"} 2.0
lmcache_mp_num_chunks_loaded_total{model_name="m",worker_id="7"} 8.0
lmcache_mp_l1_memory_usage_bytes{backend="dram",l1_tag="_default"} 16777216.0
lmcache_mp_l1_usage_ratio{backend="dram",l1_tag="_default"} 0.0078125
"""


# --- samples ----------------------------------------------------------------------------------------------------------


def test_absence_is_not_zero() -> None:
    samples = exposition(**{"vllm:num_requests_running": 0.0})
    assert samples.value("vllm:num_requests_running") == 0
    assert samples.value("vllm:num_requests_waiting") is None
    assert samples.value("vllm:num_requests_running", engine="1") is None


@pytest.mark.parametrize("asked", ["vllm:prompt_tokens", "vllm:prompt_tokens_total"])
@pytest.mark.parametrize("exposed", ["vllm:prompt_tokens", "vllm:prompt_tokens_total"])
def test_the_suffix_does_not_matter(asked: str, exposed: str) -> None:
    assert exposition(**{exposed: 7}).value(asked) == 7


def test_series_add_up_by_label() -> None:
    samples = Samples.parse('vllm:x_total{engine="0",a="1"} 1\nvllm:x_total{engine="1",a="1"} 2\n')
    assert samples.value("vllm:x") == 3
    assert samples.value("vllm:x", engine="1") == 2
    assert samples.maximum("vllm:x") == 2


def test_a_line_cut_off_is_no_number() -> None:
    samples = Samples.parse("vllm:a 1\nvllm:b 12")
    assert samples.value("vllm:b") is None
    assert samples.rejected == ("vllm:b 12",)


def test_bad_lines_do_not_take_the_good_ones_along() -> None:
    samples = Samples.parse('vllm:a 1\nvllm:b{x="\nvllm:c notanumber\nvllm:d 4\n')
    assert (samples.value("vllm:a"), samples.value("vllm:d")) == (1, 4)
    assert len(samples.rejected) == 2


def test_an_error_page_is_empty() -> None:
    assert Samples.parse("<html>502 Bad Gateway</html>\n").series == {}


def test_60_kilobytes_are_read_at_once() -> None:
    buckets = "".join(f'vllm:e2e_bucket{{le="{number}",model_name="m"}} {number}.0\n' for number in range(1000))
    text = (DATA / "inprocess-vllm0.25.1.metrics.txt").read_text() + buckets
    assert len(text) > 50_000
    best = min(_seconds(text) for _ in range(5))
    assert best < 0.015, f"{best * 1000:.1f} ms"


def _seconds(text: str) -> float:
    start = time.perf_counter()
    Samples.parse(text)
    return time.perf_counter() - start


# --- the engine -------------------------------------------------------------------------------------------------------


def test_engine_without_gpu_prefix_cache() -> None:
    engine = EngineCounters.read(recorded("inprocess-vllm0.25.1.metrics.txt"))
    assert (engine.computed, engine.gpu_hit, engine.loaded, engine.prompt_tokens) == (107_518, 0, 138_240, 245_758)
    assert (engine.requests_finished, engine.running, engine.waiting, engine.preemptions) == (63, 0, 0, 0)
    assert (engine.external_queries, engine.external_hits) == (245_758, 138_240)
    assert (engine.gpu_prefix_queries, engine.gpu_prefix_hits) == (0, 0)
    assert (engine.block_size, engine.pool_blocks, engine.pool_tokens) == (16, 29_817, 477_072)
    assert engine.prefix_caching_enabled is False
    assert engine.ttft_sum == pytest.approx(12.318034)
    assert engine.ttft_count == 63
    assert engine.kv_usage == 0.0


def test_engine_with_gpu_prefix_cache() -> None:
    engine = EngineCounters.read(recorded("gpu-prefix-cache-on-vllm0.25.1.metrics.txt"))
    assert (engine.computed, engine.gpu_hit, engine.loaded) == (102_826, 143_904, 39_936)
    assert engine.prompt_tokens == 102_826 + 143_904 + 39_936
    assert engine.prefix_caching_enabled is True
    assert engine.preemptions is None, "left out of this excerpt"


def test_old_names_are_absorbed() -> None:
    engine = vllm(
        "vllm:gpu_cache_usage_perc 0.5\nvllm:gpu_prefix_cache_queries_total 10\nvllm:gpu_prefix_cache_hits_total 4\n"
        'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0\n'
    )
    assert (engine.kv_usage, engine.gpu_prefix_queries, engine.gpu_prefix_hits) == (0.5, 10, 4)
    assert (engine.pool_tokens, engine.prefix_caching_enabled) == (1600, None)
    assert (engine.computed, engine.gpu_hit, engine.loaded) == (None, None, None)


def test_several_engines_of_one_exposition() -> None:
    engine = vllm(
        'vllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:kv_cache_usage_perc{engine="1"} 0.75\n'
        'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="100"} 1.0\n'
        'vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="100"} 1.0\n'
    )
    assert (engine.kv_usage, engine.pool_blocks, engine.pool_tokens, engine.pools) == (0.75, 200, 3200, 2)


def test_delta_subtracts_counters_and_keeps_gauges() -> None:
    before = EngineCounters(computed=100, loaded=None, ttft_sum=1.0, running=3, kv_usage=0.5, block_size=16)
    after = EngineCounters(computed=101, loaded=2048, ttft_sum=1.5, running=0, kv_usage=0.25, block_size=16)
    assert after.delta(before) == EngineCounters(
        computed=1, loaded=2048, ttft_sum=0.5, running=0, kv_usage=0.25, block_size=16
    )


@pytest.mark.parametrize("after", [EngineCounters(computed=99), EngineCounters()])
def test_a_restart_is_an_error(after: EngineCounters) -> None:
    before = EngineCounters(computed=100)
    with pytest.raises(CounterReset, match="computed was 100"):
        after.delta(before)


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
    assert (delta.loaded_tokens, delta.read_tokens) == (2048, 2048)
    assert (delta.evicted, delta.store_failures, delta.pinned) == (None, None, None)


def test_a_server_that_serves_engines_without_a_gpu_counts_no_loads() -> None:
    counters = cache("".join(line for line in RELOADED.splitlines(keepends=True) if "chunks_loaded" not in line))
    assert (counters.loaded_tokens, counters.read_tokens) == (None, 2048)


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
    assert (counters.stored_tokens, counters.read_tokens, counters.evicted) == (2048, 1024, 2)


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


IN_PROCESS = """\
lmcache:num_stored_tokens_total{role="worker",worker_id="0"} 2048.0
lmcache:num_stored_tokens_total{role="worker",worker_id="1"} 2048.0
lmcache:num_hit_tokens_total{role="worker",worker_id="0"} 1024.0
lmcache:num_hit_tokens_total{role="worker",worker_id="1"} 1024.0
lmcache:num_requested_tokens_total{role="worker",worker_id="0"} 1024.0
lmcache:num_store_requests_total{role="worker",worker_id="0"} 1.0
lmcache:num_retrieve_requests_total{role="worker",worker_id="0"} 1.0
lmcache:num_lookup_tokens_total{role="scheduler",worker_id="0"} 4096.0
lmcache:num_lookup_hits_total{role="scheduler",worker_id="0"} 2048.0
lmcache:local_cpu_evict_keys_count_total{role="worker",worker_id="0"} 5.0
lmcache:local_cache_usage{role="worker",worker_id="0"} 100.0
lmcache:local_cache_usage{role="worker",worker_id="1"} 100.0
lmcache:pinned_memory_objs_count{role="worker",worker_id="0"} 4.0
lmcache:put_failed_count{role="worker",worker_id="0"} 0.0
lmcache:lmcache_is_healthy{role="worker",worker_id="0"} 1.0
lmcache:lmcache_is_healthy{role="worker",worker_id="1"} 0.0
"""


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


# --- what operators watch ---------------------------------------------------------------------------------------------


def test_nothing_is_missing_on_healthy_stacks() -> None:
    assert missing_metrics(recorded("inprocess-vllm0.25.1.metrics.txt"), "engine") == ()
    assert missing_metrics(Samples.parse(RELOADED), "multi-process") == ()
    assert missing_metrics(Samples.parse(IN_PROCESS), "in-process") == ()


def test_what_is_missing_is_named() -> None:
    assert (
        missing_metrics(recorded("inprocess-vllm0.25.1.metrics.txt"), "in-process")[0]
        == "lmcache:num_stored_tokens_total"
    )
    assert missing_metrics(Samples.parse(COLD), "multi-process") == ("lmcache_mp_l1_read_chunks_total",)
    assert missing_metrics(Samples({}), "engine") == tuple(names[0] for names in EXPECTED_METRICS["engine"])


# --- any text ---------------------------------------------------------------------------------------------------------

LINES = st.sampled_from([*(RELOADED + IN_PROCESS).splitlines(), "vllm:x{", 'vllm:x{a="b"', "vllm:x nan", "vllm:x +Inf"])
TEXT = st.lists(
    st.one_of(
        st.text(),
        LINES,
        st.text().map(lambda text: f"vllm:{text}"),
        st.tuples(LINES, st.integers(0, 80)).map(lambda pair: pair[0][: pair[1]]),
    ),
    max_size=10,
).map(lambda lines: "\n".join(lines) + "\n")


@pytest.mark.long
@given(TEXT)
@settings(max_examples=300, deadline=None)
def test_no_text_is_too_strange(text: str) -> None:
    samples = Samples.parse(text)
    engine, counters = EngineCounters.read(samples), CacheCounters.read(samples, 256)
    assert engine.delta(EngineCounters()) is not None
    assert counters.flavour in (None, "in-process", "multi-process")
    missing_metrics(samples, "engine")


# --- pages that are none, and large ones ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<html>502 Bad Gateway</html>\n", "no metrics page: '<html>502 Bad Gateway</html>'"),
        ('{"error": "x"}', "no metrics page"),
        ("", "the metrics page is empty"),
        ("not found", "no metrics page: 'not found'"),
    ],
)
def test_a_page_that_is_no_metrics_page_says_so(text: str, words: str) -> None:
    assert words in (Samples.parse(text).problem or "")


@pytest.mark.parametrize("text", ["python_gc_total 1\n", "# HELP x y\n", 'vllm:a{b="c"} 1\n', "# EOF\n", "x NaN\n"])
def test_a_metrics_page_of_something_else_is_one(text: str) -> None:
    assert Samples.parse(text).problem is None


@pytest.mark.parametrize(
    "line",
    [
        'vllm:a{b="c",d="e"} 1.0',
        'vllm:a{b="x\\\\y\\"z\\n"} 1.0',
        'vllm:a{b="a,b={}"} 2',
        'vllm:a{ b = "c" , } 3',
        "vllm:a 1e9",
        "vllm:a NaN",
        "vllm:a +Inf",
        "vllm:a -1.5e-3 1700000000",
        'vllm:a{b=""} 0',
    ],
)
def test_a_sample_is_what_the_official_parser_reads(line: str) -> None:
    (family,) = text_string_to_metric_families(line + "\n")
    (one,) = Samples.parse(line + "\n").series["vllm:a"]
    expected = family.samples[0]
    assert dict(one.labels) == expected.labels
    assert one.value == expected.value or one.value != one.value


def test_a_page_of_20_mb_is_read_within_seconds() -> None:
    sample = 'vllm:prompt_tokens_total{engine="0",model_name="m"} 12.0\n'
    bucket = 'vllm:e2e_request_latency_seconds_bucket{engine="0",le="0.3",model_name="m"} 7.0\n'
    text = (sample + bucket * 9 + "go_gc_duration_seconds 1\n" * 10) * 20_000
    begin = time.process_time()
    assert len(Samples.parse(text).series["vllm:prompt_tokens_total"]) == 20_000
    assert time.process_time() - begin < 10, f"{len(text) / 1e6:.0f} MB"


# --- ranks and groups -------------------------------------------------------------------------------------------------


def test_what_ranks_write_and_load_counts_once() -> None:
    text = "lmcache_mp_l1_write_chunks_total 16\nlmcache_mp_num_chunks_loaded_total 32\nlmcache_mp_l1_read_chunks_total 32\n"
    found = cache(text, KvShape(4, 2))  # MLA: two parts of a chunk, that four ranks load
    assert (found.stored_tokens, found.loaded_tokens, found.read_tokens) == (8 * 256, 8 * 256, 8 * 256)


def test_keys_of_a_sliding_window_do_not_count_tokens() -> None:
    text = "lmcache_mp_l1_write_chunks_total 14\nlmcache_mp_lookup_hit_tokens_total 2816\n"
    found = cache(text, KvShape(1, 1, (FULL, 1, 1, 1)))
    assert (found.stored_tokens, found.hit_tokens) == (None, 2816)


def test_data_parallel_engines_in_process_are_added() -> None:
    """Each serves other requests; in their own group both are worker 0."""
    text = "".join(f'lmcache:num_stored_tokens_total{{engine="{at}",worker_id="0"}} 1024\n' for at in (0, 1))
    assert cache(text).stored_tokens == 2048


def test_a_number_of_thousands_of_digits_is_none() -> None:
    digits = "9" * 5000
    assert vllm(f'vllm:cache_config_info{{block_size="{digits}",num_gpu_blocks="7"}} 1\n').block_size is None
    assert vllm(f"vllm:num_requests_running {digits}\n").running is None


# --- vLLM's own connectors --------------------------------------------------------------------------------------------
NATIVE = "native-vllm0.32.0.metrics.txt"
"""OffloadingConnector on a CPU (``host_tier``) after 6 prompts, each cold, repeated, and reloaded; 8 KiB of KV a token."""
SIZE = TierSize(bytes_per_token=8192, tokens=131072)


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
    found = CacheCounters.read(samples, 16, tier=TierSize(bytes_per_token=131072, tokens=262144))
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
