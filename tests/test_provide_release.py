"""What is judged of a release: keys without effect, references, upgrades; with a real Helm and a stand-in cluster."""

from __future__ import annotations

import base64
import copy
import json
import os
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from fixtures.core.errors import ConfigurationError, NotApplicable, NotJudged, StackError, SubjectFault
from fixtures.core.processes import ProcessRef
from fixtures.core.progress import Progress
from fixtures.core.record import Release, StackRecord
from fixtures.core.tree import get_path
from fixtures.evidence.manifest import effective, references, unresolved
from fixtures.provide.kube import charts
from fixtures.provide.kube.api import ApiError, Kube
from fixtures.provide.kube.context import ClusterContext
from fixtures.provide.kube.helm import Helm, HelmError, Layers
from fixtures.provide.kube.paths import PATHS
from fixtures.provide.release import cleanup, engine_checks, preflight, quota, rights, volume_checks, waiting
from fixtures.provide.release.api_key import api_key
from fixtures.provide.release.checks import CHECKS, Check, demand, override
from fixtures.provide.release.describe import describe
from fixtures.provide.release.facts import resident_of
from fixtures.provide.release.idle_keys import leaves, switched_off
from fixtures.provide.release.plan import Plan
from fixtures.provide.release.snapshot import take_snapshot
from fixtures.provide.release.under_test import ReleaseUnderTest
from fixtures.provide.release.upgrade import MARK, with_change
from fixtures.provide.values.layers import path_text
from tests.fakes.api_server import FakeCluster
from tests.helm_binaries import helm as binary
from tests.test_provide_kube_helm import STAND_IN, VALUES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_httpserver import HTTPServer

pytest.importorskip("kubernetes")


class Site:
    """A stand-in cluster, a real Helm, a stand-in chart."""

    def __init__(self, major: int, folder: Path) -> None:
        self.cluster = FakeCluster().start()
        self.folder = folder
        context = ClusterContext(str(self.cluster.kubeconfig(folder)), "fake")
        self.kube = Kube(context, patience_s=2.0)
        self.helm = Helm((str(binary(major)),), context, folder / "helm")
        self.chart = charts.chart_of(str(STAND_IN), None, folder / "work")
        self.namespace = "mine"
        self.values = folder / "values.yaml"
        self.lines: list[str] = []
        self.progress = Progress(self, live=False, every_s=600)  # type: ignore[arg-type]

    def write(self, text: str) -> None:
        self.lines.append(text)

    def flush(self) -> None:
        pass

    def install(self, values: dict[str, Any] = VALUES, /, **labels: str) -> ReleaseUnderTest:
        self.values.write_text(json.dumps(values))
        self.cluster.put("api/v1/namespaces", "", {"metadata": {"name": self.namespace, "labels": labels}})
        self.helm.install("rel", self.namespace, self.chart, Layers((self.values,)), labels=cleanup.labels("s"))
        return self.release()

    def release(self, *, own: bool = True) -> ReleaseUnderTest:
        facts = Release(
            name="rel",
            namespace=self.namespace,
            kubeconfig=self.kube.context.kubeconfig,
            context="fake",
            helm=self.helm.command,
            chart_args=tuple(self.chart.args),
            own=own,
            images={"example/engine:1": "example/engine@sha256:1"},
        )
        record = StackRecord(id="s", kind="chart", config="c", folder=self.folder, model="m", release=facts)
        return ReleaseUnderTest(record, self.kube, self.helm)

    def check(self, values: dict[str, Any], *, exists: bool = False) -> list[Check]:
        objects = self.helm.render_values(self.chart, "rel", self.namespace, values)
        plan = Plan(
            config=None,  # type: ignore[arg-type]
            kube=self.kube,
            helm=self.helm,
            chart=self.chart,
            layers=Layers(),
            namespace=self.namespace,
            release="rel",
            own_namespace=not exists,
            objects=objects,
            crds=(),
            values=values,
        )
        return preflight.check(plan)

    def wait(self) -> Any:
        return waiting.until_ready(self.kube, self.namespace, self.helm.manifest("rel", self.namespace), self.progress)


@pytest.fixture(params=[pytest.param(3, marks=pytest.mark.long), 4])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    made = Site(request.param, tmp_path)
    yield made
    made.cluster.stop()


@pytest.fixture
def site4(tmp_path: Path) -> Iterator[Site]:
    made = Site(4, tmp_path)
    yield made
    made.cluster.stop()


def changed(**model: Any) -> dict[str, Any]:
    found = copy.deepcopy(VALUES)
    found["servingEngineSpec"]["modelSpec"][0] |= model
    return found


# --- CFG-04 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "idle"),
    [
        ({}, []),
        ({"cpuOffloadBufferSize": "20"}, ["cpuOffloadBufferSize"]),
        ({"lmcacheConfig": {"cpuOffloadingBufferSize": "0.5"}}, ["lmcacheConfig.cpuOffloadingBufferSize"]),
        pytest.param(
            {"lmcacheConfig": {"cpuOffloadingBufferSize": "20GB"}},
            ["lmcacheConfig.cpuOffloadingBufferSize"],
            marks=pytest.mark.long,
        ),
        pytest.param(
            {"lmcacheConfig": {"diskOffloadingBufferSize": "10"}},
            ["lmcacheConfig.diskOffloadingBufferSize"],
            marks=pytest.mark.long,
        ),
        pytest.param({"hf_token": ""}, ["hf_token"], marks=pytest.mark.long),
        pytest.param({"env": [{"name": "LMCACHE_NONSENSE", "value": "1"}]}, ["env[0].value"], marks=pytest.mark.long),
        (
            {"env": [{"name": "LMCACHE_MAX_LOCAL_CPU_SIZE", "value": "5"}]},
            ["env[0].value"],
        ),
        ({"pvcStorage": "50Gi", "storageClass": "standard"}, []),
    ],
)
def test_keys_without_effect_are_found(site4: Site, model: dict[str, Any], idle: list[str]) -> None:
    release = site4.install(changed(**model))
    known = {"LMCACHE_LOCAL_CPU", "LMCACHE_MAX_LOCAL_CPU_SIZE", "LMCACHE_MAX_LOCAL_DISK_SIZE"}
    assert release.keys_without_effect(known) == [f"servingEngineSpec.modelSpec[0].{path}" for path in idle]


@pytest.mark.long
def test_a_value_that_is_the_charts_own_has_an_effect(site4: Site) -> None:
    values = {**VALUES, "routerSpec": {"replicaCount": 1, "nonsense": 1}, "monitoring": {"enabled": False}}
    found = site4.install(values).keys_without_effect(None)
    assert found == ["routerSpec.nonsense"]  # the stub of a dependency renders nothing, and is not asked about


