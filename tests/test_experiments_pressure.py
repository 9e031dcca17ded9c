"""Repeats, requests of every kind, crowds and preemption: what counts, on a stack whose counters are chosen here."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.catalogue import limits
from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NoAnswer, NotJudged, SubjectFault, SubjectGone
from fixtures.evidence.metrics import CacheCounters, EngineCounters
from fixtures.experiments import crowding, endings, preemption, repeats
from fixtures.experiments.watch import Watch
from fixtures.instruments.prompts import Prompt, Prompts
from fixtures.instruments.response import Response
from fixtures.subject.exchange import Exchange, TokenSources

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK, BLOCK = 256, 128


def answer(prompt: Prompt, seconds: float = 1.0, sources: TokenSources | None = None) -> Exchange:
    return Exchange(prompt, {}, Response(200, {}, "", total_s=seconds), "engine-0", sources)


@dataclass
class FakeStack:
    """An engine with a pool of ``pool_tokens``; ``share`` of what it is asked again comes from the tier."""

    pool_tokens: int = 8192
    tier_tokens: int = 10**6
    share: float = 1.0
    in_flight: int = 100
    preemptions: int = 0
    hits: int = 0
    fault: BaseException | None = None
    fault_at: int = 0
    ends: str = ""
    asked: int = 0
    explained: list[BaseException] = field(default_factory=list)
    together: list[int] = field(default_factory=list)
    model = "m"
    gpu_prefix_cache = True
    started_counters = EngineCounters(block_size=BLOCK)

    def __post_init__(self) -> None:
        self.engine = SimpleNamespace(name="engine-0", counters=self.counters)
        self.context = SimpleNamespace(
            permit=lambda _: None, deadlines=Deadlines(death_s=0.01), step=lambda _: contextlib.nullcontext()
        )
        self.health = SimpleNamespace(gone=self.gone, explain=self.explained.append)
        self.tier = SimpleNamespace(sent=lambda _: None, capacity_tokens=lambda: self.tier_tokens)
        self.traffic = SimpleNamespace(
            wait_until_idle=lambda: EngineCounters(running=0, waiting=0, preemptions=self.preemptions)
        )
        self.cache = SimpleNamespace(
            before=lambda _: CacheCounters(), since=lambda *_: CacheCounters(hit_tokens=self.hits)
        )

    def counters(self) -> EngineCounters:
        return EngineCounters(running=self.in_flight, waiting=0, kv_usage=0.5, preemptions=0)

    def gone(self) -> dict[str, str]:
        return {"engine-0": self.ends} if self.ends and self.asked > self.fault_at else {}

    def _ask(self) -> None:
        self.asked += 1
        if self.fault is not None and self.asked > self.fault_at:
            raise self.fault

    def clear_prefix_cache(self, **_: Any) -> None:
        pass

    def complete(self, prompt: Prompt, **_: Any) -> Exchange:
        self._ask()
        return answer(prompt)

    def one_of_several(self, prompt: Prompt, *_: Any, **__: Any) -> Exchange:
        self._ask()
        return answer(prompt)

    def complete_concurrently(
        self, prompts: Sequence[Prompt], *, at_once: int, **_: Any
    ) -> tuple[list[Exchange], TokenSources]:
        self.together.append(at_once)
        for _prompt in prompts:
            self._ask()
        loaded = int(self.share * sum(one.whole_chunk_tokens for one in prompts))
        return [answer(one, number) for number, one in enumerate(prompts)], TokenSources(0, 0, loaded)


def source(longest: int = 8190) -> Prompts:
    return Prompts(1, "pressure", CHUNK, longest)


# --- repeats ----------------------------------------------------------------------------------------------------------


def test_repeats_are_counted() -> None:
    stack: Any = FakeStack()
    found = repeats.repeat(stack, source().unique(chunks=2), stack.engine)
    assert found.answered == repeats.RELOADS + repeats.ROUNDS * repeats.AT_ONCE
    assert not found.ended


@pytest.mark.parametrize("fault", [NoAnswer("connection refused"), SubjectGone("it is gone")])
def test_a_repeat_that_ends_the_engine_is_told(fault: BaseException) -> None:
    stack: Any = FakeStack(fault=fault, fault_at=13, ends="engine-0 ended")
    found = repeats.repeat(stack, source().unique(chunks=2), stack.engine)
    assert found.ended == ("engine-0 ended",)
    assert found.answered == 12


def test_a_fault_without_an_end_is_no_restart() -> None:
    stack: Any = FakeStack(fault=SubjectFault("HTTP 400"), fault_at=3)
    with pytest.raises(SubjectFault, match="HTTP 400"):
        repeats.repeat(stack, source().unique(chunks=2), stack.engine)


# --- every request ends -----------------------------------------------------------------------------------------------


def test_every_request_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "abort_requests", lambda _, prompts: len(prompts))
    found = endings.send_everything(FakeStack(), source())  # type: ignore[arg-type]
    assert found.sent == endings.ROUNDS * 3 * endings.KIND
    assert found.abandoned == endings.ROUNDS * endings.KIND
    assert (found.overdue, found.failed, found.longest_s) == ((), (), 1.0)


def test_what_is_overdue_and_what_failed_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "abort_requests", lambda *_: 0)
    monkeypatch.setattr(FakeStack, "complete_concurrently", lambda *_, **__: None)
    late = FakeStack(fault=NoAnswer("no answer within 120 s", overdue=True))
    found = endings.send_everything(late, source())  # type: ignore[arg-type]
    assert len(found.overdue) == found.sent
    assert not found.failed
    assert len(late.explained) == found.sent, "an engine that hangs is noted"
    found = endings.send_everything(FakeStack(fault=NoAnswer("HTTP 500")), source())  # type: ignore[arg-type]
    assert len(found.failed) == found.sent
    assert not found.overdue


# --- crowds -----------------------------------------------------------------------------------------------------------


def test_a_crowd_exceeds_the_pool_and_comes_at_once() -> None:
    stack = FakeStack()
    found = crowding.crowd(stack, source())  # type: ignore[arg-type]
    assert found.tokens > stack.pool_tokens
    assert stack.together == [crowding.STORED_AT_ONCE, found.prompts]
    assert found.longest_s == found.prompts - 1
    found.check_crowded()


@pytest.mark.parametrize(
    ("fake", "why"), [(FakeStack(share=0.5), "only 50%"), (FakeStack(in_flight=3), "at most 3 of 12 prompts")]
)
def test_a_crowd_that_was_none_is_not_judged(fake: FakeStack, why: str) -> None:
    with pytest.raises(NotJudged, match=why):
        crowding.crowd(fake, source()).check_crowded()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fake", "longest", "why"),
    [
        (FakeStack(tier_tokens=8192), 8190, "larger buffer"),
        (FakeStack(pool_tokens=10**6), 8190, "smaller pool"),
        (FakeStack(pool_tokens=200_000), 32_000, "takes 2.. s"),
    ],
)
def test_no_crowd_where_the_arithmetic_has_none(fake: FakeStack, longest: int, why: str) -> None:
    with pytest.raises(NotJudged, match=why):
        crowding.crowd(fake, source(longest))  # type: ignore[arg-type]
    assert fake.asked == 0, "it is known before anything is sent"


# --- preemption -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "block", "longest"),
    [(255, 128, 8190), (511, 64, 8190), (1023, 32, 8190), (29_000, 16, 16_000), (57_000, 16, 32_000)],
)
def test_a_load_fits_the_pool_and_outgrows_it(blocks: int, block: int, longest: int) -> None:
    load = preemption.pressure(blocks, block, longest)
    assert load is not None
    steps = load.requests * load.prompt_tokens // preemption.STEP_TOKENS + load.requests

    def taken(tokens: int) -> int:
        return load.requests * -(-tokens // block)

    assert taken(load.prompt_tokens + steps) <= blocks, "all of them run before the first one grows"
    assert taken(load.prompt_tokens + load.answer_tokens) > blocks + load.requests, "then there is no room for all"
    assert load.prompt_tokens + load.answer_tokens <= longest


@pytest.mark.parametrize(("blocks", "longest"), [(8, 8190), (10**6, 8190)])
def test_there_is_not_always_such_a_load(blocks: int, longest: int) -> None:
    assert preemption.pressure(blocks, 16, longest) is None


def test_a_pool_that_is_too_large_is_not_judged() -> None:
    with pytest.raises(NotJudged, match="smaller pool"):
        preemption.preempt(FakeStack(pool_tokens=10**7), source())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("preemptions", "share", "why"),
    [
        (0, 0.0, "nothing was preempted"),
        (4, 0.5, "brought back 50%"),
        (4, 1.0, ""),
        (4, float(limits.REPLAYED_SHARE), ""),
    ],
)
def test_only_a_replay_from_the_tier_counts(preemptions: int, share: float, why: str) -> None:
    stack = FakeStack(pool_tokens=32768)
    load = preemption.pressure(255, BLOCK, source().max_tokens)
    assert load is not None
    whole = (load.prompt_tokens - 1) // CHUNK * CHUNK
    stack.preemptions, stack.hits = preemptions, round(preemptions * whole * share)
    found = preemption.preempt(stack, source())  # type: ignore[arg-type]
    assert found.requests == load.requests
    assert found.preemptions == preemptions
    assert len(found.to_check) == preemption.TO_CHECK
    assert {one.tokens for one in found.to_check} == {whole + 1}
    if why:
        with pytest.raises(NotJudged, match=why):
            found.check_preempted()
    else:
        found.check_preempted()


@pytest.mark.parametrize(("on_gpu", "compared"), [(512, 1), (128, 0)])
def test_copies_on_the_gpu_count_where_they_are_whole(on_gpu: int, compared: int) -> None:
    prompt = source().unique(chunks=2)
    sources = iter((TokenSources(513 - on_gpu, on_gpu, 0), TokenSources(1, 0, 512)))
    control: Any = SimpleNamespace(
        complete=lambda *_: answer(prompt, sources=next(sources)), check_reloaded=lambda *_: None
    )
    stack: Any = FakeStack()
    if not compared:
        with pytest.raises(NotJudged, match="complete copy left on the GPU"):
            preemption.answers_afterwards(stack, control, [prompt], 4)
        return
    (found,) = preemption.answers_afterwards(stack, control, [prompt], 4)
    assert (found.on_gpu.sources.gpu_hit, found.reloaded.sources.loaded) == (512, 512)


def test_gauges_are_read_while_requests_run() -> None:
    engine: Any = SimpleNamespace(counters=lambda: EngineCounters(running=2, waiting=3, kv_usage=0.25))
    with Watch(engine) as watch:
        pass
    assert (watch.most_in_flight, watch.most_waiting, watch.most_of_pool) == (5, 3, 0.25) or not watch.seen


def test_a_page_that_cannot_be_read_is_left_out() -> None:
    def fails() -> EngineCounters:
        raise NotJudged("no metrics")

    engine: Any = SimpleNamespace(counters=fails)
    with Watch(engine) as watch:
        pass
    assert (watch.most_in_flight, watch.most_waiting, watch.most_of_pool) == (0, 0, 0.0)
