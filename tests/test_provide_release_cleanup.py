"""What killed runs left on a cluster is found by its label, listed and removed."""

from __future__ import annotations

import os
import re

import pytest

from fixtures.core.errors import StackError
from fixtures.core.processes import ProcessRef
from fixtures.provide.release import cleanup
from tests import release_site
from tests.release_site import CRDS, Site

pytest.importorskip("kubernetes")

site = release_site.site
site4 = release_site.site4


@pytest.mark.long
def test_only_what_carries_the_label_is_found_and_removed(site: Site) -> None:
    site.cluster.put("api/v1/namespaces", "", {"metadata": {"name": "foreign"}})
    site.install(**cleanup.labels("stack-1"))
    found = cleanup.find_leftovers(site.kube)
    assert [(one.kind, one.name, one.owner) for one in found] == [("namespace", "mine", "stack-1")]
    assert cleanup.find_leftovers(site.kube, older_than_s=3600) == []
    cleanup.remove(site.kube, site.helm, found[0], lambda _: None)
    assert site.kube.get("Namespace", "mine") is None
    assert site.kube.get("Namespace", "foreign") is not None
    assert site.cluster.pods() == []


@pytest.mark.long
def test_a_crd_goes_with_the_last_of_its_users(site: Site) -> None:
    site.install(**cleanup.labels("stack-1"))
    crd = site.cluster.find(CRDS)[0]
    assert cleanup.remove_unused_crds(site.kube) == [], "Helm made it for another owner: it carries no mark"
    crd["metadata"]["labels"] = dict(cleanup.MADE)
    assert cleanup.remove_unused_crds(site.kube) == [], "a stack of this suite is still there"
    (left,) = cleanup.find_leftovers(site.kube)
    cleanup.remove(site.kube, site.helm, left, lambda _: None)
    site.cluster.forbidden.add(("list", "things"))
    assert cleanup.remove_unused_crds(site.kube) == [], "without the right to look it counts as used"
    site.cluster.forbidden.clear()
    deployments = "apis/apps/v1/deployments"
    for label in ({"app.kubernetes.io/part-of": "vllm-stack"}, {"helm-release-name": "theirs"}):
        site.cluster.objects[deployments, "default", "theirs"] = {"metadata": {"name": "theirs", "labels": label}}
        assert cleanup.remove_unused_crds(site.kube) == [], "another user's release came after it: it has no other"
        site.cluster.objects.pop((deployments, "default", "theirs"))
    site.cluster.put("apis/example.com/v1/things", "default", {"metadata": {"name": "t"}})
    assert cleanup.remove_unused_crds(site.kube) == [], "it holds an object"
    site.cluster.objects.pop(("apis/example.com/v1/things", "default", "t"))
    assert cleanup.remove_unused_crds(site.kube) == ["things.example.com"]
    assert site.cluster.find(CRDS) == []


@pytest.mark.long
@pytest.mark.parametrize("whose", ["host", "user", "live run"])
def test_what_others_made_is_listed_and_left_alone(
    site4: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(site4.kube.context.kubeconfig))
    owner = ProcessRef.of(os.getpid())
    marks = cleanup.labels("stack-1", owner)
    assert all(re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", value) for value in marks.values())
    if whose != "live run":
        marks[cleanup.HOST if whose == "host" else cleanup.USER] = "another"
    site4.install(**marks)
    helm = f"--helm={site4.helm.command[0]}"
    assert cleanup.main([helm, "--remove"]) == 0
    out = capsys.readouterr().out
    assert "0 left by earlier runs" in out
    assert ("its run is still active" if whose == "live run" else "made by user") in out
    assert site4.kube.get("Namespace", "mine") is not None
    assert cleanup.main([helm, "--remove", "--everyone"]) == 0
    assert site4.kube.get("Namespace", "mine") is None


def test_a_release_in_a_foreign_namespace_goes_alone(site: Site) -> None:
    site.install()
    (left,) = cleanup.find_leftovers(site.kube)
    assert (left.kind, left.name, left.namespace) == ("release", "rel", "mine")
    cleanup.remove(site.kube, site.helm, left, lambda _: None)
    assert site.kube.get("Namespace", "mine") is not None
    assert cleanup.find_leftovers(site.kube) == []


def test_what_does_not_go_is_named() -> None:
    with pytest.raises(StackError, match="namespace x still exists after 0 s, remaining: pod a"):
        cleanup.until_gone(lambda: ["pod a"], "namespace x", lambda _: None, within_s=0.0)


@pytest.mark.long
def test_the_command_lists_and_removes(
    site4: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(site4.kube.context.kubeconfig))
    site4.install(**cleanup.labels("stack-1"))
    helm = f"--helm={site4.helm.command[0]}"
    assert cleanup.main([helm]) == 1
    assert "namespace mine" in capsys.readouterr().out
    assert cleanup.main([helm, "--remove"]) == 0
    assert cleanup.main([helm]) == 0
    assert "0 left by earlier runs" in capsys.readouterr().out
    assert cleanup.main([helm, "--kube-context", "nobody"]) == 2
