"""A stack whose times and token sources are chosen here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fixtures.core.errors import NotJudged
from fixtures.evidence.metrics import EngineCounters
from fixtures.instruments.response import Response
from fixtures.subject.exchange import Exchange, TokenSources

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.instruments.prompts import Prompt


CHUNK = 16


PER_TOKEN = 1000


LINK = 1e9
"""Bytes/s: a token takes a microsecond."""


@dataclass
class FakeStack:
    """Cold prompts take ``cold_s`` seconds a token; repeats ``reload_s`` seconds in all, from ``source``."""

    cold_s: float = 100e-6
    reload_s: Callable[[Prompt], float] = lambda prompt: 0.002 + prompt.whole_chunk_tokens * 2e-6
    fixed_s: float = 0.001
    hit_s: float = 0.0015
    pool_tokens: int = 4096
    sources: Callable[[int, Prompt], TokenSources] = lambda repeat, prompt: TokenSources(
        prompt.tokens - prompt.whole_chunk_tokens, 0, prompt.whole_chunk_tokens
    )
    """Of the n-th repeat."""
    cold_sources: Callable[[Prompt], TokenSources] = lambda prompt: TokenSources(prompt.tokens, 0, 0)
    record: Any = field(
        default_factory=lambda: SimpleNamespace(kv_bytes_per_token=PER_TOKEN, baseline=None, engines=[])
    )
    link: float | None = LINK
    preempted: Callable[[int], int] = lambda asked: 0
    """Preemptions until so many requests were sent."""
    kept: list[tuple[tuple[Prompt, ...], TokenSources]] = field(default_factory=list)
    expect_retrieved: Callable[[Exchange], None] = lambda exchange: None
    asked: list[Prompt] = field(default_factory=list)
    repeats: int = 0
    dropped_before: set[tuple[int, ...]] = field(default_factory=set)

    @property
    def engine(self) -> Any:
        return SimpleNamespace(
            counters=lambda: EngineCounters(preemptions=self.preempted(len(self.asked))),
            client=SimpleNamespace(get=lambda path: None),
        )

    @property
    def link_bytes_per_s(self) -> float:
        if self.link is None:
            raise NotJudged("the bandwidth cannot be measured where the engine runs")
        return self.link

    def load_per_core(self) -> float | None:
        return None

    @property
    def accounting(self) -> Any:
        return SimpleNamespace(expect_retrieved=self.expect_retrieved)

    @property
    def tier(self) -> Any:
        return SimpleNamespace(expect_kept=lambda prompts, tokens: self.kept.append((tuple(prompts), tokens)))

    def complete(self, prompt: Prompt, *, stream: bool, **_: Any) -> Exchange:
        assert stream, "without a stream there is no time to first token"
        if prompt.tokens == 1:
            seconds, sources = self.fixed_s, TokenSources(1, 0, 0)
        elif sum(one.ids == prompt.ids for one in self.asked) == 2:
            seconds, sources = self.hit_s, TokenSources(1, prompt.tokens - 1, 0)
        elif prompt.ids in {one.ids for one in self.asked}:
            assert prompt.ids in self.dropped_before, "a repeat with its GPU copy in place says nothing"
            self.repeats += 1
            seconds, sources = self.reload_s(prompt), self.sources(self.repeats, prompt)
        else:
            seconds, sources = self.fixed_s + self.cold_s * prompt.tokens, self.cold_sources(prompt)
        self.asked.append(prompt)
        response = Response(200, {}, "", total_s=seconds, content_s=(seconds,))
        return Exchange(prompt, {}, response, "engine-0", tokens=sources)

    def complete_concurrently(
        self, prompts: list[Prompt], *, at_once: int, stream: bool
    ) -> tuple[list[Exchange], TokenSources]:
        """All in one batch: each reaches its first token when all are computed."""
        found = [self.complete(prompt, stream=stream) for prompt in prompts]
        assert at_once == len(prompts)
        whole = self.fixed_s + sum(one.ttft_s - self.fixed_s for one in found)
        found = [replace(one, response=replace(one.response, content_s=(whole,))) for one in found]
        return found, TokenSources(sum(prompt.tokens for prompt in prompts), 0, 0)

    def clear_prefix_cache(self) -> None:
        self.dropped_before |= {prompt.ids for prompt in self.asked}


def whole(prompt: Prompt) -> TokenSources:
    return TokenSources(prompt.tokens - prompt.whole_chunk_tokens, 0, prompt.whole_chunk_tokens)
