"""How the copies above a lower tier are dropped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NotJudged
from fixtures.experiments.clearing import clear_above, clear_cpu_tier


class FakeStack:
    """Two engines above one cache server, which notes what is done to it."""

    def __init__(self, *locked: int, keeps: bool = True, server: bool = True) -> None:
        left, self.did = list(locked), list[str]()
        part = SimpleNamespace(
            read_locked=lambda: left.pop(0) if len(left) > 1 else left[0],
            clear=lambda *, force: self.did.append("forced" if force else "cleared"),
        )
        self.engines = [SimpleNamespace(name=name, cache_server=part if server else None) for name in ("a", "b")]
        self.engine = self.engines[0]
        self.tier = SimpleNamespace(keeps=keeps, forget=lambda: self.did.append("forgot"))
        self.context = SimpleNamespace(deadlines=Deadlines(counted_s=0.05))

    def clear_prefix_cache(self, engine: Any) -> None:
        self.did.append(engine.name)


def test_what_is_read_is_waited_for_and_then_dropped_by_force() -> None:
    stack: Any = FakeStack(2, 1, 0)
    clear_above(stack)
    assert stack.did == ["cleared", "forgot", "a", "b"]
    stack = FakeStack(1)
    clear_above(stack)
    assert stack.did == ["forced", "forgot", "a", "b"], "the readers did not end"


def test_a_buffer_holds_nothing_and_a_tier_in_the_engine_cannot_be_cleared() -> None:
    stack: Any = FakeStack(0, keeps=False, server=False)
    clear_above(stack)
    assert stack.did == ["a", "b"]
    with pytest.raises(NotJudged, match="in the engine"):
        clear_cpu_tier(FakeStack(0, server=False))  # type: ignore[arg-type]