def test_what_a_switched_off_section_holds_is_no_mistake(site4: Site) -> None:
    scaled = {"enabled": False, "minReplicaCount": 3}
    values = changed(keda=scaled)
    found = site4.install(values).keys_without_effect(None)
    assert found == ["servingEngineSpec.modelSpec[0].keda.enabled"], "this chart does not read the section at all"
    assert switched_off(("a", "b"), {"a": {"b": 1}}, {"a": {"enabled": False}}), "the chart's own default counts"
    example = {"models": [{"enabled": False, "b": 2}]}
    assert not switched_off(("models", 0, "b"), {"models": [{"b": 1}]}, example), "Helm replaces lists as a whole"
    assert not switched_off(("a", "enabled"), {"a": {"enabled": False}}, {})
    assert not switched_off(("a", "b"), {"a": {"enabled": True, "b": 1}}, {"a": {"enabled": False}})


def test_a_helm_that_cannot_render_is_no_effect_of_a_key(site4: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    release = site4.install(changed(cpuOffloadBufferSize="20"))
    real, calls = Helm.run, iter(range(1000))

    def flaky(self: Helm, *args: str, **options: Any) -> str:
        if args[0] == "template" and next(calls) > 2:
            raise HelmError("helm template failed: dial tcp: lookup example.com: no such host")
        return real(self, *args, **options)

    monkeypatch.setattr(Helm, "run", flaky)
    with pytest.raises(StackError, match="no such host"):
        release.keys_without_effect(None)


def test_leaves_and_their_names() -> None:
    tree = {"a": {"b": [1, {"c": None}]}, "d": {}, "e": []}
    assert [path_text(path) for path in leaves(tree)] == ["a.b[0]", "a.b[1].c", "d", "e"]


def test_without_a_chart_it_is_not_judged(site4: Site) -> None:
    release = site4.install()
    release.facts.chart_args = ()
    with pytest.raises(NotJudged, match="name it with --chart"):
        release.keys_without_effect(None)


# --- CFG-05 -----------------------------------------------------------------------------------------------------------


def test_what_the_server_refuses_is_told(site4: Site) -> None:
    release = site4.install()
    assert release.refused() == []
    site4.cluster.refuses["rel-m-deployment-vllm"] = "spec.selector: field is immutable"
    assert release.refused() == ["Deployment rel-m-deployment-vllm: spec.selector: field is immutable"]
    site4.cluster.forbidden.add(("patch", "secrets"))
    with pytest.raises(NotJudged, match=r"docs/rbac\.yaml"):
        release.refused()


def test_references_that_lead_nowhere_are_told(site4: Site) -> None:
    values = changed(
        pvcStorage="1Gi",
        storageClass="fast",
        env=[{"name": "T", "valueFrom": {"secretKeyRef": {"name": "nobody", "key": "t"}}}],
    )
    values["servingEngineSpec"]["runtimeClassName"] = "nvidia"
    found = site4.install(values).dangling()
    assert [one.split(",")[0] for one in found] == [
        "there is no StorageClass fast",
        "there is no RuntimeClass nvidia",
        "there is no Secret nobody in namespace mine",
    ]


def engine(**container: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "vllm", **container}]}}
    spec = {"selector": {"matchLabels": {"a": "1"}}, "template": template}
    return {"kind": "Deployment", "metadata": {"name": "engine"}, "spec": spec}


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([{"kind": "Service", "metadata": {"name": "s"}, "spec": {"selector": {"a": "2"}}}], "selects no pod"),
        (
            [
                engine(ports=[{"name": "http", "containerPort": 8000}]),
                {
                    "kind": "Service",
                    "metadata": {"name": "s"},
                    "spec": {"selector": {"a": "1"}, "ports": [{"port": 80, "targetPort": "web"}]},
                },
            ],
            "refers to the port 'web'",
        ),
        (
            [engine(ports=[{"containerPort": 9000}], startupProbe={"httpGet": {"port": 8000}})],
            "startupProbe of vllm asks port 8000",
        ),
        ([engine(args=["--k8s-label-selector", "a=2"])], "selects engines by a=2"),
        ([engine(args=["--k8s-label-selector", ""])], "empty selector"),
    ],
)
def test_ports_and_selectors_are_followed(objects: list[dict[str, Any]], words: str) -> None:
    found = unresolved(objects)
    assert len(found) == 1
    assert words in found[0]


def test_references_of_a_pod() -> None:
    thing = engine(
        envFrom=[{"configMapRef": {"name": "c", "optional": True}}],
        env=[{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "d", "key": "k"}}}],
    )
    thing["spec"]["template"]["spec"] |= {
        "imagePullSecrets": [{"name": "pull"}],
        "volumes": [
            {"name": "v", "persistentVolumeClaim": {"claimName": "claim"}},
            {"name": "s", "secret": {"secretName": "x"}},
        ],
    }
    found = {(one.kind, one.name, one.optional, one.key) for one in references([thing])}
    assert found == {
        ("Secret", "pull", False, None),
        ("PersistentVolumeClaim", "claim", False, None),
        ("Secret", "x", False, None),
        ("ConfigMap", "c", True, None),
        ("ConfigMap", "d", False, "k"),
    }


def test_an_overridden_connector_has_no_effect() -> None:
    one = engine(command=["vllm", "serve", "--kv-transfer-config", '{"a":1}', "--kv-transfer-config", '{"b":1}'])
    two = engine(command=["vllm", "serve", "--kv-transfer-config", '{"b":1}'])
    assert effective([one]) == effective([two])


# --- REL --------------------------------------------------------------------------------------------------------------


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


def owned(name: str, kind: str, owner: str, uid: str = "") -> dict[str, Any]:
    by = [{"kind": kind, "name": owner, "uid": uid or f"uid-{owner}", "controller": True}]
    return {"metadata": {"name": name, "uid": f"uid-{name}", "ownerReferences": by}}


def running(thing: dict[str, Any], *command: str, ip: str = "10.1.0.1", host: str = "192.0.2.1") -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True"}
    container = {"name": "main", "command": list(command)}
    status = {"phase": "Running", "podIP": ip, "hostIP": host, "conditions": [ready]}
    return thing | {"spec": {"containers": [container]}, "status": status}


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


