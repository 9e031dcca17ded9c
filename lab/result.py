"""What became of one fault or healthy variant, by what should have fired and what did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.catalogue import Fault, Healthy

if TYPE_CHECKING:
    from lab.suite_run import Verdicts

Entry = Fault | Healthy


@dataclass(frozen=True)
class Result:
    """What became of one fault or healthy variant."""

    id: str
    fired: dict[str, str] = field(default_factory=dict)
    """Requirement id to its reason."""
    missed: tuple[str, ...] = ()
    """Expected and silent."""
    unrelated: tuple[str, ...] = ()
    """Fired and neither expected nor allowed."""
    errors: dict[str, str] = field(default_factory=dict)
    """Errors of the suite: under no fault may there be any."""
    unproven: str = ""
    """Why the injection is not proven; then nothing else counts."""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether everything is as it should be."""
        return not (self.missed or self.unrelated or self.errors or self.unproven)

    def __str__(self) -> str:
        if self.unproven:
            return f"NOT SEEDED: {self.unproven}"
        parts = [
            f"{name} {', '.join(found)}"
            for name, found in (("missed", self.missed), ("unrelated", self.unrelated))
            if found
        ]
        parts += [f"error in {id_}: {reason}" for id_, reason in self.errors.items()]
        fired = ", ".join(sorted(self.fired)) or "nothing"
        return f"{'ok' if self.good else 'BAD'}: {fired} fired" + (f"; {'; '.join(parts)}" if parts else "")


def compare(entry: Entry, found: Verdicts, seconds: float = 0.0) -> Result:
    """What a run of the suite means for a fault."""
    if isinstance(entry, Healthy):
        return Result(entry.id, found.fired, (), tuple(sorted(found.fired)), found.errors, seconds=seconds)
    fired = frozenset(found.fired)
    missed = entry.expected - fired | (entry.not_judged - found.not_judged)
    unrelated = fired - entry.expected - entry.allowed
    return Result(entry.id, found.fired, tuple(sorted(missed)), tuple(sorted(unrelated)), found.errors, seconds=seconds)
