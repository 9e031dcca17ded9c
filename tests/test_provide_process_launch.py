"""Standing a stack up and taking it down, with stand-ins for the two programs (tests/fakes): what runs, and what is left."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml
from werkzeug import Request, Response

from fixtures.core import deadlines, files
from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import ConfigurationError, StackError
from fixtures.core.ports import HOST, free_port
from fixtures.core.processes import ProcessRef, process_tree, runs
from fixtures.core.progress import Progress
from fixtures.core.record import EngineServer, StackRecord
from fixtures.instruments.client import Client
from fixtures.instruments.prompts import Prompts
from fixtures.provide.orphans import remove_orphans
from fixtures.provide.process import launch, probe, servers
from fixtures.provide.process.launch import stand_up
from fixtures.provide.process.ready import PortTakenError
from fixtures.provide.process.teardown import tear_down
from fixtures.provide.serving import first_completion
from fixtures.provide.values.config import load_config
from fixtures.subject.stack import Stack
from tests import fakes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_httpserver import HTTPServer

    from fixtures.provide.process.environment import EngineEnv

SHM = Path("/dev/shm")


class Place:
    """A folder of its own for everything that one test starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fake = fakes.make(folder / "env")
        self.config = fakes.make_config(folder / "fakes")
        self.registry = folder / "cache" / "stacks"
        self.said = io.StringIO()
        self.env: EngineEnv = probe.adopt(self.fake.python)
        self.deadlines = Deadlines()

    def up(self, name: str = "run") -> StackRecord:
        return stand_up(
            load_config(str(self.config), self.folder),
            self.env,
            folder=self.folder / name,
            cache=self.folder / "cache",
            registry=self.registry,
            progress=Progress(self.said, live=False),
            device="cpu",
            deadlines=self.deadlines,
        )

    def running(self) -> list[psutil.Process]:
        """Every process of the stand-ins of this place."""
        found = []
        for one in psutil.process_iter():
            try:
                if runs(one) and str(self.fake.folder) in " ".join(one.cmdline()):
                    found.append(one)
            except psutil.Error:
                continue
        return found

    def left(self) -> dict[str, object]:
        """What must be empty when nothing is left."""
        return {
            "processes": self.running(),
            "registry": sorted(self.registry.glob("*")) if self.registry.exists() else [],
            "temporary folders": sorted((self.folder / "tmp").iterdir()),
        }


