"""Workers and runs that share a stack or a machine take turns."""

from __future__ import annotations

import fcntl
import io
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.progress import Progress
from fixtures.core.waiting import poll
from fixtures.plugin.locks import machine
from fixtures.provide.process import process_teardown
from tests import process_project
from tests.process_project import WITHIN_S, Project

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ("pytester",)

project = process_project.project


SHARED = """
@requirement("MEM-06")
@pytest.mark.run_last
def test_last(teardown_report, note):
    assert teardown_report.left_running == () and teardown_report.resident_before_bytes > 0

@requirement("LAT-01")
@pytest.mark.exclusive_host
@pytest.mark.parametrize("k", range(2))
def test_alone(stack, note, k):
    time.sleep(0.2)
    assert k == 0, "a lock is released when a test fails"

@requirement("ACC-01")
@pytest.mark.parametrize("k", range(4))
def test_counts(stack, note, prompts, k):
    tokens = stack.complete(prompts.unique(chunks=1)).tokens
    time.sleep(0.1)
    assert tokens.computed == 257

@requirement("API-01")
@pytest.mark.shared_stack
@pytest.mark.parametrize("k", range(6))
def test_together(stack, note, k):
    time.sleep(0.3)

def test_without_stack():
    pass
"""


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one is not other and one["begin"] < other["end"] and other["begin"] < one["end"]


def test_workers_share_one_stack_and_take_turns(project: Project) -> None:
    project.suite(SHARED)
    result = project.run(*project.subject, "-n2", apart=True)
    result.assert_outcomes(passed=13, failed=1)
    notes = project.notes()
    assert len(notes) == 13
    assert {note["worker"] for note in notes} == {"gw0", "gw1"}
    assert len({tuple(note["pids"]) for note in notes}) == 1
    assert len({note["seed"] for note in notes}) == 1
    assert len(project.records()) == 1
    kinds = {kind: [note for note in notes if note["test"].startswith(f"test_{kind}")] for kind in ("alone", "counts")}
    for note in kinds["alone"]:
        assert not [other["test"] for other in notes if overlap(note, other)]
    for note in kinds["counts"]:
        assert not [other["test"] for other in notes if overlap(note, other)]
    together = [note for note in notes if note["test"].startswith("test_together")]
    assert any(overlap(one, other) for one in together for other in together)
    last = notes[-1]
    assert last["test"] == "test_last[one]"
    assert all(note["end"] <= last["end"] for note in notes)
    verdicts = {entry["id"]: entry["verdict"] for entry in project.report()["requirements"]}
    assert verdicts["MEM-06"] == verdicts["ACC-01"] == verdicts["API-01"] == "conformant"
    assert verdicts["LAT-01"] == "non-conformant"
    assert project.running() == []
    assert project.registered() == []


@pytest.mark.long
def test_a_kept_stack_is_not_judged_by_its_tear_down(project: Project) -> None:
    project.suite(SHARED)
    result = project.run(*project.subject, "--keep-stack", "-k", "last or together")
    result.assert_outcomes(passed=6, skipped=0)
    reasons = {entry["id"]: entry["reason"] for entry in project.report()["requirements"]}
    assert reasons["MEM-06"] == "the stack is kept (--keep-stack); omit that option to judge the tear-down"
    [record] = project.records()
    assert len(project.running()) == 3
    assert record.owner is not None
    assert process_teardown.tear_down(record, project.path / "cache" / "stacks").left_running == ()


def test_a_test_that_ends_before_the_stack_begins_has_ended(project: Project) -> None:
    """Where the first tests need a GPU, MEM-06 was not judged: "other tests are still using the stack"."""
    project.suite(
        """
        @requirement("MEM-01")
        def test_on_a_gpu(stack):
            pass

        @requirement("MEM-06")
        @pytest.mark.run_last
        def test_last(teardown_report):
            assert teardown_report.left_running == ()
        """
    )
    project.run(*project.subject)
    verdicts = {entry["id"]: entry["verdict"] for entry in project.report()["requirements"]}
    assert verdicts == {"MEM-01": "not applicable", "MEM-06": "conformant"}


@pytest.mark.long
def test_two_runs_take_turns_where_a_test_needs_the_machine(project: Project) -> None:
    project.suite(
        """
        @requirement("LAT-01")
        @pytest.mark.exclusive_host
        def test_alone(stack, note):
            time.sleep(0.5)
        """
    )
    both = [project.start(name, *project.subject) for name in ("left", "right")]
    assert [one.wait(WITHIN_S) for one in both] == [0, 0]
    first, second = project.notes()
    assert first["pids"] != second["pids"]
    assert not overlap(first, second)
    assert project.running() == []
    assert project.registered() == []


def test_who_waits_to_be_alone_is_not_overtaken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One uses the machine, one waits to be alone, one comes later: in this order, however often others come."""
    monkeypatch.setenv("KV_OFFLOAD_CACHE", str(tmp_path))
    progress, order = Progress(io.StringIO(), live=False), []
    first_may_go = threading.Event()

    def use(name: str, how: int, until: threading.Event | None = None) -> None:
        with machine(how, progress):
            order.append(name)
            if until is not None:
                until.wait(WITHIN_S)

    def is_held(path: Path) -> bool:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    first = threading.Thread(target=use, args=("first", fcntl.LOCK_SH, first_may_go))
    alone = threading.Thread(target=use, args=("alone", fcntl.LOCK_EX))
    later = threading.Thread(target=use, args=("later", fcntl.LOCK_SH))
    first.start()
    poll(lambda: list(order), bool, WITHIN_S)
    alone.start()
    assert poll(lambda: is_held(tmp_path / "machine-entry.lock"), bool, WITHIN_S), "the door is shut while it waits"
    later.start()
    later.join(0.2)
    assert order == ["first"]
    first_may_go.set()
    for thread in (first, alone, later):
        thread.join(WITHIN_S)
    assert order == ["first", "alone", "later"]
