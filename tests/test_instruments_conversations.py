"""Conversations have exact lengths, grow by their own history, and are the same for the same seed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.instruments.conversations import Conversation, Conversations
from fixtures.instruments.prompts import Prompts, TooLong

SHAPE = Conversation(users=3, rounds=4, system_tokens=40, question_tokens=20, answer_tokens=10)


def source(seed: int = 1, most: int = 100_000) -> Prompts:
    return Prompts(seed, "load", 16, most)


shapes = st.builds(
    Conversation,
    users=st.integers(1, 5),
    rounds=st.integers(1, 5),
    system_tokens=st.integers(1, 50),
    question_tokens=st.integers(1, 50),
    answer_tokens=st.integers(1, 50),
    shared_system=st.booleans(),
)


@given(shape=shapes)
def test_every_round_begins_with_the_whole_of_the_one_before(shape: Conversation) -> None:
    load = Conversations(source(), shape)
    for user in range(shape.users):
        turns = [load.turn(user, number) for number in range(shape.rounds)]
        assert [turn.prompt.tokens for turn in turns] == [shape.prompt_tokens(number) for number in range(shape.rounds)]
        for earlier, later in itertools.pairwise(turns):
            assert later.prompt.ids[: earlier.prompt.tokens] == earlier.prompt.ids


@pytest.mark.long
@given(shape=shapes)
def test_users_share_the_system_prompt_or_nothing(shape: Conversation) -> None:
    load = Conversations(source(), shape)
    first = [load.turn(user, 0).prompt.ids for user in range(shape.users)]
    for one, other in itertools.combinations(first, 2):
        shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=True)))
        wanted = shape.system_tokens if shape.shared_system else 1
        assert shared >= wanted
        assert shared <= wanted + 3, "two draws of 30 000 ids may agree by accident, not often"


@given(shape=shapes)
def test_the_working_set_is_every_distinct_token(shape: Conversation) -> None:
    load = Conversations(source(), shape)
    whole = [load.turn(user, shape.rounds - 1).prompt.ids for user in range(shape.users)]
    shared = shape.system_tokens if shape.shared_system else 0
    assert shape.working_set_tokens == shared + sum(len(ids) - shared for ids in whole)


@pytest.mark.parametrize("tokens", [1, 500, 10_000])
@pytest.mark.parametrize("shared", [True, False])
def test_users_are_as_many_as_a_working_set_wants(tokens: int, shared: bool) -> None:
    one = Conversation(1, 4, 40, 20, 10, shared_system=shared)
    found = one.with_working_set(tokens)
    each = one.working_set_tokens - (40 if shared else 0)
    assert abs(found.working_set_tokens - tokens) <= each / 2 or (found.users == 1 and tokens < one.working_set_tokens)


def test_the_same_seed_gives_the_same_load_and_another_one_another() -> None:
    turns = [[turn.prompt.ids for turn in Conversations(source(seed), SHAPE).turns] for seed in (1, 1, 2)]
    assert turns[0] == turns[1]
    assert turns[0] != turns[2]


def test_every_turn_comes_once_and_in_the_order_of_rounds() -> None:
    turns = Conversations(source(), SHAPE).turns
    assert {(turn.user, turn.round) for turn in turns} == set(itertools.product(range(3), range(4)))
    assert [turn.round for turn in turns] == sorted(turn.round for turn in turns)


def test_arrivals_are_a_poisson_process_of_that_rate() -> None:
    load = Conversations(source(), Conversation(200, 5, 1, 1, 1))
    at = load.arrivals(10.0)
    assert at[0] == 0
    assert list(at) == sorted(at)
    assert at[-1] == pytest.approx(100, rel=0.15)
    assert load.arrivals(10.0) == at
    gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
    above = sum(gap > 0.1 for gap in gaps) / len(gaps)
    assert above == pytest.approx(0.368, abs=0.05), "e^-1 of exponential gaps are above their mean"


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Conversation(0, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="above 0"):
        Conversations(source(), SHAPE).arrivals(0)
    with pytest.raises(TooLong):
        Conversations(source(most=100), SHAPE)
