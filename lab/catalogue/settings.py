"""Stacks and sets of requirements that several faults and healthy variants name."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING

from lab.catalogue.model import Values, ids

if TYPE_CHECKING:
    from fixtures.provide.values.config import RecipeName

OWN_CONNECTOR = {"lmcacheConfig.enabled": False}
"""The chart puts its own connector behind extraArgs, and the last one counts: it has to go to use another."""
SHORT_DEADLINES = Values(
    OWN_CONNECTOR,
    extra_args=(
        "--kv-transfer-config",
        '{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both","kv_connector_extra_config":'
        '{"lmcache.mp.mq_timeout":1,"lmcache.mp.heartbeat_interval":2}}',
    ),
    where="command",
    shows='"lmcache.mp.mq_timeout": 1',
)
"""The connector gives the cache server up after 1 s. Its default is 300 s, and until then every request hangs."""
FAILED_LOADS_COMPUTED = Values(
    OWN_CONNECTOR,
    extra_args=(
        "--kv-transfer-config",
        '{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both","kv_load_failure_policy":"recompute"}',
    ),
    where="command",
    shows='"kv_load_failure_policy": "recompute"',
)
"""With vLLM's default (fail), the first load that fails ends the engine of the pair."""
SMALL_TIER = Values(
    {"lmcacheConfig.cpuOffloadingBufferSize": None},
    env=(("LMCACHE_MAX_LOCAL_CPU_SIZE", "0.25"),),
    extra_args=("--num-gpu-blocks-override", "80"),
    where="record",
    shows='"--l1-size-gb",\\s*"0.25"',
)
"""A tier of 128 chunks above a pool of 40: it is overfilled in half a minute."""
DISK = Values(configuration="disk", where="record", shows=r'\\"type\\": \\"fs\\"')
"""A tier in files below the CPU tier."""
REMOTE = Values(configuration="remote", where="record", shows=r'\\"type\\": \\"resp\\"')
"""The same in Redis."""
SIZED = Values(
    configuration="disk",
    adapter={"type": "fs_native", "max_capacity_gb": 0.125, "eviction": {"eviction_policy": "LRU"}},
    where="record",
    shows=r'\\"max_capacity_gb\\": 0.125',
)
"""A tier in files of 128 MiB, twice the CPU tier."""
ENCRYPTED = Values(
    configuration="disk",
    adapter={"serde": {"type": "aesgcm", "master_key_path": "{folder}/key"}},
    files={"key": "sixteen bytes are a key"},
    where="record",
    shows="aesgcm",
)
"""A tier in files whose content is encrypted and authenticated by LMCache."""
DISK_IN_PROCESS = Values(configuration="disk-in-process", where="record", shows="LMCACHE_LOCAL_DISK")
"""LMCache in the engine's process, with a tier in files of 384 MiB."""
REMOTE_IN_PROCESS = Values(configuration="remote-in-process", where="record", shows="LMCACHE_REMOTE_URL")
LM = Values(configuration="remote-lm", where="record", shows="lmcache_server")
"""The same with the chart's own cache server (``cacheserverSpec``)."""
SHARED = Values(configuration="shared", where="record", shows="mistral-1")
"""Two engines, one cache server, and one store below it."""
BOTH = Values(
    configuration="remote",
    server=("--l2-adapter", json.dumps({"type": "fs", "base_path": "/var/lib/lmcache/kv"})),
    where="record",
    shows=r'\\"type\\": \\"fs\\"',
)
"""A tier in Redis and one in files below the same CPU tier."""
BELOW = ("CFG-01", "API-06")
"""What stays silent under the faults of a tier below host memory."""
STATES = tuple(f"TIR-04:{state}" for state in ("full", "read-only", "slow", "frozen", "gone"))


def only(case: str) -> tuple[str, ...]:
    """The other states of such a tier, which are left out; a frozen folder is a known defect of LMCache 0.5.6."""
    return tuple(one for one in STATES if one != f"TIR-04:{case}")


CAPACITY = ("CFG-01", "CAP-01", "CAP-02", "CAP-03", "API-06")


def made_here(recipe: RecipeName) -> Values:
    """Another model of random weights, in place of the configuration's own."""
    return Values(recipe=recipe, where="command", shows=f"models/{recipe}-")


