"""Records of stacks, and the end of process trees; every process here is real."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.core.processes import ENV_STACK, Maker, ProcessRef, end_processes, process_tree, runs
from fixtures.core.progress import Progress
from fixtures.core.record import EngineServer, RequestedConfig, Server, StackRecord
from fixtures.core.registry import foreign, orphans, read_all, unregister
from fixtures.core.signals import defer_signals
from fixtures.provide.orphans import remove_orphans
from fixtures.provide.release import kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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


def make(folder: Path, **changes: object) -> StackRecord:
    known = {"id": "c-1", "kind": "process", "config": "c", "folder": folder / "run", "model": "m"}
    return StackRecord.model_validate(known | changes)


def gone() -> ProcessRef:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return ProcessRef(pid=process.pid, started=time.time())


def other(reference: ProcessRef) -> ProcessRef:
    """The same pid, of a process that ran an hour ago."""
    return reference.model_copy(update={"started": reference.started - 3600})


# --- records ----------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    record = make(
        tmp_path,
        owner=ProcessRef.of(os.getpid()),
        engines=[EngineServer(name="e-0", url="http://h:1", process=gone(), log=tmp_path / "e.log", cache_server="s")],
        cache_servers=[Server(name="s", url="http://h:2", argv=("lmcache", "server"), env={"A": "1"}, tmp=tmp_path)],
        requested=RequestedConfig(connector={"kv_role": "kv_both"}, duplicate_env=("X",)),
        seeds=[1, 2],
    )
    path = record.save(tmp_path / "registry")
    assert path == tmp_path / "run" / "record.json"
    assert StackRecord.load(path) == StackRecord.load(tmp_path / "registry" / "c-1.json") == record
    assert [server.name for server in record.servers] == ["e-0", "s"]
    unregister(record, tmp_path / "registry")
    unregister(record, tmp_path / "registry")
    assert path.exists(), "the record beside the logs stays"
    assert not list((tmp_path / "registry").iterdir())


def test_a_record_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = make(tmp_path)
    path = record.save(tmp_path / "registry")

    def full(*_: object, **__: object) -> object:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", full)
        with pytest.raises(OSError, match="No space left"):
            make(tmp_path, model="another").save(tmp_path / "registry")
    assert StackRecord.load(path) == record
    assert [entry.name for entry in (tmp_path / "registry").iterdir()] == ["c-1.json"], "no scratch file is left"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "there is no stack record at .*give --record"),
        ("not JSON", "is not a stack record of this version .*--keep-stack"),
        ("{}", "is not a stack record of this version"),
        ({"schema_version": 2}, "is not a stack record of this version"),
        ({"colour": "red"}, "is not a stack record of this version"),
    ],
)
def test_a_wrong_record_is_one_sentence(tmp_path: Path, text: object, says: str) -> None:
    path = tmp_path / "record.json"
    if isinstance(text, dict):
        path.write_text(json.dumps(json.loads(make(tmp_path).model_dump_json()) | text))
    elif text is not None:
        path.write_text(str(text))
    with pytest.raises(ConfigurationError, match=says) as caught:
        StackRecord.load(path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a stack record"):
        StackRecord.load(tmp_path)


def test_stacks_of_other_hosts_users_and_versions_are_left_alone(tmp_path: Path) -> None:
    here, registry = Maker.here(), tmp_path / "registry"
    assert here.is_here
    for name, maker in (
        ("host", here.model_copy(update={"host": "elsewhere"})),
        ("user", here.model_copy(update={"user": "another"})),
        ("container", here.model_copy(update={"pid_namespace": "pid:[1]"})),
        ("before-reboot", here.model_copy(update={"boot": "earlier", "pid_namespace": "pid:[1]"})),
        ("old-version", None),
        ("mine", here),
    ):
        make(tmp_path, id=name, owner=gone(), maker=maker).save(registry)
    records, _ = read_all(registry, StackRecord)
    assert [record.id for record in orphans(records)] == ["before-reboot", "mine"]
    assert [record.id for record in foreign(records)] == ["container", "host", "old-version", "user"]


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


def test_orphans_are_the_stacks_of_dead_owners_that_nobody_keeps(tmp_path: Path) -> None:
    me, registry = ProcessRef.of(os.getpid()), tmp_path / "registry"
    for name, owner, keep in (
        ("dead", gone(), False),
        ("live", me, False),
        ("kept", gone(), True),
        ("reused", other(me), False),
        ("others", None, False),
    ):
        make(tmp_path, id=name, owner=owner, keep=keep, maker=Maker.here()).save(registry)
    (registry / "torn.json").write_text("{")
    assert [record.id for record in orphans(read_all(registry, StackRecord)[0])] == ["dead", "reused"]
    assert read_all(tmp_path / "nowhere", StackRecord) == ([], [])


def test_a_record_that_cannot_be_read_is_kept_and_named_once(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    for name in ("newer", "torn"):
        make(tmp_path, id=name, owner=gone(), maker=Maker.here()).save(registry)
    newer, torn = registry / "newer.json", registry / "torn.json"
    newer.write_text(json.dumps(json.loads(newer.read_text()) | {"new_field": {"password": "not-to-be-shown"}}))
    torn.write_text(torn.read_text()[:100])
    before = {path: path.read_bytes() for path in registry.iterdir()}
    assert [path for path, _ in read_all(registry, StackRecord)[1]] == [newer, torn]
    said = io.StringIO()
    progress = Progress(said, live=False)
    for _ in range(2):
        remove_orphans(registry, progress)
    lines = said.getvalue().splitlines()
    assert len(lines) == 2
    assert f"{newer} cannot be read (new_field: Extra inputs are not permitted)" in lines[0]
    assert f"{torn} cannot be read (Invalid JSON: EOF while parsing" in lines[1]
    assert all(f"python -m fixtures stop {registry}" in line and "may still be running" in line for line in lines)
    assert "not-to-be-shown" not in said.getvalue()
    assert {path: path.read_bytes() for path in registry.iterdir()} == before


def test_a_cluster_record_that_cannot_be_read_is_kept_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KV_OFFLOAD_CACHE", str(tmp_path))
    torn = kind.records() / "kv-offload-0123456789.json"
    torn.parent.mkdir(parents=True)
    torn.write_text('{"name"')
    for only_name in (True, False):
        said: list[str] = []
        kind.remove_orphans(said.append, only_name=only_name)
        (line,) = said
        assert f"the cluster record {torn} cannot be read (Invalid JSON: EOF while parsing" in line
        assert "kind delete cluster --name kv-offload-0123456789, then delete the file" in line
    assert torn.exists()


def test_a_clock_that_is_set_does_not_make_an_owner_dead() -> None:
    me = ProcessRef.of(os.getpid())
    assert ProcessRef(pid=me.pid, started=me.started + 1.0).alive
    assert not ProcessRef(pid=me.pid, started=me.started + 10.0).alive


# --- processes --------------------------------------------------------------------------------------------------------


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


def test_a_zombie_that_nobody_reaps_is_not_waited_for(start: Start) -> None:
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


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def default_handlers() -> Iterator[None]:
    """Python's own handlers: the plugins of this project, which are loaded here too, have others."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("default_handlers")
def test_a_signal_waits_until_the_end_of_what_must_not_be_interrupted() -> None:
    done = []

    def work() -> None:
        with defer_signals():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_that_were_seen_to_are_dropped() -> None:
    with defer_signals() as held:
        with defer_signals():
            signal.raise_signal(signal.SIGHUP)
        assert held == [signal.SIGHUP], "the inner one hands it to the outer one"
        held.clear()


def test_a_process_that_is_gone_has_no_reference() -> None:
    with pytest.raises(psutil.NoSuchProcess):
        ProcessRef.of(gone().pid)
