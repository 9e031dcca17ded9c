"""Tiers below the CPU tier: do they keep what it evicts, across restarts and within their size?

Is a load from them faster than a recompute, and are requests unharmed if a tier fails or its content is damaged?
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest

from . import (
    TierState,
    check_addresses,
    check_room,
    limits,
    loaded_tokens,
    measure_below,
    measure_lengths_below,
    mib,
    reload_evicted,
    requirement,
    restart,
    tier_outage,
    tier_size,
    wins_from,
)

if TYPE_CHECKING:
    from fixtures.experiments.control import Control
    from fixtures.experiments.tier_damage import Damage, Damaged
    from fixtures.instruments.prompts import Prompts
    from fixtures.plugin.recording import AddEvidence, Figures
    from fixtures.subject.stack import Stack

ANSWER_TOKENS = 4

UNNOTICED = (
    "the tier keeps no checksum, so whatever changes a byte in it changes answers without an error: let nothing else write to "
    'it, and encrypt it (LMCache 0.5.6: "serde": {"type": "aesgcm", ...} of --l2-adapter), which refuses altered bytes'
)


@requirement("TIR-01")
def test_what_the_cpu_tier_evicted_comes_from_below(
    stack: Stack, prompts: Prompts, control: Control, figures: Figures
) -> None:
    """After four times the size of the CPU tier was sent, what it has evicted is loaded from below, and counted there."""
    found = reload_evicted(stack, prompts, control)
    figures("tokens loaded from below", loaded_tokens(found), "tokens", n=len(found))
    for one in found:
        whole = one.prompt.whole_chunk_tokens
        assert one.again.sources.loaded == whole, (
            f"expected {whole} tokens of {one.prompt} from the tier below, {limits.WORKING_SET:g} x the size of the CPU tier "
            f"after it was stored, got {one.again.sources}"
        )
        one.check_evicted()
        assert set(one.counts.values()) == {whole}, (
            f"expected all of the {whole} loaded tokens of {one.prompt} to be counted as coming from below, got {one.counts}"
        )
        control.assert_same(one.again, one.prompt, one.expected, ANSWER_TOKENS)


@requirement("TIR-05")
@pytest.mark.exclusive_host
def test_a_reload_from_below_reaches_the_first_token_sooner(stack: Stack, prompts: Prompts, figures: Figures) -> None:
    """Over verified pairs of requests, the whole interval of reload from below / cold is below the limit."""
    found = measure_below(stack, prompts)
    ratio, cold, reload = found.ratio, found.cold.ms, found.reload.ms
    figures("prompt", found.prompt_tokens, "tokens")
    figures("floor", found.floor_ms, "ms")
    figures.interval("TTFT cold", cold, "ms", better="lower")
    figures.interval("TTFT reload from below", reload, "ms", better="lower")
    figures.interval("reload from below / cold", ratio, "", better="lower")
    found.check_decided(limits.RELOAD_OVER_COLD)
    assert ratio.high < limits.RELOAD_OVER_COLD, (
        f"expected reload from below / cold below {limits.RELOAD_OVER_COLD} with {limits.CONFIDENCE:.0%} confidence, got "
        f"{ratio} (cold {cold.median:.0f} ms, reload {reload.median:.0f} ms)"
    )


@requirement("TIR-05")
@pytest.mark.exclusive_host
def test_a_reload_from_below_wins_at_every_length_with_room(stack: Stack, prompts: Prompts, figures: Figures) -> None:
    """At every length whose floor leaves room, the interval of reload from below / cold is below the limit."""
    found = measure_lengths_below(stack, prompts)
    for one in found:
        figures.interval(f"TTFT cold, {one.prompt_tokens} tokens", one.cold.ms, "ms")
        figures.interval(f"TTFT reload from below, {one.prompt_tokens} tokens", one.reload.ms, "ms")
        figures.interval(f"reload from below / cold, {one.prompt_tokens} tokens", one.ratio, "", better="lower")
        figures.interval(f"reload from below, {one.prompt_tokens} tokens", one.gb_per_s, "GB/s", better="higher")
    if (shortest := wins_from(found)) is not None:
        figures("a reload from below is quicker from a prompt of", shortest, "tokens")
    for one in [one for one in found if one.room]:
        assert not one.loses(limits.RELOAD_OVER_COLD), (
            f"expected reload from below / cold below {limits.RELOAD_OVER_COLD} at {one.prompt_tokens} tokens, got {one.ratio}"
        )
        one.check_decided(limits.RELOAD_OVER_COLD)
    figures("bandwidth of the tier below, by itself", stack.tier.below.gb_per_s, "GB/s")
    check_room(found)


@requirement("TIR-06")
@pytest.mark.shared_stack
def test_every_configured_address_and_path_is_served(stack: Stack, evidence: AddEvidence) -> None:
    """Every configured address and path of a tier, cache server or controller is served."""
    addresses = check_addresses(stack)
    evidence("addresses and paths", "\n".join(addresses.looked_at))
    wrong = "; ".join(addresses.unserved)
    assert not wrong, f"expected every configured address and path to be served, got {wrong}"


@requirement("TIR-02")
@pytest.mark.run_disruptive
@pytest.mark.parametrize("engine_too", [False, True], ids=["cache-server", "engine-and-cache-server"])
def test_a_persistent_tier_survives_a_restart(
    stack: Stack, prompts: Prompts, control: Control, engine_too: bool, figures: Figures, evidence: AddEvidence
) -> None:
    """What was written below before a kill is loaded from there after it; what was being written gives no wrong answer."""
    found = restart(stack, prompts, control, engine_too=engine_too)
    evidence("timeline of the restart", found.timeline)
    figures("time until the first reload", found.serves_s, "s", better="lower")
    for prompt, again in found.kept:
        assert again.sources.loaded == prompt.whole_chunk_tokens, (
            f"expected {prompt.whole_chunk_tokens} tokens of {prompt} from the tier below, which had them before the restart, "
            f"got {again.sources}"
        )
    found.check_from_below()
    for prompt, again in (*found.kept, *found.interrupted):
        control.assert_near_anew(again, prompts, prompt, ANSWER_TOKENS)


@requirement("TIR-03")
@pytest.mark.run_disruptive
@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
def test_a_tier_stays_within_its_size(stack: Stack, prompts: Prompts, figures: Figures, *, restart: bool) -> None:
    """A tier that is sent twice its size holds no more than its size, also if its server was restarted meanwhile."""
    found = tier_size(stack, prompts, restart=restart)
    figures("bytes in the tier / its size", found.share, "", better="lower")
    assert found.share <= limits.TIER_SIZE, (
        f"expected at most {mib(found.size_bytes):.0f} MiB in the {found.tier}, its configured size, got "
        f"{mib(found.most_bytes):.0f} MiB after {mib(found.sent_bytes):.0f} MiB were sent"
        f"{' before and after a restart' if restart else ''}"
    )
    found.check_filled()


@requirement("TIR-04")
@pytest.mark.run_disruptive
@pytest.mark.parametrize("state", get_args(TierState))
def test_a_tier_that_fails_harms_no_request(
    stack: Stack, prompts: Prompts, control: Control, figures: Figures, evidence: AddEvidence, state: TierState
) -> None:
    """Prompts are answered in time and correctly, the failure is reported, and the tier is used again afterwards."""
    found = tier_outage(stack, prompts, control, state)
    evidence(f"timeline, tier {state}", found.timeline)
    evidence(f"what was reported, tier {state}", "\n".join(found.reports))
    figures(f"longest request, tier {state}", found.slowest_s, "s", better="lower")
    figures(f"requests lost, tier {state}", found.lost, "", n=found.asked)
    assert not found.ended, (
        f"expected everything to run on while the {found.tier} is {state}, got {'; '.join(found.ended)}"
    )
    assert not found.late, (
        f"expected an answer within {limits.TIER_ANSWER_S:.0f} s while the {found.tier} is {state}, got {found.late[0]}"
    )
    assert not found.failed, f"expected an answer while the {found.tier} is {state}, got {found.failed[0]}"
    assert found.stalls <= limits.STALLS, (
        f"expected misses not to wait for the {found.tier} while it is {state}, {found.stalls} of {len(found.waits_s)} waited, "
        f"up to {found.longest_wait_s:.1f} s"
    )
    for one in found.compared:
        control.assert_own(one.answer, one.prompt, one.expected, one.other)
    assert found.reports, (
        f"expected log, metrics or status of its server to report that the {found.tier} is {state}, got nothing"
    )
    assert found.recovered_s is not None, (
        f"expected a prompt to be stored in the {found.tier} and loaded from it within {limits.TIER_RECOVERED_S:.0f} s after "
        f"it was no longer {state}"
    )
    figures(f"time until the tier is used, after {state}", found.recovered_s, "s", better="lower")
    found.check_decided()


@requirement("COR-07")
@pytest.mark.run_disruptive
@pytest.mark.parametrize("how", ["removed", "truncated"])
def test_lost_content_of_a_tier_is_never_served(damaged: Damaged, control: Control, how: Damage) -> None:
    """A prompt whose content in the tier is gone, or cut short, is recomputed or refused; no answer is mixed up."""
    assert not damaged.late, (
        f"expected content of the {damaged.tier} that was {how} to be recomputed or refused, got {damaged.late}"
    )
    for one in damaged.compared:
        control.assert_own(one.answer, one.prompt, one.expected, one.other)


@requirement("COR-08")
@pytest.mark.run_disruptive
@pytest.mark.parametrize("how", ["altered", "swapped"])
def test_altered_content_of_a_tier_is_detected(damaged: Damaged, control: Control, how: Damage) -> None:
    """A prompt whose content in the tier was altered, or is that of another prompt, is recomputed or refused."""
    damaged.check_read()
    assert not damaged.loaded, (
        f"expected {how} content of the {damaged.tier} to be detected, got {damaged.loaded} of its {damaged.whole} tokens "
        f"loaded: {UNNOTICED}"
    )
    for one in damaged.compared:
        control.assert_own(one.answer, one.prompt, one.expected, one.other)
