"""Accounted: how many tokens come from which source, exactly?"""

from __future__ import annotations

from operator import methodcaller
from typing import TYPE_CHECKING

import pytest

from . import reports_of, reports_through_router, reports_together, requirement, statistics_of, take_turns

if TYPE_CHECKING:
    from fixtures.instruments.prompts import Prompts
    from fixtures.instruments.text_requests import TextRequests
    from fixtures.plugin.recording import Figures
    from fixtures.plugin.tools import Early
    from fixtures.subject.stack import Stack

BOTH = pytest.mark.parametrize("endpoint", ["completions", "chat"])
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
SIZES = [1, 2, 8, 20]
"""Prompt lengths in chunks."""


@requirement("ACC-01")
@pytest.mark.parametrize("chunks", SIZES)
def test_a_cold_prompt_is_computed_and_stored(stack: Stack, prompts: Prompts, chunks: int) -> None:
    """Every token of a new prompt is computed, and all its whole chunks are stored."""
    for engine in stack.engines:
        prompt = prompts.unique(chunks=chunks)
        cold = stack.complete(prompt, engine=engine)
        assert cold.sources.computed == prompt.tokens, f"expected {prompt.tokens} computed tokens, got {cold.sources}"
        assert cold.sources.total == prompt.tokens, f"expected {prompt.tokens} tokens in all, got {cold.sources}"
        stored = stack.accounting.stored_tokens(cold)
        assert stored == prompt.whole_chunk_tokens, (
            f"expected {prompt.whole_chunk_tokens} of {prompt.tokens} tokens stored, as counted by the CPU tier, got {stored}"
        )


@requirement("ACC-02")
@pytest.mark.parametrize("chunks", SIZES)
def test_a_repeat_is_loaded_from_the_cpu_tier(stack: Stack, prompts: Prompts, chunks: int) -> None:
    """A repeated prompt without a GPU copy is loaded from host memory and not recomputed; so is a second repeat."""
    assert stack.chunk_tokens < stack.max_model_len, (
        f"expected a chunk shorter than the model's maximum length of {stack.max_model_len} tokens, got a chunk of "
        f"{stack.chunk_tokens} tokens: no prompt can ever be stored"
    )
    for engine in stack.engines:
        prompt = prompts.unique(chunks=chunks)
        stored = stack.complete(prompt, engine=engine)
        stack.accounting.expect_stores(stored)
        for nth in ("first", "second"):
            stack.clear_prefix_cache(engine=engine)
            again = stack.complete(prompt, engine=engine)
            assert again.sources.loaded == prompt.whole_chunk_tokens, (
                f"expected {prompt.whole_chunk_tokens} of {prompt.tokens} tokens loaded from the CPU tier by the {nth} repeat, "
                f"got {again.sources}"
            )
            assert again.sources.gpu_hit == 0, f"expected 0 tokens from the GPU prefix cache, got {again.sources}"
            assert again.sources.computed == prompt.rest_tokens, (
                f"expected {prompt.rest_tokens} computed tokens, got {again.sources}"
            )
            hits = stack.accounting.hit_tokens(again)
            assert hits == prompt.whole_chunk_tokens, (
                f"expected the cache to report {prompt.whole_chunk_tokens} hit tokens, like the engine, got {hits}"
            )


@requirement("ACC-02")
def test_the_tier_brings_what_the_gpu_has_lost(stack: Stack, prompts: Prompts) -> None:
    """If the start of a prompt is still on the GPU, the rest is loaded from the tier."""
    for engine in stack.engines:
        prompt = prompts.unique(chunks=8)
        stack.complete(prompt, engine=engine)
        stack.clear_prefix_cache(engine=engine)
        stack.complete(prompt.beginning(chunks=2), engine=engine)
        again = stack.complete(prompt, engine=engine)
        assert again.sources.reused == prompt.whole_chunk_tokens, (
            f"expected {prompt.whole_chunk_tokens} tokens from GPU and tier together, got {again.sources}"
        )


@requirement("ACC-02")
@pytest.mark.run_when_aged
def test_a_prompt_is_kept_as_long_as_there_is_room(stack: Stack, early: Early, figures: Figures) -> None:
    """KV that was stored early in the run and has not been evicted is still loaded."""
    figures("age of the stored prompt", early.age_s, "s")
    stack.clear_prefix_cache()
    again = stack.complete(early.prompt)
    assert again.sources.loaded == early.prompt.whole_chunk_tokens, (
        f"expected {early.prompt.whole_chunk_tokens} tokens of {early.prompt} loaded {early.age_s:.0f} s after they were "
        f"stored, got {again.sources}; the tier holds {stack.tier.tokens()} tokens, so no eviction was necessary"
    )


