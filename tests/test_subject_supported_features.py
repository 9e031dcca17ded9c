"""Which features a record shows, and which it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.catalogue.features import FEATURES
from fixtures.core.processes import ProcessRef
from fixtures.core.record import EngineServer, PodRef, Release, SecretRef, Server, StackRecord
from fixtures.provide.process.recipes import RECIPES
from fixtures.report.page import identity
from fixtures.subject.identity import identity_of
from fixtures.subject.supported_features import features_of, tier_outlives


def connector(name: str, *, module: str | None = None, **extra: Any) -> dict[str, Any]:
    given = {f"lmcache.{key}": value for key, value in extra.items()}
    found = {"kv_connector": name, "kv_role": "kv_both", "kv_connector_extra_config": given}
    return found | ({"kv_connector_module_path": module} if module else {})


def inside_multi(name: str, beside: str | None) -> dict[str, Any]:
    if beside is None:
        return connector(name)
    members = {"connectors": [connector(name), connector(beside)]}
    return connector("MultiConnector") | {"kv_connector_extra_config": members}


def native(spec: str) -> dict[str, Any]:
    return connector("OffloadingConnector") | {"kv_connector_extra_config": {"spec_name": spec}}


IN_PROCESS = {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}
ASCEND = connector("LMCacheAscendConnectorV1Dynamic", module="lmcache_ascend.integration.vllm")
OFFLOAD = ("vllm", "--kv-offloading-size", "8", "--kv-offloading-backend", "lmcache")
SOMEWHERE = ProcessRef(pid=1, started=1.0)
POD = PodRef(namespace="n", name="p", uid="u", container="vllm", port=8000)
TIERS = "disk-tier remote-tier lower-tier"


def record(
    *, argv: tuple[str, ...] = ("vllm",), env: dict[str, str] | None = None, engines: int = 1, **facts: Any
) -> StackRecord:
    server, connector = facts.pop("cache_server", None), facts.pop("connector", IN_PROCESS)
    argv += ("--kv-transfer-config", json.dumps(connector)) if argv and connector else ()
    facts = {"kind": "process"} | facts
    kinds: dict[str, dict[str, Any]] = {"process": {"process": SOMEWHERE}, "chart": {"pod": POD}, "attach": {}}
    here = kinds[facts["kind"]]
    facts |= {"owner": SOMEWHERE if here else None}
    found = [
        EngineServer(name=f"e{number}", url="http://e", argv=argv, env=env or {}, cache_server=server, **here)
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


@pytest.mark.parametrize(
    ("facts", "supported", "unsupported", "unknown"),
    [
        ({"connector": ASCEND}, "", "", f"lmcache cache-server {TIERS}"),
        ({"connector": connector("Vendor", module="vendor.fast")}, "", "", f"lmcache {TIERS}"),
        ({"connector": connector("OffloadingConnector", module="vendor.fast")}, "", "", f"lmcache {TIERS}"),
        ({"connector": connector("OffloadingConnector")}, "", f"lmcache cache-server {TIERS}", ""),
        (
            {"connector": native("HostCopySpec")},
            "",
            f"lmcache cache-server {TIERS}",
            "",
        ),
        (
            {"connector": native("TieringOffloadingSpec")},
            "",
            "lmcache",
            f"cache-server {TIERS}",
        ),
        (
            {
                "connector": connector(
                    "LMCacheConnectorV1Dynamic", module="lmcache.integration.vllm.lmcache_connector_v1"
                )
            },
            "lmcache",
            f"cache-server {TIERS}",
            "",
        ),
        # Where the settings of a tier may stand
        ({"env": {"LMCACHE_CONFIG_FILE": "/x.yaml"}}, "lmcache", "cache-server", TIERS),
        (
            {"env": {"LMCACHE_CONFIG_FILE": "/x.yaml", "LMCACHE_REMOTE_URL": "lm://x:1"}},
            "remote-tier lower-tier",
            "",
            "disk-tier",
        ),
        (
            {"connector": connector("LMCacheConnectorV1", local_disk="file:///d", max_local_disk_size=5)},
            "disk-tier lower-tier",
            "remote-tier",
            "",
        ),
        ({"connector": connector("LMCacheConnectorV1", remote_url="lm://x:1")}, "remote-tier", "disk-tier", ""),
        ({"connector": connector("LMCacheConnectorV1", local_disk=None)}, "", TIERS, ""),
        ({"env": {"LMCACHE_GDS_PATH": "/d"}}, "", "", TIERS),
        ({"env": {"LMCACHE_MAX_LOCAL_DISK_SIZE": "5"}}, "", TIERS, ""),
        # A cache server that the record does not have
        ({"kind": "attach", "connector": connector("LMCacheMPConnector")}, "lmcache", "", f"cache-server {TIERS}"),
        ({"argv": OFFLOAD, "connector": None}, "lmcache", "", f"cache-server {TIERS}"),
        # What a --config file says is not known here
        (
            {"argv": ("vllm", "serve", "--config", "/c"), "connector": None},
            "",
            "",
            "lmcache prefix-cache api-key adapters",
        ),
        ({"argv": ("vllm", "serve", "--config", "/c", "--no-enable-prefix-caching")}, "lmcache", "prefix-cache", TIERS),
        # Options by vLLM's own rules
        ({"argv": ("vllm", "serve", "--api-ke", "x", "--enable-lor")}, "api-key adapters", "", ""),
        ({"argv": ("vllm", "serve", "--no_enable_prefix_cach")}, "", "prefix-cache adapters", ""),
        (
            {"argv": ("bash", "-c", "vllm serve m --no-enable-prefix-caching"), "connector": None},
            "",
            "prefix-cache",
            "",
        ),
        ({"kind": "attach", "argv": ()}, "", "", "adapters prefix-cache"),
    ],
)
def test_only_what_is_known_to_be_absent_is_unsupported(
    facts: dict[str, Any], supported: str, unsupported: str, unknown: str
) -> None:
    found = features_of(record(**facts))
    assert set(supported.split()) <= set(found.supported)
    assert set(unsupported.split()) <= set(found.unsupported)
    assert not set(unknown.split()) & {*found.supported, *found.unsupported}


def test_what_is_not_known_is_in_neither_list() -> None:
    """A bare URL: no command, no environment, no log. Nothing becomes inapplicable by that."""
    found = features_of(record(kind="attach", argv=()), attached=True)
    known = {*found.supported, *found.unsupported}
    assert not known & {"lmcache", "prefix-cache", "api-key", "router", "logs", "disk-tier", "remote-tier", "baseline"}
    assert "own" in found.unsupported


FS, RESP = '{"type":"fs","base_path":"/d"}', '{"type":"resp","host":"h","port":6379}'


@pytest.mark.parametrize(
    ("argv", "supported", "unsupported"),
    [
        ((), "", "disk-tier remote-tier lower-tier persistent-tier"),
        (("--l2-adapter", FS), "disk-tier lower-tier persistent-tier", "remote-tier"),
        ((f"--l2-adapter={RESP}",), "remote-tier lower-tier persistent-tier", "disk-tier"),
        (("--l2-adapter", FS, "--l2-adapter", RESP), "disk-tier remote-tier lower-tier persistent-tier", ""),
        (("--l2-adapter", '{"type":"mock"}'), "", "disk-tier remote-tier lower-tier persistent-tier"),
        (("--l2-adapter", '{"type":"plugin"}'), "", ""),
        (("--l2-adapter", "{"), "", ""),
    ],
)
@pytest.mark.parametrize("beside", [None, "OffloadingConnector", "NixlConnector"])
def test_the_tiers_of_a_cache_server_are_those_of_its_command(
    argv: tuple[str, ...], supported: str, unsupported: str, beside: str | None
) -> None:
    found = record(cache_server="kv", connector=inside_multi("LMCacheMPConnector", beside))
    found.cache_servers[0].argv = ("/env/bin/lmcache", "server", *argv)
    tiers = {"disk-tier", "remote-tier", "lower-tier", "persistent-tier"}
    assert tiers & set(features_of(found).supported) == set(supported.split())
    assert tiers & set(features_of(found).unsupported) == set(unsupported.split())
    found.cache_servers[0].argv = ("sh", "-c", "lmcache server")
    assert not tiers & {*features_of(found).supported, *features_of(found).unsupported}


def test_the_report_names_the_tiers_below_without_their_place() -> None:
    found = record(cache_server="kv", connector=connector("LMCacheMPConnector"))
    assert "tiers_below" not in identity_of(found, features_of(found))
    found.cache_servers[0].argv = ("lmcache", "server", "--l2-adapter", FS, "--l2-adapter", RESP)
    told = identity_of(found, features_of(found))
    assert told["tiers_below"] == ["fs (disk)", "resp (remote)"]
    subject = dict.fromkeys(("stack", "config", "chart", "values_digest", "driver", "kubernetes", "host")) | {
        "device": "cpu",
        "versions": {},
        "model": None,
        "connector": None,
        "parallel": None,
        "images": [],
        "gpu": [],
        "features": {"supported": [], "unsupported": []},
    }
    assert dict(identity(subject | told))["tiers below the CPU tier"] == "fs (disk), resp (remote)"


@pytest.mark.parametrize(("simple", "name"), [("0", "OffloadingConnector"), ("1", "SimpleCPUOffloadConnector")])
def test_the_report_names_the_connector_that_the_environment_chooses(simple: str, name: str) -> None:
    found = record(argv=("vllm", "--kv-offloading-size", "8"), env={"VLLM_USE_SIMPLE_KV_OFFLOAD": simple})
    assert identity_of(found, features_of(found))["connector"]["name"] == name


def test_a_disk_in_process_is_forgotten_at_a_restart() -> None:
    found = features_of(record(env={"LMCACHE_LOCAL_DISK": "file:///d"}))
    assert "disk-tier" in found.supported
    assert "persistent-tier" in found.unsupported
    assert "persistent-tier" in features_of(record(env={"LMCACHE_REMOTE_URL": "redis://r:6379"})).supported


def test_a_stack_without_a_connector_lacks_nothing_by_configuration() -> None:
    """A connector that was lost is CFG-01's fault, and no reason to judge less."""
    found = features_of(record(connector=None))
    assert not {"lmcache", "logs", "cache-server"} & set(found.unsupported)


