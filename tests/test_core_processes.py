"""Trees of processes, and their end; every process is real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from fixtures.core.processes import ENV_STACK, ProcessRef, end_processes, process_tree, runs
from tests.process_trees import gone, other

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., ProcessRef]


STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


TREE = """
import os, signal, sys, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn child" in sys.argv else signal.SIG_DFL)
print("up", flush=True)
time.sleep(60)
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that leads a group, as the suite starts servers; ``lines``: how many it prints when it is up."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str, lines: int = 1) -> ProcessRef:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        return ProcessRef.of(process.pid)

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_process_of_another_owner_in_the_group_is_spared() -> None:
    """The leader is dead; its group holds one process of the stack, one of another environment, one without any."""
    script = (
        "import os, subprocess, sys; [subprocess.Popen(['sleep', '60'], env=e) for e in ({'%s': 's'}, {'A': '1'}, {})]"
    )
    environment = {**os.environ, ENV_STACK: "s"}
    leader = subprocess.Popen([sys.executable, "-c", script % ENV_STACK], start_new_session=True, env=environment)
    reference = ProcessRef.of(leader.pid, stack="s")
    leader.wait()
    group = [one for one in psutil.process_iter() if one.pid != os.getpid() and _group(one.pid) == leader.pid]
    try:
        assert len(group) == 3
        found = process_tree(reference)
        assert sorted(one.environ().get(ENV_STACK, "") for one in found) == ["", "s"]
        assert all("A" not in one.environ() for one in found)
        assert len(process_tree(ProcessRef(pid=reference.pid, started=reference.started))) == 3, (
            "a record without the mark"
        )
    finally:
        for one in group:
            one.kill()


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def test_the_tree_is_found_after_its_leader_died(start: Start) -> None:
    leader = start(TREE, lines=2)
    before = {process.pid for process in process_tree(leader)}
    assert len(before) == 2
    assert leader.pid in before
    os.kill(leader.pid, signal.SIGKILL)
    psutil.Process(leader.pid).wait()
    assert not leader.alive
    assert {process.pid for process in process_tree(leader)} == before - {leader.pid}
    assert len(end_processes([leader], grace_s=5)) == 0, "the child obeys SIGTERM"
    assert process_tree(leader) == []


def test_a_zombie_does_not_run(start: Start) -> None:
    leader = start("print(1)")
    while psutil.Process(leader.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not leader.alive
    assert process_tree(leader) == []
    begin = time.monotonic()
    assert end_processes([leader], grace_s=5) == []
    assert time.monotonic() - begin < 1


def test_a_zombie_that_is_not_reaped_is_not_waited_for(start: Start) -> None:
    # The controller of xdist ends processes that are not its own children.
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    try:
        reference = ProcessRef.of(int(parent.stdout.readline()))
        begin = time.monotonic()
        assert end_processes([reference], grace_s=10) == []
        assert time.monotonic() - begin < 3
        assert psutil.Process(reference.pid).status() == psutil.STATUS_ZOMBIE
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def test_a_pid_that_was_given_to_another_process_is_left_alone(start: Start) -> None:
    innocent = start(TREE, lines=2)
    old = other(innocent)
    assert not old.alive
    assert process_tree(old) == []
    assert end_processes([old]) == []
    assert len(process_tree(innocent)) == 2


@pytest.mark.parametrize(
    "state", ["obeys", "ignores SIGTERM", "is stopped", "has a stubborn child", "is stopped whole"]
)
def test_nothing_of_a_tree_is_left(start: Start, state: str) -> None:
    if state == "has a stubborn child":
        leader = start(TREE, "stubborn child", lines=2)
    else:
        leader = start((STUBBORN if state == "ignores SIGTERM" else "") + TREE, lines=2)
    tree = process_tree(leader)
    child = next(process.pid for process in tree if process.pid != leader.pid)
    if state == "is stopped":
        os.kill(leader.pid, signal.SIGSTOP)
    elif state == "is stopped whole":
        os.killpg(leader.pid, signal.SIGSTOP)
    begin = time.monotonic()
    killed = end_processes([leader], grace_s=1.0)
    assert time.monotonic() - begin < 5
    # This leader does not end its child, so the child has to be killed; the leader itself only where it is stubborn.
    assert killed == sorted([leader.pid, child] if state == "ignores SIGTERM" else [child])
    assert not any(runs(process) for process in tree)
    assert end_processes([leader]) == []


def test_trees_end_side_by_side(start: Start) -> None:
    leaders = [start(STUBBORN + TREE, lines=2) for _ in range(3)]
    begin = time.monotonic()
    assert len(end_processes(leaders, grace_s=1.0)) == 6
    assert time.monotonic() - begin < 3


def test_a_process_that_is_gone_has_no_reference() -> None:
    with pytest.raises(psutil.NoSuchProcess):
        ProcessRef.of(gone().pid)
