"""Resilient: does it survive clients that disconnect, restarts, preemption, and a cache server that fails?

These tests run after all others, because some of them end or stop parts of the stack. Their order saves time: an engine that
waits for a frozen cache server (RES-04) goes on with it, and is killed next (RES-03); one that waits for a server that has just
restarted has to be started again, as for RES-07. Tests that take a while stand between RES-03 and the other cases of RES-04: an
engine pings its server every 10 s from its own start on, and right after a ping it takes longest to notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import (
    DisconnectingClients,
    answers_afterwards,
    assert_idle,
    crowd,
    frozen,
    killed,
    limits,
    lose_during_loads,
    outage,
    outages_of_network,
    preempt,
    repeat,
    requirement,
    restart_engine,
    restarted,
    send_everything,
    soak,
)

if TYPE_CHECKING:
    from fixtures.experiments.control import Control
    from fixtures.experiments.disconnects import Phase
    from fixtures.experiments.outage import Outage
    from fixtures.instruments.detour import Detour
    from fixtures.instruments.host_memory import HostMemory
    from fixtures.instruments.prompts import Prompts
    from fixtures.plugin.recording import AddEvidence, Figures
    from fixtures.subject.stack import Stack

pytestmark = pytest.mark.run_disruptive

ANSWER_TOKENS = 4
WAITS = "lmcache.mp.mq_timeout in kv_connector_extra_config is how long LMCache's connector waits (300 s by default)"
SOON_STORED_CHUNKS = 1
"""Two parts of LMCache's connector notice on their own, within 0.1 s of each other, that a server is away. What is stored in
between, as a prompt is that is computed as quickly, waits for the server (0.5.6)."""
OUTAGES = {"killed": killed, "restarted": restarted}


@requirement("RES-05")
def test_every_request_ends(stack: Stack, prompts: Prompts, figures: Figures) -> None:
    """Requests of many kinds at once end within their deadline while other clients disconnect, and nothing waits afterwards."""
    found = send_everything(stack, prompts)
    figures("requests", found.sent, "")
    figures("requests aborted meanwhile", found.aborted, "")
    figures("longest request", found.longest_s, "s", better="lower")
    figures("most requests waiting", found.most_waiting, "")
    assert not found.overdue, (
        f"expected every request to end within its deadline, {len(found.overdue)} of {found.sent} did not: {found.overdue[0]}"
    )
    assert not found.failed, f"expected {found.sent} answers, {len(found.failed)} requests failed: {found.failed[0]}"
    assert_idle(found.rest, "afterwards", pool=False)


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


@requirement("RES-01")
@pytest.mark.parametrize("phase", ["prefill", "stream", "load"])
def test_clients_that_disconnect_do_not_affect_others(
    stack: Stack, prompts: Prompts, control: Control, figures: Figures, phase: Phase
) -> None:
    """While clients disconnect in one phase of their requests, others are answered correctly, and nothing stays behind."""
    clients = DisconnectingClients(stack, prompts, control)
    found = clients.disconnect(phase)
    figures(f"clients that disconnected in mid-{phase}", found.in_phase, "", n=found.clients)
    assert not found.lost, (
        f"expected every request of others to be answered while clients disconnected in mid-{phase}, {len(found.lost)} of "
        f"{found.others} were not: {found.lost[0]}"
    )
    assert_idle(found.rest, "after the clients disconnected")
    assert not found.pinned, f"expected no object to stay pinned afterwards, got {found.pinned}"
    found.check_hit()
    for prompt, own in clients.known.items():
        control.assert_same(control.complete(prompt, ANSWER_TOKENS), prompt, own, ANSWER_TOKENS)
        stack.clear_prefix_cache()
        again = control.complete(prompt, ANSWER_TOKENS)
        assert again.sources.loaded == prompt.whole_chunk_tokens, (
            f"expected {prompt.whole_chunk_tokens} of {prompt.tokens} tokens loaded afterwards, got {again.sources}"
        )
        control.assert_same(again, prompt, own, ANSWER_TOKENS)


@requirement("COR-06")
def test_a_load_that_fails_gives_no_wrong_answer(
    stack: Stack, prompts: Prompts, control: Control, figures: Figures
) -> None:
    """Loads whose KV is removed meanwhile are recomputed or refused; no answer and no KV that they leave behind is wrong."""
    found = lose_during_loads(stack, prompts, control)
    figures("loads that failed", found.failed, "", n=found.loads)
    figures("requests answered", found.answered, "", n=found.loads)
    assert not found.ended, f"expected loads that fail to be recomputed or refused, got {'; '.join(found.ended)}"
    assert not found.wrong_answers, f"expected every answer to be that to its own prompt, {found.wrong_answers[0]}"
    for one in found.compared:
        control.assert_own(one.answer, one.prompt, one.expected, one.other)
    found.check_failed()


def assert_no_answer_is_lost(
    found: Outage, what: str, control: Control, figures: Figures, evidence: AddEvidence
) -> None:
    """Every prompt was answered in time and correctly during an outage, and KV is loaded again afterwards."""
    __tracebackhide__ = True
    evidence(f"timeline, {what}", found.timeline)
    figures(f"longest request, {what}", found.slowest_s, "s", better="lower")
    figures(f"requests lost, {what}", found.lost, "", n=found.asked)
    assert not found.late, f"expected an answer within {limits.DEGRADED_S:.0f} s ({what}), got {found.late[0]}; {WAITS}"
    assert not found.failed, f"expected an answer ({what}), got {found.failed[0]}"
    for one in found.compared:
        control.assert_own(one.answer, one.prompt, one.expected, one.other)
    assert found.recovered_s is not None, (
        f"expected a prompt to be stored and loaded within {limits.RECOVERED_S:.0f} s after the outage ({what})"
    )
    figures(f"time until the first reload, {what}", found.recovered_s, "s", better="lower")


@requirement("RES-04")
@pytest.mark.parametrize("state", ["frozen"])
def test_a_cache_server_that_is_frozen_costs_no_answer(
    stack: Stack, prompts: Prompts, control: Control, figures: Figures, evidence: AddEvidence, state: str
) -> None:
    """While the cache server is frozen, prompts are answered in time and correctly; afterwards, KV is loaded again."""
    found = outage(stack, prompts, control, frozen, chunks=SOON_STORED_CHUNKS)
    assert_no_answer_is_lost(found, f"cache server {state}", control, figures, evidence)


@requirement("RES-03")
def test_offload_works_again_after_an_engine_restart(
    stack: Stack, prompts: Prompts, control: Control, figures: Figures, evidence: AddEvidence
) -> None:
    """An engine that is killed while it works serves and loads again, and a tier that outlives it has kept its KV."""
    found = restart_engine(stack, prompts, control)
    evidence("timeline of the restart", found.timeline)
    figures("time until service", found.service_s, "s", better="lower")
    figures("requests lost", found.lost, "", n=found.in_flight)
    assert found.reload_s is not None, (
        f"expected a prompt to be stored and loaded within {limits.RECOVERED_S:.0f} s after the engine was started again"
    )
    figures("time until the first reload", found.reload_s, "s", better="lower")
    assert found.again.sources.loaded in found.loaded_counts, (
        f"expected {found.kept.whole_chunk_tokens} tokens loaded that the engine had stored before it ended, got "
        f"{found.again.sources}: its tier is in a process of its own, which has not ended"
    )
    control.assert_near_anew(found.again, prompts, found.kept, ANSWER_TOKENS)


@requirement("RES-02")
def test_repeating_a_prompt_never_ends_an_engine(stack: Stack, prompts: Prompts, figures: Figures) -> None:
    """One prompt, asked again and again, alone and by several clients at once, ends and restarts nothing."""
    for engine in stack.engines:
        found = repeat(stack, prompts.unique(chunks=4), engine)
        figures(f"repeats to {engine.name}", found.answered, "")
        assert not found.ended, (
            f"expected every process to run on while {engine.name} answers one prompt again and again, got after "
            f"{found.answered} repeats: {'; '.join(found.ended)}"
        )


@requirement("RES-08")
def test_reloads_beyond_the_pool_do_not_lock_each_other_out(stack: Stack, prompts: Prompts, figures: Figures) -> None:
    """More reloads at once than the KV pool holds are all answered, and nothing waits afterwards."""
    found = crowd(stack, prompts)
    figures("prompts at once", found.prompts, "")
    figures("tokens of these prompts", found.tokens, "tokens")
    figures("KV pool", found.pool_tokens, "tokens")
    figures("most requests waiting", found.most_waiting, "")
    figures("longest reload among them", found.longest_s, "s", better="lower")
    assert_idle(found.rest, "afterwards", pool=False)
    found.check_crowded()


@requirement("RES-06")
def test_preemption_corrupts_nothing(stack: Stack, prompts: Prompts, control: Control, figures: Figures) -> None:
    """Answers that outgrow the KV pool are preempted and resumed; their KV, on the GPU and in the tier, is right afterwards."""
    found = preempt(stack, prompts)
    figures("answers at once", found.requests, "")
    figures("preemptions", found.preemptions, "")
    figures("share of the replay that came from the tier", found.replayed, "")
    assert_idle(found.rest, "afterwards")
    found.check_preempted()
    for after in answers_afterwards(stack, control, found.to_check, ANSWER_TOKENS):
        control.assert_same(after.reloaded, after.prompt, after.on_gpu, ANSWER_TOKENS)
        control.assert_near_anew(after.reloaded, prompts, after.prompt, ANSWER_TOKENS)


@requirement("RES-04")
@pytest.mark.parametrize("state", list(OUTAGES))
def test_a_cache_server_that_fails_costs_no_answer(
    stack: Stack, prompts: Prompts, control: Control, figures: Figures, evidence: AddEvidence, state: str
) -> None:
    """While the cache server is unavailable, every prompt is answered in time and correctly; afterwards, KV is loaded again."""
    found = outage(stack, prompts, control, OUTAGES[state])
    assert_no_answer_is_lost(found, f"cache server {state}", control, figures, evidence)


@requirement("RES-07")
def test_a_bad_network_costs_no_answer(
    stack: Stack, network: Detour, prompts: Prompts, control: Control, figures: Figures, evidence: AddEvidence
) -> None:
    """While the network to the cache server is slow, cut or silent, prompts are answered in time and correctly."""
    for state, found in outages_of_network(stack, prompts, control, network, ("cut", "slow", "silent")).items():
        assert_no_answer_is_lost(found, f"network {state}", control, figures, evidence)