@pytest.mark.parametrize(
    ("found", "outlives"),
    [
        (record(), False),
        (record(cache_server="kv"), False),
        (record(env={"LMCACHE_REMOTE_URL": "redis://r:6379"}), True),
        (record(connector=connector("LMCacheConnectorV1", local_disk="file:///d")), True),
    ],
    ids=["in-process", "cache-server", "remote", "disk"],
)
def test_whether_the_next_run_may_find_what_this_one_stores(found: StackRecord, outlives: bool) -> None:
    assert tier_outlives(found) is outlives
    for server in found.cache_servers:
        server.argv = ("lmcache", "server", "--l2-adapter", '{"type":"fs","base_path":"/d"}')
        assert tier_outlives(found)


def test_the_model_of_a_folder_by_its_architecture_and_recipe(tmp_path: Path) -> None:
    recipe = RECIPES["tiny-deepseek"]
    served = record(model_folder=tmp_path)
    assert identity_of(served, features_of(served))["model"] == {"name": "m", "KV bytes/token": None}
    (tmp_path / "config.json").write_text(json.dumps(recipe.config))
    (tmp_path / "recipe.json").write_text(json.dumps({"recipe": {"name": recipe.name}}))
    known = identity_of(served, features_of(served))["model"]
    assert known["random weights"] == "tiny-deepseek"
    assert (known["architecture"], known["latent"]) == ("DeepseekV2ForCausalLM", 576)
    (tmp_path / "config.json").write_text(json.dumps(RECIPES["tiny-granite-hybrid"].config))
    hybrid = identity_of(served, features_of(served))["model"]
    assert hybrid["architecture"] == "GraniteMoeHybridForCausalLM"
    assert "layers" not in hybrid
