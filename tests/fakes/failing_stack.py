"""Two engines behind a router that takes turns, one of which fails."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fixtures.evidence.metrics import EngineCounters
from fixtures.experiments.disruption import Disruption
from fixtures.instruments.response import Response
from tests.fakes.answers import whole

if TYPE_CHECKING:
    from collections.abc import Iterator


class FakeStack:
    """Two engines and a router that takes turns; ``dead`` answers for the engine that failed, as a test says."""

    def __init__(
        self,
        dead: Any,
        *,
        notices_after: int = 10**6,
        by_streams: bool = False,
        engines: int = 2,
        ignores_victim: bool = False,
    ) -> None:
        self.engines = [self.fake(name) for name in "ab"[:engines]]
        self.engine = self.engines[0]
        self.dead, self.notices_after, self.ignores = dead, notices_after, ignores_victim
        self.by_streams = by_streams
        """Whether the router notices by streams alone; which requests come first is a matter of threads."""
        self.operator = "kills"
        self.answer_s: float = 0.001
        """What the engines say that an answer takes."""
        self.failed, self.hits, self.lock = False, 0, threading.Lock()
        self.turn = itertools.count()
        self.routers = [
            SimpleNamespace(
                name="router-0",
                server=SimpleNamespace(watches=True),
                session_key="x-user-id",
                excludes_after_s=0.5,
                client=SimpleNamespace(post=self.post),
                models=lambda: frozenset({"m"}),
            )
        ]
        self.traffic = SimpleNamespace(idle=lambda _: None)
        self.health = SimpleNamespace(known_gone=frozenset())

    def fake(self, name: str) -> Any:
        listed = Response(200, {}, '{"data": [{"id": "m"}]}', total_s=0.1)
        found = SimpleNamespace(name=name, finished=0, client=SimpleNamespace(get=lambda _: listed))
        found.counters = lambda: EngineCounters(
            requests_finished=found.finished,
            ttft_count=self.first_tokens(found),
            ttft_sum=self.answer_s * found.finished,
            decode_count=found.finished,
            decode_sum=0.0,
            running=0,
        )
        return found

    def first_tokens(self, engine: Any) -> int | None:
        return engine.finished + 2 if engine.finished else 0

    def post(self, path: str, payload: dict[str, Any], headers: Any = None, deadline_s: float = 0.0) -> Response:
        assert path == "/v1/completions"
        assert headers is None or headers["x-user-id"].startswith("session-")
        time.sleep(0.001)
        with self.lock:
            engine = self.engines[next(self.turn) % len(self.engines)]
            if self.ignores or (self.failed and engine is self.engine and self.hits >= self.notices_after):
                engine = self.engines[1]
            dead = self.failed and engine is self.engine
            self.hits += dead and (payload["stream"] or not self.by_streams)
            if not dead:
                engine.finished += 1
        return self.dead(payload) if dead else whole(payload)

    @contextlib.contextmanager
    def fails(self, stack: Any, part: Any) -> Iterator[Disruption]:
        assert (stack, part) == (self, self.engine)
        found = Disruption("a fails")
        self.failed = True
        found.acted = found.note("a failed")
        yield found
        self.failed = False
        found.undone = found.note("a is back")
