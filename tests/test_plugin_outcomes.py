"""Every outcome of a test becomes the verdict of its requirement."""

from __future__ import annotations

import json
import re

import pytest

from tests.verdict_sessions import (
    CONFTEST,
    JUDGED,
    MIXED,
    RERUN,
    Run,
    allure_results,
    entries,
    labels,
    written,
)

pytest_plugins = ("pytester", "tests.verdict_sessions")


VERDICTS = {
    "ACC-01": ("conformant", ""),
    "ACC-02": ("non-conformant", "expected 1 chunk loaded, got 2"),
    "CFG-07": ("advisory", "expected 20 GiB, got 10 GiB"),
    "ACC-03": ("not judged", "error: StackError: waited 10 s for the engine (in setup)"),
    "ACC-04": ("not judged", "error: ValueError: a fault of the suite"),
    "ACC-05": ("not judged", "no logs through a bare URL"),
    "COR-01": ("not judged", "no logs through a bare URL"),
    "ACC-06": ("not judged", "no /reset_prefix_cache"),
    "ACC-07": ("not judged", "later"),
    "COR-02": ("non-conformant", "the engine died"),
    "COR-03": ("not judged", "error: AssertionError: the fixture is wrong (in setup)"),
    "COR-04": ("not judged", "error: RuntimeError: could not clean up (in teardown)"),
    "COR-05": ("non-conformant", "expected nothing, got 256 tokens"),
}


ERRORED = {"ACC-03", "ACC-04", "COR-03", "COR-04"}


@pytest.mark.parametrize("workers", [0, 2])
def test_every_outcome_becomes_its_verdict(run: Run, project: pytest.Pytester, workers: int) -> None:
    stale = project.path / "reports/allure-results"
    stale.mkdir(parents=True)
    (stale / "old-result.json").write_text("{}")
    (stale / "mine.txt").write_text("kept")
    result = run(MIXED, *(["-n", str(workers)] if workers else []), apart=bool(workers))
    assert result.ret == pytest.ExitCode.TESTS_FAILED

    found = entries(project)
    assert {id_: (entry["verdict"], entry["reason"]) for id_, entry in found.items()} == VERDICTS
    assert {id_ for id_, entry in found.items() if entry["errored"]} == ERRORED
    assert list(found) == sorted(found, key=lambda id_: (["CFG", "ACC", "COR"].index(id_[:3]), id_))
    assert found["ACC-02"]["cases"]["judged"] == found["ACC-02"]["cases"]["total"] == 2
    assert "assert 2 == 1" in found["ACC-02"]["detail"]
    assert [e["text"] for e in found["ACC-02"]["evidence"]] == ["Authorization: Bearer [redacted]"]
    case = "suite/test_accounted.py::test_passes"
    assert found["ACC-01"]["figures"] == [
        {"name": "tokens", "value": 2048.0, "unit": "tokens", "case": case},
        {"name": "ratio", "value": 0.4, "unit": "", "n": 20, "low": 0.3, "high": 0.5, "case": case},
    ]
    report = written(project)
    (subject,) = report["subjects"]
    assert (subject["config"], subject["versions"], subject["engines"]) == ("embedded", {"vllm": "0.32"}, ["a"])
    assert (subject["chart"], subject["images"], subject["gpu"], subject["kubernetes"]) == (None, [], [], None)
    assert report["totals"]["errored"] == len(ERRORED)
    assert report["run"]["workers"] == workers
    assert not report["run"]["interrupted"]
    assert "test_fails_once[2]" in report["reproduce"]["failing"]
    assert "test_should" not in report["reproduce"]["failing"], "an advisory is nothing to run again for"
    text = (project.path / "reports/conformance.md").read_text()
    assert "- **ACC-02 reload: exactly whole chunks from the tier**: expected 1 chunk loaded, got 2" in text
    assert "| chart | none: local processes |" in text
    assert "| GPU | none: judged on the CPU |" in text

    output = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "area * conformant * non-conformant * advisory * not judged",
            "accounted * 1 * 1 * - * 5",
            "ADVISORY *CFG-07 *: expected 20 GiB, got 10 GiB",
            "NON-CONFORMANT ACC-02 *: expected 1 chunk loaded, got 2",
            "ERROR *ACC-03: error: StackError: waited 10 s for the engine (in setup)",
            "NOT JUDGED *ACC-05, COR-01: no logs through a bare URL",
            "conformance: 1 conformant, 3 non-conformant, 1 advisory, 8 not judged; 4 with an error of the run; "
            f"{len(JUDGED) - len(VERDICTS)} not run",
            "report: reports/conformance.md (and .json)",
            "allure: (cd reports && npx allure@3.18.0 generate *",
            "run again: pytest *test_fails_once*",
        ]
    )
    *_, last = output.strip().splitlines()  # pytest orders its own counts by what came first
    assert set(re.findall(r"\d+ [a-z ]+(?=,| in)", last)) == {
        *("3 failed", "3 passed", "4 errors"),
        *("1 advisory", "3 not judged"),
    }
    assert "INTERNALERROR" not in output
    assert "abcdefghijk" not in (project.path / "reports/conformance.json").read_text()

    assert [one.name for one in stale.iterdir() if one.name in {"old-result.json", "mine.txt"}] == ["mine.txt"]
    check_allure(project)


