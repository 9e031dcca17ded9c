"""What ended runs of ``--stack chart`` leave behind, and who removes it."""

from __future__ import annotations

import io
import os
import signal

import pytest

from fixtures.core.processes import ProcessRef
from fixtures.core.progress import Progress
from fixtures.core.record import Release, StackRecord
from fixtures.provide.orphans import remove_orphans, remove_release
from fixtures.provide.release.release_teardown import tear_down
from tests import apart, release_project
from tests.release_project import WITHIN_S, Project, killed

pytest.importorskip("kubernetes")

pytest_plugins = ("pytester",)

project = release_project.project


@pytest.mark.long
def test_ended_by_a_signal_it_leaves_nothing(project: Project) -> None:
    project.cluster.fates["vllm"] = "never"
    run = project.start("start-up ...")
    run.send_signal(signal.SIGTERM)
    assert run.wait(WITHIN_S) == 2
    assert project.namespaces() == []
    assert not list((project.path / "cache/stacks").glob("*.json"))


def crds(project: Project) -> list[str]:
    return [
        one["metadata"]["name"]
        for one in project.cluster.find("apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    ]


@pytest.mark.long
def test_what_a_killed_run_left_is_removed_by_the_next_one(project: Project) -> None:
    path = killed(project)
    (left,) = project.namespaces()
    record = StackRecord.load(path)
    assert record.release is not None
    assert record.release.cluster == project.cluster.find("api/v1/namespaces")[1]["metadata"]["uid"]
    result = project.apart("-k", "test_engine")
    result.assert_outcomes(passed=1)
    result.stderr.fnmatch_lines([f"*removing stack {record.id}, left by a run that was killed*"])
    assert project.namespaces() == []
    assert crds(project) == []
    assert not path.exists()
    assert left not in {one["metadata"]["namespace"] for one in project.cluster.pods()}


@pytest.mark.long
def test_a_run_of_another_kind_names_it_and_keeps_the_record(project: Project) -> None:
    path = killed(project)
    (left,) = project.namespaces()
    said = io.StringIO()
    remove_orphans(path.parent, Progress(said, live=False))
    assert (
        f"still has release vllm in namespace {left}; remove it with: python -m fixtures stop {path}" in said.getvalue()
    )
    attach = ["--stack=attach", "--namespace=theirs", "--release=nobody", f"--helm={project.helm}"]
    project.apart(options=attach).stderr.fnmatch_lines(
        [f"*still has release vllm in namespace {left}; remove it with*"]
    )
    assert path.exists()
    assert project.namespaces() == [left]
    assert apart.run(project.path, "fixtures", "stop", str(path)).ret == 0
    assert project.namespaces() == []
    assert not path.exists()


def test_what_cannot_be_removed_is_reported_and_kept(project: Project) -> None:
    path = killed(project)

    def stays(words: str, **changes: str) -> None:
        record = StackRecord.load(path)
        assert record.release is not None
        for name, value in changes.items():
            setattr(record.release, name, value)
        said = io.StringIO()
        remove_release(record, path.parent, Progress(said, live=False), patience_s=0.5)
        assert words in said.getvalue()
        assert f"python -m fixtures stop {path}" in said.getvalue()
        assert path.exists()

    stays("now points to another cluster", cluster="another")
    stays("no kubeconfig", kubeconfig=str(project.path / "gone"))
    project.cluster.stop()
    stays("does not answer")


@pytest.mark.long
def test_runs_that_overlap_leave_no_crd(project: Project) -> None:
    path = killed(project)  # the first one, which made the CRD
    record = StackRecord.load(path)
    assert record.owner is not None
    record.owner = ProcessRef.of(os.getpid())  # and is still alive
    record.save(path.parent)
    project.run("-k", "test_engine").assert_outcomes(passed=1)
    assert crds(project) == ["things.example.com"], "the first one uses it"
    tear_down(record, path.parent)
    assert crds(project) == []
    assert project.namespaces() == []


def test_a_release_of_another_owner_is_not_uninstalled(project: Project) -> None:
    """Two runs want the same name; the one that did not get it must not remove the other's when it gives up."""
    project.install("theirs")
    record = StackRecord(
        id="late", kind="chart", config="c", folder=project.path / "late", model="m",
        release=Release(
            name="vllm", namespace="theirs", kubeconfig=str(project.kubeconfig), context="fake", helm=(str(project.helm),),
            own=True, own_namespace=True,
        ),
    )  # fmt: skip
    tear_down(record, project.path / "cache/stacks")
    assert project.namespaces() == ["theirs"]
    assert len(project.cluster.pods("theirs")) == 2
