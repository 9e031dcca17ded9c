"""What a connector costs the tokens after the first, on a stack whose gaps are chosen here."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.baseline_record import Baseline
from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NotJudged
from fixtures.evidence.metrics import EngineCounters
from fixtures.experiments import decoding
from fixtures.experiments.store_cost import Pace
from fixtures.instruments.prompts import Prompt, Prompts
from fixtures.instruments.response import Response
from fixtures.instruments.trials import Interval, median_interval
from fixtures.subject.exchange import Exchange, TokenSources

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CHUNK = 16
GAPS_BESIDE = decoding._gaps_beside


@pytest.fixture(autouse=True)
def gaps_that_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_gaps_beside", FakeStack.gaps_beside)


@dataclass
class FakeStack:
    """Answers whose tokens come ``gap_s`` apart, by number of the answer; those beside others ``beside_s`` apart."""

    gap_s: Callable[[int], float] = lambda _: 0.01
    beside_s: float = 0.02
    load: float = 0.5
    answers: int = 0
    cleared: int = 0
    stored: list[Prompt] = field(default_factory=list)
    beside: list[tuple[Sequence[Prompt], Sequence[Prompt]]] = field(default_factory=list)

    engine_gap_s: float | None = None
    """By the engine's own clock; None if it has none."""
    finished: int = 0

    device: str = "cuda"

    @property
    def record(self) -> Any:
        return SimpleNamespace(device=self.device)

    @property
    def engine(self) -> Any:
        return SimpleNamespace(counters=self.counters)

    def counters(self) -> EngineCounters:
        if self.engine_gap_s is None:
            return EngineCounters()
        spent = self.finished * self.engine_gap_s * (decoding.DECODED - 1)
        return EngineCounters(decode_count=self.finished, decode_sum=spent)

    def gaps_beside(self, prompts: Sequence[Prompt], others: Sequence[Prompt]) -> list[float]:
        self.beside.append((prompts, others))
        return [self.beside_s] * 100

    def clear_prefix_cache(self) -> None:
        self.cleared += 1

    def load_per_core(self) -> float:
        return self.load

    def complete(self, prompt: Prompt, *, stream: bool, max_tokens: int, ignore_eos: bool) -> Exchange:
        assert stream
        assert ignore_eos
        self.answers += 1
        self.finished += 1
        return exchange(prompt, [self.gap_s(self.answers)] * (max_tokens - 1))

    def complete_concurrently(self, prompts: list[Prompt], **_: Any) -> tuple[list[Exchange], TokenSources]:
        self.stored += prompts
        return [], TokenSources(0, 0, 0)


def exchange(prompt: Prompt, gaps: Sequence[float]) -> Exchange:
    times = [0.5]
    for gap in gaps:
        times.append(times[-1] + gap)
    return Exchange(prompt, {}, Response(200, {}, "", total_s=times[-1], content_s=tuple(times)), "engine-0")


def source() -> Prompts:
    return Prompts(3, "decoding", CHUNK, 20000)


def baseline(**known: tuple[float, ...]) -> Baseline:
    return Baseline(pool_tokens=1, prompt_tokens=17, cold_s=(1.0,), **known)  # type: ignore[arg-type]


def test_the_first_answer_does_not_count() -> None:
    stack = FakeStack(gap_s=lambda number: 1.0 if number == 1 else 0.01)
    found = decoding.measure_decoding(stack, source())  # type: ignore[arg-type]
    assert found == pytest.approx((100.0,) * decoding.DECODES)


def test_the_clock_of_the_engine_is_believed_where_the_tokens_came_together() -> None:
    """A busy machine: the API server, or the client, had them all at once (seen: 152 385 tokens per second)."""
    stack = FakeStack(gap_s=lambda number: 6.5e-6 if number % 2 else 0.02, engine_gap_s=0.01)
    found = decoding.measure_decoding(stack, source())  # type: ignore[arg-type]
    assert found == pytest.approx((100.0,) * decoding.DECODES)


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_without_that_clock_answers_in_a_few_pieces_are_not_judged(pieces: int) -> None:
    stack = FakeStack()
    gaps = [0.0] * (decoding.DECODED - pieces) + [0.1] * (pieces - 1)
    stack.complete = lambda prompt, **_: exchange(prompt, gaps)  # type: ignore[method-assign]
    with pytest.raises(NotJudged, match="in a few pieces"):
        decoding.measure_decoding(stack, source())  # type: ignore[arg-type]


