"""What a cache server tells of a tier below host memory: lines and series recorded from LMCache 0.5.6."""

from __future__ import annotations

import pytest

from fixtures.evidence import tier_words
from fixtures.evidence.prometheus import Samples

HEAD = "[2026-11-29 22:05:02,785] LMCache "
FAILED = f"{HEAD}ERROR: FSL2Adapter failed to store /x/l2/tiny@0x01000100@0@d195a1.data (fs_l2_adapter.py:617:a)"
TASK = f"{HEAD}WARNING: Store task 29 to adapter 0 failed for keys: [ObjectKey(chunk_hash=b'x')] (store_controller.py:760:a)"
SHORT = f"{HEAD}WARNING: Incomplete read for -SEP-models-SEP-tiny@0x01000100@0@57a3.data: expected 2097152, got 1000 (a.py:1:a)"
PUT = f"{HEAD}WARNING: batched put error: command not allowed when used memory > 'maxmemory'. (instrumented_connector.py:186:a)"
CLEARED = (
    f"{HEAD}WARNING: L1Manager: force-clearing all 4 objects and 0 staging objects (including locked ones). This may corrupt "
    "in-flight store/prefetch operations \u2014 use with caution. (l1_manager.py:885:a)"
)
THREADS = f"{HEAD}WARNING: AffinityThreadPool: affinity_key=-27 wrapped onto worker slot 0 (affinity_pool.py:119:a)"
SESSION = f"{HEAD}WARNING: Session cmpl-9c8a9adc has no lookup ipc key, skipping touch (lookup.py:485:a)"
PREFETCH = f"{HEAD}INFO: Prefetch request completed (L1+L2): 4/4 retained keys (0 L1, 4 L2) in 51 ms (storage.py:651:a)"


@pytest.mark.parametrize("line", [FAILED, TASK, SHORT, PUT])
def test_a_line_that_warns_of_the_tier_is_heard(line: str) -> None:
    assert len(tier_words.loud_lines(f"{PREFETCH}\n{line}\nTraceback (most recent call last):")) == 1


@pytest.mark.parametrize("line", [CLEARED, THREADS, SESSION, PREFETCH, ""])
def test_other_lines_say_nothing_of_it(line: str) -> None:
    assert tier_words.loud_lines(line) == []


BEFORE = Samples.parse(
    'lmcache_mp_l2_prefetch_load_completed_chunks_total 4\nlmcache_mp_l2_usage_bytes{l2_name="fs"} 1\n'
)
AFTER = Samples.parse(
    "lmcache_mp_l2_prefetch_load_completed_chunks_total 7\n"
    'lmcache_mp_l2_prefetch_failure_chunks_total{model_name="/m",reason="not_found"} 1\n'
    'lmcache_mp_l2_load_throughput_GB_per_second_count{l2_name="fs"} 2\n'
    'lmcache_mp_l2_load_throughput_GB_per_second_sum{l2_name="fs"} 0.5\n'
    'lmcache_mp_num_inflight_l2_loads{l2_name="fs"} 1\n'
)


def test_metrics_of_failures_times_and_what_is_in_flight() -> None:
    assert tier_words.failures(BEFORE, AFTER) == ["lmcache_mp_l2_prefetch_failure_chunks_total +1"]
    assert tier_words.transfers(BEFORE, AFTER) == {"lmcache_mp_l2_load_throughput_GB_per_second": 0.25}
    assert tier_words.in_flight(AFTER) == ["lmcache_mp_num_inflight_l2_loads 1"]
    assert not tier_words.failures(AFTER, AFTER)
    assert not tier_words.transfers(AFTER, AFTER)
    assert not tier_words.in_flight(BEFORE)


def test_an_adapter_that_is_called_unhealthy() -> None:
    status = {"storage_manager": {"l2_adapters": [{"type": "FSL2Adapter", "is_healthy": False}, {"is_healthy": True}]}}
    assert tier_words.unhealthy(status) == ["FSL2Adapter is unhealthy"]
    assert tier_words.unhealthy({}) == []
    assert tier_words.unhealthy({"storage_manager": {"l2_adapters": None}}) == []


def test_what_lmcache_in_process_counts() -> None:
    before = Samples.parse("lmcache:put_failed_count 0\nlmcache:time_to_retrieve_count 3\n")
    after = Samples.parse(
        "lmcache:put_failed_count 2\nlmcache:num_hit_tokens_total 9\nlmcache:time_to_retrieve_count 4\n"
        "lmcache:remote_time_to_get_sync_count 1\nlmcache:remote_time_to_get_sync_sum 1200\nlmcache:time_to_store_count 5\n"
        "lmcache:time_to_retrieve_sum 2.5\nlmcache:remote_time_to_put_count 1\nlmcache:remote_time_to_put_sum 7\n"
    )
    assert tier_words.failures(before, after) == ["lmcache:put_failed_count +2"]
    found = tier_words.transfers(before, after)
    assert found == {
        "lmcache:remote_time_to_get_sync": 1200,
        "lmcache:remote_time_to_put": 7,
        "lmcache:time_to_retrieve": 2.5,
    }
    assert tier_words.has_loads(found)
    assert not tier_words.has_loads(["lmcache:remote_time_to_put", "lmcache_mp_l2_store_throughput_GB_per_second"])


RETRIEVE, LOAD = "lmcache:time_to_retrieve", "lmcache_mp_l2_load_throughput_GB_per_second"


@pytest.mark.parametrize(
    ("usual", "now", "said"),
    [
        ({RETRIEVE: 0.02}, {RETRIEVE: 1.2}, [f"{RETRIEVE}: 1.2 on average, 0.02 before"]),
        ({LOAD: 0.4}, {LOAD: 0.21}, [f"{LOAD}: 0.21 on average, 0.4 before"]),
        ({RETRIEVE: 0.02}, {RETRIEVE: 0.021}, []),  # a histogram that counts says nothing yet
        ({LOAD: 0.4}, {LOAD: 4.0}, []),
        ({RETRIEVE: 0.02}, {}, []),
        ({}, {RETRIEVE: 1.2}, []),  # nothing to compare it with
    ],
)
def test_only_a_transfer_that_was_slower_than_those_before_is_told_as_slow(
    usual: dict[str, float], now: dict[str, float], said: list[str]
) -> None:
    assert tier_words.slower(usual, now) == said
