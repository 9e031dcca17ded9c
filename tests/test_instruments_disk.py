"""How quickly a file system reads, and that nothing is left of the measurement."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fixtures.instruments import disk

if TYPE_CHECKING:
    from pathlib import Path


def test_a_read_past_the_page_cache_is_measured_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "PIECES", 2)
    found = disk.read_bytes_per_s(tmp_path)
    assert found is None or 1e6 < found < 1e12
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_direct_reads_gives_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(disk, "PIECES", 1)
    monkeypatch.setattr(os, "open", refused)
    assert disk.read_bytes_per_s(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    disk.forget_pages(tmp_path)


def test_a_folder_that_takes_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        disk.read_bytes_per_s(tmp_path / "nowhere")


def test_pages_are_forgotten_and_contents_stay(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "chunk.data").write_bytes(b"kv" * 5000)
    disk.forget_pages(tmp_path)
    assert (tmp_path / "deep" / "chunk.data").read_bytes() == b"kv" * 5000
