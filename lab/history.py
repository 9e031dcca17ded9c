"""What every try of a fault or a healthy variant gave, kept as JSON lines; `lab.detection_page` shows them.

``python -m lab`` appends each try to a file of the user's cache, good or not. ``python -m lab --page`` (and a complete run)
adds what is new there to ``docs/evidence/lab.jsonl``, which is committed, and writes ``docs/detection.md`` from it. A line
holds the ids of requirements only: reasons may name paths of a machine.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lab import json_lines

if TYPE_CHECKING:
    from lab.result import Result
    from lab.suite_run import Verdicts

CPU = "a CPU"
"""What `Try.on` says where the engine ran on no card."""


@dataclass(frozen=True)
class Try:
    """One try of one entry of the catalogue."""

    id: str
    when: str
    """UTC, ISO 8601, in whole seconds."""
    suite: str
    """The first twelve digits of the digest of suite, fixtures, configuration and lab (`lab.runner.sources_digest`)."""
    vllm: str
    lmcache: str
    on: str
    cores: int
    seconds: float
    fired: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    """Not judged: others kept the machine busy."""
    unrelated: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    seeded: bool = True

    @classmethod
    def of(cls, result: Result, versions: Mapping[str, str], suite: str) -> Self:
        """A result of now."""
        return cls(
            id=result.id,
            **circumstances(versions, suite, result.seconds, result),
            missed=result.missed,
            undecided=result.undecided,
            unrelated=result.unrelated,
            seeded=not result.unproven,
        )

    @property
    def good(self) -> bool:
        """Whether everything was as it should be."""
        return self.seeded and not (self.missed or self.undecided or self.unrelated or self.errors)

    @property
    def on_gpu(self) -> bool:
        """Whether the engine ran on a card."""
        return self.on != CPU


def counted(tries: Iterable[Try], ids: Collection[str]) -> dict[str, list[Try]]:
    """Of each entry with one of ``ids`` the tries that say something of the suite, the oldest first.

    The others: what was to be seeded did not act, or other programs made a measurement too noisy to decide.
    """
    found: dict[str, list[Try]] = {}
    for one in tries:
        if one.id in ids and one.seeded and not one.undecided:
            found.setdefault(one.id, []).append(one)
    return found


def left_out(tries: Sequence[Try], ids: Collection[str]) -> str:
    """What `counted` leaves out, as a sentence."""
    noisy = [one.id for one in tries if one.id in ids and one.seeded and one.undecided]
    unseeded = [one.id for one in tries if one.id in ids and not one.seeded]

    def named(found: list[str]) -> str:
        return f"{len(found)}: {', '.join(f'`{id_}`' for id_ in sorted(set(found)))}" if found else "none"

    return (
        f"Not counted are tries in which other programs made a measurement too noisy to decide ({named(noisy)}), and tries in "
        f"which what was to be seeded did not act ({named(unseeded)})."
    )


def circumstances(versions: Mapping[str, str], suite: str, seconds: float, found: Result | Verdicts) -> dict[str, Any]:
    """What `Try` and `lab.healthy_runs.HealthyRun` have in common; each has its own order of fields, that of its file."""
    return {
        "suite": suite[:12],
        "seconds": round(seconds, 1),
        "fired": tuple(sorted(found.fired)),
        "errors": tuple(sorted(found.errors)),
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "vllm": versions["vllm"],
        "lmcache": versions["lmcache"],
        "on": versions["on"],
        "cores": len(os.sched_getaffinity(0)),
    }


def read(path: Path) -> list[Try]:
    """Every try in a file, the oldest first; none where there is no file."""
    return json_lines.read(path, Try)


def keep(path: Path, one: Try) -> None:
    """Append a try to a file that several labs may write at once."""
    json_lines.keep(path, one)


def merge(into: Path, new: Iterable[Try]) -> list[Try]:
    """Every try of both, each once, the oldest first; ``into`` is written anew where something is new."""
    known = read(into)
    both = sorted({*known, *new}, key=lambda one: (one.when, one.id))
    if both != known:
        json_lines.write(into, both)
    return both
