"""Ending and stopping containers from inside of them, on a stand-in cluster: what a test does is not a fault of the release."""

from __future__ import annotations

import io
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NotApplicable, NotJudged, StackError, SubjectFault
from fixtures.core.progress import Progress
from fixtures.core.record import EngineServer, PodRef, StackRecord
from fixtures.core.waiting import poll
from fixtures.evidence.pods.containers import role_of
from fixtures.evidence.pods.objects import name_of, uid_of
from fixtures.experiments.disruption import all_killed, detoured, frozen, killed
from fixtures.provide.release import pod_operator
from fixtures.provide.release.cluster_session import ClusterSession
from fixtures.provide.release.pod_operator import PodOperator
from fixtures.subject.cache_server import CacheServer
from fixtures.subject.stack import Stack
from tests.release_site import Site
from tests.stand_in_chart import VALUES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_httpserver import HTTPServer

pytest.importorskip("kubernetes")
MODEL = "m"
NOTHING_RUNS = json.dumps({"running": [], "why": ""})


class Place:
    """A release with one engine, on a stand-in cluster, and its operator."""

    def __init__(self, site: Site, folder: Path, port: int) -> None:
        self.cluster, self.registry = site.cluster, folder / "stacks"
        self.record = site.install(VALUES).record
        (pod,) = [one for one in site.cluster.pods("mine") if role_of(one) == "engine"]
        self.name = name_of(pod)
        reference = PodRef(namespace="mine", name=self.name, uid=uid_of(pod), container="vllm", port=8000)
        for one in site.cluster.pods("mine"):
            for status in one["status"]["containerStatuses"]:
                status["restartCount"] = 0
        self.record.model, self.record.folder = MODEL, folder / "run"
        self.record.engines = [EngineServer(name="engine", url="http://10.0.0.1:8000", pod=reference, argv=("vllm",))]
        self.record.save(self.registry)
        site.cluster.targets["vllm", 8000] = ("127.0.0.1", port)
        self.session = self.opened(folder / "logs")
        self.operator = self.operator_of(self.session)
        self.stack = Stack(self.session.record, self.session, operator=self.operator)

    def opened(self, folder: Path) -> ClusterSession:
        return ClusterSession(self.record.saved(), folder)

    def operator_of(self, session: ClusterSession) -> PodOperator:
        return PodOperator(session, self.registry, Progress(io.StringIO(), live=False), Deadlines())

    @property
    def engine(self) -> EngineServer:
        return self.session.record.engines[0]

    @property
    def pod(self) -> dict[str, Any]:
        return next(one for one in self.cluster.pods("mine") if name_of(one) == self.name)

    def does(self, what: str, program: str | Callable[[], str | None]) -> None:
        """What the script does in the container."""
        self.cluster.programs[f"main()\n {what}"] = program

    def restart(self) -> None:
        self.cluster.restart(self.name, code=137)

    def is_ready(self, ready: str) -> None:
        for condition in self.pod["status"]["conditions"]:
            if condition["type"] == "Ready":
                condition["status"] = ready


@pytest.fixture
def place(tmp_path: Path, httpserver: HTTPServer) -> Iterator[Place]:
    httpserver.expect_request("/health").respond_with_data("")
    httpserver.expect_request("/metrics").respond_with_data("x 1\n")
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": MODEL}]})
    httpserver.expect_request("/v1/completions").respond_with_json({"choices": [{"text": "a"}]})
    site = Site(4, tmp_path)
    made = Place(site, tmp_path, httpserver.port)
    made.does("kill", lambda: made.restart())
    made.does("stop", NOTHING_RUNS)
    made.does("continue", "{}")
    yield made
    made.session.close()
    site.cluster.stop()


