"""What a cluster explains of an address that leads nowhere, on a stand-in cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.provide.kube.api import Kube
from fixtures.provide.kube.cluster_context import ClusterContext
from fixtures.provide.release.references import why_unserved
from tests.fakes.api_server import FakeCluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("kubernetes")
PORTS = [{"name": "zmq", "port": 5555, "targetPort": "zmq"}, {"name": "http", "port": 80, "targetPort": 8180}]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    made = FakeCluster().start()
    made.put("api/v1/namespaces", "", {"metadata": {"name": "n"}})
    yield made
    made.stop()


@pytest.fixture
def kube(cluster: FakeCluster, tmp_path: Path) -> Kube:
    return Kube(ClusterContext(str(cluster.kubeconfig(tmp_path)), "fake"), patience_s=2.0)


def put(cluster: FakeCluster, *, ready: bool = True, ports: Any = PORTS, pods: bool = True, **spec: Any) -> None:
    spec = {"selector": {"app": "kv"}, "ports": ports, "clusterIP": "10.0.0.1"} | spec
    cluster.put("api/v1/services", "n", {"metadata": {"name": "kv"}, "spec": spec})
    if pods:
        condition = {"type": "Ready", "status": str(ready)}
        container = {"name": "c", "ports": [{"name": "zmq", "containerPort": 5555}]}
        pod = {
            "metadata": {"name": "kv-0", "labels": {"app": "kv"}},
            "spec": {"containers": [container]},
            "status": {"phase": "Running", "conditions": [condition], "containerStatuses": []},
        }
        cluster.put("api/v1/pods", "n", pod)


@pytest.mark.parametrize(
    "host", ["kv", "kv.n", "kv.n.svc", "kv.n.svc.cluster.local", "kv.n.svc.cluster.local.", "kv.svc"]
)
def test_a_service_is_found_by_every_spelling(cluster: FakeCluster, kube: Kube, host: str) -> None:
    assert why_unserved(kube, "n", host, 5555) == "there is no Service kv in namespace n"
    assert why_unserved(kube, "n", host, 5555, connected=True) is None, "the name is that of something else"
    put(cluster)
    assert why_unserved(kube, "n", host, 5556) == "Service kv does not open port 5556, only 5555, 80"


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "fd00::1", "store.example.com", "localhost", "localhost.", "kv.other", "UPPER", ""]
)
def test_of_another_host_nothing_is_said(cluster: FakeCluster, kube: Kube, host: str) -> None:
    assert why_unserved(kube, "n", host, 1) is None


def test_of_a_service_in_another_namespace_its_own_namespace_decides(cluster: FakeCluster, kube: Kube) -> None:
    put(cluster)
    assert why_unserved(kube, "m", "kv.n", 1) == "Service kv does not open port 1, only 5555, 80"
    assert why_unserved(kube, "m", "other.n.svc", 1) == "there is no Service other in namespace n"


def test_a_headless_service_opens_every_port_of_its_pods(cluster: FakeCluster, kube: Kube) -> None:
    put(cluster, clusterIP="None")
    assert why_unserved(kube, "n", "kv", 7777) == "Service kv forwards to port 7777 of kv-0, where nothing listens"
    put(cluster, clusterIP="None", ports=[{"port": 5555, "targetPort": "no-such-name"}])
    assert why_unserved(kube, "n", "kv", 5555, connected=True) is None, "its name leads to the pods, not to a port"
    assert why_unserved(kube, "n", "kv-0.kv.n.svc.cluster.local", 5555) is None, "one of its pods"


def test_a_host_outside_is_none_in_the_namespace_of_its_second_part(cluster: FakeCluster, kube: Kube) -> None:
    put(cluster)
    assert why_unserved(kube, "other", "kv.n.example.com", 6380, connected=True) is None


def test_a_service_that_stands_for_a_host_outside_opens_what_that_opens(cluster: FakeCluster, kube: Kube) -> None:
    put(cluster, type="ExternalName", externalName="store.example.com", selector=None, pods=False)
    assert why_unserved(kube, "n", "kv", 6380) is None


def test_pods_behind_a_service(cluster: FakeCluster, kube: Kube) -> None:
    put(cluster, pods=False)
    assert why_unserved(kube, "n", "kv", 80) == "Service kv selects no pod (app=kv)"
    put(cluster, ready=False)
    for connected in (False, True):
        why = str(why_unserved(kube, "n", "kv", 80, connected=connected))
        assert why.startswith("no pod behind Service kv is ready (kv-0: ")
    put(cluster, ready=False, publishNotReadyAddresses=True)
    assert why_unserved(kube, "n", "kv", 80, connected=True) is None
    put(cluster)
    assert why_unserved(kube, "n", "kv", 80) == "Service kv forwards to port 8180 of kv-0, where nothing listens"
    assert why_unserved(kube, "n", "kv", 5555) == "Service kv forwards to port 5555 of kv-0, where nothing listens"
    assert why_unserved(kube, "n", "kv", 5555, connected=True) is None
    put(cluster, ports=[{"port": 5555, "targetPort": "web"}])
    assert (
        why_unserved(kube, "n", "kv", 5555)
        == "Service kv forwards to the port 'web', which no container of its pods has"
    )


def test_what_others_manage_is_not_explained(cluster: FakeCluster, kube: Kube) -> None:
    put(cluster, selector=None)
    assert why_unserved(kube, "n", "kv", 80) is None
    put(cluster, type="ExternalName")
    assert why_unserved(kube, "n", "kv", 81) is None
    cluster.forbidden.add(("get", "services"))
    assert why_unserved(kube, "n", "kv", 81) is None
