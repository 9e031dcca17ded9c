"""Why things wait, by objects recorded on Kubernetes 1.36 (one node, containerd, no GPU)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.cluster import discover, waiting
from fixtures.cluster.discover import Seen
from fixtures.evidence import pods

FATES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "data/cluster/fates.json").read_text())
STANDARD = {"metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}


def seen(fate: str) -> Seen:
    one = FATES[fate]
    return Seen(
        [one["deployment"]], one["replica_sets"], one["pods"], one["claims"], pods.by_object(one["events"]), [STANDARD]
    )


def later(fate: str) -> float:
    """A moment when every grace is over."""
    events = FATES[fate]["events"]
    return max(map(pods.event_time, events)) + 5 if events else 0.0


@pytest.mark.parametrize(
    ("fate", "who", "words"),
    [
        ("crash", "Pod crash-", "container vllm ended"),
        ("pull", "Pod pull-", "no-such-image:1: not found"),
        ("gpu", "Pod gpu-", "Insufficient nvidia.com/gpu"),
        ("runtime", "ReplicaSet runtime-", 'RuntimeClass "no-such-class" not found'),
        ("secret", "Pod secret-", 'secret "nobody" not found'),
        ("noclass", "PersistentVolumeClaim noclass", "there is no StorageClass fast"),
        ("quota", "ReplicaSet quota-", "exceeded quota"),
    ],
)
def test_what_cannot_come_is_named(fate: str, who: str, words: str) -> None:
    first = seen(fate).blocked(later(fate) + 20)[0]
    assert first.who.startswith(who)
    assert words in first.message.replace("\\", "")
    assert first.remedy


def test_a_volume_that_cannot_be_mounted_is_named_after_its_grace() -> None:
    began = pods.seconds_of(FATES["mount"]["pods"][0]["metadata"]["creationTimestamp"])
    assert began is not None
    assert seen("mount").blocked(began + 5) == []
    assert 'configmap "nobody" not found' in seen("mount").blocked(began + 40)[0].message


@pytest.mark.parametrize("fate", ["ready", "never"])
def test_what_may_still_come_is_waited_for(fate: str) -> None:
    assert seen(fate).blocked(later(fate) + 3600) == []


@pytest.mark.parametrize("fate", ["gpu", "runtime", "quota"])
def test_what_young_releases_pass_through_has_a_grace(fate: str) -> None:
    one = FATES[fate]
    began = pods.seconds_of(one["deployment"]["metadata"]["creationTimestamp"])
    assert began is not None
    assert seen(fate).blocked(began + 2) == []


def test_somebody_who_makes_room_is_waited_for() -> None:
    one = seen("gpu")
    pod = one.found[0]
    one.events[pods.uid_of(pod)].append({"reason": "TriggeredScaleUp", "involvedObject": {"uid": pods.uid_of(pod)}})
    assert one.blocked(later("gpu") + 60) == []


def test_rows_show_why() -> None:
    row = waiting.rows(seen("pull"), later("pull"))[0]
    assert row[1:3] == ("Pending", "ImagePullBackOff")
    assert "ImagePullBackOff" in row[3]
    no_pod = waiting.rows(seen("runtime"), later("runtime"))
    assert any("RuntimeClass" in row[3] for row in no_pod)


def test_readiness_and_start_up() -> None:
    pod = FATES["ready"]["pods"][0]
    assert pods.is_ready(pod)
    assert not pods.is_ready(FATES["never"]["pods"][0])
    assert not pods.is_ready({**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    started = pods.started_in_s(pod, "vllm")
    assert started is not None
    assert 0 <= started < 10
    assert pods.restarts(FATES["crash"]["pods"][0]) >= 2
    assert pods.last_end(FATES["crash"]["pods"][0]) == "Error (exit code 1)"


def test_owners_lead_to_pods() -> None:
    one = FATES["ready"]
    everything = [pod for fate in FATES.values() for pod in fate["pods"]]
    sets = [each for fate in FATES.values() for each in fate["replica_sets"]]
    assert pods.owned([pods.uid_of(one["deployment"])], sets, everything) == one["pods"]


def test_times_of_the_scheduler_count() -> None:
    assert pods.event_time({"eventTime": "2026-11-25T14:55:41.556143Z"}) == pytest.approx(1795618541.556143)
    assert pods.event_time({"lastTimestamp": "2026-11-25T14:55:41Z"}) == 1795618541.0
    assert pods.event_time({}) == 0.0


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["/opt/venv/bin/vllm", "serve", "m"], "engine"),
        (["vllm", "serve", "m"], "engine"),
        (["python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "m"], "engine"),
        (["/opt/venv/bin/lmcache", "server"], "cache server"),
        (["/opt/venv/bin/lmcache_server", "0.0.0.0", "81"], "cache server"),
        (["python", "router.py", "--routing-logic", "roundrobin"], "router"),
        (["nginx"], "other"),
    ],
)
def test_roles_by_what_is_run(command: list[str], role: str) -> None:
    sidecar = {"name": "sidecar", "command": ["tail"]}
    pod = {"metadata": {}, "spec": {"containers": [sidecar, {"name": "main", "command": command}]}}
    assert pods.role_of(pod) == role
    if role in {"engine", "cache server"}:
        assert pods.main_container(pod, role)["name"] == "main"


def test_ports_and_models_of_pods() -> None:
    def pod(*command: str, **container: Any) -> dict[str, Any]:
        return {"metadata": {}, "spec": {"containers": [{"command": list(command), **container}]}}

    assert discover.port_of(pod("vllm", "serve", "m", "--port", "9000"), "engine") == 9000
    assert discover.port_of(pod("vllm", "serve", "m"), "engine") == 8000
    assert discover.port_of(pod("lmcache", "server", "--http-port", "8180"), "cache server") == 8180
    named = pod("x", ports=[{"name": "router-port", "containerPort": 8001}])
    assert discover.port_of(named, "router") == 8001
    assert discover.served_model(pod("vllm", "serve", "org/m")) == "org/m"
    assert discover.served_model(pod("vllm", "serve", "/m", "--served-model-name", "org/m")) == "org/m"
    assert discover.served_model(pod("vllm", "serve")) is None


@pytest.mark.parametrize(
    ("text", "number"), [("100m", 0.1), ("48Gi", 48 * 1024**3), ("2", 2.0), ("1e3", 1000.0), ("1.5G", 1.5e9)]
)
def test_quantities(text: str, number: float) -> None:
    assert pods.quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "many", "20GB", "1 Gi"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        pods.quantity(text)


def test_requests_of_a_pod() -> None:
    spec = {
        "containers": [
            {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"nvidia.com/gpu": "1"}}},
            {"resources": {"requests": {"cpu": "500m"}}},
            {},
        ],
        "initContainers": [{"resources": {"requests": {"cpu": "4"}}}],
    }
    assert pods.requests_of(spec) == {"cpu": 4.0, "memory": 1024**3, "nvidia.com/gpu": 1.0}


def test_the_budget_of_a_start_up() -> None:
    probe = {"initialDelaySeconds": 15, "periodSeconds": 10, "failureThreshold": 60}
    assert pods.startup_budget_s({"startupProbe": probe}) == 615.0
    assert pods.startup_budget_s({"startupProbe": {}}) is None
    assert pods.startup_budget_s({}) is None


def test_environments_keep_doubles_and_references() -> None:
    env = [
        {"name": "A", "value": "1"},
        {"name": "A", "value": "2"},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "EMPTY"},
    ]
    assert pods.env_of({"env": env}) == [
        ("A", "1"),
        ("A", "2"),
        ("IP", "$(status.podIP)"),
        ("KEY", "$(secretKeyRef:s/k)"),
        ("EMPTY", ""),
    ]