def test_engines_that_are_not_judged_are_named_and_a_cache_server_by_node_is_found(site4: Site) -> None:
    site4.install()
    (engine,) = [one for one in site4.cluster.pods("mine") if "vllm" in one["metadata"]["name"]]
    config = {"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both"}
    config["kv_connector_extra_config"] = {"lmcache.mp.host": "tcp://$(HOST_IP)"}  # type: ignore[assignment]
    container = engine["spec"]["containers"][0]
    container["command"] = ["vllm", "serve", "org/m", "--kv-transfer-config", json.dumps(config)]
    container["args"] = []
    container["env"] = [{"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]
    engine["status"]["hostIP"] = "192.0.2.1"
    for name, host in (("kv-a", "192.0.2.9"), ("kv-b", "192.0.2.1")):
        site4.cluster.put("api/v1/pods", "mine", running({"metadata": {"name": name}}, "lmcache", "server", host=host))
    later = copy.deepcopy(engine)
    later["metadata"] |= {"name": "zz-later", "uid": "later"}
    later["status"] |= {"phase": "Pending", "conditions": []}
    other = copy.deepcopy(engine)
    other["metadata"] |= {"name": "zz-other", "uid": "other"}
    other["spec"]["containers"][0]["command"] = ["vllm", "serve", "org/other"]
    for one in (later, other):
        site4.cluster.put("api/v1/pods", "mine", one)
    site4.cluster.restart(engine["metadata"]["name"])
    release = site4.release(own=False)
    seen = take_snapshot(site4.kube, "mine", release.manifest())
    describe(release.record, site4.kube, site4.helm.values("rel", "mine"), seen)
    record = release.record
    assert [one.name for one in record.engines] == [engine["metadata"]["name"]]
    assert record.engines[0].cache_server == "kv-b"
    told = "\n".join(record.ignored)
    assert "engine zz-later is not judged: Pending, not Ready" in told
    assert "engine zz-other is not judged: it serves org/other; choose it with --model org/other" in told
    assert f"pod {engine['metadata']['name']} was restarted 1 times before this run, last: Error (exit code 1)" in told
    describe(record, site4.kube, site4.helm.values("rel", "mine"), seen, model_asked="org/other")
    assert [one.name for one in record.engines] == ["zz-other"]
    with pytest.raises(
        ConfigurationError, match=r"--model none: no engine of release rel serves it; they serve org/m, org/other"
    ):
        describe(record, site4.kube, site4.helm.values("rel", "mine"), seen, model_asked="none")


@pytest.mark.long
def test_a_cache_server_of_other_owners_is_found_by_the_service_that_the_engines_name(site4: Site) -> None:
    site4.install()
    (engine,) = [one for one in site4.cluster.pods("mine") if "vllm" in one["metadata"]["name"]]
    for name in ("kv-a", "kv-b"):
        server = running({"metadata": {"name": name, "labels": {"app": name}}}, "lmcache", "server")
        site4.cluster.put("api/v1/pods", "mine", server)
    service = {"metadata": {"name": "lmcache"}, "spec": {"selector": {"app": "kv-b"}}}
    site4.cluster.put("api/v1/services", "mine", service)
    release = site4.release(own=False)

    def servers(host: str) -> list[str]:
        config = {"kv_connector": "LMCacheMPConnector", "kv_connector_extra_config": {"lmcache.mp.host": host}}
        words = ["vllm", "serve", "org/m", "--kv-transfer-config", json.dumps(config)]
        engine["spec"]["containers"][0] |= {"command": words, "args": []}
        seen = take_snapshot(site4.kube, "mine", release.manifest())
        describe(release.record, site4.kube, site4.helm.values("rel", "mine"), seen)
        found = [one.name for one in release.record.cache_servers]
        assert release.record.engines[0].cache_server == next(iter(found), None)
        return found

    assert servers("tcp://lmcache:5555") == ["kv-b"]
    assert servers("tcp://lmcache.mine.svc.cluster.local") == ["kv-b"]
    assert servers("tcp://lmcache.other.svc.cluster.local") == [], "of another namespace"
    assert servers("tcp://localhost") == []


SECRET_KEY = {"secretKeyRef": {"name": "keys", "key": "k"}}


@pytest.mark.parametrize(
    ("container", "key"),
    [
        ({"env": [{"name": "VLLM_API_KEY", "valueFrom": SECRET_KEY}]}, "of-the-secret"),
        ({"env": [{"name": "VLLM_API_KEY", "value": "plain"}]}, "plain"),
        ({"args": ["--api-key", "$(KEY)"], "env": [{"name": "KEY", "valueFrom": SECRET_KEY}]}, "of-the-secret"),
        ({"args": ["--api-key=$(KEY)"], "env": [{"name": "KEY", "value": "plain"}]}, "plain"),
        ({"args": ["--api-key", "word"], "env": [{"name": "VLLM_API_KEY", "valueFrom": SECRET_KEY}]}, "word"),
        ({"envFrom": [{"secretRef": {"name": "keys"}}]}, "by-name"),
        ({"envFrom": [{"secretRef": {"name": "keys"}, "prefix": "VLLM_"}]}, "prefixed"),
        ({"args": ["--api-key", "$(NOBODY)"]}, None),
        ({}, None),
    ],
)
def test_the_api_key_is_found_wherever_a_pod_has_it(site4: Site, container: dict[str, Any], key: str | None) -> None:
    site4.install()
    texts = {"k": "of-the-secret", "VLLM_API_KEY": "by-name", "API_KEY": "prefixed"}
    if "prefix" in str(container):
        del texts["VLLM_API_KEY"]
    data = {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
    site4.cluster.put("api/v1/secrets", "mine", {"metadata": {"name": "keys"}, "data": data})
    (engine,) = [one for one in site4.cluster.pods("mine") if "vllm" in one["metadata"]["name"]]
    engine["spec"]["containers"][0] |= {"command": ["vllm", "serve", "m"], "args": [], "env": []} | container
    release = site4.release(own=False)
    seen = take_snapshot(site4.kube, "mine", release.manifest())
    describe(release.record, site4.kube, {}, seen)
    assert api_key(release.record, site4.kube) == key
    assert key is None or "--api-key" in str(container) or key not in release.record.model_dump_json()


def test_what_a_pod_takes_out_of_config_maps_is_filled_in(site4: Site) -> None:
    site4.install()
    data = {"MODEL": "org/a", "other": "org/b", "KV": '{"kv_connector": "LMCacheConnectorV1"}'}
    site4.cluster.put("api/v1/configmaps", "mine", {"metadata": {"name": "c"}, "data": data})
    (engine,) = [one for one in site4.cluster.pods("mine") if "vllm" in one["metadata"]["name"]]
    words = ["vllm", "serve", "$(MODEL)", "--kv-transfer-config=$(KV)", "--port", "$(LOST)"]
    container = engine["spec"]["containers"][0]
    container |= {"command": words, "args": [], "envFrom": [{"configMapRef": {"name": "c"}}], "env": []}
    container["ports"] = [{"name": "x", "containerPort": 8123}]
    release = site4.release(own=False)

    def described() -> Any:
        seen = take_snapshot(site4.kube, "mine", release.manifest())
        describe(release.record, site4.kube, {}, seen)
        return release.record.engines[0]

    one = described()
    assert (release.record.model, one.pod.port) == ("org/a", 8123)
    assert one.requested.connector == {"kv_connector": "LMCacheConnectorV1"}
    assert one.env["MODEL"] == "org/a"
    assert one.requested.duplicate_env == ()
    reference = {"configMapKeyRef": {"name": "c", "key": "other"}}
    container["env"] = [{"name": "MODEL", "valueFrom": reference}]
    assert described().requested.duplicate_env == (), "an entry of env comes before the whole map"
    assert release.record.model == "org/b"
    assert not any("is not judged" in line for line in release.record.ignored)


def test_an_engine_whose_command_names_no_model_is_asked(site4: Site, httpserver: HTTPServer) -> None:
    site4.install()
    secret = {"metadata": {"name": "keys"}, "data": {"k": base64.b64encode(b"of-the-secret").decode()}}
    site4.cluster.put("api/v1/secrets", "mine", secret)
    (engine,) = [one for one in site4.cluster.pods("mine") if "vllm" in one["metadata"]["name"]]
    container = engine["spec"]["containers"][0]
    container |= {"command": ["vllm", "serve", "--port", "8000", "org/m"], "args": []}
    container["env"] = [{"name": "VLLM_API_KEY", "valueFrom": SECRET_KEY}]
    release = site4.release(own=False)
    seen = take_snapshot(site4.kube, "mine", release.manifest())
    with pytest.raises(StackError, match="name the model in the command with --served-model-name"):
        describe(release.record, site4.kube, {}, seen)
    site4.cluster.targets["vllm", 8000] = ("127.0.0.1", httpserver.port)
    asked = httpserver.expect_request("/v1/models", headers={"Authorization": "Bearer of-the-secret"})
    asked.respond_with_json({"data": [{"id": "org/m"}, {"id": "an-adapter"}]})
    describe(release.record, site4.kube, {}, seen)
    assert release.record.model == "org/m"


def test_an_engine_that_speaks_tls_is_sent_to_its_address(site4: Site) -> None:
    site4.install()
    (engine,) = [one for one in site4.cluster.pods("mine") if "vllm" in one["metadata"]["name"]]
    engine["spec"]["containers"][0]["command"] = ["vllm", "serve", "m", "--ssl-keyfile=/k", "--ssl-certfile=/c"]
    release = site4.release(own=False)
    seen = take_snapshot(site4.kube, "mine", release.manifest())
    with pytest.raises(StackError, match=r"accepts only TLS \(--ssl-certfile\).*--url https://HOST"):
        describe(release.record, site4.kube, {}, seen)


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


def test_an_upgrade_that_changes_something_is_told(site4: Site) -> None:
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


@pytest.mark.parametrize(
    ("fate", "words"),
    [
        ("gpu", "Insufficient nvidia.com/gpu"),
        ("pull", "no-such-image"),
    ],
)
def test_an_upgrade_that_can_never_finish_is_told_within_seconds(site4: Site, fate: str, words: str) -> None:
    release = site4.install()
    site4.wait()
    release.record.save(None)
    site4.cluster.fates, site4.cluster.young_s = {"vllm": fate}, 60.0
    began = time.monotonic()
    with pytest.raises(SubjectFault, match=words) as told:
        release.upgrade_changing(site4.progress)
    assert time.monotonic() - began < 10
    assert ("servingEngineSpec.strategy" in str(told.value)) == (fate == "gpu"), "only where pods wait for others' GPUs"


def test_what_an_upgrade_changes() -> None:
    with_buffer = (changed(lmcacheConfig=BUFFER), "cpuOffloadingBufferSize 20 -> 18")
    for config, what in (with_buffer, (changed(lmcacheConfig={"enabled": False}), f"env {MARK}=1")):
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


# --- waiting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fate", "words"),
    [
        ("crash", "its log says: ValueError: boom"),
        ("pull", "no-such-image"),
        ("gpu", "Insufficient nvidia.com/gpu"),
        ("runtime", 'RuntimeClass "no-such-class" not found'),
        ("secret", 'secret "nobody" not found'),
        ("quota", "exceeded quota"),
    ],
)
def test_what_cannot_come_fails_within_seconds(site4: Site, fate: str, words: str) -> None:
    site4.cluster.fates["vllm"] = fate
    site4.cluster.young_s = 60.0
    site4.install()
    began = time.monotonic()
    with pytest.raises(waiting.BlockedError, match=r"; |its log says") as failure:
        site4.wait()
    assert words in str(failure.value)
    assert time.monotonic() - began < 5


@pytest.mark.long
def test_a_deadline_says_what_was_last_seen(site4: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SLACK_S", -18.5)  # the stand-in's probe allows 20 s
    site4.cluster.fates["vllm"] = "never"
    site4.install()
    with pytest.raises(StackError, match=r"start-up did not end within 2 s; last seen: .*vllm.* Running"):
        site4.wait()


@pytest.mark.long
def test_a_restart_of_the_api_server_is_waited_out(site4: Site) -> None:
    site4.cluster.fates["vllm"] = "never"
    site4.install()
    site4.kube.patience_s = 10.0
    with site4.cluster.away():
        threading.Timer(1.0, site4.cluster.start).start()
        seen = take_snapshot(site4.kube, "mine", [])
        site4.cluster.stop()
    assert seen.found == []


# --- preflight --------------------------------------------------------------------------------------------------------


def missing(checks: list[Check]) -> dict[str, str]:
    return {one.name: f"{one.text} -> {one.remedy}" for one in checks if one.state == "missing"}


def test_a_cluster_with_room_passes(site: Site) -> None:
    checks = site.check(changed(pvcStorage="1Gi"))
    assert missing(checks) == {}
    assert {"cluster", "helm", "chart", "engines", "rights", "room", "references", "volumes", "model"} == {
        one.name for one in checks
    }
    demand(checks)


def test_everything_that_is_missing_is_on_one_screen(site4: Site) -> None:
    values = changed(requestGPU=1, requestMemory="48Gi", pvcStorage="50Gi", storageClass="fast")
    values["servingEngineSpec"]["runtimeClassName"] = "nvidia"
    values["monitoring"] = {"enabled": True}
    site4.cluster.forbidden |= {("create", "pods/exec"), ("create", "namespaces")}
    found = missing(site4.check(values))
    assert "room" not in found, "that is a warning"
    assert "runtimeClassName" in found["references"] or "StorageClass" in found["references"]
    assert "create pods/exec in namespace mine; create namespaces in the cluster" in found["rights"]
    assert "monitoring is enabled" in found["chart"]
    with pytest.raises(ConfigurationError) as told:
        demand(site4.check(values))
    assert "nothing was installed" in str(told.value)
    assert len(str(told.value).splitlines()) < 24
    assert all(not one.startswith(("POST /api/v1", "PUT", "PATCH", "DELETE")) for one in site4.cluster.requests)


def test_a_cluster_without_a_default_class(site4: Site) -> None:
    site4.cluster.remove("apis/storage.k8s.io/v1/storageclasses", "", "standard")
    assert "none is the default" in missing(site4.check(changed(pvcStorage="50Gi")))["volumes"]


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"capacity": {"storage": "40Gi"}}, False),
        ({"accessModes": ["ReadOnlyMany"]}, False),
        ({"storageClassName": "other"}, False),
    ],
)
def test_a_free_volume_without_a_class_serves_a_claim_without_one(
    site4: Site, changes: dict[str, Any], fits: bool
) -> None:
    """Seen on Kubernetes 1.36: such a claim is bound where no class is the default."""
    site4.cluster.remove("apis/storage.k8s.io/v1/storageclasses", "", "standard")
    spec = {"capacity": {"storage": "60Gi"}, "accessModes": ["ReadWriteOnce"], **changes}
    volume = {"metadata": {"name": "model"}, "spec": spec, "status": {"phase": "Available"}}
    site4.cluster.put("api/v1/persistentvolumes", "", volume)
    found = missing(site4.check(changed(pvcStorage="50Gi")))
    assert ("volumes" not in found) == fits