def check_allure(project: pytest.Pytester) -> None:
    results = allure_results(project)
    assert len(results) == 13
    statuses = {name: result["status"] for name, result in results.items()}
    assert statuses == {
        "test_passes": "passed",
        "test_fails_once[1]": "passed",
        "test_fails_once[2]": "failed",
        "test_should": "passed",
        "test_fixture_errs": "broken",
        "test_errs": "broken",
        "test_fixture_not_judged": "skipped",
        "test_not_judged": "skipped",
        "test_skips": "skipped",
        "test_subject_dies_in_setup": "failed",
        "test_fixture_asserts": "broken",
        "test_teardown_errs": "broken",
        "test_pytest_fail": "failed",
    }
    passed = results["test_passes"]
    assert passed["description"].startswith(
        "A cold prompt is computed.\n\n**ACC-01** (MUST, profile core): Cold prompt:"
    )
    assert "Judged by: deltas of the counters" in passed["description"]
    assert labels(passed, "epic") == {"KV-cache offload"}
    assert labels(passed, "feature") == {"accounted"}
    assert labels(passed, "story") == {"ACC-01 cold: all computed, whole chunks stored"}
    assert labels(passed, "severity") == {"critical"}
    assert labels(passed, "tag") >= {"MUST", "core"}
    assert labels(passed, "parentSuite") == {"KV-cache offload"}
    assert labels(passed, "suite") == {"accounted"}
    assert [link["name"] for link in passed["links"]] == ["ACC-01: source"]
    failed = results["test_fails_once[2]"]
    assert failed["statusDetails"]["message"].startswith("ACC-02 non-conformant: expected 1 chunk loaded, got 2")
    assert failed["parameters"] == [{"name": "k", "value": "2"}]
    folder = project.path / "reports/allure-results"
    bodies = [(folder / attachment["source"]).read_text() for attachment in failed["attachments"]]
    assert "Authorization: Bearer [redacted]" in bodies
    advisory = results["test_should"]
    assert labels(advisory, "tag") >= {"advisory", "SHOULD"}
    assert labels(advisory, "severity") == {"minor"}
    assert advisory["statusDetails"]["message"].startswith("CFG-07 advisory: expected 20 GiB")
    assert [step["status"] for step in advisory["steps"]] == ["failed"]
    assert "no logs through a bare URL" in results["test_fixture_not_judged"]["statusDetails"]["message"]
    assert results["test_errs"]["statusDetails"]["message"].startswith("ACC-04 not judged, error of the run: ")
    environment = (folder / "environment.properties").read_text()
    assert "versions=vllm 0.32" in environment
    assert "chart=none: local processes" in environment
    assert json.loads((folder / "executor.json").read_text())["type"] == "local"
    assert {"Wrong answer", "Could not be judged"} <= {
        c["name"] for c in json.loads((folder / "categories.json").read_text())
    }


def test_a_case_that_is_not_judged_is_worse_than_one_that_does_not_apply(run: Run, project: pytest.Pytester) -> None:
    source = """
        @pytest.fixture
        def lacking():
            yield
            raise NotApplicable("no router")

        @requirement("API-09")
        def test_it(lacking): raise NotJudged("not alone")
    """
    assert run(source).ret == 0
    assert (entries(project)["API-09"]["verdict"], entries(project)["API-09"]["reason"]) == ("not judged", "not alone")


def test_a_test_of_several_requirements_is_judged_by_each_level(run: Run, project: pytest.Pytester) -> None:
    assert run('@requirement("CFG-07", "ACC-01")\ndef test_it(): assert False, "no"').ret == 1
    assert {id_: entry["verdict"] for id_, entry in entries(project).items()} == {
        "CFG-07": "advisory",
        "ACC-01": "non-conformant",
    }