def test_a_clock_that_counted_another_request_too_is_not_believed() -> None:
    stack = FakeStack(engine_gap_s=0.5)
    stack.finished = 3
    counted = iter(range(1000))
    stack.counters = lambda: EngineCounters(decode_count=2 * next(counted), decode_sum=1.0)  # type: ignore[method-assign]
    assert decoding.measure_decoding(stack, source()) == pytest.approx((100.0,) * decoding.DECODES)  # type: ignore[arg-type]


def test_in_a_round_as_many_old_prompts_come_as_new_ones() -> None:
    stack = FakeStack()
    assert decoding.measure_gaps(stack, source()) == pytest.approx((0.02,) * decoding.ROUNDS)  # type: ignore[arg-type]
    assert stack.cleared == decoding.ROUNDS
    for number, (running, others) in enumerate(stack.beside):
        older = stack.stored[number * decoding.OTHERS : (number + 1) * decoding.OTHERS]
        assert len(running) == decoding.RUNNING
        assert [one for one in others if one in older] == older
        assert len(others) == 2 * decoding.OTHERS
        assert all(one.whole_chunk_tokens for one in others), "each has something to store or to load"


@pytest.mark.parametrize(("share", "expected"), [(0.95, 95), (0.5, 50), (0.01, 1), (1.0, 100)])
def test_percentiles_by_rank(share: float, expected: int) -> None:
    assert decoding.percentile(list(range(100, 0, -1)), share) == expected


@pytest.mark.parametrize(
    ("rate", "slow_machine", "verdict"),
    [
        (100.0, 1.0, "holds"),
        (96.0, 1.0, "holds"),
        (80.0, 1.0, "too slow"),
        (80.0, 1.5, "not judged"),
        (99.0, 0.8, "not judged"),
    ],
)
def test_decoding_is_judged_by_the_machine_as_it_is_now(
    monkeypatch: pytest.MonkeyPatch, rate: float, slow_machine: float, verdict: str
) -> None:
    monkeypatch.setattr(decoding, "pace_now", lambda *_: Pace(slow_machine, slow_machine, slow_machine))
    stack = FakeStack(gap_s=lambda _: 1 / rate)
    known = baseline(decode_tokens_per_s=(100.0,) * decoding.DECODES)
    cost = decoding.decode_cost(stack, source(), known)  # type: ignore[arg-type]
    if verdict == "not judged":
        with pytest.raises(NotJudged, match=r"nothing else uses the machine|takes 0\.8 times as long as then"):
            cost.check_decided()
    else:
        cost.check_decided()
        assert cost.too_slow == (verdict == "too slow")


@pytest.mark.parametrize(("rate", "too_slow"), [(40.0, False), (15.0, True)])
def test_on_a_cpu_the_connector_shares_the_cores(monkeypatch: pytest.MonkeyPatch, rate: float, too_slow: bool) -> None:
    """0.26 of the rate without a connector was seen on a healthy engine; steps held up by 20 ms leave 0.17."""
    monkeypatch.setattr(decoding, "pace_now", lambda *_: Pace())
    stack = FakeStack(gap_s=lambda _: 1 / rate, device="cpu")
    known = baseline(decode_tokens_per_s=(100.0,) * decoding.DECODES)
    assert decoding.decode_cost(stack, source(), known).too_slow == too_slow  # type: ignore[arg-type]


def test_slow_decoding_on_a_busy_machine_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "pace_now", lambda *_: Pace())
    stack = FakeStack(gap_s=lambda _: 0.02, load=2.5)
    known = baseline(decode_tokens_per_s=(100.0,) * decoding.DECODES)
    cost = decoding.decode_cost(stack, source(), known)  # type: ignore[arg-type]
    with pytest.raises(NotJudged, match=r"2\.5 runnable processes per core"):
        cost.check_decided()


def test_rates_that_overlap_do_not_decide() -> None:
    wide, narrow = median_interval([90.0] * 4 + [110.0] * 5), median_interval([100.0] * 9)
    with pytest.raises(NotJudged, match="too noisy to decide"):
        decoding.DecodeCost(wide, narrow, Pace()).check_decided()


@pytest.mark.parametrize(("gap_s", "too_slow"), [(0.03, False), (0.0499, False), (0.2, True)])
def test_gaps_beyond_what_is_allowed(gap_s: float, too_slow: bool) -> None:
    """20 ms without a connector allow 50 ms."""
    stack = FakeStack(beside_s=gap_s)
    cost = decoding.disturbance(stack, source(), baseline(gaps_s=(0.02,) * decoding.ROUNDS))  # type: ignore[arg-type]
    cost.check_decided()
    assert cost.too_slow == too_slow


