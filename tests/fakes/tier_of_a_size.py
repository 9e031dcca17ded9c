"""A stack whose tier holds some tokens and evicts by a policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fixtures.core.errors import NotJudged, SubjectFault
from fixtures.core.record import StackRecord
from fixtures.evidence.metrics import CacheCounters
from fixtures.subject.context import Context
from fixtures.subject.exchange import Exchange, TokenSources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fixtures.instruments.prompts import Prompt


CHUNK = 16


SIZE = 64 * CHUNK
"""Tokens of the tier."""


Key = tuple[int, ...]


@dataclass
class FakeTier:
    """Keeps chunks by their whole prefix; evicts the first of ``order`` whenever a chunk has no room."""

    chunks: int = SIZE // CHUNK
    at: float = 1.0
    to: float = 1.0
    """Shares of its size at which it evicts, and down to which."""
    policy: str = "LRU"
    notes_use: bool = True
    newest_first: bool = False
    evicts: bool = True
    keys: list[Key] = field(default_factory=list)
    stored: int = 0
    evicted: int = 0

    def capacity_tokens(self) -> int:
        return self.chunks * CHUNK

    @property
    def eviction_policy(self) -> str:
        return self.policy

    @property
    def evicts_by_age(self) -> bool:
        return self.policy in {"LRU", "FIFO"}

    def find(self, keys: list[Key]) -> int:
        """Chunks of the beginning that are there."""
        found = 0
        for key in keys:
            if key not in self.keys:
                break
            found += 1
        return found

    def use(self, keys: Iterable[Key]) -> None:
        if self.notes_use:
            for key in reversed(list(keys)):
                self.keys.remove(key)
                self.keys.append(key)

    def store(self, keys: Iterable[Key]) -> None:
        for key in reversed(list(keys)):
            if len(self.keys) >= self.chunks * self.at and self.evicts:
                while len(self.keys) >= max(self.chunks * self.to, 1):
                    self.keys.pop(-1 if self.newest_first else 0)
                    self.evicted += 1
            if len(self.keys) < self.chunks:
                self.keys.append(key)
                self.stored += 1


@dataclass
class FakeStack:
    """An engine with a GPU prefix cache in front of that tier."""

    tier: FakeTier = field(default_factory=FakeTier)
    clears: bool = True
    counts: bool = True
    counted: Callable[[CacheCounters], CacheCounters] = lambda counters: counters
    after: Callable[[FakeStack], None] = lambda _: None
    """Called after each prompt."""
    record: StackRecord = field(
        default_factory=lambda: StackRecord(id="s", kind="process", config="c", folder=Path(), model="m")
    )
    context: Context = field(default_factory=Context)
    on_gpu: set[Key] = field(default_factory=set)
    asked: list[Prompt] = field(default_factory=list)
    died: dict[str, str] = field(default_factory=dict)
    failures: tuple[Any, ...] = ()

    engine = None

    def clear_prefix_cache(self) -> None:
        if self.clears:
            self.on_gpu.clear()

    def complete_concurrently(self, prompts: list[Prompt], *, at_once: int) -> tuple[list[Exchange], TokenSources]:
        found = [self.ask(prompt) for prompt in prompts]
        return [], TokenSources(
            sum(one.computed for one in found), sum(one.gpu_hit for one in found), sum(one.loaded for one in found)
        )

    def complete(self, prompt: Prompt) -> Exchange:
        return Exchange(prompt, {}, None, "e", self.ask(prompt))  # type: ignore[arg-type]

    def ask(self, prompt: Prompt) -> TokenSources:
        self.asked.append(prompt)
        keys = [prompt.ids[: CHUNK * (number + 1)] for number in range(prompt.whole_chunk_tokens // CHUNK)]
        hit = sum(key in self.on_gpu for key in keys)
        found = self.tier.find(keys)
        self.tier.use(keys[:found])
        self.tier.store(keys[found:])
        self.on_gpu |= set(keys)
        self.after(self)
        loaded = max(found - hit, 0)
        return TokenSources(prompt.tokens - (hit + loaded) * CHUNK, hit * CHUNK, loaded * CHUNK)

    # --- what the parts of a stack say ------------------------------------------------------------------------------
    @property
    def cache(self) -> Any:
        def counters() -> CacheCounters:
            if not self.counts:
                raise SubjectFault("no counters")
            return self.counted(
                CacheCounters(
                    flavour="multi-process",
                    stored_tokens=self.tier.stored * CHUNK,
                    evicted=self.tier.evicted or None,
                    usage_ratio=len(self.tier.keys) / self.tier.chunks,
                )
            )

        def before(_: Any) -> CacheCounters | Exception:
            return counters() if self.counts else SubjectFault("no counters")

        def pinned(_: int) -> None:
            raise NotJudged("not counted")

        return SimpleNamespace(
            counters=counters,
            before=before,
            since=lambda _, then, __, ___: counters().delta(then),
            pinned_when_idle=pinned,
        )

    @property
    def accounting(self) -> Any:
        def stored(exchange: Exchange) -> int:
            if not self.counts:
                raise SubjectFault("no counters")
            keys = [exchange.prompt.ids[: CHUNK * n] for n in range(1, exchange.prompt.whole_chunk_tokens // CHUNK + 1)]  # type: ignore[union-attr]
            return self.tier.find(keys) * CHUNK

        return SimpleNamespace(stored_tokens=stored)

    @property
    def logs(self) -> Any:
        def files() -> dict[str, Any]:
            if self.failures is None:
                raise NotJudged("no logs")
            return {"e": SimpleNamespace(facts=lambda since: SimpleNamespace(of=lambda group: self.failures))}

        return SimpleNamespace(positions=lambda: {"e": 7}, files=files)

    traffic = SimpleNamespace(wait_until_idle=lambda: None)

    @property
    def health(self) -> Any:
        return SimpleNamespace(gone=lambda: self.died)
