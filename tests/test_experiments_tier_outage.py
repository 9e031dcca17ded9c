"""A tier below host memory that is gone, slow, full or refuses."""

from __future__ import annotations

import contextlib
import functools
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NoAnswer, NotJudged, SubjectFault
from fixtures.core.ports import HOST
from fixtures.core.waiting import poll
from fixtures.evidence.prometheus import Samples
from fixtures.experiments import recovery, tier_disruption, tier_outage, tier_size
from fixtures.experiments.tier_disruption import disrupted
from fixtures.subject.contents import RedisKeys
from fixtures.subject.engine import Engine
from tests.fakes import lower_tier
from tests.fakes.lower_tier import ENTRY, control, source, tier_of
from tests.redis_server import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fixtures.subject.exchange import Exchange

fake = lower_tier.fake
quick = lower_tier.quick


# --- outages ----------------------------------------------------------------------------------------------------------
def outage(fake: Any, state: tier_disruption.State) -> tier_outage.TierOutage:
    return tier_outage.tier_outage(fake, source(), control(fake), state)


def test_a_folder_that_is_gone_costs_nothing(fake: Any) -> None:
    fake.said = "[2026-11-29 22:05:02,785] LMCache ERROR: FSL2Adapter failed to store x (a.py:1:a)"
    found = outage(fake, "gone")
    assert (found.lost, found.ended, found.stalls) == (0, (), 0)
    assert found.reports == ("FSL2Adapter failed to store x",)
    assert len(found.compared) == 2
    assert found.asked == tier_outage.LOADS * (1 + 2 * tier_outage.MISSES) + 1
    assert found.waits_s == pytest.approx([0.1 * (513 - 3 * 255) / 256] * len(found.waits_s))
    assert "loaded from it" in found.timeline
    found.check_decided()


def in_process(fake: Any) -> Engine:
    """An engine with LMCache in its process, which keeps nothing of what passes through its CPU tier, above the same folder."""
    engine = Engine.__new__(Engine)
    engine.name, engine.log = "engine-0", fake.server.log
    engine.samples = lambda: Samples({})  # type: ignore[method-assign]
    fake.engine.cache_server, fake.tier.keeps = None, False
    fake.lower = tier_of("local_disk", engine, fake.lower.contents)
    return engine


def test_of_a_tier_in_process_its_engine_tells(fake: Any) -> None:
    in_process(fake)
    fake.said = "[2026-11-29 22:05:02,785] LMCache WARNING: File not found on disk: x (local_disk_backend.py:1:a)"
    found = outage(fake, "gone")
    assert (found.lost, found.reports) == (0, ("File not found on disk: x",))
    assert found.recovered_s is not None


