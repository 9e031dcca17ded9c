"""Tiers: do those below the CPU tier keep what it evicts, over restarts, and is it quicker to load that than to compute it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import limits, look_at_addresses, measure_below, reload_evicted, requirement, restart

if TYPE_CHECKING:
    from fixtures.experiments.control import Control
    from fixtures.instruments.prompts import Prompts
    from fixtures.plugin.recording import AddEvidence, Figures
    from fixtures.subject.stack import Stack

ANSWER_TOKENS = 4


@requirement("TIR-01")
def test_what_the_cpu_tier_evicted_comes_from_below(
    stack: Stack, prompts: Prompts, control: Control, figures: Figures
) -> None:
    """After four times the size of the CPU tier was sent, the oldest prompts are loaded from below, and counted there."""
    found = reload_evicted(stack, prompts, control)
    figures("tokens loaded from below", sum(one.again.sources.loaded for one in found), "tokens", n=len(found))
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
    """Over verified pairs of requests, the whole 95 % interval of reload from below / cold is below 0.9."""
    found = measure_below(stack, prompts)
    ratio, cold, reload = found.ratio, found.cold.ms, found.reload.ms
    figures("prompt", found.prompt_tokens, "tokens")
    figures("floor", found.floor_ms, "ms")
    figures.interval("TTFT cold", cold, "ms", better="lower")
    figures.interval("TTFT reload from below", reload, "ms", better="lower")
    figures.interval("reload from below / cold", ratio, "", better="lower")
    found.check_decided(limits.RELOAD_OVER_COLD)
    assert ratio.high < limits.RELOAD_OVER_COLD, (
        f"expected reload from below / cold below {limits.RELOAD_OVER_COLD} with 95 % confidence, got {ratio} "
        f"(cold {cold.median:.0f} ms, reload {reload.median:.0f} ms)"
    )


@requirement("TIR-06")
@pytest.mark.shared_stack
def test_every_configured_address_and_path_is_served(stack: Stack, evidence: AddEvidence) -> None:
    """Every address and path of a tier, cache server or controller in the configuration leads somewhere."""
    addresses = look_at_addresses(stack)
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
