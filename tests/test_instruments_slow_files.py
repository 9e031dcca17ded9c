"""Files whose content comes late, or only at the end."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fixtures.core.waiting import poll
from fixtures.instruments.slow_files import SlowFiles

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 1 << 20
"""More than a pipe holds."""


def made(folder: Path, count: int = 2) -> list[str]:
    names = [f"{number}.data" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(bytes([number]) * SIZE)
    return names


def exact(path: Path) -> bytes:
    """As LMCache reads: so many bytes, and not to the end."""
    with path.open("rb") as file:
        return file.read(SIZE)


def test_content_comes_late_each_time_and_unchanged(tmp_path: Path) -> None:
    names = made(tmp_path)
    expected = [(tmp_path / name).read_bytes() for name in names]
    begin = time.monotonic()
    with SlowFiles(tmp_path, names, 0.1) as files:
        for _ in range(2):
            assert [exact(tmp_path / name) for name in names] == expected
        assert files.acted == 4
    assert time.monotonic() - begin >= 0.4
    assert sorted(one.name for one in tmp_path.iterdir()) == names
    assert [exact(tmp_path / name) for name in names] == expected


def test_who_waits_is_given_the_content_at_the_end(tmp_path: Path) -> None:
    names = made(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        with SlowFiles(tmp_path, names, None) as files:
            waiting = [pool.submit(exact, tmp_path / name) for name in names]
            assert poll(lambda: files.acted, lambda acted: acted == 2, 5.0) == 2
            assert not any(one.done() for one in waiting)
        assert [one.result(5.0)[0] for one in waiting] == [0, 1]
    assert all((tmp_path / name).stat().st_size == SIZE for name in names)


def test_without_a_reader_nothing_is_left(tmp_path: Path) -> None:
    names = made(tmp_path)
    with SlowFiles(tmp_path, names, None) as files:
        assert all((tmp_path / name).exists() for name in names), "whoever asks for a file is told that it is there"
    assert not files.acted
    assert sorted(one.name for one in tmp_path.iterdir()) == names