@requirement("ACC-03")
@STREAMED
@BOTH
def test_the_sources_add_up_to_the_prompt(
    stack: Stack, text_requests: TextRequests, endpoint: str, stream: bool
) -> None:
    """Computed, GPU hit and loaded tokens add up to the prompt; tokenizer and usage report the same number."""
    request = text_requests.request(endpoint, stream=stream, include_usage=stream)
    expected = stack.count_tokens(request)
    for step in ("cold", "GPU hit", "reload"):
        if step == "reload":
            stack.clear_prefix_cache()
        exchange = stack.send(request.path, request.payload)
        assert exchange.sources.total == expected, (
            f"{step}: expected the sources to add up to {expected} tokens (/tokenize), got {exchange.sources}"
        )
        assert exchange.usage.get("prompt_tokens") == expected, (
            f"{step}: expected usage.prompt_tokens = {expected} (/tokenize), got {exchange.usage}"
        )


@requirement("ACC-04")
def test_an_unrelated_prompt_loads_nothing(stack: Stack, prompts: Prompts) -> None:
    """A prompt that was never sent loads nothing, even if other prompts of the same length are in the tier."""
    for engine in stack.engines:
        stored = prompts.unique(chunks=8)
        stack.complete(stored, engine=engine)
        stack.clear_prefix_cache(engine=engine)
        unrelated = prompts.unique(chunks=8)
        other = stack.complete(unrelated, engine=engine)
        assert other.sources.loaded == 0, f"expected 0 loaded tokens for a new prompt, got {other.sources}"
        assert other.sources.computed == unrelated.tokens, (
            f"expected {unrelated.tokens} computed tokens, got {other.sources}"
        )
        changed = stack.complete(prompts.changed(stored, 1), engine=engine)
        assert changed.sources.loaded == 0, (
            f"expected 0 loaded tokens for a prompt with a different second token, got {changed.sources}"
        )


@requirement("ACC-05")
@pytest.mark.parametrize(
    "share", [0.0, 0.4, 1.0], ids=["at-a-chunk-border", "within-a-chunk", "all-but-the-last-token-of-a-chunk"]
)
def test_a_shared_prefix_is_reused_to_its_last_whole_chunk(stack: Stack, prompts: Prompts, share: float) -> None:
    """A prompt that shares a prefix with a stored prompt loads their common whole chunks, and no further token."""
    for engine in stack.engines:
        first = prompts.unique(chunks=8)
        stack.complete(first, engine=engine)
        stack.clear_prefix_cache(engine=engine)
        second = prompts.sharing(first, chunks=5, beyond=share)
        common = prompts.in_tokens(chunks=5)
        again = stack.complete(second, engine=engine)
        assert again.sources.loaded == common, (
            f"expected the {common} tokens of the 5 common whole chunks loaded, got {again.sources}"
        )
        assert again.sources.total == second.tokens, f"expected {second.tokens} tokens in all, got {again.sources}"


@requirement("ACC-08")
def test_every_turn_of_a_conversation_loads_the_earlier_ones(stack: Stack, text_requests: TextRequests) -> None:
    """Each of five chat turns loads the whole chunks that it shares with the previous turn."""
    for turn in take_turns(stack, text_requests, turns=5):
        assert turn.least <= turn.sources.loaded <= turn.most, (
            f"turn {turn.number}: expected {turn.least} of {turn.tokens} tokens loaded, the whole chunks that it shares with "
            f"the previous turn, got {turn.sources}"
        )
        assert turn.sources.total == turn.tokens, (
            f"turn {turn.number}: expected the sources to add up to {turn.tokens} tokens (/tokenize), got {turn.sources}"
        )


@requirement("ACC-06")
@pytest.mark.parametrize("offset", [-1, 0, 1], ids=["below-a-chunk", "exactly-a-chunk", "above-a-chunk"])
def test_a_prompt_around_one_chunk(stack: Stack, prompts: Prompts, offset: int) -> None:
    """Below one chunk, nothing is stored or loaded; from one chunk on, that chunk is. Every prompt is answered."""
    for engine in stack.engines:
        if offset < 0:
            engine.check_one_connector()
        prompt = prompts.unique(chunks=1, extra=offset)
        cold = stack.complete(prompt, engine=engine)
        assert cold.sources.computed == prompt.tokens, f"expected {prompt.tokens} computed tokens, got {cold.sources}"
        stack.clear_prefix_cache(engine=engine)
        stored = stack.accounting.stored_tokens(cold)
        assert stored in prompt.stored_counts, (
            f"expected {prompt.storable_tokens} stored tokens for {prompt}, got {stored}"
        )
        again = stack.complete(prompt, engine=engine)
        assert again.sources.loaded in prompt.loaded_counts, (
            f"expected {sorted(prompt.loaded_counts)} loaded tokens for {prompt}, got {again.sources}"
        )
        assert again.sources.total == prompt.tokens, f"expected {prompt.tokens} tokens in all, got {again.sources}"


