"""What a reader of Allure's page and of the report sees of the stack and of the run: every row, and in its order."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.report import allure_files, page
from fixtures.report import report as reporting
from fixtures.report.cases import Case, Figure, Phase
from fixtures.report.page import identity, markdown
from fixtures.report.verdicts import fold

if TYPE_CHECKING:
    from pathlib import Path

LOCAL = {"config": "disk", "stack": "process", "device": "cpu", "tiers_below": ["fs /kv", "resp r:6379"]}
CLUSTER = {
    "config": "remote",
    "stack": "chart",
    "versions": {"vllm": "0.32", "lmcache": "0.5.6"},
    "gpu": [{"name": "H200", "count": 2, "uuid": None}, "L4"],
    "images": ["a:1", "b:2"],
    "values_digest": "0123456789abcdef0",
    "chart": "vllm-stack 0.1.12",
}


def built(*subjects: dict[str, Any], **run: Any) -> dict[str, Any]:
    cases = [
        Case("suite/test_a.py::test_a", ("ACC-02",), [Phase("call", "passed", "")]),
        Case("suite/test_a.py::test_b", ("ACC-03",), [Phase("call", "failed", "expected 1, got 2")]),
    ]
    return reporting.build(fold(cases), reporting.Circumstances(0.0, 1.0, 1, **run), list(subjects))


def environment(folder: Path, report: dict[str, Any]) -> list[str]:
    allure_files.write_metadata(folder, report, {"who": "me", "empty": ""})
    return (folder / "environment.properties").read_text().splitlines()


def test_the_environment_of_one_stack_begins_with_what_matters(tmp_path: Path) -> None:
    rows = environment(tmp_path, built(LOCAL, seed=7, interrupted=True))
    assert rows[:7] == [
        "interrupted=yes: the report is incomplete, what was not reached is not in it",
        "conformant=1 requirements",
        "non-conformant=ACC-03",
        "versions=none: local processes",
        "GPU=none: judged on the CPU",
        "chart=none: local processes",
        "configuration=disk",
    ]
    assert rows[-3:] == ["profiles=all", "seed=7", "who=me"]
    assert json.loads((tmp_path / "executor.json").read_text())["type"]


def test_of_several_stacks_each_row_says_of_which(tmp_path: Path) -> None:
    rows = environment(tmp_path, built(LOCAL, CLUSTER, profiles=("core", "latency")))
    assert rows[0] == "conformant=1 requirements"
    assert "remote.versions=vllm 0.32, lmcache 0.5.6" in rows
    assert "remote.images=a:1; b:2" in rows
    assert "disk.GPU=none: judged on the CPU" in rows
    assert rows[-2:] == ["profiles=core, latency", "who=me"]


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, {"name": "local", "type": "local", "reportName": "local run"}),
        ({"GITHUB_ACTIONS": "true"}, {"name": "GitHub Actions", "type": "github", "reportName": "GitHub Actions"}),
        (
            {"JENKINS_URL": "j", "BUILD_NUMBER": "7", "BUILD_URL": "https://j/7", "GITHUB_RUN_ID": "9"},
            {
                "name": "Jenkins",
                "type": "jenkins",
                "reportName": "Jenkins #7",
                "buildOrder": 7,
                "buildName": "#7",
                "buildUrl": "https://j/7",
            },
        ),
    ],
    ids=["nowhere", "without-a-number", "jenkins"],
)
def test_the_service_that_ran_it_is_named_with_what_it_tells(environ: dict[str, str], found: dict[str, str]) -> None:
    assert allure_files.executor(environ) == found


def rows_of(subject: dict[str, Any]) -> dict[str, str]:
    return dict(identity(built(subject)["subjects"][0]))


def test_what_was_tested_is_told_row_by_row() -> None:
    local = rows_of(LOCAL)
    assert local["tiers below the CPU tier"] == "fs /kv, resp r:6379"
    assert (local["GPU"], local["driver"]) == ("none: judged on the CPU",) * 2
    assert (local["KV connector"], local["chart"], local["model"]) == ("none", "none: local processes", "not reported")
    remote = rows_of(CLUSTER)
    assert "tiers below the CPU tier" not in remote
    assert remote["GPU"] == "H200, count 2<br>L4"
    assert (remote["values digest"], remote["chart"]) == ("0123456789abcdef", "vllm-stack 0.1.12")
    assert rows_of({"config": "x", "device": "cuda"})["GPU"] == "not reported by this stack"


def test_the_page_ends_with_one_line_feed() -> None:
    page = markdown(built(LOCAL))
    assert page.endswith("\n")
    assert not page.endswith("\n\n")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(999.96, "ms", "1000 ms"), (1000.0, "", "1,000"), (-1234.5, "MiB", "-1,234 MiB"), (0.123456, "s", "0.1235 s")],
)
def test_a_number_is_short(value: float, unit: str, text: str) -> None:
    assert page.number({"value": value, "unit": unit}) == text


def test_figures_with_a_direction_come_first_and_a_dozen_are_shown() -> None:
    plain = Figure("prompt", 4097, "tokens")
    judged = [Figure(f"TTFT {n}", n, "ms", 8, n - 0.5, n + 0.5, "lower") for n in range(12)]
    case = Case("suite/test_a.py::test_a", ("LAT-01",), [Phase("call", "passed", "")], [plain, *judged])
    first, rest = page._figures(reporting.build(fold([case]), reporting.Circumstances(0.0, 1.0, 0), [LOCAL]))
    assert [row[1] for row in first] == [one.name for one in judged]
    assert first[3] == ("LAT-01", "TTFT 3", "3 ms", "2.5 to 3.5", 8)
    assert rest == [("LAT-01", "prompt", "4,097 tokens", "", "")]
