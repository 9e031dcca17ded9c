"""A stack with a tier of files below host memory."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.catalogue import limits
from fixtures.core.deadlines import Deadlines
from fixtures.evidence.adapters import Adapter
from fixtures.evidence.prometheus import Samples
from fixtures.experiments import tier_damage, tier_outage, tier_size
from fixtures.instruments.prompts import Prompt, Prompts
from fixtures.instruments.response import Response
from fixtures.subject.contents import Folder, LowerTier, RedisKeys
from fixtures.subject.exchange import Exchange, TokenSources

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fixtures.core.errors import SubjectFault


CHUNK, ENTRY = 256, 400 * 1024


def tier_of(
    kind: str, server: Any, contents: Folder | RedisKeys, store: Any = None, capacity_bytes: int | None = None
) -> LowerTier:
    return LowerTier(Adapter(kind, None, capacity_bytes=capacity_bytes), server, contents, store)


@dataclass
class FakeStack:
    """An engine above a cache server that keeps one file for each chunk; ``checks`` says what it makes of a file."""

    folder: Path
    checks: Callable[[bytes, bytes], bool] = lambda got, was: got == was
    """Whether content counts as that which was stored."""
    fails: Callable[[], SubjectFault | None] = lambda: None
    takes: Callable[[], bool] = lambda: True
    """Whether a chunk is stored."""
    ttft_s: float = 0.1
    keeps: int = 1 << 30
    """Files that the tier keeps."""
    said: str = ""
    stored: dict[str, bytes] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    asked: int = 0

    def __post_init__(self) -> None:
        log = SimpleNamespace(position=lambda: 0, text=lambda _: self.said)
        server = SimpleNamespace(name="kv-0", log=None, process=object(), argv=(), tmp=None)
        self.server = SimpleNamespace(
            name="kv-0", server=server, log=log, clear=lambda *, force: None, samples=lambda: Samples({}), status=dict
        )
        self.server.read_locked = lambda: 0
        self.engine = SimpleNamespace(name="engine-0", cache_server=self.server)
        self.engines = [self.engine]
        self.context = SimpleNamespace(
            permit=lambda _: None,
            deadlines=Deadlines(death_s=0.0, stored_s=0.0),
            step=lambda _: contextlib.nullcontext(),
        )
        self.health = SimpleNamespace(
            gone=lambda: dict(self.gone),
            explain=lambda _: None,
            expecting=lambda _: contextlib.nullcontext(),
            renewed=lambda _: None,
        )
        self.limits: list[int | None] = []
        self.operator = SimpleNamespace(limit_files=lambda _, size: self.limits.append(size), start=lambda _: None)
        self.chunk_tokens, self.kv_bytes_per_token = CHUNK, ENTRY // CHUNK
        self.tier = SimpleNamespace(tokens=lambda: None, keeps=True, forget=lambda: None)
        self.lower = tier_of("fs", self.server, Folder(self.folder))

    def kv_shape(self, _: Any) -> Any:
        return SimpleNamespace(keys_per_chunk=1)

    def clear_prefix_cache(self, engine: Any = None) -> None:
        pass

    def names(self, prompt: Prompt) -> list[str]:
        return [f"{hash(prompt.ids[: (at + 1) * CHUNK]):x}.data" for at in range(prompt.whole_chunk_tokens // CHUNK)]

    def complete(self, prompt: Prompt, *_: Any, **__: Any) -> Exchange:
        self.asked += 1
        if (fault := self.fails()) is not None:
            raise fault
        loaded = 0
        for name in self.names(prompt):
            path = self.folder / name
            if name in self.stored and path.exists() and self.checks(path.read_bytes(), self.stored[name]):
                loaded += CHUNK
            elif self.takes() and os.access(self.folder, os.F_OK):
                self.stored.setdefault(name, os.urandom(8) * (ENTRY // 8))
                path.write_bytes(self.stored[name])
                for old in sorted(self.folder.glob("*.data"), key=lambda one: one.stat().st_mtime_ns)[: -self.keeps]:
                    old.unlink()
        response = Response(200, {}, "", total_s=0.2, content_s=(self.ttft_s * prompt.tokens / CHUNK,))
        return Exchange(prompt, {}, response, "engine-0", TokenSources(prompt.tokens - loaded, 0, loaded))

    one_of_several = complete

    def complete_concurrently(self, prompts: list[Prompt], *, at_once: int) -> None:
        del at_once
        for prompt in prompts:
            self.complete(prompt)


def control(stack: FakeStack) -> Any:
    return SimpleNamespace(
        answer=lambda prompt, _: stack.complete(prompt),
        complete=lambda prompt, _: stack.complete(prompt),
        assert_same=lambda *_: None,
        logprobs=5,
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixtures.experiments.recovery.BETWEEN_S", 0.0)
    monkeypatch.setattr(limits, "TIER_REPORTED_S", 0.0)
    monkeypatch.setattr(limits, "TIER_SETTLES_S", 0.0)
    monkeypatch.setattr("fixtures.experiments.tier_disruption.STOPPED_S", 0.05)
    for module in (tier_damage, tier_outage):
        monkeypatch.setattr(module, "renew", lambda *_: True)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeStack:
    (tmp_path / "below").mkdir()
    made = FakeStack(tmp_path / "below")
    for module in (tier_damage, tier_outage, tier_size):
        monkeypatch.setattr(module, "below", lambda _: made.lower)
    return made


def source() -> Prompts:
    return Prompts(1, "tiers", CHUNK, 8190)
