"""The settings of LMCache in the engine's process, and the tiers that they make."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.evidence.connector import connector_of
from fixtures.evidence.vllm_options import parse_options
from fixtures.subject.in_process import adapters_of_engine, keeps, settings_of

FILE = "local_disk: file:///of-file/\nmax_local_disk_size: 1\nlocal_cpu: false\nchunk_size: 64\n"


def engine(env: dict[str, str], extra: dict[str, Any] | None = None, server: Any = None) -> Any:
    connector = {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both", "kv_connector_extra_config": extra or {}}
    argv = ("vllm", "--kv-transfer-config", json.dumps(connector))

    def read(path: str) -> str:
        if path != "/lmcache.yaml":
            raise OSError("no such file")
        return FILE

    return SimpleNamespace(
        name="e",
        server=SimpleNamespace(env=env, argv=argv),
        cache_server=server,
        options=lambda: parse_options(argv),
        connector=lambda: connector_of(argv),
        read_file=read,
    )


def test_settings_are_read_in_the_order_of_lmcache() -> None:
    env = {"LMCACHE_CONFIG_FILE": "/lmcache.yaml", "LMCACHE_CHUNK_SIZE": "128", "LMCACHE_LOCAL_DISK": "/of-env/"}
    found = settings_of(engine(env, {"lmcache.local_disk": "/of-connector/"}))
    assert found["local_disk"] == "/of-connector/"
    assert found["chunk_size"] == "128"
    assert found["max_local_disk_size"] == 1
    assert settings_of(engine({"LMCACHE_CONFIG_FILE": "/gone"})) == {}
    (adapter,) = adapters_of_engine(engine(env))
    assert (adapter.path, adapter.persistent) == ("/of-env/", False)
    server = SimpleNamespace(server=SimpleNamespace(argv=()))
    assert adapters_of_engine(engine(env, server=server)) == (), "the tiers of a cache server are its own"


@pytest.mark.parametrize(
    ("value", "expected"), [(None, True), ("True", True), ("False", False), ("0", False), ("'false'", False)]
)
def test_a_cpu_tier_that_is_switched_off_is_a_buffer(value: str | None, expected: bool) -> None:
    assert keeps(engine({} if value is None else {"LMCACHE_LOCAL_CPU": value})) is expected


@pytest.mark.parametrize(("words", "expected"), [((), True), (("--l2-store-policy", "skip_l1"), False)])
def test_a_cache_server_may_keep_nothing_in_memory(words: tuple[str, ...], expected: bool) -> None:
    server = SimpleNamespace(server=SimpleNamespace(argv=("lmcache", "server", *words)))
    assert keeps(engine({"LMCACHE_LOCAL_CPU": "False"}, server=server)) is expected
