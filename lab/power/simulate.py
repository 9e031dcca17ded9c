"""Runs the simulation, and keeps what it gave: ``python -m lab --power``."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fixtures.core.errors import NotJudged
from lab import json_lines
from lab.power import of_latency, of_load, of_memory, samples
from lab.power.world import World, worlds
from lab.seeding_subject import ROOT

if TYPE_CHECKING:
    from lab.power.verdict import Verdict

VERDICTS: Final = (*of_latency.VERDICTS, *of_load.VERDICTS, *of_memory.VERDICTS)
KEPT = ROOT / "docs" / "evidence" / "power.jsonl"
RUNS: Final = 2000
"""At each distance; of a rate of 1 %, the exact 95 % interval then ends at 1.54 %."""
DISTANCES: Final = (0.0, 0.5, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0)
"""From the reference to the gate, as multiples."""
SEED: Final = 19


@dataclass(frozen=True)
class Curve:
    """What one verdict said on one machine, by distance."""

    verdict: str
    effect: str
    world: str
    runs: int
    distances: tuple[float, ...]
    failed: tuple[int, ...]
    """Runs in which it was non-conformant (advisory)."""
    passed: tuple[int, ...]

    def undecided(self, at: int) -> int:
        """Runs in which it was not judged."""
        return self.runs - self.failed[at] - self.passed[at]


def read(path: Path = KEPT) -> list[Curve]:
    """What is kept."""
    return json_lines.read(path, Curve)


def judged_once(verdict: Verdict, world: World, rng: random.Random, distance: float) -> str:
    """What the suite says once."""
    try:
        verdict.judge(world, rng, distance)
    except AssertionError:
        return "failed"
    except NotJudged:
        return "undecided"
    return "passed"


def curve(verdict: Verdict, world: World, runs: int, distances: Sequence[float] = DISTANCES) -> Curve:
    """One verdict on one machine; the same arguments give the same curve."""
    failed, passed = [], []
    for distance in distances:
        rng = random.Random(f"{SEED}/{verdict.name}/{world.name}/{distance}")
        found = Counter(judged_once(verdict, world, rng, distance) for _ in range(runs))
        failed.append(found["failed"])
        passed.append(found["passed"])
    return Curve(verdict.name, verdict.effect, world.name, runs, tuple(distances), tuple(failed), tuple(passed))


def simulate(runs: int = RUNS, only: Sequence[str] = (), processes: int = 2, path: Path = KEPT) -> None:
    """Every verdict (or those whose name begins with one of ``only``) on every machine that recorded what it needs.

    Each curve is kept as soon as it is there.
    """
    chosen = [one for one in VERDICTS if not only or one.name.startswith(tuple(only))]
    known = worlds(samples.read())
    asked = [(verdict, world) for verdict in chosen for world in known if world.has(*verdict.needs)]
    with ProcessPoolExecutor(processes) as pool:
        tasks = [pool.submit(_curve_of, verdict.name, world, runs) for verdict, world in asked]
        for number, task in enumerate(as_completed(tasks), 1):
            found = task.result()
            keep([found], path)
            print(f"{number}/{len(tasks)} {found.verdict} on {found.world}", flush=True)


def _curve_of(name: str, world: World, runs: int) -> Curve:
    return curve(next(one for one in VERDICTS if one.name == name), world, runs)


def keep(curves: Sequence[Curve], path: Path = KEPT) -> None:
    """Write them in the order of the verdicts; what was not simulated anew stays."""
    order = {one.name: at for at, one in enumerate(VERDICTS)}
    every = {(one.verdict, one.world): one for one in (*read(path), *curves) if one.verdict in order}
    json_lines.write(path, sorted(every.values(), key=lambda one: (order[one.verdict], one.world)))
