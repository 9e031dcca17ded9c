"""What became of one fault or healthy variant, by what should have fired and what did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.catalogue.model import Fault, Healthy
from lab.other_load import BUSY_CORES

if TYPE_CHECKING:
    from lab.suite_run import Verdicts

Entry = Fault | Healthy
NOISE = ("too noisy", "too busy")
"""What the suite says of a measurement that a busy machine spoils (docs/troubleshooting.md)."""


@dataclass(frozen=True)
class Result:
    """What became of one fault or healthy variant."""

    id: str
    fired: dict[str, str] = field(default_factory=dict)
    """Requirement id to its reason."""
    missed: tuple[str, ...] = ()
    """Expected and silent."""
    undecided: tuple[str, ...] = ()
    """Expected, and too noisy to be judged on a machine that others kept busy."""
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
        return not (self.failed or self.undecided)

    @property
    def failed(self) -> bool:
        """Whether something is not as it should be, whatever the machine did."""
        return bool(self.missed or self.unrelated or self.errors or self.unproven)

    def __str__(self) -> str:
        if self.unproven:
            return f"NOT SEEDED: {self.unproven}"
        named = (
            ("missed", self.missed),
            ("unrelated", self.unrelated),
            ("too noisy, because other programs used the machine:", self.undecided),
        )
        parts = [f"{name} {', '.join(found)}" for name, found in named if found]
        parts += [f"error in {id_}: {reason}" for id_, reason in self.errors.items()]
        fired = ", ".join(sorted(self.fired)) or "nothing"
        word = "BAD" if self.failed else "NOT JUDGED" if self.undecided else "ok"
        return f"{word}: {fired} fired" + (f"; {'; '.join(parts)}" if parts else "")


FOLLOWS = frozenset({"ACC-08"})
"""What turns with ACC-02: where reloads are lost, those of the turns of a conversation are, too."""


def compare(entry: Entry, found: Verdicts, seconds: float = 0.0, *, others: float = 0.0) -> Result:
    """What a run of the suite means for a fault; ``others`` are the cores that other programs took meanwhile."""
    if isinstance(entry, Healthy):
        return Result(entry.id, found.fired, unrelated=tuple(sorted(found.fired)), errors=found.errors, seconds=seconds)
    fired = frozenset(found.fired)
    noisy = {id_ for id_, reason in found.not_judged.items() if any(word in reason for word in NOISE)}
    undecided = (entry.expected - fired) & noisy if others >= BUSY_CORES else frozenset()
    follows = FOLLOWS if "ACC-02" in entry.expected else frozenset()
    missed = entry.expected - fired - undecided | (entry.not_judged - set(found.not_judged))
    return Result(
        entry.id,
        found.fired,
        missed=tuple(sorted(missed)),
        undecided=tuple(sorted(undecided)),
        unrelated=tuple(sorted(fired - entry.expected - entry.allowed - follows)),
        errors=found.errors,
        seconds=seconds,
    )
