"""What a store of the values needs here: a certificate, a password out of a Secret; and what is refused at once."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.core.ports import free_port
from fixtures.core.redaction.redact import redact
from fixtures.core.waiting import poll
from fixtures.instruments.store import StoreClient, credentials_in, tls_of
from fixtures.provide.process import store_program, variables
from fixtures.provide.process.local_stores import Stores, local_adapters, local_tiers
from fixtures.provide.process.store_program import check_store
from fixtures.provide.values.tiers import StoreCommand, stores_among
from tests.redis_server import REDIS

STORE = StoreCommand(
    "kv-store", ("redis-server", "--requirepass", "$(WORD)"), (("WORD", "swordfish-9"),), "kv-store", 6379
)
LOCAL, PYTHON = ("/bin/redis-server", 7), Path("/env/bin/python")
TLS = replace(
    STORE,
    argv=(
        "redis-server",
        "--port",
        "0",
        "--tls-port",
        "6379",
        "--tls-cert-file",
        "/tls/tls.crt",
        "--tls-auth-clients",
        "yes",
    ),
)


@pytest.mark.skipif(shutil.which("openssl") is None or REDIS is None, reason="needs openssl and redis-server")
def test_a_store_with_tls_has_a_certificate_of_its_own(tmp_path: Path) -> None:
    argv, _ = store_program.local_store(TLS, str(REDIS), free_port(), tmp_path, PYTHON)
    assert "/tls/tls.crt" not in argv
    assert argv[argv.index("--port") + 1] == "0"
    port = int(argv[argv.index("--tls-port") + 1])
    tls = tls_of(argv)
    process = subprocess.Popen([*argv, "--save", ""], stdout=subprocess.DEVNULL)
    try:
        with StoreClient("127.0.0.1", port, tls=tls) as client:
            assert poll(client.serves, bool, 10.0)
            assert client.ask("PING") == b"PONG"
    finally:
        process.kill()
        process.wait()


def test_a_url_of_a_store_with_tls_names_its_certificate(tmp_path: Path) -> None:
    stores = Stores((TLS,), (7,), {7: {"ssl_ca_certs": "/x/store.crt"}})
    asked = {"LMCACHE_REMOTE_URL": "rediss://lm:pass-word@kv-store:6379/0?ssl_ca_certs=/tls/ca.crt&socket_timeout=5"}
    env, (note,) = local_tiers(asked, tmp_path, stores)
    assert env == {
        "LMCACHE_REMOTE_URL": "rediss://lm:pass-word@127.0.0.1:7/0?socket_timeout=5&ssl_ca_certs=/x/store.crt"
    }
    assert note.endswith("(the store of this stack, with a certificate of its own)")
    assert "pass-word" not in redact(note)
    plain, _ = local_tiers({"LMCACHE_REMOTE_URL": "redis://kv-store"}, tmp_path, stores)
    assert plain == {"LMCACHE_REMOTE_URL": "redis://127.0.0.1:7"}, "asked without TLS it fails here as there"
    resp = ("lmcache", "server", "--l2-adapter", json.dumps({"type": "resp", "host": "kv-store", "port": 6379}))
    with pytest.raises(ConfigurationError, match="serves TLS alone, which LMCache's adapter resp does not speak"):
        local_adapters(resp, tmp_path, stores)


@pytest.mark.parametrize(
    ("store", "sentence"),
    [
        (TLS, "serves TLS, and openssl, which makes its certificate here, is not on PATH: install it"),
        (
            replace(STORE, argv=("redis-server", "--aclfile", "/etc/users.acl")),
            r"reads its users from a file \(--aclfile\)",
        ),
        (
            replace(STORE, env=(("WORD", "$(secretKeyRef:kv/password)"),)),
            "takes WORD from secretKeyRef:kv/password, which is not among extraObjects: export WORD, or add",
        ),
    ],
)
def test_a_store_that_needs_what_only_a_pod_has_is_refused(
    store: StoreCommand, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "openssl" else f"/bin/{name}")
    with pytest.raises(ConfigurationError, match=f"^the store kv-store {sentence}"):
        check_store(store)
    monkeypatch.setenv("WORD", "exported-word")
    check_store(STORE)


SECRET = {
    "kind": "Secret",
    "metadata": {"name": "kv"},
    "stringData": {"password": "held-word-1"},
    "data": {"user": "bG0="},
}


def test_a_password_of_a_secret_among_the_objects_is_known_and_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = {"valueFrom": {"secretKeyRef": {"name": "kv", "key": "password"}}}
    container = {"command": ["redis-server", "--requirepass", "$(WORD)"], "env": [{"name": "WORD", **reference}]}
    workload = {"kind": "Deployment", "metadata": {"name": "kv"}}
    workload["spec"] = {"template": {"spec": {"containers": [container]}}}
    (store,) = stores_among([workload, SECRET])
    _, env = store_program.local_store(store, *LOCAL, tmp_path, PYTHON)
    assert credentials_in(env) == ("held-word-1",)
    assert redact("it is held-word-1") == "it is [redacted]"
    container["env"], container["envFrom"] = [], [{"secretRef": {"name": "kv"}, "prefix": "KV_"}]
    (store,) = stores_among([workload, SECRET])
    assert store.env == (("KV_user", "lm"), ("KV_password", "held-word-1"))

    container["env"] = [{"name": "WORD", **reference}]
    (store,) = stores_among([workload])
    monkeypatch.setenv("WORD", "exported-word")
    _, env = store_program.local_store(store, *LOCAL, tmp_path, PYTHON)
    assert credentials_in(env) == ("exported-word",)
    assert redact("exported-word") == "[redacted]"


def test_what_a_cache_server_takes_from_a_secret_that_is_not_there_is_told() -> None:
    asked = {"A": "1", "LMCACHE_RESP_PASSWORD": "$(secretKeyRef:kv/password)", "IP": "$(status.podIP)"}
    env, notes = variables.of_container(asked, {"LMCACHE_RESP_PASSWORD": "given-word-1"})
    assert env == {"A": "1", "LMCACHE_RESP_PASSWORD": "given-word-1"}
    assert notes == [
        "env LMCACHE_RESP_PASSWORD: $(secretKeyRef:kv/password) -> (given) (there is no pod)",
        "env IP: $(status.podIP) -> (not set) (there is no pod; export IP to set it)",
    ]
    assert "given-word-1" not in redact(str(env))
