"""Active: does the engine store, find and load KV for *this* request, according to its own log?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import requirement

if TYPE_CHECKING:
    from fixtures.instruments.prompts import Prompts
    from fixtures.plugin.recording import AddEvidence, Figures
    from fixtures.subject.stack import Stack

SIZES = [2, 8, 20]
"""Prompt lengths in chunks: short, medium, and longer than one prefill step (2 048 tokens by default)."""


@requirement("ACT-01")
def test_the_offload_layer_is_up(stack: Stack) -> None:
    """The offload layer is initialised, and no log line reports degraded mode."""
    failures = stack.logs.findings("init")
    assert not failures, f"expected the offload layer to initialise, got in the log: {failures[0]}"
    for engine in stack.engines:
        assert stack.logs.offload_announced(engine), (
            f"expected engine {engine.name}, or its cache server, to log that LMCache or vLLM's own connector has started, "
            "got no such line: the engine runs without an offload layer"
        )


@requirement("ACT-02")
@pytest.mark.parametrize("chunks", SIZES)
def test_a_long_prompt_is_stored(stack: Stack, prompts: Prompts, evidence: AddEvidence, chunks: int) -> None:
    """The log shows that all whole chunks of a new prompt were stored."""
    stack.logs.require_info_level()
    for engine in stack.engines:
        prompt = prompts.unique(chunks=chunks)
        cold = stack.complete(prompt, engine=engine)
        facts = stack.accounting.logged(cold, cold.stored_in)
        evidence(f"log of the cold request, {engine.name}", stack.accounting.log_of(cold).text())
        stored = cold.stored_in(facts)
        assert stored == prompt.whole_chunk_tokens, (
            f"expected 'Stored' lines for {prompt.whole_chunk_tokens} tokens of {prompt}, "
            f"got {stored} tokens in {len(facts.stored)} lines"
        )


@requirement("ACT-03")
@pytest.mark.parametrize("chunks", SIZES)
def test_a_repeat_is_found_and_retrieved(stack: Stack, prompts: Prompts, evidence: AddEvidence, chunks: int) -> None:
    """The log shows that a repeat without a GPU copy was found in the tier and retrieved from it."""
    stack.logs.require_info_level()
    for engine in stack.engines:
        prompt = prompts.unique(chunks=chunks)
        stack.complete(prompt, engine=engine)
        stack.clear_prefix_cache(engine=engine)
        again = stack.complete(prompt, engine=engine)
        facts = stack.accounting.logged(again, again.retrieved_in)
        evidence(f"log of the repeat, {engine.name}", stack.accounting.log_of(again).text())
        hits, retrieved = again.hit_in(facts), again.retrieved_in(facts)
        assert hits == prompt.whole_chunk_tokens, (
            f"expected a hit line for {prompt.whole_chunk_tokens} tokens of {prompt}, got {hits} in {len(facts.hits)} lines"
        )
        assert retrieved == prompt.whole_chunk_tokens, (
            f"expected 'Retrieved' lines for {prompt.whole_chunk_tokens} tokens of {prompt}, "
            f"got {retrieved} tokens in {len(facts.retrieved)} lines"
        )


@requirement("ACT-04")
@pytest.mark.run_late
def test_nothing_in_the_log_says_that_offload_failed(stack: Stack, evidence: AddEvidence) -> None:
    """Every process of the stack keeps running, and no log line has the signature of a known offload failure."""
    gone = stack.health.gone()
    assert not gone, f"expected every process to run until the end of the run, got {'; '.join(gone.values())}"
    failures = stack.logs.findings("run")
    if earlier := stack.logs.earlier_findings("run"):
        evidence("logged before this run, not judged", "\n".join(map(str, earlier)))
    assert not failures, (
        f"expected no failure signature in the logs, got {len(failures)}, the first at {failures[0].line.time}: "
        f"{failures[0]}"
    )


@requirement("ACT-05")
@pytest.mark.run_late
def test_what_was_loaded_does_not_stay_pinned(stack: Stack, prompts: Prompts, figures: Figures) -> None:
    """After three reloads, no more objects are pinned than before."""
    before = stack.cache.pinned_when_idle()
    for _ in range(3):
        prompt = prompts.unique(chunks=4)
        stack.complete(prompt)
        stack.clear_prefix_cache()
        stack.complete(prompt)
    # Pins of earlier tests (clients that disconnected) are not counted again: their number may only fall.
    pinned = stack.cache.pinned_when_idle(expected=before)
    figures("pinned objects at rest", pinned, "objects")
    assert pinned <= before, f"expected at most {before} pinned objects, as before the three reloads, got {pinned}"


@requirement("ACT-05")
@pytest.mark.run_late
def test_no_warning_hints_at_an_accounting_defect(stack: Stack, evidence: AddEvidence) -> None:
    """The log has no double unpin, no unknown error, and no pin that was released by force."""
    if earlier := stack.logs.earlier_findings("warning"):
        evidence("logged before this run, not judged", "\n".join(map(str, earlier)))
    warnings = stack.logs.findings("warning")
    assert not warnings, f"expected no warning and no unknown error, got {len(warnings)}, the first: {warnings[0]}"
