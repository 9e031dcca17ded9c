"""``--stack chart`` with the documented rights, with one less, and with none."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests import release_project
from tests.release_project import ROOT, Project

pytest.importorskip("kubernetes")

pytest_plugins = ("pytester",)

project = release_project.project


@pytest.mark.long
@pytest.mark.parametrize("project", [pytest.param(3, marks=pytest.mark.long), 4], indirect=True)
def test_the_rights_that_are_documented_are_enough(project: Project) -> None:
    rules = [rule for one in documented() if one["kind"] == "ClusterRole" for rule in one["rules"]]
    project.cluster.granted = {
        (verb, group, resource)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    } | {("list", "example.com", "things")}  # the stand-in chart's own kind
    result = project.run()
    result.assert_outcomes(passed=9)
    assert project.namespaces() == []
    assert project.cluster.find("apis/apiextensions.k8s.io/v1/customresourcedefinitions") == []


def documented() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "docs/rbac.yaml").read_text()))


def test_one_right_less_is_told_before_anything_is_made(project: Project) -> None:
    project.cluster.forbidden.add(("create", "pods/exec"))
    result = project.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*these credentials may not create pods/exec in namespace *", "*docs/rbac.yaml*"])
    assert not any(one.startswith("POST /api/v1/namespaces") for one in project.cluster.requests)


@pytest.mark.parametrize("lacking", [None, ("get", "namespaces"), ("list", "nodes")])
def test_without_rights_it_says_which_and_how_to_get_them(project: Project, lacking: tuple[str, str] | None) -> None:
    if lacking is None:
        project.cluster.granted = set()
    else:
        project.cluster.forbidden.add(lacking)
    result = project.run()
    assert result.ret == 4
    words = "get pods in namespace *more" if lacking is None else f"{' '.join(lacking)} in the cluster"
    result.stderr.fnmatch_lines([f"*rights: these credentials may not {words}", "*docs/rbac.yaml*"])
