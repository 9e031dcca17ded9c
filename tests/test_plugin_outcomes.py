"""Outcomes, options, exit codes, report and summary, each in a pytest session of its own."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from fixtures.catalogue.requirements import REQUIREMENTS
from fixtures.catalogue.selection import musts
from fixtures.plugin import judgement, judgement_options
from tests.verdict_sessions import (
    ADVISORY,
    CONFTEST,
    HEAD,
    MIXED,
    PASSING,
    RERUN,
    UNJUDGED,
    Run,
    all_of,
    allure_results,
    entries,
    labels,
    written,
)

pytest_plugins = ("pytester", "tests.verdict_sessions")

JUDGED = [each for each in REQUIREMENTS.values() if not each.planned]
"""The requirements that a test of the suite judges."""
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
            "link * conformant * non-conformant * advisory * not judged",
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

    assert not (stale / "old-result.json").exists()
    assert (stale / "mine.txt").exists()
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
            "link * conformant * not judged * not applicable",
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


MANY = """
@requirement("COR-04")
def test_mixed(): pass

@requirement("COR-01", "REL-01")
def test_both(): pass

@requirement("API-01")
def test_api(): pass

def test_unmarked(): pass
"""


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        (("--requirement=COR-04",), 1),
        (("--requirement", "cor-04,REL-01"), 2),
        (("--requirement=COR-04", "--requirement=REL-01"), 2),
        (("--requirement=COR-04,API-01", "--profile=core,api"), 2),
        (("-o", "requirement=API-01"), 1),
        (("-k", "COR-04"), 1),
        (("-k", "REL-01 or API-01"), 2),
        (("-k", "not COR-01"), 3),
        (("-k", "COR"), 2),
    ],
)
def test_requirements_are_chosen_by_id(run: Run, arguments: tuple[str, ...], passed: int) -> None:
    result = run(MANY, *arguments)
    result.assert_outcomes(passed=passed, deselected=4 - passed)


def test_many_failures_are_run_again_by_their_requirements(run: Run, project: pytest.Pytester) -> None:
    run('@requirement("ACC-02")\n@pytest.mark.parametrize("k", range(9))\ndef test_it(k): assert 0, "no"')
    assert written(project)["reproduce"]["failing"] == "pytest --requirement=ACC-02"


def test_nothing_that_explains_a_failure_is_cut(run: Run, project: pytest.Pytester) -> None:
    words = " ".join(f"word{number}" for number in range(400))
    result = run(
        f"""
        @requirement("ACC-02")
        def test_fails(): assert 0, "{words}\\nsecond line {words} the end"

        @requirement("API-01")
        def test_errs(): raise StackError("{words} bundle: /a/path")
        """
    )
    found = entries(project)
    assert found["ACC-02"]["reason"] == words
    assert "the end" in found["ACC-02"]["detail"]
    assert found["API-01"]["reason"].endswith("bundle: /a/path")
    output = result.stdout.str()
    assert f"reload: exactly whole chunks from the tier: {words}\n" in output
    assert f"error: StackError: {words} bundle: /a/path\n" in output
    text = (project.path / "reports/conformance.md").read_text()
    assert "second line" in text
    assert "bundle: /a/path" in text
    message = allure_results(project)["test_fails"]["statusDetails"]["message"]
    assert "the end" in message


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


def test_profiles_deselect_the_others(run: Run, project: pytest.Pytester) -> None:
    result = run(PASSING + UNJUDGED + ADVISORY, "--profile", "api,latency", "--profile=router")
    result.assert_outcomes(passed=1, deselected=2)
    report = written(project)
    assert [entry["id"] for entry in report["requirements"]] == ["API-01"]
    assert report["run"]["profiles"] == ["api", "latency", "router"]
    assert report["not_run"]["core"] == sum(each.profile == "core" for each in JUDGED)
    assert report["not_run"]["api"] == sum(each.profile == "api" for each in JUDGED) - 1
    planned = len(REQUIREMENTS) - len(JUDGED)
    assert sum(report["not_run"].values()) == len(REQUIREMENTS) - 1 - planned, (
        "what is planned is not run by nobody's choice"
    )
    assert [row["profile"] for row in report["profiles"]] == ["api", "latency", "router"]


@pytest.mark.parametrize(
    ("args", "ran"),
    [
        ((), 2),
        (("--profiles=all",), 3),
        (("--profiles=api",), 1),
        (("-k", "asked or api"), 2),
        (("suite/test_accounted.py",), 3),
    ],
)
def test_some_profiles_are_judged_on_request_only(
    run: Run, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], ran: int
) -> None:
    monkeypatch.setattr(judgement, "ON_REQUEST", {"latency"})
    source = """
    @requirement("API-01")
    def test_api(): pass
    @requirement("LAT-05")
    def test_asked(): pass
    def test_that_judges_nothing(): pass
    """
    run(source, *args).assert_outcomes(passed=ran, deselected=3 - ran)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--profile", "cor"), "*--profiles: unknown profile 'cor' (did you mean core?); profiles: core, api, *"),
        (("--gate", "suit/"), "*--gate: unknown profile 'suit/'*"),
        (("--requirement=COR-44",), "*--requirement: unknown requirement 'COR-44' (did you mean COR-04?); *"),
        (("--requirement=",), "*--requirement is empty; give at least one name, or omit the option"),
        (("--profiles= ,",), "*--profiles is empty; give at least one name, or omit the option"),
        (("--soak=1d",), "*--soak: '1d' is not a duration such as 90s, 15m or 1h*"),
        (
            ("--requirement=API-01", "--profile=core"),
            "*API-01 belongs to profile api, which --profiles core does not include*",
        ),
        (("--gate=core", "--profile=api"), "*core is deselected by --profiles api*"),
    ],
)
def test_wrong_options_are_usage_errors(run: Run, args: tuple[str, ...], message: str) -> None:
    result = run(PASSING, *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_a_planned_requirement_cannot_be_chosen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = dataclasses.replace(REQUIREMENTS["RES-09"], planned=True)
    monkeypatch.setattr(judgement_options, "REQUIREMENTS", {**REQUIREMENTS, "RES-09": planned})
    result = run(PASSING, "--requirement=RES-09")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--requirement: RES-09 is planned: no test checks it yet*"])


@pytest.mark.parametrize("option", ["--gate", "--profiles"])
def test_a_profile_of_which_everything_is_planned_is_a_usage_error(
    run: Run, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judgement_options, "judged", lambda _: ())
    result = run(PASSING, f"{option}=remote")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{option}: no requirement of profile remote is judged yet*"])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_unknown_ids_end_the_collection(run: Run, project: pytest.Pytester, workers: int) -> None:
    source = "@requirement('ACC-99')\ndef test_it(): pass\n"
    result = run(source, *(["-n2"] if workers else []), apart=bool(workers))
    assert result.ret != 0
    text = result.stdout.str() + result.stderr.str()
    assert "suite/test_accounted.py::test_it: unknown requirement 'ACC-99' (did you mean ACC-0" in text
    if not workers:
        assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert not (project.path / "reports/conformance.json").exists()


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan", "--markers", "--help", "--fixtures"])
def test_listing_writes_nothing(run: Run, project: pytest.Pytester, option: str) -> None:
    result = run(PASSING, option)
    assert result.ret == 0
    assert not (project.path / "reports").exists()


def test_tests_outside_the_suite_write_nothing(run: Run, project: pytest.Pytester) -> None:
    project.mkdir("tests").joinpath("test_own.py").write_text(HEAD + PASSING)
    assert run(PASSING, "tests").ret == 0
    assert not (project.path / "reports").exists()
    assert run(PASSING, "suite/test_accounted.py::test_api").ret == 0
    assert (project.path / "reports/conformance.json").exists()


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


def test_quiet_shows_failures_and_counts_only(run: Run) -> None:
    result = run(ADVISORY + UNJUDGED + '@requirement("ACC-02")\ndef test_no(): assert 0, "expected 2, got 0"', "-q")
    text = result.stdout.str()
    assert "NON-CONFORMANT ACC-02" in text
    assert "conformance: 0 conformant, 1 non-conformant, 1 advisory, 1 not judged" in text
    assert "ADVISORY " not in text
    assert "NOT JUDGED " not in text
    assert "report:" not in text


def test_verbose_names_each_outcome(run: Run) -> None:
    result = run(MIXED, "-v")
    result.stdout.fnmatch_lines(
        [
            "*::test_should ADVISORY *",
            "*::test_fixture_errs ERROR *",
            "*::test_errs ERROR *",
            "*::test_not_judged NOT JUDGED (not judged: no *",
            "*::test_subject_dies_in_setup FAILED *",
        ]
    )


def test_a_run_that_judged_nothing_says_so(run: Run) -> None:
    run(UNJUDGED).stdout.fnmatch_lines(["no requirement was judged: this run proves nothing"])


def test_the_rerun_command_and_the_seed_of_other_plugins(run: Run, project: pytest.Pytester) -> None:
    project.makeconftest(
        """
        from fixtures.plugin import REPORTING as pytest_plugins
        from fixtures.plugin.judgement import RERUN_ARGS_KEY
        def pytest_configure(config):
            config.stash.setdefault(RERUN_ARGS_KEY, []).extend(["--seed=123"])
        """
    )
    result = run('@requirement("ACC-02")\ndef test_no(): assert 0, "no"')
    result.stdout.fnmatch_lines(["run again: pytest --seed=123 suite/test_accounted.py::test_no"])
    assert written(project)["run"]["seed"] == 123


def test_captured_output_and_tracebacks_are_redacted_for_allure(run: Run, project: pytest.Pytester) -> None:
    run(
        """
        @pytest.fixture
        def noisy():
            raise StackError("vllm serve --api-key topsecretvalue")

        @requirement("ACC-01")
        def test_prints(evidence):
            print("HF_TOKEN=hf_abcdefghijklm")
            evidence("values", {"hf_token": "letmein", "ok": 1}, kind="json")
            assert 0, "got Bearer abcdefghijk"

        @requirement("ACC-02")
        def test_errs(noisy): pass
        """
    )
    secrets = ("topsecretvalue", "hf_abcdefghijklm", "letmein", "abcdefghijk")
    texts = {path.name: path.read_text() for path in (project.path / "reports").rglob("*") if path.is_file()}
    assert [(secret, name) for secret in secrets for name, text in texts.items() if secret in text] == []
    assert "[redacted]" in "".join(texts.values())


def test_long_evidence_is_trimmed_in_the_report_only(run: Run, project: pytest.Pytester) -> None:
    run(
        """
        @requirement("ACC-01")
        def test_it(evidence):
            evidence("log", "first" + "x" * 9000 + "last", kind="log")
            assert 0, "no"
        """
    )
    text = entries(project)["ACC-01"]["evidence"][0]["text"]
    assert len(text.encode()) <= 2048
    assert text.startswith("first")
    assert text.endswith("last")
    assert any(path.stat().st_size > 9000 for path in project.path.glob("reports/allure-results/*attachment*"))


def test_junit_has_figures_and_verdicts(run: Run, project: pytest.Pytester) -> None:
    run('@requirement("ACC-01")\ndef test_it(figures): figures("ratio", 0.5, "")', "--junitxml=junit.xml")
    assert "kv_offload.figure" in (project.path / "junit.xml").read_text()


def test_a_figure_must_be_a_number(run: Run, project: pytest.Pytester) -> None:
    assert run('@requirement("ACC-01")\ndef test_it(figures): figures("ratio", float("nan"), "")').ret == 1
    assert "ValueError: figure 'ratio' is not finite" in entries(project)["ACC-01"]["reason"]


def test_a_report_that_cannot_be_written_fails_the_run(run: Run, project: pytest.Pytester) -> None:
    (project.path / "blocked").write_text("a file")
    result = run(PASSING, "--report-dir", "blocked", "--alluredir", "mine")
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
