"""The addresses and paths that a configuration names, and those that it only seems to name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fixtures.evidence.named import named_by_cache_server, named_by_engine, named_by_router
from fixtures.evidence.vllm_options import parse_options

IN_PROCESS = {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}
MP = {"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both"}


def engine(
    env: dict[str, str] | None = None,
    connector: dict[str, Any] | None = None,
    files: dict[str, str] | None = None,
    **extra: Any,
) -> list[str]:
    """What an engine names, as ``where kind place``."""

    def read(path: str) -> str:
        if path not in (files or {}):
            raise FileNotFoundError(path)
        return (files or {})[path]

    text = json.dumps({**(connector or IN_PROCESS), "kv_connector_extra_config": extra})
    options = parse_options(["vllm", "serve", "m", "--kv-transfer-config", text])
    return [f"{one.where} {one.kind} {one}" for one in named_by_engine(options, env or {}, read)]


@pytest.mark.parametrize(
    ("url", "places"),
    [
        ("lm://vllm-cache-server-service:81", ["address vllm-cache-server-service:81"]),
        ("redis://user:se@cret@store:6379/0", ["address store:6379"]),
        ("redis://store", ["address store:6379"]),
        ("rediss://store.example.com", ["address store.example.com:6379"]),
        ("lm://store", ["address store"]),  # LMCache wants a port here, and says so only in its log
        ("redis://[::1]:6379", ["address [::1]:6379"]),
        ("redis-sentinel://u:p@a:1,b:2/x", ["address a:1", "address b:2"]),
        ("lm://a:1, lm://b:2", ["address a:1", "address b:2"]),
        ("valkey://a:1", ["address a:1"]),
        ("lm://localhost:65432", ["address localhost:65432"]),
        ("unix:///run/redis.sock?db=0", ["socket /run/redis.sock"]),
        ("fs://localhost:0/mnt/a,/mnt/b", ["folder /mnt/a", "folder /mnt/b"]),
        ("fs://localhost:0/mnt/a?mode=1", ["folder /mnt/a"]),
        ("file:///mnt/a", ["folder /mnt/a"]),
        ("hf3fs:///3fs/a,/3fs/b", ["folder /3fs/a", "folder /3fs/b"]),
        (
            "redis://redis-0.redis-headless.ns.svc.cluster.local.:6379",
            ["address redis-0.redis-headless.ns.svc.cluster.local.:6379"],
        ),
        ("rediss://u:p@store:6380/0?ssl_cert_reqs=none", ["address store:6380"]),
        ("redis-sentinel://[fd00::1]:1,[fd00::2]:2/master", ["address [fd00::1]:1", "address [fd00::2]:2"]),
        ("redis-cluster://u:p@a:1,b:2", ["address a:1", "address b:2"]),
        ("unix://u:p@/run/redis.sock", ["socket /run/redis.sock"]),
        ("sagemaker-hyperpod://node:9000/shared?x=1", ["address node:9000"]),
        ("http://$(HOST):8080", ["address $(HOST):8080"]),
        ("s3://bucket.s3.example.com", []),
        ("blackhole://x:1", []),
        ("plugin://fs", []),
        ("", []),
        ("None", []),
    ],
)
def test_a_remote_tier_is_named_by_its_url(url: str, places: list[str]) -> None:
    assert engine({"LMCACHE_REMOTE_URL": url}) == [f"LMCACHE_REMOTE_URL {place}" for place in places]


def test_an_audited_store_is_the_one_that_the_extra_configuration_names() -> None:
    env = {
        "LMCACHE_REMOTE_URL": "audit://any:1",
        "LMCACHE_EXTRA_CONFIG": '{"audit_actual_remote_url": "redis://store:1"}',
    }
    assert engine(env) == ["audit_actual_remote_url address store:1"]
    assert engine({"LMCACHE_REMOTE_URL": "audit://any:1"}) == []


def test_a_variable_is_filled_in_where_it_is_known() -> None:
    assert engine({"H": "store", "LMCACHE_REMOTE_URL": "lm://$(H):1"}) == ["LMCACHE_REMOTE_URL address store:1"]


DISK = {"LMCACHE_LOCAL_DISK": "file:///mnt/a/,/mnt/b", "LMCACHE_MAX_LOCAL_DISK_SIZE": "5"}


@pytest.mark.parametrize(
    ("env", "places"),
    [
        (DISK, ["LMCACHE_LOCAL_DISK folder /mnt/a/", "LMCACHE_LOCAL_DISK folder /mnt/b"]),
        (DISK | {"LMCACHE_MAX_LOCAL_DISK_SIZE": "0"}, []),  # LMCache makes no disk tier of it
        ({"LMCACHE_LOCAL_DISK": "/mnt/a"}, []),
        ({"LMCACHE_MAX_LOCAL_DISK_SIZE": "5"}, []),
        (DISK | {"LMCACHE_MAX_LOCAL_DISK_SIZE": "10Gi"}, []),  # which LMCache cannot parse
        ({"LMCACHE_GDS_PATH": "/mnt/gds"}, ["LMCACHE_GDS_PATH folder /mnt/gds"]),
    ],
)
def test_a_disk_tier_needs_a_size_and_a_path(env: dict[str, str], places: list[str]) -> None:
    assert engine(env) == places


CONTROLLER = {
    "LMCACHE_CONTROLLER_PULL_URL": "vllm-router-service:9000",
    "LMCACHE_CONTROLLER_REPLY_URL": "vllm-router-service:9001",
}


@pytest.mark.parametrize(("switch", "named"), [("True", 2), ("true", 2), ("1", 2), ("False", 0), ("", 0), ("0", 0)])
def test_a_controller_is_named_only_where_it_is_on(switch: str, named: int) -> None:
    assert len(engine({**CONTROLLER, "LMCACHE_ENABLE_CONTROLLER": switch})) == named
    assert engine(CONTROLLER) == []


def test_addresses_that_an_engine_opens_itself_are_none() -> None:
    own = {
        "LMCACHE_ENABLE_P2P": "True",
        "LMCACHE_P2P_HOST": "localhost",
        "LMCACHE_P2P_INIT_PORTS": "30081",
        "LMCACHE_LMCACHE_WORKER_PORTS": "8001",
        "LMCACHE_INTERNAL_API_SERVER_HOST": "0.0.0.0",
        "VLLM_NIXL_SIDE_CHANNEL_HOST": "10.0.0.1",
    }
    assert engine(own) == []


def test_the_connector_comes_before_the_environment_and_that_before_the_file() -> None:
    env = {"LMCACHE_CONFIG_FILE": "/etc/lmcache.yaml", "LMCACHE_REMOTE_URL": "lm://env:1"}
    files = {"/etc/lmcache.yaml": "remote_url: lm://file:1\nlocal_disk: /mnt/file\nmax_local_disk_size: 5\n"}
    read, disk = "LMCACHE_CONFIG_FILE file /etc/lmcache.yaml", "local_disk of /etc/lmcache.yaml folder /mnt/file"
    assert engine(env, files=files) == [read, "LMCACHE_REMOTE_URL address env:1", disk]
    extra: dict[str, Any] = {"lmcache.remote_url": "lm://extra:1"}
    found = engine(env, files=files, **extra)
    assert found == [read, "lmcache.remote_url address extra:1", disk]
    assert engine(env) == [read, "LMCACHE_REMOTE_URL address env:1"], "a file that cannot be read is named all the same"
    assert engine({"LMCACHE_CONFIG_FILE": "", "LMCACHE_REMOTE_URL": ""}, files=files) == []


def test_plugins_name_their_places_in_the_extra_config() -> None:
    settings = {
        "remote_storage_plugin.fs.base_path": "/mnt/fs",
        "remote_storage_plugin.redis.redis_url": "redis://:pw@store:1",
        "save_chunk_meta": False,
    }
    env = {"LMCACHE_EXTRA_CONFIG": json.dumps(settings), "LMCACHE_REMOTE_STORAGE_PLUGINS": "fs,redis"}
    where = "LMCACHE_EXTRA_CONFIG"
    assert engine(env) == [f"{where} folder /mnt/fs", f"{where} address store:1"]
    del env["LMCACHE_REMOTE_STORAGE_PLUGINS"]
    assert engine(env) == []


@pytest.mark.parametrize(
    ("extra", "places"),
    [
        ({"lmcache.mp.host": "tcp://kv-server", "lmcache.mp.port": 5555}, ["lmcache.mp.host address kv-server:5555"]),
        ({"lmcache.mp.host": "kv-server", "lmcache.mp.port": "5555"}, ["lmcache.mp.host address kv-server:5555"]),
        ({"lmcache.mp.host": "tcp://[fd00::1]", "lmcache.mp.port": 1}, ["lmcache.mp.host address [fd00::1]:1"]),
        ({"lmcache.mp.host": "tcp://a:1", "lmcache.mp.port": 2}, ["lmcache.mp.host address a:1"]),
        ({"lmcache.mp.server_urls": "a:1,tcp://b:2", "lmcache.mp.host": "c"}, ["a:1", "b:2"]),
        ({"lmcache.mp.server_urls": ["tcp://a:1", "b:2"]}, ["a:1", "b:2"]),
        ({}, []),
    ],
)
def test_cache_servers_are_named_by_the_connector(extra: dict[str, Any], places: list[str]) -> None:
    places = [one if " " in one else f"lmcache.mp.server_urls address {one}" for one in places]
    assert engine(None, MP, None, **extra) == places


def test_settings_of_lmcache_in_process_are_not_read_by_another_connector() -> None:
    env = {**DISK, **CONTROLLER, "LMCACHE_ENABLE_CONTROLLER": "True", "LMCACHE_REMOTE_URL": "lm://a:1"}
    assert engine(env, MP) == []
    assert engine(env, {"kv_connector": "OffloadingConnector", "kv_role": "kv_both"}) == []


def test_tiers_of_vllm_are_named() -> None:
    tiers = [{"type": "fs", "root_dir": "/mnt/kv"}, {"type": "p2p", "host": "0.0.0.0", "port": 7}]
    found = engine(None, {"kv_connector": "OffloadingConnector", "kv_role": "kv_both"}, None, secondary_tiers=tiers)
    assert found == ["OffloadingConnector folder /mnt/kv"]


def test_members_of_a_multi_connector_are_read() -> None:
    inner = [{**MP, "kv_connector_extra_config": {"lmcache.mp.host": "tcp://a", "lmcache.mp.port": 1}}, IN_PROCESS]
    multi = {"kv_connector": "MultiConnector", "kv_role": "kv_both"}
    found = engine({"LMCACHE_REMOTE_URL": "lm://b:2"}, multi, None, connectors=inner)
    assert [one.split(" ")[-1] for one in found] == ["a:1", "b:2"]


def server(*adapters: dict[str, Any], env: dict[str, str] | None = None, words: tuple[str, ...] = ()) -> list[str]:
    argv = ["lmcache", "server", "--host", "0.0.0.0", "--port", "5555", "--http-host", "0.0.0.0"]
    for one in adapters:
        argv += ["--l2-adapter", json.dumps(one)]
    return [f"{one.where} {one.kind} {one}" for one in named_by_cache_server([*argv, *words], env or {})]


@pytest.mark.parametrize(
    ("adapter", "places"),
    [
        ({"type": "fs", "base_path": "/x/l2"}, ["folder /x/l2"]),
        ({"type": "fs_native", "base_path": "/x/l2", "relative_tmp_dir": ".tmp"}, ["folder /x/l2"]),
        (
            {"type": "resp", "host": "redis", "port": 6379, "username": "u", "password": "se:cret"},
            ["address redis:6379"],
        ),
        ({"type": "resp", "host": "::1", "port": 6379}, ["address [::1]:6379"]),
        ({"type": "valkey", "startup_nodes": "a:1,b:2"}, ["address a:1", "address b:2"]),
        ({"type": "fault_inject", "inner": {"type": "fs", "base_path": "/x"}, "rate": 0.1}, ["folder /x"]),
        ({"type": "nixl_store", "backend": "POSIX", "backend_params": {"file_path": "/n"}}, ["folder /n"]),
        ({"type": "raw_block", "device_path": "/dev/nvme1n1"}, ["file /dev/nvme1n1"]),
        ({"type": "dax", "devices": [{"device_path": "/dev/dax0.0"}]}, ["file /dev/dax0.0"]),
        (
            {"type": "p2p", "peer_mq_server_url": "tcp://a:1", "peer_transfer_channel_server_url": "a:2"},
            ["address a:1", "address a:2"],
        ),
        ({"type": "s3", "s3_endpoint": "http://minio:9000", "bucket": "b"}, ["address minio:9000"]),
        ({"type": "mooncake_store", "metadata_server": "P2PHANDSHAKE"}, []),
        ({"type": "mock", "max_size_gb": 1}, []),
    ],
)
def test_adapters_name_folders_devices_and_stores(adapter: dict[str, Any], places: list[str]) -> None:
    kind = adapter.get("inner", adapter)["type"]
    assert server(adapter) == [f"--l2-adapter ({kind}) {place}" for place in places]


def test_resp_takes_from_variables_what_its_adapter_does_not_say() -> None:
    env = {"LMCACHE_RESP_HOST": "redis", "LMCACHE_RESP_PORT": "6379", "LMCACHE_RESP_PASSWORD": "secret"}
    assert server({"type": "resp"}, env=env) == ["--l2-adapter (resp) address redis:6379"]
    assert server(env=env) == []


def test_a_coordinator_is_named_by_flag_or_variable_and_its_own_address_is_not() -> None:
    own = ("--p2p-advertise-url", "10.0.0.1:7", "--coordinator-advertise-ip", "10.0.0.1")
    assert server(words=("--coordinator-url", "http://c:9300", *own)) == ["--coordinator-url address c:9300"]
    assert server(env={"LMCACHE_COORDINATOR_URL": "http://c"}) == ["LMCACHE_COORDINATOR_URL address c:80"]
    assert server(words=("--coordinator-kafka-bootstrap-servers", "k:1")) == []


@pytest.mark.parametrize("words", [("{",), ("[1]",), ("{}",), ()])
def test_what_is_no_adapter_is_reported(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="--l2-adapter"):
        named_by_cache_server(["lmcache", "server", "--l2-adapter", *words], {})


def test_a_router_names_its_engines() -> None:
    production = ["vllm-router", "--static-backends", "http://a:8000,http://b:8000", "--port", "8001"]
    rust = ["python", "-m", "vllm_router.launch_router", "--worker-urls", "http://a:1", "http://b:2", "--policy", "x"]
    assert [str(one) for one in named_by_router(production)] == ["a:8000", "b:8000"]
    assert [str(one) for one in named_by_router(rust)] == ["a:1", "b:2"]
    assert named_by_router(["vllm-router", "--service-discovery", "k8s", "--lmcache-controller-port", "9000"]) == []
