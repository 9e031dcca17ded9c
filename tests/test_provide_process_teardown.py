"""What has to be killed, outlives its parent, is frozen, or was left by others."""

from __future__ import annotations

import io
import os
import signal
import time

import pytest

from fixtures.core.processes import ProcessRef, process_tree
from fixtures.core.progress import Progress
from fixtures.provide.orphans import remove_orphans
from fixtures.provide.process.process_teardown import tear_down
from tests import process_place
from tests.process_place import NOTHING, Place, shared_memory_of

place = process_place.place
taken = process_place.taken


@pytest.mark.long
def test_what_has_to_be_killed_is_reported_with_what_it_leaves(place: Place) -> None:
    place.fake.behave(engine="stubborn", server="stubborn")
    record = place.up()
    taken = [path.stat().st_blocks * 512 for path in shared_memory_of(record)]
    assert all(taken)
    report = tear_down(record, place.registry, grace_s=0.5)
    assert report.left_running == ()
    assert report.left_in_shared_memory == tuple(sorted(str(path) for path in shared_memory_of(record)))
    assert report.shared_memory_bytes == sum(taken)
    assert not any(path.exists() for path in shared_memory_of(record))
    assert place.left() == NOTHING


def test_a_child_that_outlives_its_parent_is_killed(place: Place) -> None:
    place.fake.behave(engine="orphans")
    record = place.up()
    report = tear_down(record, place.registry, grace_s=0.5)
    assert report.left_running == ()
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
