"""An upgrade that changes nothing, something, or never finishes (REL-01, REL-02)."""

from __future__ import annotations

import copy
import time
from pathlib import Path

import pytest

from fixtures.core.errors import NotApplicable, NotJudged, SubjectFault
from fixtures.provide.release.helm_upgrade import MARK, with_change
from fixtures.provide.release.readiness import ready_after_s
from tests import release_site
from tests.fakes.api_server import FATES, Json
from tests.release_site import Site, changed

pytest.importorskip("kubernetes")

site = release_site.site
site4 = release_site.site4


@pytest.mark.long
def test_a_release_starts_and_an_upgrade_changes_nothing(site: Site) -> None:
    release = site.install()
    assert len(site.wait().found) == 2
    assert {one.role for one in release.starts()} == {"engine", "router"}
    assert release.blocked() == []
    assert release.upgrade_unchanged() == []
    assert release.unpinned_images() == ["example/engine:1"]
    assert release.unnamed() == ["chart", "vLLM", "LMCache"]
    site.cluster.restart(site.cluster.pods("mine")[0]["metadata"]["name"], why="OOMKilled", code=137)
    assert any(one.restarts == 1 and "was OOMKilled" in str(one.ended) for one in release.starts())


def test_a_readiness_that_flaps_under_load_is_not_the_start(site4: Site) -> None:
    release = site4.install()
    site4.wait()
    before = {one.name: one.seconds for one in release.starts()}
    release.facts.started_s = ready_after_s(site4.cluster.pods("mine"))
    pod = site4.cluster.pods("mine")[0]
    for one in pod["status"]["conditions"]:
        if one["type"] == "Ready":
            one["lastTransitionTime"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    assert {one.name: one.seconds for one in release.starts()} == before
    release.facts.started_s = {}
    (flapped,) = [one for one in release.starts() if one.seconds != before[one.name]]
    assert (flapped.seconds or 0) > 3000


def test_restarts_before_an_adopted_release_was_seen_are_history(site4: Site) -> None:
    release = site4.install()
    pod = site4.cluster.pods("mine")[0]
    site4.cluster.restart(pod["metadata"]["name"])
    release.facts.restarts_before = {pod["metadata"]["uid"]: 1}
    assert all(one.restarts == 0 for one in release.starts())
    site4.cluster.restart(pod["metadata"]["name"])
    assert sum(one.restarts for one in release.starts()) == 1
    release.check_own()
    with pytest.raises(NotJudged, match="the start-up before the run is not judged"):
        site4.release(own=False).check_own()


def test_what_others_add_during_a_run_is_not_judged(site4: Site) -> None:
    site4.install()
    release = site4.release(own=False)
    release.facts.restarts_before = {one["metadata"]["uid"]: 0 for one in site4.cluster.pods("mine")}
    engine = next(one for one in site4.cluster.pods("mine") if "vllm" in one["metadata"]["name"])
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "1 Insufficient gpu"}
    long_ago = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
    added = copy.deepcopy(engine)
    added["metadata"] |= {"name": "added", "uid": "added", "creationTimestamp": long_ago}
    added["status"] = {"phase": "Pending", "conditions": [waits | {"lastTransitionTime": long_ago}]}
    site4.cluster.put("api/v1/pods", "mine", added)
    (told,) = release.blocked()
    assert told.startswith("Pod added: Unschedulable")
    release.record.created = time.time() - 120  # now it was added during the run
    with pytest.raises(NotJudged, match="the release was changed meanwhile: Pod added: Unschedulable"):
        release.blocked()
    added["status"]["containerStatuses"] = [{"name": "vllm", "restartCount": 3}]
    assert "added" not in [one.name for one in release.starts()]
    site4.cluster.put("api/v1/configmaps", "kube-system", {"metadata": {"name": "cluster-autoscaler-status"}})
    release.record.created = time.time()
    assert release.blocked() == [], "the autoscaler has not said yet whether a node comes"


def test_an_upgrade_that_changes_something_is_reported(site4: Site) -> None:
    release = site4.install()
    template = Path(site4.chart.reference) / "templates/all.yaml"
    template.write_text(template.read_text().replace("failureThreshold: 20", "failureThreshold: 21"))
    found = release.upgrade_unchanged()
    assert any(one.startswith("Deployment rel-m-deployment-vllm: generation 1 before, generation 2") for one in found)
    assert any(one.startswith("Pod ") for one in found)


def test_a_release_of_others_is_not_upgraded(site4: Site) -> None:
    site4.install()
    with pytest.raises(NotApplicable, match="the run did not install the release"):
        site4.release(own=False).upgrade_unchanged()
    with pytest.raises(NotApplicable, match="the run did not install the release"):
        site4.release(own=False).upgrade_changing(site4.progress)


BUFFER = {"enabled": True, "cpuOffloadingBufferSize": "20"}


