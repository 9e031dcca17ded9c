"""Logs of pods, followed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fixtures.core.waiting import poll
from fixtures.provide.kube.pod_logs import PodLogs
from tests import kube_cluster
from tests.kube_cluster import put

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.provide.kube.api import Kube
    from tests.fakes.api_server import FakeCluster


pytest.importorskip("kubernetes")

cluster = kube_cluster.cluster
kube = kube_cluster.kube


def text_of(path: Path, words: str) -> str:
    return poll(path.read_text, lambda text: words in text, 8.0)


def test_logs_are_followed_from_the_first_line(cluster: FakeCluster, kube: Kube, tmp_path: Path) -> None:
    (pod,) = put(cluster)
    logs = PodLogs(kube, tmp_path / "logs")
    path = logs.follow("default", pod, "uid", "vllm")
    assert logs.follow("default", pod, "uid", "vllm") == path
    assert text_of(path, "starting") == "INFO starting\n"
    cluster.say(pod, "Stored 256 tokens")
    assert text_of(path, "Stored") == "INFO starting\nStored 256 tokens\n"
    logs.close()


def test_a_restart_loses_no_line_and_doubles_none(cluster: FakeCluster, kube: Kube, tmp_path: Path) -> None:
    (pod,) = put(cluster)
    logs = PodLogs(kube, tmp_path / "logs")
    path = logs.follow("default", pod, "uid", "vllm")
    text_of(path, "starting")
    with cluster.away():  # what is said meanwhile is in the previous log only
        cluster.say(pod, "ValueError: boom")
        cluster.restart(pod)
        cluster.say(pod, "second life")
    assert text_of(path, "second life") == "INFO starting\nValueError: boom\nsecond life\n"
    cluster.cut()
    cluster.say(pod, "after the cut")
    assert text_of(path, "after the cut") == "INFO starting\nValueError: boom\nsecond life\nafter the cut\n"
    logs.close()


def test_what_the_kubelet_says_itself_is_no_line(cluster: FakeCluster, kube: Kube, tmp_path: Path) -> None:
    (pod,) = put(cluster)
    cluster.restart(pod)
    cluster.previous[pod] = [("unable", "to retrieve container logs for containerd://0")]  # with HTTP 200
    cluster.say(pod, "second life")
    logs = PodLogs(kube, tmp_path / "logs")
    path = logs.follow("default", pod, "uid", "vllm")
    assert text_of(path, "second life") == "second life\n"
    logs.close()


def test_sixty_four_pods_take_one_connection_each(cluster: FakeCluster, kube: Kube, tmp_path: Path) -> None:
    names = put(cluster, replicas=64)
    logs = PodLogs(kube, tmp_path / "logs")
    paths = [logs.follow("default", name, name, "vllm") for name in names]
    for path in paths:
        assert "starting" in text_of(path, "starting")
    assert cluster.most_connections <= 64 + (os.cpu_count() or 1) * 5 + 10
    logs.close()
