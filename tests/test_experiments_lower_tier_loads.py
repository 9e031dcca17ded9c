"""Tiers below the CPU tier, on a stack whose tiers forget, lie and fail as it is chosen here."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.catalogue import limits
from fixtures.core.errors import NotApplicable, NotJudged
from fixtures.core.units import MIB
from fixtures.evidence.adapters import Adapter
from fixtures.experiments import latency, lower_tier_loads
from fixtures.experiments.lower_tier_loads import (
    Below,
    measure_below,
    measure_lengths_below,
    reload_evicted,
    restart,
)
from tests.fakes.lower_tier_stack import CAPACITY, CHUNK, FakeStack, control, source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def evicted(stack: Any) -> Any:
    return reload_evicted(stack, source(), control(stack))


@pytest.mark.parametrize(("holds", "late"), [(CAPACITY // CHUNK, False), (CAPACITY // CHUNK - 9, True)])
def test_what_was_evicted_is_loaded_from_below_and_counted_there(holds: int, late: bool) -> None:
    stack = FakeStack(holds=holds, counts_late=late)
    found = evicted(stack)
    assert len(found) == lower_tier_loads.READ
    for one in found:
        assert one.again.sources.loaded == one.prompt.whole_chunk_tokens
        assert one.counts == dict.fromkeys(("lookups", "loads", "log"), one.prompt.whole_chunk_tokens)
        one.check_evicted()
    assert stack.written * CHUNK >= 4 * CAPACITY
    assert {"emptied", "pages"} <= set(stack.did)


@pytest.mark.parametrize(
    ("times", "in_process", "wanted"), [(6, False, 6400), (6.5, False, None), (4.3, True, 4551), (4.5, True, None)]
)
def test_a_tier_below_has_to_be_large_enough_for_what_is_sent(
    times: float, in_process: bool, wanted: int | None
) -> None:
    """Seen: a Redis of 384 MiB, of which LMCache evicted the oldest prompts while 256 MiB were sent."""
    stack = FakeStack()
    if in_process:
        stack.engine.cache_server = None
    stack.record.kv_bytes_per_token = MIB
    small = Adapter("resp", "remote", capacity_bytes=int(times * CAPACITY) * MIB)
    stack.tier.below.required = lambda: (small,)
    if wanted is None:
        assert evicted(stack)
    else:
        said = rf"the resp tier of .* MiB may evict .*, 4096 MiB: make it larger than {wanted} MiB"
        with pytest.raises(NotJudged, match=said):
            evicted(stack)


@pytest.mark.parametrize(("before", "after"), [(3, 7), (0, None), (None, 0)])
def test_what_a_full_store_may_have_evicted_is_not_blamed_on_it(before: int | None, after: int | None) -> None:
    """Seen: a Redis at its maxmemory, which samples a few entries, evicted prompts of the newer half."""
    with pytest.raises(NotJudged, match="evicted 4 of its entries" if before else "cannot be read"):
        evicted(FakeStack(writes=False, store_evictions=(before, after)))
    assert evicted(FakeStack(store_evictions=(before, after))), "nothing is missing"


def test_a_tier_that_is_full_after_a_while_gives_back_the_first_prompts_only() -> None:
    """Seen with a folder on a file system of 64 MiB: the oldest prompts were there, and they alone were asked again."""
    found = evicted(FakeStack(room=CAPACITY // CHUNK))
    assert [bool(one.again.sources.loaded) for one in found] == [True, False, False]


def test_a_tier_that_holds_nothing_gives_nothing_back() -> None:
    found = evicted(FakeStack(writes=False))
    assert [one.again.sources.loaded for one in found] == [0] * lower_tier_loads.READ
    for one in found:
        one.check_evicted()


def test_counts_that_contradict_each_other_are_told_apart() -> None:
    (one, *_) = evicted(FakeStack(counted_above=True))
    whole = one.prompt.whole_chunk_tokens
    assert one.counts == {"lookups": 0, "loads": whole, "log": 0}
    one.check_evicted()


def test_what_the_cpu_tier_may_hold_still_proves_nothing() -> None:
    with pytest.raises(NotJudged, match="counts only 0 chunks as evicted"):
        evicted(FakeStack(never_evicts=True))
    with pytest.raises(NotJudged, match="evicts by NOOP"):
        evicted(FakeStack(policy="NOOP"))
    (one, *_) = evicted(FakeStack())
    with pytest.raises(NotJudged, match="still held a part"):
        lower_tier_loads.Evicted(one.prompt, one.expected, one.again, {"lookups": CHUNK, "log": CHUNK}).check_evicted()


def test_the_way_below_is_cleared_or_flooded() -> None:
    stack = FakeStack()
    below = Below(stack, source())  # type: ignore[arg-type]
    prompt = source("p").unique(chunks=4)
    assert below.store(prompt).sources.computed == prompt.tokens
    below.clear_above()
    assert (stack.cpu, stack.gpu) == ([], set())
    assert "forgot" in stack.did
    assert stack.complete(prompt).sources.from_below == 4 * CHUNK
    stack.clears, sent = False, stack.sent
    below.clear_above()
    assert stack.sent - sent == lower_tier_loads.SHARE + 1, "one more than it holds"
    assert stack.complete(prompt).sources.from_below == 4 * CHUNK


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def all_killed(stack: FakeStack, parts: Sequence[Any]) -> Iterator[Any]:
        yield SimpleNamespace(acted=1.0, events=[], timeline="")
        for part in parts:
            stack.restarted(part.name)

    monkeypatch.setattr(lower_tier_loads, "all_killed", all_killed)
    monkeypatch.setattr(lower_tier_loads, "first_reload", lambda stack, _: 3.0 if stack.serves else None)
    monkeypatch.setattr(limits, "DEGRADED_S", 0.01)


@pytest.mark.usefixtures("kills")
@pytest.mark.parametrize("engine_too", [False, True])
def test_what_was_written_below_survives_a_restart(engine_too: bool) -> None:
    stack = FakeStack()
    found = restart(stack, source(), control(stack), engine_too=engine_too)  # type: ignore[arg-type]
    assert [one.sources.loaded for _, one in found.kept] == [lower_tier_loads.CHUNKS * CHUNK] * lower_tier_loads.KEPT
    assert len(found.interrupted) == lower_tier_loads.KEPT
    found.check_from_below()
    assert [name for name in stack.did if name in {"kv", "e"}] == ["kv", *(["e"] if engine_too else [])]
    assert found.serves_s == 2.0


@pytest.mark.usefixtures("kills")
def test_what_a_restart_loses_is_seen_and_what_serves_nothing_is_not_judged() -> None:
    stack = FakeStack(keeps=False, notices=False)
    found = restart(stack, source(), control(stack), engine_too=False)  # type: ignore[arg-type]
    assert [one.sources.loaded for _, one in found.kept] == [0] * lower_tier_loads.KEPT
    found.check_from_below()
    stack = FakeStack(keeps=False, store_evictions=(0, 1))
    with pytest.raises(NotJudged, match="evicted 1 of its entries"):
        restart(stack, source(), control(stack), engine_too=False)  # type: ignore[arg-type]
    stack = FakeStack(counted_above=True)
    with pytest.raises(NotJudged, match="did not come from below"):
        restart(stack, source(), control(stack), engine_too=False).check_from_below()  # type: ignore[arg-type]
    stack = FakeStack(serves=False)
    with pytest.raises(NotJudged, match="nothing was stored and loaded"):
        restart(stack, source(), control(stack), engine_too=False)  # type: ignore[arg-type]


def test_pairs_count_only_where_the_reload_came_from_below() -> None:
    stack = FakeStack()
    found = measure_below(stack, source())  # type: ignore[arg-type]
    assert stack.did[0] == "emptied", (
        "a full Redis evicts what is to be reloaded, and LMCache in process then answers 500"
    )
    assert found.ratio.high < 0.9
    assert found.transfer_s == pytest.approx(found.loaded_tokens * (1e-9 + 1e-12))
    with pytest.raises(NotJudged, match="no repeat was loaded"):
        measure_below(FakeStack(writes=False), source())  # type: ignore[arg-type]


def test_on_a_gpu_pairs_are_made_at_several_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "CURVE_FROM_TOKENS", 4 * CHUNK)
    stack = FakeStack()
    with pytest.raises(NotApplicable, match="on a CPU"):
        measure_lengths_below(stack, source())  # type: ignore[arg-type]
    stack.record.device = "cuda"
    found = measure_lengths_below(stack, source())  # type: ignore[arg-type]
    assert stack.did[0] == "emptied"
    assert [one.loaded_tokens for one in found] == [4 * CHUNK, 8 * CHUNK, 16 * CHUNK, 32 * CHUNK]
    assert all(one.room and len(one.trials) >= 6 and one.moved_bytes == one.loaded_tokens for one in found)
    assert all(one.gb_per_s.median > 0 for one in found)
    latency.check_room(found)

    def unknown(_: int) -> float:
        raise NotJudged("no O_DIRECT")

    stack.tier.below.read_s = unknown
    for one in measure_lengths_below(stack, source("again")):  # type: ignore[arg-type]
        assert (one.transfer_s, one.room, one.no_link, len(one.trials)) == (None, False, "no O_DIRECT", 6)
        assert one.ratio.enough, "an interval is given, and nothing is claimed"
        with pytest.raises(NotJudged, match=r"at no length up to \d+ tokens has a reload room to win"):
            latency.check_room([one])


def test_in_process_only_the_engine_is_restarted() -> None:
    stack = FakeStack()
    stack.engine.cache_server = None
    with pytest.raises(NotApplicable, match="in the other case"):
        restart(stack, source(), control(stack), engine_too=False)  # type: ignore[arg-type]