@pytest.mark.parametrize("why", ["gpu", "memory", "both on one node", "cordoned", "not ready"])
def test_that_no_node_seems_to_be_large_enough_is_a_warning(site4: Site, why: str) -> None:
    (node,) = site4.cluster.find("api/v1/nodes")
    keys: dict[str, Any] = {}
    if why == "gpu":
        keys = {"requestGPU": 1}
    elif why == "memory":
        keys = {"requestMemory": "48Gi"}
    elif why == "both on one node":
        other = copy.deepcopy(node)
        other["metadata"] = {"name": "other"}
        node["status"]["allocatable"] |= {"cpu": "1m"}
        other["status"]["allocatable"] |= {"memory": "1Mi"}
        site4.cluster.put("api/v1/nodes", "", other)
    elif why == "cordoned":
        node["spec"] = {"unschedulable": True}
    else:
        node["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
    checks = site4.check(changed(**keys))
    demand(checks)
    (warning,) = [one for one in checks if one.state == "warning"]
    assert str(warning).startswith("warning  room: no node seems to be large enough for Deployment ")
    assert ("no node offers GPUs" in warning.remedy) == (why == "gpu")
    if why == "memory":
        assert "48.0 GiB memory)" in warning.text


@pytest.mark.parametrize("by", ["karpenter", "status", "deployment"])
def test_a_pool_that_is_scaled_to_zero_is_a_warning_where_an_autoscaler_runs(site4: Site, by: str) -> None:
    put = site4.cluster.put
    if by == "karpenter":
        put(CRDS, "", {"metadata": {"name": "nodepools.karpenter.sh"}})
    elif by == "status":
        put("api/v1/configmaps", "kube-system", {"metadata": {"name": "cluster-autoscaler-status"}})
    else:
        key = ("apis/apps/v1/deployments", "kube-system", "gpu-cluster-autoscaler")
        site4.cluster.objects[key] = {"metadata": {"name": key[2]}, "spec": {}}
    checks = site4.check(changed(requestGPU=1))
    assert missing(checks) == {}
    (warning,) = [one for one in checks if one.state == "warning"]
    assert "may add one" in warning.text
    demand(checks)


def test_one_check_can_be_overridden_and_the_override_is_seen(site4: Site) -> None:
    checks = site4.check(changed(pvcStorage="1Gi", storageClass="fast"))
    with pytest.raises(ConfigurationError, match="To skip checks: --no-preflight references"):
        demand(checks)
    overridden = override(checks, ["references"])
    demand(overridden)
    assert [str(one)[:30] for one in overridden if one.state == "overridden"] == ["override references: there is "]
    assert set(CHECKS) >= {one.name for one in checks} - {"room"}, "a warning refuses nothing"


@pytest.mark.parametrize(
    ("hard", "used", "words"),
    [
        ({"requests.cpu": "3"}, {"requests.cpu": "2500m"}, "requests.cpu: the release requests"),
        ({"memory": "512Mi"}, {}, "memory: the release requests"),
        ({"pods": "10"}, {"pods": "9"}, "pods: the release requests 2, but 1 of 10 are left"),
        ({"limits.memory": "64Gi"}, {}, "must specify limits.memory"),
        ({"persistentvolumeclaims": "0"}, {}, "persistentvolumeclaims: the release requests 1, but 0 of 0 are left"),
        (
            {"requests.storage": "10Gi"},
            {},
            "requests.storage: the release requests 50.0 GiB, but 10.0 GiB of 10.0 GiB are left",
        ),
        ({"requests.nvidia.com/gpu": "0", "pods": "10", "services": "10"}, {}, None),
    ],
)
def test_quotas_are_added_up(site4: Site, hard: dict[str, str], used: dict[str, str], words: str | None) -> None:
    site4.cluster.put("api/v1/namespaces", "", {"metadata": {"name": "mine"}})
    team: dict[str, Any] = {"metadata": {"name": "team"}, "spec": {"hard": hard}, "status": {"used": used}}
    site4.cluster.put("api/v1/resourcequotas", "mine", team)
    told = "\n".join(one.text for one in site4.check(changed(pvcStorage="50Gi"), exists=True) if one.state == "missing")
    if words is None:
        assert told == ""
    else:
        assert "ResourceQuota team: " in told
        assert words in told
    team["spec"]["scopes"] = ["BestEffort"]
    assert missing(site4.check(changed(pvcStorage="50Gi"), exists=True)) == {}


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"type": "Container", "max": {"cpu": "500m"}}, "container vllm: 1 cpu, the maximum is 0.5"),
        ({"type": "Container", "min": {"memory": "2Gi"}}, "1.0 GiB memory, the minimum is 2.0 GiB"),
        ({"type": "Pod", "max": {"memory": "512Mi"}}, "pod: 1.0 GiB memory, the maximum is 0.5 GiB"),
        ({"type": "PersistentVolumeClaim", "max": {"storage": "10Gi"}}, "50.0 GiB storage, the maximum is 10.0 GiB"),
        ({"type": "Container", "default": {"memory": "64Gi"}, "defaultRequest": {"cpu": "1"}}, None),
    ],
)
def test_limit_ranges_are_compared(site4: Site, limit: dict[str, Any], words: str | None) -> None:
    site4.cluster.put("api/v1/namespaces", "", {"metadata": {"name": "mine"}})
    site4.cluster.put("api/v1/limitranges", "mine", {"metadata": {"name": "l"}, "spec": {"limits": [limit]}})
    checks = [one for one in site4.check(changed(pvcStorage="50Gi"), exists=True) if one.state == "missing"]
    assert any(one.name == "limits" and words in one.text for one in checks) if words else checks == []


