"""A log is read once, and loses nothing if it is rotated, cut or written meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.evidence.logs.reader import LogReader
from fixtures.subject.log_file import LogFile
from tests.fakes.engine_server import STORED_64

if TYPE_CHECKING:
    from pathlib import Path


@given(text=st.text(alphabet="ab\u00e9\u4f60\n", max_size=30), more=st.text(alphabet="ab\u00e9\u4f60\n", max_size=30))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_log_is_read_from_where_it_ended(tmp_path: Path, text: str, more: str) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(text.encode())
    log = LogFile(path)
    position = log.position()
    path.write_bytes((text + more).encode())
    assert (log.text(position), log.text()) == (more, text + more)
    path.unlink()
    assert (log.position(), log.text(), log.text(5)) == (0, "", "")


def test_a_log_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "x.log", []
    path.write_text(STORED_64 * 1000)
    log = LogFile(path)
    real = LogReader.feed
    monkeypatch.setattr(LogReader, "feed", lambda self, data: (read.append(len(data)), real(self, data))[1])
    assert len(log.facts().stored) == 1000
    mark = log.position()
    with path.open("a") as file:
        file.write(STORED_64)
    assert len(log.facts(mark).stored) == 1
    assert len(log.facts().stored) == 1001
    assert read == [len(STORED_64) * 1000, len(STORED_64)]


@pytest.mark.parametrize("how", ["truncated", "replaced", "truncated-and-longer"])
def test_a_log_that_is_rotated_loses_nothing_that_was_read(tmp_path: Path, how: str) -> None:
    path = tmp_path / "x.log"
    path.write_text("begin\n" + STORED_64 * 3)
    log = LogFile(path)
    assert log.facts().stored_tokens() == 192
    mark = log.position()
    if how == "replaced":
        path.rename(tmp_path / "x.log.1")
    path.write_text(STORED_64.replace("64", "128") * (20 if how == "truncated-and-longer" else 1))
    count = 20 if how == "truncated-and-longer" else 1
    assert log.facts(mark).stored_tokens() == 128 * count
    assert log.facts().stored_tokens() == 192 + 128 * count
    assert log.text(mark).count("128") == count
    assert log.position() == mark + path.stat().st_size


def test_a_log_that_shrinks_while_it_is_read_loses_nothing_that_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.log"
    path.write_text(STORED_64 * 10_000)
    log = LogFile(path)
    monkeypatch.setattr("fixtures.subject.log_file._PIECE_BYTES", 100_000)
    real, pieces = LogReader.feed, []

    def feed(self: LogReader, data: bytes) -> None:
        real(self, data)
        pieces.append(data)
        path.write_text(STORED_64.replace("64", "128"))

    monkeypatch.setattr(LogReader, "feed", feed)
    read = log.facts().stored_tokens()
    assert read == 64 * b"".join(pieces).count(b"0.017 seconds")
    assert 100_000 <= len(b"".join(pieces)) < 200_000
    assert log.facts().stored_tokens() == read + 128


def test_a_log_that_is_truncated_unread_keeps_its_marks(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text(STORED_64 * 9 + STORED_64[:20])
    log = LogFile(path)
    mark = log.position()
    path.write_text(STORED_64)
    assert log.facts(mark).stored_tokens() == 64
