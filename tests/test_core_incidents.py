"""Faults that a test sees and that another requirement owns."""

from __future__ import annotations

import pytest

from fixtures.core.incidents import Incident, Incidents
from tests.verdict_sessions import Run, entries, written

pytest_plugins = ("pytester", "tests.verdict_sessions")

SEEN_ELSEWHERE = """
from fixtures.plugin.transport import publish_incident

@requirement("COR-03")
def test_canaries(request):
    publish_incident(request.node, "ACC-02", "expected 2048 tokens loaded, got 1024")
    raise NotJudged("not a complete reload")

@requirement("ACC-02")
def test_a_repeat():
    pass

@requirement("ACC-01")
def test_cold(request):
    publish_incident(request.node, "CFG-07", "expected 20 GiB, got 10")
"""


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_an_incident_is_a_failed_case_of_its_owner(run: Run, project: pytest.Pytester, workers: int) -> None:
    result = run(SEEN_ELSEWHERE, *(["-n", str(workers)] if workers else []), apart=bool(workers))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    found = entries(project)
    assert (found["ACC-02"]["verdict"], found["ACC-02"]["reason"]) == (
        "non-conformant",
        "expected 2048 tokens loaded, got 1024",
    )
    assert found["ACC-02"]["cases"]["total"] == 2, "told three times with the phases, counted once"
    assert found["COR-03"]["verdict"] == "not judged"
    assert found["ACC-01"]["verdict"] == "conformant"
    assert found["CFG-07"]["verdict"] == "advisory", "an owner whose own tests were not selected"
    assert "test_canaries" in written(project)["reproduce"]["failing"]
    result.stdout.fnmatch_lines(["*exit code 1: ACC-02: the fault was seen by a test of another requirement*"])


def test_an_unknown_owner_is_an_error_of_the_suite(run: Run, project: pytest.Pytester) -> None:
    run(SEEN_ELSEWHERE.replace("CFG-07", "CFG-99"))
    assert entries(project)["ACC-01"]["errored"]


def test_incidents_are_kept_in_order_once_and_none_is_lost() -> None:
    incidents = Incidents()
    incidents.report("ACC-02", "early")
    heard: list[Incident] = []
    incidents.listen(heard.append)
    assert heard == [Incident("ACC-02", "early")]
    incidents.report("ACT-04", "engine a died")
    incidents.report("ACT-04", "engine a died")
    incidents.listen(None)
    incidents.report("ACC-02", "between two tests")
    incidents.listen(heard.append)
    assert [one.text for one in heard] == ["early", "engine a died", "between two tests"]
    assert [one.text for one in incidents.of("ACC-02")] == ["early", "between two tests"]
