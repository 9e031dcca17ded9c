"""The experiment around the size of a tier, on tiers whose policy is chosen here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NoAnswer, NotApplicable, NotJudged
from fixtures.core.record import EngineServer, StackRecord
from fixtures.experiments import overfilling
from fixtures.experiments.capacity import Capacity, Order
from fixtures.experiments.overfilling import StoredPrompt
from fixtures.instruments.prompts import Prompts
from fixtures.subject.context import Context
from tests.fakes.tier_of_a_size import CHUNK, SIZE, FakeStack, FakeTier

if TYPE_CHECKING:
    from fixtures.evidence.metrics import CacheCounters


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overfilling, "ROOM_S", 0.0)


def capacity_of(stack: FakeStack) -> Capacity:
    return Capacity(stack, Prompts(1, "capacity", CHUNK, 4000))  # type: ignore[arg-type]


WATERMARKS = pytest.mark.parametrize("watermarks", [(1.0, 1.0), (0.8, 0.64)], ids=["one-by-one", "in-batches"])
"""As LMCache does it in process, and its server."""


@WATERMARKS
@pytest.mark.parametrize("older", [0, 40, 64])
@pytest.mark.parametrize("size", [64, 128, 300, 1111])
def test_a_tier_that_evicts_by_last_use_is_conformant(watermarks: tuple[float, float], older: int, size: int) -> None:
    stack = FakeStack(FakeTier(size, *watermarks))
    source = Prompts(2, "older", CHUNK, 4000)
    for _ in range(older):
        stack.ask(source.unique(chunks=1))
    capacity = capacity_of(stack)
    for half in (capacity.half(), capacity.half_when_full()):
        assert (half.sources.loaded, half.short) == (half.expected, "")
        assert 0.4 * size * CHUNK <= half.expected <= size * CHUNK / 2
        half.check_decided()
    order = capacity.order()
    order.check_decided()
    assert order.reversals == []
    assert {one.use for one in order.gone} <= {"asked first", "asked last"}
    after = capacity.overfilled()
    assert after.sent >= 2 * size * CHUNK
    assert (after.stored, after.loaded.loaded) == (after.fresh, after.fresh)
    assert after.evicted
    assert (after.gone, after.logged_failures()) == ((), ())
    after.check_counted()


def test_each_part_is_done_once_and_only_what_is_asked_for() -> None:
    stack = FakeStack()
    capacity = capacity_of(stack)
    capacity.half()
    sent = len(stack.asked)
    capacity.half()
    assert len(stack.asked) == sent == 2 * 32
    capacity.order()
    assert len(stack.asked) < 5 * 32, "twice the size of the tier is for another requirement"
    capacity.overfilled()
    capacity.half_when_full()
    sent = len(stack.asked)
    for part in (capacity.half, capacity.order, capacity.overfilled, capacity.half_when_full):
        part()
    assert len(stack.asked) == sent


@WATERMARKS
@pytest.mark.parametrize("older", [0, 40, 64])
@pytest.mark.parametrize("size", [64, 128, 512, 1111])
def test_a_tier_that_forgets_what_was_used_reverses_the_order(
    watermarks: tuple[float, float], older: int, size: int
) -> None:
    stack = FakeStack(FakeTier(size, *watermarks, notes_use=False))
    source = Prompts(2, "older", CHUNK, 4000)
    for _ in range(older):
        stack.ask(source.unique(chunks=1))
    order = capacity_of(stack).order()
    lost, still_there = order.reversals[0]
    assert (lost.use, still_there.use) == ("asked last", "asked first")
    assert lost.last_used > still_there.last_used
    assert "last used at step" in str(lost)


@WATERMARKS
@pytest.mark.parametrize("size", [64, 128, 512])
def test_a_tier_that_evicts_the_newest_reverses_the_order(watermarks: tuple[float, float], size: int) -> None:
    capacity = capacity_of(FakeStack(FakeTier(size, *watermarks, newest_first=True)))
    order = capacity.order()
    assert order.reversals
    assert {lost.use for lost, _ in order.reversals} == {"new"}
    half = capacity.half_when_full()
    half.check_decided()
    assert half.sources.loaded < half.expected


def test_a_tier_that_is_smaller_than_it_says_loses_a_part_of_the_half() -> None:
    tier = FakeTier(chunks=24)
    tier.capacity_tokens = lambda: SIZE  # type: ignore[method-assign]
    capacity = capacity_of(FakeStack(tier))
    half = capacity.half()
    half.check_decided()
    assert half.sources.loaded < half.expected
    assert half.short.startswith("prompts 1 to 4 of 32: ")
    with pytest.raises(NotJudged, match="was not reloaded completely"):
        capacity.order()
    assert capacity.overfilled().evicted, "the rest is judged all the same"


def test_a_full_tier_that_stores_nothing_is_seen() -> None:
    capacity = capacity_of(FakeStack(FakeTier(evicts=False)))
    after = capacity.overfilled()
    assert (after.stored, after.loaded.loaded, after.evicted) == (0, 0, 0)
    after.check_counted()
    order = capacity.order()
    assert {one.use for one in order.gone} == {"new"}


@pytest.mark.parametrize("policy", ["ARC", "LFU", "MRU"])
def test_another_policy_is_not_held_to_the_order_of_use(policy: str) -> None:
    stack = FakeStack(FakeTier(policy=policy))
    capacity = capacity_of(stack)
    with pytest.raises(NotApplicable, match=f"configured to evict by {policy}"):
        capacity.order()
    with pytest.raises(NotApplicable, match=f"configured to evict by {policy}"):
        capacity.half_when_full()
    assert capacity.overfilled().stored, "that it stores holds for every policy"


def test_what_another_policy_does_not_keep_says_nothing() -> None:
    stack = FakeStack(FakeTier(policy="LFU", newest_first=True))
    for _ in range(64):
        stack.ask(Prompts(2, f"older {_}", CHUNK, 4000).unique(chunks=1))
    with pytest.raises(NotJudged, match="evicts by LFU, so what it keeps of this depends on what it held before"):
        capacity_of(stack).half().check_decided()


def test_a_policy_by_age_is_held_to_the_half_but_not_to_the_order_of_use() -> None:
    capacity = capacity_of(FakeStack(FakeTier(policy="FIFO", notes_use=False)))
    half = capacity.half_when_full()
    assert half.sources.loaded == half.expected
    with pytest.raises(NotApplicable, match="configured to evict by FIFO"):
        capacity.order()


def test_others_that_store_in_the_same_tier_explain_what_is_missing() -> None:
    others = Prompts(3, "others", CHUNK, 4000)

    def other(stack: FakeStack) -> None:
        ids = others.unique(chunks=2).ids
        stack.tier.store([ids[:CHUNK], ids[: 2 * CHUNK]])

    half = capacity_of(FakeStack(after=other)).half()
    assert half.sources.loaded < half.expected
    with pytest.raises(NotJudged, match=r"others have stored \d+ tokens in the same tier meanwhile"):
        half.check_decided()


def test_what_a_late_counter_adds_is_not_the_doing_of_others() -> None:
    """Inside of an engine LMCache counts every 10 s: what an earlier test stored comes while this one runs."""
    read = 0

    def late(counters: CacheCounters) -> CacheCounters:
        nonlocal read
        read += 1
        return replace(counters, flavour="in-process", usage_ratio=None, stored_tokens=0 if read == 1 else 320)

    tier = FakeTier(chunks=24)
    tier.capacity_tokens = lambda: SIZE  # type: ignore[method-assign]
    half = capacity_of(FakeStack(tier, counted=late)).half()
    half.check_decided()
    assert half.sources.loaded < half.expected


@pytest.mark.parametrize(("usage_ratio", "explained"), [(None, True), (0.5, False)])
def test_a_tier_that_was_given_no_time_to_evict_explains_what_is_missing(
    usage_ratio: float | None, explained: bool
) -> None:
    refused = iter(range(10**6))

    def count(counters: CacheCounters) -> CacheCounters:
        return replace(counters, usage_ratio=usage_ratio, store_failures=next(refused))

    half = capacity_of(FakeStack(FakeTier(chunks=24), counted=count))
    half._stack.tier.capacity_tokens = lambda: SIZE  # type: ignore[method-assign]
    found = half.half()
    assert found.sources.loaded < found.expected
    assert found.explained.startswith("the tier had no room for") == explained


def test_the_copy_on_the_gpu_is_not_the_tier() -> None:
    capacity = capacity_of(FakeStack(clears=False))
    with pytest.raises(NotJudged, match="the GPU's own copy answered a part of it"):
        capacity.half().check_decided()


def test_a_lower_tier_hides_what_was_evicted() -> None:
    engine = EngineServer(name="e", url="http://e", env={"LMCACHE_REMOTE_URL": "redis://r"})
    record = StackRecord(id="s", kind="process", config="c", folder=Path(), model="m", engines=[engine])
    stack = FakeStack(record=record)
    stack.tier.find = len  # type: ignore[method-assign,assignment]
    stack.tier.use = stack.tier.store = lambda keys: None  # type: ignore[method-assign]
    capacity = capacity_of(stack)
    with pytest.raises(NotApplicable, match="a tier below the CPU tier keeps what that evicts"):
        capacity.order()


def test_where_nothing_is_gone_no_order_is_seen() -> None:
    stack = FakeStack(FakeTier(chunks=1000))
    stack.tier.capacity_tokens = lambda: SIZE  # type: ignore[method-assign]
    capacity = capacity_of(stack)
    with pytest.raises(NotJudged, match=r"none of the \d+ prompts that were repeated had been evicted"):
        capacity.order().check_decided()
    assert capacity.overfilled().evicted is None, "more was stored than it holds: it does not count, or is larger"
    with pytest.raises(NotJudged, match="no eviction is counted"):
        capacity.overfilled().check_counted()


def test_where_everything_is_gone_no_order_is_seen() -> None:
    sent = StoredPrompt(Prompts(1, "x", CHUNK, 4000).unique(1), 1)
    with pytest.raises(NotJudged, match="all of the 1 prompts"):
        Order((), (sent,)).check_decided()


def test_prompts_of_one_batch_have_no_order() -> None:
    source = Prompts(1, "x", CHUNK, 4000)
    first, second, third = (StoredPrompt(source.unique(1), step) for step in (1, 1, 2))
    assert Order(kept=(second,), gone=(first,)).reversals == []
    assert Order(kept=(first, second), gone=(third,)).reversals == [(third, first)]


def test_without_counters_what_reloads_is_judged_all_the_same() -> None:
    after = capacity_of(FakeStack(counts=False)).overfilled()
    assert (after.stored, after.evicted, after.loaded.loaded) == (None, None, after.fresh)


def test_without_logs_only_the_lines_are_not_judged() -> None:
    after = capacity_of(FakeStack(failures=None)).overfilled()  # type: ignore[arg-type]
    assert after.loaded.loaded == after.fresh
    with pytest.raises(NotJudged, match="no logs"):
        after.logged_failures()


def test_what_ended_is_reported() -> None:
    after = capacity_of(FakeStack(died={"e": "engine e ended"})).overfilled()
    assert after.gone == ("engine e ended",)


def test_a_request_that_fails_is_a_fault_and_the_part_can_be_done_again() -> None:
    def dies(stack: FakeStack) -> None:
        if len(stack.asked) == 20:
            raise NoAnswer("HTTP 500")

    capacity = capacity_of(FakeStack(after=dies))
    with pytest.raises(NoAnswer):
        capacity.half()
    half = capacity.half()
    assert half.sources.loaded == half.expected
    assert not capacity.order().reversals


def test_a_tier_that_takes_too_long_is_told_after_a_few_prompts() -> None:
    stack = FakeStack(FakeTier(chunks=6400))
    stack.context.deadlines = Deadlines(filling_s=0.1)
    stack.after = lambda _: __import__("time").sleep(0.002)
    with pytest.raises(
        NotJudged, match=r"51200 tokens have to be sent to a CPU tier of 102400 tokens, .* --deadline filling="
    ):
        capacity_of(stack).half()
    assert len(stack.asked) < 128 / 2


def test_twice_may_take_too_long_where_half_does_not() -> None:
    stack = FakeStack(FakeTier(chunks=640))
    stack.context.deadlines = Deadlines(filling_s=3600)
    capacity = capacity_of(stack)
    assert capacity.half().short == ""
    stack.context.deadlines = Deadlines(filling_s=1e-9)
    for part in (capacity.order, capacity.overfilled, capacity.half_when_full):
        with pytest.raises(NotJudged, match="20480 tokens have to be sent"):
            part()


def test_a_tier_of_a_few_chunks_is_not_judged() -> None:
    with pytest.raises(NotJudged, match="holds 31 chunks of 16 tokens, too few"):
        capacity_of(FakeStack(FakeTier(chunks=63))).half()


def test_a_deployment_of_others_is_left_alone() -> None:
    stack = FakeStack(context=Context(allowed=frozenset(("observes", "asks"))))
    with pytest.raises(NotJudged, match="--allow evict"):
        capacity_of(stack).half()
    assert stack.asked == []


@pytest.mark.parametrize(("longest", "fresh"), [(4 * CHUNK, 3), (4 * CHUNK + 1, 4), (4000, 4)])
def test_the_fresh_prompt_is_one_that_the_model_takes(longest: int, fresh: int) -> None:
    after = Capacity(FakeStack(), Prompts(1, "capacity", CHUNK, longest)).overfilled()  # type: ignore[arg-type]
    assert (after.fresh, after.loaded.loaded) == (fresh * CHUNK, fresh * CHUNK)