QWEN = made_here("tiny-qwen")
ADAPTERS = made_here("tiny-llama-adapters")
NO_PREFIX_CACHE = Values({"vllmConfig.enablePrefixCaching": False}, where="command", shows="--no-enable-prefix-caching")
TWO_ENGINES = Values({"replicaCount": 2}, where="record", shows="mistral-1")
ROUTED = Values(configuration="two-engines", where="record", shows="router-0")
"""Two engines behind a router, and one cache server for both."""
NAMES = ("--served-model-name", "mistralai/Mistral-7B-Instruct-v0.3", "an-alias")
TWO_NAMES = dataclasses.replace(ROUTED, extra_args=NAMES, shows="an-alias")
"""The same, whose model has two names."""
NATIVE_TIER = Values(configuration="native-cpu", where="command", shows="--kv-offloading-size 1")
"""vLLM's own connector, without LMCache."""
ROUTED_BY_PREFIX = Values(configuration="router-prefix", where="record", shows="cache_aware")
"""The same with a router that goes by the beginning of the prompt."""
ROUTED_BY_KV = Values(configuration="router-kv", own_router=True, where="record", shows="lmcache-controller-port")
"""Two engines that tell production-stack's own router what they hold; each has a tier of its own."""
REFUSED_AS_TEXT = (
    "malformed-json", "empty-body", "not-an-object", "wrong-content-type", "no-prompt", "prompt-of-wrong-type",
    "max-tokens-of-wrong-type", "negative-max-tokens", "chat-without-messages", "chat-messages-of-wrong-type",
    "chat-negative-max-tokens",
)  # fmt: skip
BROKEN_BY_THE_ROUTER = (*(f"{id_}:{name}" for id_ in ("API-09", "RTR-07") for name in REFUSED_AS_TEXT), "RTR-03:frozen")
"""What vllm-router 0.1.17 does not meet without any fault (configs/two-engines/waivers.yaml)."""
ROUTED_TWICE = dataclasses.replace(ROUTED, router={"replicaCount": 2}, shows="router-1")
"""The same with two routers."""
KILLED_ONLY = (*BROKEN_BY_THE_ROUTER, "RTR-03:drained")
"""Without the drained engine, too: vLLM 0.32 cuts running answers short with status 200 at a SIGTERM (in some runs)."""
FAILING_LOADS = Values(
    configuration="disk",
    adapter={"type": "fault_inject", "rate": 0.5, "inner": {"type": "fs", "base_path": "/var/lib/lmcache/kv"}},
    where="record",
    shows="fault_inject",
)
"""A tier in files of which LMCache's fault injector lets loads of every second chunk fail."""
FROZEN_ONLY = (*BROKEN_BY_THE_ROUTER[:-1], "RTR-03:killed", "RTR-03:drained")
"""Only the engine that hangs, with a fault in place of the router: behind vllm-router 0.1.17 that is a known defect."""
EVICTED = ("CFG-01", "ACC-02", "API-02", "TIR-01")
RESTARTED = ("CFG-01", "API-02", "TIR-02")
EVERYTHING_BELOW = ("CFG", "ACT", "ACC-01", "ACC-03", "ACC-07", "COR-01", "API-02", "TIR-01", "TIR-02", "TIR-05")
"""What a small CPU tier above another one can be asked: while it is full, LMCache 0.5.6 refuses to load into it (ACC-02)."""
ON_ONE_STORE = ("CFG-01", "CFG-06", "COR-05", "RTR-04", "TIR-06")
"""What a CPU tier of 64 MiB below two pools can be asked."""
IN_PROCESS_BELOW = ("CFG", "ACT", "ACC-02", "ACC-07", "COR-01", "API-02", "TIR-01", "TIR-02", "TIR-05", "TIR-06")
THROUGH_THE_ROUTER = ("API-09", "RTR-01", "CFG-01")


def server_with(*words: str) -> Values:
    """A cache server with a disk tier, and with more words on its command line."""
    return dataclasses.replace(DISK, server=words, shows=re.escape(words[-1]))


LOOKED_AT = ("TIR-06", "CFG-01", "CFG-03", "API-06")
BY_KV = ("CFG-01", "TIR-06", "RTR-01", "RTR-02", "RTR-06")
ROUTING = ("RTR-01", "RTR-02", "RTR-04", "RTR-06", "CFG-01", "CFG-06")
ACTIVE = ids("ACT-02 ACT-03")
LOADS = ids("ACC-02 ACC-05 ACC-06 ACC-07")
"""Accounted requirements that a tier which gives nothing back cannot meet."""
STORES = ids("ACC-01 ACC-06 ACC-07")
CORRECT = ids("COR-01 COR-02 COR-03 COR-04")
TIMING = ids("LAT-01 LAT-03")
ASKING = ids(
    "ACC-01 ACC-02 ACC-03 ACC-04 ACC-05 ACC-06 ACC-07 ACT-02 ACT-03 COR-01 COR-02 COR-03 COR-04 COR-05 LAT-05 MEM-03 MEM-04 "
    "API-02 API-03 API-04 API-05 API-06 API-07 API-08"
)
"""Everything that sends a prompt of a chunk or more: where requests fail, all of these do."""
REPORTS = ("CFG-01", "ACC-02", "ACC-03", "ACC-09", "API-04", "API-06")
