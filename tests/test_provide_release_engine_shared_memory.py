"""Whether the engines that a chart renders can hand their KV to a cache server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.provide.release import engine_checks

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
    (found,) = engine_checks.check_shared_memory([engine(REMOTE)])
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
    assert list(engine_checks.check_shared_memory([one])) == []


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
