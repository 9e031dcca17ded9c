"""Faults of memory: what is held for too long, or is too large."""

from __future__ import annotations

from lab.catalogue.model import Fault, Hook, Values, ids
from lab.catalogue.settings import NO_PREFIX_CACHE

FAULTS: tuple[Fault, ...] = (
    Fault(
        "hang-up-during-a-load",
        "crash or hang",
        "a client disconnects while its KV is loaded: vLLM 0.32 ends the engine for all clients (nothing is seeded)",
        "V PR#48821: assert req_id in self.requests",
        NO_PREFIX_CACHE,
        ids("MEM-03"),
        allowed=ids("ACT-04 ACT-05 LAT-05"),
        tests=("CFG-01", "CFG-03", "ACC-01", "API-02", "MEM-03"),
    ),
    Fault(
        "pool-cut-by-offload",
        "memory",
        "with offload the KV pool is half as large as without",
        "PS PR#1062 (offload at the cost of the pool)",
        Values({}, extra_args=("--num-gpu-blocks-override", "128"), where="command", shows="override 128"),
        ids("MEM-05"),
    ),
    Fault(
        "memory-leak",
        "memory",
        "the cache server keeps 4 MiB of every store for ever",
        "LM#5270 (memory grows with every failed request)",
        Hook("leak", {"bytes": 4 << 20, "most": 1 << 30}),
        ids("MEM-04"),
        slow=True,
    ),
    Fault(
        "blocks-kept",
        "memory",
        "a KV block of every finished request is never given back to the pool",
        "V#46502 (KV still in use 20 min after the load)",
        Hook("keep-blocks"),
        ids("MEM-03"),
        tests=("CFG-01", "CFG-03", "MEM-03", "API-02", "API-06"),
    ),
    Fault(
        "load-leaves-a-file-open",
        "memory",
        "every load leaves a file of the engine open",
        "LM PR#2936 (descriptors left open by a transfer)",
        Hook("leak-files", {"count": 1}),
        ids("MEM-07"),
        tests=("CFG-01", "ACC-02", "COR-01", "MEM-07", "ACT-04", "API-06"),
    ),
    Fault(
        "load-leaks",
        "memory",
        "the cache server keeps 128 KiB of every chunk that is loaded for ever",
        "LM#5270; V#44100",
        Hook("leak-load", {"bytes": 128 << 10, "most": 1 << 30}),
        ids("MEM-04"),
        slow=True,
    ),
    Fault(
        "sigterm-ignored",
        "memory",
        "processes do not end on SIGTERM and have to be killed: their shared memory stays",
        "LM#4287 (memory not given back, the next deployment fails)",
        Hook("ignore-sigterm", at_start=True),
        ids("MEM-06"),
        tests=("CFG-01", "ACC-02", "MEM-06"),
    ),
)
