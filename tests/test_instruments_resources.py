"""What processes hold besides memory."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from fixtures.core.errors import StackError
from fixtures.instruments.resources import COUNT_SCRIPT, KINDS, counts_here, parse_counts


def more(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {kind: after[kind] - before[kind] for kind in KINDS if after[kind] != before[kind]}


def test_each_kind_is_counted_by_itself() -> None:
    pid, path = os.getpid(), Path(f"/dev/shm/kvoc-test-{uuid.uuid4().hex}")
    before = counts_here([pid])
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    path.write_bytes(bytes(4096))
    with socket.socket(), socket.socket(), path.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        path.unlink()
        found = more(counts_here([pid]), before)
    for one in opened:
        os.close(one)
    done.set()
    thread.join()
    assert found == {
        "open files": 5,  # of these the file of the segment, and the copy that mmap keeps of it
        "sockets": 2,
        "threads": 1,
        "segments of shared memory": 1,
    }
    assert more(counts_here([pid]), before) == {}


def test_a_process_that_is_gone_holds_nothing() -> None:
    assert counts_here([2**22 + 1]) == dict.fromkeys(KINDS, 0)


def test_no_processes_hold_nothing() -> None:
    assert counts_here([]) == dict.fromkeys(KINDS, 0)


def test_in_a_container_all_that_are_seen_are_counted() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT_SCRIPT], capture_output=True, text=True, check=True)
    assert parse_counts(done.stdout)["processes"] >= 1


@pytest.mark.parametrize("printed", ["", "[1, 2]", "sh: python: not found", "null", '["a", 1, 1, 1, 1]'])
def test_what_no_count_is_has_one_sentence(printed: str) -> None:
    with pytest.raises(StackError, match="cannot be counted"):
        parse_counts(printed)
