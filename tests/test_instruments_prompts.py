"""Prompts: the chunk arithmetic, and that nothing is a hit by accident."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.core.errors import NotJudged
from fixtures.instruments.prompts import BOS, FIRST_ID, LAST_ID, Prompt, Prompts, Vocabulary

CHUNK = 16


def prompts(seed: int = 1, scope: str = "a", chunk: int = CHUNK, longest: int = 1000) -> Prompts:
    return Prompts(seed, scope, chunk, longest)


@pytest.mark.parametrize(
    ("tokens", "whole", "storable"),
    [(1, 0, 0), (255, 0, 0), (256, 0, 256), (257, 256, 256), (511, 256, 256), (512, 256, 512), (2049, 2048, 2048)],
)
def test_chunks_by_hand(tokens: int, whole: int, storable: int) -> None:
    prompt = Prompt((BOS,) * tokens, 256, "p")
    assert (prompt.tokens, prompt.whole_chunk_tokens, prompt.storable_tokens) == (tokens, whole, storable)


@given(tokens=st.integers(1, 5000), chunk=st.integers(1, 600))
def test_chunk_arithmetic(tokens: int, chunk: int) -> None:
    prompt = Prompt((BOS,) * tokens, chunk, "p")
    whole, storable = prompt.whole_chunk_tokens, prompt.storable_tokens
    assert whole % chunk == storable % chunk == 0
    assert whole < tokens <= whole + chunk, "the last token is always computed, and less than a chunk before it"
    assert storable <= tokens < storable + chunk
    assert storable - whole == (chunk if tokens % chunk == 0 else 0)


@given(chunks=st.integers(0, 20), extra=st.integers(-CHUNK + 1, CHUNK), longest=st.integers(1, 400))
def test_a_unique_prompt_is_as_long_as_asked_or_refused(chunks: int, extra: int, longest: int) -> None:
    source, tokens = prompts(longest=longest), chunks * CHUNK + extra
    if 0 < tokens <= longest:
        assert source.unique(chunks=chunks, extra=extra).tokens == tokens
    else:
        with pytest.raises(ValueError, match=f"{tokens} tokens does not fit: the model takes 1 to {longest}"):
            source.unique(chunks=chunks, extra=extra)


def test_a_refused_length_leaves_the_source_as_it_was() -> None:
    source, other = prompts(), prompts()
    with pytest.raises(ValueError):
        source.of_length(1001)
    assert source.of_length(50) == other.of_length(50)


def test_ids_are_plain_words_after_the_begin_of_sequence() -> None:
    ids = prompts().of_length(1000).ids
    assert ids[0] == BOS
    assert all(FIRST_ID <= one < LAST_ID for one in ids[1:])


def test_no_two_prompts_share_a_chunk() -> None:
    """Of any seed, any scope and any count: every chunk of 16 tokens is new, wherever it stands."""
    drawn = [
        source.unique(chunks=4)
        for source in [prompts(seed, scope) for seed in (1, 2, 11) for scope in ("a", "b", "a[1]")]
        for _ in range(12)
    ]
    chunks = [prompt.ids[at : at + CHUNK] for prompt in drawn for at in range(0, 4 * CHUNK, CHUNK)]
    assert len(set(chunks)) == len(chunks)
    assert len({prompt.ids[1] for prompt in drawn}) > 0.95 * len(drawn), "they part right after the first token"


def test_seed_scope_and_count_do_not_run_together() -> None:
    """Sources like (1, "1/x") and (11, "/x") must not draw the same prompts."""
    names = [(1, "1/x"), (11, "/x"), (1, "x/1"), (1, "x"), (1, "")]
    first = [Prompts(seed, scope, CHUNK, 100).of_length(20).ids for seed, scope in names]
    first.append(list(itertools.islice(iter_prompts(Prompts(1, "x", CHUNK, 100)), 11))[-1])
    assert len(set(first)) == len(first)


def iter_prompts(source: Prompts) -> itertools.chain[tuple[int, ...]]:
    return itertools.chain(source.of_length(20).ids for _ in itertools.count())


def test_the_same_seed_gives_the_same_prompts_again() -> None:
    def draw(source: Prompts) -> list[Prompt]:
        first = source.unique(chunks=3)
        return [first, source.of_length(7), source.continued(first, 20, 40), *source.shuffled([first] * 3)]

    assert draw(prompts(seed=5, scope="x")) == draw(prompts(seed=5, scope="x"))
    assert draw(prompts(seed=5, scope="x")) != draw(prompts(seed=6, scope="x"))


@given(keep=st.integers(1, 64), tokens=st.integers(65, 200))
def test_a_continuation_shares_what_it_keeps_and_no_more(keep: int, tokens: int) -> None:
    source = prompts()
    first = source.of_length(64)
    second = source.continued(first, keep_tokens=keep, tokens=tokens)
    assert second.tokens == tokens
    assert second.ids[:keep] == first.ids[:keep]
    assert second.ids[keep : keep + CHUNK] != first.ids[keep : keep + CHUNK]
    assert second.chunk_tokens == CHUNK


@given(position=st.integers(0, 63))
def test_a_change_is_one_other_plain_token(position: int) -> None:
    source = prompts()
    first = source.of_length(64)
    other = source.changed(first, position)
    assert [at for at in range(64) if first.ids[at] != other.ids[at]] == [position]
    assert FIRST_ID <= other.ids[position] < LAST_ID
    assert other.tokens == first.tokens


@given(old=st.integers(FIRST_ID, LAST_ID - 1))
def test_every_token_can_be_changed(old: int) -> None:
    new = prompts().changed(Prompt((old,), CHUNK, "p"), 0).ids[0]
    assert new != old
    assert FIRST_ID <= new < LAST_ID


@given(tokens=st.integers(1, 64))
def test_a_beginning_is_a_prompt_of_its_own(tokens: int) -> None:
    first = prompts().of_length(64)
    beginning = first.first(tokens)
    assert beginning.ids == first.ids[:tokens]
    assert beginning.whole_chunk_tokens == (tokens - 1) // CHUNK * CHUNK
    assert str(beginning) == f"prompt-1[:{tokens}] ({tokens} tokens)"


def test_a_shuffle_keeps_every_prompt_and_is_no_sorting() -> None:
    source = prompts()
    drawn = [source.of_length(20) for _ in range(10)]
    mixed = source.shuffled(drawn)
    assert sorted(mixed, key=lambda prompt: prompt.ids) == sorted(drawn, key=lambda prompt: prompt.ids)
    assert mixed != drawn


@given(size=st.integers(16, 200_000), bos=st.none() | st.integers(-5, 300_000), old=st.integers(0, 200_000))
def test_prompts_stay_within_any_vocabulary(size: int, bos: int | None, old: int) -> None:
    vocabulary = Vocabulary.of_size(size, bos)
    assert 0 <= vocabulary.bos < size
    assert 0 < vocabulary.first < vocabulary.end <= size
    assert vocabulary.first <= vocabulary.another(old) < vocabulary.end
    assert vocabulary.another(old) != old
    source = Prompts(1, "v", CHUNK, 100, vocabulary)
    assert all(0 <= one < size for one in source.of_length(50).ids)


def test_a_large_vocabulary_is_used_as_ever() -> None:
    assert Vocabulary.of_size(32_000) == Vocabulary.of_size(151_936) == Vocabulary()
    with pytest.raises(NotJudged, match="vocabulary of 15 tokens"):
        Vocabulary.of_size(15)


def test_counts_that_a_reload_may_show() -> None:
    whole = Prompt(tuple(range(256)), 256, "one chunk")
    assert (whole.rest_tokens, sorted(whole.stored_counts), sorted(whole.loaded_counts)) == (
        256,
        [0, 256],
        [0, 255, 256],
    )
    more = Prompt(tuple(range(600)), 256, "two chunks and more")
    assert (more.rest_tokens, sorted(more.stored_counts), sorted(more.loaded_counts)) == (88, [512], [512])
    assert more.beginning(chunks=2).tokens == 513
    assert more.beginning(chunks=1.5).tokens == 385


@pytest.mark.parametrize(("beyond", "common"), [(0.0, 1280), (0.4, 1382), (1.0, 1535)])
def test_a_shared_beginning_ends_where_it_is_asked_to(beyond: float, common: int) -> None:
    source = Prompts(1, "shared", 256, 4096)
    first = source.unique(chunks=8)
    second = source.sharing(first, chunks=5, beyond=beyond)
    assert second.tokens == first.tokens
    assert second.ids[:common] == first.ids[:common]
    assert second.ids[common] != first.ids[common]


def test_canaries_and_mixtures_are_all_different() -> None:
    source = Prompts(1, "canaries", 64, 4096)
    found = source.canaries()
    assert len({prompt.ids for prompt in found}) == len(found) == 15
    mixed = source.mixed_with_new(found[:8], every=4)
    assert [prompt for prompt in mixed if prompt in found] == found[:8]
    assert [number for number, prompt in enumerate(mixed) if prompt not in found] == [4, 9]


def test_a_failing_test_shows_no_token_ids() -> None:
    assert repr(Prompt(tuple(range(9999)), 256, "prompt-1")) == "Prompt(chunk_tokens=256, label='prompt-1')"
