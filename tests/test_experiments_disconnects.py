"""Clients that disconnect: which of them count, on a stack whose counters are chosen here."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NoAnswer, NotJudged, SubjectFault
from fixtures.evidence.metrics import CacheCounters, EngineCounters
from fixtures.experiments import disconnects
from fixtures.experiments.disconnects import CLIENTS, OTHERS, STREAMED_EVENTS, DisconnectingClients
from fixtures.instruments.prompts import Prompt, Prompts

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.experiments.disconnects import Phase

CHUNK = 16
OTHER_TOKENS = disconnects.OTHER_CHUNKS * CHUNK + 1


@dataclass
class FakeCaller:
    """A client whose request got so far when it disconnected."""

    events: int = 0
    complete: bool = False
    over: bool = False

    def disconnect(self) -> bool:
        return not self.complete


@dataclass
class FakeStack:
    """Counts what it is told to: ``computed`` prompts of clients reached their first token, ``found`` were in the tier."""

    computed: int = 0
    found: int = 0
    finished: int = OTHERS
    fault: BaseException | None = None
    dies: str = ""
    pinned_after: int = 3
    length: int = 0
    attempts: int = 0
    stored: list[Prompt] = field(default_factory=list)

    model = "m"
    context = SimpleNamespace(
        permit=lambda _: None,
        deadlines=Deadlines(death_s=0.01, idle_s=0.01),
        step=lambda _: contextlib.nullcontext(),
    )

    def __post_init__(self) -> None:
        self.engine = SimpleNamespace(name="engine-0", client=None, counters=lambda: EngineCounters(running=1))
        self.health = SimpleNamespace(gone=lambda: {"engine-0": self.dies} if self.dies else {})
        self.tier = SimpleNamespace(sent=self.sent)
        self.traffic = SimpleNamespace(
            idle=lambda _: EngineCounters(prompt_tokens=0, loaded=0, requests_finished=0),
            aborted=set(),
            wait_until_idle=self.rest,
        )
        self.cache = SimpleNamespace(
            before=lambda _: CacheCounters(hit_tokens=0), since=self.since, pinned_when_idle=self.pinned
        )

    def sent(self, prompts: list[Prompt]) -> None:
        self.attempts += 1
        self.length = prompts[0].tokens

    def rest(self) -> EngineCounters:
        tokens = self.computed * self.length + OTHERS * OTHER_TOKENS
        known = OTHERS // 2 * (OTHER_TOKENS - 1)
        return EngineCounters(
            prompt_tokens=tokens, loaded=known, requests_finished=self.finished, running=0, waiting=0, kv_usage=0.0
        )

    def since(self, *_: Any) -> CacheCounters:
        known = OTHERS // 2 * (OTHER_TOKENS - 1)
        return CacheCounters(hit_tokens=known + self.found * (self.length - 1))

    def pinned(self, expected: int | None) -> int:
        return 3 if expected is None else self.pinned_after

    def clear_prefix_cache(self) -> None:
        pass

    def complete_concurrently(self, prompts: list[Prompt], **_: Any) -> None:
        self.stored += prompts

    def one_of_several(self, *_: Any, **__: Any) -> None:
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def disconnect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., disconnects.Disconnects]:
    def run(stack: FakeStack, phase: Phase, **caller: Any) -> disconnects.Disconnects:
        monkeypatch.setattr(disconnects, "Caller", lambda *_: FakeCaller(**caller))
        control: Any = SimpleNamespace(answer=lambda *_: None)
        return DisconnectingClients(stack, Prompts(1, "x", CHUNK, 4000), control).disconnect(phase)  # type: ignore[arg-type]

    return run


@pytest.mark.parametrize(
    ("chunks", "sent"), [(7.0, 7), (7.9, 7), (0.5, disconnects.FEWEST_CHUNKS), (1e6, 3995 // CHUNK)]
)
def test_what_is_loaded_is_as_long_as_the_engine_computes_in_three_seconds(
    disconnect: Callable[..., disconnects.Disconnects], chunks: float, sent: int
) -> None:
    stack = FakeStack(found=1)
    rate = chunks * CHUNK * CLIENTS / disconnects.STORED_WITHIN_S
    stack.context = SimpleNamespace(
        **vars(FakeStack.context) | {"deadlines": Deadlines(death_s=0.01, tokens_per_s=rate)}
    )
    disconnect(stack, "load")
    assert {prompt.tokens for prompt in stack.stored} == {sent * CHUNK + 1}


@pytest.mark.parametrize(
    ("phase", "fake", "caller", "in_phase"),
    [
        ("prefill", FakeStack(), {}, CLIENTS),
        ("prefill", FakeStack(computed=1), {}, CLIENTS - 1),
        ("prefill", FakeStack(computed=CLIENTS), {}, 0),
        ("prefill", FakeStack(), {"events": 1}, 0),
        ("load", FakeStack(found=CLIENTS), {}, CLIENTS),
        ("load", FakeStack(found=1), {}, 1),
        ("load", FakeStack(found=0), {}, 0),
        ("load", FakeStack(found=CLIENTS, computed=CLIENTS), {}, 0),
        ("stream", FakeStack(computed=CLIENTS), {"events": STREAMED_EVENTS}, CLIENTS),
        ("stream", FakeStack(computed=CLIENTS), {"events": STREAMED_EVENTS - 1}, 0),
        ("stream", FakeStack(computed=0), {"events": STREAMED_EVENTS}, 0),
        ("stream", FakeStack(computed=CLIENTS), {"events": 9, "complete": True}, 0),
    ],
)
def test_a_client_counts_only_in_the_phase_that_the_counters_show(
    disconnect: Callable[..., disconnects.Disconnects],
    phase: Phase,
    fake: FakeStack,
    caller: dict[str, Any],
    in_phase: int,
) -> None:
    stack = dataclasses.replace(fake, stored=[])
    found = disconnect(stack, phase, **caller)
    assert found.in_phase == in_phase
    assert stack.attempts == (1 if in_phase else disconnects.ATTEMPTS), "it is tried again"
    assert bool(stack.stored) == (phase == "load"), "only what is stored can be loaded"
    assert not found.lost
    assert found.pinned == 0
    if in_phase:
        found.check_hit()
    else:
        with pytest.raises(NotJudged, match=f"none of {CLIENTS} clients disconnected in mid-{phase}"):
            found.check_hit()


def test_requests_of_others_that_fail_are_told_with_what_ended(
    disconnect: Callable[..., disconnects.Disconnects],
) -> None:
    found = disconnect(FakeStack(fault=NoAnswer("POST /v1/completions: connection reset"), dies="it ended"), "stream")
    assert found.lost == ("POST /v1/completions: connection reset; it ended",) * OTHERS


def test_requests_of_others_that_are_refused_are_lost_too(disconnect: Callable[..., disconnects.Disconnects]) -> None:
    assert len(disconnect(FakeStack(fault=SubjectFault("expected HTTP 200, got 429")), "prefill").lost) == OTHERS


def test_what_is_no_fault_of_the_subject_is_raised(disconnect: Callable[..., disconnects.Disconnects]) -> None:
    with pytest.raises(ZeroDivisionError):
        disconnect(FakeStack(fault=ZeroDivisionError()), "prefill")


def test_other_clients_make_it_not_judged(disconnect: Callable[..., disconnects.Disconnects]) -> None:
    with pytest.raises(NotJudged, match="it has other clients"):
        disconnect(FakeStack(finished=OTHERS + CLIENTS + 1), "prefill")


@pytest.mark.parametrize(("after", "pinned"), [(5, 2), (3, 0), (2, 0)], ids=["more", "as-many", "fewer"])
def test_pins_that_are_left_are_counted(
    disconnect: Callable[..., disconnects.Disconnects], after: int, pinned: int
) -> None:
    assert disconnect(FakeStack(pinned_after=after), "prefill").pinned == pinned


@pytest.mark.parametrize(
    ("phase", "caller", "looks"),
    [
        ("load", FakeCaller(), 2),
        ("prefill", FakeCaller(), 3),
        ("stream", FakeCaller(events=STREAMED_EVENTS), 0),
        ("prefill", FakeCaller(over=True), 0),
    ],
)
def test_clients_disconnect_as_soon_as_they_are_in_the_phase(phase: Phase, caller: FakeCaller, looks: int) -> None:
    """The engine is idle, then has them waiting, then runs them: a load may begin while they wait, a prefill may not."""
    stack, looked = FakeStack(), list[EngineCounters]()
    states = [EngineCounters(), EngineCounters(waiting=1, running=0), EngineCounters(running=1)]

    def counters() -> EngineCounters:
        looked.append(states[min(len(looked), 2)])
        return looked[-1]

    stack.engine.counters = counters
    stack.context = SimpleNamespace(**vars(FakeStack.context) | {"deadlines": Deadlines(idle_s=5.0)})
    clients = DisconnectingClients(stack, Prompts(1, "x", CHUNK, 4000), SimpleNamespace(answer=lambda *_: None))  # type: ignore[arg-type]
    clients._await(phase, [caller, caller])  # type: ignore[list-item]
    assert len(looked) == looks
