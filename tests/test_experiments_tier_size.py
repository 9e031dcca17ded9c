"""A tier below host memory and its size."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.catalogue import limits
from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NotApplicable, NotJudged
from fixtures.experiments import tier_size
from fixtures.subject.contents import Folder
from tests.fakes import lower_tier
from tests.fakes.lower_tier import ENTRY, source, tier_of

fake = lower_tier.fake
quick = lower_tier.quick


def sized(fake: Any, files: int) -> None:
    fake.lower = tier_of("fs_native", fake.server, Folder(fake.folder), capacity_bytes=files * ENTRY)


def test_a_tier_that_stays_within_its_size(fake: Any) -> None:
    sized(fake, 32)
    fake.keeps = 26
    found = tier_size.tier_size(fake, source(), restart=False)
    assert found.share == 26 / 32
    assert found.sent_bytes == 64 * ENTRY
    found.check_filled()


def test_what_has_arrived_is_not_waited_for(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sized(fake, 32)
    fake.keeps = 26
    monkeypatch.setattr(limits, "TIER_SETTLES_S", 10.0)
    begin = time.monotonic()
    tier_size.tier_size(fake, source(), restart=False)
    assert time.monotonic() - begin < 10.0


def test_a_tier_that_grows_beyond_its_size_is_seen_before_twice_as_much_was_sent(fake: Any) -> None:
    sized(fake, 32)
    found = tier_size.tier_size(fake, source(), restart=False)
    assert found.share > 1
    assert found.sent_bytes < 64 * ENTRY


def test_a_tier_that_forgets_at_its_restart(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sized(fake, 32)
    fake.keeps = 26

    def away(*_: Any) -> bool:
        fake.keeps = 50
        return True

    monkeypatch.setattr(tier_size, "renew", away)
    assert tier_size.tier_size(fake, source(), restart=True).share > 1


@pytest.mark.parametrize(("left", "sent"), [(26, 26 + 32), (15, 64), (0, 64)])
def test_what_an_earlier_case_has_left_is_not_sent_again_before_the_restart(
    fake: Any, monkeypatch: pytest.MonkeyPatch, left: int, sent: int
) -> None:
    monkeypatch.setattr(tier_size, "renew", lambda *_: True)
    sized(fake, 32)
    fake.keeps = 26
    for at in range(left):
        (fake.folder / f"left-{at}.data").write_bytes(bytes(ENTRY))
    found = tier_size.tier_size(fake, source(), restart=True)
    assert found.sent_bytes == sent * ENTRY
    assert found.share == 26 / 32
    found.check_filled()


def test_what_does_not_come_into_the_tier_was_not_sent_to_it(fake: Any) -> None:
    sized(fake, 32)
    fake.takes = lambda: False
    with pytest.raises(NotJudged, match="none of 4 fresh prompts"):
        tier_size.tier_size(fake, source(), restart=False)
    fake.takes = lambda: fake.asked % 4 > 0
    fake.keeps = 26
    assert tier_size.tier_size(fake, source(), restart=False).sent_bytes == 66 * ENTRY


def test_sizes_that_decide_nothing(fake: Any) -> None:
    with pytest.raises(NotApplicable, match="no size is configured"):
        tier_size.tier_size(fake, source(), restart=False)
    sized(fake, 32)
    fake.keeps = 4
    with pytest.raises(NotJudged, match="its bound is not known"):
        tier_size.tier_size(fake, source(), restart=False).check_filled()
    fake.context.deadlines = Deadlines(filling_s=0.0)
    with pytest.raises(NotJudged, match="--deadline filling"):
        tier_size.tier_size(fake, source(), restart=False)


@pytest.mark.parametrize(
    ("entries", "above", "batch"),
    [
        (32, None, (4, 1)),
        (256, None, (4, 8)),
        (1024, None, (16, 8)),
        (8, None, (1, 1)),
        (32, 8, (2, 1)),
        (32, 4, (1, 1)),
    ],
    ids=["four", "longer", "longest", "one", "as-the-cpu-tier-takes", "little-above"],
)
def test_a_batch_is_an_eighth_of_the_tier_and_a_quarter_of_the_one_above(
    fake: Any, entries: int, above: int | None, batch: tuple[int, int]
) -> None:
    """In entries of one chunk; the prompts of a batch, and the chunks of each."""
    sized(fake, entries)
    fake.tier.tokens = lambda: None if above is None else above * lower_tier.CHUNK
    filling = tier_size._Filling(fake, source(), fake.lower, entries * ENTRY, ENTRY // lower_tier.CHUNK)
    assert (filling._count, filling._chunks) == batch


@pytest.mark.parametrize("allowed_s", [29.0, 30.0])
def test_too_little_time_is_told_with_what_would_do(
    fake: Any, monkeypatch: pytest.MonkeyPatch, allowed_s: float
) -> None:
    """Of 64 entries four come in 2 s: 60 more take 30 s."""
    sized(fake, 32)
    fake.keeps = 26
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(tier_size, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    fake.context.deadlines = Deadlines(filling_s=allowed_s)
    if allowed_s == 30.0:
        assert tier_size.tier_size(fake, source(), restart=False).sent_bytes == 64 * ENTRY
        return
    said = r"24576000 more bytes .* of 13107200 bytes, which would take 30 s; at most 29 s .* --deadline filling=45, "
    with pytest.raises(NotJudged, match=said):
        tier_size.tier_size(fake, source(), restart=False)
