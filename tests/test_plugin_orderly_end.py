"""Signals end a run in good order, at every point of it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
import types
import weakref

import pytest

from fixtures.core.processes import ProcessRef
from fixtures.plugin import orderly_end
from tests import fakes, process_project
from tests.process_project import PASSES, WITHIN_S, Project, until

pytest_plugins = ("pytester",)

project = process_project.project


WAITS = """
@requirement("CFG-01")
def test_request(stack, request):
    (request.config.stash[RUN_KEY].context.folder / "waits").touch()
    time.sleep(250)

@requirement("CFG-02")
def test_two(stack):
    pass
"""


SIGNALS = {
    "plain": {"ctrl-c": signal.SIGINT, "sigterm": signal.SIGTERM, "sighup": signal.SIGHUP},
    "workers": {"workers": signal.SIGTERM, "loading": signal.SIGTERM},
}


@pytest.mark.parametrize("which", ["plain", pytest.param("workers", marks=pytest.mark.long)])
def test_signals_end_a_run_in_good_order(project: Project, which: str) -> None:
    """Runs at once, each with a stack of its own, each ended in its own way; "loading" while a worker stands it up."""
    project.suite(WAITS)
    bad = fakes.make(project.path / "bad")
    bad.behave(engine="hangs")
    sent = SIGNALS[which]
    started = {
        name: project.start(
            name,
            f"--engine-python={bad.python if name == 'loading' else project.fake.python}",
            f"--config={project.config}",
            *(["-n2"] if which == "workers" else []),
        )
        for name in sent
    }

    def ready(name: str) -> bool:
        mark = "*/one/fake-0.log" if name == "loading" else "*/waits"
        return any(path.stat().st_size or name != "loading" for path in project.path.glob(f"{name}/runs/{mark}"))

    until(lambda: all(ready(name) for name in sent), WITHIN_S)
    records = {name: project.records(f"{name}/runs")[0] for name in sent}
    pids = [server.process.pid for record in records.values() for server in record.servers if server.process]
    assert len(set(pids)) == 2 * len(sent), "every run has a stack of its own"
    for name, number in sent.items():
        started[name].send_signal(number)
    for name in sent:
        assert started[name].wait(WITHIN_S) == pytest.ExitCode.INTERRUPTED, project.out(name)
    assert project.running() == []
    assert project.registered() == []
    for name, number in sent.items():
        assert not any(server.tmp is not None and server.tmp.exists() for server in records[name].servers)
        assert f"KeyboardInterrupt{'' if number == signal.SIGINT else f': {number.name}'}" in project.out(name)
        if name == "loading":
            continue  # its workers have not told the controller of any test yet: there is nothing to report
        report = project.report(f"{name}/reports")
        assert report["run"]["interrupted"]
        verdicts = {entry["verdict"] for entry in report["requirements"]}
        # A worker may have begun a test that the controller has not heard of yet.
        assert "not judged" in verdicts or which == "workers"
        assert not verdicts & {"non-conformant", "advisory"}


@pytest.mark.long
def test_what_a_killed_run_left_is_removed_by_the_next(project: Project) -> None:
    project.suite(WAITS)
    killed = [project.start("killed", *project.subject), project.start("with-workers", *project.subject, "-n2")]
    until(lambda: len(list(project.path.glob("*/runs/*/waits"))) == 2, WITHIN_S)
    owners = {record.owner for name in ("killed", "with-workers") for record in project.records(f"{name}/runs")}
    assert owners == {ProcessRef.of(one.pid) for one in killed}
    for one in killed:
        one.kill()
        one.wait(WITHIN_S)
    left = project.running()
    assert len(left) == 6
    assert len(project.registered()) == 2
    project.suite(PASSES)
    assert project.start("next", *project.subject).wait(WITHIN_S) == 0
    for one in killed:
        said = rf"removing stack one-\w+, left by a run that was killed \(pytest pid {one.pid}\)"
        assert re.search(said, project.out("next"))
    assert project.running() == []
    assert project.registered() == []


def test_a_signal_at_an_instruction_without_a_line_ends_with_the_summary_too() -> None:
    """Python 3.11 counts no line for what closes a ``with``; a signal that comes there has such a frame."""

    def interrupted() -> types.FrameType:
        with contextlib.nullcontext():
            return sys._getframe()

    frame = interrupted()
    bare = next(start for start, _, line in frame.f_code.co_lines() if line is None)
    traceback = types.TracebackType(None, frame, bare, -1)
    whole = types.TracebackType(traceback, sys._getframe(), 0, 1)
    excinfo = pytest.ExceptionInfo.from_exception(KeyboardInterrupt("SIGTERM").with_traceback(whole))
    with pytest.raises(TypeError):
        excinfo.getrepr(funcargs=True)
    orderly_end.pytest_keyboard_interrupt(excinfo)
    assert "SIGTERM" in str(excinfo.getrepr(funcargs=True))


@pytest.mark.parametrize("how", ["__del__", "finalize", "weak set", "callback"])
def test_a_signal_in_a_finaliser_acts_right_after_it(how: str) -> None:
    """Python drops what is raised there: the run went on as if no signal had come."""
    before = {number: signal.getsignal(number) for number in orderly_end.SIGNALS}
    end = orderly_end.OrderlyEnd()
    ends: list[float] = []

    def gone() -> None:
        ends.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

    class Held:
        def __del__(self) -> None:
            if how == "__del__":
                gone()

    class Data(set[object]):
        def discard(self, _: object) -> None:
            gone()

    def let_go() -> None:
        held = Held()
        weak = weakref.WeakSet[object]()
        if how == "weak set":
            weak.data = Data()  # type: ignore[attr-defined]
            weak.add(held)
        if how == "finalize":
            weakref.finalize(held, gone)
        called = weakref.ref(held, lambda _: gone()) if how == "callback" else None
        del held
        time.sleep(5)
        assert called is None

    signal.signal(signal.SIGTERM, end.handle)
    end.watch_for_dropped()
    try:
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            let_go()
        assert time.monotonic() - ends[0] < 2
    finally:
        end.restore()
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_signal_that_python_dropped_ends_the_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next test ends the run before the signal comes again: a second interruption broke pytest's summary of the first."""
    monkeypatch.setattr(orderly_end, "_LATER_S", 0.2)
    before = {number: signal.getsignal(number) for number in orderly_end.SIGNALS}
    end = orderly_end.OrderlyEnd()

    class Held:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    signal.signal(signal.SIGTERM, end.handle)
    end.watch_for_dropped()
    try:
        held = Held()
        del held
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            end.end_before_a_test()
        assert end.came == signal.SIGTERM
        assert not [
            one for one in threading.enumerate() if isinstance(one, threading.Timer) and not one.finished.is_set()
        ]
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    finally:
        end.restore()
        for number, handler in before.items():
            signal.signal(number, handler)
