"""What shares a stack."""

from __future__ import annotations

import itertools

from lab.catalogue import FAULTS, HEALTHY
from lab.grouping import in_groups, needs_of, part
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


def test_the_parts_of_a_rota_are_the_whole_and_share_no_stack_with_other_values() -> None:
    parts = [part([*FAULTS, *HEALTHY], number, 16) for number in range(1, 17)]
    assert sorted(entry.id for one in parts for entry in one) == sorted(IDS)
    where = [
        {repr((found.values, found.own)) for found in map(needs_of, one) if found.values is not None} for one in parts
    ]
    assert sum(map(len, where)) == len(set().union(*where))
    assert max(map(len, parts)) <= 3 * len(IDS) / 16, "that of two engines is the largest"
