"""docs/compatibility.md says what the reports in docs/evidence say, and nothing else."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from fixtures.__main__ import main
from fixtures.report import compatibility

from .report_examples import report

if TYPE_CHECKING:
    from pathlib import Path


def test_the_page_is_in_step_with_the_reports() -> None:
    assert compatibility.DOCUMENT.read_text() == compatibility.document(*compatibility.load()), (
        "run: python -m fixtures compatibility"
    )


SIZES = {"layers": 4, "hidden": 256, "dtype": "bfloat16"}


def subject(**facts: Any) -> dict[str, Any]:
    return {
        "config": "one",
        "stack": "process",
        "device": "cuda",
        "chart": None,
        "versions": {"vllm": "0.32.0", "lmcache": "0.5.6"},
        "connector": {"name": "LMCacheConnectorV1", "role": "kv_both"},
        "parallel": {"tensor": 1, "pipeline": 1, "data": 1, "context": 1},
        "model": {"name": "m", "KV bytes/token": 4096},
        "gpu": ["NVIDIA H200, 140 GiB"],
        "kubernetes": None,
        **facts,
    }


@pytest.mark.parametrize(
    ("facts", "at", "words"),
    [
        ({}, 2, "in process (`LMCacheConnectorV1`)"),
        ({"connector": {"name": "Own"}}, 2, "`Own`"),
        ({"connector": None}, 2, "none"),
        ({}, 3, "-"),
        ({"parallel": {"tensor": 2, "pipeline": 1, "data": 4, "context": 1}}, 3, "TP 2, DP 4"),
        ({"parallel": None, "command": "vllm serve m --tensor-parallel-size 2 -pp=3 -tpx 4"}, 3, "TP 2, PP 3"),
        ({"parallel": None, "command": "vllm serve m --tensor_parallel_size 1"}, 3, "-"),
        ({}, 4, "NVIDIA H200; local processes"),
        ({"stack": "attach", "gpu": [], "device": "cpu"}, 4, "CPU"),
        ({"stack": "chart", "chart": "c-1", "kubernetes": "v1"}, 4, "NVIDIA H200; c-1 on Kubernetes v1"),
        ({}, 5, "m: 4096 bytes of KV per token"),
        ({"model": {"name": "m", "random weights": "tiny-x", "architecture": "X"}}, 5, "tiny-x (random weights): X"),
        ({"model": {"name": "m", **SIZES, "KV heads": 2}}, 5, "m: 4 layers, hidden 256, 2 KV heads, bfloat16"),
        ({"model": {"name": "m", **SIZES, "latent": 576}}, 5, "m: 4 layers, hidden 256, a latent of 576, bfloat16"),
        ({"model": None}, 5, "not reported"),
    ],
)
def test_a_combination_in_words(facts: dict[str, Any], at: int, words: str) -> None:
    assert compatibility.combination(subject(**facts))[at] == words


@pytest.mark.parametrize("name", ["h100-multi-process", "h200-multi-process", "h200-capacity"])
def test_every_version_of_the_schema_is_read(tmp_path: Path, name: str) -> None:
    shutil.copy(compatibility.EVIDENCE / f"{name}.json", tmp_path)
    page = compatibility.document(*compatibility.load(tmp_path))
    assert page.count("\n| 0.") == 1
    assert f"(evidence/{name}.md)" in page


def write(folder: Path, name: str, started: str, config: str, **outcomes: Any) -> None:
    found = report(**outcomes)
    found["run"]["started"] = started
    found["subjects"] = [found["subjects"][0] | subject(config=config)]
    (folder / f"{name}.json").write_text(json.dumps(found))


def test_runs_of_one_combination_share_a_row_the_newest_first(tmp_path: Path) -> None:
    write(tmp_path, "a-old", "2026-01-01T00:00:00Z", "one", **{"API-01": "passed"})
    write(tmp_path, "b-new", "2026-02-01T00:00:00Z", "two", **{"API-01": "failed"})
    (tmp_path / compatibility.BESIDE).write_text(
        "notes:\n- {report: b-new, requirements: [API-01], note: 'See [there](x.md).'}\n"
        "- {report: a-old, note: 'On [a node](y.md).'}\nnot_run:\n"
        "- {vllm: 9.9, lmcache: '1', connector: c, where: w, reason: r, tried: t}\n".replace("9.9", "'9.9'")
    )
    page = compatibility.document(*compatibility.load(tmp_path))
    (row,) = [line for line in page.splitlines() if line.startswith("| 0.32.0")]
    assert row.index("2026-02-01") < row.index("2026-01-01")
    assert "`two`: 2 conformant, 1 non-conformant<br>" in row
    assert row.endswith(" *On [a node](y.md).* |")
    failures = page.partition("### b-new")[2]
    assert "**API-01** non-conformant: " in failures
    assert "*See [there](x.md).*" in failures
    assert "### a-old" not in page
    assert page.endswith("| 9.9 | 1 | c | w | r | t |\n")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("notes: [{report: a, requirements: [API-02], note: x}]", ValueError),
        ("notes: [{report: b, requirements: [API-01], note: x}]", ValueError),
        ("notes: [{report: b, note: x}]", ValueError),
        ("not_run: [{vllm: '1', lmcache: '1', connector: c, where: w, reason: ''}]", ValidationError),
        ("other: []", ValidationError),
    ],
)
def test_what_is_beside_the_reports_is_checked(tmp_path: Path, text: str, error: type[Exception]) -> None:
    write(tmp_path, "a", "2026-01-01T00:00:00Z", "one", **{"API-01": "passed"})
    (tmp_path / compatibility.BESIDE).write_text(text)
    with pytest.raises(error):
        compatibility.load(tmp_path)


def test_the_command_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compatibility", "x"]) == 2
    assert "takes no arguments" in capsys.readouterr().err
