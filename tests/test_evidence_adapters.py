"""Which tiers are below host memory, by a cache server's command line, in every spelling that LMCache's parser takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fixtures.evidence.adapters import (
    Adapter,
    adapters_in_process,
    adapters_of,
    is_cache_server,
    keeps_in_memory,
    with_adapters,
)

SERVER = ("/env/bin/lmcache", "server", "--l1-size-gb", "1")
FS = {"type": "fs", "base_path": "/kv"}
RESP = {"type": "resp", "host": "store", "port": 6379, "password": "open-sesame", "max_capacity_gb": 2}


def one(**spec: Any) -> Adapter:
    (found,) = adapters_of((*SERVER, "--l2-adapter", json.dumps(spec)))
    return found


def test_every_spelling_of_the_option_counts_in_order() -> None:
    fs, resp = json.dumps(FS), json.dumps(RESP)
    words = (*SERVER, "--l2-adapter", fs, "--l2-store-policy", "skip_l1", f"--l2-adapter={resp}", "--l2-a", fs)
    assert [one.type for one in adapters_of(words)] == ["fs", "resp", "fs"]
    assert adapters_of(SERVER) == ()
    assert not keeps_in_memory(words)
    assert keeps_in_memory(SERVER)
    assert adapters_of(("lmcache", "server", "--l2-adapter", '{"type":"mock"}', "--l2-adapters", fs))[0].type == "mock"


def test_what_an_adapter_is() -> None:
    assert one(**FS) == Adapter("fs", "disk", path="/kv", persistent=True)
    assert one(**RESP) == Adapter("resp", "remote", host="store", port=6379, capacity_bytes=2 << 30, persistent=True)
    assert str(one(**RESP)) == "resp store:6379, at most 2 GiB"
    assert "open-sesame" not in repr(one(**RESP))
    wrapped = one(
        type="fault_inject", rate=0.1, inner={"type": "fs_native", "base_path": "/kv", "max_capacity_gb": 0.5}
    )
    assert wrapped == Adapter("fault_inject", "disk", path="/kv", capacity_bytes=1 << 29, persistent=True)
    assert one(type="nixl_store", backend="POSIX", backend_params={"file_path": "/n"}, pool_size=4).path == "/n"
    assert one(type="nixl_store", backend="OBJ", pool_size=4).kind == "remote"
    kept = {"type": "nixl_store_dynamic", "backend": "POSIX"}
    assert (one(**kept).persistent, one(**kept, persist_enabled=False).persistent) == (True, False)
    assert one(type="valkey", startup_nodes="a:1,b:2").place == "a:1"
    assert one(type="s3", s3_endpoint="https://user:secret@host:9000/bucket").place == "host:9000"
    assert one(type="p2p", peer_mq_server_url="tcp://peer:7").kind == "peer"
    assert one(type="mock", max_size_gb=1).persistent is False
    assert one(type="plugin", module="x") == Adapter("plugin", None)
    assert one(type="raw_block", device_path="/dev/x", capacity_bytes=4096).capacity_bytes == 4096


@pytest.mark.parametrize("text", ["{", "[]", '{"base_path": "/kv"}', '{"type": 1}', "$(ADAPTER)", "[" * 99_999])
def test_what_lmcache_refuses_is_no_adapter(text: str) -> None:
    for words in ((*SERVER, "--l2-adapter", text), (*SERVER, f"--l2-adapter={text}")):
        with pytest.raises(ValueError, match="--l2-adapter is"):
            adapters_of(words)
    with pytest.raises(ValueError, match="no value"):
        adapters_of((*SERVER, "--l2-adapter"))


def test_adapters_are_changed_where_they_stand() -> None:
    nested = json.dumps({"type": "fault_inject", "inner": FS})
    words = (*SERVER, f"--l2-adapter={json.dumps(FS)}", "--l2-ada", nested, "--port", "1")
    changed = with_adapters(words, lambda spec: {**spec, "base_path": "/other"})
    assert [one.path for one in adapters_of(changed)] == ["/other", "/other"]
    assert changed[-2:] == ["--port", "1"]


def test_only_the_server_s_own_command_says_what_it_does_not_have() -> None:
    assert is_cache_server(SERVER)
    assert not is_cache_server(("sh", "-c", "lmcache server"))
    assert not is_cache_server(())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"local_disk": "file:///d/"}, []),
        (
            {"local_disk": "/d/,/e/", "max_local_disk_size": 0.5},
            [Adapter("local_disk", "disk", path="/d/", capacity_bytes=2**29, persistent=False)],
        ),
        ({"local_disk": "None", "max_local_disk_size": "5"}, []),
        ({"max_local_disk_size": "x", "local_disk": "/d"}, []),
        (
            {"remote_url": "lm://kv-server:65432"},
            [Adapter("lm", "remote", host="kv-server", port=65432, persistent=True)],
        ),
        (
            {"remote_url": "redis://:word@kv:6379/0"},
            [Adapter("redis", "remote", host="kv", port=6379, persistent=True)],
        ),
        (
            {"remote_url": "rediss://u:word@kv:6380?ssl_cert_reqs=none"},
            [Adapter("rediss", "remote", host="kv", port=6380, persistent=True)],
        ),
        (
            {"remote_url": "redis://[fd00::1]/0"},
            [Adapter("redis", "remote", host="fd00::1", port=6379, persistent=True)],
        ),
        (
            {"remote_url": "redis://:w@[fd00::1]:7"},
            [Adapter("redis", "remote", host="fd00::1", port=7, persistent=True)],
        ),
        ({"remote_url": "fs://host:0/mnt/kv?x=1"}, [Adapter("fs", "disk", path="/mnt/kv", persistent=True)]),
        ({"remote_url": ""}, []),
    ],
)
def test_the_tiers_of_lmcache_in_process_are_those_of_its_settings(
    settings: dict[str, Any], expected: list[Adapter]
) -> None:
    assert list(adapters_in_process(settings)) == expected