def test_an_end_on_purpose_is_no_fault_of_the_release(place: Place, tmp_path: Path) -> None:
    with place.opened(tmp_path / "other") as other, killed(place.stack, place.stack.engine) as found:
        with pytest.raises(SubjectFault, match="ended during the run"):
            place.session.check(place.engine)
        place.session._endpoints._forwards["engine"]._note("cut")
        assert place.stack.health.gone() == {}
    assert "engine serves again" in found.timeline
    assert place.engine.pod is not None
    assert place.engine.pod.restarts == 1
    assert place.stack.health.gone() == {}
    assert not place.stack.context.incidents.found
    assert [one.restarts for one in place.session.release.starts() if one.role == "engine"] == [0]
    other._endpoints._forwards["engine"]._note("cut")
    assert Stack(other.record, other).health.gone() == {}, "another worker takes it over from the saved record"
    assert [one.restarts for one in other.release.starts() if one.role == "engine"] == [0]
    saved = StackRecord.load(place.registry / f"{place.record.id}.json")
    assert saved.engines[0].pod == place.record.engines[0].pod.model_copy(update={"restarts": 1})  # type: ignore[union-attr]
    assert saved.engines[0].url == "http://10.0.0.1:8000", "an address of this machine is in no record"


@pytest.mark.long
def test_the_next_end_by_itself_is_one(place: Place) -> None:
    with all_killed(place.stack, place.stack.engines) as done:
        assert done.kill is None, "the first of several would be back before the last one has ended"
    log = place.stack.engine.log
    assert log is not None
    place.cluster.say(place.name, "Traceback (most recent call last):")
    place.cluster.say(place.name, "ValueError: no room")
    assert "no room" in poll(log.text, lambda text: "no room" in text, 5.0)
    place.restart()
    (why,) = place.stack.health.gone().values()
    assert "1 restarts): ValueError: no room" in why
    assert [one.restarts for one in place.session.release.starts() if one.role == "engine"] == [1]


def test_the_log_goes_on_after_a_restart(place: Place) -> None:
    log = place.stack.engine.log
    assert log is not None
    with killed(place.stack, place.stack.engine):
        before = log.position()
        place.cluster.say(place.name, "INFO started again")
    assert "started again" in log.text(before)
    assert place.stack.health._since["engine"] == log.position()


def test_what_has_ended_by_itself_is_waited_for_and_stays_a_fault(place: Place) -> None:
    place.does("kill", "")
    place.restart()
    (said,) = place.stack.revive()
    assert "was started again, because of an earlier test: engine ended during the run" in said
    assert place.stack.health.gone() == {}
    assert {one.owner for one in place.stack.context.incidents.found} == {"ACT-04", "REL-01"}
    assert [one.restarts for one in place.session.release.starts() if one.role == "engine"] == [1]
    assert place.stack.revive() == []


def test_an_engine_that_hangs_is_ended(place: Place, httpserver: HTTPServer) -> None:
    place.stack.health._hung["engine"] = "POST /v1/completions: no answer within 120 s"
    httpserver.expect_oneshot_request("/v1/completions").respond_with_data("", status=500)
    (said,) = place.stack.revive()
    assert "no answer within 120 s" in said
    assert place.engine.pod is not None
    assert place.engine.pod.restarts == 1


def test_one_that_cannot_be_ended_is_not_judged(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_operator, "ENDS_S", 0.2)
    place.does("kill", "{}")
    with pytest.raises(NotJudged, match="engine cannot be ended from inside its pod; judge the same"):
        place.operator.kill(place.engine)
    place.cluster.programs.clear()
    with pytest.raises(NotJudged, match=r"cannot be ended from inside its pod \(python3 in pod .*not found"):
        place.operator.kill(place.engine)
    place.session.check(place.engine)


def test_what_nothing_would_start_again_is_not_ended(place: Place) -> None:
    place.pod["spec"]["restartPolicy"] = "Never"
    with pytest.raises(NotJudged, match="nothing starts the container"):
        place.operator.kill(place.engine)
    place.session.check(place.engine)


def test_without_the_right_to_run_commands_nothing_is_judged(place: Place) -> None:
    place.cluster.forbidden |= {("create", "pods/exec"), ("get", "pods/exec")}
    for act in (place.operator.kill, place.operator.freeze):
        with pytest.raises(NotJudged, match=r"may not run commands in pod .* \(pods/exec\).*kubectl apply"):
            act(place.engine)


def test_a_pod_that_others_replace_is_not_judged(place: Place) -> None:
    place.cluster._drop("api/v1/pods", "mine", place.name)
    with pytest.raises(NotJudged, match="the release was changed meanwhile"):
        place.operator.kill(place.engine)
    with pytest.raises(NotJudged, match="the release was changed meanwhile"):
        place.operator.start(place.engine)


