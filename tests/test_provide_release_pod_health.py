"""Why a pod does not answer: it ended, was moved, or the connection was cut."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from fixtures.core.errors import NotJudged, StackError, SubjectFault
from fixtures.evidence.pods.objects import name_of, uid_of
from fixtures.provide.release import cluster_session
from tests import release_access
from tests.release_access import engine, pod_of

if TYPE_CHECKING:
    from fixtures.provide.release.cluster_session import ClusterSession
    from tests.release_site import Site

pytest.importorskip("kubernetes")

access = release_access.access
site = release_access.site


def test_a_restart_is_the_subjects_fault(site: Site, access: ClusterSession) -> None:
    site.cluster.restart(engine(access).pod.name, why="OOMKilled", code=137)  # type: ignore[union-attr]
    with pytest.raises(
        SubjectFault, match=r"engine ended during the run \(1 restarts\): container vllm was OOMKilled: its"
    ):
        access.check(engine(access))


def test_another_end_is_told_with_its_code(site: Site, access: ClusterSession) -> None:
    site.cluster.restart(engine(access).pod.name, why="Error", code=1)  # type: ignore[union-attr]
    with pytest.raises(SubjectFault, match=r"engine ended during the run \(Error \(exit code 1\), 1 restarts\)"):
        access.check(engine(access))


@pytest.mark.parametrize("why", ["Unknown", "ContainerStatusUnknown", "definition changed", "resize requires restart"])
def test_an_end_that_others_brought_about_is_not_judged(site: Site, access: ClusterSession, why: str) -> None:
    pod = pod_of(site, access)
    words = "the node of pod .* was restarted"
    if " " in why:
        words = f"Container vllm {why}"
        about = {"kind": "Pod", "name": name_of(pod), "uid": uid_of(pod)}
        told = {"reason": "Killing", "message": f"Container vllm {why}, will be restarted", "involvedObject": about}
        site.cluster.put("api/v1/events", "mine", {**told, "metadata": {"name": "e"}, "lastTimestamp": in_an_hour()})
    site.cluster.restart(name_of(pod), why="Error" if " " in why else why, code=255)
    with pytest.raises(NotJudged, match=f"the release was changed meanwhile: .*{words}"):
        access.check(engine(access))
    access.release.facts.restarts_before = {uid_of(one): 0 for one in site.cluster.pods("mine")}
    with pytest.raises(NotJudged, match=f"the release was changed meanwhile: .*{words}"):
        access.release.starts()
    other = next(one for one in site.cluster.pods("mine") if uid_of(one) != uid_of(pod))
    site.cluster.restart(name_of(other), why="Error", code=1)
    assert [one.restarts for one in access.release.starts()] == [1], "one that ended by itself is judged"


def test_a_pod_that_is_deleted_is_a_change_of_the_release(site: Site, access: ClusterSession) -> None:
    name = engine(access).pod.name  # type: ignore[union-attr]
    about = {"kind": "ReplicaSet", "name": "rs", "uid": "2"}
    told = {"reason": "SuccessfulDelete", "message": f"Deleted pod: {name}", "involvedObject": about}
    site.cluster.put("api/v1/events", "mine", {**told, "metadata": {"name": "e"}, "lastTimestamp": in_an_hour()})
    pod_of(site, access)["metadata"]["deletionTimestamp"] = "2026-11-25T14:00:00Z"
    with pytest.raises(
        NotJudged, match=rf"the release was changed meanwhile: pod {name} is being deleted \(SuccessfulDelete"
    ):
        access.check(engine(access))
    site.cluster._drop("api/v1/pods", "mine", name)
    with pytest.raises(NotJudged, match=rf"pod {name} was deleted \(SuccessfulDelete: Deleted pod: {name}\)"):
        access.check(engine(access))
    with pytest.raises(NotJudged, match="the release was changed meanwhile"):
        access.resident_bytes(engine(access))


def in_an_hour() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))


def test_a_drained_node_is_told_by_the_pod_and_by_the_one_in_its_place(site: Site, access: ClusterSession) -> None:
    """Recorded on a node that was drained: no event says so, and that of the installation is an old story."""
    pod = pod_of(site, access)
    name = name_of(pod)
    made = {"reason": "ScalingReplicaSet", "involvedObject": {"kind": "Deployment", "name": name.rsplit("-", 2)[0]}}
    for number, (message, when) in enumerate(
        [
            (f"Scaled up replica set {name.rpartition('-')[0]} from 0 to 1", in_an_hour()),
            (f"Scaled down replica set {name.rpartition('-')[0]} from 1 to 0", "2026-11-25T14:00:00Z"),
        ]
    ):
        event = {**made, "message": message, "metadata": {"name": f"e{number}"}, "lastTimestamp": when}
        site.cluster.put("api/v1/events", "mine", event)
    pod["metadata"]["deletionTimestamp"] = "2026-11-29T02:24:16Z"
    evicted = {"type": "DisruptionTarget", "status": "True", "message": "Eviction API: evicting"}
    pod["status"]["conditions"].append(evicted)
    with pytest.raises(NotJudged, match=rf"pod {name} is being deleted \(Eviction API: evicting\); do not scale, roll"):
        access.check(engine(access))
    site.cluster._drop("api/v1/pods", "mine", name)
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 fit"}
    other = f"{name.rpartition('-')[0]}-other"
    site.cluster.put(
        "api/v1/pods", "mine", {"metadata": {"name": other, "uid": "o"}, "status": {"conditions": [waits]}}
    )
    with pytest.raises(
        NotJudged,
        match=rf"pod {name} was deleted \(Eviction API: evicting; in its place {other} is Unschedulable: 0/1 fit\)",
    ):
        access.check(engine(access))


def test_an_evicted_pod_is_a_change_unless_it_broke_its_own_limit(site: Site, access: ClusterSession) -> None:
    status = pod_of(site, access)["status"]
    status |= {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    with pytest.raises(NotJudged, match="is Evicted: The node was low on resource: memory"):
        access.check(engine(access))
    status["message"] = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."
    with pytest.raises(SubjectFault, match="was evicted: Pod ephemeral local storage"):
        access.check(engine(access))


@pytest.mark.long
def test_a_death_that_cuts_a_connection_is_still_a_death(site: Site, access: ClusterSession) -> None:
    access._endpoints._forwards["engine"]._note("cut")
    name = engine(access).pod.name  # type: ignore[union-attr]
    threading.Timer(0.5, lambda: site.cluster.restart(name)).start()
    with pytest.raises(SubjectFault, match="ended during the run"):
        access.check(engine(access))


def test_a_cut_alone_is_an_error_of_the_run(access: ClusterSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_session, "END_SHOWS_S", 0.2)
    access._endpoints._forwards["engine"]._note("cut")
    with pytest.raises(StackError, match="does not prove a fault of the pod"):
        access.check(engine(access))