NOTHING: dict[str, list[Any]] = {"processes": [], "registry": [], "temporary folders": []}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("KV_OFFLOAD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    place = Place(tmp_path)
    yield place
    left = place.running()
    for one in left:
        one.kill()
    fakes.clear_shared_memory(tmp_path)
    assert not left, f"the test left {left}"


def shared_memory_of(record: StackRecord) -> list[Path]:
    return [SHM / f"kvoc-fake-{server.process.pid}" for server in record.servers if server.process is not None]


# --- success ----------------------------------------------------------------------------------------------------------


def test_a_stack_comes_up_whole_and_goes_whole(place: Place) -> None:
    record = place.up()
    assert StackRecord.load(place.folder / "run" / "record.json") == record
    assert StackRecord.load(place.registry / f"{record.id}.json") == record
    assert record.owner == ProcessRef.of(os.getpid())
    assert [server.name for server in record.servers] == ["fake-0", "fake-0-tier"]
    assert record.engines[0].cache_server == "fake-0-tier"
    assert record.versions == {"vllm": fakes.VLLM, "lmcache": fakes.LMCACHE, "torch": fakes.TORCH}
    assert record.model == str(place.config / "model")
    assert record.kv_bytes_per_token == 2 * 2 * 2 * 32 * 2
    assert record.ready_after_s is not None
    assert len({server.url for server in record.servers}) == 2
    for server in record.servers:
        assert server.process is not None
        assert server.process.alive
        assert server.log is not None
        assert server.log.stat().st_size > 0
        assert server.tmp is not None
        assert server.tmp.is_dir()
        assert (server.resident_at_ready_bytes or 0) > 1_000_000
        assert os.getpgid(server.process.pid) == server.process.pid
    engine = record.engines[0]
    assert engine.tmp is not None
    assert engine.env["PROMETHEUS_MULTIPROC_DIR"] == str(engine.tmp / "prometheus")
    assert len(place.running()) == 3, "API server, engine core, cache server"
    assert all(path.exists() for path in shared_memory_of(record))

    stack = Stack(record)
    prompt = Prompts(1, "test", stack.chunk_tokens, stack.max_model_len).unique(chunks=2)
    first, second = stack.complete(prompt, logprobs=1), stack.complete(prompt)
    assert (first.sources.computed, second.sources.gpu_hit) == (513, 512)
    stack.clear_prefix_cache()
    assert stack.complete(prompt).sources.loaded == 512

    report = tear_down(record, place.registry)
    assert report.killed == report.left_running == report.left_in_shared_memory == ()
    assert report.resident_before_bytes > 0
    assert report.resident_after_bytes == 0
    assert place.left() == NOTHING
    assert not any(path.exists() for path in shared_memory_of(record))
    assert (place.folder / "run" / "record.json").exists()
    again = tear_down(record, place.registry)
    assert (again.resident_before_bytes, again.killed, again.left_running) == (0, (), ())
    assert again.seconds < 1


def test_several_engines_have_nothing_in_common(place: Place) -> None:
    fakes.make_config(place.folder / "two" / "fakes", replicas=2)
    place.config = place.folder / "two" / "fakes"
    record = place.up()
    try:
        assert [server.name for server in record.servers] == ["fake-0", "fake-1", "fake-0-tier", "fake-1-tier"]
        assert len({server.url for server in record.servers}) == len({server.tmp for server in record.servers}) == 4
        assert len({engine.env["PROMETHEUS_MULTIPROC_DIR"] for engine in record.engines}) == 2
    finally:
        tear_down(record, place.registry)
    assert place.left() == NOTHING


def test_two_stacks_at_once_do_not_disturb_each_other(place: Place) -> None:
    first, second = place.up("one"), place.up("two")
    assert first.id != second.id
    assert len(place.running()) == 6
    tear_down(first, place.registry)
    assert len(place.running()) == 3
    assert all(server.process is not None and server.process.alive for server in second.servers)
    assert Stack(second).engine.counters().requests_finished == 2
    tear_down(second, place.registry)
    assert place.left() == NOTHING


def test_without_offload_there_is_no_cache_server(place: Place) -> None:
    fakes.make_config(place.folder / "plain" / "fakes", cache_server=False)
    place.config = place.folder / "plain" / "fakes"
    record = place.up()
    assert [server.name for server in record.servers] == ["fake-0"]
    tear_down(record, place.registry)
    assert place.left() == NOTHING


# --- a start-up that fails --------------------------------------------------------------------------------------------


def test_an_engine_that_dies_while_loading_says_why(place: Place) -> None:
    place.fake.behave(engine="dies")
    begin = time.monotonic()
    with pytest.raises(StackError) as caught:
        place.up()
    assert time.monotonic() - begin < 10
    log = place.folder / "run" / "fake-0.log"
    assert str(caught.value) == f"fake-0 ended while it was starting: ValueError: no weights here (log: {log})"
    assert len(log.read_text().splitlines()) > 3000, "the log itself is kept"
    assert place.left() == NOTHING


@pytest.mark.parametrize(
    ("engine", "server", "says"),
    [
        (
            "hangs",
            "",
            "fake-0 was not ready within 1 s .--deadline engine_ready=SECONDS sets a longer deadline.; its phase was: loading "
            "weights. Its log says: no error; its last line was: .*",
        ),
        (
            "",
            "hangs",
            "fake-0-tier was not ready within 1 s .--deadline server_ready=.* sets a longer deadline.; its phase was: starting"
            ". Its log says: nothing",
        ),
        (
            "",
            "refuses",
            "fake-0 was not ready within 1 s .*; its phase was: registering with the cache server. .*"
            "fake-0-tier says: REGISTER_KV_CACHE failed: unknown message type",
        ),
        ("", "dies", "fake-0-tier ended while it was starting: cannot allocate the L1 buffer"),
        ("fails", "", "fake-0 is healthy but its first completion got HTTP 500: .*the engine core is gone"),
        ("dies-after-0", "", "fake-0 is healthy but its first completion failed: .* RuntimeError: out of luck"),
        ("dies-after-1", "", "fake-0 is healthy but its first completion failed: .* RuntimeError: out of luck"),
        ("hangs stubborn", "", "fake-0 was not ready within 1 s"),
    ],
)
def test_a_half_started_stack_is_taken_down(
    place: Place, monkeypatch: pytest.MonkeyPatch, engine: str, server: str, says: str
) -> None:
    slow = "dies-after" in engine or "fails" in engine
    place.deadlines = Deadlines(engine_ready_s=30.0 if slow else 1.0, server_ready_s=1.0 if "hangs" in server else 30.0)
    monkeypatch.setattr(deadlines, "START_S_PER_GIB", 0.0)
    if "stubborn" in engine:
        monkeypatch.setattr(launch, "tear_down", lambda *args: tear_down(*args, grace_s=0.5))
    place.fake.behave(engine=engine, server=server)
    begin = time.monotonic()
    with pytest.raises(StackError, match=says) as caught:
        place.up()
    assert time.monotonic() - begin < 15
    assert len(str(caught.value)) < 1500
    assert "\n" not in str(caught.value)
    assert place.left() == NOTHING
    assert re.search(r"starting: failed after \d+ s", place.said.getvalue())


@pytest.fixture
def interrupts() -> Iterator[None]:
    """SIGINT and SIGTERM interrupt Python, and do not end the run of these tests; see test_plugin_session for pytest's own."""
    numbers = signal.SIGINT, signal.SIGTERM
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_it_starts_takes_it_down(place: Place, number: int) -> None:
    place.fake.behave(engine="hangs")

    def interrupt() -> None:
        while len(place.running()) < 3:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        place.up()
    assert place.left() == NOTHING


@pytest.mark.usefixtures("interrupts")
def test_a_second_signal_does_not_stop_the_tear_down(place: Place) -> None:
    place.fake.behave(engine="stubborn")
    record = place.up()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        tear_down(record, place.registry, grace_s=2.0)
    assert place.left() == NOTHING


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody has bound."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize(
    "before", [pytest.param(0, id="of the cache server", marks=pytest.mark.long), pytest.param(2, id="of the engine")]
)
def test_a_port_that_was_taken_meanwhile_is_changed_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, taken: int, before: int
) -> None:
    free = free_port
    given = iter([*(free() for _ in range(before)), taken])
    monkeypatch.setattr(servers, "free_port", lambda: next(given, None) or free())
    record = place.up()
    assert "address already in use" in place.said.getvalue()
    assert "trying once more with other ports" in place.said.getvalue()
    assert len(place.running()) == 3
    assert "address already in use" not in record.engines[0].log.read_text()  # type: ignore[union-attr]
    tear_down(record, place.registry)
    assert place.left() == NOTHING


