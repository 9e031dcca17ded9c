"""Releases that do not start: an error of the run, with its reason and a bundle."""

from __future__ import annotations

import datetime
import signal
import time

import pytest

from fixtures.core.waiting import poll
from fixtures.report import waivers
from tests import release_project
from tests.release_project import ROOT, WITHIN_S, Project

pytest.importorskip("kubernetes")

pytest_plugins = ("pytester",)

project = release_project.project


KEY = "open-sesame-key"


@pytest.mark.long
def test_a_failed_release_in_a_namespace_of_others_is_waited_for(project: Project) -> None:
    project.cluster.put("api/v1/namespaces", "", {"metadata": {"name": "theirs"}})
    project.cluster.fates["vllm"] = "crash"
    project.run("--namespace=theirs", "-k", "test_engine").assert_outcomes(errors=1)
    assert project.cluster.pods("theirs") == [], "not even one that is Terminating"
    assert project.namespaces() == ["theirs"]


def test_what_is_missing_is_told_before_anything_is_made(project: Project) -> None:
    project.values["servingEngineSpec"]["runtimeClassName"] = "nvidia"
    result = project.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*1 of * checks fail; nothing was installed:", "*there is no RuntimeClass nvidia*"])
    assert not any(one.startswith("POST /api/v1/namespaces") for one in project.cluster.requests)


@pytest.mark.long
def test_a_release_that_crashes_is_an_error_with_a_bundle(project: Project) -> None:
    project.cluster.fates["vllm"] = "crash"
    project.values["servingEngineSpec"]["vllmApiKey"] = KEY
    result = project.apart()
    result.assert_outcomes(errors=1)
    assert "1 error, 8 not judged" in result.stdout.str()
    text = result.stdout.str()
    assert "its log says: ValueError: boom" in text
    assert len([line for line in text.splitlines() if "ValueError: boom" in line]) < 9, (
        "told for one test, not for nine"
    )
    assert "the stack of one did not start; the error of the first test gives the reason" in text
    told = result.stderr.str()
    assert told.index("release vllm does not start") < told.index("removing release vllm")
    assert project.namespaces() == []
    (folder,) = project.path.glob("runs/*/one/bundle")
    files = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert {"README.txt", "values.yaml", "manifest.yaml", "helm.txt", "events.txt", "nodes.yaml"} <= set(files)
    assert any(name.endswith(".previous.log") for name in files)
    assert "kind: Secret" not in files["manifest.yaml"]
    assert not any(KEY in body or "sesame-of-the-fake" in body for body in files.values())


@pytest.mark.long
def test_a_signal_while_a_failed_release_is_removed_does_not_swallow_the_reason(project: Project) -> None:
    project.cluster.fates["vllm"] = "crash"
    run = project.start("removing release vllm")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
        run.send_signal(number)
        time.sleep(0.2)
    assert run.wait(WITHIN_S) == 2
    text = project.out.read_text()
    assert "its log says: ValueError: boom" in text
    assert "Traceback (most recent call last)" not in text
    assert project.namespaces() == []
    assert not list((project.path / "cache/stacks").glob("*.json"))


@pytest.mark.long
def test_the_scheduler_has_the_last_word_on_room(project: Project) -> None:
    project.values["servingEngineSpec"]["modelSpec"][0]["requestGPU"] = 1
    project.cluster.fates["vllm-m-"] = "gpu"
    result = project.apart("-k", "test_engine")
    result.assert_outcomes(errors=1)
    result.stderr.fnmatch_lines(["*warning  room: no node seems to be large enough for *1 nvidia.com/gpu*"])
    result.stdout.fnmatch_lines(["*Unschedulable*Insufficient nvidia.com/gpu*"])


@pytest.mark.long
def test_refused_objects_are_all_reported(project: Project) -> None:
    project.cluster.refuses = {"vllm-m-deployment-vllm": "must not contain dots", "vllm-secrets": "too long"}
    result = project.run("-k", "test_engine")
    assert "refuses 2 objects of the chart" in result.stdout.str()
    assert project.namespaces() == []


@pytest.mark.long
def test_an_api_server_that_goes_away_is_no_verdict(project: Project) -> None:
    project.suite(
        """
        from fixtures.plugin.markers import requirement

        @requirement("CFG-01")
        def test_engine(stack):
            stack.engine.counters()
            for access in (stack.access,):
                access.kube.patience_s = 1.0
            open("go", "w").close()
            while True:
                stack.engine.counters()
        """
    )
    run = project.start("pods are made", "--keep-stack")
    assert poll((project.path / "go").exists, bool, WITHIN_S)
    with project.cluster.away():
        assert run.wait(WITHIN_S) == 1
    report = project.report()
    entry = next(one for one in report["requirements"] if one["id"] == "CFG-01")
    assert entry["verdict"] == "not judged"
    assert entry["errored"]
    assert "API server" in project.out.read_text()


@pytest.mark.long
def test_a_known_defect_points_to_its_ready_waiver(project: Project) -> None:
    shipped = waivers.load(ROOT / "configs/cpu-cluster/waivers.yaml")
    assert set(shipped) == {"API-09"}
    assert not shipped["API-09"].expired(datetime.date(2026, 12, 1))
    project.suite(
        """
        import pytest
        from fixtures.plugin.markers import requirement

        @requirement("API-09")
        @pytest.mark.parametrize("bad", ["malformed-json"])
        def test_router(stack, bad):
            assert stack.router is None, "expected an error object, got a text"
        """
    )
    options = project.options
    (project.path / "one/waivers.yaml").write_text((ROOT / "configs/cpu-cluster/waivers.yaml").read_text())
    result = project.run("--keep-stack", options=options)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["API-09: a known defect of this subject; *--waivers=*one/waivers.yaml"])
    result = project.run(f"--waivers={project.path}/one/waivers.yaml", options=options)
    assert result.ret == 0
    assert "a known defect of this subject" not in result.stdout.str()
