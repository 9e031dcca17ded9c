"""Conversations as load: sizes, order, what fails, and what their times decide."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.baseline_record import Baseline, Load
from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NoAnswer, NotJudged, SubjectFault
from fixtures.evidence.metrics import EngineCounters
from fixtures.experiments import load, load_cost
from fixtures.experiments.store_cost import Pace
from fixtures.instruments.conversations import Conversation, Conversations
from fixtures.instruments.prompts import Prompts
from fixtures.instruments.response import Response
from fixtures.subject.context import Context
from fixtures.subject.exchange import Exchange, TokenSources

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.instruments.prompts import Prompt

CHUNK, POOL = 16, 2048


@dataclass
class FakeStack:
    """Answers every request after ``seconds``, or with what ``failing`` raises."""

    seconds: float = 0.0
    failing: Callable[[Prompt], Exception | None] = lambda prompt: None
    pool_tokens: int = POOL
    tier_tokens: int = 100 * POOL
    logged: tuple[str, ...] = ()
    context: Context = field(default_factory=lambda: Context(Deadlines()))
    record: Any = field(default_factory=lambda: SimpleNamespace(baseline=None, device="cuda"))
    sent: list[tuple[float, Prompt, dict[str, Any]]] = field(default_factory=list)
    load: float = 1.0
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    engine = SimpleNamespace(name="engine-0")

    @property
    def traffic(self) -> Any:
        delta = EngineCounters(computed=1, gpu_hit=0, loaded=2)
        return SimpleNamespace(
            idle=lambda engine: None, sharing=lambda engine: {}, settled=lambda engine, before, count, others: delta
        )

    @property
    def logs(self) -> Any:
        return SimpleNamespace(positions=dict, failures_since=lambda positions: self.logged)

    @property
    def tier(self) -> Any:
        return SimpleNamespace(sent=lambda prompts: None, capacity_tokens=lambda: self.tier_tokens)

    def load_per_core(self) -> float:
        return self.load

    def complete(self, prompt: Prompt, **_: Any) -> Exchange:
        return Exchange(prompt, {}, Response(200, {}, "", total_s=0.1, content_s=(0.1,)), "engine-0")

    def one_of_several(self, prompt: Prompt, engine: Any, deadline_s: float, **options: Any) -> Exchange:
        with self.lock:
            self.sent.append((time.perf_counter(), prompt, options))
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        time.sleep(self.seconds)
        with self.lock:
            self.in_flight -= 1
        if (fault := self.failing(prompt)) is not None:
            raise fault
        return Exchange(prompt, {}, Response(200, {}, "{}", total_s=0.2, content_s=(0.1,)), "engine-0")


def prompts() -> Prompts:
    return Prompts(1, "load", CHUNK, 4000)


def shape(**changes: Any) -> Conversation:
    return replace(load.conversation(POOL, 256, load.BEYOND_POOL), **changes)


@pytest.mark.parametrize(("pool", "longest"), [(32_768, 1793), (500_000, 16_384), (4096, 100_000)])
@pytest.mark.parametrize("share", [load.BEYOND_POOL, load.WITHIN_POOL])
def test_conversations_fill_the_share_of_the_pool_that_is_asked_for(pool: int, longest: int, share: float) -> None:
    found = load.conversation(pool, longest, share)
    assert found.users >= load.USERS_AT_LEAST
    assert found.working_set_tokens == pytest.approx(pool * share, rel=0.1)
    assert found.prompt_tokens(found.rounds - 1) <= longest
    assert found.prompt_tokens(0) >= longest / 2 or found.users == load.USERS_AT_LEAST, "most of it is history"


def test_a_pool_that_is_too_small_is_not_judged() -> None:
    with pytest.raises(NotJudged, match="too small for 8 conversations"):
        load.conversation(256, 4096, load.WITHIN_POOL)


def test_a_closed_loop_keeps_so_many_in_flight_and_no_user_asks_twice_at_once() -> None:
    stack = FakeStack(seconds=0.005)
    served = load.serve(stack, prompts(), shape())  # type: ignore[arg-type]
    found = served.load
    assert stack.most_in_flight == load.AT_ONCE
    assert len(found.ttft_s) == len(stack.sent) == found.users * found.rounds
    assert set(found.ttft_s) == {0.1}
    assert set(found.latency_s) == {0.2}
    assert found.requests_per_s == pytest.approx(len(found.latency_s) / found.seconds)
    assert served.prompt_tokens == sum(prompt.tokens for _, prompt, _ in stack.sent)
    assert served.sources.total == 3
    assert all(options["max_tokens"] == load.ANSWER_TOKENS and options["ignore_eos"] for _, _, options in stack.sent)
    by_user = [prompt.ids[:8] for _, prompt, _ in stack.sent]
    assert all(by_user.count(ids) == found.rounds for ids in by_user)


def test_prompts_in_between_come_after_all_first_turns() -> None:
    stack, source = FakeStack(failing=lambda prompt: NoAnswer("cut") if prompt.tokens == CHUNK + 1 else None), prompts()
    between = [source.unique(chunks=1) for _ in range(5)]
    found = load.serve(stack, source, shape(), between=between)  # type: ignore[arg-type]
    users, rounds = shape().users, shape().rounds
    sent = [prompt for _, prompt, _ in stack.sent]
    assert all(sent.index(one) >= users - load.AT_ONCE for one in between)
    assert all(sent.index(one) < users + 5 + load.AT_ONCE for one in between)
    assert found.load.latency_s == (0.2,) * users * rounds + (None,) * 5, "their times come last"
    assert len(found.failures) == 5
    assert {options["max_tokens"] for _, prompt, options in stack.sent if prompt in between} == {1}
    assert found.prompt_tokens == sum(prompt.tokens for prompt in sent)


def test_an_open_loop_sends_when_requests_arrive() -> None:
    stack, began = FakeStack(), time.perf_counter()
    served = load.serve(stack, prompts(), shape(), per_second=100.0)  # type: ignore[arg-type]
    arrivals = Conversations(prompts(), shape()).arrivals(100.0)
    sent = sorted(at - began for at, _, _ in stack.sent)
    assert all(at >= wanted for at, wanted in zip(sent, arrivals, strict=True)), "however late, none is early"
    assert served.load.per_second == 100.0


def test_a_request_that_fails_does_not_end_the_load() -> None:
    bad = lambda prompt: SubjectFault("HTTP 503") if prompt.label == "user 2, round 1" else None  # noqa: E731
    served = load.serve(FakeStack(failing=bad), prompts(), shape())  # type: ignore[arg-type]
    assert served.load.ttft_s.count(None) == 1
    assert served.load.ttft_s[served.load.rounds] is None
    assert len(served.failures) == 1
    assert "HTTP 503" in served.failures[0]


def test_a_request_that_never_ends_ends_the_load() -> None:
    hangs = lambda prompt: NoAnswer("no answer within 120 s", overdue=True)  # noqa: E731
    stack = FakeStack(failing=hangs)
    served = load.serve(stack, prompts(), shape())  # type: ignore[arg-type]
    assert len(stack.sent) <= load.AT_ONCE
    assert len(served.failures) == len(served.load.ttft_s)
    assert "not sent, because an earlier request never ended" in served.failures[-1]


def test_failures_that_are_logged_meanwhile_are_kept() -> None:
    served = load.serve(FakeStack(logged=("LMCache ERROR: lost",)), prompts(), shape())  # type: ignore[arg-type]
    assert served.logged == ("LMCache ERROR: lost",)


def test_an_answer_cut_short_is_a_failure() -> None:
    class Short(FakeStack):
        def one_of_several(self, *args: Any, **options: Any) -> Exchange:
            found = super().one_of_several(*args, **options)
            text = '{"usage": {"completion_tokens": 3}}'
            return replace(found, response=replace(found.response, text=text))

    served = load.serve(Short(), prompts(), shape())  # type: ignore[arg-type]
    assert f"3 of {load.ANSWER_TOKENS} tokens" in served.failures[0]


def times(ttft_s: float = 1.0, latency_s: float = 2.0, users: int = 8, **changes: Any) -> Load:
    sizes = {"users": users, "rounds": 3, "system_tokens": 100, "question_tokens": 10, "answer_tokens": 16}
    each = users * 3
    found = Load(**sizes, per_second=None, seconds=10.0, ttft_s=(ttft_s,) * each, latency_s=(latency_s,) * each)
    return found.model_copy(update=changes)


def baseline(**changes: Any) -> Baseline:
    return Baseline(
        pool_tokens=POOL,
        prompt_tokens=100,
        cold_s=(1.0,),
        beyond_pool=(times(), times()),
        within_pool=times(),
    ).model_copy(update=changes)


def served(ttft_s: float = 1.0, latency_s: float = 2.0, failures: tuple[str, ...] = (), **changes: Any) -> load.Served:
    return load.Served(times(ttft_s, latency_s, **changes), TokenSources(1, 0, 0), 1, failures)


def test_users_are_compared_with_themselves() -> None:
    ours = (9.0, 1.0, 1.0, 9.0, 4.0, 2.0)
    theirs = (1.0, 2.0, 2.0, 1.0, 3.0, 3.0)
    found = load.ratio(ours, theirs, 3, first_round=1)
    assert (found.low, found.high, found.n) == (0.5, 1.0, 2)
    assert load.ratio((None, 1.0, 1.0, 1.0), (1.0, 1.0, 2.0, 2.0), 2).n == 1, (
        "whoever failed on either side is left out"
    )
    with pytest.raises(NotJudged, match="did not answer"):
        load.ratio((None,), (1.0,), 1)


@pytest.mark.parametrize(
    ("ttft_s", "latency_s", "none"), [(0.5, 1.0, False), (1.0, 1.0, True), (0.5, 2.0, True), (2.0, 3.0, True)]
)
def test_offload_gains_where_both_are_lower(ttft_s: float, latency_s: float, none: bool) -> None:
    one = served(ttft_s, latency_s)
    found = load.gain(FakeStack(), (one, one), baseline())  # type: ignore[arg-type]
    found.check_decided()
    assert found.none is none
    assert found.pays is not none


def test_a_gain_that_is_not_on_one_side_is_not_judged() -> None:
    mixed = tuple(0.5 if number < 12 else 3.0 for number in range(24))
    one = replace(served(), load=times(latency_s=1.0, ttft_s=0.5).model_copy(update={"ttft_s": mixed}))
    found = load.gain(FakeStack(), (one, one), baseline())  # type: ignore[arg-type]
    assert not found.none
    assert not found.pays
    with pytest.raises(NotJudged, match="too noisy"):
        found.check_decided()


def test_a_gain_needs_a_tier_that_holds_them_and_an_engine_that_was_loaded_so() -> None:
    both = served(), served()
    with pytest.raises(NotJudged, match="larger buffer"):
        load.gain(FakeStack(tier_tokens=100), both, baseline())  # type: ignore[arg-type]
    with pytest.raises(NotJudged, match="let the run start the stack"):
        load.gain(FakeStack(), both, baseline(beyond_pool=None))  # type: ignore[arg-type]


def test_requests_that_fail_are_for_thr_02_to_say() -> None:
    stack = FakeStack()
    with pytest.raises(NotJudged, match="THR-02"):
        load.gain(stack, (served(failures=("HTTP 503",)), served()), baseline())  # type: ignore[arg-type]
    assert stack.context.incidents.of("THR-02")


def cost(monkeypatch: pytest.MonkeyPatch, latency_s: float, slower: float = 1.0) -> load_cost.LoadCost:
    monkeypatch.setattr(load_cost, "serve", lambda *_: served(latency_s=latency_s))
    monkeypatch.setattr(load_cost, "pace_now", lambda *_: Pace(slower, slower, slower))
    return load_cost.load_cost(FakeStack(), prompts(), baseline())  # type: ignore[arg-type]


def test_conversations_that_fit_the_pool_may_take_a_twentieth_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap, dear = cost(monkeypatch, 2.05), cost(monkeypatch, 2.4)
    cheap.check_decided()
    dear.check_decided()
    assert (cheap.too_slow, dear.too_slow) == (False, True)


def test_on_a_cpu_the_copies_take_the_cores_that_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    for latency_s, too_slow in ((2.4, False), (4.2, True)):
        monkeypatch.setattr(load_cost, "serve", lambda *_, seconds=latency_s: served(latency_s=seconds))
        monkeypatch.setattr(load_cost, "pace_now", lambda *_: Pace())
        stack = FakeStack(record=SimpleNamespace(baseline=None, device="cpu"))
        assert load_cost.load_cost(stack, prompts(), baseline()).too_slow is too_slow  # type: ignore[arg-type]


def test_on_a_busy_machine_what_is_dear_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    cost(monkeypatch, 2.05).check_decided()
    monkeypatch.setattr(load_cost, "serve", lambda *_: served(latency_s=2.4))
    found = load_cost.load_cost(FakeStack(load=4.0), prompts(), baseline())  # type: ignore[arg-type]
    assert found.too_slow
    with pytest.raises(NotJudged, match=r"4\.0 runnable processes per core"):
        found.check_decided()


def test_a_machine_that_is_slower_now_is_not_the_cost_of_offload(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotJudged, match="nothing else uses the machine"):
        cost(monkeypatch, 2.4, slower=1.3).check_decided()
    with pytest.raises(NotJudged, match=r"takes 0\.9 times as long as then"):
        cost(monkeypatch, 2.05, slower=0.9).check_decided()


def beyond(monkeypatch: pytest.MonkeyPatch, stack: FakeStack, **changes: Any) -> tuple[Any, str, list[Any]]:
    sent: list[Any] = []

    def serve(_: Any, __: Any, shape: Conversation, *, between: list[Prompt]) -> load.Served:
        sent.append((shape, between))
        return served(latency_s=2.2, users=shape.users, **changes)

    monkeypatch.setattr(load_cost, "serve", serve)
    return *load_cost.cost_beyond_tier(stack, prompts(), baseline()), sent  # type: ignore[arg-type]


def test_conversations_beyond_the_tier_are_compared_user_by_user(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = FakeStack(tier_tokens=POOL * 2)
    found, said, ((shape, between),) = beyond(monkeypatch, stack)
    assert shape.rounds == 2
    first = shape.users * shape.prompt_tokens(0) + sum(one.tokens for one in between)
    assert first >= 1.1 * stack.tier_tokens, "the first turns and what follows them exceed the tier"
    assert {one.tokens for one in between} == {load_cost.BETWEEN_TOKENS + 1}
    assert (round(found.median, 3), found.n) == (1.1, 8)
    assert f"{shape.users} conversations of two turns, and {len(between)} prompts in between" in said


def test_a_tier_that_first_turns_exceed_is_not_filled_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _, ((_, between),) = beyond(monkeypatch, FakeStack(tier_tokens=POOL // 8))
    assert found is not None
    assert not between


def test_beyond_the_tier_the_first_two_turns_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = baseline(beyond_pool=(times().model_copy(update={"latency_s": (1.0, 1.0, 9.0) * 8}), times()))
    monkeypatch.setattr(load_cost, "serve", lambda *_, **__: served(latency_s=2.0))
    found, _ = load_cost.cost_beyond_tier(FakeStack(tier_tokens=POOL), prompts(), theirs)  # type: ignore[arg-type]
    assert found is not None
    assert (found.low, found.high) == (2.0, 2.0)


def test_a_tier_that_takes_long_to_exceed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    found, said, sent = beyond(monkeypatch, FakeStack(tier_tokens=10_000 * POOL))
    assert found is None
    assert not sent
    assert "--deadline beyond_tier=" in said


def test_requests_that_fail_beyond_the_tier_are_for_thr_02_to_say_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = FakeStack(tier_tokens=POOL * 2)
    found, said, _ = beyond(monkeypatch, stack, failures=("HTTP 503",))
    assert found is None
    assert "THR-02" in said
    assert stack.context.incidents.of("THR-02")