def workload(
    *containers: dict[str, Any], init: list[dict[str, Any]] | None = None, kind: str = "Deployment", **spec: Any
) -> dict[str, Any]:
    """What makes pods of these containers, each given by its resources."""

    def named(letter: str, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {"name": f"{letter}{number}", "restartPolicy": one.get("restartPolicy"), "resources": one}
            for number, one in enumerate(given)
        ]

    pod = {"containers": named("c", list(containers)), "initContainers": named("i", init or [])}
    return {"kind": kind, "metadata": {"name": "w"}, "spec": {"template": {"spec": pod}, **spec}}


def service(kind: str, ports: int, **spec: Any) -> dict[str, Any]:
    return {
        "kind": "Service",
        "metadata": {"name": "s"},
        "spec": {"type": kind, "ports": [{"port": number} for number in range(ports)], **spec},
    }


CLAIM = {
    "metadata": {"name": "data"},
    "spec": {"resources": {"requests": {"storage": "30Gi"}}, "storageClassName": "fast"},
}
GIB_1 = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


@pytest.mark.parametrize(
    ("objects", "hard", "says"),
    [
        ([workload(GIB_1, init=[{"requests": {"memory": "9Gi"}}])], {"requests.memory": "8Gi"}, "requests 9.0 GiB"),
        ([workload(GIB_1, init=[{"requests": {"memory": "9Gi"}}])], {"requests.memory": "9Gi"}, None),
        (
            [workload(GIB_1, init=[GIB_1 | {"restartPolicy": "Always"}, {"requests": {"memory": "2Gi"}}])],
            {"requests.memory": "2Gi"},
            "requests 3.0 GiB",
        ),
        ([workload(GIB_1, init=[{}])], {"requests.cpu": "9"}, "Deployment w must specify requests.cpu"),
        ([workload(GIB_1, init=[{}])], {"requests.nvidia.com/gpu": "9"}, None),
        ([workload({}, replicas=0)], {"requests.cpu": "0", "pods": "0"}, None),
        ([workload({"requests": {"cpu": "700m"}})], {"requests.cpu": "0.7"}, None),
        ([workload(GIB_1)], {"count/replicasets.apps": "0"}, "count/replicasets.apps: the release requests 1"),
        ([workload(GIB_1)], {"secrets": "0"}, "secrets: the release requests 1 (one is Helm's own, of the release)"),
        ([{"kind": "Secret", "metadata": {"name": "s"}}], {"count/secrets": "1"}, "requests 2"),
        ([{"kind": "ServiceAccount", "metadata": {"name": "s"}}], {"count/serviceaccounts": "0"}, "requests 1"),
        ([service("LoadBalancer", 2)], {"services.loadbalancers": "0"}, "requests 1"),
        ([service("LoadBalancer", 2)], {"services.nodeports": "1"}, "requests 2"),
        ([service("LoadBalancer", 2, allocateLoadBalancerNodePorts=False)], {"services.nodeports": "0"}, None),
        ([service("NodePort", 1)], {"services.nodeports": "0", "services.loadbalancers": "0"}, "nodeports: the"),
        ([service("ClusterIP", 1)], {"services.nodeports": "0", "services.loadbalancers": "0"}, None),
        (
            [workload(GIB_1, kind="StatefulSet", replicas=2, volumeClaimTemplates=[CLAIM])],
            {"requests.storage": "50Gi"},
            "requests.storage: the release requests 60.0 GiB",
        ),
        (
            [workload(GIB_1, kind="StatefulSet", replicas=2, volumeClaimTemplates=[CLAIM])],
            {"persistentvolumeclaims": "1"},
            "persistentvolumeclaims: the release requests 2",
        ),
        (
            [workload(GIB_1, kind="StatefulSet", replicas=2, volumeClaimTemplates=[CLAIM])],
            {"fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1", "count/replicasets.apps": "0"},
            "fast.storageclass.storage.k8s.io/persistentvolumeclaims: the release requests 2",
        ),
    ],
)
def test_what_a_quota_counts(objects: list[dict[str, Any]], hard: dict[str, str], says: str | None) -> None:
    found = list(quota.over_quota([{"metadata": {"name": "team"}, "spec": {"hard": hard}}], [], objects))
    assert len(found) == (says is not None), found
    assert says is None or says in found[0]


