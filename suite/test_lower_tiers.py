"""Tiers below host memory: do they stay in their bounds, and does what fails or is damaged there harm no request?

These tests run after all others, because they stop, fill and damage such a tier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest

from . import Damage, TierState, answer_damaged, limits, mib, requirement, tier_outage, tier_size

if TYPE_CHECKING:
    from fixtures.experiments.control import Control
    from fixtures.instruments.prompts import Prompts
    from fixtures.plugin.recording import AddEvidence, Figures
    from fixtures.subject.stack import Stack

pytestmark = pytest.mark.run_disruptive

UNNOTICED = (
    "the tier keeps no checksum, so whatever changes a byte in it changes answers without a word: let nothing else write to "
    'it, and encrypt it (LMCache 0.5.6: "serde": {"type": "aesgcm", ...} of --l2-adapter), which refuses altered bytes'
)


@requirement("TIR-03")
@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
def test_a_tier_stays_within_its_size(stack: Stack, prompts: Prompts, figures: Figures, *, restart: bool) -> None:
    """A tier that is sent twice its size holds no more than its size, also if its cache server was restarted meanwhile."""
    found = tier_size(stack, prompts, restart=restart)
    figures("bytes in the tier / its size", found.share, "", better="lower")
    assert found.share <= limits.TIER_SIZE, (
        f"expected at most {mib(found.size_bytes):.0f} MiB in the {found.tier}, its configured size, got "
        f"{mib(found.most_bytes):.0f} MiB after {mib(found.sent_bytes):.0f} MiB were sent"
        + (" before and after a restart of its cache server" if restart else "")
    )
    found.check_filled()


@requirement("TIR-04")
@pytest.mark.parametrize("state", get_args(TierState))
def test_a_tier_that_fails_harms_no_request(
    stack: Stack, prompts: Prompts, control: Control, figures: Figures, evidence: AddEvidence, state: TierState
) -> None:
    """Prompts are answered in time and correctly, it is told that the tier is away, and it is used again once it is back."""
    found = tier_outage(stack, prompts, control, state)
    evidence(f"timeline, tier {state}", found.timeline)
    evidence(f"what was told, tier {state}", "\n".join(found.told))
    figures(f"longest request, tier {state}", found.slowest_s, "s", better="lower")
    figures(f"requests lost, tier {state}", found.lost, "", n=found.asked)
    assert not found.ended, (
        f"expected everything to run on while the {found.tier} is {state}, got {'; '.join(found.ended)}"
    )
    assert not found.late, (
        f"expected an answer within {limits.DEGRADED_S:.0f} s while the {found.tier} is {state}, got {found.late[0]}"
    )
    assert not found.failed, f"expected an answer while the {found.tier} is {state}, got {found.failed[0]}"
    assert found.stalls < 2, (
        f"expected misses not to wait for the {found.tier} while it is {state}, {found.stalls} of {len(found.waits_s)} waited, "
        f"up to {max(found.waits_s):.1f} s"
    )
    for one in found.compared:
        control.assert_own(one.answer, one.prompt, one.expected, one.other)
    assert found.told, (
        f"expected the log, the metrics or the status of the cache server to tell that the {found.tier} is {state}, got nothing"
    )
    assert found.recovered_s is not None, (
        f"expected a prompt to be stored in the {found.tier} and loaded from it within {limits.RECOVERED_S:.0f} s after it was "
        f"no longer {state}"
    )
    figures(f"time until the tier is used, after {state}", found.recovered_s, "s", better="lower")
    found.check_decided()


@requirement("COR-07")
@pytest.mark.parametrize("how", ["removed", "truncated"])
def test_lost_content_of_a_tier_is_never_served(
    stack: Stack, prompts: Prompts, control: Control, figures: Figures, how: Damage
) -> None:
    """A prompt whose content in the tier is gone, or cut short, is recomputed or refused; no answer is another one."""
    found = answer_damaged(stack, prompts, control, how)
    figures(f"tokens loaded of {how} content", found.loaded, "tokens")
    figures(f"an undamaged prompt is loaded after {how} content was met", float(found.still_served), "")
    assert not found.late, (
        f"expected content of the {found.tier} that was {how} to be recomputed or refused, got {found.late}"
    )
    for one in found.compared:
        control.assert_own(one.answer, one.prompt, one.expected, one.other)


@requirement("COR-08")
@pytest.mark.parametrize("how", ["altered", "swapped"])
def test_altered_content_of_a_tier_is_detected(
    stack: Stack, prompts: Prompts, control: Control, figures: Figures, how: Damage
) -> None:
    """A prompt whose content in the tier was altered, or is that of another prompt, is recomputed or refused."""
    found = answer_damaged(stack, prompts, control, how)
    figures(f"tokens loaded of {how} content", found.loaded, "tokens")
    found.check_read()
    assert not found.loaded, (
        f"expected {how} content of the {found.tier} to be noticed, got {found.loaded} of its {found.whole} tokens loaded: "
        f"{UNNOTICED}"
    )
    for one in found.compared:
        control.assert_own(one.answer, one.prompt, one.expected, one.other)
