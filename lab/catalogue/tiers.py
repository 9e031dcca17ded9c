"""Faults of tiers below host memory."""

from __future__ import annotations

import dataclasses
from typing import Any

from lab.catalogue.model import Fault, Hook, Kind, Process, ids
from lab.catalogue.settings import (
    BELOW,
    DISK,
    DISK_IN_PROCESS,
    EVICTED,
    LM,
    LOOKED_AT,
    ON_ONE_STORE,
    REMOTE,
    REMOTE_IN_PROCESS,
    RESTARTED,
    SHARED,
    SIZED,
    only,
    server_with,
)


def _below(id_: str, kind: Kind, title: str, hook: Hook, expected: str = "TIR-01", **more: Any) -> Fault:
    """A fault of a tier below the CPU tier; ``hook`` names the fault and has its parameters."""
    values = REMOTE if id_.startswith("redis-") else DISK
    tests = RESTARTED if "TIR-02" in expected else EVICTED
    source = more.pop("source", "source (lmcache/v1/distributed/l2_adapters)")
    injection = dataclasses.replace(hook, values=values)
    return Fault(id_, kind, title, source, injection, ids(expected), tests=more.pop("tests", tests), **more)


def _in_process(id_: str, kind: Kind, title: str, hook: Hook, expected: str = "TIR-01", **more: Any) -> Fault:
    """A fault of a tier of LMCache in the engine's process."""
    injection = dataclasses.replace(hook, values=hook.values or DISK_IN_PROCESS)
    source = "source (lmcache/v1/storage_backend)"
    return Fault(id_, kind, title, source, injection, ids(expected), tests=(*BELOW, expected), **more)


def _while(state: str, id_: str, kind: Kind, title: str, source: str, hook: Hook) -> Fault:
    """A fault that shows while a tier in files is in one state; ``hook`` names the fault and has its parameters."""
    injection = dataclasses.replace(hook, values=DISK)
    return Fault(id_, kind, title, source, injection, ids("TIR-04"), tests=(*BELOW, "TIR-04"), without=only(state))


