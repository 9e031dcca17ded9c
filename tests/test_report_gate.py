"""What a release is gated on: waivers, the default gate, and the comparison with the last run."""

from __future__ import annotations

import copy
import datetime
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.catalogue.selection import musts
from fixtures.core.errors import ConfigurationError
from fixtures.report import cli, schema, waivers
from fixtures.report import report as reporting
from fixtures.report.cases import Case, Figure, Phase
from fixtures.report.comparison import compare, lines, moved
from fixtures.report.verdicts import fold
from tests.verdict_sessions import CONFTEST, PASSING, RERUN, Run, all_of, entries, labels, written

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ("pytester", "tests.verdict_sessions")

FUTURE = (datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=30)).isoformat()
TODAY = datetime.datetime.now(datetime.UTC).date().isoformat()
PAST = (datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)).isoformat()
FAILING = '@requirement("ACC-02")\ndef test_it(): assert 0, "expected 2048, got 0"\n'


def waiver(id_: str = "ACC-02", expires: str = FUTURE) -> str:
    return f"- requirement: {id_}\n  reason: known, fixed in the next LMCache\n  owner: kv-team\n  expires: {expires}\n"


@pytest.fixture
def waive(project: pytest.Pytester) -> Any:
    def write(text: str) -> str:
        (project.path / "waivers.yaml").write_text(text)
        return "--waivers=waivers.yaml"

    return write


@pytest.mark.parametrize("expires", [FUTURE, TODAY])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_a_waived_failure_is_seen_and_does_not_fail(
    run: Run,
    project: pytest.Pytester,
    waive: Any,
    expires: str,
    workers: int,
) -> None:
    arguments = [waive(waiver(expires=expires)), *(["-n", str(workers)] if workers else [])]
    result = run(FAILING + PASSING, *arguments, apart=bool(workers))
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            f"WAIVED *ACC-02 *: expected 2048, got 0 (waived until {expires} by kv-team: known, fixed in the next *",
            "conformance: 1 conformant, 1 non-conformant, 0 advisory, 0 not judged; 1 waived; *",
            "*1 passed, 1 waived in*",
        ]
    )
    entry = entries(project)["ACC-02"]
    assert entry["verdict"] == "non-conformant", "a waiver is never a pass"
    assert entry["waived"] == {"reason": "known, fixed in the next LMCache", "owner": "kv-team", "expires": expires}
    report = written(project)
    assert report["waivers"][0]["state"] == "used"
    core = next(row for row in report["profiles"] if row["profile"] == "core")
    assert (core["verdict"], core["core"]["waived"]) == ("non-conformant", ["ACC-02"])
    assert f"  - waived until {expires} by kv-team" in (project.path / "reports/conformance.md").read_text()
    assert f">1 of {len(musts(['core']))} waived<" in (project.path / "reports/badge-core.svg").read_text()
    results = [json.loads(p.read_text()) for p in project.path.glob("reports/allure-results/*-result.json")]
    waived = next(found for found in results if found["name"] == "It")
    assert waived["status"] == "failed"
    assert "waived" in labels(waived, "tag")
    assert waived["statusDetails"]["message"].startswith("ACC-02 waived, non-conformant: expected 2048")


def test_an_expired_waiver_fails(run: Run, project: pytest.Pytester, waive: Any) -> None:
    result = run(FAILING, waive(waiver(expires=PAST)))
    assert result.ret == 1
    result.stdout.fnmatch_lines(["NON-CONFORMANT ACC-02 *", f"waiver of ACC-02: expired on {PAST} (kv-team)"])
    assert entries(project)["ACC-02"]["waived"] is None
    assert written(project)["waivers"][0]["state"] == "expired"


def test_a_waiver_that_is_not_needed_is_named(run: Run, waive: Any) -> None:
    result = run(PASSING, waive(waiver("API-01")))
    assert result.ret == 0
    result.stdout.fnmatch_lines(["waiver of API-01: not needed, it is conformant; remove it"])


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (FAILING + '@requirement("ACC-03")\ndef test_b(): assert 0, "no"\n', 1),
        (FAILING + "def test_unmarked(): assert 0\n", 1),
        ('@requirement("ACC-02", "ACC-03")\ndef test_both(): assert 0, "no"\n', 1),
        ('@requirement("ACC-02")\ndef test_errs(): raise RuntimeError("no GPU")\n', 1),
        ('@requirement("ACC-02", "CFG-07")\ndef test_with_a_should(): assert 0, "no"\n', 0),
    ],
)
def test_a_waiver_covers_its_own_requirement_only(run: Run, waive: Any, source: str, code: int) -> None:
    assert run(source, waive(waiver())).ret == code