def test_a_container_that_does_not_come_back_is_told_with_its_state(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.is_ready("False")
    monkeypatch.setattr(place.operator, "_start_s", lambda _: 0.2)
    waited: list[float] = []
    place.operator.on_wait = waited.append
    with pytest.raises(StackError, match=r"engine did not serve again within 0 s: .*not Ready"):
        place.operator.start(place.engine)
    assert waited == [0.2], "the test has that long"


@pytest.mark.long
def test_start_waits_until_the_pod_is_ready(place: Place) -> None:
    place.is_ready("False")
    back = threading.Timer(0.5, place.is_ready, ("True",))
    back.start()
    place.operator.start(place.engine)
    assert not back.is_alive()


def test_a_pod_is_not_moved_behind_a_network(place: Place) -> None:
    server = CacheServer(place.engine, place.session, place.stack.context)
    with pytest.raises(NotApplicable, match="not a process of this machine"), detoured(place.stack, server):
        raise AssertionError
    place.session.check(place.engine)


def test_the_disk_of_a_pod_is_not_filled(place: Place) -> None:
    with pytest.raises(NotJudged, match="--stack process"):
        place.operator.limit_files(place.engine, 4096)
    place.operator.limit_files(place.engine, None)


def test_a_container_is_stopped_and_goes_on(place: Place) -> None:
    done: list[str] = []
    place.does("continue", lambda: done.append("continue") or "{}")
    with frozen(place.stack, place.stack.engine):
        assert not done
    assert done == ["continue"]
    assert place.stack.health.gone() == {}


def test_the_first_process_of_a_container_may_not_be_stopped(place: Place) -> None:
    place.does("stop", json.dumps({"running": [1], "why": "Operation not permitted"}))
    with (
        pytest.raises(NotApplicable, match=r"is the first process of its container.*\(Operation not permitted\)"),
        frozen(place.stack, place.stack.engine),
    ):
        raise AssertionError
    place.does("stop", json.dumps({"running": [7], "why": ""}))
    with pytest.raises(NotJudged, match=r"processes \[7\] of engine go on"):
        place.operator.freeze(place.engine)


def test_a_container_without_python_is_not_stopped(place: Place) -> None:
    place.cluster.programs.clear()
    with pytest.raises(NotJudged, match=r"cannot be stopped from inside its pod \(python"):
        place.operator.freeze(place.engine)


def test_a_probe_that_ends_what_is_stopped_is_the_doing_of_the_test(place: Place) -> None:
    with frozen(place.stack, place.stack.engine):
        place.restart()
        place.cluster.programs.clear()  # no command can be run in a container that is being started
    assert place.stack.health.gone() == {}
    assert [one.restarts for one in place.session.release.starts() if one.role == "engine"] == [0]


def test_a_container_whose_end_the_pod_does_not_say_yet_goes_on(place: Place) -> None:
    later = threading.Timer(0.6, place.restart)
    with frozen(place.stack, place.stack.engine):
        place.cluster.programs.clear()
        later.start()
    later.join()
    assert place.engine.pod is not None
    assert place.engine.pod.restarts == 1
    assert place.stack.health.gone() == {}


def test_a_container_that_does_not_go_on_is_an_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_operator, "ENDS_S", 0.2)
    with pytest.raises(StackError, match="python"), frozen(place.stack, place.stack.engine):
        place.cluster.programs.clear()


def test_a_container_that_goes_on_and_is_ended_all_the_same_is_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen on a node: three liveness probes had failed, so the kubelet ended the container after it had gone on."""
    asked: list[str] = []

    def completion(_: ClusterSession, server: EngineServer) -> None:
        asked.append(server.name)
        if len(asked) == 1:
            place.restart()
            raise StackError("ended during the run")

    monkeypatch.setattr(pod_operator, "await_completion", completion)
    with frozen(place.stack, place.stack.engine):
        pass
    assert asked == ["engine", "engine"]
    assert place.stack.health.gone() == {}
    assert [one.restarts for one in place.session.release.starts() if one.role == "engine"] == [0]


def test_one_that_goes_on_and_does_not_serve_is_an_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def completion(*_: object) -> None:
        raise StackError("no completion")

    monkeypatch.setattr(pod_operator, "await_completion", completion)
    with pytest.raises(StackError, match="no completion"), frozen(place.stack, place.stack.engine):
        pass