def test_a_port_that_stays_taken_is_named(place: Place, monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    free = free_port
    given = iter([free(), free(), taken, free(), free(), taken])
    monkeypatch.setattr(servers, "free_port", lambda: next(given))
    with pytest.raises(PortTakenError, match=r"fake-0 ended while .*address already in use .*fake-0\.log"):
        place.up()
    assert place.left() == NOTHING


@pytest.mark.long
def test_a_stranger_on_our_port_is_not_taken_for_ours(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first = place.up("first")
    free = free_port
    port = int(first.engines[0].url.rsplit(":", 1)[1])
    given = iter([free(), free(), port])
    monkeypatch.setattr(servers, "free_port", lambda: next(given, None) or free())
    place.fake.behave(engine="slow")  # while it loads, the other engine answers on its port, with the same model
    second = place.up("second")
    assert second.engines[0].url != first.engines[0].url
    assert "trying once more" in place.said.getvalue()
    for record in (first, second):
        tear_down(record, place.registry)
    assert place.left() == NOTHING


@pytest.mark.parametrize("where", ["log", "record", "temporary folder", "run folder"])
def test_no_room_is_said_with_a_remedy(place: Place, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    full = OSError(28, "No space left on device", "/there")

    def no_room(*_: object, **__: object) -> object:
        raise full

    if where == "log":
        opened = files.append

        def open_(path: Path, **options: int) -> object:
            return no_room() if path.name == "fake-0.log" else opened(path, **options)

        monkeypatch.setattr("fixtures.provide.process.spawn.append", open_)
    elif where == "record":
        monkeypatch.setattr("fixtures.core.record.write_atomically", no_room)
    elif where == "temporary folder":
        monkeypatch.setattr("tempfile.mkdtemp", no_room)
    else:
        (place.folder / "run").write_text("a file is in the way")
    with pytest.raises(StackError, match=r"could not be started: .*; free some space, or .*--run-dir") as caught:
        place.up()
    assert ("No space left" in str(caught.value)) == (where != "run folder")
    assert place.left() == NOTHING


def test_a_program_that_is_not_there_is_named(place: Place) -> None:
    (place.fake.folder / "bin" / "lmcache").unlink()
    with pytest.raises(
        StackError, match=r"fake-0-tier could not be started .*No such file.*its command was: .*lmcache server"
    ):
        place.up()
    assert place.left() == NOTHING


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("two models", "values.yaml: .* lists 2 models; .*exactly one; remove the others"),
        ("no tokenizer", "has no tokenizer"),
        ("no replicas", "replicaCount is 0"),
    ],
)
def test_what_local_processes_cannot_be_is_said_before_anything_starts(place: Place, change: str, says: str) -> None:
    values = place.config / "values.yaml"
    if change == "two models":
        fakes.make_config(place.folder / "two" / "fakes", models=2)
        place.config = place.folder / "two" / "fakes"
    elif change == "no tokenizer":
        (place.config / "model" / "tokenizer.json").unlink()
    else:
        changed = yaml.safe_load(values.read_text())
        changed["servingEngineSpec"]["modelSpec"][0]["replicaCount"] = 0
        values.write_text(yaml.safe_dump(changed))
    with pytest.raises(ConfigurationError, match=says) as caught:
        place.up()
    assert "\n" not in str(caught.value)
    assert not (place.folder / "run").exists()
    assert place.left() == NOTHING


# --- tear-down --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_what_has_to_be_killed_is_reported_with_what_it_leaves(place: Place) -> None:
    place.fake.behave(engine="stubborn", server="stubborn")
    record = place.up()
    taken = [path.stat().st_blocks * 512 for path in shared_memory_of(record)]
    assert all(taken)
    report = tear_down(record, place.registry, grace_s=0.5)
    assert len(report.killed) == 3
    assert report.left_running == ()
    assert report.left_in_shared_memory == tuple(sorted(str(path) for path in shared_memory_of(record)))
    assert report.shared_memory_bytes == sum(taken)
    assert not any(path.exists() for path in shared_memory_of(record))
    assert place.left() == NOTHING


def test_a_child_that_outlives_its_parent_is_killed(place: Place) -> None:
    place.fake.behave(engine="orphans")
    record = place.up()
    report = tear_down(record, place.registry, grace_s=0.5)
    assert len(report.killed) == 1
    assert place.left() == NOTHING


def test_the_child_of_a_dead_engine_is_ended_too(place: Place) -> None:
    place.fake.behave(engine="orphans dies-after-3")
    record = place.up()
    assert record.engines[0].process is not None
    os.kill(record.engines[0].process.pid, signal.SIGKILL)
    while record.engines[0].process.alive:
        time.sleep(0.01)
    assert len(process_tree(record.engines[0].process)) == 1
    report = tear_down(record, place.registry, grace_s=0.5)
    assert report.resident_before_bytes > 0
    assert place.left() == NOTHING


@pytest.mark.long
def test_a_frozen_stack_is_taken_down(place: Place) -> None:
    record = place.up()
    for server in record.servers:
        assert server.process is not None
        os.killpg(server.process.pid, signal.SIGSTOP)
    tear_down(record, place.registry, grace_s=1.0)
    assert place.left() == NOTHING


def test_orphans_are_removed_and_live_stacks_are_not(place: Place) -> None:
    live, orphan, kept = place.up("live"), place.up("orphan"), place.up("kept")
    dead = ProcessRef(pid=os.getpid(), started=time.time() - 3600)
    for record in (orphan, kept):
        record.owner, record.keep = dead, record is kept
        record.save(place.registry)
    progress = io.StringIO()
    remove_orphans(place.registry, Progress(progress, live=False), only_name=True)
    assert f"stack {orphan.id}, left by a run that was killed" in progress.getvalue()
    assert "still has its local processes; remove it with: python -m fixtures stop" in progress.getvalue()
    assert len(place.running()) == 9
    progress = io.StringIO()
    remove_orphans(place.registry, Progress(progress, live=False))
    assert progress.getvalue() == (
        f"removing stack {orphan.id}, left by a run that was killed (pytest pid {os.getpid()})\n"
    )
    assert len(place.running()) == 6
    assert {path.stem for path in place.registry.iterdir()} == {live.id, kept.id}
    for record in (live, kept):
        tear_down(record, place.registry)
    assert place.left() == NOTHING


def test_hooks_come_first_on_the_path_of_every_process(place: Place) -> None:
    hook = place.folder / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text("print('seeded', flush=True)\n")
    env = replace(place.env)
    record = stand_up(
        load_config(str(place.config), place.folder),
        env,
        folder=place.folder / "run",
        cache=place.folder / "cache",
        registry=place.registry,
        progress=Progress(place.said, live=False),
        device="cpu",
        hooks=(hook,),
    )
    tear_down(record, place.registry)
    for server in record.servers:
        assert server.log is not None
        assert server.log.read_text().startswith("seeded\n")


def test_a_short_context_and_a_small_vocabulary_are_served(tmp_path: Path, httpserver: HTTPServer) -> None:
    def answer(request: Request) -> Response:
        prompt = request.get_json()["prompt"]
        good = len(prompt) <= 512 and max(prompt) < 16
        return Response("{}", status=200 if good else 400, content_type="application/json")

    httpserver.expect_request("/v1/completions").respond_with_handler(answer)
    engine = EngineServer(name="e", url=httpserver.url_for(""))
    record = StackRecord(id="s", kind="process", config="c", folder=tmp_path, model="m", engines=[engine])
    first_completion(record, engine, Client(engine.url))
    assert len(httpserver.log) == 2


def test_weights_and_buffers_have_their_time() -> None:
    """70B weights, and a tier of hundreds of GiB, take longer to start than a tiny model."""
    assert Deadlines().engine_ready(0) == 240
    assert Deadlines().engine_ready(140 + 500) > 2000
    assert Deadlines(server_ready_s=10.0).server_ready(100) == 410
