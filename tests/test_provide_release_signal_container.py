"""The script that ends and stops a container from inside of it, in a process namespace of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from fixtures.core.processes import runs
from fixtures.core.waiting import poll
from fixtures.provide.process import scripts
from fixtures.provide.process.scripts import signal_container

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMESPACE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
FIRST = """
import subprocess, sys
script = sys.argv[1]
other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
for line in sys.stdin:
    subprocess.Popen([sys.executable, "-c", script, line.strip()]).wait()
"""
"""The first process of a container: it has one child, and runs the script by each word that it reads."""


class Container:
    """A process namespace."""

    def __init__(self) -> None:
        command = [*NAMESPACE, sys.executable, "-c", FIRST, scripts.read("signal_container")]
        self.outer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.tree = poll(
            lambda: psutil.Process(self.outer.pid).children(recursive=True), lambda found: len(found) >= 2, 5.0
        )

    def run(self, what: str) -> None:
        assert self.outer.stdin is not None
        self.outer.stdin.write(f"{what}\n")
        self.outer.stdin.flush()

    def states(self) -> set[str]:
        return {one.status() if one.is_running() else "gone" for one in self.tree}


@pytest.fixture
def container() -> Iterator[Container]:
    if shutil.which("unshare") is None or subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("no process namespace can be made here")
    made = Container()
    yield made
    for one in made.tree:
        if one.is_running():
            one.kill()
    made.outer.wait(5)


def test_every_process_is_stopped_and_goes_on(container: Container) -> None:
    container.run("stop")
    assert poll(container.states, lambda found: found == {psutil.STATUS_STOPPED}, 5.0) == {psutil.STATUS_STOPPED}
    assert container.outer.stdout is not None
    assert json.loads(container.outer.stdout.readline()) == {"running": [], "why": ""}
    for one in container.tree:
        one.send_signal(signal.SIGCONT)
    assert poll(container.states, lambda found: psutil.STATUS_STOPPED not in found, 5.0)
    container.run("continue")
    assert json.loads(container.outer.stdout.readline()) == {}


def test_every_process_is_ended_at_once(container: Container) -> None:
    container.run("kill")
    assert not poll(lambda: [one for one in container.tree if runs(one)], lambda left: not left, 3.0)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The signals that are sent, none of which arrives."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(signal_container, "hand_over", lambda *_: "Operation not permitted")
    monkeypatch.setattr(signal_container, "send", lambda *signal: found.append(signal))
    monkeypatch.setattr(signal_container, "ACTS_S", 0.05)
    return found


def test_the_first_process_is_asked_to_end(sent: list[tuple[int, int]]) -> None:
    signal_container.kill([1, 7, 8])
    assert sent == [(1, signal.SIGTERM), (7, signal.SIGKILL), (8, signal.SIGKILL)]


def test_nothing_is_stopped_where_the_first_process_serves(
    sent: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal_container, "listens", lambda _: True)
    assert signal_container.stop([1, 7]) == {"running": [1], "why": "Operation not permitted"}
    assert sent == []
    monkeypatch.setattr(signal_container, "listens", lambda _: False)  # a shell in front of the server
    monkeypatch.setattr(signal_container, "runs", lambda _: False)
    assert signal_container.stop([1, 7])["running"] == []
    assert sent == [(7, signal.SIGSTOP)]


def test_what_goes_on_is_named_and_everything_goes_on_then(
    sent: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal_container, "runs", lambda pid: pid == 8)
    assert signal_container.stop([7, 8])["running"] == [8]
    assert sent == [(7, signal.SIGSTOP), (8, signal.SIGSTOP), (7, signal.SIGCONT), (8, signal.SIGCONT)]


def test_who_listens_is_seen() -> None:
    own = os.getpid()
    with socket.create_server(("127.0.0.1", 0)):
        assert signal_container.listens(own)
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert not signal_container.listens(child.pid)
    finally:
        child.kill()
        child.wait()
    assert signal_container.listens(child.pid), "what cannot be seen may serve"


def test_a_process_and_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    assert signal_container.runs(os.getpid())
    assert not signal_container.runs(2**22 + 1)
    assert os.getpid() not in signal_container.others()
    monkeypatch.setattr(signal_container, "read", lambda path: {"/proc/self/cgroup": "own"}.get(path, "another"))
    assert signal_container.others() == [], "what is in another cgroup belongs to another container"
