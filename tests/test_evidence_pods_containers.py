"""Containers: what they run, their requests, their variables, and how long they may take."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.evidence.pods.containers import (
    argv_of,
    env_of,
    main_container,
    quantity,
    requests_of,
    role_of,
    speaks_http,
)
from fixtures.evidence.pods.objects import (
    event_time,
    is_ready,
    last_end,
    ready_budget_s,
    restarts,
    started_in_s,
    startup_budget_s,
    unready_after_s,
)
from fixtures.provide.release import discover
from tests.pod_examples import FATES


def test_readiness_and_start_up() -> None:
    pod = FATES["ready"]["pods"][0]
    assert is_ready(pod)
    assert not is_ready(FATES["never"]["pods"][0])
    assert not is_ready({**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    started = started_in_s(pod, "vllm")
    assert started is not None
    assert 0 <= started < 10
    assert restarts(FATES["crash"]["pods"][0]) >= 2
    assert last_end(FATES["crash"]["pods"][0]) == "Error (exit code 1)"


def test_the_reason_of_an_end_is_quoted_whole() -> None:
    reason = "exec: vllm: " + "why " * 300 + "not found"
    ended = {"reason": "StartError", "exitCode": 128, "message": reason}
    pod = {"status": {"containerStatuses": [{"name": "c", "state": {"terminated": ended}}]}}
    assert last_end(pod) == f"StartError (exit code 128): {reason}"


def test_times_of_the_scheduler_count() -> None:
    assert event_time({"eventTime": "2026-11-25T14:55:41.556143Z"}) == pytest.approx(1795618541.556143)
    assert event_time({"lastTimestamp": "2026-11-25T14:55:41Z"}) == 1795618541.0
    assert event_time({}) == 0.0


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["/opt/venv/bin/vllm", "serve", "m"], "engine"),
        (["vllm", "serve", "m"], "engine"),
        (["python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "m"], "engine"),
        (["/opt/venv/bin/lmcache", "server"], "cache server"),
        (["/opt/venv/bin/lmcache_server", "0.0.0.0", "81"], "cache server"),
        (["/usr/bin/lmcache_experimental_server", "0.0.0.0", "81"], "cache server"),
        (["python3", "-m", "lmcache.v1.server", "0.0.0.0", "81"], "cache server"),
        (["python3", "-m", "lmcache.experimental.server", "0.0.0.0", "81"], "cache server"),
        (["python3", "-m", "lmcache.v1.multiprocess.http_server"], "cache server"),
        (["bash", "-c", "lmcache server --port 5555"], "cache server"),
        (["python3", "-m", "lmcache.cli.main", "server"], "cache server"),
        (["bash", "-c", "vllm serve m --port 9000"], "engine"),
        (["/bin/sh", "-ec", "ray start --head && exec /opt/venv/bin/vllm serve m"], "engine"),
        (["bash", "-lc", "export A=1\nsleep 5; HF_HOME=/x vllm serve m 2>&1 | tee log"], "engine"),
        (["numactl", "--cpunodebind=0", "vllm", "serve", "m"], "engine"),
        (["lmcache_vllm", "serve", "m"], "engine"),
        (["bash", "-c", 'eval "exec vllm serve m ${MORE}"'], "engine"),
        (["bash", "-c", 'eval "$(conda shell.bash hook)"; sleep infinity'], "other"),
        (["vllm", "serve", "m", "--headless"], "other"),
        (["bash", "-c", "ray start --address=$LWS_LEADER_ADDRESS:6379 --block"], "other"),
        (["python", "watch.py", "--note", "restarts vllm serve when it hangs"], "other"),
        (["python", "router.py", "--routing-logic", "roundrobin"], "router"),
        (["nginx"], "other"),
    ],
)
def test_roles_by_what_is_run(command: list[str], role: str) -> None:
    sidecar = {"name": "sidecar", "command": ["tail"]}
    pod = {"metadata": {}, "spec": {"containers": [sidecar, {"name": "main", "command": command}]}}
    assert role_of(pod) == role
    if role in {"engine", "cache server"}:
        assert main_container(pod, role)["name"] == "main"


def test_a_shell_around_a_command_is_taken_off() -> None:
    script = 'set -e; vllm serve "$MODEL" --port ${PORT} \\\n --kv-transfer-config \'{"kv_connector": "X"}\''
    env = [{"name": "MODEL", "value": "org/m"}, {"name": "PORT", "value": "9000"}]
    container = {"command": ["bash", "-c"], "args": [script], "env": env}
    words = argv_of(container)
    assert words == ("vllm", "serve", "org/m", "--port", "9000", "--kv-transfer-config", '{"kv_connector": "X"}')
    pod = {"metadata": {}, "spec": {"containers": [container]}}
    assert discover.port_of(pod, "engine") == 9000
    assert discover.served_models(pod) == ["org/m"]


def test_an_image_that_starts_vllm_by_itself_is_an_engine() -> None:
    container = {"image": "registry/vllm/vllm-openai:v0.32.0", "args": ["--model", "org/m"]}
    pod = {"metadata": {}, "spec": {"containers": [container]}}
    assert role_of(pod) == "engine"
    assert discover.served_models(pod) == ["org/m"]


@pytest.mark.parametrize(
    ("image", "args", "role"),
    [
        ("registry.redhat.io/rhaiis/vllm-cuda-rhel9:3", ["--model", "org/m"], "engine"),
        ("public.ecr.aws/q9t5s3a7/vllm-cpu-release-repo:v0.32.0", ["--model=org/m", "--port=8000"], "engine"),
        ("quay.io/modh/vllm@sha256:0", ["--model", "org/m"], "engine"),
        ("quay.io/modh/vllm", ["--help"], "other"),
        ("example/vllm-router:1", ["--model", "org/m"], "other"),
        ("example/my-vllm-bench", ["--model", "org/m"], "other"),
    ],
)
def test_images_of_others_that_start_vllm_by_themselves(image: str, args: list[str], role: str) -> None:
    pod = {"metadata": {}, "spec": {"containers": [{"image": image, "args": args}]}}
    assert role_of(pod) == role
    assert role == "other" or discover.served_models(pod) == ["org/m"]


def test_what_eval_runs_is_read_as_a_script() -> None:
    script = (
        'if [ "$A" = b ]; then exit 1; fi\neval "vllm serve \\\n /m \\\n --served-model-name "org/m" --port 8001 ${X}"'
    )
    pod = {"metadata": {}, "spec": {"containers": [{"command": ["/bin/bash", "-c"], "args": [script]}]}}
    assert discover.port_of(pod, "engine") == 8001
    assert discover.served_models(pod) == ["org/m"]


def test_variables_of_the_pod_are_filled_in() -> None:
    container = {"command": ["vllm", "serve", "$(MODEL)", "$(NODE)"], "env": [{"name": "MODEL", "value": "org/m"}]}
    assert argv_of(container) == ("vllm", "serve", "org/m", "$(NODE)")


def test_only_lmcache_server_speaks_http() -> None:
    assert speaks_http(("lmcache", "server", "--port", "1"))
    assert speaks_http(("python", "-m", "lmcache.v1.multiprocess.http_server"))
    assert not speaks_http(("/x/lmcache_experimental_server", "h", "81"))
    assert not speaks_http(("python", "-m", "lmcache.v1.server", "h", "81"))


def test_ports_and_models_of_pods() -> None:
    def pod(*command: str, **container: Any) -> dict[str, Any]:
        return {"metadata": {}, "spec": {"containers": [{"command": list(command), **container}]}}

    assert discover.port_of(pod("vllm", "serve", "m", "--port", "9000"), "engine") == 9000
    assert discover.port_of(pod("vllm", "serve", "m"), "engine") == 8000
    assert discover.port_of(pod("lmcache", "server", "--http-port", "8180"), "cache server") == 8180
    module = ("python", "-m", "lmcache.v1.multiprocess.server", "--port", "5555")
    assert speaks_http(module)
    assert discover.port_of(pod(*module), "cache server") == 9090
    assert discover.port_of(pod(*module, "--prometheus-port", "9100"), "cache server") == 9100
    named = pod("x", ports=[{"name": "router-port", "containerPort": 8001}])
    assert discover.port_of(named, "router") == 8001
    assert discover.served_models(pod("vllm", "serve", "org/m")) == ["org/m"]
    assert discover.served_models(pod("vllm", "serve", "/m", "--served-model-name", "org/m")) == ["org/m"]
    assert discover.served_models(pod("vllm", "serve")) == []


@pytest.mark.parametrize(
    ("text", "number"), [("100m", 0.1), ("48Gi", 48 * 1024**3), ("2", 2.0), ("1e3", 1000.0), ("1.5G", 1.5e9)]
)
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "many", "20GB", "1 Gi"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity(text)


def test_requests_of_a_pod() -> None:
    spec = {
        "containers": [
            {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"nvidia.com/gpu": "1"}}},
            {"resources": {"requests": {"cpu": "500m"}}},
            {},
        ],
        "initContainers": [{"resources": {"requests": {"cpu": "4"}}}],
    }
    assert requests_of(spec) == {"cpu": 4.0, "memory": 1024**3, "nvidia.com/gpu": 1.0}


def test_the_budget_of_a_start_up() -> None:
    probe = {"initialDelaySeconds": 15, "periodSeconds": 10, "failureThreshold": 60}
    assert startup_budget_s({"startupProbe": probe}) == 615.0
    assert startup_budget_s({"startupProbe": {}}) is None
    assert startup_budget_s({}) is None


@pytest.mark.parametrize(
    ("readiness", "expected"),
    [
        (None, 21.0),
        ({"initialDelaySeconds": 30, "periodSeconds": 5}, 36.0),
        ({"periodSeconds": 2}, 23.0),
        ({"initialDelaySeconds": 1, "periodSeconds": 5, "successThreshold": 3}, 36.0),
    ],
)
def test_the_budget_until_a_container_is_ready(readiness: dict[str, int] | None, expected: float) -> None:
    """The router of chart 0.1.12 was ready after 34 s without a restart: its readiness probe begins after 30 s."""
    probe = {"initialDelaySeconds": 5, "periodSeconds": 5, "failureThreshold": 3}
    assert ready_budget_s({"startupProbe": probe, "readinessProbe": readiness}) == expected
    assert ready_budget_s({"readinessProbe": readiness}) is None


@pytest.mark.parametrize(
    ("readiness", "expected"),
    [
        (None, None),
        ({"initialDelaySeconds": 15, "periodSeconds": 5, "failureThreshold": 3}, 18.0),
        ({"periodSeconds": 10, "timeoutSeconds": 4}, 42.0),
        ({"failureThreshold": 1}, 11.0),
    ],
)
def test_the_time_until_a_container_that_is_silent_is_out_of_use(
    readiness: dict[str, int] | None, expected: float | None
) -> None:
    """The first is the chart's own (0.1.12); what is not given has the default of Kubernetes."""
    assert unready_after_s({"readinessProbe": readiness}) == expected


def test_environments_keep_doubles_and_references() -> None:
    env = [
        {"name": "A", "value": "1"},
        {"name": "A", "value": "2"},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "EMPTY"},
    ]
    assert env_of({"env": env}) == [
        ("A", "1"),
        ("A", "2"),
        ("IP", "$(status.podIP)"),
        ("KEY", "$(secretKeyRef:s/k)"),
        ("EMPTY", ""),
    ]
