"""Interrupts, taken ports, no room, missing programs: a stack that does not come up is taken down."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
import yaml

from fixtures.core import deadlines, files
from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import ConfigurationError, StackError
from fixtures.core.ports import free_port
from fixtures.provide.process import launch, local_servers
from fixtures.provide.process.process_teardown import tear_down
from fixtures.provide.process.ready import PortTakenError
from tests import fakes, process_place
from tests.process_place import NOTHING, Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


place = process_place.place
taken = process_place.taken


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


@pytest.mark.parametrize(
    "before", [pytest.param(0, id="of the cache server", marks=pytest.mark.long), pytest.param(2, id="of the engine")]
)
def test_a_port_that_was_taken_meanwhile_is_changed_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, taken: int, before: int
) -> None:
    free = free_port
    given = iter([*(free() for _ in range(before)), taken])
    monkeypatch.setattr(local_servers, "free_port", lambda: next(given, None) or free())
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
    monkeypatch.setattr(local_servers, "free_port", lambda: next(given))
    with pytest.raises(PortTakenError, match=r"fake-0 ended while .*address already in use .*fake-0\.log"):
        place.up()
    assert place.left() == NOTHING


@pytest.mark.long
def test_a_stranger_on_our_port_is_not_taken_for_ours(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first = place.up("first")
    free = free_port
    port = int(first.engines[0].url.rsplit(":", 1)[1])
    given = iter([free(), free(), port])
    monkeypatch.setattr(local_servers, "free_port", lambda: next(given, None) or free())
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
