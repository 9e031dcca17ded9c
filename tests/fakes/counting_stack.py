"""A stack whose counters are chosen here."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fixtures.core.deadlines import Deadlines
from fixtures.evidence.metrics import CacheCounters, EngineCounters
from fixtures.instruments.prompts import Prompt, Prompts
from fixtures.instruments.response import Response
from fixtures.subject.exchange import Exchange, TokenSources

if TYPE_CHECKING:
    from collections.abc import Sequence


CHUNK, BLOCK = 256, 128


def answer(prompt: Prompt, seconds: float = 1.0, sources: TokenSources | None = None) -> Exchange:
    return Exchange(prompt, {}, Response(200, {}, "", total_s=seconds), "engine-0", sources)


@dataclass
class FakeStack:
    """An engine with a pool of ``pool_tokens``; ``share`` of what it is asked again comes from the tier."""

    pool_tokens: int = 8192
    tier_tokens: int = 10**6
    share: float = 1.0
    in_flight: int = 100
    preemptions: int = 0
    hits: int = 0
    fault: BaseException | None = None
    fault_at: int = 0
    ends: str = ""
    asked: int = 0
    explained: list[BaseException] = field(default_factory=list)
    together: list[int] = field(default_factory=list)
    model = "m"
    gpu_prefix_cache = True
    started_counters = EngineCounters(block_size=BLOCK)

    def __post_init__(self) -> None:
        self.engine = SimpleNamespace(name="engine-0", counters=self.counters)
        self.context = SimpleNamespace(
            permit=lambda _: None, deadlines=Deadlines(death_s=0.01), step=lambda _: contextlib.nullcontext()
        )
        self.health = SimpleNamespace(gone=self.gone, explain=self.explained.append)
        self.tier = SimpleNamespace(sent=lambda _: None, capacity_tokens=lambda: self.tier_tokens)
        self.traffic = SimpleNamespace(
            wait_until_idle=lambda: EngineCounters(running=0, waiting=0, preemptions=self.preemptions)
        )
        self.cache = SimpleNamespace(
            before=lambda _: CacheCounters(), since=lambda *_: CacheCounters(hit_tokens=self.hits)
        )

    def counters(self) -> EngineCounters:
        return EngineCounters(running=self.in_flight, waiting=0, kv_usage=0.5, preemptions=0)

    def gone(self) -> dict[str, str]:
        return {"engine-0": self.ends} if self.ends and self.asked > self.fault_at else {}

    def _ask(self) -> None:
        self.asked += 1
        if self.fault is not None and self.asked > self.fault_at:
            raise self.fault

    def clear_prefix_cache(self, **_: Any) -> None:
        pass

    def complete(self, prompt: Prompt, **_: Any) -> Exchange:
        self._ask()
        return answer(prompt)

    def one_of_several(self, prompt: Prompt, *_: Any, **__: Any) -> Exchange:
        self._ask()
        return answer(prompt)

    def complete_concurrently(
        self, prompts: Sequence[Prompt], *, at_once: int, **_: Any
    ) -> tuple[list[Exchange], TokenSources]:
        self.together.append(at_once)
        for _prompt in prompts:
            self._ask()
        loaded = int(self.share * sum(one.whole_chunk_tokens for one in prompts))
        return [answer(one, number) for number, one in enumerate(prompts)], TokenSources(0, 0, loaded)


def source(longest: int = 8190) -> Prompts:
    return Prompts(1, "pressure", CHUNK, longest)
