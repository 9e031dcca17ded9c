"""Correct: is the answer the same as without the reload?

The control of a reload is the answer from the GPU's own copy at a length of k whole chunks and at most one block more: both
compute the very same suffix from the same KV, so they have to agree to the last bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest

from . import Below, fill_tier, requirement

if TYPE_CHECKING:
    from fixtures.experiments.control import Control, Suffix
    from fixtures.instruments.prompts import Prompts
    from fixtures.subject.stack import Stack

ANSWER_TOKENS = 4


@requirement("COR-01")
@pytest.mark.parametrize("chunks", [1, 4, 8, 20, "longest"])
def test_a_reload_gives_the_same_answer_bit_for_bit(
    stack: Stack, prompts: Prompts, control: Control, chunks: int | Literal["longest"]
) -> None:
    """The answer from reloaded KV equals the answer from a GPU hit in every log-probability; so does a second reload."""
    for engine in stack.engines:
        prompt = prompts.longest() if chunks == "longest" else prompts.unique(chunks=chunks)
        expected = control.answer(prompt, ANSWER_TOKENS, engine=engine)
        control.require_input_sensitivity(prompts, prompt, expected, ANSWER_TOKENS)
        for _ in range(2):
            stack.clear_prefix_cache(engine=engine)
            again = control.complete(prompt, ANSWER_TOKENS, engine=engine)
            control.check_reloaded(again, prompt)
            control.assert_same(again, prompt, expected, ANSWER_TOKENS, engine=engine)


@requirement("COR-01")
@pytest.mark.parametrize("suffix", ["two", "block"])
@pytest.mark.parametrize("chunks", [1, 8])
def test_a_reload_before_a_prefill_gives_the_same_answer_bit_for_bit(
    stack: Stack, prompts: Prompts, control: Control, chunks: int, suffix: Suffix
) -> None:
    """The same if more than one token is left to compute: the step after the load is a prefill, not a decode."""
    for engine in stack.engines:
        prompt = prompts.unique(chunks=chunks, extra=control.suffix(suffix))
        expected = control.answer(prompt, ANSWER_TOKENS, engine=engine)
        stack.clear_prefix_cache(engine=engine)
        again = control.complete(prompt, ANSWER_TOKENS, engine=engine)
        control.check_reloaded(again, prompt)
        control.assert_same(again, prompt, expected, ANSWER_TOKENS, engine=engine)


@requirement("COR-02")
def test_concurrent_reloads_do_not_mix(stack: Stack, prompts: Prompts, control: Control) -> None:
    """With sixteen reloads in flight, every request gets its own KV and its own answer."""
    asked = [prompts.unique(chunks=4) for _ in range(16)]
    expected = [control.answer(prompt, ANSWER_TOKENS) for prompt in asked]
    stack.clear_prefix_cache()
    # Every fifth request is a new prompt: loads and computation have to share the engine.
    together, tokens = stack.complete_concurrently(
        prompts.mixed_with_new(asked, every=4), at_once=16, max_tokens=ANSWER_TOKENS, logprobs=control.logprobs
    )
    control.check_loaded(tokens, asked)
    reloaded = [exchange for exchange in together if exchange.prompt in asked]
    for exchange, own in zip(reloaded, expected, strict=True):
        nearest = control.closest_answer(exchange, expected)
        assert nearest is own, (
            f"expected the answer to {own.prompt}, got the answer to {nearest.prompt}: "
            f"{exchange.text!r} against {own.text!r}"
        )
    # Answers of a batch may differ in their last bits; the KV that the reloads left on the GPU may not.
    for prompt, own in zip(asked, expected, strict=True):
        control.assert_same(control.complete(prompt, ANSWER_TOKENS), prompt, own, ANSWER_TOKENS)


@requirement("COR-03")
def test_prompts_of_any_length_and_prefix_never_leak(stack: Stack, prompts: Prompts, control: Control) -> None:
    """Prompts with unique and with shared beginnings, reloaded in random order, each get their own answer."""
    canaries = prompts.canaries()
    expected = {prompt: control.answer(prompt, ANSWER_TOKENS) for prompt in canaries}
    for prompt in prompts.shuffled(canaries):
        stack.clear_prefix_cache()
        again = control.complete(prompt, ANSWER_TOKENS)
        control.check_reloaded(again, prompt)
        control.assert_same(again, prompt, expected[prompt], ANSWER_TOKENS, among=expected)


@requirement("COR-03")
@pytest.mark.exclusive_host
def test_reloads_are_right_once_the_tier_has_evicted(stack: Stack, prompts: Prompts, control: Control) -> None:
    """A prompt that is stored in place of evicted content is reloaded with its own KV."""
    fill_tier(stack, prompts)
    asked = [prompts.unique(chunks=8) for _ in range(4)]
    expected = [control.answer(prompt, ANSWER_TOKENS) for prompt in asked]
    for prompt, own in zip(asked, expected, strict=True):
        stack.clear_prefix_cache()
        again = control.complete(prompt, ANSWER_TOKENS)
        control.check_reloaded(again, prompt)
        control.assert_same(again, prompt, own, ANSWER_TOKENS)


@requirement("COR-04")
def test_a_prefix_half_on_the_gpu_half_in_the_tier_is_correct(stack: Stack, prompts: Prompts, control: Control) -> None:
    """A prompt with its first chunks on the GPU and the rest in the tier gets the same answer as from the GPU alone."""
    control.require_partial_hit_control(aligned=True)
    prompt = prompts.unique(chunks=8)
    expected = control.answer(prompt, ANSWER_TOKENS)
    stack.clear_prefix_cache()
    stack.complete(prompt.beginning(chunks=2))
    again = control.complete(prompt, ANSWER_TOKENS)
    control.require_partial_hit(again, prompt)
    control.assert_same(again, prompt, expected, ANSWER_TOKENS)


@requirement("COR-04")
def test_a_prefix_that_ends_within_a_chunk_on_the_gpu_is_correct(
    stack: Stack, prompts: Prompts, control: Control
) -> None:
    """The same if the GPU part ends within a chunk; some tokens are then recomputed, so no bit-identity is required."""
    control.require_partial_hit_control(aligned=False)
    prompt = prompts.unique(chunks=8)
    expected = control.answer(prompt, ANSWER_TOKENS)
    changed = control.require_input_sensitivity(prompts, prompt, expected, ANSWER_TOKENS)
    stack.clear_prefix_cache()
    stack.complete(prompt.beginning(chunks=2.5))
    again = control.complete(prompt, ANSWER_TOKENS)
    control.require_partial_hit(again, prompt)
    control.assert_near(again, prompt, expected, changed)


@requirement("COR-05")
def test_kv_is_never_reused_across_a_cache_salt(stack: Stack, prompts: Prompts, control: Control) -> None:
    """KV that one tenant stored is never loaded by another tenant (another cache salt, or none); the first tenant loads it."""
    for engine in stack.engines:
        prompt = prompts.unique(chunks=4)
        stack.complete(prompt, engine=engine, cache_salt="tenant-a")
        stack.clear_prefix_cache(engine=engine)
        others: dict[str, dict[str, Any]] = {"another salt": {"cache_salt": "tenant-b"}, "no salt": {}}
        for which, options in others.items():
            other = stack.complete(prompt, engine=engine, **options).sources
            assert other.reused == 0, f"expected 0 reused tokens for a request with {which}, got {other}"
            control.check_total(other, prompt)
        stack.clear_prefix_cache(engine=engine)
        control.check_reloaded(stack.complete(prompt, engine=engine, cache_salt="tenant-a"), prompt)


@requirement("COR-05")
def test_kv_below_is_never_reused_across_a_cache_salt(stack: Stack, prompts: Prompts, control: Control) -> None:
    """The same for the content of a tier below the CPU tier, requested from every engine that shares it."""
    below = Below(stack, prompts)
    prompt = prompts.unique(chunks=4)
    below.clear_above()  # a full CPU tier takes nothing, and then nothing is written below
    below.store(prompt, cache_salt="tenant-a")
    below.check_written()
    for engine in stack.engines:
        below.clear_above()
        other = stack.complete(prompt, engine=engine, cache_salt=f"tenant of {engine.name}").sources
        assert other.reused == 0, f"expected 0 reused tokens for another tenant on {engine.name}, got {other}"
        control.check_total(other, prompt)
    below.clear_above()
    other = stack.complete(prompt).sources
    assert other.reused == 0, f"expected 0 reused tokens for a request without a salt, got {other}"
    below.clear_above()
    again = stack.complete(prompt, cache_salt="tenant-a")
    control.check_reloaded(again, prompt)
    assert again.sources.from_below in {None, prompt.whole_chunk_tokens}, (
        f"expected {prompt.whole_chunk_tokens} tokens of the first tenant from below the CPU tier, got {again.sources}"
    )


@requirement("COR-05")
def test_kv_is_never_reused_across_adapters(stack: Stack, prompts: Prompts, control: Control) -> None:
    """KV that was stored under one LoRA adapter is never loaded under another one, or none; the first adapter loads it."""
    first, *others = stack.adapters
    prompt = prompts.unique(chunks=4)
    stack.complete(prompt, model=first)
    for which in (*others, stack.model):
        stack.clear_prefix_cache()
        other = stack.complete(prompt, model=which).sources
        assert other.reused == 0, (
            f"expected 0 reused tokens for a request to {which}, as they were stored for the adapter {first}, got {other}"
        )
        control.check_total(other, prompt)
    stack.clear_prefix_cache()
    control.check_reloaded(stack.complete(prompt, model=first), prompt)
