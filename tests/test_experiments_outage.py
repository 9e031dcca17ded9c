"""Engines and cache servers that end or stop: what was lost and when it was back, on a stack whose answers are chosen here."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.catalogue import limits
from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NoAnswer, NotApplicable, NotJudged, StackError, SubjectFault
from fixtures.evidence.metrics import CacheCounters, EngineCounters
from fixtures.experiments import losing, outage, recovery
from fixtures.experiments.disruption import Disruption
from fixtures.instruments.prompts import Prompt, Prompts
from fixtures.instruments.response import Response
from fixtures.subject.exchange import Exchange, TokenSources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 256


def answer(prompt: Prompt, loaded: int = 0) -> Exchange:
    sources = TokenSources(prompt.tokens - loaded, 0, loaded)
    return Exchange(prompt, {}, Response(200, {}, "", total_s=0.1), "engine-0", sources)


@dataclass
class FakeStack:
    """An engine with a cache server; ``away`` says what a request gets while that is away, by its number."""

    away: Callable[[int], SubjectFault | None] = lambda _: None
    loads_after: int = 0
    """Attempts to load something after the server is back, until it is loaded."""
    has_server: bool = True
    starts: bool = True
    asked_away: int = 0
    attempts: int = 0
    seen: set[tuple[int, ...]] = field(default_factory=set)
    cleared: int = 0
    hits: int = 8
    gone: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        server = SimpleNamespace(name="kv-0", server=None, clear=lambda: None) if self.has_server else None
        self.engine = SimpleNamespace(
            name="engine-0", server=None, cache_server=server, counters=lambda: EngineCounters(running=9)
        )
        self.context = SimpleNamespace(
            permit=lambda _: None, deadlines=Deadlines(death_s=0.0), step=lambda _: contextlib.nullcontext()
        )
        self.health = SimpleNamespace(
            gone=lambda: dict(self.gone),
            explain=lambda _: None,
            expecting=lambda _: contextlib.nullcontext(),
            renewed=lambda _: None,
        )
        self.operator = SimpleNamespace(
            kill=self.kill,
            start=self.start,
            start_all=lambda servers: [self.start(one) for one in servers],
            starts_by_itself=False,
        )
        self.traffic = SimpleNamespace(wait_until_idle=EngineCounters, idle=lambda _: EngineCounters())
        self.cache = SimpleNamespace(counters=self.counters)
        self.count = 0

    def counters(self) -> CacheCounters:
        self.count += 1
        found = 0 if self.count == 1 else self.hits
        return CacheCounters(hit_tokens=(1000 + found) * losing.CHUNKS * CHUNK)  # others have hit it before

    def kill(self, _: Any) -> None:
        pass

    def start(self, _: Any) -> None:
        if not self.starts:
            raise StackError("engine-0 was not ready within 240 s")

    def clear_prefix_cache(self) -> None:
        self.cleared += 1

    def one_of_several(self, prompt: Prompt, *_: Any, **__: Any) -> Exchange:
        self.asked_away += 1
        if (fault := self.away(self.asked_away)) is not None:
            raise fault
        return answer(prompt)

    def complete(self, prompt: Prompt) -> Exchange:
        if prompt.ids not in self.seen:
            self.seen.add(prompt.ids)
            return answer(prompt)
        self.attempts += 1
        return answer(prompt, prompt.whole_chunk_tokens if self.attempts > self.loads_after else 0)


CONTROL: Any = SimpleNamespace(
    answer=lambda prompt, _: answer(prompt),
    complete=lambda prompt, _: answer(prompt, prompt.whole_chunk_tokens),
    closest_answer=lambda exchange, known: next(one for one in known if one.prompt is exchange.prompt),
    logprobs=5,
)


@contextlib.contextmanager
def disrupts(stack: Any, part: Any) -> Iterator[Disruption]:
    found = Disruption(f"{part.name} is away")
    found.acted = found.note("away")
    yield found
    found.undone = found.note("back")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "BETWEEN_S", 0.0)


def source() -> Prompts:
    return Prompts(1, "outage", CHUNK, 8190)


def during(stack: FakeStack) -> outage.Outage:
    return outage.outage(stack, source(), CONTROL, disrupts)  # type: ignore[arg-type]


def late(_: int) -> SubjectFault:
    return NoAnswer("no answer within 30 s", overdue=True)


def test_an_outage_that_costs_nothing() -> None:
    found = during(FakeStack(loads_after=2))
    assert (found.asked, found.lost) == (3, 0)
    assert len(found.compared) == 1, "the second answer to the stored prompt comes from the copy on the GPU"
    assert found.compared[0].expected.prompt is found.compared[0].prompt
    assert found.recovered_s is not None
    assert "stored and loaded again" in found.timeline


def test_an_engine_that_hangs_is_asked_once() -> None:
    stack = FakeStack(away=late)
    found = during(stack)
    assert stack.asked_away == 1
    assert found.late == ("no answer within 30 s",)
    assert not found.compared


def test_requests_that_fail_at_once_are_told_apart() -> None:
    found = during(FakeStack(away=lambda number: SubjectFault("HTTP 500") if number == 2 else None))
    assert (found.late, found.failed, found.asked) == ((), ("HTTP 500",), 3)


def test_what_never_recovers_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECOVERED_S", 0.05)
    assert during(FakeStack(loads_after=10**9)).recovered_s is None


def test_a_tier_in_the_engine_has_no_server_that_can_fail() -> None:
    with pytest.raises(NotApplicable):
        during(FakeStack(has_server=False))
    with pytest.raises(NotJudged, match="in the engine"):
        losing.lose_during_loads(FakeStack(has_server=False), source(), CONTROL)  # type: ignore[arg-type]


# --- a network that is bad ----------------------------------------------------------------------------------------------


def bad(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> dict[str, outage.Outage]:
    monkeypatch.setattr(outage, "badly", lambda *_: disrupts(stack, stack.engine))
    return outage.outages_of_network(stack, source(), CONTROL, None, ("slow", "cut", "silent"))  # type: ignore[arg-type]


def test_a_network_is_bad_in_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    found = bad(FakeStack(), monkeypatch)
    assert list(found) == ["slow", "cut again and again", "silent"]
    assert all(one.asked == 3 and one.recovered_s is not None for one in found.values())


def test_nothing_is_asked_after_a_network_over_which_the_engine_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = bad(FakeStack(away=lambda number: late(number) if number == 4 else None), monkeypatch)
    assert list(found) == ["slow", "cut again and again"]
    assert found["cut again and again"].late


def test_a_good_network_without_loads_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECOVERED_S", 0.05)
    with pytest.raises(NotJudged, match="passes everything on"):
        bad(FakeStack(loads_after=10**9), monkeypatch)


# --- loads that are interrupted ---------------------------------------------------------------------------------------


def lost(stack: FakeStack, control: Any = CONTROL) -> losing.Loss:
    return losing.lose_during_loads(stack, source(), control)  # type: ignore[arg-type]


def test_loads_that_are_interrupted_are_counted() -> None:
    found = lost(FakeStack(away=lambda number: SubjectFault("HTTP 500") if 1 < number <= 4 else None, hits=5))
    assert (found.loads, found.answered, len(found.refused), found.failed) == (losing.LOADS, 5, 3, 5)
    assert len(found.compared) == losing.LOADS
    assert not found.wrong_answers
    found.check_failed()


def test_an_engine_that_ends_over_it_is_reported() -> None:
    found = lost(
        FakeStack(away=lambda number: NoAnswer("reset") if number > 2 else None, gone={"engine-0": "it ended"})
    )
    assert found.ended == ("it ended",)
    assert not found.compared


def test_the_answer_to_another_prompt_is_reported() -> None:
    mixed_up = SimpleNamespace(**vars(CONTROL) | {"closest_answer": lambda _, known: known[0]})
    assert len(lost(FakeStack(), mixed_up).wrong_answers) == losing.LOADS - 1


def test_without_a_load_nothing_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = FakeStack(hits=0)
    stack.context.deadlines = Deadlines(idle_s=0.01)
    with pytest.raises(NotJudged, match="had not begun"):
        lost(stack).check_failed()


def test_what_is_no_fault_of_the_subject_is_raised() -> None:
    def fails(_: int) -> SubjectFault:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lost(FakeStack(away=fails))


# --- an engine that is started again ----------------------------------------------------------------------------------


def restarted(stack: FakeStack) -> recovery.Restarted:
    return recovery.restart_engine(stack, source(), CONTROL)  # type: ignore[arg-type]


def test_a_restart_is_measured() -> None:
    found = restarted(FakeStack(away=lambda number: NoAnswer("reset") if number <= 3 else None))
    assert (found.lost, found.in_flight) == (3, recovery.IN_FLIGHT)
    assert found.reload_s is not None
    assert found.reload_s >= found.service_s >= 0
    assert found.loaded_counts == {recovery.CHUNKS * CHUNK}


def test_a_tier_that_ends_with_the_engine_may_be_empty() -> None:
    assert 0 in restarted(FakeStack(has_server=False)).loaded_counts


def test_an_engine_that_does_not_come_back_is_a_fault_of_the_subject() -> None:
    with pytest.raises(SubjectFault, match="to serve again after it was ended: engine-0 was not ready"):
        restarted(FakeStack(starts=False))
