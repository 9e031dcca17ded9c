"""One prompt, asked again and again: what counts, and which end is a fault."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.core.errors import NoAnswer, SubjectFault, SubjectGone
from fixtures.experiments import repeats
from tests.fakes.counting_stack import FakeStack, source

# --- repeats ----------------------------------------------------------------------------------------------------------


def test_repeats_are_counted() -> None:
    stack: Any = FakeStack()
    found = repeats.repeat(stack, source().unique(chunks=2), stack.engine)
    assert found.answered == repeats.RELOADS + repeats.ROUNDS * repeats.AT_ONCE
    assert not found.ended


@pytest.mark.parametrize("fault", [NoAnswer("connection refused"), SubjectGone("it is gone")])
def test_a_repeat_that_ends_the_engine_is_reported(fault: BaseException) -> None:
    stack: Any = FakeStack(fault=fault, fault_at=13, ends="engine-0 ended")
    found = repeats.repeat(stack, source().unique(chunks=2), stack.engine)
    assert found.ended == ("engine-0 ended",)
    assert found.answered == 12


def test_a_fault_without_an_end_is_no_restart() -> None:
    stack: Any = FakeStack(fault=SubjectFault("HTTP 400"), fault_at=3)
    with pytest.raises(SubjectFault, match="HTTP 400"):
        repeats.repeat(stack, source().unique(chunks=2), stack.engine)
