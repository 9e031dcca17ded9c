"""Tiers below host memory that are damaged, away or too small, on a stack whose cache is a folder."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NoAnswer, NotApplicable, NotJudged, StackError, SubjectFault
from fixtures.core.ports import HOST
from fixtures.core.waiting import poll
from fixtures.evidence.adapters import Adapter
from fixtures.evidence.prometheus import Samples
from fixtures.experiments import recovery, tier_damage, tier_disruption, tier_outage, tier_size
from fixtures.experiments.losing import Compared
from fixtures.experiments.tier_disruption import disrupted
from fixtures.instruments.prompts import Prompt, Prompts
from fixtures.instruments.response import Response
from fixtures.subject.contents import Below, Folder, Keys
from fixtures.subject.exchange import Exchange, TokenSources
from tests.redis_server import redis_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHUNK, ENTRY = 256, 400 * 1024


def tier_of(
    kind: str, server: Any, contents: Folder | Keys, store: Any = None, capacity_bytes: int | None = None
) -> Below:
    return Below(Adapter(kind, None, capacity_bytes=capacity_bytes), server, contents, store)


@dataclass
class FakeStack:
    """An engine above a cache server that keeps one file for each chunk; ``checks`` says what it makes of a file."""

    folder: Path
    checks: Callable[[bytes, bytes], bool] = lambda got, was: got == was
    """Whether content counts as that which was stored."""
    fails: Callable[[], SubjectFault | None] = lambda: None
    takes: Callable[[], bool] = lambda: True
    """Whether a chunk is stored."""
    ttft_s: float = 0.1
    keeps: int = 1 << 30
    """Files that the tier keeps."""
    said: str = ""
    stored: dict[str, bytes] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    asked: int = 0

    def __post_init__(self) -> None:
        log = SimpleNamespace(position=lambda: 0, text=lambda _: self.said)
        server = SimpleNamespace(name="kv-0", log=None, process=object(), argv=())
        self.server = SimpleNamespace(
            name="kv-0", server=server, log=log, clear=lambda: None, samples=lambda: Samples({}), status=dict
        )
        self.engine = SimpleNamespace(name="engine-0", cache_server=self.server)
        self.context = SimpleNamespace(
            permit=lambda _: None,
            deadlines=Deadlines(death_s=0.0, stored_s=0.0),
            step=lambda _: contextlib.nullcontext(),
        )
        self.health = SimpleNamespace(
            gone=lambda: dict(self.gone),
            explain=lambda _: None,
            expecting=lambda _: contextlib.nullcontext(),
            renewed=lambda _: None,
        )
        self.limits: list[int | None] = []
        self.operator = SimpleNamespace(limit_files=lambda _, size: self.limits.append(size), start=lambda _: None)
        self.chunk_tokens, self.kv_bytes_per_token = CHUNK, ENTRY // CHUNK
        self.tier = SimpleNamespace(tokens=lambda: None)
        self.lower = tier_of("fs", self.server, Folder(self.folder))

    def kv_shape(self, _: Any) -> Any:
        return SimpleNamespace(keys_per_chunk=1)

    def clear_prefix_cache(self) -> None:
        pass

    def names(self, prompt: Prompt) -> list[str]:
        return [f"{hash(prompt.ids[: (at + 1) * CHUNK]):x}.data" for at in range(prompt.whole_chunk_tokens // CHUNK)]

    def complete(self, prompt: Prompt, *_: Any, **__: Any) -> Exchange:
        self.asked += 1
        if (fault := self.fails()) is not None:
            raise fault
        loaded = 0
        for name in self.names(prompt):
            path = self.folder / name
            if name in self.stored and path.exists() and self.checks(path.read_bytes(), self.stored[name]):
                loaded += CHUNK
            elif self.takes() and os.access(self.folder, os.F_OK):
                self.stored.setdefault(name, os.urandom(8) * (ENTRY // 8))
                path.write_bytes(self.stored[name])
                for old in sorted(self.folder.glob("*.data"), key=lambda one: one.stat().st_mtime_ns)[: -self.keeps]:
                    old.unlink()
        response = Response(200, {}, "", total_s=0.2, content_s=(self.ttft_s * prompt.tokens / CHUNK,))
        return Exchange(prompt, {}, response, "engine-0", TokenSources(prompt.tokens - loaded, 0, loaded))

    one_of_several = complete

    def complete_concurrently(self, prompts: list[Prompt], *, at_once: int) -> None:
        del at_once
        for prompt in prompts:
            self.complete(prompt)


def control(stack: FakeStack) -> Any:
    return SimpleNamespace(
        answer=lambda prompt, _: stack.complete(prompt),
        complete=lambda prompt, _: stack.complete(prompt),
        assert_same=lambda *_: None,
        logprobs=5,
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "BETWEEN_S", 0.0)
    monkeypatch.setattr(tier_outage, "TOLD_S", 0.0)
    monkeypatch.setattr(tier_size, "SETTLES_S", 0.0)
    monkeypatch.setattr(tier_disruption, "STOPPED_S", 0.05)
    for module in (tier_damage, tier_outage):
        monkeypatch.setattr(module, "renew", lambda *_: True)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeStack:
    (tmp_path / "below").mkdir()
    made = FakeStack(tmp_path / "below")
    for module in (tier_damage, tier_outage, tier_size):
        monkeypatch.setattr(module, "below", lambda _: made.lower)
    return made


def source() -> Prompts:
    return Prompts(1, "tiers", CHUNK, 8190)


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
        pytest.raises(StackError, match="are as before"),
        tier_damage.damaged(Deaf(tmp_path), ["a.data"], "altered", ["b"]),
    ):
        pass


# --- outages ----------------------------------------------------------------------------------------------------------
def outage(fake: Any, state: tier_disruption.State) -> tier_outage.TierOutage:
    return tier_outage.tier_outage(fake, source(), control(fake), state)


def test_a_folder_that_is_gone_costs_nothing(fake: Any) -> None:
    fake.said = "[2026-11-29 22:05:02,785] LMCache ERROR: FSL2Adapter failed to store x (a.py:1:a)"
    found = outage(fake, "gone")
    assert (found.lost, found.ended, found.stalls) == (0, (), 0)
    assert found.told == ("FSL2Adapter failed to store x",)
    assert len(found.compared) == 2
    assert found.recovered_s is not None
    assert "loaded from it" in found.timeline
    found.check_decided()


def test_what_is_late_ends_the_questions(fake: Any) -> None:
    away = fake.folder.with_name("below.away")
    fake.fails = lambda: NoAnswer("no answer within 30 s", overdue=True) if away.exists() else None
    found = outage(fake, "gone")
    assert found.late
    assert set(found.late) == {"no answer within 30 s"}
    assert found.recovered_s is None
    assert not found.compared


def test_a_cache_server_that_ends_is_seen(fake: Any) -> None:
    fake.gone = {"kv-0": "cache server kv-0 ended during the run: full"}
    assert outage(fake, "gone").ended == ("cache server kv-0 ended during the run: full",)


def test_a_tier_that_is_never_used_again(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixtures.catalogue.limits.RECOVERED_S", -1.0)
    failed: list[bool] = []
    away = fake.folder.with_name("below.away")
    fake.takes = lambda: not failed and not (away.exists() and failed.append(True))
    found = outage(fake, "gone")
    assert found.recovered_s is None
    assert not found.told, "nothing was logged"


def test_a_full_tier_that_takes_files_is_not_judged(fake: Any) -> None:
    with pytest.raises(NotJudged, match="so it was not"):
        outage(fake, "full")
    assert fake.limits == [tier_disruption.LOG_ROOM_BYTES, None]


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

    with pytest.raises(ZeroDivisionError), disrupted(fake, fake.lower, state, ()):
        see()
    assert fake.folder.stat().st_mode == mode
    (fake.folder / "b.data").write_bytes(b"new")
    assert sorted(one.name for one in fake.folder.iterdir()) == ["a.data", "b.data"]


def test_entries_that_are_smaller_than_the_log_cannot_be_kept_out(fake: Any) -> None:
    (fake.folder / "a.data").write_bytes(b"small")
    with pytest.raises(NotJudged, match="no larger than the log"), disrupted(fake, fake.lower, "full", ()):
        pass


@pytest.mark.parametrize("state", ["slow", "frozen"])
def test_a_slow_folder_that_nobody_reads_was_not_slow(fake: Any, state: tier_disruption.State) -> None:
    (fake.folder / "a.data").write_bytes(b"content")
    with pytest.raises(NotJudged, match="nothing was read"), disrupted(fake, fake.lower, state, ["a.data"]):
        pass
    assert (fake.folder / "a.data").read_bytes() == b"content"


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Keys]:
    with redis_server(tmp_path, "--maxmemory", "1gb") as port:
        yield Keys(HOST, port)


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_store_refuses_writes_and_takes_them_again(fake: Any, keys: Keys, state: tier_disruption.State) -> None:
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
    tier = tier_of("resp", fake.server, Keys(HOST, 1), SimpleNamespace(name="kv-store"))
    for state in ("gone", "frozen"):
        with disrupted(fake, tier, state, ()):
            done.append("|")
    assert done == ["kill", "|", "start", "freeze", "|", "resume"]
    done.clear()
    with disrupted(fake, tier, "slow", ()):
        poll(lambda: done.count("freeze"), lambda count: count >= 2, 5.0)
    assert done.count("freeze") >= 2
    assert done[-1] == "resume"


# --- sizes ------------------------------------------------------------------------------------------------------------
def sized(fake: Any, files: int) -> None:
    fake.lower = tier_of("fs_native", fake.server, Folder(fake.folder), capacity_bytes=files * ENTRY)


def test_a_tier_that_stays_within_its_size(fake: Any) -> None:
    sized(fake, 32)
    fake.keeps = 26
    found = tier_size.tier_size(fake, source(), restart=False)
    assert found.share == 26 / 32
    assert found.sent_bytes == 64 * ENTRY
    found.check_filled()


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