FAULTS: tuple[Fault, ...] = (
    _below(
        "below-never-written",
        "inactive",
        "what is said to be written to the tier below is not",
        Hook("below-drop"),
    ),
    _below(
        "below-written-late",
        "inactive",
        "what is said to be written below is written a minute later, and lost with the cache server",
        Hook("below-late", {"seconds": 60.0}),
        "TIR-02",
    ),
    _below(
        "below-holds-little",
        "inactive",
        "the tier below keeps the last 40 chunks only, and says nothing",
        Hook("below-keep-few", {"chunks": 40}),
    ),
    _below(
        "below-not-looked-up",
        "inactive",
        "lookups leave out the tier below",
        Hook("below-never-found"),
    ),
    _below(
        "below-first-chunk-only",
        "inactive",
        "of a prompt that is below, only the first chunk is found",
        Hook("below-first-only"),
    ),
    _below(
        "below-in-another-order",
        "wrong answer",
        "the chunks of a prompt come from below in another order",
        Hook("below-mixed-up"),
        allowed=ids("ACT-04"),
    ),
    _below(
        "below-counted-as-cpu",
        "observability",
        "what came from below is counted as found in the CPU tier",
        Hook("below-counted-above"),
    ),
    _below(
        "below-slow",
        "latency",
        "every load from below waits for three seconds",
        Hook("below-slow", {"seconds": 3.0}),
        "TIR-05",
        slow=True,
        tests=("CFG-01", "API-02", "TIR-05"),
    ),
    _below(
        "below-emptied-at-start",
        "inactive",
        "a cache server that starts removes what is below",
        Hook("below-empty-at-start"),
        "TIR-02",
    ),
    _below(
        "below-renamed-at-start",
        "inactive",
        "a cache server that was started again gives chunks other names than before",
        Hook("below-new-names"),
        "TIR-02",
    ),
    _below(
        "keys-differ-after-a-restart",
        "inactive",
        "an engine that was started again makes other keys than before",
        Hook("new-keys"),
        "TIR-02",
        source="V#42625",
    ),
    _below(
        "below-without-a-salt",
        "leakage",
        "chunks have names below the CPU tier that leave out the cache salt",
        Hook("below-no-salt"),
        "COR-05",
        source="LM#2961",
        tests=("CFG-01", "API-02", "COR-05"),
    ),
    _in_process(
        "disk-in-process-never-written",
        "inactive",
        "in process, chunks are left out that are to be written to disk",
        Hook("disk-drop"),
    ),
    _in_process(
        "disk-in-process-slow",
        "latency",
        "in process, every chunk that is read from disk comes a second late",
        Hook("disk-slow", {"seconds": 1.0}),
        "TIR-05",
        slow=True,
    ),
    _in_process(
        "disk-in-process-never-full",
        "memory",
        "in process, a disk tier evicts nothing, whatever is in it",
        Hook("disk-never-full"),
        "TIR-03",
        without=("TIR-03:True",),
    ),
    Fault(
        "disk-in-process-forgets-what-lies-there",
        "memory",
        "LMCache as it is: in process, the files of before a restart are not counted, and the disk tier outgrows its size",
        "source: local_disk_backend.py begins with a size of 0",
        DISK_IN_PROCESS,
        ids("TIR-03"),
        tests=(*BELOW, "TIR-03"),
    ),
    _in_process(
        "redis-in-process-never-written",
        "inactive",
        "in process, chunks are left out that are to be written to Redis",
        Hook("store-drop", values=REMOTE_IN_PROCESS),
    ),
    _in_process(
        "lm-in-process-never-written",
        "inactive",
        "in process, chunks are left out that are to be sent to the chart's own cache server",
        Hook("store-drop", values=LM),
    ),
    _below(
        "redis-written-under-other-names",
        "inactive",
        "chunks are written to Redis under names that no lookup asks for",
        Hook("below-lost-names"),
    ),
    _below(
        "redis-renamed-at-start",
        "inactive",
        "a cache server that was started again asks Redis for other names than before",
        Hook("below-new-names"),
        "TIR-02",
    ),
    _below(
        "redis-counted-as-cpu",
        "observability",
        "what came from Redis is counted as found in the CPU tier",
        Hook("below-counted-above"),
    ),
    Fault(
        "keys-of-one-engine-on-one-store",
        "inactive",
        "one of two engines that share a store gives its KV keys that the other one never asks for",
        "LM#2136 (a hash seed of its own)",
        Hook("own-keys", {"engine": 1}, values=SHARED),
        ids("RTR-04"),
        tests=ON_ONE_STORE,
    ),
    _while(
        "slow",
        "slow-tier-called-done",
        "wrong answer",
        "a load from a slow tier is called done after half a second, whatever has come",
        "LM#3685 (a slow remote tier)",
        Hook("hasty-load", {"seconds": 0.5}),
    ),
    _while(
        "slow",
        "slow-loads-not-measured",
        "observability",
        "nothing in log or metrics tells that loads from a tier have become slow, though stores are counted as before",
        "LM 0.5.6 subscribers/metrics/l2_throughput.py (source): nothing else tells of it",
        Hook("loads-not-measured"),
    ),
    _while(
        "slow",
        "misses-wait-for-a-slow-tier",
        "latency",
        "a lookup waits until the load of another request has ended",
        "LM#3472",
        Hook("lookup-behind-load"),
    ),
    _while(
        "full",
        "full-tier-ends-the-cache-server",
        "crash or hang",
        "the cache server ends when its disk is full",
        "LM#2238",
        Hook("die-when-full"),
    ),
    _while(
        "gone",
        "gone-tier-never-answers",
        "crash or hang",
        "a lookup in a folder that is gone never ends",
        "LM#5270",
        Hook("endless-lookup"),
    ),
    _while(
        "read-only",
        "tier-given-up-for-good",
        "inactive",
        "after one store that failed a tier is never used again",
        "LM#5270 (after an outage)",
        Hook("give-up-tier"),
    ),
    _while(
        "full",
        "tier-fails-in-silence",
        "observability",
        "nothing in log or metrics tells of stores that fail",
        "LM#4064 (a failure that is swallowed)",
        Hook("silent", {"about": "lmcache.v1.distributed"}),
    ),
    Fault(
        "tier-never-evicts",
        "memory",
        "a tier in files with a size evicts nothing",
        "LM#1399 (a disk tier beyond its size)",
        Hook("never-evict-below", values=SIZED),
        ids("TIR-03"),
        tests=(*BELOW, "TIR-03"),
        without=("TIR-03:True",),
    ),
    Fault(
        "tier-counts-half",
        "memory",
        "a tier counts half of what lies in it",
        "LM#1399 (a disk tier beyond its size)",
        Hook("count-half", values=SIZED),
        ids("TIR-03"),
        tests=(*BELOW, "TIR-03"),
        without=("TIR-03:True",),
    ),
    Fault(
        "tier-forgets-what-lies-there",
        "memory",
        "LMCache as it is: after a restart the files of before are not counted, and the tier outgrows its size",
        "source: native_connector_l2_adapter.py begins with no sizes",
        SIZED,
        ids("TIR-03"),
        tests=(*BELOW, "TIR-03"),
    ),
    Fault(
        "store-port-closed",
        "configuration",
        "nothing listens where the cache server's store is to be: engine and cache server are healthy all the same",
        "LM 0.5.6 l2_adapters/resp_l2_adapter.py (source)",
        Process("kill-store", values=REMOTE),
        ids("TIR-06"),
        tests=LOOKED_AT,
    ),
    Fault(
        "coordinator-port-closed",
        "configuration",
        "a coordinator at a port where nothing listens: the cache server serves alone",
        "PS tutorials/17-kv-aware-routing.md (port 9001 of the controller), LM 0.5.6 mp_coordinator/registrar.py (source)",
        server_with("--coordinator-url", "http://127.0.0.1:9"),
        ids("TIR-06"),
        tests=LOOKED_AT,
    ),
    Fault(
        "coordinator-unknown-host",
        "configuration",
        "a coordinator whose name does not resolve",
        "LM 0.5.6 mp_coordinator/registrar.py (source)",
        server_with("--coordinator-url", "http://kv-coordinator.invalid:9300"),
        ids("TIR-06"),
        tests=LOOKED_AT,
    ),
)
