"""Recorded pages of metrics."""

from __future__ import annotations

from pathlib import Path

from fixtures.evidence.prometheus import Samples

DATA = Path(__file__).parent / "data" / "evidence"


def recorded(name: str) -> Samples:
    return Samples.parse((DATA / name).read_text())


def exposition(**values: float) -> Samples:
    return Samples.parse("".join(f"{name} {value}\n" for name, value in values.items()))


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
