"""A long mixed load: its windows, and what of them is a change."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NotJudged
from fixtures.core.units import MIB, parse_duration
from fixtures.experiments import soak as module
from fixtures.experiments.soak import Cycle, Soak, soak
from fixtures.instruments.prompts import Prompts
from fixtures.instruments.response import Response
from fixtures.subject.context import Context
from fixtures.subject.exchange import Exchange, TokenSources

if TYPE_CHECKING:
    from fixtures.instruments.prompts import Prompt


def cycles(count: int = 8, **changes: Any) -> list[Cycle]:
    usual: dict[str, Any] = {"short_s": 0.1, "cold_s": 0.4, "reload_s": 0.2, "resident_bytes": 1000 * MIB, "lost": ""}
    return [Cycle(at_s=float(number), **(usual | changes)) for number in range(count)]


def test_alike_is_no_change() -> None:
    found = Soak(cycles(), cycles(), 16)
    found.check_decided()
    assert found.changed == []
    assert found.lost == []


def test_a_machine_that_gets_slower_is_no_change() -> None:
    found = Soak(cycles(), cycles(short_s=0.3, cold_s=1.2, reload_s=0.6), 16)
    found.check_decided()
    assert found.changed == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"cold_s": 0.7}, "cold prompt"), ({"reload_s": 0.35}, "reload"), ({"resident_bytes": 1100 * MIB}, "host memory")],
)
def test_what_got_slower_or_larger_is_named(changes: dict[str, Any], word: str) -> None:
    found = Soak(cycles(), cycles(**changes), 16)
    found.check_decided()
    assert len(found.changed) == 1
    assert word in found.changed[0]


def test_what_scatters_is_not_judged() -> None:
    scattered = [*cycles(4, reload_s=0.1), *cycles(4, reload_s=0.4)]
    with pytest.raises(NotJudged, match=r"reloads .* too noisy"):
        Soak(scattered, scattered, 16).check_decided()
    memory = [*cycles(4), *cycles(4, resident_bytes=1200 * MIB)]
    with pytest.raises(NotJudged, match=r"host memory .* too noisy"):
        Soak(cycles(), memory, 16).check_decided()


def test_a_short_soak_is_not_judged() -> None:
    with pytest.raises(NotJudged, match="a longer --soak"):
        Soak(cycles(3), cycles(3), 6).check_decided()


@dataclass
class FakeStack:
    """Every request takes a second of the clock; ``loses`` repeats load nothing."""

    clock: list[float]
    loses: bool = False
    context: Context = field(default_factory=Context)

    tier = SimpleNamespace(holds=lambda prompt: True)

    def complete(self, prompt: Prompt, *, stream: bool) -> Exchange:
        assert stream
        self.clock[0] += 1.0
        tokens = TokenSources(prompt.tokens, 0, 0 if self.loses else prompt.whole_chunk_tokens)
        return Exchange(prompt, {}, Response(200, {}, "", total_s=0.1, content_s=(0.1,)), "engine-0", tokens)

    def complete_concurrently(self, prompts: list[Prompt], *, at_once: int) -> tuple[list[Exchange], TokenSources]:
        self.clock[0] += 1.0
        loaded = 0 if self.loses else sum(prompt.whole_chunk_tokens for prompt in prompts)
        return [], TokenSources(0, 0, loaded)

    def clear_prefix_cache(self) -> None:
        """Drop nothing."""


@pytest.mark.parametrize(("seconds", "window"), [(3600.0, 600.0), (90.0, 30.0)])
@pytest.mark.parametrize("loses", [False, True])
def test_the_first_and_the_last_minutes_are_kept(
    seconds: float, window: float, loses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(module, "fill_tier", lambda *_: 0)
    memory = SimpleNamespace(read_all=lambda: MIB)
    found = soak(FakeStack(clock, loses), Prompts(1, "soak", 48, 4000), memory, seconds)  # type: ignore[arg-type]
    assert found.cycles == pytest.approx(seconds / 5, abs=1), "five requests a cycle"
    for part in (found.first, found.last):
        assert len(part) == pytest.approx(window / 5, abs=1)
    assert found.first[0].at_s < window < found.last[0].at_s
    assert bool(found.lost) is loses
    wanted = 48 * (module.CHUNKS + module.AT_ONCE)
    assert not loses or found.lost[0] == f"after 5 s 0 of {wanted} tokens were loaded"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("1.5h", 5400), ("60", 60)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "1d", "-1h", "h", "1 hour", "1e3", "\u0663m", "9" * 400, "721h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration such as 90s"):
        parse_duration(text)
