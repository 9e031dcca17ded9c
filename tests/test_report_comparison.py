"""A report compared with an earlier one."""

from __future__ import annotations

import copy
import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.report import cli, schema
from fixtures.report import report as reporting
from fixtures.report.cases import CaseLog, Phase
from fixtures.report.comparison import compare, lines, moved, numbered
from tests.report_examples import FAILING, report
from tests.verdict_sessions import PASSING, Run, written

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ("pytester", "tests.verdict_sessions")


def changed(name: str, **values: float) -> dict[str, Any]:
    new = report()
    for entry in new["requirements"]:
        for figure in entry["figures"]:
            if figure["name"] == name:
                figure |= values
    return new


@pytest.mark.parametrize(
    ("new", "worse", "better"),
    [
        (report(), [], []),
        (report(**{"ACC-01": "failed"}), ["ACC-01"], []),
        (report(**{"ACC-01": "not judged"}), ["ACC-01"], []),
        (changed("reload / cold", value=0.60, low=0.55, high=0.65), ["LAT-01"], []),
        (changed("reload / cold", value=0.43, low=0.425, high=0.44), [], []),  # beyond the interval, by 8 %
        (changed("reload / cold", value=0.60, low=0.41, high=0.80), [], []),  # far, but not beyond the interval
        (changed("reload / cold", value=0.20, low=0.18, high=0.22), [], ["LAT-01"]),
        (changed("efficiency", value=0.5, low=0.4, high=0.6), ["LAT-01"], []),
        (changed("peak", value=2.3), [], []),
        (changed("peak", value=2.5), ["LAT-01"], []),
        (changed("prompt", value=8193), [], []),
    ],
)
def test_what_got_worse(new: dict[str, Any], worse: list[str], better: list[str]) -> None:
    found = compare(report(), new)
    assert [each["id"] for each in found["worse"]] == worse
    assert [each["id"] for each in found["better"]] == better
    schema.validate(new | {"changes": found})


def test_a_requirement_that_is_no_longer_run_is_worse_unless_it_was_left_out() -> None:
    old, new = report(**{"API-01": "passed"}), report()
    assert [(each["id"], each["new"]) for each in compare(old, new)["worse"]] == [("API-01", "not run")]
    new["run"]["profiles"] = ["core", "latency"]
    assert not compare(old, new)["worse"]
    assert compare(new, old)["new"] == ["API-01"]


def test_another_machine_compares_ratios_only() -> None:
    new = changed("TTFT reload", value=90.0, low=80.0, high=99.0)
    assert compare(report(), new)["worse"]
    new["subjects"][0]["host"] = {"cores": 64}
    found = compare(report(), new)
    assert not found["worse"]
    assert found["figures"] == "ratios only: another machine"
    assert found["subject"] == [{"what": "host.cores", "old": "2", "new": "64"}]
    assert lines(found)[-1].endswith("(figures: ratios only: another machine)")


def test_a_figure_without_a_direction_does_not_move() -> None:
    assert moved({"value": 1.0}, {"value": 9.0}) is None
    assert moved({"value": 0.0}, {"value": 1.0, "better": "lower"}) == "worse"


def test_the_command_exits_with_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    reporting.write(report(), old)
    reporting.write(report(**{"ACC-01": "failed"}), new)
    paths = [str(folder / "conformance.json") for folder in (old, new)]
    assert cli.main(["compare", *paths]) == 1
    assert "WORSE      ACC-01 verdict: conformant -> non-conformant: why" in capsys.readouterr().out
    assert cli.main(["compare", paths[1], paths[0]]) == 0
    assert cli.main(["compare", paths[0], str(tmp_path / "gone")]) == 2
    assert cli.main(["validate", *paths]) == 0
    (new / "conformance.md").unlink()
    assert cli.main(["render", paths[1]]) == 0
    assert (new / "conformance.md").exists()


@pytest.mark.long
def test_a_run_is_compared_with_the_one_before(run: Run, project: pytest.Pytester) -> None:
    assert run(PASSING).ret == 0
    first = written(project)
    assert first["changes"] is None
    result = run('@requirement("API-01")\ndef test_api(): assert 0, "expected 200, got 500"')
    result.stdout.fnmatch_lines(
        [
            "WORSE *API-01 verdict: conformant -> non-conformant: expected 200, got 500",
            "compared with the last run: since *: 1 worse, 0 better, 0 new",
        ]
    )
    assert written(project)["changes"]["since"] == first["run"]["started"]
    assert "**1 worse**" in (project.path / "reports/conformance.md").read_text()
    assert "since_last_run=1 worse" in (project.path / "reports/allure-results/environment.properties").read_text()


