"""Faults around the size of the tier."""

from __future__ import annotations

from lab.catalogue.model import Fault, Hook, ids
from lab.catalogue.settings import CAPACITY, SMALL_TIER

FAULTS: tuple[Fault, ...] = (
    Fault(
        "tier-holds-less-than-it-says",
        "memory",
        "whatever the size of the tier, it keeps the last 48 chunks only",
        "LM#1034, LM#1285 (the pool shrinks over time)",
        Hook("keep-few", {"chunks": 48}, values=SMALL_TIER),
        ids("CAP-01"),
        tests=CAPACITY,
    ),
    Fault(
        "full-tier-stores-nothing",
        "memory",
        "a tier that is full evicts nothing, and stores nothing any more",
        "LM#955, LM#745 (failed to allocate memory, the KV cache will not be stored)",
        Hook("never-evict", values=SMALL_TIER),
        ids("CAP-02"),
        allowed=ids("CAP-01 CAP-03"),
        tests=CAPACITY,
    ),
    Fault(
        "engine-ends-beyond-the-tier",
        "crash or hang",
        "the engine ends when more was stored than the tier holds",
        "LM#1330 (the engine ends when the CPU pool is full)",
        Hook("end-engine", {"after": 150, "chunk": 256}, values=SMALL_TIER),
        ids("CAP-02"),
        allowed=ids("ACT-04"),
        tests=CAPACITY,
    ),
    Fault(
        "newest-evicted-first",
        "memory",
        "a full tier evicts what was used last",
        "LM cache_policy/mru.py (source)",
        Hook("evict-newest", values=SMALL_TIER),
        ids("CAP-03"),
        allowed=ids("CAP-01 CAP-02"),
        tests=CAPACITY,
    ),
    Fault(
        "use-not-noted",
        "memory",
        "a tier that evicts by LRU does not note that chunks were used: it evicts by age",
        "LM 0.5.6 lookup.py, end_session (source: offloaded chunks are not touched)",
        Hook("forget-use", values=SMALL_TIER),
        ids("CAP-03"),
        tests=CAPACITY,
    ),
)
