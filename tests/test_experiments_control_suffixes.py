"""Prompts with a mixed prefix, and the suffixes that have a control, on a stack whose answers are chosen here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NotApplicable, NotJudged
from tests.fakes import answering_stack
from tests.fakes.answering_stack import FakeStack, control, exchange

if TYPE_CHECKING:
    from fixtures.instruments.prompts import Prompts

prompts = answering_stack.prompts


@pytest.mark.parametrize(
    ("cache", "device", "aligned", "reason"),
    [
        (True, "cuda", True, None),
        (True, "cpu", False, None),
        (True, "cuda", False, "there is no control for this case"),
        (False, "cpu", True, "no part of a prompt can be on the GPU"),
        (False, "cuda", False, "no part of a prompt can be on the GPU"),
    ],
    ids=["aligned-cuda", "within-cpu", "within-cuda", "no-cache-cpu", "no-cache-cuda"],
)
def test_a_mixed_prefix(cache: bool, device: str, aligned: bool, reason: str | None) -> None:
    made = control(FakeStack(lambda number, prompt: exchange({"a": -1.0}), cache, device))
    if reason is None:
        made.require_partial_hit_control(aligned=aligned)
    else:
        with pytest.raises(NotJudged, match=reason):
            made.require_partial_hit_control(aligned=aligned)


# --- a suffix of more than one token ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "block", "chunk", "tokens"),
    [("one", 4, 16, 1), ("one", None, 16, 1), ("two", 4, 16, 2), ("block", 4, 16, 4), ("block", 16, 256, 16)],
)
def test_a_suffix_of_a_block_has_a_control(length: Any, block: int | None, chunk: int, tokens: int) -> None:
    stack = FakeStack(lambda number, prompt: exchange({"a": -1.0}), block=block, chunk_tokens=chunk)
    assert control(stack).suffix(length) == tokens


@pytest.mark.parametrize(
    ("length", "block", "chunk", "reason"),
    [
        ("block", 128, 128, NotApplicable),
        ("block", 128, 64, NotApplicable),
        ("two", 1, 16, NotApplicable),
        ("two", None, 16, NotJudged),
    ],
)
def test_some_suffixes_do_not_exist(length: Any, block: int | None, chunk: int, reason: type[NotJudged]) -> None:
    stack = FakeStack(lambda number, prompt: exchange({"a": -1.0}), block=block, chunk_tokens=chunk)
    with pytest.raises(reason):
        control(stack).suffix(length)


# --- how many log-probabilities ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "asked"), [(20, 5), (5, 5), (4, 1), (1, 1)])
def test_no_more_log_probabilities_are_asked_for_than_the_engine_gives(most: int, asked: int, prompts: Prompts) -> None:
    stack = FakeStack(lambda number, prompt: exchange({"a": -1.0}), logprobs=most)
    control(stack).complete(prompts.unique(chunks=1), 2)
    assert stack.asked[0][1]["logprobs"] == asked