@pytest.mark.parametrize(
    ("thing", "limit", "says"),
    [
        (
            workload({"requests": {"memory": "48Gi"}}),
            {"type": "Container", "default": {"memory": "512Mi"}},
            "container c0: 48.0 GiB memory requested without a limit, and 0.5 GiB is the default limit of the namespace",
        ),
        (workload({"requests": {"memory": "512Mi"}}), {"type": "Container", "default": {"memory": "512Mi"}}, None),
        (workload({"requests": {"cpu": "2"}}), {"type": "Container", "max": {"cpu": "1"}}, "2 cpu, the maximum is 1"),
        (
            workload({"requests": {"cpu": "2"}}),
            {"type": "Pod", "max": {"cpu": "64"}},
            "pod: no limit for cpu, which is",
        ),
        (workload(GIB_1, {"requests": {"cpu": "2"}}), {"type": "Pod", "max": {"cpu": "64"}}, None),
        (workload({}), {"type": "Pod", "min": {"cpu": "1"}}, "pod: no request for cpu, which is required"),
        (workload({}), {"type": "Container", "min": {"cpu": "1"}}, None),
        (
            workload({"requests": {"cpu": "1"}, "limits": {"cpu": "8"}}),
            {"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}},
            "container c0: the limit for cpu is 8 times the request, the maximum is 2 times",
        ),
        (workload(GIB_1), {"type": "Container", "maxLimitRequestRatio": {"cpu": "1"}}, None),
        (
            workload({"requests": {"cpu": "1"}}),
            {"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}},
            "no limit for cpu, but the limit may be at most 2 times the request",
        ),
        (
            workload(GIB_1, init=[{"limits": {"memory": "200Gi"}}]),
            {"type": "Container", "max": {"memory": "64Gi"}},
            "container i0: 200.0 GiB memory, the maximum is 64.0 GiB",
        ),
        (
            workload(GIB_1, init=[{"limits": {"memory": "200Gi"}}]),
            {"type": "Pod", "max": {"memory": "64Gi"}},
            "pod: 200.0 GiB memory, the maximum is 64.0 GiB",
        ),
        (
            workload(GIB_1, kind="StatefulSet", volumeClaimTemplates=[CLAIM]),
            {"type": "PersistentVolumeClaim", "max": {"storage": "10Gi"}},
            "StatefulSet w, claim data: 30.0 GiB storage, the maximum is 10.0 GiB",
        ),
        (workload({}, replicas=0), {"type": "Pod", "max": {"cpu": "64"}}, None),
    ],
)
def test_what_a_limit_range_refuses(thing: dict[str, Any], limit: dict[str, Any], says: str | None) -> None:
    found = list(quota.outside_limits([{"metadata": {"name": "l"}, "spec": {"limits": [limit]}}], [thing]))
    assert len(found) == (says is not None), found
    assert says is None or says in found[0]


def test_a_pod_that_asks_as_a_whole_is_left_to_the_server() -> None:
    one = workload({})
    one["spec"]["template"]["spec"]["resources"] = {"requests": {"cpu": "4"}}
    hard = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "8", "requests.memory": "1Gi"}}}
    ranges = [{"spec": {"limits": [{"type": "Pod", "max": {"cpu": "8"}}]}}]
    assert list(quota.over_quota([hard], [], [one])) == []
    assert list(quota.outside_limits(ranges, [one])) == []


