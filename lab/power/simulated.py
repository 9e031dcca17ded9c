"""A stack, prompts and figures that consist of nothing but what the experiments and tests ask of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from fixtures.subject.exchange import TokenSources

if TYPE_CHECKING:
    from lab.power.world import World

CHUNK, CHUNKS_MOST = 256, 64
KV_BYTES: Final = 131072
"""Of a token of Mistral-7B."""


@dataclass
class Simulated:
    """What the experiments ask of a stack, without one."""

    world: World
    rng: random.Random
    device: str = "cuda"
    link_bytes_per_s: float = 1.0
    pool_tokens: int = 1
    resources: Callable[[], dict[str, int]] = dict
    record: Any = field(init=False)
    reload_over_cold: float = 1.0
    """Of the pairs, and of eight at once."""

    def __post_init__(self) -> None:
        self.record = SimpleNamespace(kv_bytes_per_token=KV_BYTES, device=self.device, baseline=None)
        self.engine = SimpleNamespace(counters=lambda: SimpleNamespace(preemptions=0))
        full = SimpleNamespace(delta=lambda _: SimpleNamespace(evictions=lambda _: 1))
        self.cache = SimpleNamespace(counters=lambda: full)
        self.context = SimpleNamespace(permit=lambda _: None, deadlines=SimpleNamespace(beyond_tier_s=0.0))
        self.tier = SimpleNamespace(expect_kept=lambda *_: None, capacity_tokens=lambda: 10**6)
        self.accounting = SimpleNamespace(expect_retrieved=lambda _: None)
        self._turn = 0

    def load_per_core(self) -> float:
        """An idle machine: none that is too slow may be blamed on it."""
        return 0.5

    def clear_prefix_cache(self) -> str:
        """Nothing is on the GPU."""
        return ""

    def complete_concurrently(self, prompts: list[Any], **_: Any) -> tuple[list[Any], TokenSources]:
        """Times to first token of prompts at once: those of a cold round, then those of its reload."""
        if self._turn % 2 == 0:
            self._round = self.world.together(self.rng, self.reload_over_cold)
        ttft_s = self._round[self._turn % 2]
        self._turn += 1
        tokens = TokenSources(0, 0, sum(prompt.whole_chunk_tokens for prompt in prompts))
        return [SimpleNamespace(ttft_s=ttft_s)] * len(prompts), tokens

    def resource_counts(self) -> dict[str, int]:
        """What MEM-07 counts."""
        return self.resources()

    def host_memory_bounds(self, _: Any) -> list[Any]:
        """None is exceeded."""
        return []


class Source:
    """Prompts that have a length only."""

    chunk_tokens, max_tokens = CHUNK, CHUNK * CHUNKS_MOST + 1

    def unique(self, chunks: int = 8) -> Any:
        """Whole chunks and a token."""
        return self.of_length(chunks * CHUNK + 1)

    def of_length(self, tokens: int) -> Any:
        """Of so many tokens."""
        return SimpleNamespace(tokens=tokens, whole_chunk_tokens=(tokens - 1) // CHUNK * CHUNK)


class NoFigures:
    """Takes what a test wants to report."""

    def __call__(self, *_: Any, **__: Any) -> None:
        """One figure."""

    interval = __call__


SOURCE: Final[Any] = Source()
FIGURES: Final[Any] = NoFigures()


def simulated(world: World, rng: random.Random, device: str = "cuda") -> Any:
    """A stack for whatever wants one."""
    return Simulated(world, rng, device)
