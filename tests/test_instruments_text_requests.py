"""Requests in words: their lengths, their fresh beginnings, their stop strings."""

from __future__ import annotations

import contextlib
import functools
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fixtures.core.errors import NotJudged
from fixtures.instruments.client import Client
from fixtures.instruments.openai_api import Api
from fixtures.instruments.text_requests import WORDS, Request, TextRequests
from tests.fakes.openai_server import ENDPOINTS, LONGEST, MODEL

# --- requests in words ------------------------------------------------------------------------------------------------


def words_of(asked: Request) -> list[str]:
    text = asked.payload["prompt"] if asked.endpoint == "completions" else asked.payload["messages"][0]["content"]
    return str(text).split()


@given(costs=st.lists(st.integers(1, 5), min_size=len(WORDS), max_size=len(WORDS)), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_texts_have_lengths_of_their_own_whatever_a_word_is_in_tokens(costs: list[int], seed: int) -> None:
    """API-07 tells whose answer it got by the number of prompt tokens."""
    cost, source = dict(zip(WORDS, costs, strict=True)), TextRequests(MODEL, seed, "t")
    lengths = [sum(cost[word] for word in words_of(source.request("completions"))) for _ in range(16)]
    assert len(set(lengths)) == len(lengths)


@pytest.mark.parametrize(
    ("longest", "cost"), [(512, 2), (1024, 2), (2048, 2), (8192, 2), (1024, 7), (4096, 7), (8192, 7)]
)
def test_texts_fit_the_model(longest: int, cost: int) -> None:
    """1 024 tokens are the context of most examples of the chart; a word takes up to two, or its letters."""
    source = TextRequests(MODEL, 1, "t", longest, cost)
    asked = [words_of(source.request("completions")) for _ in range(24)]
    assert len({len(words) for words in asked}) == len(asked)
    assert max(map(len, asked)) * cost + 96 <= longest
    assert longest < 2048 * cost / 2 or len(asked[0]) == 24 * len(WORDS) + 7


def test_texts_are_fresh_from_their_first_words_on() -> None:
    """No two may share a block of the prefix cache, or nothing is cold."""
    sources = [TextRequests(MODEL, seed, scope) for seed in (1, 2) for scope in ("a", "b")]
    asked = [source.request(endpoint) for source in sources for endpoint in ("completions", "chat") for _ in range(8)]
    assert len({tuple(words_of(one)[:8]) for one in asked}) == len(asked)
    again = TextRequests(MODEL, 1, "a").request("completions")
    assert words_of(again) == words_of(asked[0]), "the same seed asks the same"


@ENDPOINTS
def test_a_request_is_what_was_asked_for(endpoint: str) -> None:
    source = TextRequests(MODEL, 1, "t")
    plain = source.request(endpoint, include_usage=True, stop=["x"])
    assert "stream_options" not in plain.payload, "a plain answer always has its usage"
    assert (plain.payload["stream"], plain.payload["stop"], plain.payload["temperature"]) == (False, ["x"], 0)
    streamed = source.request(endpoint, stream=True, include_usage=True, max_tokens=9, ignore_eos=True)
    assert streamed.payload["stream_options"] == {"include_usage": True}
    official = streamed.official_payload
    assert official["extra_body"] == {"ignore_eos": True}
    assert "stream" not in official
    assert "ignore_eos" not in official
    assert "extra_body" not in plain.official_payload
    assert plain.streamed().payload["stream"] is True
    assert plain.payload["stream"] is False, "a request is not changed, it is copied"


# --- a stop string ----------------------------------------------------------------------------------------------------


@functools.cache
def api_of_nothing() -> Api:
    """Made where it is used: every worker collects this module, and the client of OpenAI takes long to import."""
    return Api(Client("http://127.0.0.1:9"), MODEL, lambda: LONGEST)


@given(st.text(alphabet="abc \n\ufffd\u4f60", max_size=40))
@example("aaaa")
@example("   ")
@example("")
@settings(max_examples=200, deadline=None)
def test_a_stop_string_is_new_where_it_is_found(text: str) -> None:
    with contextlib.suppress(NotJudged):
        piece = api_of_nothing().pick_stop_string(text)
        assert piece.strip()
        assert "\ufffd" not in piece, "half a character is not a text that a client can send"
        assert len(text) // 2 <= text.index(piece)


@given(st.text(alphabet="abcdef \n", min_size=2, max_size=40), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_a_stop_string_does_not_reach_across_the_end_of_the_reasoning(text: str, seam: int) -> None:
    with contextlib.suppress(NotJudged):
        piece = api_of_nothing().pick_stop_string(text, seam)
        assert not text.index(piece) < seam < text.index(piece) + len(piece)


def test_a_text_of_words_has_a_stop_string() -> None:
    source = random.Random(1)
    for _ in range(20):
        text = " ".join(source.choices(WORDS, k=24))
        assert text.index(api_of_nothing().pick_stop_string(text)) >= len(text) // 2


def test_a_text_that_repeats_itself_is_no_fault() -> None:
    with pytest.raises(NotJudged, match="is repetitive"):
        api_of_nothing().pick_stop_string("\u4f60" * 24)