def test_a_run_that_judged_nothing_is_not_compared_with(run: Run, project: pytest.Pytester) -> None:
    run(PASSING)
    first = written(project)
    result = run('@requirement("API-01")\ndef test_api(): raise StackError("no engine")')
    result.stdout.fnmatch_lines(
        [f"no requirement was judged: *; the next run is compared with that of {first['run']['started']}"]
    )
    assert written(project)["changes"] is None
    assert (
        "No requirement was judged, so there is nothing to compare."
        in (project.path / "reports/conformance.md").read_text()
    )
    nothing, kept = (str(project.path / "reports" / name) for name in ("conformance.json", "last-judged.json"))
    assert cli.main(["compare", nothing, kept]) == 2
    assert cli.main(["compare", kept, nothing]) == 1
    run('@requirement("API-01")\ndef test_api(): raise StackError("no engine, again")')
    result = run(PASSING, "--compare-with=reports/conformance.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert run(PASSING).ret == 0
    changes = written(project)["changes"]
    assert (changes["since"], changes["worse"], changes["better"]) == (first["run"]["started"], [], [])
    assert not (project.path / "reports/last-judged.json").exists()


def test_a_report_of_the_first_schema_is_still_compared_with(tmp_path: Path) -> None:
    old = report(**{"API-08": "not judged"})
    old["schema_version"] = "1.0"
    del old["run"]["requirements"]
    for subject in old["subjects"]:
        del subject["features"]
    for counts in (old["totals"], *old["links"]):
        del counts["partly judged"], counts["not applicable"]
    for part in (row[name] for row in old["profiles"] for name in ("core", "extended") if row[name] is not None):
        for found in (part, part["statistics"]):
            del found["partly_judged"], found["not_applicable"]
    for row in old["profiles"]:
        row["verdict"] = "not judged"
    for entry in old["requirements"]:
        del entry["needs"], entry["impact"], entry["limits"], entry["cases"]["not_applicable"]
    path = tmp_path / "conformance.json"
    path.write_text(json.dumps(old))
    found = compare(reporting.load(path), report(**{"API-08": "not applicable"}))
    assert [each["id"] for each in found["worse"]] == []
    assert [each["id"] for each in found["better"]] == ["API-08"]
    assert cli.main(["validate", str(path)]) == 0
    assert cli.main(["render", str(path)]) == 1


def test_a_report_of_the_second_schema_is_still_compared_with(tmp_path: Path) -> None:
    old = report(**{"API-08": "not judged"})
    old["schema_version"] = "2.0"
    for entry in old["requirements"]:
        del entry["limits"]
    path = tmp_path / "conformance.json"
    path.write_text(json.dumps(old))
    assert compare(reporting.load(path), report(**{"API-08": "passed"}))["better"]
    assert cli.main(["validate", str(path)]) == 0


def test_choosing_by_id_makes_nothing_worse() -> None:
    old, new = report(**{"API-01": "passed"}), report()
    new["run"]["requirements"] = ["ACC-01", "LAT-01"]
    assert compare(old, new)["worse"] == []


def test_a_report_that_is_named_has_to_be_one(run: Run, project: pytest.Pytester) -> None:
    run(PASSING)
    kept = project.path / "kept.json"
    kept.write_text((project.path / "reports/conformance.json").read_text())
    run(FAILING)
    run(PASSING, "--compare-with=kept.json")
    assert written(project)["changes"]["worse"] == []
    broken = copy.deepcopy(json.loads(kept.read_text()))
    del broken["totals"]
    kept.write_text(json.dumps(broken))
    result = run(PASSING, "--compare-with=kept.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--compare-with: *kept.json is not a report of this version of the suite: *"])


def test_the_schema_is_written_again_and_that_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, str]] = []
    monkeypatch.setattr(cli, "publish", lambda *given: written.append(given))
    assert cli.main(["schema"]) == 0
    assert written == [("schema/conformance-report.schema.json", schema.published())]


VERDICTS = ["conformant", "not applicable", "partly judged", "not judged", "advisory", "non-conformant"]


@pytest.mark.parametrize(("before", "after"), list(itertools.pairwise(VERDICTS)))
def test_each_verdict_is_worse_than_the_one_before_it(before: str, after: str) -> None:
    def of(verdict: str) -> dict[str, Any]:
        new = report()
        new["requirements"][0]["verdict"] = verdict
        return new

    assert len(compare(of(before), of(after))["worse"]) == 1
    assert len(compare(of(after), of(before))["better"]) == 1


def test_figures_of_one_name_are_told_apart_by_their_number() -> None:
    first, second, other = {"name": "b", "value": 1}, {"name": "b", "value": 2}, {"name": "a", "value": 3}
    assert numbered([first, second, other]) == {("b", 0): first, ("b", 1): second, ("a", 0): other}


@pytest.mark.parametrize(
    ("value", "low", "high", "found"),
    [(1.2, 1.1, 1.3, None), (1.2, 1.101, 1.3, "worse"), (0.8, 0.7, 0.9, None), (0.8, 0.7, 0.899, "better")],
)
def test_intervals_that_touch_are_not_apart(value: float, low: float, high: float, found: str | None) -> None:
    old = {"value": 1.0, "low": 0.9, "high": 1.1}
    assert moved(old, {"value": value, "low": low, "high": high, "better": "lower"}) == found


def test_a_fault_that_a_test_sees_of_another_requirement_is_noted_once() -> None:
    log, fault = CaseLog(), Phase("call", "failed", "expected 1, got 2")
    for phase in (fault, fault, Phase("call", "failed", "expected 1, got 3")):
        log.incident("suite/test_a.py::test_a", "ACC-02", phase)
    (case,) = log.cases
    assert (case.ids, case.incident, len(case.phases)) == (("ACC-02",), True, 2)
    assert case.phases[0] == fault
