"""What does not apply to a subject is told apart from what was not judged."""

from __future__ import annotations

import pytest

from tests.verdict_sessions import Run, allure_results, entries

pytest_plugins = ("pytester", "tests.verdict_sessions")


LACKING = """
@requirement("MEM-01")
def test_gpu(): raise NotApplicable("the engines compute on the CPU")

@requirement("API-01", "API-08")
@pytest.mark.parametrize("k", [1, 2])
def test_part(k):
    if k == 2:
        raise NotApplicable("no key is set")
"""


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_what_does_not_apply_is_told_apart(run: Run, project: pytest.Pytester, workers: int) -> None:
    arguments = ["--junitxml=junit.xml", *(["-n", str(workers)] if workers else [])]
    result = run(LACKING, *arguments, apart=bool(workers))
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "area * conformant * not judged * not applicable",
            "NOT APPLICABLE MEM-01: the engines compute on the CPU",
            "conformance: 2 conformant, 0 non-conformant, 0 advisory, 0 not judged, 1 not applicable; *",
            "*1 passed, 2 not applicable in*",
        ]
    )
    found = entries(project)
    assert {id_: entry["verdict"] for id_, entry in found.items()} == {
        "MEM-01": "not applicable",
        "API-01": "conformant",
        "API-08": "conformant",
    }
    cases = found["API-01"]["cases"]
    assert (cases["judged"], cases["total"], cases["unjudged"]) == (1, 2, [])
    assert cases["not_applicable"][0]["reason"] == "no key is set"
    text = (project.path / "reports/conformance.md").read_text()
    assert "## Not applicable: the subject lacks the feature" in text
    assert "## Could not be judged" not in text
    assert not (project.path / "reports/badge-memory.svg").exists()
    junit = (project.path / "junit.xml").read_text()
    assert 'message="not applicable: the engines compute on the CPU"' in junit
    allure = allure_results(project)["test_gpu"]
    assert allure["status"] == "skipped"
    assert allure["statusDetails"]["message"] == "MEM-01 not applicable: the engines compute on the CPU"
