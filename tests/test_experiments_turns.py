"""A conversation fits the model whatever its tokenizer makes of a word."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.core.errors import NotJudged
from fixtures.experiments.turns import take_turns
from fixtures.instruments.text_requests import Request, TextRequests
from fixtures.subject.exchange import TokenSources

TURNS = 5


class FakeStack:
    """An engine whose tokenizer makes ``a_word`` tokens of each word, with a tier that holds every whole chunk."""

    chunk_tokens = 256

    def __init__(self, a_word: int, max_model_len: int = 8192) -> None:
        self.a_word, self.max_model_len = a_word, max_model_len
        self.lengths: list[int] = []
        self.before: tuple[int, ...] = ()

    def token_ids(self, request: Request) -> tuple[int, ...]:
        text = " ".join(one["content"] for one in request.payload["messages"])
        return tuple(hash(f"{word}/{part}") for word in text.split() for part in range(self.a_word))

    def clear_prefix_cache(self) -> None:
        pass

    def send(self, path: str, payload: dict[str, Any]) -> Any:
        tokens = len(self.token_ids(Request("chat", json.loads(json.dumps(payload)))))
        self.lengths.append(tokens)
        return SimpleNamespace(sources=TokenSources(tokens, 0, 0), text="and so on")


@pytest.mark.parametrize("a_word", [1, 2, 3, 5])
def test_every_turn_fits_the_model(a_word: int) -> None:
    stack = FakeStack(a_word)
    requests = TextRequests("m", 1, "turns", stack.max_model_len, a_word)
    turns = list(take_turns(stack, requests, TURNS))  # type: ignore[arg-type]
    assert [turn.number for turn in turns] == [2, 3, 4, 5]
    assert max(stack.lengths) <= stack.max_model_len
    assert all(turn.least >= stack.chunk_tokens for turn in turns), "every turn has whole chunks to load"


def test_a_conversation_ends_where_the_model_has_no_more_room() -> None:
    stack = FakeStack(a_word=4)  # of which the source knows nothing
    turns = list(take_turns(stack, TextRequests("m", 1, "turns"), TURNS))  # type: ignore[arg-type]
    assert 1 <= len(turns) < TURNS - 1


def test_a_model_without_room_for_a_second_turn_is_not_judged() -> None:
    stack = FakeStack(a_word=40, max_model_len=2048)
    with pytest.raises(NotJudged, match="context length of 2048 tokens"):
        list(take_turns(stack, TextRequests("m", 1, "turns", 2048, 2), TURNS))  # type: ignore[arg-type]
