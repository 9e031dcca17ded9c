"""Two lanes, ended tries, and events that come after a test."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.plugin.locks import FINISHED
from lab import history, runner, suite_run
from lab.catalogue import FAULTS, HEALTHY
from lab.grouping import in_groups, in_queues, runs_alone
from lab.lane import Lane
from lab.result import Result
from lab.runner import sources_digest
from lab.seeding_subject import LabError, Subject
from tests.lab_tries import IDS, VERSIONS

if TYPE_CHECKING:
    from pathlib import Path

    from lab.catalogue.model import Fault


def test_the_digest_of_the_sources_is_stable(tmp_path: Path) -> None:
    assert sources_digest(tmp_path) == sources_digest(tmp_path)


def test_two_lanes_run_every_entry_once_and_the_healthy_ones_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[tuple[str, str]] = []

    def run(self: Any, entry: Any) -> Result:
        ran.append((self.name, entry.id))
        time.sleep(0.001)
        return Result(entry.id, unproven="not kept" if entry.id == "stream-cut" else "")

    kept: list[str] = []
    monkeypatch.setattr(Lane, "run", run)
    monkeypatch.setattr(runner.Runner, "compared_with", None)
    monkeypatch.setattr(runner.Runner, "versions", VERSIONS)
    monkeypatch.setattr(runner.Runner, "tries", tmp_path / "tries.jsonl")
    monkeypatch.setattr(runner.Runner, "_known", lambda _, entry: Result(entry.id) if entry.id == "pins-kept" else None)
    monkeypatch.setattr(runner.Runner, "_keep", lambda _, entry, result: kept.append(entry.id))
    lab = runner.Runner(Subject())
    results = lab.run([*FAULTS, *HEALTHY])
    lab.close(keep_logs=False)
    assert sorted(one.id for one in history.read(tmp_path / "tries.jsonl")) == sorted(IDS - {"pins-kept"})
    assert sorted(result.id for result in results) == sorted(IDS)
    assert sorted(id_ for _, id_ in ran) == sorted(IDS - {"pins-kept"}), "what is known is not run again"
    assert IDS - set(kept) == {"pins-kept", "stream-cut"}, "what was not good is run again next time"
    assert {lane for lane, _ in ran} == set(runner.LANES)
    quiet = [entry.id for entry in HEALTHY if runs_alone(entry)]
    assert {"as-published", "under-load", "under-disruption", "busy-machine"} == set(quiet)
    assert [id_ for _, id_ in ran[: len(quiet)]] == quiet
    assert {lane for lane, _ in ran[: len(quiet)]} == {runner.LANES[0]}
    of_lane = {name: [id_ for lane, id_ in ran if lane == name] for name in runner.LANES}
    for group in in_queues(in_groups([*FAULTS, *HEALTHY]))[1]:
        wanted = [entry.id for entry in group]
        lanes = [ids for ids in of_lane.values() if wanted[0] in ids]
        start = lanes[0].index(wanted[0])
        assert lanes[0][start : start + len(wanted)] == wanted, "one stack serves the whole group, in one lane"


def test_what_was_ended_with_the_lab_is_no_try(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(lane: Lane, entry: Fault) -> Result:
        lane.runner._stopped = True  # as a signal does
        return Result(entry.id, unproven="the suite wrote no report")

    monkeypatch.setattr(Lane, "run", run)
    monkeypatch.setattr(runner.Runner, "compared_with", None)
    monkeypatch.setattr(runner.Runner, "tries", tmp_path / "tries.jsonl")
    monkeypatch.setattr(runner.Runner, "_known", lambda *_: None)
    lab = runner.Runner(Subject())
    assert lab.run(FAULTS[:2]) == []
    lab.close(keep_logs=False)
    assert history.read(tmp_path / "tries.jsonl") == []


@pytest.mark.parametrize("finished", [False, True])
def test_an_event_that_comes_after_the_run_was_not_seeded(tmp_path: Path, finished: bool) -> None:
    run = SimpleNamespace(is_alive=lambda: False)
    (tmp_path / "runs" / "1").mkdir(parents=True)
    if finished:
        (tmp_path / "runs" / "1" / FINISHED).touch()
    with pytest.raises(LabError, match="was over before"):
        suite_run.wait_for_first_test(tmp_path, run, tmp_path / "log")  # type: ignore[arg-type]


def test_an_event_comes_once_a_test_is_over(tmp_path: Path) -> None:
    run = SimpleNamespace(is_alive=lambda: True)
    folder = tmp_path / "runs" / "1"
    folder.mkdir(parents=True)
    later = threading.Timer(0.2, (folder / FINISHED).touch)
    later.start()
    suite_run.wait_for_first_test(tmp_path, run, tmp_path / "log")  # type: ignore[arg-type]
    assert (folder / FINISHED).exists()
