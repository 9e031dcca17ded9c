"""Correct: is the answer the same as without the reload?

The control of a reload is the answer from the GPU's own copy at a length of k whole chunks plus one token: both compute
the very same single token from the same KV, so they have to agree to the last bit.
"""

from __future__ import annotations

import pytest

from fixtures.measure.exchange import first_difference
from fixtures.verdict.plugin import requirement

ANSWER_TOKENS = 4


@requirement("COR-01")
@pytest.mark.parametrize("chunks", [1, 4, 8, 20, "longest"])
def test_a_reload_gives_the_same_answer_bit_for_bit(stack, prompts, control, chunks):
    """The answer from reloaded KV equals the answer from the GPU's own copy in every log-probability, the second time too."""
    for engine in stack.engines:
        prompt = prompts.longest() if chunks == "longest" else prompts.unique(chunks=chunks)
        expected = control.answer(prompt, ANSWER_TOKENS, engine=engine)
        control.check_witness(prompts, prompt, expected, ANSWER_TOKENS)
        for time in ("first", "second"):
            stack.drop_gpu_copy(engine=engine)
            again = stack.ask(prompt, engine=engine, max_tokens=ANSWER_TOKENS, logprobs=5)
            control.check_reloaded(again, prompt)
            difference = first_difference(again.fingerprint, expected.fingerprint)
            assert not difference, (
                f"expected the same answer from {prompt.whole_chunk_tokens} reloaded tokens as from the {control.name} on "
                f"{engine.name}, the {time} time: {difference}"
            )


@requirement("COR-02")
def test_concurrent_reloads_do_not_mix(stack, prompts, control):
    """Sixteen reloads in flight at once: every request gets its own KV, and its own answer."""
    asked = [prompts.unique(chunks=4) for _ in range(16)]
    expected = [control.answer(prompt, ANSWER_TOKENS) for prompt in asked]
    stack.drop_gpu_copy()
    # Every fifth request is a new prompt: loads and computation have to share the engine.
    mixed = [prompt for at in range(0, 16, 4) for prompt in (*asked[at : at + 4], prompts.unique(chunks=4))]
    together, tokens = stack.ask_together(mixed, at_once=16, max_tokens=ANSWER_TOKENS, logprobs=5)
    whole = sum(prompt.whole_chunk_tokens for prompt in asked)
    control.check_loaded(tokens, whole)
    reloaded = [exchange for exchange in together if exchange.prompt in asked]
    for exchange, own in zip(reloaded, expected, strict=True):
        nearest = control.nearest(exchange, expected)
        assert nearest is own, (
            f"expected the answer to {own.prompt} to be its own, it is that of {nearest.prompt}: "
            f"{exchange.text!r} against {own.text!r}"
        )
    # Answers of a batch may differ in their last bits; the KV that the reloads left on the GPU may not.
    for prompt, own in zip(asked, expected, strict=True):
        left = stack.ask(prompt, max_tokens=ANSWER_TOKENS, logprobs=5)
        difference = first_difference(left.fingerprint, own.fingerprint)
        assert not difference, f"expected KV loaded among 16 to be that of {prompt}: {difference}"


@requirement("COR-03")
def test_prompts_of_any_length_and_prefix_never_leak(stack, prompts, control):
    """Prompts with a unique beginning, others with a shared one, reloaded in random order: each gets its own answer."""
    chunk = prompts.chunk_tokens
    base = prompts.unique(chunks=6)
    canaries = [prompts.unique(chunks=2 + number % 5) for number in range(8)]
    canaries += [prompts.continued(base, keep_tokens=kept * chunk, tokens=base.tokens) for kept in (1, 3, 5)]
    canaries += [prompts.changed(base, position) for position in (1, 2 * chunk, 6 * chunk - 1)]
    canaries += [base]
    expected = {prompt: control.answer(prompt, ANSWER_TOKENS) for prompt in canaries}
    for prompt in prompts.shuffled(canaries):
        stack.drop_gpu_copy()
        again = stack.ask(prompt, max_tokens=ANSWER_TOKENS, logprobs=5)
        control.check_reloaded(again, prompt)
        difference = first_difference(again.fingerprint, expected[prompt].fingerprint)
        assert not difference, (
            f"expected the answer of {prompt}, got that of {control.nearest(again, expected.values()).prompt}: {difference}"
        )


@requirement("COR-03")
@pytest.mark.alone
def test_reloads_are_right_once_the_tier_has_evicted(stack, prompts, control):
    """What is stored where something else was evicted comes back as that prompt's own KV."""
    stack.fill_tier(prompts)
    asked = [prompts.unique(chunks=8) for _ in range(4)]
    expected = [control.answer(prompt, ANSWER_TOKENS) for prompt in asked]
    for prompt, own in zip(asked, expected, strict=True):
        stack.drop_gpu_copy()
        again = stack.ask(prompt, max_tokens=ANSWER_TOKENS, logprobs=5)
        control.check_reloaded(again, prompt)
        difference = first_difference(again.fingerprint, own.fingerprint)
        assert not difference, f"expected {prompt} to come back right from a tier that has evicted: {difference}"


@requirement("COR-04")
@pytest.mark.parametrize("on_gpu", [2.0, 2.5], ids=["aligned", "within-a-chunk"])
def test_a_prefix_half_on_the_gpu_half_in_the_tier_is_correct(stack, prompts, control, on_gpu):
    """A prompt whose beginning is on the GPU and whose rest is in the tier gives the same answer as from the GPU alone."""
    prompt = prompts.unique(chunks=8)
    beginning = prompt.first(int(on_gpu * prompts.chunk_tokens) + 1)
    control.check_mixed(aligned=on_gpu == int(on_gpu))
    expected = control.answer(prompt, ANSWER_TOKENS)
    stack.drop_gpu_copy()
    stack.ask(beginning)
    again = stack.ask(prompt, max_tokens=ANSWER_TOKENS, logprobs=5)
    control.check_mixed_reload(again, prompt)
    difference = first_difference(again.fingerprint, expected.fingerprint)
    assert not difference, f"expected the same answer from GPU and tier as from the {control.name}: {difference}"


@requirement("COR-05")
def test_kv_is_never_reused_across_a_cache_salt(stack, prompts, control):
    """What one tenant stored, another one (another cache salt, or none) never loads; the first one does."""
    prompt = prompts.unique(chunks=4)
    stack.ask(prompt, cache_salt="tenant-a")
    stack.drop_gpu_copy()
    for who, salt in (("another salt", {"cache_salt": "tenant-b"}), ("no salt", {})):
        other = stack.ask(prompt, **salt)
        assert other.tokens.computed == prompt.tokens, (
            f"expected a request with {who} to compute all {prompt.tokens} tokens, got {other.tokens}"
        )
    stack.drop_gpu_copy()
    control.check_reloaded(stack.ask(prompt, cache_salt="tenant-a"), prompt)
