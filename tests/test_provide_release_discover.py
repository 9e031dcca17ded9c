"""The pods of a release, also those that operators, sets and groups have made."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.provide.kube.paths import PATHS
from fixtures.provide.release.snapshot import take_snapshot
from tests import release_site
from tests.release_site import Site, running

pytest.importorskip("kubernetes")

site4 = release_site.site4


def owned(name: str, kind: str, owner: str, uid: str = "") -> dict[str, Any]:
    by = [{"kind": kind, "name": owner, "uid": uid or f"uid-{owner}", "controller": True}]
    return {"metadata": {"name": name, "uid": f"uid-{name}", "ownerReferences": by}}


def test_pods_of_operators_sets_and_groups_are_found(site4: Site) -> None:
    put, apps = site4.cluster.put, "apis/apps/v1"
    site4.cluster.put("api/v1/namespaces", "", {"metadata": {"name": "mine"}})
    pod = "api/v1/pods"
    # an operator: its own object, the Deployment that it makes, a ReplicaSet, a pod
    site4.cluster.objects[f"{apps}/deployments", "mine", "run-d"] = owned("run-d", "VLLMRuntime", "run") | {
        "spec": {"replicas": 1}
    }
    put(f"{apps}/replicasets", "mine", owned("run-rs", "Deployment", "run-d") | {"spec": {"replicas": 1}})
    put(pod, "mine", running(owned("run-p", "ReplicaSet", "run-rs"), "vllm", "serve", "a"))
    # a LeaderWorkerSet: a StatefulSet of leaders, which own a StatefulSet of workers each
    lws = {"spec": {"replicas": 1, "leaderWorkerTemplate": {"size": 2}}, "metadata": {"name": "big", "uid": "uid-big"}}
    put("apis/leaderworkerset.x-k8s.io/v1/leaderworkersets", "mine", lws)
    put(f"{apps}/statefulsets", "mine", owned("big-s", "LeaderWorkerSet", "big") | {"spec": {"replicas": 1}})
    put(pod, "mine", running(owned("big-0", "StatefulSet", "big-s"), "bash", "-c", "ray start --head && vllm serve b"))
    put(f"{apps}/statefulsets", "mine", owned("big-0-s", "Pod", "big-0") | {"spec": {"replicas": 1}})
    put(pod, "mine", running(owned("big-0-1", "StatefulSet", "big-0-s"), "ray", "start", "--block"))
    # a DaemonSet
    daemons = {"metadata": {"name": "kv", "uid": "uid-kv"}, "spec": {}, "status": {"desiredNumberScheduled": 1}}
    put(f"{apps}/daemonsets", "mine", daemons)
    put(pod, "mine", running(owned("kv-x", "DaemonSet", "kv"), "lmcache", "server"))
    put(pod, "mine", running({"metadata": {"name": "foreign"}}, "vllm", "serve", "z"))
    manifest = [
        {"apiVersion": "production-stack.vllm.ai/v1alpha1", "kind": "VLLMRuntime", "metadata": {"name": "run"}},
        {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "metadata": {"name": "big"}},
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "kv"}},
    ]
    seen = take_snapshot(site4.kube, "mine", manifest)
    assert [one["metadata"]["name"] for one in seen.of_role("engine")] == ["big-0", "run-p"]
    assert [one["metadata"]["name"] for one in seen.of_role("cache server")] == ["kv-x"]
    assert sorted(one["metadata"]["name"] for one in seen.of_role("other")) == ["big-0-1"]
    assert seen.wanted() == 4
    site4.cluster.forbidden.add(("list", "daemonsets"))
    again = take_snapshot(site4.kube, "mine", manifest)
    assert [one["metadata"]["name"] for one in again.of_role("cache server")] == ["kv-x"], "its owner's name is enough"


def made_by(name: str, api: str, kind: str, owner: str) -> dict[str, Any]:
    thing = owned(name, kind, owner)
    thing["metadata"]["ownerReferences"][0]["apiVersion"] = api
    return thing


OPERATORS = {
    # kind of the release's object: (its API, the objects between it and what makes its pods: API, kind, plural)
    "DynamoGraphDeployment": (
        "nvidia.com/v1alpha1",
        [("nvidia.com/v1alpha1", "DynamoComponentDeployment", "dynamocomponentdeployments")],
    ),
    "InferenceService": (
        "serving.kserve.io/v1beta1",
        [
            ("serving.knative.dev/v1", "Configuration", "configurations"),
            ("serving.knative.dev/v1", "Revision", "revisions"),
        ],
    ),
    "RayService": ("ray.io/v1", [("ray.io/v1", "RayCluster", "rayclusters")]),
    "Rollout": ("argoproj.io/v1alpha1", []),
}


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("DynamoGraphDeployment", "Deployment"),
        ("InferenceService", "Deployment"),
        ("RayService", "Pod"),
        ("Rollout", "ReplicaSet"),
    ],
)
def test_pods_are_found_through_objects_of_an_operator(
    site4: Site, monkeypatch: pytest.MonkeyPatch, kind: str, last: str
) -> None:
    put = site4.cluster.put
    put("api/v1/namespaces", "", {"metadata": {"name": "mine"}})
    api, between = OPERATORS[kind]
    above = (api, kind, "x")
    for number, (of, one, plural) in enumerate(between):
        monkeypatch.setitem(PATHS, one, (f"apis/{of}", plural))
        put(f"apis/{of}/{plural}", "mine", made_by(f"between-{number}", *above))
        above = (of, one, f"between-{number}")
    if last == "Deployment":
        site4.cluster.objects["apis/apps/v1/deployments", "mine", "d"] = made_by("d", *above) | {
            "spec": {"replicas": 1}
        }
        above = ("apps/v1", "Deployment", "d")
    if last != "Pod":
        put("apis/apps/v1/replicasets", "mine", made_by("rs", *above) | {"spec": {"replicas": 1}})
        above = ("apps/v1", "ReplicaSet", "rs")
    put("api/v1/pods", "mine", running(made_by("p", *above), "vllm", "serve", "m"))
    put("api/v1/pods", "mine", running(made_by("foreign", "batch/v1", "Job", "j"), "vllm", "serve", "z"))
    manifest = [{"apiVersion": api, "kind": kind, "metadata": {"name": "x"}}]
    seen = take_snapshot(site4.kube, "mine", manifest)
    assert [one["metadata"]["name"] for one in seen.of_role("engine")] == ["p"]
    assert seen.wanted() == (0 if last == "Pod" else 1)
    assert len(site4.kube.owners) == len(between) + 1, "one of a Job in the namespace, which is looked up once"
    other = [{"apiVersion": api, "kind": kind, "metadata": {"name": "other"}}]
    assert take_snapshot(site4.kube, "mine", other).found == []


def test_an_owner_that_may_not_be_read_ends_the_chain(site4: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site4.cluster.put("api/v1/namespaces", "", {"metadata": {"name": "mine"}})
    monkeypatch.setitem(PATHS, "RayCluster", ("apis/ray.io/v1", "rayclusters"))
    cluster = made_by("c", "ray.io/v1", "RayService", "x")
    site4.cluster.put("apis/ray.io/v1/rayclusters", "mine", cluster)
    pod = running(made_by("p", "ray.io/v1", "RayCluster", "c"), "vllm", "serve", "m")
    site4.cluster.put("api/v1/pods", "mine", pod)
    manifest = [{"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"name": "x"}}]
    site4.cluster.forbidden.add(("get", "rayclusters"))
    assert take_snapshot(site4.kube, "mine", manifest).found == []
    site4.cluster.forbidden.clear()
    site4.kube.owners.clear()
    assert len(take_snapshot(site4.kube, "mine", manifest).found) == 1
    site4.kube.owners.clear()
    cluster["metadata"]["uid"] = "another of this name"
    assert take_snapshot(site4.kube, "mine", manifest).found == []


def test_pods_and_replica_sets_that_are_the_releases_own_objects_are_found(site4: Site) -> None:
    site4.cluster.put("api/v1/namespaces", "", {"metadata": {"name": "mine"}})
    site4.cluster.put("api/v1/pods", "mine", running({"metadata": {"name": "kv"}}, "lmcache", "server"))
    site4.cluster.put("api/v1/pods", "mine", running({"metadata": {"name": "foreign"}}, "lmcache", "server"))
    sets = {"metadata": {"name": "rs", "uid": "uid-rs"}, "spec": {"replicas": 2}}
    site4.cluster.put("apis/apps/v1/replicasets", "mine", sets)
    for name in ("a", "b"):
        pod = running(owned(name, "ReplicaSet", "rs"), "vllm", "serve", "m")
        site4.cluster.put("api/v1/pods", "mine", pod)
    manifest = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kv"}},
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "rs"}},
    ]
    seen = take_snapshot(site4.kube, "mine", manifest)
    assert [one["metadata"]["name"] for one in seen.of_role("engine")] == ["a", "b"]
    assert [one["metadata"]["name"] for one in seen.of_role("cache server")] == ["kv"]
    assert seen.wanted() == 3
