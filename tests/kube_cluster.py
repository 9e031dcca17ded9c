"""A stand-in cluster with one engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.provide.kube.api import Kube
from fixtures.provide.kube.cluster_context import ClusterContext
from tests.fakes.api_server import FakeCluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytest.importorskip("kubernetes")


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    made = FakeCluster().start()
    yield made
    made.stop()


@pytest.fixture
def kube(cluster: FakeCluster, tmp_path: Path) -> Kube:
    return Kube(ClusterContext(str(cluster.kubeconfig(tmp_path)), "fake"), patience_s=5.0)


def deployment(name: str = "engine", replicas: int = 1) -> dict[str, Any]:
    container = {"name": "vllm", "image": "example/engine:1", "command": ["vllm", "serve", "m"]}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    return {"metadata": {"name": name}, "spec": {"replicas": replicas, "template": template}}


def put(cluster: FakeCluster, replicas: int = 1) -> list[str]:
    cluster.put("apis/apps/v1/deployments", "default", deployment(replicas=replicas))
    return [pod["metadata"]["name"] for pod in cluster.pods("default")]
