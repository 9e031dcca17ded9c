"""Ending, stopping and starting one process of a local stack, with stand-ins for the two programs."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from fixtures.catalogue import limits
from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NotJudged, StackError
from fixtures.core.processes import process_tree, runs
from fixtures.core.progress import Progress
from fixtures.core.record import Server, StackRecord
from fixtures.core.waiting import poll
from fixtures.evidence.flags import flag_value
from fixtures.experiments.disruption import all_killed, badly, detoured, frozen, killed
from fixtures.instruments.client import Client
from fixtures.instruments.prompts import Prompts
from fixtures.provide.process.operator import LocalOperator
from fixtures.provide.process.process_teardown import tear_down
from fixtures.subject.stack import Stack
from tests import process_place
from tests.process_place import SHM, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.subject.cache_server import CacheServer
    from fixtures.subject.engine import Engine

machine = process_place.place


class Operated:
    """A running stack of stand-ins, and its operator."""

    def __init__(self, place: Place) -> None:
        self.fake, self.registry = place.fake, place.registry
        self.record = place.up()
        self.operator = LocalOperator(self.record, self.registry, Progress(place.said, live=False), Deadlines())
        self.stack = Stack(self.record, operator=self.operator)

    @property
    def saved(self) -> StackRecord:
        return StackRecord.load(self.registry / f"{self.record.id}.json")


@pytest.fixture
def place(machine: Place) -> Iterator[Operated]:
    made = Operated(machine)
    yield made
    assert not tear_down(made.record, made.registry).left_running


def prompts() -> Prompts:
    return Prompts(1, "operator", 256, 4000)


def pids(server: Server) -> set[int]:
    return {one.pid for one in process_tree(server.process)} if server.process else set()


def test_an_engine_ends_and_is_started_again_by_the_same_command(place: Operated) -> None:
    engine = place.record.engines[0]
    first, tree = engine.process, process_tree(engine.process) if engine.process else []
    assert first is not None
    assert len(tree) == 2
    shared = SHM / f"kvoc-fake-{first.pid}"
    assert shared.exists()
    place.operator.kill(engine)
    assert not any(map(runs, tree)), "the whole tree has ended"
    assert not first.alive
    assert not shared.exists(), "what it left in shared memory is freed, as by the end of a pod"
    place.operator.start(engine)
    assert engine.process is not None
    assert engine.process.alive
    assert engine.process != first
    assert psutil.Process(engine.process.pid).cmdline()[1:] == list(engine.argv)[1:]
    assert place.saved.engines[0].process == engine.process, "whoever ends the stack finds it"
    assert Client(engine.url).get("/health").status == 200


def test_shared_memory_of_others_stays(place: Operated) -> None:
    server, engine = place.record.cache_servers[0], place.record.engines[0]
    assert server.process is not None
    place.operator.kill(engine)
    assert (SHM / f"kvoc-fake-{server.process.pid}").exists()
    place.operator.start(engine)


def test_a_server_that_is_stopped_answers_nothing_until_it_goes_on(place: Operated) -> None:
    server = place.record.cache_servers[0]
    client = Client(server.url, deadline_s=0.3)
    place.operator.freeze(server)
    with pytest.raises(AssertionError):
        client.get("/healthcheck")
    place.operator.resume(server)
    assert Client(server.url).get("/healthcheck").status == 200


def test_a_server_that_does_not_come_back_leaves_nothing_running(place: Operated) -> None:
    engine = place.record.engines[0]
    place.operator.kill(engine)
    place.fake.behave(engine="dies")
    with pytest.raises(StackError, match="no weights here"):
        place.operator.start(engine)
    assert not pids(engine)
    place.fake.behave()
    place.operator.start(engine)


def test_what_is_no_process_of_this_machine_is_not_judged(place: Operated) -> None:
    with pytest.raises(NotJudged, match="not a process of this machine"):
        place.operator.kill(Server(name="elsewhere", url="http://x"))


# --- the contexts -----------------------------------------------------------------------------------------------------


def test_an_end_on_purpose_is_no_fault_and_is_undone(place: Operated) -> None:
    stack, engine = place.stack, place.stack.engine
    with killed(stack, engine) as found:
        assert stack.health.gone() == {}
        assert engine.server.process is not None
        assert not engine.server.process.alive
    assert found.acted < found.undone
    assert "is started again" in found.timeline
    assert stack.health.gone() == {}
    assert not stack.context.incidents.found
    assert stack.complete(prompts().unique(chunks=1)).sources.computed == 257


def test_several_servers_end_and_are_started_again_side_by_side(place: Operated) -> None:
    stack = place.stack
    parts: list[Engine | CacheServer] = [*stack.cache_servers, stack.engine]
    first = [one.server.process for one in parts]
    with all_killed(stack, parts[:1]) as found:
        assert found.kill is not None
        found.kill(*parts)
        assert not any(one.server.process and one.server.process.alive for one in parts)
        assert stack.health.gone() == {}
    assert found.acted < found.undone
    now = [one.server.process for one in parts]
    assert all(one is not None and one.alive and one not in first for one in now)
    assert stack.health.gone() == {}
    assert stack.complete(prompts().unique(chunks=1)).sources.computed == 257


def test_it_is_undone_whatever_happens(place: Operated) -> None:
    with pytest.raises(ZeroDivisionError), frozen(place.stack, place.stack.cache_servers[0]):
        raise ZeroDivisionError
    assert place.stack.cache_servers[0].config(), "it answers"
    with pytest.raises(ZeroDivisionError), killed(place.stack, place.stack.cache_servers[0]):
        raise ZeroDivisionError
    assert place.stack.cache_servers[0].config()


def test_a_cache_server_is_moved_behind_a_network_and_back(place: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEGRADED_S", 0.1)  # the engine is a stand-in, which notices nothing
    server = place.stack.cache_servers[0]
    port, first = int(flag_value(server.server.argv, "--port") or 0), server.server.process
    with detoured(place.stack, server) as network:
        assert network.mode == "pass"
        assert server.config(), "it answers"
        with pytest.raises(NotJudged, match="nothing came through"), badly(network, "silent", server):
            pass
        with (
            badly(network, "silent", server),
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port)) as one,
        ):
            one.sendall(b"x")
            assert poll(lambda: network.acted, bool, 5.0)
    assert server.config()
    assert server.server.process != first
    assert place.stack.health.gone() == {}


def test_an_engine_that_hangs_is_started_again_behind_the_network(
    place: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, server = place.record.engines[0].process, place.stack.cache_servers[0]
    own = server.server.argv
    place.stack.health._hung["fake-0"] = "POST /v1/completions: no answer within 30 s"
    with detoured(place.stack, server):
        of_server, of_engine = place.stack.revive()  # although it answers: it has not noticed that its server was moved
        assert server.server.argv != own
        assert server.config(), "it answers"
        monkeypatch.setattr(limits, "DEGRADED_S", 0.1)
    assert "its engine has to be started again, too" in of_server
    assert "fake-0 was started again" in of_engine
    assert place.record.engines[0].process != first
    assert server.server.argv == own
    assert place.stack.revive() == []


@pytest.mark.parametrize("kept", [True, False])
def test_where_an_engine_hangs_at_the_end_its_server_is_left_ended_unless_the_stack_is_kept(
    place: Operated, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    monkeypatch.setattr(limits, "DEGRADED_S", 0.1)
    server = place.stack.cache_servers[0]
    with detoured(place.stack, server, kept=kept):
        place.stack.health._hung["fake-0"] = "POST /v1/completions: no answer within 30 s"
    process = server.server.process
    assert process is not None
    assert process.alive is kept
    assert len(place.stack.revive()) == (1 if kept else 2)
    assert server.config(), "it answers"
    assert place.stack.health.gone() == {}


def test_nothing_is_done_where_it_is_not_allowed(place: Operated) -> None:
    stack = Stack(place.record, allowed=frozenset({"observes", "asks"}), operator=place.operator)
    with pytest.raises(NotJudged, match="--allow"), killed(stack, stack.engine):
        raise AssertionError
    assert stack.revive() == []
    with (
        pytest.raises(NotJudged, match="no server of this stack can be ended"),
        killed(Stack(place.record), stack.engine),
    ):
        raise AssertionError
    assert stack.engine.server.process is not None
    assert stack.engine.server.process.alive


# --- what earlier tests have ended ------------------------------------------------------------------------------------


def end(place: Operated) -> Any:
    """The engine ends by itself."""
    reference = place.record.engines[0].process
    assert reference is not None
    for one in process_tree(reference):
        one.kill()
    assert poll(lambda: reference.alive, lambda alive: not alive, 5.0) is False
    return reference


def test_what_has_ended_is_started_again_and_reported(place: Operated) -> None:
    first = end(place)
    (said,) = place.stack.revive()
    assert "was started again, because of an earlier test: engine fake-0 ended during the run" in said
    assert place.stack.health.gone() == {}
    assert [one.owner for one in place.stack.context.incidents.found] == ["ACT-04"], (
        "its end stays a fault of the subject"
    )
    assert place.record.engines[0].process != first
    place.stack.health.check_serving()
    assert place.stack.revive() == []


@pytest.mark.long
def test_an_engine_that_hangs_is_started_again(place: Operated) -> None:
    place.stack.health._hung["fake-0"] = "POST /v1/completions: no answer within 120 s"
    place.operator.freeze(place.record.engines[0])
    (said,) = place.stack.revive()
    assert "no answer within 120 s" in said
    place.stack.health.check_serving()


def test_an_engine_that_serves_again_is_left_alone(place: Operated) -> None:
    place.stack.health._hung["fake-0"] = "POST /v1/completions: no answer within 30 s"
    assert place.stack.revive() == []
    place.stack.health.check_serving()


def test_another_worker_takes_over_what_one_has_started(place: Operated) -> None:
    other = Stack(StackRecord.load(place.record.folder / "record.json"), operator=place.operator)
    end(place)
    place.stack.revive()
    assert other.health.gone() == {}
    assert other.engine.server.process == place.stack.engine.server.process


def test_the_files_of_a_server_are_limited_and_not_limited_again(place: Operated) -> None:
    server = place.record.cache_servers[0]
    assert server.process is not None
    process = server.process.process()
    assert process is not None
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    place.operator.limit_files(server, 4096)
    assert process.rlimit(psutil.RLIMIT_FSIZE) == (4096, before[1])
    place.operator.limit_files(server, None)
    assert process.rlimit(psutil.RLIMIT_FSIZE) == (before[1], before[1])
