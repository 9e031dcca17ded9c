"""Runs that are interrupted, lose a worker or take too long are incomplete, and say so."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.verdict_sessions import HEAD, PASSING, UNJUDGED, Run, allure_results, entries, written

pytest_plugins = ("pytester", "tests.verdict_sessions")


def test_what_is_not_reached_is_named(run: Run, project: pytest.Pytester) -> None:
    result = run('@requirement("ACC-02")\ndef test_a(): assert 0, "no"\n' + UNJUDGED + PASSING, "-x")
    assert result.ret == 1
    assert entries(project)["API-01"]["reason"] == "not reached: the run stopped before this test"
    assert not written(project)["run"]["interrupted"]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_ctrl_c_leaves_an_incomplete_report(run: Run, project: pytest.Pytester, workers: int) -> None:
    source = """
    import pathlib, time

    @requirement("ACC-01")
    def test_first(pytestconfig):
        publish_subject(pytestconfig, {"stack": "process"})

    @requirement("ACC-02")
    def test_second():
        pathlib.Path("waiting").touch()
        time.sleep(250)

    @requirement("ACC-03")
    def test_third():
        time.sleep(250)
    """
    (project.path / "suite/test_accounted.py").write_text(HEAD + textwrap.dedent(source))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *(["-n2"] if workers else [])]
    process = subprocess.Popen(command, cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not (project.path / "waiting").exists():
        assert time.monotonic() < deadline, "the inner session did not reach its second test within 120 s"
        time.sleep(0.05)
    time.sleep(0.5)  # xdist: let the first test's report arrive
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    report = written(project)
    assert report["run"]["interrupted"]
    found = {entry["id"]: entry for entry in report["requirements"]}
    assert found["ACC-01"]["verdict"] == "conformant", output
    assert found["ACC-02"]["reason"] == "not reached: the run stopped before this test"
    assert found["ACC-03"]["verdict"] == "not judged"
    assert report["subjects"][0]["stack"] == "process"
    assert "> **Interrupted: " in (project.path / "reports/conformance.md").read_text()
    assert "interrupted=yes" in (project.path / "reports/allure-results/environment.properties").read_text()
    assert "interrupted: tests that were not reached are not judged" in output
    assert ">interrupted<" in (project.path / "reports/badge-core.svg").read_text()


@pytest.mark.long
def test_a_worker_that_dies_is_an_error(run: Run, project: pytest.Pytester) -> None:
    source = """
    import os

    @requirement("ACC-01")
    def test_first(): pass

    @requirement("ACC-02")
    def test_dies(): os._exit(3)

    @requirement("ACC-03")
    def test_third(): pass
    """
    result = run(source, "-n1", apart=True)
    assert result.ret == 1
    found = entries(project)
    assert found["ACC-02"]["errored"]
    assert "crashed while running" in found["ACC-02"]["reason"]
    assert found["ACC-01"]["verdict"] == found["ACC-03"]["verdict"] == "conformant"


def test_a_timeout_is_an_error_of_the_run(run: Run, project: pytest.Pytester) -> None:
    source = "import time\n@requirement('ACC-01')\ndef test_it(): time.sleep(20)"
    assert run(source, "--timeout=1", "-o", "timeout_method=signal", "-o", "timeout_func_only=true").ret == 1
    entry = entries(project)["ACC-01"]
    assert entry["errored"]
    assert entry["verdict"] == "not judged"
    assert [result["status"] for result in allure_results(project).values()] == ["broken"]
