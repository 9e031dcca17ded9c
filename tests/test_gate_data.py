"""What is kept of a report for the tests of the gates."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.places import DOCS
from tests import gate_data
from tests.reported_cases import cases_of

if TYPE_CHECKING:
    from pathlib import Path

REPORT = DOCS / "evidence" / "cpu-native.json"


def changed(folder: Path, change: dict[str, Any]) -> Path:
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    for where, values in change.items():
        report[where] = report[where] | values if isinstance(values, dict) else values
    path = folder / "conformance.json"
    path.write_text(json.dumps(report), encoding="utf-8")
    return path


def test_what_is_kept_holds_every_case_of_the_report(tmp_path: Path) -> None:
    kept = gate_data.write(REPORT, tmp_path)
    whole, part = (json.loads(path.read_text(encoding="utf-8")) for path in (REPORT, kept))
    assert kept == tmp_path / "native-cpu.json"
    assert cases_of(part) == cases_of(whole)
    verdicts = [{entry["id"]: entry["verdict"] for entry in report["requirements"]} for report in (whole, part)]
    assert verdicts[0] == verdicts[1]


@pytest.mark.parametrize("path", sorted(gate_data.FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_every_kept_report_has_the_same_keys(path: Path) -> None:
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert list(kept) == ["started", "subjects", "gate", "requirements", "reproduce"]
    assert {tuple(entry["cases"]) for entry in kept["requirements"]} == {gate_data.CASES}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run": {"interrupted": True}}, "the run was interrupted"),
        ({"subjects": []}, "expected the report of one configuration"),
        ({"schema_version": "0.1"}, "schema_version"),
    ],
)
def test_a_report_that_cannot_be_used_is_refused(
    change: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        gate_data.main([str(changed(tmp_path, change))])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_the_command_names_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate_data, "write", lambda path: tmp_path / path.name)
    gate_data.main([str(REPORT)])
    assert capsys.readouterr().out == f"wrote {tmp_path / 'cpu-native.json'}\n"
