"""Prompts that fill a CPU tier beyond its size: how many, how long, and when there is room for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.experiments import overfilling
from fixtures.experiments.overfilling import Overfilling, StoredPrompt, evenly
from fixtures.instruments.prompts import Prompts
from tests.fakes.tier_of_a_size import CHUNK, FakeStack, FakeTier, Key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fixtures.evidence.metrics import CacheCounters


def test_a_tier_that_evicts_in_the_background_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """LMCache's server looks once a second: an engine that stores faster finds no room."""
    monkeypatch.setattr(overfilling, "ROOM_S", 5.0)
    stack = FakeStack(FakeTier(evicts=False))
    pages = 0
    counters = stack.tier.store

    def store(keys: Iterable[Key]) -> None:
        counters(keys)

    stack.tier.store = store  # type: ignore[method-assign]
    filling = Overfilling(stack, Prompts(1, "x", CHUNK, 4000))  # type: ignore[arg-type]
    real = filling.counters

    def read() -> CacheCounters | None:
        nonlocal pages
        pages += 1
        if pages % 3 == 0:  # the tier evicts, a moment later
            del stack.tier.keys[:20]
        return real()

    monkeypatch.setattr(filling, "counters", read)
    filling.send_working_set()
    while filling.tokens < filling.enough:
        filling.send_batch()
    assert stack.tier.stored == 2 * 64, "every chunk found room"


@pytest.mark.parametrize(("count", "expected"), [(2, [0, 1]), (6, [0, 1, 2, 3, 4, 5]), (11, [0, 2, 4, 6, 8, 10])])
def test_what_is_read_is_spread_over_all_ages(count: int, expected: list[int]) -> None:
    source = Prompts(1, "x", CHUNK, 4000)
    sent = [StoredPrompt(source.unique(1), step) for step in range(count)]
    assert [one.last_used for one in evenly(sent, 6)] == expected


@pytest.mark.parametrize(
    ("tier", "longest", "chunks", "working_set", "batch"),
    [
        (64, 4000, 1, 32, 4),
        (300, 4000, 1, 150, 19),
        (1111, 4000, 4, 138, 18),
        (20_000, 4000, 78, 128, 16),
        (20_000, 100, 6, 1666, 209),
        (20_000, 160, 9, 1111, 139),
    ],
)
def test_the_working_set_is_half_of_the_tier_in_prompts_that_the_model_takes(
    tier: int, longest: int, chunks: int, working_set: int, batch: int
) -> None:
    """In chunks of 16 tokens; of the last, a prompt of ten chunks and one token would be one token too long."""
    filling = Overfilling(FakeStack(FakeTier(tier)), Prompts(1, "x", CHUNK, longest))  # type: ignore[arg-type]
    assert (filling._chunks, filling.working_set, filling.batch) == (chunks, working_set, batch)
    assert filling.enough == 2 * tier * CHUNK
