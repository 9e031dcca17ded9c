"""A tier below host memory whose content is damaged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NoAnswer, NotJudged, StackError, SubjectFault
from fixtures.experiments import tier_damage
from fixtures.experiments.outage import Compared
from fixtures.subject.contents import Folder
from tests.fakes import lower_tier
from tests.fakes.lower_tier import CHUNK, control, source

if TYPE_CHECKING:
    from pathlib import Path

fake = lower_tier.fake
quick = lower_tier.quick


def damage(fake: Any, how: tier_damage.Damage) -> tier_damage.Damaged:
    before = {file.name: file.read_bytes() for file in fake.folder.iterdir()}
    found = tier_damage.answer_damaged(fake, source(), control(fake), how)
    after = {file.name: file.read_bytes() for file in fake.folder.iterdir()}
    assert not before
    assert after == fake.stored, "every entry has its content again"
    return found


HOWS: tuple[tier_damage.Damage, ...] = ("removed", "truncated", "swapped", "altered")


@pytest.mark.parametrize("how", HOWS)
def test_damage_that_is_noticed_loads_nothing(fake: Any, how: tier_damage.Damage) -> None:
    found = damage(fake, how)
    assert (found.entries, found.loaded, found.whole) == (4, 0, 4 * CHUNK)
    assert [one.prompt is one.expected.prompt is not one.other.prompt for one in found.compared] == [True] * 4
    assert found.still_served


@pytest.mark.parametrize(("how", "loaded"), [("removed", 0), ("truncated", 0), ("swapped", 4), ("altered", 4)])
def test_a_tier_that_compares_lengths_loads_what_was_altered(fake: Any, how: tier_damage.Damage, loaded: int) -> None:
    fake.checks = lambda got, was: len(got) == len(was)
    assert damage(fake, how).loaded == loaded * CHUNK


def test_altered_content_has_its_length_and_no_infinite_number() -> None:
    import numpy

    kept = numpy.linspace(-2, 2, 64, dtype=numpy.float32).tobytes()
    changed = tier_damage._altered(kept)
    assert len(changed) == len(kept)
    assert changed[0::2] == kept[0::2]
    numbers = numpy.frombuffer(changed, dtype=numpy.float32)
    assert numpy.isfinite(numbers).all()
    assert (numbers != numpy.frombuffer(kept, dtype=numpy.float32)).all()


def test_a_damaged_prompt_that_is_refused_or_never_answered(fake: Any) -> None:
    faults: list[SubjectFault | None] = [None, None, None, SubjectFault("HTTP 400")]
    fake.fails = lambda: faults.pop(0) if faults else None
    assert damage(fake, "altered").refused == "HTTP 400"
    for file in fake.folder.iterdir():
        file.unlink()
    fake.stored.clear()
    faults += [None, None, None, NoAnswer("no answer within 30 s", overdue=True)]
    assert damage(fake, "truncated").late == "no answer within 30 s"


def test_what_was_loaded_unchanged_came_from_elsewhere() -> None:
    def answered(number: int) -> Any:
        return SimpleNamespace(fingerprint=(number,))

    def found(got: int, loaded: int = 1024) -> tier_damage.Damaged:
        compared = Compared(Any, answered(got), answered(1), answered(2))  # type: ignore[arg-type]
        return tier_damage.Damaged("fs tier", 4, loaded, 1024, "", "", (compared,), still_served=True)

    with pytest.raises(NotJudged, match="came from elsewhere"):
        found(1).check_read()
    found(2).check_read()
    found(1, loaded=0).check_read()


def test_a_tier_that_takes_nothing_is_not_judged(fake: Any) -> None:
    fake.takes = lambda: False
    with pytest.raises(NotJudged, match="fewer than the 4"):
        damage(fake, "removed")


def test_a_tier_that_serves_nothing_is_not_judged(fake: Any) -> None:
    fake.checks = lambda *_: False
    with pytest.raises(NotJudged, match="did not serve"):
        damage(fake, "removed")


def test_damage_that_cannot_be_seen_is_an_error(tmp_path: Path) -> None:
    class Deaf(Folder):
        def write(self, entry: str, content: bytes) -> None:
            del entry, content

    (tmp_path / "a.data").write_bytes(b"content")
    with (
        pytest.raises(StackError, match="still read as before"),
        tier_damage.damaged(Deaf(tmp_path), ["a.data"], "altered", ["b"]),
    ):
        pass