@requirement("ACC-07")
@pytest.mark.impact("observes")
def test_the_metrics_that_operators_watch_exist(stack: Stack) -> None:
    """The engine exposes the metrics that dashboards use, under the expected names."""
    for engine in stack.engines:
        missing = stack.cache.missing_metrics("engine", engine)
        assert not missing, (
            f"expected the metrics of {engine.name} that operators monitor, missing: {', '.join(missing)}"
        )


@requirement("ACC-07")
def test_the_counters_that_operators_watch_move(stack: Stack, prompts: Prompts) -> None:
    """A store and a load change the cache metrics in the right direction, under the expected names."""
    for engine in stack.engines:
        prompt = prompts.unique(chunks=4)
        cold = stack.complete(prompt, engine=engine)
        stored = stack.accounting.cache_delta(cold, until=methodcaller("has_stored", prompt.whole_chunk_tokens))
        stack.clear_prefix_cache(engine=engine)
        again = stack.complete(prompt, engine=engine)
        found = stack.accounting.cache_delta(again, until=methodcaller("has_hit", prompt.whole_chunk_tokens))
        missing = stack.cache.missing_metrics("cache", engine)
        assert not missing, f"expected the cache metrics that operators monitor, missing: {', '.join(missing)}"
        assert not stored.counts_stores or stored.has_stored(1), (
            f"expected the stored counter to rise on a cold prompt, got {stored}"
        )
        assert found.has_hit(1), f"expected the hit counter to rise on a repeat, got {found}"
        assert found.has_looked_up_its_hits, f"expected at least as many lookup tokens as hit tokens, got {found}"


@requirement("ACC-09")
@pytest.mark.impact("asks")
@STREAMED
@BOTH
def test_a_fresh_prompt_and_its_repeat_report_their_cached_tokens(
    stack: Stack, text_requests: TextRequests, endpoint: str, stream: bool
) -> None:
    """The cached tokens in the usage of a fresh prompt and of its repeat are what the engine counts for them."""
    request = text_requests.request(endpoint, stream=stream, include_usage=stream)
    for report in reports_of(stack, request, ["fresh", "repeated"]):
        assert report.right, f"expected usage to report as cached what the engine counts, {report}"


@requirement("ACC-09")
@BOTH
def test_a_reload_reports_its_cached_tokens(stack: Stack, text_requests: TextRequests, endpoint: str) -> None:
    """The same for a prompt that is loaded from the tier."""
    for report in reports_of(stack, text_requests.request(endpoint), ["fresh", "reloaded"]):
        assert report.right, f"expected usage to report as cached what the engine counts, {report}"


@requirement("ACC-09")
def test_answers_in_flight_together_report_their_own_cached_tokens(stack: Stack, prompts: Prompts) -> None:
    """With 16 requests in flight, each answer reports the cached tokens of its own prompt, and the reports add up."""
    together = reports_together(stack, prompts)
    assert together.total.right, f"expected the reports to sum to what the engine counts, {together.total}"
    for report in together.reports:
        assert report.right, f"expected each answer to report the cached tokens of its own prompt, {report}"


@requirement("ACC-09")
@STREAMED
def test_cached_tokens_are_the_same_through_the_router(stack: Stack, text_requests: TextRequests, stream: bool) -> None:
    """Through the router, the cached tokens in the usage equal the count of the engine that answered."""
    request = text_requests.request("chat", stream=stream, include_usage=stream)
    for report in reports_through_router(stack, request, ["fresh", "repeated", "reloaded"]):
        assert report.right, f"expected usage to report as cached what the engine counts, {report}"


@requirement("ACC-09")
def test_the_statistics_of_a_request_are_right(stack: Stack, prompts: Prompts) -> None:
    """The statistics that LMCache adds to an answer equal what engine and cache count for the request."""
    for report in statistics_of(stack, prompts):
        assert report.right, f"expected LMCache's statistics of the request to equal what was counted, {report}"
