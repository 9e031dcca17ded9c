"""Configurations of one run are compared: verdicts, figures, pictures, and differences only where intervals are apart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from fixtures.report import allure_files
from fixtures.report import report as reporting
from fixtures.report import side_by_side as sides
from fixtures.report.cases import Case, Figure, Phase
from fixtures.report.page import markdown
from fixtures.report.schema import validate
from fixtures.report.verdicts import fold

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.report.cases import Outcome

CONFIGS = ("disk", "disk-small")


def case(id_: str, config: str, outcome: Outcome, *figures: Figure) -> Case:
    phase = Phase("call", outcome, "" if outcome == "passed" else "expected 1, got 2")
    return Case(f"suite/test_a.py::test_{id_}[{config}]", (id_,), [phase], list(figures))


def ttft(value: float, low: float, high: float, name: str = "TTFT cold") -> Figure:
    return Figure(name, value, "ms", 8, low, high, "lower")


def prompt(tokens: int) -> Figure:
    return Figure("prompt", tokens, "tokens")


def compared(*cases: Case) -> dict[str, Any]:
    return sides.side_by_side(fold(cases), CONFIGS)


@pytest.mark.parametrize(
    ("nodeid", "config"),
    [
        ("suite/test_a.py::test_b[disk]", "disk"),
        ("suite/test_a.py::test_b[disk-8]", "disk"),
        ("suite/test_a.py::test_b[disk-small-8]", "disk-small"),
        ("suite/test_a.py::test_b[diskette]", None),
        ("suite/test_a.py::test_b", None),
    ],
)
def test_the_configuration_of_a_case(nodeid: str, config: str | None) -> None:
    assert sides.config_of(nodeid, CONFIGS) == config


def test_each_configuration_has_verdicts_of_its_own() -> None:
    found = compared(
        case("ACC-02", "disk", "passed"),
        case("ACC-02", "disk-small", "failed"),
        case("ACC-03", "disk", "passed"),
        case("ACC-03", "disk-small", "passed"),
        case("ACC-04", "disk", "passed"),
    )
    assert {row["id"]: row["verdicts"] for row in found["verdicts"]} == {
        "ACC-02": {"disk": "conformant", "disk-small": "non-conformant"},
        "ACC-03": {"disk": "conformant", "disk-small": "conformant"},
        "ACC-04": {"disk": "conformant"},
    }
    verdicts, _ = sides.tables(found)
    assert [row[0] for row in verdicts[1]] == ["ACC-02", "ACC-04"]
    assert verdicts[1][1] == ["ACC-04", "conformant", "not run"]


@pytest.mark.parametrize(
    ("other", "better"),
    [
        ((200, 190, 210), [["disk", "disk-small"]]),
        ((50, 45, 55), [["disk-small", "disk"]]),
        ((107, 106, 108), []),  # apart by less than 10 %
        ((140, 104, 180), []),  # the intervals overlap
    ],
)
def test_a_difference_is_named_where_intervals_are_apart(
    other: tuple[float, float, float], better: list[list[str]]
) -> None:
    found = compared(
        case("LAT-01", "disk", "passed", prompt(4097), ttft(100, 95, 105)),
        case("LAT-01", "disk-small", "passed", prompt(4097), ttft(*other)),
    )
    rows = {row["name"]: row for row in found["figures"]}
    assert rows["TTFT cold"]["better_one"] == better
    assert rows["prompt"]["better_one"] == []
    assert len(sides.differences(found)) == len(better)


def test_prompts_of_other_lengths_are_not_compared() -> None:
    found = compared(
        case("LAT-01", "disk", "passed", prompt(4097), ttft(100, 95, 105)),
        case("LAT-01", "disk-small", "passed", prompt(2049), ttft(50, 45, 55)),
    )
    assert sides.differences(found) == []
    assert [row["name"] for row in found["figures"]] == ["prompt", "TTFT cold"]


def test_a_figure_without_an_interval_makes_no_difference() -> None:
    peak = [Figure("peak of engine", value, "GiB", better="lower") for value in (1.0, 9.0)]
    found = compared(case("MEM-04", "disk", "passed", peak[0]), case("MEM-04", "disk-small", "passed", peak[1]))
    assert sides.differences(found) == []
    assert found["figures"][0]["values"] == {"disk": {"value": 1.0}, "disk-small": {"value": 9.0}}


def test_what_only_one_has_is_left_out() -> None:
    found = compared(case("LAT-01", "disk", "passed", ttft(100, 95, 105)), case("LAT-01", "disk-small", "not judged"))
    assert found["figures"] == []


def test_the_report_has_both_tables_and_a_picture_for_each_figure(tmp_path: Path) -> None:
    results = fold(
        [
            case("LAT-01", "disk", "passed", prompt(4097), ttft(100, 95, 105), ttft(10, 9, 11, "TTFT reload")),
            case("LAT-01", "disk-small", "failed", prompt(4097), ttft(200, 190, 210), ttft(10, 9, 11, "TTFT reload")),
        ]
    )
    subjects = [{"config": name} for name in CONFIGS]
    report = reporting.build(results, reporting.Circumstances(0.0, 1.0, 1, compares=True), subjects)
    validate(report)
    text = markdown(report)
    assert "| LAT-01 | conformant | non-conformant |" in text
    assert "| LAT-01 | TTFT cold | 100 ms [95, 105] | 200 ms [190, 210] | disk < disk-small |" in text
    assert "| LAT-01 | TTFT reload | 10 ms [9, 11] | 10 ms [9, 11] |  |" in text
    reporting.write(report, tmp_path)
    pictures = sorted(path.name for path in (tmp_path / sides.FOLDER).iterdir())
    assert pictures == ["lat-01-ttft-cold.svg", "lat-01-ttft-reload.svg"]
    assert all(f"(side-by-side/{name})" in text for name in pictures)
    (tmp_path / "allure-results").mkdir()
    config = allure_files.write_config(tmp_path / "allure-results", report, tmp_path)
    assert config
    assert json.loads(config.read_text())["globalAttachments"] == [
        "conformance.md",
        *(f"side-by-side/{name}" for name in pictures),
    ]
    drawn = "".join(ElementTree.parse(tmp_path / sides.FOLDER / pictures[0]).getroot().itertext())
    assert "lower is better" in drawn
    assert "200 [190, 210]" in drawn
    alone = reporting.build(results, reporting.Circumstances(0.0, 1.0, 1), subjects)
    assert alone["side_by_side"] is None
    assert "side by side" not in markdown(alone)
    reporting.write(alone, tmp_path)
    assert list((tmp_path / sides.FOLDER).iterdir()) == []
