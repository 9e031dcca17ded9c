"""A stack with a GPU copy, a CPU tier and a tier below it, which forget, lie and fail as it is chosen."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NotJudged
from fixtures.evidence.adapters import Adapter
from fixtures.evidence.metrics import CacheCounters
from fixtures.instruments.prompts import Prompt, Prompts
from fixtures.instruments.response import Response
from fixtures.subject.exchange import Exchange, TokenSources

CHUNK, CAPACITY = 16, 64 * 16
Key = tuple[int, ...]


@dataclass
class FakeStack:
    """A GPU copy, a CPU tier that evicts what is oldest, and a tier below it."""

    writes: bool = True
    room: int = 1 << 30
    """Chunks that the tier below takes; what comes later is lost."""
    counted_above: bool = False
    """Lookups and log count what came from below as found in the CPU tier."""
    never_evicts: bool = False
    clears: bool = True
    keeps: bool = True
    """Whether the tier below keeps what it holds over a restart."""
    policy: str = "LRU"
    holds: int = CAPACITY // CHUNK
    """Chunks that the CPU tier keeps: fewer than it takes where it evicts in batches."""
    store_evictions: tuple[int | None, int | None] = (0, 0)  # at first, and at the end
    notices: bool = True
    serves: bool = True
    counts_late: bool = False
    gpu: set[Key] = field(default_factory=set)
    cpu: list[Key] = field(default_factory=list)
    below: set[Key] = field(default_factory=set)
    hits: int = 0
    below_hits: int = 0
    below_loads: int = 0
    written: int = 0
    evicted: int = 0
    did: list[str] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        server = SimpleNamespace(name="kv", clear=self.clear, read_locked=lambda: 0)
        self.log = SimpleNamespace(
            position=lambda: 0, text=lambda _: "LMCache server is unhealthy" if self.notices else ""
        )
        self.engine = SimpleNamespace(
            name="e", cache_server=server, log=self.log, counters=lambda: SimpleNamespace(preemptions=0)
        )
        self.engines = [self.engine]
        self.context = SimpleNamespace(deadlines=Deadlines(counted_s=0.01))
        self.record = SimpleNamespace(kv_bytes_per_token=1, device="cpu")
        self.link_bytes_per_s = 1e12
        self.cache = SimpleNamespace(counters=self.counters, since=self.since)
        self.tier = SimpleNamespace(
            capacity_tokens=lambda: CAPACITY,
            keeps=True,
            evicts_by_age=self.policy == "LRU",
            eviction_policy=self.policy,
            forget=lambda: self.did.append("forgot"),
            below=SimpleNamespace(
                required=lambda: (Adapter("fs", "disk", path="/kv"),),
                evictions=lambda: self.store_evictions[self.sent > 0],
                counts_late=self.counts_late,
                empty=lambda: self.did.append("emptied"),
                written=self.counters,
                await_stored=lambda tokens, before: self.written * CHUNK - (before.below_stored_tokens or 0),
                forget_pages=lambda: self.did.append("pages"),
                read_s=lambda size: size * 1e-9,
            ),
        )
        self.accounting = SimpleNamespace(cache_delta=self.delta, log_of=self.log_of)

    # --- counters -------------------------------------------------------------------------------------------------
    def counters(self, _: Any = None) -> CacheCounters:
        return CacheCounters(
            hit_tokens=self.hits * CHUNK,
            below_hit_tokens=self.below_hits * CHUNK,
            below_loaded_tokens=self.below_loads * CHUNK,
            below_stored_tokens=self.written * CHUNK,
            evicted=self.evicted,
            usage_ratio=len(self.cpu) * CHUNK / CAPACITY,
        )

    def since(self, _: Any, before: CacheCounters, tokens: int, until: Any) -> CacheCounters:
        return self.counters().delta(before)

    def delta(self, exchange: Exchange, until: Any) -> CacheCounters:
        assert isinstance(exchange.cache_before, CacheCounters)
        return self.counters().delta(exchange.cache_before)

    def log_of(self, exchange: Exchange) -> Any:
        found = exchange.sources.from_below or 0
        facts = SimpleNamespace(below_tokens=lambda *_: found)
        return SimpleNamespace(facts=lambda until: facts)

    # --- tiers ----------------------------------------------------------------------------------------------------
    def clear(self, *, force: bool) -> None:
        assert not force
        if not self.clears:
            raise NotJudged("POST /cache/clear: HTTP 404")
        self.cpu.clear()

    def clear_prefix_cache(self, engine: Any = None) -> None:
        self.gpu.clear()

    def complete(self, prompt: Prompt, **_: Any) -> Exchange:
        self.sent += 1
        before = self.counters()
        keys = [prompt.ids[: CHUNK * (number + 1)] for number in range(prompt.whole_chunk_tokens // CHUNK)]
        on_gpu = sum(key in self.gpu for key in keys)
        found = [key for key in keys if key in self.cpu or key in self.below]
        lower = [key for key in found if key not in self.cpu]
        loaded = max(len(found) - on_gpu, 0)
        from_below = len(lower) if loaded else 0
        self.hits += len(found)
        self.below_loads += from_below
        self.below_hits += 0 if self.counted_above else from_below
        for key in keys:
            self.gpu.add(key)
            if key not in self.cpu:
                self.cpu.append(key)
            if key not in self.below and self.writes and len(self.below) < self.room:
                self.below.add(key)
                self.written += 1
        while len(self.cpu) > self.holds and not self.never_evicts:
            self.cpu.pop(0)
            self.evicted += 1
        told = 0 if self.counted_above else from_below
        sources = TokenSources(
            prompt.tokens - (on_gpu + loaded) * CHUNK, on_gpu * CHUNK, loaded * CHUNK, from_below=told * CHUNK
        )
        took = 0.001 * sources.computed
        response = Response(200, {}, json.dumps({"id": "r"}), total_s=took, content_s=(took,))
        return Exchange(prompt, {}, response, "e", tokens=sources, cache_before=before)

    def complete_concurrently(self, prompts: Any, *, at_once: int) -> None:
        for prompt in prompts:
            self.complete(prompt)

    def restarted(self, name: str) -> None:
        self.did.append(name)
        if name == "kv":
            self.cpu.clear()
            if not self.keeps:
                self.below.clear()
        else:
            self.gpu.clear()


def source(scope: str = "t") -> Prompts:
    return Prompts(3, scope, CHUNK, 40 * CHUNK)


def control(stack: FakeStack) -> Any:
    return SimpleNamespace(
        answer=lambda prompt, _: stack.complete(prompt), complete=lambda prompt, _: stack.complete(prompt)
    )
