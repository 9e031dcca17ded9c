"""The stand-in API server answers as a real one did: against answers recorded on Kubernetes 1.36."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from fixtures.evidence.pods.objects import condition, is_ready, restarts, statuses
from tests.fakes.api_server import FATES, FakeCluster

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "data/cluster/answers.json").read_text())
COMPARED = ("kind", "apiVersion", "status", "reason", "code")


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    made = FakeCluster().start()
    yield made
    made.stop()


def ask(cluster: FakeCluster, method: str, path: str, body: Any = None) -> Any:
    return requests.request(method, f"http://127.0.0.1:{cluster.port}/{path}", json=body, timeout=5).json()


def words(message: str) -> str:
    """A message without the names in it."""
    return re.sub(r'"[^"]*"', '"x"', message).partition(" in API group")[0].partition(". You can")[0].rstrip(".")


@pytest.mark.parametrize(
    ("name", "method", "path", "body"),
    [
        ("not found", "GET", "api/v1/namespaces/default/pods/absent", None),
        ("already exists", "POST", "api/v1/namespaces", {"metadata": {"name": "default"}}),
        ("forbidden", "GET", "api/v1/nodes", None),
        ("gone", "GET", "api/v1/namespaces/default/pods?limit=1&continue=1", None),
        ("no namespace", "POST", "api/v1/namespaces/none/pods", {"metadata": {"name": "p"}}),
    ],
)
def test_refusals(cluster: FakeCluster, name: str, method: str, path: str, body: Any) -> None:
    if name == "forbidden":
        cluster.forbidden.add(("list", "nodes"))
    cluster.gone = 1
    found, recorded = ask(cluster, method, path, body), RECORDED[name]
    assert {key: found[key] for key in COMPARED} == {key: recorded[key] for key in COMPARED}
    assert words(found["message"]) == words(recorded["message"])


@pytest.mark.parametrize("name", ["allowed", "denied"])
def test_reviews(cluster: FakeCluster, name: str) -> None:
    recorded = RECORDED[name]
    cluster.forbidden.add(("create", "deployments"))
    review = {"spec": recorded["spec"]}
    found = ask(cluster, "POST", "apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    assert found["status"]["allowed"] is recorded["status"]["allowed"]


@pytest.mark.parametrize("fate", sorted(FATES))
def test_pods_fare_as_recorded(cluster: FakeCluster, fate: str) -> None:
    cluster.fates["d"] = fate
    template = {"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "vllm", "image": "i"}]}}
    cluster.put("apis/apps/v1/deployments", "default", {"metadata": {"name": "d"}, "spec": {"template": template}})
    recorded, found = FATES[fate]["pods"], cluster.pods("default")
    assert len(found) == len(recorded)
    for one, other in zip(found, recorded, strict=True):
        assert one["status"]["phase"] == other["status"]["phase"]
        assert is_ready(one) == is_ready(other)
        assert restarts(one) == restarts(other)
        for status, model in zip(statuses(one), statuses(other), strict=True):
            assert set(status["state"]) == set(model["state"])
    (replica_set,) = cluster.find("apis/apps/v1/replicasets", "default")
    failure = condition(FATES[fate]["replica_sets"][0], "ReplicaFailure")
    assert condition(replica_set, "ReplicaFailure").get("message") == failure.get("message")


def test_lines_with_times(cluster: FakeCluster) -> None:
    template = {"metadata": {}, "spec": {"containers": [{"name": "vllm", "image": "i"}]}}
    cluster.put("apis/apps/v1/deployments", "default", {"metadata": {"name": "d"}, "spec": {"template": template}})
    (pod,) = cluster.pods("default")
    path = f"api/v1/namespaces/default/pods/{pod['metadata']['name']}/log?timestamps=true"
    text = requests.get(f"http://127.0.0.1:{cluster.port}/{path}", timeout=5).text
    shape = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z .*\n"
    assert re.fullmatch(shape, text)
    assert re.fullmatch(shape, RECORDED["with times"])


def test_a_follower_ends_with_its_client(cluster: FakeCluster) -> None:
    template = {"metadata": {}, "spec": {"containers": [{"name": "vllm", "image": "i"}]}}
    cluster.put("apis/apps/v1/deployments", "default", {"metadata": {"name": "d"}, "spec": {"template": template}})
    (pod,) = cluster.pods("default")
    path = f"api/v1/namespaces/default/pods/{pod['metadata']['name']}/log?follow=true"
    with requests.get(f"http://127.0.0.1:{cluster.port}/{path}", stream=True, timeout=5) as answer:
        lines = answer.iter_lines()
        assert next(lines) == b"INFO starting"
        assert cluster.open_connections == 1
    deadline = time.monotonic() + 5
    while cluster.open_connections:
        assert time.monotonic() < deadline, "the log is still followed 5 s after its client disconnected"
        time.sleep(0.01)
