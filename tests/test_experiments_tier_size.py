"""A tier below host memory and its size."""

from __future__ import annotations

import time
from typing import Any

import pytest

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
    monkeypatch.setattr(tier_size, "SETTLES_S", 10.0)
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


def test_what_does_not_come_into_the_tier_was_not_sent_to_it(fake: Any) -> None:
    sized(fake, 32)
    fake.takes = lambda: False
    with pytest.raises(NotJudged, match="nothing of 4 fresh prompts"):
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
