"""Accepted failures: they do not fail the run, and stay visible."""

from __future__ import annotations

import datetime
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.catalogue.selection import musts
from fixtures.core.errors import ConfigurationError
from fixtures.report import waivers
from tests.report_examples import FAILING
from tests.verdict_sessions import PASSING, Run, all_of, entries, labels, written

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ("pytester", "tests.verdict_sessions")


FUTURE = (datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=30)).isoformat()


TODAY = datetime.datetime.now(datetime.UTC).date().isoformat()


PAST = (datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)).isoformat()


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
    result = run(PASSING, waive(waiver("API-01") + "  cases: [frozen]\n"))
    result.stdout.no_fnmatch_line("*not needed*")  # no case was run that it is about


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


CASES = """
import pytest
@requirement("ACC-02")
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_it(how): assert how != {0!r} and {1!r}, "expected an answer, got none"
"""


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (CASES.format("frozen", True), 0),
        (CASES.format("killed", True), 1),
        (CASES.format("", False), 1),
        (FAILING, 1),
    ],
)
def test_a_waiver_of_cases_covers_no_other_case(
    run: Run, project: pytest.Pytester, waive: Any, source: str, code: int
) -> None:
    result = run(source, waive(waiver() + "  cases: [frozen]\n"))
    assert result.ret == code
    assert (entries(project)["ACC-02"]["waived"] is None) == bool(code)
    if not code:
        result.stdout.fnmatch_lines(["WAIVED *ACC-02 *(frozen waived until *"])


def test_a_case_that_is_not_judged_beside_a_waived_one_closes_the_gate_only(run: Run, waive: Any) -> None:
    """Seen with a router that does not notice an end: the waived failure of another case ended the run with 1."""
    source = (
        all_of("latency", but="LAT-05")
        + """
import pytest
from fixtures.core.errors import NotJudged
@requirement("LAT-05")
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_it(how):
    if how == "killed":
        raise NotJudged("it is not seen to end")
    assert 0, "no"
"""
    )
    waived = waive(waiver("LAT-05") + "  cases: [frozen]\n")
    assert run(source, waived).ret == 0
    result = run(source, "--gate=latency", waived)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "WAIVED *LAT-05 *: no (frozen waived *); not judged: *killed*: it is not seen to end",
            "gate closed (latency)*LAT-05",
        ]
    )


def test_a_waiver_of_cases_says_nothing_of_what_was_not_run(run: Run, waive: Any) -> None:
    source = all_of("latency", but="LAT-05")
    assert run(source, "--gate=latency", waive(waiver("LAT-05") + "  cases: [frozen]\n")).ret == 1


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
        (waiver() + "  cases: frozen\n", "entry 1: cases is 'frozen'; write a list of at most 50 texts, such as"),
        (waiver() + "  cases: [1]\n", "entry 1: cases is 1; write a list"),
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
