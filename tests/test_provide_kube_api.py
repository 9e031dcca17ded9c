"""Talking to an API server: what is named, what is repeated, whose fault it is when nothing comes."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fixtures.core.errors import ConfigurationError, StackError
from fixtures.provide.kube import cluster_context, connection
from fixtures.provide.kube.api import PATIENCE_S, ApiError, Kube, UnreachableError
from fixtures.provide.kube.cluster_context import ClusterContext, resolve_context
from fixtures.provide.target import Target
from tests import kube_cluster
from tests.fakes.api_server import FakeCluster

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_httpserver import HTTPServer

pytest.importorskip("kubernetes")

cluster = kube_cluster.cluster
kube = kube_cluster.kube


# --- which cluster ----------------------------------------------------------------------------------------------------


def test_the_current_context_is_pinned_by_name(cluster: FakeCluster, tmp_path: Path) -> None:
    path = str(cluster.kubeconfig(tmp_path))
    assert resolve_context(None, path) == ClusterContext(path, "fake")
    assert resolve_context("other", path).name == "other"
    with pytest.raises(ConfigurationError, match="it has: fake, other\\); name one of them"):
        resolve_context("nobody", path)


def test_without_a_kubeconfig_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match=r"there is no kubeconfig at .*set KUBECONFIG"):
        resolve_context(None)


@pytest.mark.parametrize(
    ("cluster_", "user", "says"),
    [
        ({"certificate-authority": "/nowhere/ca.crt"}, {"token": "t"}, "File does not exist: /nowhere/ca.crt"),
        ({"server": "http://[::1"}, {"token": "t"}, "Invalid IPv6 URL"),
        ({}, {"tokenFile": "/nowhere/token"}, "No such file or directory: '/nowhere/token'"),
        (
            {},
            {"auth-provider": {"name": "oidc", "config": {"client-secret": "sesame"}}},
            "Expected key id-token",
        ),
    ],
)
def test_an_entry_of_the_kubeconfig_that_leads_nowhere_is_one_sentence(
    cluster: FakeCluster, tmp_path: Path, cluster_: dict[str, Any], user: dict[str, Any], says: str
) -> None:
    path = cluster.kubeconfig(tmp_path)
    config = yaml.safe_load(path.read_text())
    config["clusters"][0]["cluster"] = {"server": "https://127.0.0.1:9"} | cluster_
    config["users"][0]["user"] = user
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigurationError, match=re.escape(says)) as caught:
        Kube(resolve_context(None, str(path)))
    assert "correct its cluster and user" in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_a_login_page_in_place_of_an_api_server_is_one_sentence(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request(re.compile(".*")).respond_with_data("<html>log in</html>", content_type="text/html")
    with pytest.raises(StackError, match="a login page may be in between; check the server's address"):
        at(httpserver, tmp_path).list("Pod", "x")


def test_credentials_that_are_not_accepted_name_the_remedy(httpserver: HTTPServer, tmp_path: Path) -> None:
    body = {"kind": "Status", "message": "Unauthorized", "code": 401}
    httpserver.expect_request(re.compile(".*")).respond_with_json(body, status=401)
    with pytest.raises(ApiError, match="HTTP 401: Unauthorized; these credentials are not accepted: log in again"):
        at(httpserver, tmp_path).version()


def at(server: HTTPServer, folder: Path) -> Kube:
    cluster = FakeCluster()
    cluster.port = server.port
    return Kube(ClusterContext(str(cluster.kubeconfig(folder)), "fake"), patience_s=0.0)


def test_a_cluster_that_never_answered_is_told_within_seconds(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "FIRST_ANSWER_S", 0.2)
    target = Target(helm="true", kubeconfig=str(cluster.kubeconfig(tmp_path)))
    assert connection.connect_target(target, tmp_path)[0].patience_s == PATIENCE_S
    with cluster.away(), pytest.raises(UnreachableError, match="does not answer GET /version"):
        connection.connect_target(target, tmp_path)


def test_in_a_pod_its_own_cluster_is_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    monkeypatch.setattr(cluster_context, "SERVICE_ACCOUNT", token)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert resolve_context(None).in_cluster


def test_credentials_are_sent_and_never_shown(kube: Kube) -> None:
    assert kube.headers() == {"authorization": "Bearer sesame-of-the-fake"}
    assert "sesame" not in repr(kube)


# --- asking -----------------------------------------------------------------------------------------------------------


def test_lists_come_page_by_page_and_start_again_when_gone(cluster: FakeCluster, kube: Kube) -> None:
    for number in range(1203):
        cluster.put(
            "api/v1/configmaps", "default", {"metadata": {"name": f"c{number}", "labels": {"n": str(number % 2)}}}
        )
    cluster.gone = 1
    assert len(kube.list("ConfigMap", "default")) == 1203
    assert cluster.gone == 0
    assert len(kube.list("ConfigMap", "default", labels="n=1")) == 601
    assert kube.list("ConfigMap", "kube-system") == []


def test_what_is_not_there_is_none(kube: Kube) -> None:
    assert kube.get("Pod", "nobody", "default") is None
    assert kube.get_like({"apiVersion": "v1", "kind": "Nobody", "metadata": {"name": "x"}}, "default") is None
    kube.delete("Pod", "nobody", "default")


def test_half_a_character_in_an_object_is_replaced(cluster: FakeCluster, kube: Kube) -> None:
    """JSON can name half a surrogate pair; neither a record nor a report can hold it."""
    cluster.put(
        "api/v1/configmaps", "default", {"metadata": {"name": "c"}, "data": {"m": "a\ud83d", "whole": "\U0001f600"}}
    )
    found = kube.get("ConfigMap", "c", "default")
    assert found is not None
    assert found["data"] == {"m": "a\ufffd", "whole": "\U0001f600"}


def test_a_refusal_is_told_as_it_was_said(cluster: FakeCluster, kube: Kube) -> None:
    cluster.forbidden.add(("list", "nodes"))
    with pytest.raises(ApiError, match="nodes is forbidden") as refusal:
        kube.list("Node")
    assert refusal.value.status == 403


def test_a_short_absence_is_waited_out(cluster: FakeCluster, kube: Kube) -> None:
    with cluster.away():
        back = threading.Timer(1.0, cluster.start)
        back.start()
        assert [one["metadata"]["name"] for one in kube.list("Node")] == ["node-a"]
        back.join()
        cluster.stop()


def test_a_long_absence_is_an_error_of_the_run(cluster: FakeCluster, kube: Kube) -> None:
    kube.patience_s = 0.2
    with cluster.away(), pytest.raises(UnreachableError, match=r"context fake\) does not answer GET /api/v1/nodes"):
        kube.list("Node")


def test_what_changes_something_is_not_repeated(cluster: FakeCluster, kube: Kube) -> None:
    with cluster.away():
        began = time.monotonic()
        with pytest.raises(UnreachableError):
            kube.create("Namespace", {"metadata": {"name": "x"}})
        assert time.monotonic() - began < 2


def test_rights_are_asked_for(cluster: FakeCluster, kube: Kube) -> None:
    cluster.forbidden.add(("create", "pods/exec"))
    assert kube.allowed("get", "pods", "default")
    assert not kube.allowed("create", "pods/exec", "default")


def test_a_dry_run_makes_nothing(cluster: FakeCluster, kube: Kube) -> None:
    thing = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    kube.dry_run(thing, "default")
    assert kube.get("ConfigMap", "c", "default") is None
    cluster.refuses["c"] = "spec.x: field is immutable"
    with pytest.raises(ApiError, match="field is immutable"):
        kube.dry_run(thing, "default")
