"""Metrics of vLLM: the numbers of real scrapes, and any text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fixtures.evidence.metrics import CacheCounters, CounterReset, EngineCounters, Registry, TierTokens
from fixtures.evidence.prometheus import Samples
from fixtures.evidence.watched import EXPECTED_METRICS, missing_metrics
from tests.recorded_metrics import COLD, DATA, IN_PROCESS, RELOADED, exposition, recorded


def vllm(text: str) -> EngineCounters:
    return EngineCounters.read(Samples.parse(text))


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
    assert engine.gpu_prefix_hits == 0
    assert (engine.block_size, engine.pool_tokens) == (16, 477_072)
    assert engine.prefix_caching_enabled is False
    assert engine.ttft_sum == pytest.approx(12.318034)
    assert engine.ttft_count == engine.decode_count == 63
    assert engine.decode_sum == pytest.approx(23.663241)
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
    assert (engine.kv_usage, engine.gpu_prefix_hits) == (0.5, 4)
    assert (engine.pool_tokens, engine.prefix_caching_enabled) == (1600, None)
    assert (engine.computed, engine.gpu_hit, engine.loaded) == (None, None, None)


def test_several_engines_of_one_exposition() -> None:
    engine = vllm(
        'vllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:kv_cache_usage_perc{engine="1"} 0.75\n'
        'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="100"} 1.0\n'
        'vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="100"} 1.0\n'
    )
    assert (engine.kv_usage, engine.pool_tokens, engine.pools) == (0.75, 3200, 2)


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


def test_in_process_what_is_sent_to_a_remote_store_is_counted_in_bytes() -> None:
    samples = Samples.parse("lmcache:num_stored_tokens_total 512\nlmcache:num_remote_write_bytes_total 4194304\n")
    assert CacheCounters.read(samples, 256, tier=TierTokens(8192)).below_stored_tokens == 512
    assert CacheCounters.read(samples, 256).below_stored_tokens is None, "the bytes of a token are not known"


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
        ("<html>502 Bad Gateway</html>\n", "not a metrics page: '<html>502 Bad Gateway</html>'"),
        ('{"error": "x"}', "not a metrics page"),
        ("", "the metrics page is empty"),
        ("not found", "not a metrics page: 'not found'"),
        ("upstream 502\n", "not a metrics page"),
        ("error 503 service unavailable\n", "not a metrics page"),
        ("code: 502\nretry_after 3\n", "not a metrics page"),
        ("<html>\nnginx 12\n</html>\n", "not a metrics page: '<html> nginx 12"),
        ("\n <!DOCTYPE html>\nvllm:prompt_tokens_total 5\n", "not a metrics page: '<!DOCTYPE html>"),
    ],
)
def test_a_page_that_is_no_metrics_page_says_so(text: str, words: str) -> None:
    assert words in (Samples.parse(text).problem or "")


@pytest.mark.parametrize("number", ["NaN", "nan", "+Inf", "-Inf"])
def test_a_series_without_a_number_is_absent(number: str) -> None:
    samples = Samples.parse(
        f'vllm:kv_cache_usage_perc{{engine="0"}} {number}\nvllm:request_decode_time_seconds_sum {number}\n'
    )
    assert samples.problem is None
    assert EngineCounters.read(samples) == EngineCounters()
    both = Samples.parse(
        f'vllm:kv_cache_usage_perc{{engine="0"}} {number}\nvllm:kv_cache_usage_perc{{engine="1"}} 0.5\n'
    )
    assert EngineCounters.read(both).kv_usage == 0.5


@pytest.mark.parametrize("text", ["python_gc_total 1\n", "# HELP x y\n", 'vllm:a{b="c"} 1\n', "# EOF\n", "x_y NaN\n"])
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


def test_a_number_of_thousands_of_digits_is_none() -> None:
    digits = "9" * 5000
    assert vllm(f'vllm:cache_config_info{{block_size="{digits}",num_gpu_blocks="7"}} 1\n').block_size is None
    assert vllm(f"vllm:num_requests_running {digits}\n").running is None


def test_what_the_engines_told_a_router() -> None:
    page = """# TYPE lmcache:cache_controller_kv_pool_keys_count gauge
lmcache:cache_controller_kv_pool_keys_count{role="controller"} 42.0
lmcache:cache_controller_registered_workers_count{role="controller"} 2.0
lmcache:cache_controller_full_sync_workers_syncing{role="controller"} 1.0
lmcache:cache_controller_full_sync_workers_completed{role="controller"} 1.0
"""
    assert Registry.read(Samples.parse(page)) == Registry(workers=2, keys=42, syncing=1, synced=1)
    assert not Registry(2, 42, 1, 1).in_step
    assert not Registry(2, 42, 0, 1).in_step
    assert not Registry(0, 0, 0, 0).in_step
    assert Registry(2, 42, 0, 2).in_step
    assert Registry(2, 42).in_step
    assert Registry.read(Samples.parse("vllm:num_requests_running 0\n")) == Registry(None, None)


def test_a_number_that_no_float_holds_is_rejected() -> None:
    """Found by the fuzzer, in its seventh hundred thousand: the value is not a plain one, because of the brace in the label."""
    line = f'vllm:prefix_cache_queries_total{{model_name="mis}}tralai"}} {"9" * 400}'
    assert Samples.parse(f"{line}\nvllm:num_requests_running 0\n").rejected == (line,)


@pytest.mark.parametrize(
    ("workers", "syncing", "synced", "in_step"),
    [
        (2, 0, 2, True),
        (2, 0, 3, True),
        (2, 0, 1, False),
        (2, 1, 2, False),
        (None, None, None, True),
        (None, 0, 1, True),
        (None, 0, 0, False),
        (0, None, 0, False),
    ],
)
def test_a_registry_is_in_step_when_every_worker_has_told_it_all(
    workers: int | None, syncing: int | None, synced: int | None, in_step: bool
) -> None:
    assert Registry(workers, None, syncing, synced).in_step == in_step
