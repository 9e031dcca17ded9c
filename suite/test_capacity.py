"""Capacity: what happens around the size of the buffer?

One experiment serves all of these tests: filling a tier takes most of their time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import limits, requirement

if TYPE_CHECKING:
    from fixtures.experiments.capacity import Capacity
    from fixtures.plugin.recording import Figures

pytestmark = pytest.mark.exclusive_host


@requirement("CAP-01")
def test_half_of_the_buffer_reloads_completely(capacity: Capacity, figures: Figures) -> None:
    """Fresh prompts that fill half of the CPU tier are all loaded from it when they are sent again."""
    half = capacity.half()
    figures("working set of half the tier", half.expected, "tokens")
    figures("reloaded of half the tier", half.sources.loaded, "tokens", better="higher")
    half.check_decided()
    assert half.sources.loaded == half.expected, (
        f"expected all {half.expected} tokens of a working set of {limits.KEPT_SHARE} x the CPU tier loaded, got "
        f"{half.sources}; {half.short}"
    )


@requirement("CAP-02")
def test_a_tier_that_overflows_evicts_and_still_stores(capacity: Capacity, figures: Figures) -> None:
    """After twice as many tokens as the CPU tier holds, everything runs, and a fresh prompt is stored and reloaded."""
    after = capacity.overfilled()
    figures("sent to overfill the tier", after.sent, "tokens")
    assert not after.gone, f"expected every process to survive {after.sent} tokens, got {'; '.join(after.gone)}"
    assert after.stored in (after.fresh, None), (
        f"expected {after.fresh} tokens of a fresh prompt stored after {after.sent} tokens were sent, got {after.stored} in "
        "the CPU tier's own count"
    )
    assert after.loaded.loaded == after.fresh, (
        f"expected {after.fresh} tokens of a fresh prompt reloaded after {after.sent} tokens were sent, got {after.loaded}"
    )
    after.check_counted()
    assert after.evicted, f"expected the CPU tier to count evictions after {after.sent} tokens were sent, got none"
    figures("evicted", after.evicted, "chunks")


@requirement("CAP-02")
def test_nothing_fails_once_the_tier_has_overflowed(capacity: Capacity) -> None:
    """After the overload, no log line reports that offload failed."""
    failures = capacity.overfilled().logged_failures()
    assert not failures, (
        f"expected no failure signature after the overload, got {len(failures)}, the first: {failures[0]}"
    )


@requirement("CAP-01")
def test_half_of_the_buffer_reloads_once_it_evicts(capacity: Capacity, figures: Figures) -> None:
    """The same holds for the last prompts that were sent to a tier that had to evict others for them."""
    half = capacity.half_when_full()
    figures("reloaded of half the full tier", half.sources.loaded, "tokens", better="higher")
    half.check_decided()
    assert half.sources.loaded == half.expected, (
        f"expected all {half.expected} tokens of the last working set of {limits.KEPT_SHARE} x the CPU tier loaded, got "
        f"{half.sources}; {half.short}"
    )


@requirement("CAP-03")
def test_what_was_used_last_survives_longest(capacity: Capacity, figures: Figures) -> None:
    """When the CPU tier has evicted some prompts, nothing that was used after them is gone before them."""
    order = capacity.order()
    figures("read and still there", len(order.kept), "prompts")
    figures("read and evicted", len(order.gone), "prompts")
    assert not order.reversals, (
        f"expected what was used last to survive longest, {order.reversals[0][0]} is gone and {order.reversals[0][1]}, which "
        f"was used before, is still there ({len(order.gone)} gone, {len(order.kept)} kept)"
    )
    order.check_decided()
