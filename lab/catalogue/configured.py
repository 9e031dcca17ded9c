"""Faults of the configuration: what the values ask for does not reach the engine."""

from __future__ import annotations

from lab.catalogue.model import Fault, Hook, Values, ids
from lab.catalogue.settings import ACTIVE, LOADS, OWN_CONNECTOR, ROUTED, ROUTED_COMPUTING, STORES

FAULTS: tuple[Fault, ...] = (
    Fault(
        "connector-missing",
        "configuration",
        "lmcacheConfig is switched off: the engine has no connector and answers everything",
        "PS docs kv_cache/index.rst at 0.1.2 (children at the wrong indent)",
        Values({"lmcacheConfig.enabled": False}, where="command", shows="--kv-transfer-config", absent=True),
        ids("CFG-01 ACT-01 ACC-02"),
        allowed=ids("CFG-02 ACC-01 ACC-05 ACC-06 ACC-07 ACT-02 ACT-03"),
    ),
    Fault(
        "role-that-only-stores",
        "configuration",
        "kv_role is kv_producer: nothing needs to be loaded (this connector loads all the same, others do not)",
        "V 0.32 config/kv_transfer.py (source)",
        Values(
            OWN_CONNECTOR,
            extra_args=("--kv-transfer-config", '{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_producer"}'),
            where="command",
            shows="kv_producer",
        ),
        ids("CFG-01"),
        allowed=ACTIVE | LOADS | STORES,
    ),
    Fault(
        "tier-smaller-than-a-prompt",
        "inactive",
        "a CPU tier of 0.02 GiB, far below one long prompt and below the GPU pool",
        "LM#955, LM#745, LM#1034",
        Values(
            {"lmcacheConfig.cpuOffloadingBufferSize": None},
            env=(("LMCACHE_MAX_LOCAL_CPU_SIZE", "0.02"),),
            where="record",
            shows='"--l1-size-gb",\\s*"0.02"',
        ),
        ids("CFG-08 ACC-02"),
        allowed=ACTIVE | LOADS | STORES | ids("CFG-03 ACC-04 ACT-04 ACT-05 COR-04"),
    ),
    Fault(
        "pool-larger-than-the-tier",
        "configuration",
        "a KV pool of 262 144 tokens above a CPU tier of 131 072: whatever the pool evicts, the tier has evicted before",
        "LM#2641 (LRU thrash)",
        Values({}, extra_args=("--num-gpu-blocks-override", "2048"), where="command", shows="override 2048"),
        ids("CFG-08"),
    ),
    Fault(
        "limit-below-the-buffer",
        "memory",
        "the pod's memory limit is lower than the host buffer it is to hold",
        "LM#792, LM#1399",
        Values({"limitMemory": "1Gi"}, where="record", shows=r'"memory_limit_bytes": 1073741824'),
        ids("CFG-07"),
    ),
    Fault(
        "disk-size-without-a-path",
        "configuration",
        'diskOffloadingBufferSize: "10" alone: the chart renders the size and no path, and LMCache makes no disk tier of it',
        "PS chart template, LM 0.5.6 storage_backend/__init__.py (source)",
        Values({"lmcacheConfig.diskOffloadingBufferSize": "10"}, where="record", shows='"disk_text": "10"'),
        ids("CFG-02"),
        tests=("CFG-01", "CFG-02", "CFG-03", "TIR-06"),
    ),
    Fault(
        "buffer-with-a-unit",
        "configuration",
        'cpuOffloadingBufferSize: "20Gi": the template takes it for 0 and LMCache keeps its default of 5',
        "PS chart template, gt (int ...) 0 (source)",
        Values({"lmcacheConfig.cpuOffloadingBufferSize": "2Gi"}, where="record", shows='"buffer_text": "2Gi"'),
        ids("CFG-02"),
    ),
    Fault(
        "setting-misspelt",
        "configuration",
        "LMCACHE_MAX_CPU_SIZE and LM_CACHE_CHUNK_SIZE: names that LMCache does not read",
        "LM#419",
        Values(
            {},
            env=(("LMCACHE_MAX_CPU_SIZE", "4"), ("LM_CACHE_CHUNK_SIZE", "512")),
            where="environment",
            shows="LMCACHE_MAX_CPU_SIZE=4",
        ),
        ids("CFG-03"),
    ),
    Fault(
        "engine-with-another-model",
        "configuration",
        "of two engines that share a tier, the second one serves the model from another folder under the same name",
        "LM#1139 (engines of one tier that are not alike)",
        Hook("other-model", {"instance": "-1"}, at_start=True, values=ROUTED),
        ids("CFG-06"),
        allowed=ids("RTR-04"),
        tests=("CFG-06", "CFG-01", "RTR-01"),
    ),
    Fault(
        "engine-with-another-data-type",
        "configuration",
        "of two engines that share a tier, the second one computes in bfloat16, the first one in float32",
        "LM#1139 (engines of one tier that are not alike)",
        Hook(
            "other-words", {"instance": "-1", "words": ["--dtype", "bfloat16"]}, at_start=True, values=ROUTED_COMPUTING
        ),
        ids("CFG-06 RTR-04"),
        tests=("CFG-06", "CFG-01", "RTR-01", "RTR-04"),
    ),
    Fault(
        "native-pool-larger-than-the-tier",
        "configuration",
        "vLLM's own connector with a tier of 0.125 GiB (16 384 tokens) above a KV pool of 32 768",
        "LM#2641 (LRU thrash)",
        Values(
            configuration="native-cpu",
            extra_args=("--kv-offloading-size", "0.125"),
            where="command",
            shows="--kv-offloading-size 0.125",
        ),
        ids("CFG-08"),
        tests=("CFG-01", "CFG-02", "CFG-08", "ACC-02", "API-06"),
    ),
)
