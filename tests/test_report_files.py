"""Everything that is written is what its reader expects: schemas, sizes, times, pictures, and Allure itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import jsonschema
import pytest

from fixtures.catalogue.requirements import REQUIREMENTS
from fixtures.catalogue.selection import musts
from fixtures.report import badge, plots
from fixtures.report import report as reporting
from fixtures.report import verdicts as aggregate
from fixtures.report.cases import Case, Figure, Phase
from fixtures.report.verdicts import fold
from tests.pictures import texts, within
from tests.verdict_sessions import MIXED, Run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ("pytester", "tests.verdict_sessions")

DATA = Path(__file__).parent / "data" / "verdict"

WITH_PICTURES = """
from fixtures.report import plots

@requirement("LAT-01")
def test_picture(evidence, figures):
    evidence("token sources", plots.token_sources([plots.Sources("cold", 10, 0, 0)]), kind="svg")
    figures("TTFT", 12.5, "ms", n=6, low=11.0, high=13.0, better="lower")
"""


def valid(instance: Any, name: str) -> None:
    schema = json.loads((DATA / "allure.schema.json").read_text())
    jsonschema.Draft202012Validator(
        {"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]}, format_checker=jsonschema.FormatChecker()
    ).validate(instance)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_every_file_is_valid(run: Run, project: pytest.Pytester, workers: int) -> None:
    arguments = ["--junitxml=junit.xml", "--gate=core", *(["-n", str(workers)] if workers else [])]
    assert run(MIXED + WITH_PICTURES, *arguments, apart=bool(workers)).ret == 1
    reports = project.path / "reports"
    results = reports / "allure-results"
    reporting.load(reports / "conformance.json")
    valid(json.loads((reports / "allurerc.json").read_text()), "config")
    kinds = {"-result.json": "result", "-container.json": "container"}
    attached: set[str] = set()
    seen = dict.fromkeys(["result", "container", "categories", "executor", "svg"], 0)
    for path in sorted(results.iterdir()):
        for suffix, kind in kinds.items():
            if path.name.endswith(suffix):
                found = json.loads(path.read_text())
                valid(found, kind)
                seen[kind] += 1
                attached |= {attachment["source"] for attachment in attachments(found)}
        if path.name in ("categories.json", "executor.json"):
            valid(json.loads(path.read_text()), path.stem)
            seen[path.stem] += 1
        if path.suffix == ".svg":
            ElementTree.parse(path)
            seen["svg"] += 1
    assert all(seen.values()), seen
    assert all((results / name).is_file() for name in attached)
    for path in reports.glob("badge-*.svg"):
        ElementTree.parse(path)
    lines = (results / "environment.properties").read_text().splitlines()
    assert all("=" in line and not set(line.partition("=")[0]) & set(" :") for line in lines)
    xmlschema = pytest.importorskip("xmlschema")
    xmlschema.XMLSchema(DATA / "junit.xsd").validate(project.path / "junit.xml")


def test_the_report_names_the_commit_that_judged(
    run: Run, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = reporting.suite_identity
    monkeypatch.setenv("HEAD_NOW", "1" * 40)
    monkeypatch.setattr(reporting, "suite_identity", lambda: {**before(), "commit": os.environ["HEAD_NOW"]})
    run('import os\n\n@requirement("ACC-01")\ndef test_request():\n    os.environ["HEAD_NOW"] = "2" * 40\n')
    assert reporting.load(project.path / "reports" / "conformance.json")["suite"]["commit"] == "1" * 40


def attachments(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from found.get("attachments", [])
    for part in ("steps", "befores", "afters"):
        for step in found.get(part, []):
            yield from attachments(step)


def test_metadata_survives_clean_alluredir(run: Run, project: pytest.Pytester) -> None:
    for _ in range(2):
        run(MIXED, "--alluredir", "mine", "--clean-alluredir")
        names = {path.name for path in (project.path / "mine").iterdir()}
        assert {"environment.properties", "categories.json", "executor.json"} <= names
        assert sum(name.endswith("-result.json") for name in names) == 13
    config = json.loads((project.path / "reports/allurerc.json").read_text())
    assert (project.path / "reports" / config["resultsDir"]).resolve() == (project.path / "mine").resolve()


def test_allure_reads_it(run: Run, project: pytest.Pytester) -> None:
    """Two runs, two reports by the Allure that npm ships: statuses, categories, pictures and history arrive."""
    allure = shutil.which("allure") or os.environ.get("KV_OFFLOAD_ALLURE", "")
    if not allure:
        pytest.skip("no allure on PATH (npm install -g allure@3.18.0)")
    for _ in range(2):
        run(MIXED + WITH_PICTURES)
        subprocess.run([allure, "generate"], cwd=project.path / "reports", check=True, capture_output=True, timeout=120)
    report = project.path / "reports/allure-report"
    assert not (report / "awesome").exists(), "the HTML of the first run is gone before that of the second is made"
    found = [path for path in report.rglob("*") if path.is_file()]
    assert any(path.suffix == ".svg" for path in found)
    assert any(path.suffix == ".md" for path in found), "conformance.md is on the first page"
    categories = next(path.read_text() for path in found if path.name == "categories.json")
    for name in ("Offload inactive", "Wrong answer", "Could not be judged", "Error of the run", "Advisory"):
        assert name in categories
    history = (project.path / "reports/allure-history.jsonl").read_text().splitlines()
    assert len(history) == 2
    assert {json.loads(line)["name"] for line in history} == {"KV-cache offload: embedded"}


def large() -> dict[str, Any]:
    """A report of 200 exchanges: every one a case with figures, half of them failing with evidence."""
    ids = list(REQUIREMENTS)
    cases = []
    for number in range(200):
        failed = number % 2
        evidence = ({"name": "log", "kind": "log", "text": "x" * 2048},) * (3 if failed else 0)
        phase = Phase("call", "failed" if failed else "passed", "r" * 300 if failed else "", "d" * 2000, evidence)
        case = Case(f"suite/test_x.py::test_{number}", (ids[number % len(ids)],), [phase], duration_s=1.0)
        case.figures = [Figure(f"TTFT {n}", 0.5 * n + 1, "ms", 20, 0.4, 0.9, "lower") for n in range(8)]
        cases.append(case)
    run = reporting.Circumstances(started=0.0, duration_s=60.0, exit_status=1)
    return reporting.build(fold(cases), run, [{"config": "embedded", "stack": "process"}])


def test_a_large_report_is_quick_and_small(tmp_path: Path) -> None:
    begin = time.process_time()
    reporting.write(large(), tmp_path)
    for _ in range(200):
        plots.token_sources([plots.Sources("TTFT 12 ms", 1, 0, 2048)] * 2)
    took = time.process_time() - begin
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert took < 2, f"expected less than 2 s of processor time, got {took:.2f} s"
    assert size < 5e6, f"expected less than 5 MB, got {size / 1e6:.2f} MB"


LATENCY = musts(["latency"])


@pytest.mark.parametrize(
    ("outcome", "message", "colour"),
    [
        ("passed", "conformant", "#1a7f37"),
        ("failed", f"1 of {len(LATENCY)} failed", "#b42318"),
        ("not judged", f"{len(LATENCY) - 1} of {len(LATENCY)} judged", "#57606a"),
    ],
    ids=["passed", "failed", "not-judged"],
)
def test_a_badge_says_what_its_colour_says(outcome: Any, message: str, colour: str) -> None:
    """All are met but the last."""
    cases = [Case(each.id, (each.id,), [Phase("call", "passed", "why")]) for each in LATENCY[:-1]]
    cases.append(Case("last", (LATENCY[-1].id,), [Phase("call", outcome, "why")]))
    (row,) = aggregate.by_profile(fold(cases), ["latency"])
    assert badge.text(row) == (message, colour)
    told = (message, colour) if outcome == "failed" else ("interrupted", "#57606a")
    assert badge.text(row, interrupted=True) == told, "what failed has failed"
    svg = badge.svg("KV offload <latency>", *badge.text(row))
    within(svg)
    assert texts(svg) == ["KV offload <latency>", message]
