"""The matched control and its sensitivity check, on a stack whose answers are chosen here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.incidents import Incidents
from fixtures.experiments.control import LOGPROBS, Control
from fixtures.instruments.prompts import Prompt, Prompts
from fixtures.instruments.response import Response
from fixtures.subject.exchange import Exchange, TokenSources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


CHUNK = 16


COLD, HIT = TokenSources(65, 0, 0), TokenSources(1, 64, 0)


def exchange(
    tops: Mapping[str, float], tokens: TokenSources = COLD, prompt: Prompt | None = None, later: float = -1.0
) -> Exchange:
    """An answer of two tokens; ``tops`` are the log-probabilities of the first."""
    best = max(tops, key=lambda name: tops[name])
    probabilities = {
        "tokens": [best, "b"],
        "token_logprobs": [tops[best], later],
        "top_logprobs": [dict(tops), {"b": later}],
    }
    choice = {"text": f"{best}b", "finish_reason": "length", "logprobs": probabilities}
    return Exchange(
        prompt, {}, Response(200, {}, json.dumps({"id": "cmpl-1", "choices": [choice]}), 0.1), "engine-0", tokens
    )


@dataclass
class FakeStack:
    answers: Callable[[int, Prompt], Exchange]
    gpu_prefix_cache: bool = True
    device: str = "cuda"
    asked: list[tuple[Prompt, dict[str, Any]]] = field(default_factory=list)
    logprobs: int | None = LOGPROBS
    block: int | None = 4
    chunk_tokens: int = CHUNK
    kept: list[tuple[tuple[Prompt, ...], TokenSources]] = field(default_factory=list)
    context: Any = field(default_factory=lambda: SimpleNamespace(incidents=Incidents()))

    def accepted_logprobs(self, wanted: tuple[int, ...]) -> int | None:
        return next((number for number in wanted if self.logprobs is not None and number <= self.logprobs), None)

    @property
    def tier(self) -> Any:
        return SimpleNamespace(expect_kept=lambda prompts, tokens: self.kept.append((tuple(prompts), tokens)))

    @property
    def started_counters(self) -> Any:
        return SimpleNamespace(block_size=self.block)

    @property
    def record(self) -> Any:
        return SimpleNamespace(device=self.device)

    def complete(self, prompt: Prompt, **options: Any) -> Exchange:
        self.asked.append((prompt, options))
        return self.answers(len(self.asked), prompt)


def control(stack: FakeStack) -> Control:
    return Control(stack)  # type: ignore[arg-type]


@pytest.fixture
def prompts() -> Prompts:
    return Prompts(1, "control", CHUNK, 1000)
