"""Host memory is read from whole process trees."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from fixtures.core.units import MIB
from fixtures.instruments.host_memory import HostMemory, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

CHILD = """
import sys
held = []
print("ready", flush=True)
for line in sys.stdin:
    held.append(bytearray(b"x") * (int(line) * 1024 * 1024)) if int(line) else held.clear()
    print("done", flush=True)
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def allocate(child: subprocess.Popen[str], mib: int) -> None:
    """Let the child hold so much more; 0 lets everything go."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(f"{mib}\n")
    assert child.stdout.readline() == "done\n"


def test_a_peak_is_kept_after_the_memory_is_given_back(child: subprocess.Popen[str]) -> None:
    process = psutil.Process(child.pid)
    with HostMemory({"child": lambda: resident_bytes([process]), "nothing": lambda: 0}, interval_s=0.01) as memory:
        before = memory.read()["child"]
        allocate(child, 64)
        reached = memory.read()["child"]
        allocate(child, 0)
        after = memory.read()["child"]
    assert reached - before == pytest.approx(64 * MIB, abs=8 * MIB)
    assert after - before < 16 * MIB
    assert memory.peak("child") >= reached
    assert memory.peak("nothing") == 0


def test_its_thread_sees_peaks_between_readings_and_ends(child: subprocess.Popen[str]) -> None:
    process = psutil.Process(child.pid)
    with HostMemory({"child": lambda: resident_bytes([process])}, interval_s=0.01) as memory:
        allocate(child, 48)
        until = time.monotonic() + 2
        while len(memory.samples) < 4 and time.monotonic() < until:
            time.sleep(0.01)
        allocate(child, 0)
    count = len(memory.samples)
    assert memory.peak("child") - memory.samples[-1][1]["child"] > 32 * MIB
    assert [at for at, _ in memory.samples] == sorted(at for at, _ in memory.samples)
    time.sleep(0.05)
    assert len(memory.samples) == count, "nothing is sampled after the end"


def test_processes_add_up_and_those_that_are_gone_count_nothing(child: subprocess.Popen[str]) -> None:
    process = psutil.Process(child.pid)
    read = functools.partial(resident_bytes, [process])
    alone = read()
    assert alone > MIB
    assert resident_bytes([process, process]) == pytest.approx(2 * alone, rel=0.1)
    child.kill()
    child.wait()
    assert read() == 0
    assert resident_bytes([]) == 0
