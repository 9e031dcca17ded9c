"""Fixtures that run the verdict plugin in a pytest session of its own, and what the tests of it have in common.

PYTEST_DONT_REWRITE: it is imported before it is a plugin, and asserts nothing.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.catalogue.requirements import REQUIREMENTS
from fixtures.catalogue.selection import musts
from fixtures.plugin import REPORTING
from fixtures.report import schema
from tests.apart import ADDOPTS
from tests.apart import run as apart_run

JUDGED = [each for each in REQUIREMENTS.values() if not each.planned]
"""The requirements that a test of the suite judges."""
Run = Callable[..., pytest.RunResult]

ROOT = Path(__file__).resolve().parents[1]
HEAD = """
import pytest
from fixtures.instruments.trials import Interval
from fixtures.core.errors import NotApplicable, NotJudged, StackError, SubjectFault
from fixtures.plugin.markers import requirement
from fixtures.plugin.transport import publish_subject
"""


CONFTEST = f'import pytest\npytest.register_assert_rewrite("fixtures.plugin")\npytest_plugins = {REPORTING}\n'


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with a suite/ folder and nothing but the plugin under test."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    for variable in ("GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "BUILDKITE"):
        monkeypatch.delenv(variable, raising=False)
    pytester.syspathinsert(ROOT)
    pytester.makeconftest(CONFTEST)
    pytester.makeini(f"[pytest]\ntestpaths = suite\nxfail_strict = true\naddopts = {ADDOPTS}\n")
    pytester.mkdir("suite")
    return pytester


@pytest.fixture
def run(project: pytest.Pytester) -> Run:
    """Write ``suite/test_accounted.py`` and run it, in this process or with xdist in others."""

    def run(source: str, *args: str, apart: bool = False) -> pytest.RunResult:
        (project.path / "suite/test_accounted.py").write_text(HEAD + textwrap.dedent(source))
        arguments = ("-p", "no:cacheprovider", *args)
        return apart_run(project.path, "pytest", *arguments) if apart else project.runpytest_inprocess(*arguments)

    return run


def written(project: pytest.Pytester) -> dict[str, Any]:
    """The report, which must be valid."""
    report = json.loads((project.path / "reports/conformance.json").read_text())
    schema.validate(report)
    return report


def entries(project: pytest.Pytester) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in written(project)["requirements"]}


def allure_results(project: pytest.Pytester) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in project.path.glob("reports/allure-results/*-result.json")]
    return {title_back(result["name"]): result for result in found}


def title_back(title: str) -> str:
    """The name of the test function, and its parameters, of a title in Allure."""
    words, bracket, parameters = title.partition(" [")
    return "test_" + words.lower().replace(" ", "_") + bracket.strip() + parameters


def labels(result: dict[str, Any], name: str) -> set[str]:
    return {label["value"] for label in result["labels"] if label["name"] == name}


MIXED = '''
@pytest.fixture(scope="session")
def stack(pytestconfig):
    facts = {"config": "embedded", "stack": "process", "device": "cpu", "versions": {"vllm": "0.32"}, "engines": ["a"]}
    publish_subject(pytestconfig, facts)

@pytest.fixture
def no_engine():
    raise StackError("waited 10 s for the engine")

@pytest.fixture
def no_logs():
    raise NotJudged("no logs through a bare URL")

@pytest.fixture
def dead():
    raise SubjectFault("the engine died")

@pytest.fixture
def sloppy():
    assert 1 == 2, "the fixture is wrong"

@pytest.fixture
def leaky():
    yield
    raise RuntimeError("could not clean up")

@requirement("ACC-01")
def test_passes(stack, figures):
    """A cold prompt is computed."""
    figures("tokens", 2048, "tokens")
    figures.interval("ratio", Interval(0.4, 0.3, 0.5, 20), "")

@requirement("ACC-02")
@pytest.mark.parametrize("k", [1, 2])
def test_fails_once(stack, k, evidence):
    evidence("engine log", "Authorization: Bearer abcdefghijk", "log")
    assert k == 1, f"expected 1 chunk loaded, got {k}"

@requirement("CFG-07")
def test_should(stack):
    assert 10 > 20, "expected 20 GiB, got 10 GiB"

@requirement("ACC-03")
def test_fixture_errs(no_engine):
    pass

@requirement("ACC-04")
def test_errs():
    raise ValueError("a fault of the suite")

@requirement("ACC-05", "COR-01")
def test_fixture_not_judged(no_logs):
    pass

@requirement("ACC-06")
def test_not_judged():
    raise NotJudged("no /reset_prefix_cache")

@requirement("ACC-07")
def test_skips():
    pytest.skip("later")

@requirement("COR-02")
def test_subject_dies_in_setup(dead):
    pass

@requirement("COR-03")
def test_fixture_asserts(sloppy):
    pass

@requirement("COR-04")
def test_teardown_errs(leaky):
    pass

@requirement("COR-05")
def test_pytest_fail():
    pytest.fail("expected nothing, got 256 tokens")
'''

ADVISORY = '@requirement("CFG-07")\ndef test_should(): assert False, "expected 2, got 1"\n'
UNJUDGED = '@requirement("ACC-01")\ndef test_unjudged(): raise NotJudged("no counters")\n'
PASSING = '@requirement("API-01")\ndef test_api(): pass\n'


def all_of(profile: str, but: str = "") -> str:
    ids = [each.id for each in musts([profile]) if each.id != but]
    return "\n".join(f"@requirement({id_!r})\ndef test_{index}(): pass" for index, id_ in enumerate(ids))


RERUN = """
import pytest
from _pytest.runner import runtestprotocol

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    # What pytest-rerunfailures does with --reruns 1.
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in (1, 2):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        again = attempt == 1 and any(report.failed for report in reports)
        for report in reports:
            if again and report.failed:
                report.outcome = "rerun"
            item.ihook.pytest_runtest_logreport(report=report)
        if not again:
            break
        item._initrequest()
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""
