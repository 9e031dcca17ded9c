"""Which features a record shows, and which it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.stack.features import features_of, unsupported_before_start
from fixtures.stack.record import EngineServer, Release, SecretRef, Server, StackRecord
from fixtures.verdict.requirements import FEATURES

IN_PROCESS = {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}


def record(
    *, argv: tuple[str, ...] = ("vllm",), env: dict[str, str] | None = None, engines: int = 1, **facts: Any
) -> StackRecord:
    server, connector = facts.pop("cache_server", None), facts.pop("connector", IN_PROCESS)
    argv += ("--kv-transfer-config", json.dumps(connector)) if argv and connector else ()
    facts = {"kind": "process"} | facts
    found = [
        EngineServer(name=f"e{number}", url="http://e", argv=argv, env=env or {}, cache_server=server)
        for number in range(engines)
    ]
    servers = [Server(name=server, url="http://s")] if server else []
    return StackRecord(id="x", config="x", folder=Path(), model="m", engines=found, cache_servers=servers, **facts)


RELEASE = Release(name="r", namespace="n", kubeconfig=None, context=None, helm=("helm",), own=True)


@pytest.mark.parametrize(
    ("facts", "supported", "unsupported"),
    [
        ({}, "lmcache prefix-cache own", "gpu api-key router release several-engines disk-tier remote-tier lower-tier"),
        ({"device": "cuda"}, "gpu", ""),
        ({"env": {"VLLM_API_KEY": "x"}}, "api-key", ""),
        ({"argv": ("vllm", "--api_key=x")}, "api-key", ""),
        (
            {"kind": "chart", "release": RELEASE, "api_key": SecretRef(name="s", key="k")},
            "api-key release own",
            "router",
        ),
        ({"kind": "chart", "release": RELEASE, "routers": [Server(name="r", url="http://r")]}, "router release", ""),
        ({"argv": ("vllm", "--no-enable-prefix-caching")}, "", "prefix-cache"),
        ({"argv": ("vllm", "--no-enable-prefix-caching", "--enable_prefix_caching")}, "prefix-cache", ""),
        ({"env": {"VLLM_SERVER_DEV_MODE": "1"}}, "reset", ""),
        ({"env": {"LMCACHE_LOCAL_DISK": "file:///d"}}, "disk-tier lower-tier", "remote-tier"),
        (
            {"env": {"LMCACHE_REMOTE_URL": "lm://x:1"}, "engines": 2},
            "remote-tier lower-tier shared-tier several-engines",
            "",
        ),
        ({"engines": 2, "cache_server": "kv"}, "cache-server shared-tier several-engines", ""),
        ({"connector": {"kv_connector": "OffloadingConnector", "kv_role": "kv_both"}}, "", "lmcache"),
        (
            {
                "connector": {
                    "kv_connector": "MultiConnector",
                    "kv_role": "kv_both",
                    "kv_connector_extra_config": {
                        "connectors": [
                            {"kv_connector": "NixlConnector", "kv_role": "kv_both"},
                            {"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both"},
                        ]
                    },
                }
            },
            "lmcache",
            "",
        ),
        ({"argv": ("vllm", "--enable-lora")}, "adapters", ""),
    ],
)
def test_what_a_record_shows(facts: dict[str, Any], supported: str, unsupported: str) -> None:
    found = features_of(record(**facts))
    assert set(supported.split()) <= set(found.supported)
    assert set(unsupported.split()) <= set(found.unsupported)
    assert not set(found.supported) & set(found.unsupported)
    assert {*found.supported, *found.unsupported} <= set(FEATURES)


def test_what_is_not_known_is_in_neither_list() -> None:
    """A bare URL: no command, no environment, no log. Nothing becomes inapplicable by that."""
    found = features_of(record(kind="attach", argv=()), attached=True)
    known = {*found.supported, *found.unsupported}
    assert not known & {"lmcache", "prefix-cache", "api-key", "router", "logs", "disk-tier", "remote-tier", "baseline"}
    assert "own" in found.unsupported


def test_a_stack_without_a_connector_lacks_nothing_by_configuration() -> None:
    """A connector that was lost is CFG-01's fault, and no reason to judge less."""
    found = features_of(record(connector=None))
    assert not {"lmcache", "logs", "cache-server"} & set(found.unsupported)


@pytest.mark.parametrize(
    ("kind", "device", "absent"),
    [
        ("process", "cpu", {"gpu", "release", "router"}),
        ("process", "cuda", {"release", "router"}),
        ("chart", "cpu", {"gpu"}),
        ("attach", "cpu", {"own"}),
    ],
)
def test_what_a_kind_of_stack_cannot_have(kind: str, device: str, absent: set[str]) -> None:
    assert unsupported_before_start(kind, device) == absent