def test_a_tier_in_process_is_renewed_with_its_engine(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    @contextlib.contextmanager
    def killed(_: Any, part: Any) -> Iterator[None]:
        done.append(part.name)
        yield

    monkeypatch.setattr(recovery, "killed", killed)
    monkeypatch.setattr(recovery, "first_reload", lambda *_: 1.0)
    assert recovery.renew(fake, source(), in_process(fake))
    assert done == ["engine-0"]


@pytest.mark.parametrize("state", ["gone", "read-only"])
def test_what_is_used_again_needs_no_restart(
    fake: Any, monkeypatch: pytest.MonkeyPatch, state: tier_disruption.State
) -> None:
    """A hundred seconds after the tier is back; a tier that holds entries already and takes none is not one that takes some."""

    def writable() -> bool:
        try:
            (fake.folder / "try").touch()
            (fake.folder / "try").unlink()
        except OSError:
            return False
        return True

    fake.takes = writable
    monkeypatch.setattr(tier_outage, "_used_again", lambda *_: time.monotonic() + 100)
    monkeypatch.setattr(tier_outage, "renew", lambda *_: pytest.fail("it was used again"))
    found = outage(fake, state)
    assert found.lost == 0
    assert found.recovered_s == pytest.approx(100, abs=50)


@pytest.mark.parametrize("why", ["never", "late", "ended"])
def test_only_what_is_not_used_again_by_itself_is_restarted(
    fake: Any, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    restarts: list[Any] = []
    monkeypatch.setattr(tier_outage, "_used_again", lambda *_: None)
    monkeypatch.setattr(tier_outage, "renew", lambda *_: restarts.append(_))
    away = fake.folder.with_name("below.away")
    if why == "late":
        fake.fails = lambda: NoAnswer("no answer within 30 s", overdue=True) if away.exists() else None
    fake.gone = {"kv-0": "it ended"} if why == "ended" else {}
    assert outage(fake, "gone").recovered_s is None
    assert len(restarts) == (why == "never")


@pytest.mark.parametrize("late", [True, False])
def test_after_a_late_answer_the_tier_is_waited_for_as_well(
    fake: Any, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """The next test needs it; the time until then is no figure of an outage that was not measured to its end."""
    waited: list[Any] = []
    monkeypatch.setattr(tier_outage, "_used_again", lambda *_: waited.append(_) or time.monotonic())
    away = fake.folder.with_name("below.away")
    fake.fails = lambda: NoAnswer("no answer within 30 s", overdue=True) if late and away.exists() else None
    assert (outage(fake, "gone").recovered_s is None) == late
    assert len(waited) == 1


def test_what_is_late_ends_the_questions(fake: Any) -> None:
    away = fake.folder.with_name("below.away")
    fake.fails = lambda: NoAnswer("no answer within 30 s", overdue=True) if away.exists() else None
    found = outage(fake, "gone")
    assert found.asked == found.lost == len(found.late) > 0
    assert set(found.late) == {"no answer within 30 s"}
    assert found.recovered_s is None
    assert not found.compared


def test_a_cache_server_that_ends_is_seen(fake: Any) -> None:
    fake.gone = {"kv-0": "cache server kv-0 ended during the run: full"}
    assert outage(fake, "gone").ended == ("cache server kv-0 ended during the run: full",)


def test_a_tier_that_is_never_used_again(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixtures.catalogue.limits.TIER_RECOVERED_S", -1.0)
    failed: list[bool] = []
    away = fake.folder.with_name("below.away")
    fake.takes = lambda: not failed and not (away.exists() and failed.append(True))
    found = outage(fake, "gone")
    assert found.recovered_s is None
    assert not found.reports, "nothing was logged"


def test_a_full_tier_that_takes_files_is_not_judged(fake: Any) -> None:
    with pytest.raises(NotJudged, match="so this state had no effect"):
        outage(fake, "full")
    assert fake.limits == [tier_disruption.LOG_ROOM_BYTES, None]


def test_the_beginning_of_a_file_did_not_come_into_a_full_tier(fake: Any) -> None:
    (fake.folder / "kept.data").write_bytes(bytes(ENTRY))
    (fake.folder / "begun-before.data").write_bytes(bytes(ENTRY // 4))
    held, own = fake.lower.contents.sizes(), ("kept.data",)
    (fake.folder / "begun.data").write_bytes(bytes(ENTRY // 2))
    assert tier_outage._taken(fake.lower, held, own) == 0
    (fake.folder / "whole.data").write_bytes(bytes(ENTRY))
    assert tier_outage._taken(fake.lower, held, own) == 1


def test_what_an_earlier_case_left_half_written_does_not_say_how_large_an_entry_is(fake: Any) -> None:
    (fake.folder / "begun-before.data").write_bytes(b"small")
    (fake.folder / "kept.data").write_bytes(bytes(ENTRY))
    with disrupted(fake, fake.lower, "full", ("kept.data",)):
        assert fake.limits == [tier_disruption.LOG_ROOM_BYTES]


@pytest.mark.parametrize("measures", [True, False])
def test_a_slow_tier_is_told_by_loads_that_were_slower_than_the_one_before(
    fake: Any, monkeypatch: pytest.MonkeyPatch, measures: bool
) -> None:
    """A histogram that counts loads, as it does at any time, tells nothing by itself."""
    engine, took = in_process(fake), list[float]()
    complete = fake.complete

    def timed(*words: Any, **options: Any) -> Exchange:
        begin = time.perf_counter()
        found: Exchange = complete(*words, **options)
        took.append(time.perf_counter() - begin if measures else 0.1)
        return found

    for way in ("complete", "one_of_several"):
        monkeypatch.setattr(fake, way, timed)
    fake.context.deadlines = Deadlines(stored_in_process_s=0.1)
    name = "lmcache:time_to_retrieve"
    engine.samples = lambda: Samples.parse(f"{name}_count {len(took)}\n{name}_sum {sum(took)}\n")  # type: ignore[method-assign]
    monkeypatch.setitem(
        tier_disruption._OF_FOLDERS, "slow", functools.partial(tier_disruption._folder_late, delay_s=0.2)
    )
    reports = outage(fake, "slow").reports
    assert [one.partition(":")[0] for one in reports] == (["lmcache"] if measures else [])


def test_a_single_stall_decides_nothing(fake: Any) -> None:
    found = outage(fake, "gone")
    assert len(found.waits_s) == tier_outage.LOADS * tier_outage.MISSES
    one = tier_outage.TierOutage(**{**vars(found), "waits_s": (0.1, 2.5, 0.1, 0.1)})
    assert one.stalls == 1
    with pytest.raises(NotJudged, match="single stall"):
        one.check_decided()
    assert tier_outage.TierOutage(**{**vars(found), "waits_s": (2.1, 2.5, 0.1, 0.1)}).stalls == 2


# --- the contexts -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("state", ["read-only", "gone", "full"])
def test_a_folder_is_as_before_also_after_an_error(fake: Any, state: tier_disruption.State) -> None:
    (fake.folder / "a.data").write_bytes(bytes(ENTRY))
    mode = fake.folder.stat().st_mode

    def see() -> None:
        if state == "read-only":
            assert (fake.folder / "a.data").read_bytes() == bytes(ENTRY)
            with pytest.raises(OSError):
                (fake.folder / "b.data").write_bytes(b"new")
        if state == "gone":
            assert not fake.folder.exists()
            fake.folder.mkdir()  # as a program may do that misses it
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), disrupted(fake, fake.lower, state, ("a.data",)):
        see()
    assert fake.folder.stat().st_mode == mode
    (fake.folder / "b.data").write_bytes(b"new")
    assert sorted(one.name for one in fake.folder.iterdir()) == ["a.data", "b.data"]


def test_entries_that_are_smaller_than_the_log_cannot_be_kept_out(fake: Any) -> None:
    (fake.folder / "a.data").write_bytes(b"small")
    with pytest.raises(NotJudged, match="no larger than the log"), disrupted(fake, fake.lower, "full", ("a.data",)):
        pass


@pytest.mark.parametrize("state", ["slow", "frozen"])
def test_a_slow_folder_that_is_not_read_was_not_slow(fake: Any, state: tier_disruption.State) -> None:
    (fake.folder / "a.data").write_bytes(b"content")
    with pytest.raises(NotJudged, match="nothing was read"), disrupted(fake, fake.lower, state, ["a.data"]):
        pass
    assert (fake.folder / "a.data").read_bytes() == b"content"


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[RedisKeys]:
    with redis_server(tmp_path, "--maxmemory", "1gb") as port:
        yield RedisKeys(HOST, port)


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_store_refuses_writes_and_takes_them_again(fake: Any, keys: RedisKeys, state: tier_disruption.State) -> None:
    tier = tier_of("resp", fake.server, keys)
    keys.write("kept", b"content")
    with disrupted(fake, tier, state, ()) as done:
        assert keys.read("kept") == b"content"
        with pytest.raises(SubjectFault):
            keys.write("new", b"content")
    assert done.undone > done.acted > 0
    keys.write("new", b"content")
    assert tier_size.size_of(tier) == 1 << 30, "the store's own limit"


def test_what_happens_to_the_process_of_a_store(fake: Any) -> None:
    done: list[str] = []
    fake.operator = SimpleNamespace(
        **{name: lambda _, name=name: done.append(name) for name in ("kill", "start", "freeze", "resume")}
    )
    tier = tier_of("resp", fake.server, RedisKeys(HOST, 1), SimpleNamespace(name="kv-store"))
    for state in ("gone", "frozen"):
        with disrupted(fake, tier, state, ()):
            done.append("|")
    assert done == ["kill", "|", "start", "freeze", "|", "resume"]
    done.clear()
    with disrupted(fake, tier, "slow", ()):
        poll(lambda: done.count("freeze"), lambda count: count >= 2, 5.0)
    assert done.count("freeze") >= 2
    assert done[-1] == "resume"
