"""CFG-04 and CFG-05 on the real production-stack chart: keys that it ignores in silence, addresses that nothing serves.

Set ``KV_OFFLOAD_TEST_CHART`` to ``helm/`` of a checkout of vllm-project/production-stack; without it these are skipped.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.record import EngineServer, StackRecord
from fixtures.evidence.manifest import references, unresolved
from fixtures.evidence.named import named_by_engine
from fixtures.evidence.pods.containers import argv_of, env_of
from fixtures.evidence.vllm_options import parse_options, unreadable
from fixtures.provide.kube import charts
from fixtures.provide.kube.helm import Helm
from fixtures.provide.release.idle_keys import idle_keys
from fixtures.provide.values.config import load_config
from fixtures.provide.values.yaml import read_yaml
from fixtures.subject.supported_features import features_of
from tests.helm_binaries import helm as binary

if TYPE_CHECKING:
    from fixtures.provide.kube.charts import Chart

ROOT = Path(__file__).parents[1]
CHART = os.environ.get("KV_OFFLOAD_TEST_CHART")
KNOWN = frozenset(
    [
        "LMCACHE_LOCAL_CPU",
        "LMCACHE_MAX_LOCAL_CPU_SIZE",
        "LMCACHE_LOCAL_DISK",
        "LMCACHE_MAX_LOCAL_DISK_SIZE",
        "LMCACHE_LOG_LEVEL",
        "LMCACHE_LMCACHE_INSTANCE_ID",
        "LMCACHE_REMOTE_URL",
        "LMCACHE_REMOTE_SERDE",
        "LMCACHE_CHUNK_SIZE",
        "LMCACHE_NIXL_BUFFER_SIZE",
        "LMCACHE_NIXL_BUFFER_DEVICE",
        "LMCACHE_ENABLE_CONTROLLER",
        "LMCACHE_TRACK_USAGE",
    ]
)
"""Of the names that LMCache 0.5.6 reads, those that the chart can set."""
pytestmark = pytest.mark.skipif(CHART is None, reason="set KV_OFFLOAD_TEST_CHART to helm/ of a checkout")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> tuple[Helm, Chart]:
    folder = tmp_path_factory.mktemp("chart")
    return Helm((str(binary(4)),), None, folder / "home"), charts.chart_of(CHART, None, folder)


def seed() -> dict[str, Any]:
    return read_yaml(ROOT / "configs/cpu-offload/values.yaml")


@pytest.mark.parametrize("config", ["cpu-offload", "embedded", "cpu-cluster"])
def test_our_own_values_have_no_key_without_effect(tools: tuple[Helm, Chart], config: str) -> None:
    values = read_yaml(ROOT / "configs" / config / "values.yaml")
    assert idle_keys(*tools, "vllm", "n", values, KNOWN) == []


MODEL = "servingEngineSpec.modelSpec[0]"
CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    # (what is laid over: at which path of the seed's values, keys, the paths that are to be found)
    ("a typo", {"lmcacheConfig": {"cpuOffloadBufferSize": "20"}}, ["lmcacheConfig.cpuOffloadBufferSize"]),
    ("wrong case", {"lmcacheConfig": {"CPUOffloadingBufferSize": "20"}}, ["lmcacheConfig.CPUOffloadingBufferSize"]),
    ("LMCache's own name", {"lmcacheConfig": {"maxLocalCpuSize": "20"}}, ["lmcacheConfig.maxLocalCpuSize"]),
    ("chunk size", {"lmcacheConfig": {"chunkSize": 128}}, ["lmcacheConfig.chunkSize"]),
    ("remote URL", {"lmcacheConfig": {"remoteUrl": "lm://x:1"}}, ["lmcacheConfig.remoteUrl"]),
    *(
        (f"buffer {size!r}", {"lmcacheConfig": {"cpuOffloadingBufferSize": size}}, ["lmcacheConfig.cpuOffloadingBufferSize"])
        for size in ("0.5", 0.5, "0", "-1", -1, "20GB", "20Gi", " 20 ", "abc")
    ),
    ("disk without a path", {"lmcacheConfig": {"diskOffloadingBufferSize": "10"}}, ["lmcacheConfig.diskOffloadingBufferSize"]),
    ("token inside of lmcacheConfig", {"lmcacheConfig": {"hf_token": "t"}}, ["lmcacheConfig.hf_token"]),
    ("token by another name", {"hfToken": "t"}, ["hfToken"]),
    ("LMCache below vllmConfig", {"vllmConfig": {"lmcacheConfig": {"enabled": True}}}, ["vllmConfig.lmcacheConfig.enabled"]),
    ("old worker port", {"lmcacheConfig": {"workerPort": 1}}, ["lmcacheConfig.workerPort"]),
    ("worker ports without a reader", {"lmcacheConfig": {"workerPorts": "1"}}, ["lmcacheConfig.workerPorts"]),
    *(
        (f"vLLM option {key}", {"vllmConfig": {key: value}}, [f"vllmConfig.{key}"])
        for key, value in (
            ("swapSpace", 4),
            ("enforceEager", True),
            ("quantization", "fp8"),
            ("blockSize", 16),
            ("gpuMemoryUtilisation", 0.9),
        )
    ),
    *((f"GPU {amount!r}", {"requestGPU": amount}, ["requestGPU"]) for amount in (0.5, "abc")),
    ("start-up probe of one model", {"startupProbe": {"failureThreshold": 90}}, ["startupProbe.failureThreshold"]),
    ("nixl without PD", {"lmcacheConfig": {"enableNixl": True, "nixlRole": "sender"}},
     ["lmcacheConfig.enableNixl", "lmcacheConfig.nixlRole"]),
    ("a variable that the chart overrides", {"env": [{"name": "LMCACHE_MAX_LOCAL_CPU_SIZE", "value": "5"}]}, ["env[0].value"]),
    ("a second connector", {"vllmConfig": {"extraArgs": ["--kv-transfer-config", "{}"]}}, ["vllmConfig.extraArgs[1]"]),
]  # fmt: skip


@pytest.mark.parametrize(("over", "found"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_key_that_is_ignored_is_found(tools: tuple[Helm, Chart], over: dict[str, Any], found: list[str]) -> None:
    values = seed()
    model = values["servingEngineSpec"]["modelSpec"][0]
    for key, value in over.items():
        if isinstance(value, dict) and key in model:
            model[key] |= value
        else:
            model[key] = value
    assert idle_keys(*tools, "vllm", "n", values, KNOWN) == [f"{MODEL}.{path}" for path in found]


@pytest.mark.parametrize("place", ["servingEngineSpec", ""])
def test_lmcache_at_a_wrong_level_is_found(tools: tuple[Helm, Chart], place: str) -> None:
    values = seed()
    wrong = {"enabled": True, "cpuOffloadingBufferSize": "20"}
    (values[place] if place else values)["lmcacheConfig"] = copy.deepcopy(wrong)
    prefix = f"{place}." if place else ""
    assert idle_keys(*tools, "vllm", "n", values, KNOWN) == [f"{prefix}lmcacheConfig.{key}" for key in wrong]


def test_what_prefill_decode_sets_for_an_old_lmcache_is_found(tools: tuple[Helm, Chart]) -> None:
    values = seed()
    lmcache = values["servingEngineSpec"]["modelSpec"][0]["lmcacheConfig"]
    lmcache.clear()
    lmcache |= {
        "enabled": True,
        "enablePD": True,
        "enableNixl": True,
        "nixlRole": "sender",
        "nixlPeerHost": "h",
        "nixlPeerPort": "1",
    }
    found = idle_keys(*tools, "vllm", "n", values, KNOWN)
    base = f"{MODEL}.lmcacheConfig"
    assert found == [f"{base}.enableNixl", f"{base}.nixlPeerHost", f"{base}.nixlPeerPort"]


def test_the_controller_port_that_the_service_of_the_router_does_not_open_is_found(tools: tuple[Helm, Chart]) -> None:
    """The chart's tutorial 17, and `configs/router-kv` after it: engines ask port 9001, and the Service opens 9000 alone."""
    values = read_yaml(ROOT / "configs/router-kv/values.yaml")
    objects = tools[0].render_values(tools[1], "vllm", "n", values)
    (found,) = unresolved(objects)
    assert found.endswith(
        "env LMCACHE_CONTROLLER_REPLY_URL refers to port 9001 of Service vllm-router-service, which has 80, 9000"
    )
    extra = {"name": "lmcache-reply", "port": 9001, "targetPort": 9001, "protocol": "TCP"}
    values["routerSpec"]["extraPorts"] = [extra]
    assert unresolved(tools[0].render_values(tools[1], "vllm", "n", values)) == []