def test_unjudged_cases_of_a_requirement_are_named(run: Run, project: pytest.Pytester) -> None:
    result = run(
        """
        @requirement("ACC-01")
        @pytest.mark.parametrize("k", [1, 2, 3])
        def test_it(k):
            if k == 3:
                raise NotJudged("needs a GPU")
        """
    )
    assert result.ret == 0
    entry = entries(project)["ACC-01"]
    assert (entry["verdict"], entry["cases"]["judged"], entry["cases"]["total"]) == ("partly judged", 2, 3)
    result.stdout.fnmatch_lines(
        [
            "PARTLY JUDGED  ACC-01: 2 of 3 cases judged; not judged: test_it[[]3[]]: needs a GPU",
            "conformance: 0 conformant, 0 non-conformant, 0 advisory, 1 partly judged, 0 not judged; *",
        ]
    )
    text = (project.path / "reports/conformance.md").read_text()
    assert "## Partly judged, with the reason" in text
    assert entry["cases"]["unjudged"] == [{"case": "suite/test_accounted.py::test_it[3]", "reason": "needs a GPU"}]


def test_a_pass_on_a_rerun_does_not_improve_the_verdict(run: Run, project: pytest.Pytester) -> None:
    project.makeconftest(RERUN + CONFTEST)
    result = run(
        """
        attempts = []

        @requirement("ACC-01")
        def test_it(figures):
            attempts.append(1)
            figures("attempt", len(attempts), "")
            assert len(attempts) > 1, "expected 8 chunks, got 0"
        """
    )
    assert result.ret == 1
    entry = entries(project)["ACC-01"]
    assert entry["verdict"] == "non-conformant"
    assert entry["flaky"]
    assert entry["reason"] == "flaky, passed on a re-run: expected 8 chunks, got 0"
    assert [figure["value"] for figure in entry["figures"]] == [2]
    result.stdout.fnmatch_lines(["exit code 1: a re-run or an expected failure does not make a requirement conformant"])


def test_an_expected_failure_is_still_a_failure(run: Run, project: pytest.Pytester) -> None:
    source = '@pytest.mark.xfail(reason="known")\n@requirement("ACC-01")\ndef test_it(): assert 0, "no"'
    assert run(source).ret == 1
    assert entries(project)["ACC-01"]["verdict"] == "non-conformant"


def test_junit_has_figures_and_verdicts(run: Run, project: pytest.Pytester) -> None:
    run('@requirement("ACC-01")\ndef test_it(figures): figures("ratio", 0.5, "")', "--junitxml=junit.xml")
    assert "kv_offload.figure" in (project.path / "junit.xml").read_text()


def test_a_figure_must_be_a_number(run: Run, project: pytest.Pytester) -> None:
    assert run('@requirement("ACC-01")\ndef test_it(figures): figures("ratio", float("nan"), "")').ret == 1
    assert "ValueError: figure 'ratio' is not finite" in entries(project)["ACC-01"]["reason"]


def test_a_report_that_cannot_be_written_fails_the_run(run: Run, project: pytest.Pytester) -> None:
    test = """
import pathlib, shutil
@requirement("ACC-01")
def test_it():
    shutil.rmtree("blocked", ignore_errors=True)
    pathlib.Path("blocked").write_text("a file")
"""
    result = run(test, "--report-dir", "blocked", "--alluredir", "mine")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["exit code 1: the report could not be written: *"])


def test_what_a_test_does_to_the_subject(run: Run, project: pytest.Pytester) -> None:
    project.makeconftest(
        """
        from fixtures.plugin import REPORTING as pytest_plugins
        from fixtures.plugin.markers import impact_of, needs_of
        def pytest_collection_finish(session):
            for item in session.items:
                print(item.name, impact_of(item), sorted(needs_of(item)))
        """
    )
    result = run(
        """
        @requirement("CFG-01")
        def test_reads(): pass

        @requirement("ACC-01", "MEM-01")
        def test_worst(): pass

        @requirement("API-09")
        @pytest.mark.impact("asks")
        def test_marked(): pass

        def test_unmarked(): pass
        """,
        "-s",
    )
    result.stdout.fnmatch_lines(
        [
            "*test_reads observes [[][]]",
            "*test_worst disrupts [[][]]",
            "*test_marked asks [[]'router'[]]",
            "*test_unmarked observes [[][]]",
        ]
    )