def test_one_round_of_another_kind_is_outvoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six rounds of which one is unlike the others do not decide; nine do."""
    for usual, other, too_slow in ((0.2, 0.02, True), (0.02, 0.2, False)):
        stack, rounds = FakeStack(), iter([usual] * 3 + [other] + [usual] * 5)
        monkeypatch.setattr(decoding, "_gaps_beside", lambda *_, rounds=rounds: [next(rounds)] * 100)
        cost = decoding.disturbance(stack, source(), baseline(gaps_s=(0.02,) * decoding.ROUNDS))  # type: ignore[arg-type]
        cost.check_decided()
        assert cost.too_slow == too_slow
        assert stack.cleared == decoding.ROUNDS + decoding.MORE_ROUNDS


def test_gaps_around_what_is_allowed_do_not_decide() -> None:
    around = Interval(0.05, 0.045, 0.055, decoding.ROUNDS)
    with pytest.raises(NotJudged, match="too close"):
        decoding.Disturbance(around, median_interval([0.02] * decoding.ROUNDS)).check_decided()


def test_a_baseline_of_an_earlier_version_is_none() -> None:
    for judge in (decoding.decode_cost, decoding.disturbance):
        with pytest.raises(NotJudged, match="let the run start the stack"):
            judge(FakeStack(), source(), baseline())  # type: ignore[arg-type]


@dataclass
class Engine:
    """Answers beside others: a token every 50 ms; the prompts of others take ``others_s``."""

    others_s: float
    answers: int = 0
    name: str = "engine-0"
    pid: int | None = None
    seen: list[Exchange] = field(default_factory=list)
    context: Any = field(init=False)
    traffic: Any = field(init=False)
    model: str = "a-model"

    def __post_init__(self) -> None:
        self.context = SimpleNamespace(
            deadlines=Deadlines(), step=lambda _: contextlib.nullcontext(), on_exchange=self.seen.append
        )
        self.traffic = SimpleNamespace(
            idle=lambda _: EngineCounters(), sharing=lambda _: {}, settled=lambda *_: EngineCounters()
        )
        self.tier = SimpleNamespace(sent=lambda _: None)

    @property
    def engine(self) -> Any:
        return SimpleNamespace(name=self.name, pid=None, counters=lambda: EngineCounters(running=self.answers))

    def one_of_several(self, prompt: Prompt, engine: Any, deadline_s: float, **options: Any) -> Exchange:
        if not options.get("stream"):
            time.sleep(self.others_s)
            return Exchange(prompt, options, Response(200, {}, "", total_s=self.others_s), self.name)
        self.answers += 1
        times = tuple(0.05 * number for number in range(1, 11))
        time.sleep(times[-1])
        response = Response(200, {}, "", total_s=times[-1], content_s=times)
        return Exchange(prompt, options, response, self.name)


def test_only_gaps_while_others_are_in_flight_count() -> None:
    """Ten tokens in half a second, and others for the fifth of one: some of the nine gaps of each answer, not all."""
    prompts, stack = source(), Engine(others_s=0.2)
    running, others = ([prompts.of_length(4) for _ in range(count)] for count in (2, 3))
    found = GAPS_BESIDE(stack, running, others)  # type: ignore[arg-type]
    assert found == pytest.approx([0.05] * len(found))
    assert 2 <= len(found) < 18
    assert [one.prompt for one in stack.seen] == running


def test_answers_that_are_over_first_prove_nothing() -> None:
    prompts, stack = source(), Engine(others_s=0.0)
    with pytest.raises(NotJudged, match="ended before"):
        GAPS_BESIDE(stack, [prompts.of_length(4)], [])  # type: ignore[arg-type]


@pytest.mark.parametrize(("rate", "too_slow"), [(50.0, False), (49.9, True)])
def test_the_rate_that_is_just_allowed_is_met(rate: float, too_slow: bool) -> None:
    cost = decoding.DecodeCost(Interval(rate, rate, rate, 9), Interval(100, 100, 100, 9), Pace(), allowed=0.5)
    cost.check_decided()
    assert cost.too_slow == too_slow


@pytest.mark.parametrize(("gap_s", "too_slow"), [(0.05, False), (0.0501, True)])
def test_the_gap_that_is_just_allowed_is_met(gap_s: float, too_slow: bool) -> None:
    """20 ms without a connector allow 50 ms."""
    cost = decoding.Disturbance(Interval(gap_s, gap_s, gap_s, 6), Interval(0.02, 0.02, 0.02, 6))
    assert cost.allowed_ms == pytest.approx(50)
    cost.check_decided()
    assert cost.too_slow == too_slow
