"""Exit codes, gates, and where the report goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.catalogue.selection import musts
from tests.verdict_sessions import ADVISORY, PASSING, UNJUDGED, Run, all_of, entries, written

pytest_plugins = ("pytester", "tests.verdict_sessions")
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("source", "args", "code"),
    [
        (ADVISORY, (), 0),
        (UNJUDGED, (), 0),
        (ADVISORY + UNJUDGED, ("-x",), 0),
        ("@requirement('ACC-01')\ndef test_it(): pass", ("-k", "nothing"), 5),
        ("def test_unmarked(): raise NotJudged('not for you')", (), 1),
    ],
)
def test_exit_codes(run: Run, source: str, args: tuple[str, ...], code: int) -> None:
    assert run(source, *args).ret == code


def test_a_gate_opens_only_if_every_must_is_conformant(run: Run, project: pytest.Pytester) -> None:
    result = run(all_of("latency"), "--profile", "latency", "--gate")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["gate open (latency): every MUST is conformant"])
    assert written(project)["gate"] == {"profiles": ["latency"], "open": True, "unmet": []}


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("", "not run: no collected test checks it"),
        ('\n@requirement("LAT-05")\ndef test_last(): raise NotJudged("no clock")', "not judged: no clock"),
    ],
)
def test_what_was_not_judged_or_not_run_closes_the_gate(
    run: Run, project: pytest.Pytester, rest: str, reason: str
) -> None:
    source = all_of("latency", but="LAT-05") + rest
    assert run(source).ret == 0
    result = run(source, "--gate=latency")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [f"gate closed (latency), exit code 1: 1 of {len(musts(['latency']))} MUSTs are not conformant: LAT-05"]
    )
    report = written(project)
    assert report["gate"]["unmet"] == [{"id": "LAT-05", "reason": reason}]
    assert report["run"]["exit_status"] == 1
    assert not report["gate"]["open"]


def test_a_gate_from_the_ini(run: Run) -> None:
    assert run(all_of("latency", but="LAT-05"), "-o", "gate=latency").ret == 1
    assert run(all_of("latency", but="LAT-05"), "-o", "gate=selected", "-o", "profile=api", "suite").ret == 5


def test_the_users_own_folders_win(run: Run, project: pytest.Pytester) -> None:
    run(PASSING, "--alluredir", "mine", "--report-dir", "elsewhere")
    assert list(project.path.glob("mine/*-result.json"))
    assert (project.path / "mine/environment.properties").exists()
    assert (project.path / "elsewhere/conformance.md").exists()
    assert not (project.path / "reports").exists()
    assert not (project.path / "elsewhere/allure-results").exists()


def test_without_allure_the_report_is_the_same(run: Run, project: pytest.Pytester) -> None:
    assert run(PASSING, "-p", "no:allure_pytest").ret == 0
    assert entries(project)["API-01"]["verdict"] == "conformant"


@pytest.mark.parametrize(("arguments", "code"), [((), 4), (("--collect-only",), 0)])
def test_a_python_that_drops_assertions_judges_nothing(arguments: tuple[str, ...], code: int) -> None:
    """pytest keeps the assertions of tests and plugins, but not those of what they call."""
    command = [
        sys.executable,
        "-O",
        "-m",
        "pytest",
        "suite",
        "-q",
        "-k",
        "CFG-01",
        "-p",
        "no:cacheprovider",
        *arguments,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout
    assert ("ERROR: Python drops assertions (python -O, PYTHONOPTIMIZE), so faults" in done.stderr) is (code == 4)
