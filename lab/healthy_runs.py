"""Runs of the suite on a healthy stack, again and again: whatever fires is a false alarm (``python -m lab --healthy N``).

A run is kept as soon as it is over, so a hundred of them may take days: the next call goes on where the last one ended. In turn
the machine is left alone, others compute on one core and on two, and others write to the disk.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab import json_lines, process_faults
from lab.grouping import COMPARED
from lab.history import circumstances
from lab.lane import Lane, attach
from lab.other_load import BUSY_CORES, OtherLoad
from lab.seeding_subject import ROOT, LabError
from lab.suite_run import judge

if TYPE_CHECKING:
    from lab.runner import Runner
    from lab.suite_run import Verdicts

KEPT: Final = ROOT / "docs" / "evidence" / "healthy.jsonl"
LONG: Final = frozenset({"THR-01", "THR-03"})
"""What only the profiles on request compare with the engine without its connector."""


@dataclass(frozen=True)
class HealthyRun:
    """One run of the suite on a healthy stack."""

    when: str
    """UTC, ISO 8601, in whole seconds."""
    beside: str
    """One of `BESIDE`: what the lab itself did beside the run."""
    others: float
    """Cores that all others took, those of ``beside`` too, on average."""
    suite: str
    """As of `lab.history.Try`."""
    vllm: str
    lmcache: str
    on: str
    cores: int
    seconds: float
    judged: int
    """Requirements."""
    fired: tuple[str, ...] = ()
    """False alarms: requirements that were non-conformant or advisory."""
    not_judged: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def quiet(self) -> bool:
        """Whether nothing else used the machine."""
        return self.beside == "nothing" and self.others <= BUSY_CORES


@contextlib.contextmanager
def _disk_load() -> Iterator[None]:
    """Another program writes 8 MiB again and again, each time down to the disk."""
    script = (
        "import os, tempfile\nwith tempfile.TemporaryFile() as file:\n    while True:\n        file.seek(0)\n"
        "        file.write(bytes(8 << 20))\n        file.flush()\n        os.fsync(file.fileno())"
    )
    program = subprocess.Popen([sys.executable, "-c", script])
    try:
        yield
        if program.poll() is not None:
            raise LabError("the program that was to load the disk ended early")
    finally:
        program.kill()
        program.wait()


BESIDE: Final[Mapping[str, Callable[[], contextlib.AbstractContextManager[None]]]] = {
    "nothing": contextlib.nullcontext,
    "one core taken": lambda: process_faults.cpu_load(1),
    "two cores taken": lambda: process_faults.cpu_load(2),
    "a disk that others write to": _disk_load,
}
"""What the lab does beside a run, in turn."""


def next_beside(runs: Iterable[HealthyRun]) -> str:
    """What there were the fewest runs with."""
    counts = dict.fromkeys(BESIDE, 0)
    for one in runs:
        counts[one.beside] = counts.get(one.beside, 0) + 1
    return min(BESIDE, key=lambda name: counts[name])


def repeat(runner: Runner, wanted: int, path: Path = KEPT, minutes: float | None = None) -> list[HealthyRun]:
    """Run the suite until ``wanted`` runs of it as it is now are kept, or for so many minutes; returns those.

    Raises:
        LabError: the stack is not healthy, or the suite did not report.
    """
    begin, suite = time.monotonic(), runner.sources[:12]
    lane, folder = Lane(runner, "healthy"), runner.folder / "healthy"
    runner.compared = COMPARED - LONG
    known = [one for one in json_lines.read(path, HealthyRun) if one.suite == suite]
    try:
        while len(known) < wanted and (minutes is None or time.monotonic() - begin < 60 * minutes):
            bench, beside = lane.bench_with(None), next_beside(known)
            started, others = time.monotonic(), OtherLoad()
            with BESIDE[beside]():
                found = judge(folder, attach(bench.record_path), cases="slow")
                taken = others.cores()
            known.append(_run(runner, beside, found, time.monotonic() - started, taken))
            json_lines.keep(path, known[-1])
            print(f"{len(known):3}/{wanted} {beside}: {in_words(known[-1])}", flush=True)
            if not bench.restore():
                lane.drop()
    finally:
        lane.drop()
    return known


def _run(runner: Runner, beside: str, found: Verdicts, seconds: float, others: float) -> HealthyRun:
    return HealthyRun(
        **circumstances(runner.versions, runner.sources, seconds, found),
        beside=beside,
        others=round(others, 2),
        judged=len(found.judged),
        not_judged=tuple(sorted(found.not_judged)),
    )


def in_words(one: HealthyRun) -> str:
    """A run in words."""
    fired = f"false alarms: {' '.join(one.fired)}" if one.fired else "no false alarm"
    errors = f", errors: {' '.join(one.errors)}" if one.errors else ""
    return (
        f"{fired}{errors}, {one.judged} judged, {len(one.not_judged)} not, {one.seconds:.0f} s, others took "
        f"{one.others:.1f} cores"
    )