@pytest.mark.parametrize(
    ("container", "says"),
    [
        ({"args": ["--k8s-label-selector", " "]}, "an empty selector: it would treat every pod"),
        ({"args": ["--k8s-label-selector="]}, "an empty selector"),
        ({"args": ["--k8s-label-selector", ","]}, "the selector ',': it names no label"),
        ({"args": ["--k8s-label-selector", "="]}, "the selector '=': it names no label"),
        ({"command": ["vllm-router", "--k8s-label-selector", ""]}, "an empty selector"),
        ({"command": ["vllm-router", "--k8s-label-selector"], "args": [None]}, "an empty selector"),
        ({"command": ["vllm-router"], "args": ["--k8s-label-selector", "a=b"]}, None),
        ({"command": ["vllm-router"]}, None),
    ],
)
def test_selectors_that_name_no_label_are_refused(site4: Site, container: dict[str, Any], says: str | None) -> None:
    found = list(engine_checks.check_labels([engine(**container)]))
    assert len(found) == (says is not None)
    assert says is None or says in found[0].text
    assert [
        one.name for one in engine_checks.check_neighbours(site4.kube, site4.helm, [engine(**container)], "mine", "rel")
    ] == []


def test_a_selector_that_the_server_refuses_is_named(site4: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise ApiError(400, "unable to parse requirement", "list pods")

    monkeypatch.setattr(Kube, "list", refuse)
    one = engine(args=["--k8s-label-selector", "a=b,"])
    (found,) = engine_checks.check_neighbours(site4.kube, site4.helm, [one], "mine", "rel")
    assert (found.name, found.state) == ("selectors", "not checked")
    assert "'a=b,'" in found.text


def test_labels_that_would_adopt_strangers_are_refused(site4: Site) -> None:
    objects = site4.helm.render_values(site4.chart, "rel", "mine", VALUES)
    for one in objects:
        for container in get_path(one, "spec", "template", "spec", "containers", default=[]):
            if "--k8s-label-selector" in (container.get("args") or []):
                container["args"][container["args"].index("--k8s-label-selector") + 1] = None
    (found,) = engine_checks.check_labels(objects)
    assert found.state == "missing"
    assert "servingEngineSpec.labels" in found.remedy
    assert any("empty selector" in one for one in unresolved(objects))


def test_values_without_an_engine_are_refused(site4: Site) -> None:
    assert "renders no engine" in missing(site4.check({"servingEngineSpec": {"modelSpec": []}}))["engines"]


@pytest.mark.parametrize("words", [("vllm", "serve"), ("vllm", "serve", "--port=a/b"), ("sh", "-c", "vllm serve")])
def test_an_engine_without_a_model_asks_no_hub(words: tuple[str, ...]) -> None:
    assert list(engine_checks.check_models([engine(command=list(words))])) == []


def test_replicas_that_are_no_number_are_refused(site4: Site) -> None:
    objects = [engine() | {"spec": engine()["spec"] | {"replicas": "abc"}}]
    (found,) = engine_checks.check_replicas(objects)
    assert found.text == "Deployment engine asks for 'abc' replicas"


def test_a_volume_for_several_nodes_needs_a_class_that_offers_it(site4: Site) -> None:
    site4.cluster.find("apis/storage.k8s.io/v1/storageclasses")[0]["provisioner"] = "ebs.csi.aws.com"
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteMany"]}}
    claim["spec"] |= {"resources": {"requests": {"storage": "1Gi"}}}  # type: ignore[operator]
    (found,) = volume_checks.check_volumes(site4.kube, [claim])
    assert found.state == "missing"
    assert "ReadWriteMany" in found.text


def test_a_volume_for_one_pod_and_several_pods_is_refused(site4: Site) -> None:
    spec = {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": spec}
    pods = engine(command=["vllm", "serve", "m"])
    pods["spec"]["template"]["spec"]["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    for replicas, state in ((1, "ok"), (2, "missing")):
        pods["spec"]["replicas"] = replicas
        (found,) = volume_checks.check_volumes(site4.kube, [claim, pods])
        assert found.state == state


@pytest.mark.parametrize("env", [{"HF_ENDPOINT": "https://mirror"}, {"VLLM_USE_MODELSCOPE": "True"}])
def test_a_model_of_another_place_is_not_asked_of_the_hub(env: dict[str, str]) -> None:
    entries = [{"name": name, "value": value} for name, value in env.items()]
    assert list(engine_checks.check_models([engine(command=["vllm", "serve", "org/m"], env=entries)])) == []


def test_the_hub_is_asked_once_for_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def get(url: str, **_: Any) -> Any:
        asked.append(url)
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", get)
    checks = list(engine_checks.check_models([engine(command=["vllm", "serve", "org/m"])] * 3))
    assert [one.state for one in checks] == ["not checked"]
    assert len(asked) == 1


def test_a_token_by_env_from_is_a_token() -> None:
    one = engine(command=["vllm", "serve", "org/gated"], envFrom=[{"secretRef": {"name": "hf"}}])
    assert list(engine_checks.check_models([one])) == []


def test_neighbours_in_a_namespace_that_exists(site4: Site) -> None:
    site4.install()
    found = missing(site4.check(VALUES, exists=True))
    assert "has a release rel already" in found["release"]
    assert "environment=test matches rel-m-deployment-vllm" in found["selectors"]


def test_the_rights_are_those_of_the_documented_role() -> None:
    import yaml

    documents = list(yaml.safe_load_all((Path(__file__).parents[1] / "docs/rbac.yaml").read_text()))
    granted: dict[tuple[bool, str, str], set[str]] = {}
    for one in documents:
        if one["kind"] in {"ClusterRole", "Role"}:
            for rule in one["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        granted.setdefault((one["kind"] == "ClusterRole", group, resource), set()).update(rule["verbs"])
    for right in rights.RIGHTS:
        lacking = set(right.verbs) - granted.get((True, right.group, right.resource), set())
        if not right.everywhere:
            lacking -= granted.get((False, right.group, right.resource), set())
        assert not lacking, f"docs/rbac.yaml does not grant {sorted(lacking)} on {right.resource}"


# --- cleaning up ------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_only_what_carries_the_label_is_found_and_removed(site: Site) -> None:
    site.cluster.put("api/v1/namespaces", "", {"metadata": {"name": "foreign"}})
    site.install(**cleanup.labels("stack-1"))
    found = cleanup.find_leftovers(site.kube)
    assert [(one.kind, one.name, one.owner) for one in found] == [("namespace", "mine", "stack-1")]
    assert cleanup.find_leftovers(site.kube, older_than_s=3600) == []
    cleanup.remove(site.kube, site.helm, found[0], lambda _: None)
    assert site.kube.get("Namespace", "mine") is None
    assert site.kube.get("Namespace", "foreign") is not None
    assert site.cluster.pods() == []


CRDS = "apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.mark.long
def test_a_crd_goes_with_the_last_of_its_users(site: Site) -> None:
    site.install(**cleanup.labels("stack-1"))
    crd = site.cluster.find(CRDS)[0]
    assert cleanup.remove_unused_crds(site.kube) == [], "Helm made it for another owner: it carries no mark"
    crd["metadata"]["labels"] = dict(cleanup.MADE)
    assert cleanup.remove_unused_crds(site.kube) == [], "a stack of this suite is still there"
    (left,) = cleanup.find_leftovers(site.kube)
    cleanup.remove(site.kube, site.helm, left, lambda _: None)
    site.cluster.forbidden.add(("list", "things"))
    assert cleanup.remove_unused_crds(site.kube) == [], "without the right to look it counts as used"
    site.cluster.forbidden.clear()
    deployments = "apis/apps/v1/deployments"
    for label in ({"app.kubernetes.io/part-of": "vllm-stack"}, {"helm-release-name": "theirs"}):
        site.cluster.objects[deployments, "default", "theirs"] = {"metadata": {"name": "theirs", "labels": label}}
        assert cleanup.remove_unused_crds(site.kube) == [], "somebody else's release came after it: it has no other"
        site.cluster.objects.pop((deployments, "default", "theirs"))
    site.cluster.put("apis/example.com/v1/things", "default", {"metadata": {"name": "t"}})
    assert cleanup.remove_unused_crds(site.kube) == [], "it holds an object"
    site.cluster.objects.pop(("apis/example.com/v1/things", "default", "t"))
    assert cleanup.remove_unused_crds(site.kube) == ["things.example.com"]
    assert site.cluster.find(CRDS) == []


@pytest.mark.long
@pytest.mark.parametrize("whose", ["host", "user", "live run"])
def test_what_others_made_is_listed_and_left_alone(
    site4: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(site4.kube.context.kubeconfig))
    owner = ProcessRef.of(os.getpid())
    marks = cleanup.labels("stack-1", owner)
    assert all(re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", value) for value in marks.values())
    if whose != "live run":
        marks[cleanup.HOST if whose == "host" else cleanup.USER] = "another"
    site4.install(**marks)
    helm = f"--helm={site4.helm.command[0]}"
    assert cleanup.main([helm, "--remove"]) == 0
    out = capsys.readouterr().out
    assert "0 left by earlier runs" in out
    assert ("its run is still active" if whose == "live run" else "made by user") in out
    assert site4.kube.get("Namespace", "mine") is not None
    assert cleanup.main([helm, "--remove", "--everyone"]) == 0
    assert site4.kube.get("Namespace", "mine") is None


def test_a_release_in_a_foreign_namespace_goes_alone(site: Site) -> None:
    site.install()
    (left,) = cleanup.find_leftovers(site.kube)
    assert (left.kind, left.name, left.namespace) == ("release", "rel", "mine")
    cleanup.remove(site.kube, site.helm, left, lambda _: None)
    assert site.kube.get("Namespace", "mine") is not None
    assert cleanup.find_leftovers(site.kube) == []


def test_what_does_not_go_is_named() -> None:
    with pytest.raises(StackError, match="namespace x still exists after 0 s, remaining: pod a"):
        cleanup.until_gone(lambda: ["pod a"], "namespace x", lambda _: None, within_s=0.0)


@pytest.mark.long
def test_the_command_lists_and_removes(
    site4: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(site4.kube.context.kubeconfig))
    site4.install(**cleanup.labels("stack-1"))
    helm = f"--helm={site4.helm.command[0]}"
    assert cleanup.main([helm]) == 1
    assert "namespace mine" in capsys.readouterr().out
    assert cleanup.main([helm, "--remove"]) == 0
    assert cleanup.main([helm]) == 0
    assert "0 left by earlier runs" in capsys.readouterr().out
    assert cleanup.main([helm, "--kube-context", "nobody"]) == 2


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_of_a_container_by_either_cgroup() -> None:
    assert resident_of("anon 100\nfile 50\nshmem 7\n", "x") == 107
    assert resident_of("cache 1\nrss 2\ntotal_rss 100\ntotal_shmem 5\n", "x") == 105
    with pytest.raises(NotJudged, match="shows no memory"):
        resident_of("", "x")
