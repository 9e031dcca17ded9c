"""More reloads at once than the KV pool holds."""

from __future__ import annotations

import pytest

from fixtures.core.errors import NotJudged
from fixtures.experiments import crowding
from tests.fakes.counting_stack import FakeStack, source

# --- crowds -----------------------------------------------------------------------------------------------------------


def test_a_crowd_exceeds_the_pool_and_comes_at_once() -> None:
    stack = FakeStack()
    found = crowding.crowd(stack, source())  # type: ignore[arg-type]
    assert found.tokens > stack.pool_tokens
    assert stack.together == [crowding.STORED_AT_ONCE, found.prompts]
    assert found.longest_s == found.prompts - 1
    found.check_crowded()


@pytest.mark.parametrize(
    ("fake", "why"), [(FakeStack(share=0.5), "only 50%"), (FakeStack(in_flight=3), "at most 3 of 12 prompts")]
)
def test_a_crowd_that_was_none_is_not_judged(fake: FakeStack, why: str) -> None:
    with pytest.raises(NotJudged, match=why):
        crowding.crowd(fake, source()).check_crowded()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fake", "longest", "why"),
    [
        (FakeStack(tier_tokens=8192), 8190, "larger buffer"),
        (FakeStack(pool_tokens=10**6), 8190, "prompts of 8190 tokens do not exceed the KV pool of 1000000"),
        (FakeStack(pool_tokens=200_000), 32_000, "takes 2.. s"),
    ],
)
def test_no_crowd_where_the_arithmetic_has_none(fake: FakeStack, longest: int, why: str) -> None:
    with pytest.raises(NotJudged, match=why):
        crowding.crowd(fake, source(longest))  # type: ignore[arg-type]
    assert fake.asked == 0, "it is known before anything is sent"