def test_an_upgrade_to_other_values_replaces_the_engines(site4: Site) -> None:
    release = site4.install(changed(lmcacheConfig=BUFFER))
    release.record.model = "org/m"
    site4.wait()
    before = {one["metadata"]["uid"]: one["metadata"]["name"] for one in site4.cluster.pods("mine")}
    release.record.save(None)
    what, now = release.upgrade_changing(site4.progress)
    assert what == "cpuOffloadingBufferSize 20 -> 18"
    (engine,) = now.engines
    assert engine.pod is not None
    assert engine.pod.uid not in before, "the pod of the engine is another one"
    (router,) = now.routers
    assert router.pod is not None
    assert router.pod.uid in before, "nothing of the router was changed"


def unscheduled(message: str) -> Json:
    """How a pod fares that the scheduler gives no node, for another reason than the recorded one."""
    fate = copy.deepcopy(FATES["gpu"])
    for one in (*fate["events"], *fate["pods"][0]["status"]["conditions"]):
        one["message"] = message
    return fate


def unmounted(message: str) -> Json:
    """How a pod fares whose volume cannot be attached."""
    fate = copy.deepcopy(FATES["mount"])
    for one in fate["events"]:
        if one["reason"] == "FailedMount":
            one |= {"reason": "FailedAttachVolume", "message": message}
    return fate


MAKE_ROOM = "set servingEngineSpec.strategy to {type: Recreate}"
NEVER = {
    "GPUs all taken": ("gpu", "Insufficient nvidia.com/gpu", MAKE_ROOM),
    "no such image": ("pull", "no-such-image", "correct the image name"),
    "volume on another node": (
        unmounted('Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) rel-m-deployment-vllm-0'),
        "Multi-Attach error",
        MAKE_ROOM,
    ),
    "volume of one pod": (
        unscheduled(
            "0/1 nodes are available: 1 node has pod using PersistentVolumeClaim with the same name and "
            "ReadWriteOncePod access mode."
        ),
        "ReadWriteOncePod",
        MAKE_ROOM,
    ),
}


@pytest.mark.parametrize("why", NEVER)
def test_an_upgrade_that_can_never_finish_is_told_within_seconds(
    site4: Site, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    fate, words, remedy = NEVER[why]
    release = site4.install()
    site4.wait()
    release.record.save(None)
    monkeypatch.setitem(FATES, "never finishes", FATES[fate] if isinstance(fate, str) else fate)
    site4.cluster.fates, site4.cluster.young_s = {"vllm": "never finishes"}, 60.0
    began = time.monotonic()
    with pytest.raises(SubjectFault, match=words) as told:
        release.upgrade_changing(site4.progress)
    assert time.monotonic() - began < 10
    assert remedy in str(told.value)
    assert ("servingEngineSpec.strategy" in str(told.value)) == (remedy == MAKE_ROOM), (
        "only what old pods hold comes back"
    )


def test_what_an_upgrade_changes() -> None:
    with_buffer = (changed(lmcacheConfig=BUFFER), "cpuOffloadingBufferSize 20 -> 18")
    whole = (changed(lmcacheConfig={**BUFFER, "cpuOffloadingBufferSize": 5}), "cpuOffloadingBufferSize 5 -> 4")
    small = (changed(lmcacheConfig={**BUFFER, "cpuOffloadingBufferSize": 1}), f"env {MARK}=1")
    for config, what in (with_buffer, whole, small, (changed(lmcacheConfig={"enabled": False}), f"env {MARK}=1")):
        before = copy.deepcopy(config)
        values, said = with_change(config)
        assert said == what
        assert config == before
        assert values != before


def test_a_release_whose_chart_no_longer_renders_is_a_fault(site4: Site) -> None:
    release = site4.install()
    templates = Path(site4.chart.reference) / "templates/all.yaml"
    templates.write_text(templates.read_text() + '\n{{ fail "no" }}\n')
    with pytest.raises(SubjectFault, match="expected the chart to render"):
        release.keys_without_effect(None)


@pytest.mark.parametrize(
    ("tag", "runs", "becomes"),
    [
        ("v1", "docker.io/org/engine@sha256:abc", "v1@sha256:abc"),
        ("v1", "docker-pullable://org/engine@sha256:abc", "v1@sha256:abc"),
        ("v1", "docker.io/library/import-2026-11-30@sha256:abc", None),  # loaded onto the node: no registry has it
        ("v1", "sha256:abc", None),
        ("v2", "docker.io/org/engine@sha256:abc", None),  # another image than that of the pod
        ("v1@sha256:abc", "docker.io/org/engine@sha256:abc", None),
    ],
)
def test_an_upgrade_changes_the_tag_of_an_image_that_a_registry_has(tag: str, runs: str, becomes: str | None) -> None:
    container = {"name": "vllm", "image": "org/engine:v1"}
    pods = [{"spec": {"containers": [container]}, "status": {"containerStatuses": [{"name": "vllm", "imageID": runs}]}}]
    values, said = with_change(changed(repository="org/engine", tag=tag), pods)
    assert said == (f"tag {tag} -> {becomes}" if becomes else f"env {MARK}=1")
    assert values["servingEngineSpec"]["modelSpec"][0]["tag"] == (becomes or tag)
    _, said = with_change(changed(repository="org/engine", tag=tag, lmcacheConfig=BUFFER), pods)
    assert said == "cpuOffloadingBufferSize 20 -> 18" + (f", tag {tag} -> {becomes}" if becomes else "")
