"""Router: does all of this also hold through the router and with several engines?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import (
    BAD_REQUESTS,
    UNAVAILABLE,
    Below,
    RoutedConversations,
    assert_at_home,
    assert_reused,
    bad_request,
    limits,
    listing,
    requirement,
    router_cost,
)

if TYPE_CHECKING:
    from fixtures.experiments.control import Control
    from fixtures.experiments.failover import Failover
    from fixtures.experiments.no_engine import NoEngine
    from fixtures.instruments.openai_api import Api
    from fixtures.instruments.prompts import Prompts
    from fixtures.instruments.text_requests import TextRequests
    from fixtures.plugin.measured import Failed
    from fixtures.plugin.recording import AddEvidence, Figures
    from fixtures.subject.stack import Stack

ANSWER_TOKENS = 4
BAD = [pytest.param(bad.name, marks=pytest.mark.impact(bad.impact)) for bad in BAD_REQUESTS]


@requirement("RTR-01")
@pytest.mark.shared_stack
@pytest.mark.impact("asks")
def test_the_router_lists_the_models_of_the_live_engines(stack: Stack) -> None:
    """Every router lists the models that the engines serve, and no model that no engine serves."""
    for router in stack.routers:
        found = listing(stack, router)
        assert not found.missing, f"expected {router.name} to list {', '.join(found.missing)}, got a list without them"
        assert not found.dead, (
            f"expected {router.name} to list only models that are served, got also {', '.join(found.dead)}"
        )


@requirement("RTR-02")
def test_a_repeat_goes_to_the_engine_that_holds_its_kv(
    stack: Stack, text_requests: TextRequests, figures: Figures
) -> None:
    """Each of several conversations, asked again in another order, is answered by the engine that computed it, from its KV."""
    conversations = RoutedConversations(stack, text_requests)
    conversations.begin()
    figures("engines that hold KV of a conversation", conversations.engines, "engines", better="higher")
    repeats = conversations.repeat()
    assert_at_home(repeats, "every repeat")
    assert_reused(repeats, "every repeat")


@requirement("RTR-06")
@pytest.mark.impact("asks")
def test_a_conversation_that_goes_on_stays_where_its_kv_is(stack: Stack, text_requests: TextRequests) -> None:
    """Conversations that have become longer are answered by the engine that computed their beginnings, from its KV."""
    conversations = RoutedConversations(stack, text_requests)
    conversations.begin()
    repeats = conversations.repeat(longer=True)
    assert_at_home(repeats, "longer conversations")
    assert_reused(repeats, "longer conversations")


@requirement("RTR-06")
@pytest.mark.impact("evicts")
def test_conversations_stay_when_the_gpu_copies_are_gone(stack: Stack, text_requests: TextRequests) -> None:
    """Repeats go to the same engine also if no engine has a GPU copy of them any more."""
    conversations = RoutedConversations(stack, text_requests)
    conversations.begin()
    for engine in stack.engines:
        stack.clear_prefix_cache(engine=engine)
    assert_at_home(conversations.repeat(), "repeats without a GPU copy")


@requirement("RTR-06")
@pytest.mark.impact("asks")
def test_every_router_replica_keeps_conversations_on_the_same_engine(stack: Stack, text_requests: TextRequests) -> None:
    """Conversations that began through one router replica are continued through each other one on the same engine."""
    conversations = RoutedConversations(stack, text_requests)
    conversations.require_replicas()
    conversations.begin()
    for number, router in enumerate(stack.routers[1:], start=1):
        assert_at_home(conversations.repeat(through=number), f"repeats through {router.name}")


@requirement("RTR-04")
def test_kv_that_one_engine_stored_is_loaded_by_the_others(stack: Stack, prompts: Prompts, control: Control) -> None:
    """A prompt that one engine has stored is loaded by the next one that shares its tier, and gives the same answer."""
    for storing, loading in stack.neighbours():
        prompt = prompts.unique(chunks=8)
        expected = control.answer(prompt, ANSWER_TOKENS, engine=storing)
        control.require_input_sensitivity(prompts, prompt, expected, ANSWER_TOKENS)
        stack.clear_prefix_cache(engine=storing)
        control.check_reloaded(control.complete(prompt, ANSWER_TOKENS, engine=storing), prompt)
        again = control.complete(prompt, ANSWER_TOKENS, engine=loading)
        assert again.sources.loaded == prompt.whole_chunk_tokens, (
            f"expected {loading.name} to load {prompt.whole_chunk_tokens} tokens stored by {storing.name}, got {again.sources}"
        )
        control.assert_same(again, prompt, expected, ANSWER_TOKENS, engine=loading)


@requirement("RTR-04")
def test_kv_below_that_one_engine_stored_is_loaded_by_the_others(
    stack: Stack, prompts: Prompts, control: Control
) -> None:
    """The same of a prompt that the CPU tier no longer holds: it comes from the tier below, which the engines share."""
    below = Below(stack, prompts)
    for storing, loading in stack.neighbours():
        prompt = prompts.unique(chunks=4)
        below.clear_above()  # a full CPU tier takes nothing, and then nothing is written below
        with below.written(prompt):
            expected = control.answer(prompt, ANSWER_TOKENS, engine=storing)
        below.check_written()
        below.clear_above()
        again = control.complete(prompt, ANSWER_TOKENS, engine=loading)
        assert again.sources.loaded == prompt.whole_chunk_tokens, (
            f"expected {loading.name} to load {prompt.whole_chunk_tokens} tokens from below that {storing.name} stored, got "
            f"{again.sources}"
        )
        assert again.sources.from_below in {None, prompt.whole_chunk_tokens}, (
            f"expected all of them from below the CPU tier, got {again.sources}"
        )
        control.assert_same(again, prompt, expected, ANSWER_TOKENS, engine=loading)


@requirement("RTR-05")
@pytest.mark.exclusive_host
def test_the_router_adds_little_latency(stack: Stack, text_requests: TextRequests, figures: Figures) -> None:
    """Through the router, the first token of a GPU hit arrives at most a little later than from the engine itself."""
    cost = router_cost(stack, text_requests)
    figures.interval("TTFT that the router adds", cost.median.ms, "ms", better="lower")
    figures("TTFT that the router adds, 95 of 100 pairs", cost.most_ms, "ms", better="lower")
    cost.check_decided()
    assert not cost.large, (
        f"expected the router to add at most {limits.ROUTER_MEDIAN_S} s to the TTFT in the median, and more than "
        f"{limits.ROUTER_MOST_S} s in at most {limits.ROUTER_LATE_SHARE:.0%} of the pairs, got a median of "
        f"{cost.median.ms.text('ms')}, and {cost.late} of {len(cost.added_s)} pairs with more"
    )


@requirement("RTR-07")
@pytest.mark.shared_stack
@pytest.mark.parametrize("body", BAD)
def test_an_error_of_the_router_is_an_error_object(router_api: Api, body: str) -> None:
    """An invalid request through the router gets a 4xx with an OpenAI error object."""
    response = router_api.send_bad(bad_request(body))
    assert 400 <= response.status < 500, f"expected a 4xx for {body}, got {response.status}: {response.excerpt}"
    assert router_api.error_message(response), f"expected an error object with a message, got {response.text[:200]}"


@requirement("RTR-07")
@pytest.mark.shared_stack
@pytest.mark.impact("asks")
@pytest.mark.parametrize("body", ["unknown-model", "prompt-too-long"])
def test_an_error_is_no_stream_although_one_was_asked_for(router_api: Api, body: str) -> None:
    """A request for a stream that is refused gets the same status and error object as a plain one, not a stream."""
    response = router_api.send_bad(bad_request(body, stream=True))
    assert 400 <= response.status < 500, f"expected a 4xx for {body}, got {response.status}: {response.excerpt}"
    assert router_api.error_message(response), f"expected an error object with a message, got {response.text[:200]}"


@requirement("RTR-01")
@pytest.mark.run_disruptive
def test_the_router_lists_nothing_when_no_engine_lives(stack: Stack, without_engines: NoEngine) -> None:
    """While no engine runs, the router lists no model; after they are started again, it lists and serves their models."""
    stack.routers[0].check_watches()
    listed = without_engines.listed
    assert not listed, f"expected no model while no engine runs, got {', '.join(sorted(listed))}"
    assert without_engines.serves_again, (
        f"expected the router to serve within {limits.RETURNED_S:.0f} s after the engines are back, got no answer"
    )


@requirement("RTR-03")
@pytest.mark.run_disruptive
@pytest.mark.parametrize("failure", ["killed", "drained", "frozen"])
def test_one_failed_engine_blocks_no_request(
    stack: Stack, failed: Failed, figures: Figures, evidence: AddEvidence, failure: str
) -> None:
    """If one engine ends, is drained or hangs under load, all requests end in time, and soon no one waits for it."""
    router = stack.routers[0]
    found = failed(failure)
    evidence(f"timeline of the failover, {failure}", found.timeline)
    figures(f"requests without an answer, {failure}", found.lost, "", n=found.asked, better="lower")
    kept = found.kept
    if kept.asked:
        what = f"requests that fail or wait once the engine is to be excluded, {failure}"
        figures(what, len(kept.troubled), "", n=kept.asked, better="lower")
    assert not found.late, (
        f"expected every request to end, got {len(found.late)} that did not, the first {found.late[0]}"
    )
    assert not found.short, (
        f"expected an error, or as many tokens as were asked for, got another number in {found.short} of {found.asked}"
    )
    router.check_watches()
    assert found.noticed_s is not None, (
        f"expected all requests to be answered after {found.promised_s:.0f} s, got {found.lost} without an answer"
    )
    figures(f"time until all requests are answered, {failure}", found.noticed_s, "s", better="lower")
    assert found.noticed_s <= found.promised_s, (
        f"expected all requests to be answered {found.promised_s:.0f} s after an engine failed, as the settings of the router "
        f"promise, got one that failed after {found.noticed_s:.0f} s"
    )
    assert len(kept.troubled) <= limits.KEPT_REQUESTS, (
        f"expected at most {limits.KEPT_REQUESTS:.0f} request to fail or wait once the router was to exclude the engine, after "
        f"{found.promised_s:.0f} s by its settings, got {len(kept.troubled)} of {kept.asked}, the first: {kept.troubled[0]}"
    )
    assert found.returned_s is not None, (
        f"expected the router to use the engine again within {limits.RETURNED_S:.0f} s after its return, got no request there"
    )
    kept.check_known()


@requirement("RTR-01")
@pytest.mark.run_disruptive
def test_the_router_lists_the_models_of_the_engines_that_are_left(stack: Stack, failed: Failed) -> None:
    """After one of several engines has ended, every router lists the models that the others serve."""
    assert stack.routers, "expected a router"
    missing = failed("killed").missing
    assert not missing, (
        f"expected every router to list {', '.join(missing)}, which the other engines serve, got a list without them"
    )


@requirement("RTR-06")
@pytest.mark.run_disruptive
def test_conversations_stay_once_an_engine_has_come_back(
    stack: Stack, text_requests: TextRequests, failed: Failed
) -> None:
    """After an engine has ended and the router uses it again, repeats go to the engine that holds their KV, as before."""
    failed("killed").require_return()
    conversations = RoutedConversations(stack, text_requests)
    conversations.begin()
    assert_at_home(conversations.repeat(), "every repeat")


@requirement("RTR-07")
@pytest.mark.run_disruptive
def test_a_stream_that_breaks_off_says_so(stack: Stack, interrupted: Failover) -> None:
    """If the engine of a stream ends, the stream ends with an error, or its connection breaks: it never looks complete."""
    assert stack.routers, "expected a router"
    assert not interrupted.unseen, (
        f"expected every interrupted stream to end with an error, {interrupted.unseen} of {interrupted.broken} ended as if "
        "complete"
    )


@requirement("RTR-07")
@pytest.mark.run_disruptive
def test_without_an_engine_the_router_answers_with_an_error_object(router_api: Api, without_engines: NoEngine) -> None:
    """While no engine runs, a request gets a 404, 502, 503 or 504 with an OpenAI error object."""
    response = without_engines.refusal
    assert response is not None, (
        f"expected an error within {limits.FAILOVER_REQUEST_S:.0f} s without an engine, got no answer"
    )
    assert response.status in UNAVAILABLE, f"expected 404, 502, 503 or 504, got {response.status}: {response.excerpt}"
    assert router_api.error_message(response), f"expected an error object with a message, got {response.text[:200]}"
