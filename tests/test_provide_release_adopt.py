"""``--stack attach`` with a release: it is judged and not changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests import release_project
from tests.stand_in_chart import STAND_IN

if TYPE_CHECKING:
    from tests.release_project import Project

pytest.importorskip("kubernetes")

pytest_plugins = ("pytester",)

project = release_project.project


@pytest.mark.long
def test_a_running_release_is_judged_and_not_changed(project: Project) -> None:
    project.install()
    before = json.dumps([*project.cluster.objects.values()], sort_keys=True, default=str)
    asked = len(project.cluster.requests)
    options = [
        "--stack=attach",
        "--namespace=theirs",
        f"--helm={project.helm}",
        f"--chart={STAND_IN}",
        "-p",
        "no:cacheprovider",
    ]
    result = project.run(options=options)
    result.stdout.fnmatch_lines(
        ["NOT JUDGED     MEM-04: *add --allow evict", "NOT JUDGED     API-09: *add --allow disrupt"]
    )
    result.assert_outcomes(passed=5)
    result = project.run("--allow=evict,disrupt", options=options)
    result.assert_outcomes(passed=7)
    assert json.dumps([*project.cluster.objects.values()], sort_keys=True, default=str) == before
    wrote = {one for one in project.cluster.requests[asked:] if not one.startswith("GET")}
    assert {one.partition(" ")[0] for one in wrote if "selfsubjectaccessreviews" not in one} <= {"PATCH"}  # dry runs


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--stack=attach"], "needs one of: --record FILE*--namespace N*--url URL"),
        (["--stack=attach", "--namespace="], "--namespace '' is not a valid Kubernetes name"),
        (["--stack=attach", "--namespace=a/../b"], "--namespace 'a/../b' is not a valid Kubernetes name"),
        (
            ["--stack=chart", "--namespace=Mine", "--config=embedded"],
            "--namespace 'Mine' is not a valid Kubernetes name",
        ),
        (
            ["--stack=attach", "--namespace=a", f"--release={'r' * 54}"],
            "is not a valid Kubernetes name*at most 53 lowercase letters",
        ),
        (["--stack=attach", "--namespace=theirs", "--set=a=1"], "does not change the deployment: omit --values, --set"),
        (["--stack=attach", "--namespace=theirs", "--keep-stack"], "omit --config, --gpu and --keep-stack"),
        (["--namespace=x"], "--namespace: only for a stack on Kubernetes"),
        (["--stack=chart", "--cluster=minikube", "--config=embedded"], "only 'kind' is supported"),
        (
            ["--stack=process", "--with-dev-mode", "--config=embedded"],
            "--with-dev-mode changes a release that the run installs",
        ),
        (
            ["--stack=attach", "--namespace=theirs", "--with-dev-mode"],
            "--with-dev-mode changes a release that the run installs",
        ),
        (
            ["--stack=process", "--baseline-release", "--config=embedded"],
            "--baseline-release installs the chart a second time",
        ),
        (["--stack=chart", "--keep-volumes", "--config=embedded"], "--keep-volumes without --namespace"),
        (["--stack=chart", "--kube-context=nobody", "--config=embedded"], "it has: fake, other); name one of them"),
        (["--stack=chart", "--chart=./nowhere", "--config=embedded"], "no such file or folder"),
    ],
)
def test_wrong_options_are_refused(project: Project, options: list[str], words: str) -> None:
    result = project.run(options=[*options, f"--helm={project.helm}"] if "--stack" in " ".join(options) else options)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"*{words}*"])


def test_a_release_that_is_not_there_is_one_line(project: Project) -> None:
    project.install()
    options = ["--stack=attach", "--namespace=theirs", "--release=nobody", f"--helm={project.helm}"]
    result = project.run(options=options)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*namespace theirs has no such release (it has: vllm)*"])
