"""What a command line says about offload."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.evidence.connector import BOTH, LMCACHE_CONNECTORS, Connector, connector_of
from fixtures.evidence.flags import flag_positions, flag_value, flag_values
from fixtures.evidence.manifest import effective, references, unresolved
from fixtures.evidence.vllm_options import TRANSFER_FLAG

V1 = json.dumps({"kv_connector": "LMCacheConnectorV1", "kv_role": BOTH})
MP = json.dumps({"kv_connector": "LMCacheMPConnector", "kv_role": "kv_producer"})


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        ([], None),
        (["vllm", "serve", "m"], None),
        (["--port", "1"], "1"),
        (["--port=1"], "1"),
        (["--port", "1", "--port", "2"], "2"),
        (["--port=1", "--port", "2"], "2"),
        (["--port", "2", "--port=3"], "3"),
        (["--port"], ""),
        (["--port", "1", "--port"], ""),
        (["--port="], ""),
        (["--port=a=b"], "a=b"),
        (["--port", "--host"], "--host"),
        (["--ports", "1", "--portx=1", "port", "1", "-port", "1"], None),
    ],
)
def test_the_last_flag_counts(argv: list[str], value: str | None) -> None:
    assert flag_value(argv, "--port") == value


@pytest.mark.parametrize(
    ("argv", "values"),
    [
        ([], []),
        (["--name", "a", "b", "--port", "1"], ["a", "b"]),
        (["--name", "a", "--name", "b", "c"], ["b", "c"]),
        (["--name=a=b", "c"], ["a=b"]),
        (["--name"], []),
    ],
)
def test_every_value_of_a_flag_counts(argv: list[str], values: list[str]) -> None:
    assert flag_values(argv, "--name") == values


@pytest.mark.parametrize("word", ["--max-model-len", "--max_model_len", "--max-model_len"])
def test_dashes_and_underscores_are_one_flag(word: str) -> None:
    # vLLM's parser turns the one into the other (FlexibleArgumentParser).
    assert flag_value([word, "8"], "--max-model-len") == flag_value([f"{word}=8"], "--max-model-len") == "8"
    assert flag_value(["--x=--max_model_len", "8"], "--max-model-len") is None


@given(st.lists(st.sampled_from(["--a", "--a=1", "--b_c", "--b-c=2", "x", "=", "--", "-a", "--a_=3"])))
def test_positions_and_value_agree(argv: list[str]) -> None:
    for flag in ("--a", "--b-c"):
        found = flag_positions(argv, flag)
        assert (flag_value(argv, flag) is None) == (not found)
        assert all(argv[at].startswith("--") for at in found)


def test_a_connector_is_read_as_the_engine_reads_it() -> None:
    assert connector_of(["vllm", "serve", "m"]) is None
    assert connector_of(["vllm", TRANSFER_FLAG, V1]) == Connector("LMCacheConnectorV1", BOTH, V1)
    assert connector_of([f"{TRANSFER_FLAG}={V1}", TRANSFER_FLAG, MP]) == Connector(
        "LMCacheMPConnector", "kv_producer", MP
    )
    assert connector_of(
        ["--kv_transfer_config", MP, TRANSFER_FLAG.replace("-", "_").replace("__", "--") + f"={V1}"]
    ) == Connector("LMCacheConnectorV1", BOTH, V1)
    assert {"LMCacheConnectorV1", "LMCacheMPConnector"} <= LMCACHE_CONNECTORS


def test_what_a_connector_does_not_say_is_not_made_up() -> None:
    assert connector_of([TRANSFER_FLAG, "{}"]) == Connector("None", "None", "{}")
    assert connector_of([TRANSFER_FLAG, ""]) is None, "as if the option were not given (vLLM 0.32, optional_type)"


@pytest.mark.parametrize(
    ("text", "says"),
    [("{'a': 1}", "is not JSON .*: {'a': 1}"), ("[1]", r"is not a JSON object: \[1\]")],
)
def test_a_connector_that_is_no_json_object_is_shown(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        connector_of([TRANSFER_FLAG, text])


# ---- addresses


def pod(env: dict[str, Any], args: list[Any] | None = None, **spec: Any) -> list[dict[str, Any]]:
    listed = [{"name": name, "value": value} for name, value in env.items()]
    inner = {"containers": [{"name": "c", "env": listed, "args": args or []}], **spec}
    return [{"kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, "spec": {"template": {"spec": inner}}}]


@pytest.mark.parametrize(
    ("env", "services"),
    [
        ({"LMCACHE_REMOTE_URL": "lm://x-cache-server-service:81"}, ["x-cache-server-service"]),
        ({"LMCACHE_REMOTE_URL": "redis://:pw@store:6379/0"}, ["store"]),
        ({"LMCACHE_REMOTE_URL": "redis://:p@w@store:6379/0"}, ["store"]),
        ({"LMCACHE_REMOTE_URL": "nats://u:p@a:4222,nats://u:p@b:4222"}, ["a", "b"]),
        ({"LMCACHE_REMOTE_URL": "redis://store.n.svc.cluster.local:6379"}, ["store"]),
        ({"LMCACHE_REMOTE_URL": "redis://store.n.svc:6379"}, ["store"]),
        ({"LMCACHE_REMOTE_URL": "redis://store.svc"}, ["store"]),
        ({"R": "store", "LMCACHE_REMOTE_URL": "lm://$(R):1"}, ["store"]),
        ({"LMCACHE_CONTROLLER_PULL_URL": "vllm-router-service:9000"}, ["vllm-router-service"]),
        ({"LMCACHE_REMOTE_URL": "lm://a:1,lm://b:2"}, ["a", "b"]),
        ({"LMCACHE_REMOTE_URL": "redis://store.example.com:6379"}, []),
        ({"LMCACHE_REMOTE_URL": "redis://store.other.svc:6379"}, []),
        ({"LMCACHE_REMOTE_URL": "redis://10.0.0.1:6379"}, []),
        ({"LMCACHE_REMOTE_URL": "redis://[::1]:6379"}, []),
        ({"LMCACHE_REMOTE_URL": "lm://localhost:1"}, []),
        ({"LMCACHE_REMOTE_URL": "lm://$(HOST_IP):1"}, []),
        ({"LMCACHE_REMOTE_URL": "s3://bucket"}, []),
        ({"LMCACHE_LOCAL_DISK": "file:///data/"}, []),
        ({"HTTPS_PROXY": "http://proxy:3128", "https_proxy": "http://proxy:3128"}, []),
        ({"HF_ENDPOINT": "https://huggingface.co"}, []),
        ({"A": "b:1", "TIME_URL": "12:30"}, []),
        ({"LMCACHE_REMOTE_URL": "lm://x.n:81"}, ["x"]),
        ({"LMCACHE_REMOTE_URL": "lm://x.other:81"}, []),
        ({"A_URL": "https://x.n/path", "LMCACHE_REMOTE_URL": "http://x."}, []),
        ({"LMCACHE_REMOTE_URL": "redis-sentinel://u:p@a:1,b:2/x"}, ["a", "b"]),
        ({"LMCACHE_REMOTE_URL": "redis-cluster://a:1,b:2"}, ["a", "b"]),
        ({"LMCACHE_REMOTE_URL": "resp://a:1"}, ["a"]),
        ({"LMCACHE_REMOTE_URL": "eic://a:1"}, ["a"]),
        ({"LMCACHE_REMOTE_URL": " lm://a:1 , lm://b:2 "}, ["a", "b"]),
        ({"LMCACHE_CONTROLLER_PULL_URL": "a:1,b:2"}, ["a", "b"]),
        ({"LMCACHE_EXTRA_CONFIG": '{"a": ["lm://a:1", "see https://docs"], "b": "c:1"}'}, ["a"]),
        ({"A": "see https://docs for more"}, []),
        ({"A": "https://docs, and more", "B": "(https://docs)", "C": "a,https://docs", "D": "[https://docs"}, []),
        ({"A": None}, []),
    ],
)
def test_every_address_of_the_environment_is_a_reference(env: dict[str, Any], services: list[str]) -> None:
    found = [one for one in references(pod(env)) if one.kind == "Service"]
    assert [one.name for one in found] == services


def test_an_address_in_the_command_is_a_reference() -> None:
    text = '{"kv_connector":"LMCacheMPConnector","kv_connector_extra_config":{"lmcache.mp.host":"tcp://kv","lmcache.mp.port":1}}'
    (found,) = references(pod({}, ["--kv-transfer-config", text]))
    assert (found.kind, found.name, found.by) == ("Service", "kv", "Deployment d (its command)")


@pytest.mark.parametrize(
    ("args", "services"),
    [
        (["--kv-transfer-config", '{"kv_connector_extra_config": {"lmcache.mp.host": "mp-svc"}}'], ["mp-svc"]),
        (['--kv-transfer-config={"kv_connector_extra_config": {"lmcache.mp.host": "mp-svc"}}'], ["mp-svc"]),
        (['{"lmcache.mp.server_urls": "a:1,tcp://b:2"}', '{"lmcache.mp.server_urls": ["c:1"]}'], ["a", "b", "c"]),
        (["--l2-adapter", '{"type": "resp", "host": "kv-store", "port": 6379, "password": "x"}'], ["kv-store"]),
        (["--l2-adapter", '{"type": "valkey", "startup_nodes": "a:1,b.n.svc:2,c.example.com:3"}'], ["a", "b"]),
        (["--l2-adapter", '{"type": "fault_inject", "inner": {"type": "resp", "host": "a", "port": 1}}'], ["a"]),
        (["--l2-adapter", '{"type": "resp", "host": "10.0.0.1", "port": 1}', '{"host": "a", "port": 1}'], []),
        (['{"lmcache.mp.host": "localhost"}', '{"lmcache.mp.host": 5}', '{"lmcache.mp.host": "see a"}'], []),
        (["--static-backends", "http://a:1,http://b:1", "--x=http://c:1"], ["a", "b", "c"]),
        (["sh", "-c", "until curl http://a/x; do sleep 1; done; U=lm://b:1 exec vllm --u=lm://c:1"], ["a", "b", "c"]),
        (["sh", "-c", "echo 'see https://docs for more' # or https://docs"], []),
        (["--chat-template", "see https://docs for more"], []),
        ([None, 5, "[" * 5000], []),
    ],
)
def test_every_address_of_the_command_is_a_reference(args: list[Any], services: list[str]) -> None:
    assert [one.name for one in references(pod({}, args)) if one.kind == "Service"] == services


def test_the_port_of_a_cache_server_is_that_of_its_service() -> None:
    service = {"kind": "Service", "metadata": {"name": "kv"}, "spec": {"ports": [{"port": 80}, None]}}
    text = '{"lmcache.mp.host": "tcp://kv", "lmcache.mp.port": 6555}'
    (found,) = unresolved([*pod({}, [text]), service])
    assert "its command refers to port 6555 of Service kv, which has 80" in found


@pytest.mark.parametrize(
    "spec",
    [
        {"containers": None},
        {"containers": [None, "x"]},
        {"containers": []},
        {
            "containers": [
                {"name": "c", "env": [None], "ports": [None], "args": None, "envFrom": [None, {"secretRef": {}}]}
            ]
        },
        {"containers": [{"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"key": "x"}}}]}]},
        {"containers": [{"name": "c", "env": "x", "startupProbe": {"httpGet": None}}], "initContainers": [None]},
        {"containers": [{}], "volumes": [{"name": "v", "persistentVolumeClaim": {}}, None], "imagePullSecrets": [{}]},
    ],
)
@pytest.mark.parametrize("metadata", [None, {}, {"name": "d", "labels": None}])
def test_what_is_null_or_has_no_name_refers_to_nothing(spec: dict[str, Any], metadata: Any) -> None:
    template = {"metadata": metadata, "spec": spec}
    things = [
        {"kind": "Deployment", "metadata": metadata, "spec": {"selector": None, "template": template}},
        {"kind": "Service", "metadata": metadata, "spec": {"selector": None, "ports": [None]}},
        {"kind": "Service", "metadata": metadata, "spec": None},
    ]
    assert references(things) == []
    assert unresolved(things) == []
    assert effective(things) == effective(things)


@pytest.mark.parametrize(
    "spec",
    [
        {"hostNetwork": True},
        {"dnsConfig": {"searches": ["corp.example"]}},
        {"dnsPolicy": "Default"},
        {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["store"]}]},
    ],
)
def test_a_pod_that_looks_names_up_elsewhere_refers_to_no_service(spec: dict[str, Any]) -> None:
    assert references(pod({"LMCACHE_REMOTE_URL": "lm://store:1"}, **spec)) == []


@pytest.mark.parametrize(
    ("port", "more", "told"),
    [(81, {}, True), (80, {}, False), (81, {"clusterIP": "None"}, False), (81, {"type": "ExternalName"}, False)],
)
def test_a_port_that_the_service_does_not_have_is_reported(port: int, more: dict[str, Any], told: bool) -> None:
    service = {"kind": "Service", "metadata": {"name": "store"}, "spec": {"ports": [{"port": 80}], **more}}
    found = unresolved([*pod({"LMCACHE_REMOTE_URL": f"lm://store:{port}"}), service])
    line = "Deployment d: env LMCACHE_REMOTE_URL refers to port 81 of Service store, which has 80"
    assert found == ([line] if told else [])
