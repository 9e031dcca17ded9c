"""Connections to pods."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest
import requests

from fixtures.core.errors import StackError
from fixtures.core.waiting import poll
from fixtures.provide.kube.port_forward import PortForward
from tests import kube_cluster
from tests.kube_cluster import put

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.provide.kube.api import Kube
    from tests.fakes.api_server import FakeCluster


pytest.importorskip("kubernetes")

cluster = kube_cluster.cluster
kube = kube_cluster.kube


@pytest.fixture
def forward(cluster: FakeCluster, kube: Kube, httpserver: object) -> Iterator[PortForward]:
    (pod,) = put(cluster)
    cluster.targets["engine", 8000] = ("127.0.0.1", httpserver.port)  # type: ignore[attr-defined]
    httpserver.expect_request("/health").respond_with_data("fine")  # type: ignore[attr-defined]
    httpserver.expect_request("/much").respond_with_data(b"x" * 3_000_000)  # type: ignore[attr-defined]
    with PortForward(kube, "default", pod, 8000) as opened:
        yield opened


def test_bytes_go_both_ways(forward: PortForward) -> None:
    assert requests.get(f"{forward.url}/health", timeout=5).text == "fine"
    assert len(requests.get(f"{forward.url}/much", timeout=5).content) == 3_000_000
    forward.check()


def test_many_connections_at_once(forward: PortForward) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(requests.get(f"{forward.url}/health", timeout=10).text))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["fine"] * 16
    assert poll(lambda: len(forward._open), lambda n: n == 0, 5.0) == 0


def test_a_server_that_came_back_is_reached_again(cluster: FakeCluster, forward: PortForward) -> None:
    with cluster.away():
        with pytest.raises(requests.RequestException):
            requests.get(f"{forward.url}/health", timeout=5)
        with pytest.raises(StackError, match="through the API server was lost"):
            forward.check()
    assert requests.get(f"{forward.url}/health", timeout=5).text == "fine"


def test_a_cut_is_not_the_pods_fault(cluster: FakeCluster, forward: PortForward) -> None:
    with socket.create_server(("127.0.0.1", 0)) as patient:
        cluster.targets["engine", 8000] = patient.getsockname()
        with socket.create_connection(("127.0.0.1", int(forward.url.rpartition(":")[2]))) as client:
            client.sendall(b"hello")
            inside, _ = patient.accept()
            assert inside.recv(5) == b"hello"
            cluster.cut()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            inside.close()
    with pytest.raises(StackError, match="does not prove a fault of the pod"):
        forward.check()


def test_a_pod_that_refuses_is_the_pods_fault(cluster: FakeCluster, forward: PortForward) -> None:
    cluster.targets["engine", 8000] = ("127.0.0.1", 9)
    with pytest.raises(requests.RequestException):
        requests.get(f"{forward.url}/health", timeout=5)
    forward.check()


def test_a_pod_that_is_gone_refuses_quickly(cluster: FakeCluster, forward: PortForward) -> None:
    (pod,) = cluster.pods("default")
    cluster.remove("api/v1/pods", "default", pod["metadata"]["name"])
    assert poll(cluster.pods, lambda left: not left, 5.0) == []
    with pytest.raises(requests.RequestException):
        requests.get(f"{forward.url}/health", timeout=5)
    forward.check()
