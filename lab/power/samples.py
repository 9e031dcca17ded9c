"""What measurements scatter by on real machines: recorded once with the suite's own experiments, kept as JSON lines.

``python -m lab --record-samples`` appends a line to ``docs/evidence/samples.jsonl``. Every number in it was measured on a
healthy deployment; the simulation multiplies its scatter onto effects of known size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lab import json_lines
from lab.seeding_subject import ROOT

KEPT = ROOT / "docs" / "evidence" / "samples.jsonl"


@dataclass(frozen=True)
class Samples:
    """One recording; times in seconds, rates in tokens per second, memory in bytes. Empty: not recorded there."""

    where: str
    """Machine, and what else it did."""
    source: str
    """How the samples came here."""
    pairs: tuple[tuple[float, float, float], ...] = ()
    """TTFT of a cold prompt, of its reload, and of a prompt of one token."""
    together: tuple[tuple[float, float], ...] = ()
    """Median TTFT of eight cold prompts at once, and of their reloads; by round."""
    cold_s: tuple[float, ...] = ()
    cold_without_s: tuple[float, ...] = ()
    fixed_wait_s: tuple[float, ...] = ()
    miss_wait_s: tuple[float, ...] = ()
    decode: tuple[float, ...] = ()
    decode_without: tuple[float, ...] = ()
    gaps_s: tuple[float, ...] = ()
    gaps_without_s: tuple[float, ...] = ()
    unstored_s: tuple[float, ...] = ()
    unstored_without_s: tuple[float, ...] = ()
    within_pool: tuple[float, ...] = ()
    """Time of a conversation, with / without the connector; by user."""
    beyond_pool: tuple[float, ...] = ()
    beyond_pool_ttft: tuple[float, ...] = ()
    host_bytes: tuple[int, ...] = ()
    """Host memory after each cycle of MEM-04."""
    counts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """What MEM-07 counts, after each cycle."""


def read(path: Path = KEPT) -> list[Samples]:
    """Every recording that is kept."""
    return json_lines.read(path, Samples)