def test_the_cache_server_of_the_chart_is_served_and_is_a_remote_tier(tools: tuple[Helm, Chart]) -> None:
    """`cacheserverSpec` renders a Deployment and a Service, and the engines name exactly this Service."""
    values = seed() | {"cacheserverSpec": {"enabled": True, "servicePort": 81, "containerPort": 8080, "serde": "naive"}}
    objects = tools[0].render_values(tools[1], "vllm", "n", values)
    assert unresolved(objects) == []
    made = {(one["kind"], one["metadata"]["name"]) for one in objects}
    assert {one.name for one in references(objects) if one.kind == "Service"} == {"vllm-cache-server-service"}
    assert {("Service", "vllm-cache-server-service"), ("Deployment", "vllm-deployment-cache-server")} <= made
    engine = next(one for one in objects if one["metadata"]["name"] == "vllm-mistral-deployment-vllm")
    (container,) = engine["spec"]["template"]["spec"]["containers"]
    env = dict(env_of(container))
    (named,) = named_by_engine(parse_options(argv_of(container)), env, unreadable)
    assert (named.where, str(named)) == ("LMCACHE_REMOTE_URL", "vllm-cache-server-service:81")
    server = EngineServer(name="e", url="http://x", argv=argv_of(container), env=env)
    record = StackRecord(id="x", kind="attach", config="c", folder=ROOT, model="m", engines=[server])
    assert "remote-tier" in features_of(record).supported


def test_the_store_that_an_adapter_names_is_followed(tools: tuple[Helm, Chart]) -> None:
    values = load_config("remote", ROOT / "configs").values.data
    objects = tools[0].render_values(tools[1], "vllm", "n", values)
    assert unresolved(objects) == []
    assert "kv-store" in {one.name for one in references(objects) if one.kind == "Service"}
    service = next(one for one in values["extraObjects"] if one["metadata"]["name"] == "kv-store")
    service["spec"]["ports"][0]["port"] = 6380
    (found,) = unresolved(tools[0].render_values(tools[1], "vllm", "n", values))
    assert found == "Deployment kv-server: its command refers to port 6379 of Service kv-store, which has 6380"


def test_a_disk_size_with_a_path_has_an_effect(tools: tuple[Helm, Chart]) -> None:
    values = seed()
    model = values["servingEngineSpec"]["modelSpec"][0]
    model["lmcacheConfig"]["diskOffloadingBufferSize"] = "10"
    model["env"] = [{"name": "LMCACHE_LOCAL_DISK", "value": "/mnt/kv"}]
    assert idle_keys(*tools, "vllm", "n", values, KNOWN) == []
