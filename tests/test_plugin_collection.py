"""Which tests are selected, by profile and by id, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest

from fixtures.catalogue.requirements import REQUIREMENTS
from fixtures.plugin import judgement, judgement_options
from tests.verdict_sessions import ADVISORY, HEAD, JUDGED, PASSING, UNJUDGED, Run, written

pytest_plugins = ("pytester", "tests.verdict_sessions")


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
        "what is planned is not left out by a choice"
    )
    assert [row["profile"] for row in report["profiles"]] == ["api", "latency", "router"]


@pytest.mark.parametrize(
    ("args", "ran"),
    [
        ((), 2),
        (("--profiles=all",), 3),
        (("--profiles=api",), 1),
        (("-k", "asked or api"), 2),
        (("--profiles=api", "-k", "asked or api"), 1),
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


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["here", "in-a-worker"])
@pytest.mark.parametrize("selection", [("-k", "not hard"), ("-m", "not slow")], ids=["keyword", "marker"])
def test_a_requirement_of_which_the_user_leaves_out_a_case_is_partly_judged(
    run: Run, project: pytest.Pytester, selection: tuple[str, str], workers: tuple[str, ...]
) -> None:
    source = PASSING + '@requirement("API-01", "API-02")\n@pytest.mark.slow\ndef test_hard(): assert False\n'
    result = run(source, *selection, *workers, "--gate=api", apart=bool(workers))
    (entry,) = written(project)["requirements"]
    assert (entry["id"], entry["verdict"]) == ("API-01", "partly judged")
    assert entry["reason"].startswith("1 of 2 cases judged; not judged: ")
    assert entry["reason"].endswith(": left out by -k or -m")
    assert result.ret == 1, "the gate is closed"
