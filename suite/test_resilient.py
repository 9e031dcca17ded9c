"""Resilient: does it survive clients that disconnect, restarts, preemption, and a cache server that fails?

These tests run after all others, because some of them end or stop parts of the stack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import Storm, requirement, soak

if TYPE_CHECKING:
    from fixtures.experiments.control import Control
    from fixtures.experiments.hang_ups import Phase
    from fixtures.instruments.host_memory import HostMemory
    from fixtures.instruments.prompts import Prompts
    from fixtures.plugin.recording import Figures
    from fixtures.subject.stack import Stack

pytestmark = pytest.mark.run_disruptive

ANSWER_TOKENS = 4


@requirement("RES-01")
@pytest.mark.parametrize("phase", ["prefill", "stream", "load"])
def test_clients_that_disconnect_do_not_affect_others(
    stack: Stack, prompts: Prompts, control: Control, figures: Figures, phase: Phase
) -> None:
    """While clients disconnect in one phase of their requests, others are answered correctly, and nothing stays behind."""
    storm = Storm(stack, prompts, control)
    found = storm.hang_up(phase)
    figures(f"clients that disconnected in mid-{phase}", found.in_phase, "", n=found.clients)
    assert not found.lost, (
        f"expected every request of others to be answered while clients disconnected in mid-{phase}, {len(found.lost)} of "
        f"{found.others} were not: {found.lost[0]}"
    )
    assert (found.rest.running, found.rest.waiting) == (0, 0), (
        f"expected nothing running and nothing waiting after the clients disconnected, got {found.rest.running} and "
        f"{found.rest.waiting}"
    )
    assert not found.rest.kv_usage, f"expected no KV block held afterwards, got {found.rest.kv_usage:.2%} of the pool"
    assert not found.pinned, f"expected no object to stay pinned afterwards, got {found.pinned}"
    found.check_hit()
    for prompt, own in storm.known.items():
        control.assert_same(control.complete(prompt, ANSWER_TOKENS), prompt, own, ANSWER_TOKENS)
        stack.clear_prefix_cache()
        again = control.complete(prompt, ANSWER_TOKENS)
        assert again.sources.loaded == prompt.whole_chunk_tokens, (
            f"expected {prompt.whole_chunk_tokens} of {prompt.tokens} tokens loaded afterwards, got {again.sources}"
        )
        control.assert_same(again, prompt, own, ANSWER_TOKENS)


@requirement("RES-09")
@pytest.mark.exclusive_host
def test_an_hour_of_mixed_use_changes_nothing(
    stack: Stack, prompts: Prompts, host_memory: HostMemory, soak_s: float, figures: Figures
) -> None:
    """In the last minutes of a soak everything is still loaded, as quickly and in as much host memory as in the first."""
    found = soak(stack, prompts, host_memory, soak_s)
    figures("cycles of the soak", found.cycles, "")
    for name, unit, (first, last) in (
        ("TTFT cold / short prompt", "", found.cold),
        ("TTFT reload / short prompt", "", found.reload),
        ("host memory", "MiB", found.memory),
    ):
        figures.interval(f"{name}, first minutes", first, unit)
        figures.interval(f"{name}, last minutes", last, unit, better="lower")
    assert not found.lost, (
        f"expected every repeat to be loaded, {len(found.lost)} cycles lost some, first {found.lost[0]}"
    )
    assert not found.changed, f"expected the last minutes to be like the first, got {'; '.join(found.changed)}"
    found.check_decided()
