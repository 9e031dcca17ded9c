"""The tiers below host memory of a local stack: what they are started with, that they come and go, and who sees a password."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.core.record import StackRecord
from fixtures.core.redaction.redact import redact
from fixtures.evidence.adapters import adapters_of
from fixtures.instruments.store import StoreClient, credentials_in
from fixtures.provide.process.commands import check_programs, commands_of, stores_of
from fixtures.provide.process.local_stores import Stores, local_adapters, local_tiers
from fixtures.provide.process.process_teardown import tear_down
from fixtures.provide.process.store_program import local_store, program_of
from fixtures.provide.values.config import load_config
from fixtures.provide.values.tiers import StoreCommand, stores_among
from fixtures.subject.supported_features import features_of
from tests import process_place
from tests.redis_server import REDIS

if TYPE_CHECKING:
    from tests.process_place import Place

place = process_place.place

CONFIGS = Path(__file__).parents[1] / "configs"
STORE = StoreCommand(
    "kv-store", ("redis-server", "--requirepass", "$(WORD)"), (("WORD", "swordfish-9"),), "kv-store", 6379
)

LOCAL, PYTHON = ("/bin/redis-server", 7), Path("/env/bin/python")


def test_a_store_is_a_container_whose_command_runs_one() -> None:
    (store,) = stores_of(load_config("remote", CONFIGS))
    assert (store.name, store.program, store.service, store.port) == ("kv-store", "redis-server", "kv-store", 6379)
    assert store.env == (("STORE_PASSWORD", "kv-store-not-a-secret"),)
    assert stores_of(load_config("disk", CONFIGS)) == ()
    other = {"spec": {"template": {"spec": {"containers": [{"command": ["redis-cli"]}, {}]}}}}
    assert stores_among([other, {}]) == ()


def test_the_charts_own_cache_server_is_a_store_of_lmcache(tmp_path: Path) -> None:
    (store,) = stores_of(load_config("remote-lm", CONFIGS))
    assert (store.program, store.service, store.port) == ("lmcache_server", "vllm-cache-server-service", 65432)
    argv, env = local_store(store, "lmcache_server", 7, tmp_path, Path("/env/bin/python"))
    assert (argv, env) == (("/env/bin/python", "-m", "lmcache.v1.server", "127.0.0.1", "7"), {}), "needs no program"
    check_programs(load_config("remote-lm", CONFIGS), None, "cpu")
    url = {"LMCACHE_REMOTE_URL": "lm://vllm-cache-server-service:65432"}
    changed, notes = local_tiers(url, tmp_path, Stores((store,), (7,)))
    assert changed == {"LMCACHE_REMOTE_URL": "lm://127.0.0.1:7"}
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/opt/venv/bin/lmcache_server", "0.0.0.0", "8000"], ("0.0.0.0", "8000")),
        (["python3", "-m", "lmcache.v1.server", "0.0.0.0", "8000", "cpu"], ("0.0.0.0", "8000", "cpu")),
        (["lmcache_server"], ()),
        (["python3", "-m", "lmcache.v1.multiprocess.server", "0.0.0.0", "8000"], ()),
    ],
)
def test_lmcaches_own_store_is_known_by_its_program_or_module(command: list[str], words: tuple[str, ...]) -> None:
    labels = {"app": "kv"}
    container = {"command": command, "ports": [{"containerPort": 8000, "name": "c"}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    workload = {"kind": "Deployment", "metadata": {"name": "kv"}, "spec": {"template": template}}
    ports = [{"port": 81, "targetPort": 8000}]
    service = {"kind": "Service", "metadata": {"name": "kv-service"}, "spec": {"selector": labels, "ports": ports}}
    found = stores_among([workload, service])
    assert [one.lmcache for one in found] == ([words] if words else [])
    assert [(one.program, one.service, one.port) for one in found] == (
        [("lmcache_server", "kv-service", 81)] if words else []
    )


def test_the_folder_of_a_tier_is_one_of_the_stack(tmp_path: Path) -> None:
    _, server = commands_of(load_config("disk", CONFIGS))
    assert server is not None
    twice = (*server.argv, "--l2-adapter", '{"type": "fs_native", "base_path": "/other"}')
    argv, notes = local_adapters(twice, tmp_path, Stores((), ()))
    assert [one.path for one in adapters_of(argv)] == [str(tmp_path / "below-0"), str(tmp_path / "below-1")]
    assert len(notes) == 2
    assert "base_path of the tier fs: /var/lib/lmcache/kv" in notes[0]
    nixl = (
        "lmcache",
        "server",
        "--l2-adapter",
        json.dumps({"type": "nixl_store", "backend_params": {"file_path": "/n"}}),
    )
    assert adapters_of(local_adapters(nixl, tmp_path, Stores((), ()))[0])[0].path == str(tmp_path / "below-0")
    with pytest.raises(ConfigurationError, match="not JSON"):
        local_adapters(("lmcache", "server", "--l2-adapter", "{"), tmp_path, Stores((), ()))


@pytest.mark.parametrize(
    ("host", "port", "own"),
    [
        ("kv-store", 6379, 7),
        ("kv-store.ns.svc.cluster.local.", 6379, 7),
        ("kv-store", 1, None),
        ("redis.example.org", 6379, None),
    ],
)
def test_an_address_is_changed_where_it_means_a_store_of_the_values(
    host: str, port: int, own: int | None, tmp_path: Path
) -> None:
    asked = ("lmcache", "server", "--l2-adapter", json.dumps({"type": "resp", "host": host, "port": port}))
    argv, notes = local_adapters(asked, tmp_path, Stores((STORE,), (7,)))
    assert adapters_of(argv)[0].place == (f"{host}:{port}" if own is None else "127.0.0.1:7")
    assert bool(notes) == (own is not None)


def test_a_password_is_in_no_command_line(tmp_path: Path) -> None:
    words = (
        "redis-server",
        "/etc/redis.conf",
        "--save",
        "",
        "--requirepass",
        "$(WORD)",
        "--port",
        "1",
        "--dir",
        "/data",
    )
    argv, env = local_store(StoreCommand("s", words, STORE.env, None, 1), *LOCAL, tmp_path, PYTHON)
    assert credentials_in(env) == ("swordfish-9",)
    assert "swordfish-9" not in " ".join(argv)
    assert argv[:4] == ("/bin/redis-server", str(tmp_path / "store.conf"), "--save", "")
    assert argv.count("--port") == argv.count("--dir") == 1
    assert argv[argv.index("--port") + 1] == "7"
    assert (tmp_path / "store.conf").stat().st_mode & 0o077 == 0
    assert redact("it is swordfish-9") == "it is [redacted]"
    plain, none = local_store(StoreCommand("s", ("redis-server",), (), None, 1), *LOCAL, tmp_path, PYTHON)
    assert (plain[1], none) == ("--bind", {})


def test_of_an_access_control_list_the_first_user_with_a_password_asks(tmp_path: Path) -> None:
    words = ("redis-server", "--user", "default", "off", "--user", "reader", "on", "~*", ">$(WORD)", "+@all")
    argv, env = local_store(StoreCommand("s", words, STORE.env, None, 1), *LOCAL, tmp_path, PYTHON)
    assert credentials_in(env) == ("reader", "swordfish-9")
    assert argv[:3] == ("/bin/redis-server", str(tmp_path / "store.conf"), "--bind")
    assert '"reader" "on" "~*" ">swordfish-9"' in (tmp_path / "store.conf").read_text()
    assert redact("swordfish-9 of reader") == "[redacted] of reader"


def test_without_the_program_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: {"valkey-server": "/bin/valkey-server"}.get(name))
    assert program_of(STORE) == "/bin/valkey-server"
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(
        ConfigurationError, match=r"redis-server, which is not on PATH: install it \(Debian: apt install"
    ):
        check_programs(load_config("remote", CONFIGS), None, "cpu")
    check_programs(load_config("disk", CONFIGS), None, "cpu")


@pytest.mark.parametrize(
    ("config", "device", "needed"),
    [("disk", "cpu", True), ("cpu-offload", "cpu", True), ("cpu-offload", "cuda", False), ("remote-lm", "cpu", False)],
)
def test_without_lmcaches_program_one_sentence_says_what_to_do(
    config: str, device: str, needed: bool, tmp_path: Path
) -> None:
    values = load_config(config, CONFIGS)
    sentence = rf"^{config} needs a cache server, and .*/lmcache does not exist: install lmcache"
    with pytest.raises(ConfigurationError, match=sentence) if needed else contextlib.nullcontext():
        check_programs(values, tmp_path / "python", device)
    (tmp_path / "lmcache").touch()
    check_programs(values, tmp_path / "python", device)


@pytest.mark.skipif(REDIS is None, reason="redis-server is not on PATH")
def test_a_store_comes_and_goes_with_its_stack(place: Place) -> None:
    values = place.config / "values.yaml"
    extra = (CONFIGS / "remote" / "values.yaml").read_text().partition("extraObjects:")[2]
    connector = '{"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both"}'
    text = values.read_text().replace(
        "maxModelLen: 4096", f"maxModelLen: 4096, extraArgs: [--kv-transfer-config, '{connector}']"
    )
    text = text.replace("lmcacheConfig: {enabled: true", "lmcacheConfig: {enabled: false")
    values.write_text(f"{text}extraObjects:{extra}")
    record = place.up()
    try:
        (store,) = record.stores
        assert store.process is not None
        assert StackRecord.load(place.folder / "run" / "record.json").stores == [store]
        port = int(store.url.rpartition(":")[2])
        (below,) = adapters_of(record.cache_servers[0].argv)
        assert below.place == f"127.0.0.1:{port}"
        assert {"remote-tier", "lower-tier", "persistent-tier"} <= set(features_of(record).supported)
        with StoreClient("127.0.0.1", port, credentials_in(store.env)) as client:
            assert client.ask("DBSIZE") == 0
        said = record.substitutions + tuple(word for server in record.everything for word in server.argv)
        assert "kv-store-not-a-secret" not in " ".join(said)
        assert any(one.startswith("store kv-store: redis-server -> ") for one in said)
    finally:
        report = tear_down(record, place.registry)
    assert report.left_running == ()
    assert not store.process.alive
    assert list((place.folder / "tmp").iterdir()) == []


def test_tiers_of_lmcache_in_process_lie_below_the_stack_and_ask_its_store(tmp_path: Path) -> None:
    stores = Stores((STORE,), (7,))
    assert local_tiers({}, tmp_path, stores) == ({}, [])
    asked = {
        "LMCACHE_LOCAL_DISK": "file:///var/lib/lmcache/",
        "LMCACHE_REMOTE_URL": f"redis://:pass-word@{STORE.service}:{STORE.port}/0",
    }
    env, notes = local_tiers(asked, tmp_path, stores)
    assert env == {
        "LMCACHE_LOCAL_DISK": f"file://{tmp_path}/below-0/",
        "LMCACHE_REMOTE_URL": "redis://:pass-word@127.0.0.1:7/0",
    }
    assert len(notes) == 2
    assert "pass-word" not in redact("\n".join(notes))
    for elsewhere in ("lm://other:65432", "redis://kv:no-port", "kv"):
        assert local_tiers({"LMCACHE_REMOTE_URL": elsewhere}, tmp_path, stores) == ({}, [])
