"""What a release is, as a record: engines, cache servers, addresses, models and keys."""

from __future__ import annotations

import base64
import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import ConfigurationError, StackError
from fixtures.core.record import EngineServer
from fixtures.provide.release.api_key import api_key
from fixtures.provide.release.describe import describe
from fixtures.provide.release.pod_servers import server_of_pod
from fixtures.provide.release.snapshot import take_snapshot
from tests import release_site
from tests.release_site import Site, running

if TYPE_CHECKING:
    from pytest_httpserver import HTTPServer

pytest.importorskip("kubernetes")

site4 = release_site.site4


def test_engines_that_are_not_judged_are_named_and_a_cache_server_by_node_is_found(site4: Site) -> None:
    site4.install()
    (engine,) = [one for one in site4.cluster.pods("mine") if "vllm" in one["metadata"]["name"]]
    config = {"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both"}
    config["kv_connector_extra_config"] = {"lmcache.mp.host": "tcp://$(HOST_IP)"}  # type: ignore[assignment]
    container = engine["spec"]["containers"][0]
    container["command"] = ["vllm", "serve", "org/m", "--kv-transfer-config", json.dumps(config)]
    container["args"] = []
    container["env"] = [{"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]
    engine["status"]["hostIP"] = "192.0.2.1"
    for name, host in (("kv-a", "192.0.2.9"), ("kv-b", "192.0.2.1")):
        site4.cluster.put("api/v1/pods", "mine", running({"metadata": {"name": name}}, "lmcache", "server", host=host))
    later = copy.deepcopy(engine)
    later["metadata"] |= {"name": "zz-later", "uid": "later"}
    later["status"] |= {"phase": "Pending", "conditions": []}
    other = copy.deepcopy(engine)
    other["metadata"] |= {"name": "zz-other", "uid": "other"}
    other["spec"]["containers"][0]["command"] = ["vllm", "serve", "/m", "--served-model-name", "org/other", "alias"]
    for one in (later, other):
        site4.cluster.put("api/v1/pods", "mine", one)
    site4.cluster.restart(engine["metadata"]["name"])
    release = site4.release(own=False)
    seen = take_snapshot(site4.kube, "mine", release.manifest())
    describe(release.record, site4.kube, site4.helm.values("rel", "mine"), seen)
    record = release.record
    assert [one.name for one in record.engines] == [engine["metadata"]["name"]]
    assert record.engines[0].cache_server == "kv-b"
    told = "\n".join(record.ignored)
    assert "engine zz-later is not judged: Pending, not Ready" in told
    assert "engine zz-other is not judged: it serves org/other and alias; choose it with --model org/other" in told
    assert f"pod {engine['metadata']['name']} was restarted 1 times before this run, last: Error (exit code 1)" in told
    for name in ("org/other", "alias"):
        describe(record, site4.kube, site4.helm.values("rel", "mine"), seen, model_asked=name)
        assert (record.model, [one.name for one in record.engines]) == (name, ["zz-other"])
    with pytest.raises(
        ConfigurationError,
        match=r"--model none: no engine of release rel serves it; they serve alias, org/m, org/other: name one",
    ):
        describe(record, site4.kube, site4.helm.values("rel", "mine"), seen, model_asked="none")


@pytest.mark.long
def test_a_cache_server_of_other_owners_is_found_by_the_service_that_the_engines_name(site4: Site) -> None:
    site4.install()
    (engine,) = [one for one in site4.cluster.pods("mine") if "vllm" in one["metadata"]["name"]]
    for name in ("kv-a", "kv-b"):
        server = running({"metadata": {"name": name, "labels": {"app": name}}}, "lmcache", "server")
        site4.cluster.put("api/v1/pods", "mine", server)
    service = {"metadata": {"name": "lmcache"}, "spec": {"selector": {"app": "kv-b"}}}
    site4.cluster.put("api/v1/services", "mine", service)
    release = site4.release(own=False)

    def servers(host: str) -> list[str]:
        config = {"kv_connector": "LMCacheMPConnector", "kv_connector_extra_config": {"lmcache.mp.host": host}}
        words = ["vllm", "serve", "org/m", "--kv-transfer-config", json.dumps(config)]
        engine["spec"]["containers"][0] |= {"command": words, "args": []}
        seen = take_snapshot(site4.kube, "mine", release.manifest())
        describe(release.record, site4.kube, site4.helm.values("rel", "mine"), seen)
        found = [one.name for one in release.record.cache_servers]
        assert release.record.engines[0].cache_server == next(iter(found), None)
        return found

    assert servers("tcp://lmcache:5555") == ["kv-b"]
    assert servers("tcp://lmcache.mine.svc.cluster.local") == ["kv-b"]
    assert servers("tcp://lmcache.other.svc.cluster.local") == [], "of another namespace"
    assert servers("tcp://localhost") == []


SECRET_KEY = {"secretKeyRef": {"name": "keys", "key": "k"}}


@pytest.mark.parametrize(
    ("container", "key"),
    [
        ({"env": [{"name": "VLLM_API_KEY", "valueFrom": SECRET_KEY}]}, "of-the-secret"),
        ({"env": [{"name": "VLLM_API_KEY", "value": "plain"}]}, "plain"),
        ({"args": ["--api-key", "$(KEY)"], "env": [{"name": "KEY", "valueFrom": SECRET_KEY}]}, "of-the-secret"),
        ({"args": ["--api-key=$(KEY)"], "env": [{"name": "KEY", "value": "plain"}]}, "plain"),
        ({"args": ["--api-key", "word"], "env": [{"name": "VLLM_API_KEY", "valueFrom": SECRET_KEY}]}, "word"),
        ({"envFrom": [{"secretRef": {"name": "keys"}}]}, "by-name"),
        ({"envFrom": [{"secretRef": {"name": "keys"}, "prefix": "VLLM_"}]}, "prefixed"),
        ({"args": ["--api-key", "$(NOBODY)"]}, None),
        ({}, None),
    ],
)
def test_the_api_key_is_found_wherever_a_pod_has_it(site4: Site, container: dict[str, Any], key: str | None) -> None:
    site4.install()
    texts = {"k": "of-the-secret", "VLLM_API_KEY": "by-name", "API_KEY": "prefixed"}
    if "prefix" in str(container):
        del texts["VLLM_API_KEY"]
    data = {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
    site4.cluster.put("api/v1/secrets", "mine", {"metadata": {"name": "keys"}, "data": data})
    (engine,) = [one for one in site4.cluster.pods("mine") if "vllm" in one["metadata"]["name"]]
    engine["spec"]["containers"][0] |= {"command": ["vllm", "serve", "m"], "args": [], "env": []} | container
    release = site4.release(own=False)
    seen = take_snapshot(site4.kube, "mine", release.manifest())
    describe(release.record, site4.kube, {}, seen)
    assert api_key(release.record, site4.kube) == key
    assert key is None or "--api-key" in str(container) or key not in release.record.model_dump_json()


def test_what_a_pod_takes_out_of_config_maps_is_filled_in(site4: Site) -> None:
    site4.install()
    data = {"MODEL": "org/a", "other": "org/b", "KV": '{"kv_connector": "LMCacheConnectorV1"}'}
    site4.cluster.put("api/v1/configmaps", "mine", {"metadata": {"name": "c"}, "data": data})
    (engine,) = [one for one in site4.cluster.pods("mine") if "vllm" in one["metadata"]["name"]]
    words = ["vllm", "serve", "$(MODEL)", "--kv-transfer-config=$(KV)", "--port", "$(LOST)"]
    container = engine["spec"]["containers"][0]
    container |= {"command": words, "args": [], "envFrom": [{"configMapRef": {"name": "c"}}], "env": []}
    container["ports"] = [{"name": "x", "containerPort": 8123}]
    release = site4.release(own=False)

    def described() -> Any:
        seen = take_snapshot(site4.kube, "mine", release.manifest())
        describe(release.record, site4.kube, {}, seen)
        return release.record.engines[0]

    one = described()
    assert (release.record.model, one.pod.port) == ("org/a", 8123)
    assert one.requested.connector == {"kv_connector": "LMCacheConnectorV1"}
    assert one.env["MODEL"] == "org/a"
    assert one.requested.duplicate_env == ()
    reference = {"configMapKeyRef": {"name": "c", "key": "other"}}
    container["env"] = [{"name": "MODEL", "valueFrom": reference}]
    assert described().requested.duplicate_env == (), "an entry of env comes before the whole map"
    assert release.record.model == "org/b"
    assert not any("is not judged" in line for line in release.record.ignored)


def test_an_engine_whose_command_names_no_model_is_asked(site4: Site, httpserver: HTTPServer) -> None:
    site4.install()
    secret = {"metadata": {"name": "keys"}, "data": {"k": base64.b64encode(b"of-the-secret").decode()}}
    site4.cluster.put("api/v1/secrets", "mine", secret)
    (engine,) = [one for one in site4.cluster.pods("mine") if "vllm" in one["metadata"]["name"]]
    container = engine["spec"]["containers"][0]
    container |= {"command": ["vllm", "serve", "--port", "8000", "org/m"], "args": []}
    container["env"] = [{"name": "VLLM_API_KEY", "valueFrom": SECRET_KEY}]
    release = site4.release(own=False)
    seen = take_snapshot(site4.kube, "mine", release.manifest())
    with pytest.raises(StackError, match="name the model in the command with --served-model-name"):
        describe(release.record, site4.kube, {}, seen)
    site4.cluster.targets["vllm", 8000] = ("127.0.0.1", httpserver.port)
    asked = httpserver.expect_request("/v1/models", headers={"Authorization": "Bearer of-the-secret"})
    asked.respond_with_json({"data": [{"id": "org/m"}, {"id": "an-adapter"}]})
    describe(release.record, site4.kube, {}, seen)
    assert release.record.model == "org/m"


def test_an_engine_that_speaks_tls_is_sent_to_its_address(site4: Site) -> None:
    site4.install()
    (engine,) = [one for one in site4.cluster.pods("mine") if "vllm" in one["metadata"]["name"]]
    engine["spec"]["containers"][0]["command"] = ["vllm", "serve", "m", "--ssl-keyfile=/k", "--ssl-certfile=/c"]
    release = site4.release(own=False)
    seen = take_snapshot(site4.kube, "mine", release.manifest())
    with pytest.raises(StackError, match=r"accepts only TLS \(--ssl-certfile\).*--url https://HOST"):
        describe(release.record, site4.kube, {}, seen)


@pytest.mark.parametrize(("ip", "host"), [("10.1.0.1", "10.1.0.1"), ("fd00::1", "[fd00::1]")])
def test_the_address_of_a_pod_is_a_url(ip: str, host: str) -> None:
    pod = running({"metadata": {"name": "p", "namespace": "n", "uid": "u"}}, "vllm", "serve", "m", ip=ip)
    assert server_of_pod(EngineServer, pod, "engine").url == f"http://{host}:8000"
