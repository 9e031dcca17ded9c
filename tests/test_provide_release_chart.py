"""``--stack chart`` under pytest, from installing to removing, on a stand-in cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import apart, release_project

if TYPE_CHECKING:
    from tests.release_project import Project

pytest.importorskip("kubernetes")

pytest_plugins = ("pytester",)

project = release_project.project


@pytest.mark.parametrize("project", [pytest.param(3, marks=pytest.mark.long), 4], indirect=True)
def test_installed_judged_and_gone(project: Project) -> None:
    result = project.apart()
    result.assert_outcomes(passed=9)
    assert project.namespaces() == []
    assert project.cluster.pods() == []
    assert project.cluster.find("apis/apiextensions.k8s.io/v1/customresourcedefinitions") == []
    (record,) = project.records()
    assert record.kind == "chart"
    assert record.model == "org/m"
    assert record.release is not None
    assert len(record.release.started_s) == 2, "of the engine and of the router"
    assert not list((project.path / "cache/stacks").glob("*.json"))
    subject = project.report()["subjects"][0]
    assert subject["chart"] == "stand-in-1.2.3"
    assert subject["kubernetes"] == "v1.36.2"
    assert subject["versions"]["lmcache"] == "0.5.6"
    assert subject["images"]
    shown = result.stderr.str() + result.stdout.str()
    for phase in ("dry run", "helm install vllm", "pods are made", "images and volumes", "start-up", "service"):
        assert phase in shown


@pytest.mark.long
def test_workers_share_one_release(project: Project) -> None:
    project.apart("-n2").assert_outcomes(passed=9)
    assert len(project.records()) == 1
    assert project.namespaces() == []


@pytest.mark.long
def test_kept_then_judged_again_then_stopped(project: Project) -> None:
    result = project.apart("--keep-stack")
    result.assert_outcomes(passed=7)
    (namespace,) = project.namespaces()
    result.stderr.fnmatch_lines([f"*is kept: release vllm in namespace {namespace}*"])
    path = next(project.path.glob("runs/*/*/record.json"))
    again = project.apart(f"--record={path}", options=["--stack=attach", "-p", "no:cacheprovider"])
    again.assert_outcomes(passed=7)
    assert project.namespaces() == [namespace]
    assert apart.run(project.path, "fixtures", "stop", str(path)).ret == 0
    assert project.namespaces() == []
