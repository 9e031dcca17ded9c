"""Throughput: does the same card serve more conversations?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import assert_idle, cost_beyond_tier, gain, load_cost, requirement

if TYPE_CHECKING:
    from fixtures.core.baseline_record import Baseline
    from fixtures.experiments.load import Served
    from fixtures.instruments.prompts import Prompts
    from fixtures.plugin.recording import AddEvidence, Figures
    from fixtures.subject.stack import Stack

pytestmark = pytest.mark.exclusive_host


@requirement("THR-01")
def test_more_conversations_fit_on_the_same_card(
    stack: Stack, beyond_pool: tuple[Served, Served], baseline: Baseline, figures: Figures
) -> None:
    """When conversations exceed the KV pool, later rounds answer sooner than without a connector, and more per second."""
    found = gain(stack, beyond_pool, baseline)
    closed, opened = beyond_pool
    figures("conversations", closed.load.users, "")
    figures("working set", found.working_set_tokens, "tokens")
    figures("KV pool", stack.pool_tokens, "tokens")
    figures("arrival rate, open loop", opened.arrival_rate, "1/s")
    figures("requests per second, without offload", found.requests_per_s_without, "1/s")
    figures("requests per second, with offload", closed.load.requests_per_s, "1/s", better="higher")
    figures.interval("TTFT under load, with / without", found.ttft, "", better="lower")
    figures.interval("time of a conversation, with / without", found.duration, "", better="lower")
    if found.pays:
        figures("offload pays from a working set of at most", found.working_set_tokens, "tokens")
    found.check_decided()
    assert not found.none, (
        f"expected conversations beyond the KV pool to be faster with offload than without, got a TTFT of {found.ttft} and "
        f"a duration of {found.duration} times that without ({closed.sources}, {opened.sources})"
    )


@requirement("THR-02")
def test_nothing_fails_under_that_load(stack: Stack, beyond_pool: tuple[Served, Served], figures: Figures) -> None:
    """Under the load of THR-01 every request is answered whole, the sources add up, and the KV pool drains afterwards."""
    for served in beyond_pool:
        figures("requests", len(served.load.latency_s), "")
        assert not served.failures, (
            f"expected all {len(served.load.latency_s)} requests to be answered whole, {len(served.failures)} were not, the "
            f"first: {served.failures[0]}"
        )
        assert not served.logged, f"expected no failure signature in the logs under load, got {served.logged[0]}"
        assert served.sources.total == served.prompt_tokens, (
            f"expected the sources to add up to {served.prompt_tokens} prompt tokens, got {served.sources}"
        )
    assert_idle(stack.traffic.wait_until_idle(), "after the load")


@requirement("THR-03")
def test_offload_is_cheap_where_it_cannot_help(
    stack: Stack, prompts: Prompts, baseline: Baseline, figures: Figures, evidence: AddEvidence
) -> None:
    """Conversations that fit the KV pool take hardly longer than without a connector."""
    cost = load_cost(stack, prompts, baseline)
    figures("requests per second within the pool, without offload", cost.requests_per_s_without, "1/s")
    figures("requests per second within the pool, with offload", cost.requests_per_s, "1/s", better="higher")
    figures.interval("time of a conversation within the pool, with / without", cost.duration, "", better="lower")
    cost.check_decided()
    assert not cost.too_slow, (
        f"expected conversations that fit the KV pool within {cost.allowed} x their time without a connector, "
        f"got {cost.duration}"
    )
    beyond, sent = cost_beyond_tier(stack, prompts, baseline)
    evidence("conversations beyond the CPU tier", sent)
    if beyond is not None:
        figures.interval("time of a conversation beyond the CPU tier, with / without", beyond, "", better="lower")
