"""What shares a stack."""

from __future__ import annotations

import itertools

from lab.catalogue import FAULTS, HEALTHY
from lab.grouping import in_groups, needs_of
from tests.lab_tries import IDS


def test_what_shares_a_stack_runs_together_and_what_harms_it_last() -> None:
    ordered = in_groups([*FAULTS, *HEALTHY])
    assert {entry.id for entry in ordered} == IDS
    keys = [(needs_of(entry).values, needs_of(entry).own) for entry in ordered]
    stacks = [key for number, key in enumerate(keys) if number == 0 or key != keys[number - 1]]
    assert len(stacks) == len(set(map(repr, stacks))), "a stack is stood up again for what was not grouped"
    assert stacks[0] == (None, False)
    for before, after in itertools.pairwise(ordered):
        if needs_of(before).values == needs_of(after).values and needs_of(before).harms:
            assert needs_of(after).harms or needs_of(after).own