def test_a_waiver_opens_the_gate_and_the_gate_says_so(run: Run, project: pytest.Pytester, waive: Any) -> None:
    source = all_of("latency", but="LAT-05")
    for rest in ('\n@requirement("LAT-05")\ndef test_last(): assert 0, "no"', ""):
        result = run(source + rest, "--gate=latency", waive(waiver("LAT-05")))
        assert result.ret == 0
        result.stdout.fnmatch_lines(["gate open (latency): every MUST is conformant, but LAT-05 waived"])
        assert written(project)["gate"]["open"]
    assert run(source, "--gate=latency", waive(waiver("LAT-05", PAST))).ret == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("requirement: ACC-02", "must be a list"),
        ("- ACC-02", "entry 1 is not a mapping"),
        (waiver().replace("owner", "ower"), r"unknown key 'ower' \(did you mean owner?\); keys: "),
        (waiver().replace("  owner: kv-team\n", ""), "entry 1: owner is missing; write, for example"),
        (waiver().replace("kv-team", "''"), "owner is missing"),
        (waiver("ACC-99"), r"unknown requirement 'ACC-99' \(did you mean ACC-0"),
        (waiver("CFG-07"), "CFG-07 is a SHOULD and fails nothing"),
        (waiver(expires="soon"), "expires is 'soon', not a date; write YYYY-MM-DD"),
        (waiver(expires="2027-02-30"), "write"),
        (waiver(expires="2027-01-01T00:00:00"), "expires is 2027-01-01 00:00:00, not a date"),
        (waiver() + waiver(), "entry 2: ACC-02 is waived twice"),
        ("- [", "is not YAML"),
        (waiver().replace("known,", "x" * 500), "entry 1: reason has 526 characters; write at most 500"),
        (waiver().replace("kv-team", "x" * 501), "entry 1: owner has 501 characters; write at most 500"),
        (waiver().replace("kv-team", "[a, b]"), r"entry 1: owner is ['a', 'b'], not a text; write it in quotes"),
        (waiver().replace("kv-team", "5"), "entry 1: owner is 5, not a text; write it in quotes"),
        (waiver("[ACC-02]"), r"requirement is ['ACC-02'], not a text"),
        (waiver(expires="[1]"), r"expires is [1], not a date"),
        (waiver(expires="!!timestamp soon"), "write, for example"),
        (waiver(expires="!!bool soon"), "write, for example"),
        ("- &a x\n- *a", r"contains the alias \*a, and aliases are not supported here; keep one"),
        ("- " * 5000, "is nested more than 10 levels deep"),
        ("[" * 5000, "is nested more than 10 levels deep"),
        ("- x\n" * 60_000, "contains more than 5000 values; keep one short entry"),
        ("- x\n" * 100_000, "is larger than 256 KiB; keep one short entry per known failure"),
    ],
)
def test_an_unclear_waiver_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "waivers.yaml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(ConfigurationError, match=message.replace("[", r"\[").replace("?", r"\?")) as refused:
        waivers.load(path)
    assert time.process_time() - began < 2.0
    assert len(str(refused.value)) < 1000


def test_waivers_from_the_ini_and_missing_ones(run: Run, waive: Any) -> None:
    waive(waiver())
    assert run(FAILING, "-o", "waivers=waivers.yaml").ret == 0
    result = run(FAILING, "--waivers", "gone.yaml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*waivers: *gone.yaml cannot be read*"])


DEFAULTS = """
# What fixtures.plugin.session does with the configurations of a run; test_report_configs.py does it for each that ships.
from fixtures.plugin import REPORTING as pytest_plugins
from fixtures.plugin.judgement import CLAIMED_PROFILES_KEY
def pytest_configure(config):
    config.stash[CLAIMED_PROFILES_KEY] = ("latency",)
"""


@pytest.mark.parametrize(
    "arguments", [("--gate",), ("--gate", "suite/"), ("--gate", "suite/test_accounted.py::test_0")]
)
def test_a_bare_gate_is_about_what_the_configuration_claims(
    run: Run,
    project: pytest.Pytester,
    arguments: tuple[str, ...],
) -> None:
    project.makeconftest(DEFAULTS)
    result = run(all_of("latency"), *arguments)
    whole = "::" not in arguments[-1]
    assert result.ret == (0 if whole else 1)
    report = written(project)
    assert report["gate"]["profiles"] == ["latency"]
    assert report["totals"]["requirements"] == (len(musts(["latency"])) if whole else 1), (
        "the path after --gate is a path"
    )


def test_a_gate_that_swallows_a_path_keeps_the_other_one(run: Run, project: pytest.Pytester) -> None:
    (project.path / "suite/test_other.py").write_text("def test_other(): pass\n")
    result = run(all_of("latency"), "suite/test_other.py", "--gate", "suite/test_accounted.py")
    result.assert_outcomes(passed=1 + len(musts(["latency"])))


def test_allure_keeps_the_first_attempt(run: Run, project: pytest.Pytester) -> None:
    project.makeconftest(RERUN + CONFTEST)
    run(
        """
        attempts = []

        @requirement("ACC-01")
        def test_it():
            attempts.append(1)
            assert len(attempts) > 1, "expected 8 chunks, got 0"
        """
    )
    found = [json.loads(path.read_text()) for path in project.path.glob("reports/allure-results/*-result.json")]
    assert {result["status"] for result in found} == {"failed"}
    last = max(found, key=lambda result: result["start"])
    assert last["statusDetails"]["flaky"]
    assert "flaky, passed on a re-run: expected 8 chunks" in last["statusDetails"]["message"]


# --- comparing ------------------------------------------------------------------------------------------------------


def report(**outcomes: Any) -> dict[str, Any]:
    cases = []
    for id_, outcome in {"ACC-01": "passed", "LAT-01": "passed", **outcomes}.items():
        cases.append(Case(f"t::{id_}", (id_.replace("_", "-"),), [Phase("call", outcome, "why")]))
    cases[1].figures = [
        Figure("reload / cold", 0.40, "", 12, 0.38, 0.42, "lower"),
        Figure("TTFT reload", 20.0, "ms", 12, 19.0, 21.0, "lower"),
        Figure("efficiency", 0.9, "", 12, 0.88, 0.92, "higher"),
        Figure("peak", 2.0, "GiB", better="lower"),
        Figure("prompt", 4097, "tokens"),
    ]
    run = reporting.Run(started=0.0, duration_s=1.0, exit_status=0)
    facts = {"config": "embedded", "stack": "process", "host": {"cores": 2}, "versions": {"vllm": "0.31"}}
    return reporting.build(fold(cases), run, [facts])


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
    earlier = project.path / "reports/baseline.json"  # as earlier versions called it
    (project.path / "reports/last-judged.json").rename(earlier)
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
