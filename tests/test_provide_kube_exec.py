"""Commands in containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.core.errors import StackError
from fixtures.core.record import PodRef, Server
from fixtures.provide.kube.exec import execute, run_python
from tests import kube_cluster
from tests.kube_cluster import put

if TYPE_CHECKING:
    from fixtures.provide.kube.api import Kube
    from tests.fakes.api_server import FakeCluster

pytest.importorskip("kubernetes")

cluster = kube_cluster.cluster
kube = kube_cluster.kube


def test_commands_print_or_fail(cluster: FakeCluster, kube: Kube) -> None:
    (name,) = put(cluster)
    pod = PodRef(namespace="default", name=name, uid="u", container="vllm", port=8000)
    cluster.programs["memory.stat"] = "anon 1\n"
    assert execute(kube, pod, ["cat", "memory.stat"]) == "anon 1\n"
    with pytest.raises(
        StackError, match=r'nvidia-smi in pod .* failed: .*exec: "nvidia-smi": executable file not found'
    ):
        execute(kube, pod, ["nvidia-smi"])


def test_the_python_of_the_engine_is_found(cluster: FakeCluster, kube: Kube) -> None:
    (pod,) = put(cluster)
    reference = PodRef(namespace="default", name=pod, uid="u", container="vllm", port=8000)
    cluster.programs["/opt/venv/bin/python3 -c"] = "of the image\n"
    cluster.programs["python3 -c"] = "of the path\n"
    of_image = Server(name="e", url="http://x", pod=reference, argv=("/opt/venv/bin/vllm", "serve"))
    of_path = Server(name="e", url="http://x", pod=reference, argv=("vllm", "serve"))
    assert run_python(kube, of_image, "print()") == "of the image\n"
    assert run_python(kube, of_path, "print()") == "of the path\n"
