"""Whether the engines that a chart renders can hand their KV to a cache server."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.evidence.adapters import adapters_of
from fixtures.evidence.manifest import unresolved
from fixtures.provide.release import transfer_checks
from fixtures.provide.values.config import Over, load_config
from fixtures.provide.values.extra_objects import objects_of
from fixtures.provide.values.tiers import cache_servers, stores

ROOT = Path(__file__).parents[1]
SHM = [{"name": "node-shm", "hostPath": {"path": "/dev/shm"}}]


def engine(
    extra: dict[str, Any], *, gpus: int = 1, connector: str = "LMCacheMPConnector", **spec: Any
) -> dict[str, Any]:
    config = {"kv_connector": connector, "kv_role": "kv_both", "kv_connector_extra_config": extra}
    container = {
        "name": "vllm",
        "command": ["vllm", "serve", "org/model", "--kv-transfer-config", json.dumps(config)],
        "resources": {"requests": {"nvidia.com/gpu": gpus} if gpus else {"cpu": 1}},
    }
    template = {"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [container], **spec}}
    return {"kind": "Deployment", "metadata": {"name": "engine"}, "spec": {"template": template}}


REMOTE = {"lmcache.mp.host": "tcp://kv-server", "lmcache.mp.port": 5555}


def test_an_engine_that_shares_no_memory_with_its_cache_server_is_reported() -> None:
    """Seen on an H200: the engine waits 300 s to register its KV cache and ends with "Engine core initialization failed"."""
    (found,) = transfer_checks.check_shared_memory([engine(REMOTE)])
    assert (found.name, found.state) == ("engines", "warning")
    assert "shares no /dev/shm with its cache server at kv-server" in found.text
    assert "isolated_ipc" in found.remedy


@pytest.mark.parametrize(
    "one",
    [
        engine(REMOTE, volumes=SHM),
        engine(REMOTE, hostIPC=True),
        engine(REMOTE | {"lmcache.mp.isolated_ipc": True}),
        engine(REMOTE | {"lmcache.mp.mp_transfer_mode": "engine_driven"}),
        engine(REMOTE | {"lmcache.mp.host": "tcp://localhost"}),
        engine(REMOTE, gpus=0),
        engine({}, connector="LMCacheConnectorV1"),
        engine({}, connector="OffloadingConnector"),
    ],
    ids=["node-shm", "host-ipc", "isolated", "engine-driven", "same-pod", "cpu", "in-process", "native"],
)
def test_an_engine_that_needs_no_shared_memory_is_not_warned_of(one: dict[str, Any]) -> None:
    assert list(transfer_checks.check_shared_memory([one])) == []


def test_the_shipped_configuration_shares_it() -> None:
    values = yaml.safe_load((ROOT / "configs" / "gpu-multi-process" / "values.yaml").read_text())
    (model,) = values["servingEngineSpec"]["modelSpec"]
    (deployment,) = (one for one in values["extraObjects"] if one["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert model["extraVolumes"] == pod["volumes"] == SHM
    assert (
        model["extraVolumeMounts"]
        == pod["containers"][0]["volumeMounts"]
        == [{"name": "node-shm", "mountPath": "/dev/shm"}]
    )


def server(*words: str) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "c", "command": ["lmcache", "server", "--port", "5555", *words]}]}}
    return {"kind": "Deployment", "metadata": {"name": "kv-server"}, "spec": {"template": template}}


def on_cpu(one: dict[str, Any]) -> dict[str, Any]:
    (container,) = one["spec"]["template"]["spec"]["containers"]
    return deepcopy(one) | {
        "spec": {
            "template": {
                "spec": {"containers": [container | {"env": [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "1"}]}]}
            }
        }
    }


@pytest.mark.parametrize("mode", [(), ("--supported-transfer-mode", "lmcache_driven")])
def test_a_cache_server_that_copies_with_cuda_for_an_engine_on_a_processor_is_reported(mode: tuple[str, ...]) -> None:
    """Seen on a node without a GPU: "LMCache server did not respond to register_kv_caches within 20.0s"."""
    (found,) = transfer_checks.check_transfer_modes([on_cpu(engine(REMOTE, gpus=0)), server(*mode)])
    assert (found.name, found.state) == ("engines", "warning")
    assert found.text.startswith("Deployment kv-server copies KV with CUDA")
    assert found.remedy == "add --supported-transfer-mode engine_driven to the command of the cache server"


@pytest.mark.parametrize(
    ("one", "mode"),
    [
        (on_cpu(engine(REMOTE, gpus=0)), ("--supported-transfer-mode", "engine_driven")),
        (on_cpu(engine(REMOTE, gpus=0)), ("--supported-transfer-mode=auto",)),
        (engine(REMOTE, gpus=0), ()),  # it may have a GPU by another name
        (on_cpu(engine(REMOTE)), ()),
        (on_cpu(engine({}, gpus=0, connector="LMCacheConnectorV1")), ()),
    ],
)
def test_a_cache_server_that_fits_is_not_warned_of(one: dict[str, Any], mode: tuple[str, ...]) -> None:
    assert list(transfer_checks.check_transfer_modes([one, server(*mode)])) == []


def test_the_tiers_for_a_cluster_without_gpus_fit_together() -> None:
    config = load_config("cpu-cluster", ROOT / "configs", Over(files=(ROOT / "docs" / "cpu-cluster-tiers.yaml",)))
    (cache_server,), (store,) = cache_servers(config.values), stores(config.values)
    files, redis = adapters_of(cache_server.argv)
    assert (files.type, redis.type) == ("fs", "resp")
    assert (redis.host, redis.port) == (store.service, store.port)
    assert str(cache_server.service) in str(config.values.serving_engine_spec.model_spec[0].vllm_config)
    assert dict(cache_server.env)["LMCACHE_RESP_PASSWORD"] == dict(store.env)["STORE_PASSWORD"] != ""
    objects = objects_of(config.values)
    assert unresolved(objects) == []
    cpu_engine = on_cpu(engine(REMOTE, gpus=0))
    assert list(transfer_checks.check_transfer_modes([cpu_engine, *objects])) == []


@pytest.mark.parametrize("name", ["cpu-cluster", "disk", "remote"])
def test_cache_servers_of_shipped_configurations_for_a_processor_fit(name: str) -> None:
    objects = objects_of(load_config(name, ROOT / "configs").values)
    assert list(transfer_checks.check_transfer_modes([on_cpu(engine(REMOTE, gpus=0)), *objects])) == []
