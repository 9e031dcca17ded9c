"""Which faults share a stack, in which order they are seeded, and which need the engine without its connector."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.catalogue.model import Fault, Healthy, Hook, Process, Proxy, Values, ids

if TYPE_CHECKING:
    from lab.result import Entry

COMPARED = ids("LAT-04 LAT-07 LAT-09 MEM-05 THR-01 THR-03")
"""What is held against the engine without its connector."""


@dataclass(frozen=True)
class Needs:
    """What stack an entry is seeded into."""

    values: Values | None
    """Other values than the embedded configuration's."""
    harms: bool
    """The stack cannot be used again."""
    own: bool
    """The suite has to stand it up and tear it down itself."""


def needs_of(entry: Entry) -> Needs:
    """What stack an entry is seeded into."""
    injection = entry.injection if isinstance(entry, Fault) else entry.setting
    if isinstance(injection, Values):
        return Needs(injection, harms=isinstance(entry, Fault), own=False)
    if isinstance(injection, Hook):
        return Needs(injection.values, harms=False, own=injection.at_start)
    if isinstance(injection, Process):
        undone = injection.action in {"remove-folder", "write-protect-folder", "small-folder"}
        return Needs(injection.values, harms=isinstance(entry, Fault) and not undone, own=False)
    if isinstance(injection, Proxy):
        return Needs(injection.values, harms=False, own=False)
    return Needs(None, harms=False, own=False)


def comparable(values: Values | None) -> bool:
    """Whether the engine without its connector, measured with the embedded values, is the one to compare with."""
    return values is None or not (
        values.recipe or values.configuration or any("dtype" in name for name in values.changes)
    )


def compared(entry: Entry) -> frozenset[str]:
    """Requirements that an entry needs the engine without its connector for; LAT-04 also for the fault's own pace."""
    if not comparable(needs_of(entry).values):
        return frozenset()
    if isinstance(entry, Healthy) and not entry.tests:
        return COMPARED - set(entry.without)
    in_prefills = (
        isinstance(entry, Fault) and isinstance(entry.injection, Hook) and "prefills" in entry.injection.params
    )
    asked = set(entry.tests if isinstance(entry, Healthy) else entry.scope)
    return frozenset(
        id_ for id_ in COMPARED if asked & {id_, id_.partition("-")[0]} or (in_prefills and id_ == "LAT-04")
    )


def in_groups(entries: Iterable[Entry]) -> list[Entry]:
    """Entries that share a stack together, those that harm it last."""
    needs = [(needs_of(entry), entry) for entry in entries]
    groups: list[tuple[Values | None, bool]] = [(None, False)]
    for need, _ in needs:
        if (need.values, need.own) not in groups:
            groups.append((need.values, need.own))
    needs.sort(key=lambda one: (groups.index((one[0].values, one[0].own)), one[0].harms))
    return [entry for _, entry in needs]


def in_queues(ordered: Iterable[Entry]) -> tuple[deque[list[Entry]], deque[list[Entry]]]:
    """Entries for the stack as it is, one by one, and the others in groups that share a stack with other values."""
    plain: deque[list[Entry]] = deque()
    other: deque[list[Entry]] = deque()
    for entry in ordered:
        needs = needs_of(entry)
        if needs.values is None and not needs.own:
            plain.append([entry])
        elif other and needs.values is not None and needs_of(other[-1][-1]).values == needs.values:
            other[-1].append(entry)
        else:
            other.append([entry])
    return plain, other


def part(entries: Iterable[Entry], number: int, of: int) -> list[Entry]:
    """One of ``of`` parts of about the same size; what shares a stack with other values stays together."""
    plain, other = in_queues(in_groups(entries))
    return [entry for group in [*plain, *other][number - 1 :: of] for entry in group]


def runs_alone(entry: Entry) -> bool:
    """Whether it measures everything: beside another stack its times would be those of both."""
    return isinstance(entry, Healthy) and (entry.setting is None or entry.slow)
