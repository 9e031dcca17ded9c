"""The catalogue, how cases fold into verdicts, and the report built from them."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fixtures.catalogue import limits
from fixtures.catalogue.document import DOCUMENT, document
from fixtures.catalogue.features import FEATURES, IMPACTS
from fixtures.catalogue.profiles import AREAS, PROFILES
from fixtures.catalogue.requirements import REQUIREMENTS
from fixtures.catalogue.selection import judged, musts
from fixtures.core.errors import did_you_mean
from fixtures.report import allure_files, gate, report_model, schema
from fixtures.report import report as reporting
from fixtures.report import verdicts as aggregate
from fixtures.report.cases import Case, Figure, Outcome, Phase
from fixtures.report.verdicts import fold

COUNTS = {
    "CFG": 8,
    "ACT": 5,
    "ACC": 9,
    "COR": 8,
    "LAT": 9,
    "THR": 3,
    "MEM": 7,
    "CAP": 3,
    "RES": 9,
    "API": 9,
    "RTR": 7,
    "TIR": 6,
    "REL": 5,
}


def test_every_id_is_there_and_numbered_without_a_gap() -> None:
    expected = [f"{prefix}-{number:02d}" for prefix, count in COUNTS.items() for number in range(1, count + 1)]
    assert list(REQUIREMENTS) == expected, "a new requirement follows the last of its area, and counts in COUNTS"


def test_entries_are_complete() -> None:
    for id_, each in REQUIREMENTS.items():
        assert each.id == id_
        assert each.level in ("MUST", "SHOULD")
        assert each.area in AREAS
        assert each.profiles
        assert set(each.profiles) <= set(PROFILES)
        assert each.needs <= set(FEATURES)
        assert each.impact in IMPACTS
        assert each.text.endswith("."), id_
        assert each.title
        assert len(each.title) <= 52, id_
        assert each.how, id_
        assert each.source == "" or each.source.startswith("https://"), id_


def test_profiles_follow_the_section_except_where_marked() -> None:
    marked = {
        "CFG-04": "chart",
        "CFG-05": "chart",
        "CFG-06": "shared-tier",
        "COR-06": "resilience",
        "API-09": "router",
        "RTR-04": "shared-tier",
        "COR-07": "disk",
        "COR-08": "disk",
    }
    by_section = dict.fromkeys(("CFG", "ACT", "ACC", "COR"), "core") | {
        "LAT": "latency",
        "THR": "throughput",
        "TIR": "disk",
        "MEM": "memory",
        "CAP": "capacity",
        "RES": "resilience",
        "API": "api",
        "RTR": "router",
        "REL": "chart",
    }
    assert {id_: each.profile for id_, each in REQUIREMENTS.items()} == {
        id_: marked.get(id_, by_section[id_[:3]]) for id_ in REQUIREMENTS
    }


def test_the_nearest_name_is_offered() -> None:
    assert did_you_mean("acc-2", REQUIREMENTS) == " (did you mean ACC-02?)"
    assert did_you_mean("zzz", REQUIREMENTS) == ""


def case(id_: str, *outcomes: Outcome, name: str = "a", reason: str = "why") -> Case:
    """A case whose phases had these outcomes; the last of them is the call unless it is a set-up that failed."""
    phases = [Phase("call", outcome, reason if outcome != "passed" else "") for outcome in outcomes]
    return Case(f"suite/test_x.py::test_{name}", (id_,), phases)


@pytest.mark.parametrize(
    ("cases", "verdict"),
    [
        ([case("ACC-01", "passed")], "conformant"),
        ([case("ACC-01", "failed")], "non-conformant"),
        ([case("CFG-07", "failed")], "advisory"),
        ([case("ACC-01", "not judged")], "not judged"),
        ([case("ACC-01", "error")], "not judged"),
        ([case("ACC-01")], "not judged"),
        ([case("ACC-01", "passed"), case("ACC-01", "not judged", name="b")], "partly judged"),
        ([case("CFG-07", "passed"), case("CFG-07", "not judged", name="b")], "partly judged"),
        ([case("ACC-01", "passed"), case("ACC-01", "not applicable", name="b")], "conformant"),
        ([case("ACC-01", "not judged"), case("ACC-01", "not applicable", name="b")], "not judged"),
        ([case("ACC-01", "failed"), case("ACC-01", "not applicable", name="b")], "non-conformant"),
        ([case("ACC-01", "not applicable"), case("ACC-01", "not applicable", name="b")], "not applicable"),
        ([case("ACC-01", "error"), case("ACC-01", "not applicable", name="b")], "not judged"),
        ([case("ACC-01", "passed"), case("ACC-01", "error", name="b")], "not judged"),
        ([case("ACC-01", "error"), case("ACC-01", "failed", name="b")], "non-conformant"),
        ([case("ACC-01", "passed"), case("ACC-01", name="b")], "partly judged"),
        ([case("ACC-01", "failed", "passed")], "non-conformant"),
        ([case("ACC-01", "error", "passed")], "not judged"),
    ],
)
def test_the_verdict_of_several_cases(cases: list[Case], verdict: str) -> None:
    (result,) = fold(cases)
    assert result.verdict == verdict
    assert bool(result.reason) == (verdict != "conformant")


def test_a_partly_judged_requirement_names_the_cases_and_why() -> None:
    cases = [case("ACC-02", "passed"), case("ACC-02", "passed", name="b[n/a]")]
    cases += [case("ACC-02", "not judged", name=name, reason="not alone") for name in ("c[8]", "d[20]")]
    cases += [case("ACC-02", "not judged", name="e", reason="too noisy")]
    (result,) = fold(cases)
    assert result.reason == ("2 of 5 cases judged; not judged: test_c[8], test_d[20]: not alone; test_e: too noisy")


def test_planned_requirements_are_those_without_a_test() -> None:
    tested = {
        str(word.value)
        for path in (DOCUMENT.parents[1] / "suite").glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "requirement"
        for word in node.args
        if isinstance(word, ast.Constant)
    }
    assert {id_ for id_, each in REQUIREMENTS.items() if not each.planned} == tested
    assert not any(each.planned for each in musts(PROFILES))
    assert not any(each.planned for profile in PROFILES for each in judged(profile))


def test_a_gate_is_open_without_what_does_not_apply_and_closed_on_nothing() -> None:
    cases = [case(each.id, "passed", name=each.id) for each in musts(["api"]) if each.id != "API-08"]
    results = fold([*cases, case("API-08", "not applicable", name="key")])
    assert gate.unmet(results, ["api"]) == []
    several: tuple[tuple[Outcome, ...], ...] = (("not judged",), ("passed", "not judged"))
    for outcomes in several:
        partly = [case("API-08", outcome, name=str(number)) for number, outcome in enumerate(outcomes)]
        ((requirement, reason),) = gate.unmet(fold([*cases, *partly]), ["api"])
        assert requirement.id == "API-08"
        assert "why" in reason
    absent = [case(each.id, "not applicable", name=each.id) for each in judged("router")]
    router = fold([*cases, case("API-08", "not applicable"), *absent])
    unmet = gate.unmet(router, ["api", "router"])
    assert [requirement for requirement, _ in unmet] == list(musts(["router"]))
    assert {reason for _, reason in unmet} == {"not applicable, as everything in its profile: why"}


def test_several_bad_cases_are_counted_in_the_reason() -> None:
    (result,) = fold([case("ACC-01", "failed", name=name) for name in "abc"])
    assert result.reason == "why (and 2 more of 3 cases)"


def test_a_profile_is_conformant_only_if_all_of_its_musts_are() -> None:
    cases = [case(each.id, "passed", name=each.id) for each in musts(["latency"])]
    (row,) = aggregate.by_profile(fold(cases), ["latency"])
    assert (row["verdict"], row["core"]["result"], row["extended"]["result"]) == ("conformant", "success", "partial")
    assert row["extended"]["not_run"] == ["LAT-03", "LAT-04", "LAT-06", "LAT-07", "LAT-09"]
    (row,) = aggregate.by_profile(fold(cases[1:]), ["latency"])
    assert (row["verdict"], row["core"]["result"]) == ("partly judged", "partial")
    assert row["core"]["statistics"] == {
        "passed": 3,
        "failed": 0,
        "partly_judged": 0,
        "not_judged": 0,
        "not_applicable": 0,
        "not_run": 1,
    }
    (row,) = aggregate.by_profile(fold([case("LAT-01", "not judged")]), ["latency"])
    assert (row["verdict"], row["core"]["not_judged"]) == ("not judged", ["LAT-01"])
    inapplicable = [case(each.id, "not applicable", name=each.id) for each in musts(["latency"])]
    (row,) = aggregate.by_profile(fold([*cases[:1], *inapplicable[1:]]), ["latency"])
    assert (row["verdict"], row["core"]["result"], row["core"]["not_applicable"]) == (
        "conformant",
        "success",
        ["LAT-02", "LAT-05", "LAT-08"],
    )
    (row,) = aggregate.by_profile(fold(inapplicable), ["latency"])
    assert (row["verdict"], row["core"]["result"]) == ("not applicable", "not applicable")
    assert aggregate.by_profile(fold(inapplicable), []) == [], "a profile of which nothing applies is not shown unasked"
    (row,) = aggregate.by_profile(fold([case("LAT-01", "failed")]), ["latency"])
    assert (row["verdict"], row["core"]["result"], row["core"]["failed"]) == ("non-conformant", "failure", ["LAT-01"])


def report(**changes: Any) -> dict[str, Any]:
    cases = [
        case("ACC-02", "failed", reason="expected 2048 | got 0"),
        case("CFG-07", "failed"),
        case("LAT-01", "passed", name="b"),
        case("ACC-01", "not judged"),
    ]
    cases[2].figures = [Figure("ratio", 0.42, "", n=20, low=0.38, high=0.47)]
    run = reporting.Circumstances(started=0.0, duration_s=1.5, exit_status=1, gate=("core",), seed=7, rerun="pytest x")
    return reporting.build(fold(cases), run, [{"hf_token": "abc", "versions": {"vllm": "0.32"}}]) | changes


def test_the_report_is_valid_ordered_and_redacted() -> None:
    built = report()
    schema.validate(built)
    assert [entry["id"] for entry in built["requirements"]] == ["CFG-07", "ACC-01", "ACC-02", "LAT-01"]
    (subject,) = built["subjects"]
    assert subject["hf_token"] == "[redacted]"
    assert (subject["chart"], subject["gpu"]) == (None, []), "what is not told is shown as such"
    assert built["run"]["started"] == "1970-01-01T00:00:00Z"
    assert built["totals"] == {
        "requirements": 4,
        "conformant": 1,
        "non-conformant": 1,
        "advisory": 1,
        "partly judged": 0,
        "not judged": 1,
        "not applicable": 0,
        "waived": 0,
        "errored": 0,
        "not run": sum(not each.planned for each in REQUIREMENTS.values()) - 4,
    }


def test_an_invalid_report_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"totals\.requirements: Field required"):
        reporting.write(report(totals={}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_schema_refuses_a_verdict_that_its_level_does_not_allow() -> None:
    built = report()
    built["requirements"][0]["verdict"] = "non-conformant"  # a SHOULD
    with pytest.raises(ValueError, match=r"requirements\.0: .*a SHOULD is never non-conformant"):
        schema.validate(built)


def test_the_schema_is_one_and_knows_every_name() -> None:
    found = schema.schema()
    jsonschema.Draft202012Validator.check_schema(found)
    assert schema.SCHEMA_PATH.read_text() == schema.published(), "run: python -m fixtures report schema"
    assert found["$defs"]["profile"]["enum"] == list(PROFILES)
    assert found["$defs"]["feature"]["enum"] == list(FEATURES)
    assert found["$defs"]["impact"]["enum"] == list(IMPACTS)
    for version in schema.OLDER:
        older = json.loads(schema.SCHEMA_PATH.with_name(f"conformance-report-{version}.schema.json").read_text())
        assert older["properties"]["schema_version"]["const"] == version
    assert found["$defs"]["link"]["enum"] == list(AREAS)
    assert found["properties"]["schema_version"]["const"] == report_model.SCHEMA_VERSION


def test_the_files_are_written_and_nothing_else(tmp_path: Path) -> None:
    path = reporting.write(report(), tmp_path / "new")
    assert json.loads(path.read_text()) == report()
    assert sorted(entry.name for entry in path.parent.iterdir()) == [
        "badge-core.svg",
        "badge-latency.svg",
        "conformance.json",
        "conformance.md",
    ]
    text = (path.parent / "conformance.md").read_text()
    assert "| ❌ ACC-02 | MUST | reload: exactly whole chunks from the tier | non-conformant | 1/1 | " in text
    assert r"- **ACC-02 reload: exactly whole chunks from the tier**: expected 2048 \| got 0" in text
    assert "| LAT-01 | ratio | 0.42 | 0.38 to 0.47 | 20 |" in text
    assert "Gate on core: **closed ❌**" in text
    assert "| versions | vllm 0.32 |" in text
    assert "pytest x" in text


def test_a_figure_reads_as_one_line() -> None:
    assert str(Figure("ttft", 0.25, "s", n=20, low=0.2, high=0.3)) == "ttft = 0.25 s [0.2, 0.3] (n=20)"
    assert str(Figure("loaded", 2048, "tokens")) == "loaded = 2048 tokens"


def test_who_ran_it() -> None:
    assert allure_files.executor({})["type"] == "local"
    found = allure_files.executor(
        {
            "GITHUB_ACTIONS": "true",
            "GITHUB_RUN_NUMBER": "12",
            "GITHUB_RUN_ID": "99",
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": "o/r",
        }
    )
    assert found == {
        "name": "GitHub Actions",
        "type": "github",
        "reportName": "GitHub Actions #12",
        "buildOrder": 12,
        "buildName": "#12",
        "buildUrl": "https://github.com/o/r/actions/runs/99",
    }


def test_every_limit_belongs_to_a_requirement_and_is_taken_by_what_judges_it() -> None:
    known = {name: value for name, value in vars(limits).items() if isinstance(value, limits.Limit)}
    named = {limit.name for each in REQUIREMENTS.values() for limit in each.limits}
    assert {limit.name for limit in known.values()} == named
    root = Path(__file__).parents[1]
    sources = [path for folder in ("suite", "fixtures") for path in (root / folder).rglob("*.py")]
    text = "".join(path.read_text() for path in sources if path.name not in {"limits.py", "requirements.py"})
    assert [name for name in known if f"limits.{name}" not in text] == []


def test_a_limit_is_a_number_with_a_unit() -> None:
    assert limits.GPU_TOLERANCE.in_bytes == 3 * 1024**3 // 2
    assert limits.RELOAD_OVER_COLD.text == "reload / cold, upper end: below 0.9"
    assert limits.HOST_GROWTH.text.endswith(": at most 2 MiB/cycle")
    assert f"{limits.RELOAD_OVER_COLD}" == "0.9"


def test_the_document_of_the_requirements_is_current() -> None:
    assert DOCUMENT.read_text() == document(), "run: python -m fixtures requirements"
    assert all(f"\n### {id_}\n" in document() for id_ in REQUIREMENTS)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, ""),
        (
            {"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "o/r", "GITHUB_SHA": "abc"},
            "https://github.com/o/r/blob/abc/docs/requirements.md",
        ),
        (
            {"GITLAB_CI": "true", "CI_PROJECT_URL": "https://gitlab.example/o/r", "CI_COMMIT_SHA": "abc"},
            "https://gitlab.example/o/r/-/blob/abc/docs/requirements.md",
        ),
    ],
)
def test_where_the_text_of_a_requirement_is(environ: dict[str, str], url: str) -> None:
    assert allure_files.requirements_url(environ) == url
