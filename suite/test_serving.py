"""Serving: is the API in front still a correct OpenAI API?"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from . import BAD_REQUESTS, REFUSED, bearer, requirement

if TYPE_CHECKING:
    from fixtures.instruments.openai_api import Api
    from fixtures.instruments.text_requests import BadRequest, TextRequests
    from fixtures.subject.stack import Stack

pytestmark = pytest.mark.shared_stack

ENDPOINTS = ["completions", "chat"]
BAD = [pytest.param(bad, id=bad.name, marks=pytest.mark.impact(bad.impact)) for bad in BAD_REQUESTS]


@requirement("API-01")
def test_the_model_is_listed(api: Api) -> None:
    """``/v1/models`` lists the model under test with its context length."""
    models = api.models()
    assert api.model in models, f"expected {api.model} in /v1/models, got {', '.join(models) or 'an empty list'}"
    length = models[api.model].get("max_model_len")
    assert isinstance(length, int), f"expected an integer max_model_len, got {length!r}"
    assert length > 0, f"expected a context length above 0, got {length}"


@requirement("API-02")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_answers_match_the_schema(api: Api, text_requests: TextRequests, endpoint: str) -> None:
    """The official client and the official schema accept every answer, plain and streamed."""
    violations = api.schema_violations(text_requests.request(endpoint, max_tokens=8))
    assert not violations, f"expected an answer that matches OpenAI's schema, got {'; '.join(violations)}"


@requirement("API-02")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_stream_says_the_same_as_a_plain_answer(api: Api, text_requests: TextRequests, endpoint: str) -> None:
    """At temperature 0, the text of a stream equals the plain answer."""
    request = text_requests.request(endpoint, max_tokens=16)
    api.text(request)  # from here on both are GPU hits of the same length
    plain, streamed = api.text(request), api.text(request.streamed())
    api.check_has_text([plain, streamed])
    api.check_repeatable(request, plain, agree=streamed == plain)
    assert streamed == plain, f"expected the streamed text {plain!r}, got {streamed!r}"


@requirement("API-03")
@pytest.mark.parametrize("usage", [False, True], ids=["without-usage", "with-usage"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_stream_is_well_formed_to_the_end(
    stack: Stack, api: Api, text_requests: TextRequests, endpoint: str, usage: bool
) -> None:
    """A stream has the right content type and framing, one final [DONE], and usage only if requested."""
    response = api.send(text_requests.request(endpoint, stream=True, max_tokens=8, include_usage=usage))
    assert response.content_type == "text/event-stream", f"expected text/event-stream, got {response.content_type!r}"
    assert response.cut is None, f"expected a complete stream, got a broken connection: {response.cut}"
    assert response.stream is not None, "expected a stream, got none"
    assert not response.stream.violations, f"expected a well-formed stream, got {'; '.join(response.stream.violations)}"
    wanted = usage or stack.engine.always_gives_usage
    assert (response.stream.usage is not None) == wanted, (
        f"expected usage {'in the stream' if wanted else 'only if requested'}, got {response.stream.usage}"
    )


@requirement("API-03")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_stream_comes_as_it_is_made(api: Api, text_requests: TextRequests, endpoint: str) -> None:
    """The first token arrives before the last one is computed: no component between engine and client buffers the stream."""
    late = api.collected(lambda: text_requests.request(endpoint, stream=True, max_tokens=96, ignore_eos=True))
    assert not late, (
        f"expected the first of 96 tokens well before the last, got the first token after {', '.join(late)} in every stream"
    )


@requirement("API-04")
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_usage_adds_up_and_the_end_is_named(api: Api, text_requests: TextRequests, endpoint: str, stream: bool) -> None:
    """Usage counts the tokens of the answer, and ``finish_reason`` states why the answer ended."""
    request = text_requests.request(endpoint, stream=stream, max_tokens=7, include_usage=stream, ignore_eos=True)
    answer = api.answer(request)
    assert answer.finish_reason == "length", (
        f"expected finish_reason 'length' at max_tokens, got {answer.finish_reason!r}"
    )
    assert answer.usage.get("completion_tokens") == 7, f"expected 7 completion tokens, got {answer.usage}"
    counted = api.count_tokens(request)
    assert answer.usage.get("prompt_tokens") == counted, (
        f"expected {counted} prompt tokens (/tokenize), got {answer.usage}"
    )
    assert answer.usage.get("total_tokens") == answer.tokens_in_all, (
        f"expected total_tokens = {answer.tokens_in_all}, got {answer.usage}"
    )
    false = api.usage_violations(answer)
    assert not false, f"expected consistent usage details, got {'; '.join(false)}"


@requirement("API-04")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_stop_string_ends_the_answer(api: Api, text_requests: TextRequests, endpoint: str) -> None:
    """The answer ends before the stop string, and ``finish_reason`` is ``stop``."""
    request = text_requests.request(endpoint, max_tokens=24, ignore_eos=True)
    api.answer(request)  # from here on all answers come from the same source (API-06)
    whole = api.answer(request)
    stop = api.pick_stop_string(whole.text, seam=len(whole.reasoning))
    stopped = api.answer(request.with_options(stop=[stop]))
    before, _, _ = whole.text.partition(stop)
    api.check_repeatable(request, whole.text, agree=stopped.text == before)
    assert stopped.finish_reason == "stop", f"expected finish_reason 'stop' at {stop!r}, got {stopped.finish_reason!r}"
    assert stopped.text == before, f"expected {before!r} before {stop!r}, got {stopped.text!r}"


@requirement("API-05")
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_request_is_refused_and_harms_no_other(api: Api, text_requests: TextRequests, bad: BadRequest) -> None:
    """An invalid request gets a 4xx with an error object, and the next valid request is served."""
    response = api.send_bad(bad)
    assert 400 <= response.status < 500, f"expected a 4xx for {bad.name}, got {response.status}: {response.excerpt}"
    message = api.error_message(response)
    assert message, f"expected an error object with a message, got {response.text[:200]}"
    assert api.answer(text_requests.request("completions")).finish_reason, (
        "expected the next valid request to be answered, got no finish_reason"
    )


@requirement("API-06")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_same_request_gives_the_same_answer(api: Api, text_requests: TextRequests, endpoint: str) -> None:
    """At temperature 0, the same request gives the same answer three times, from the same token source."""
    request = text_requests.request(endpoint, max_tokens=16)
    api.text(request)
    answers = [api.text(request) for _ in range(3)]
    api.check_has_text(answers)
    assert len(set(answers)) == 1, (
        f"expected identical answers at temperature 0, got {len(set(answers))} different ones: {answers}"
    )


@requirement("API-07")
@pytest.mark.parametrize("clients", [4, 16])
def test_concurrent_clients_all_get_complete_answers(api: Api, text_requests: TextRequests, clients: int) -> None:
    """Each of many concurrent clients gets a complete answer to its own request."""
    requests = text_requests.mixed(clients, api.endpoints(text_requests))
    answers = api.answer_together(requests)
    short = [answer for answer in answers if answer.finish_reason != "length"]
    assert not short, (
        f"expected {clients} complete answers, got {len(short)} with finish_reason {short[0].finish_reason!r}"
    )
    cut = [answer for answer in answers if answer.usage.get("completion_tokens") != 8]
    assert not cut, f"expected 8 tokens in each of {clients} answers, got another number in {len(cut)}: {cut[0].usage}"
    assert len({answer.id for answer in answers}) == clients, (
        f"expected {clients} different request ids, got duplicates"
    )
    for request, answer in zip(requests, answers, strict=True):
        counted = api.count_tokens(request)
        assert answer.usage.get("prompt_tokens") == counted, (
            f"expected the answer to a prompt of {counted} tokens, got {answer.usage} ({clients} concurrent clients)"
        )


@requirement("API-08")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_requests_without_the_key_are_refused(
    stack: Stack, api: Api, text_requests: TextRequests, endpoint: str
) -> None:
    """If an API key is set, requests without it or with a wrong key are refused, and the router forwards the key."""
    request = text_requests.request(endpoint)
    for whom, client in stack.clients_without_key().items():
        for key in (None, "wrong"):
            status = client.post(request.path, request.payload, headers=bearer(key)).status
            assert status in REFUSED, f"expected the {whom} to refuse {'a wrong' if key else 'no'} key, got {status}"
    api.answer(request)  # not applicable where the model answers no chats
    for whom, client in stack.clients_with_key().items():
        status = client.post(request.path, request.payload).status
        assert status == 200, f"expected 200 with the key through the {whom}, got {status}"


@requirement("API-09")
@pytest.mark.impact("asks")
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_router_answers_as_the_engine_does(
    engine_apis: list[Api], router_api: Api, text_requests: TextRequests, endpoint: str, stream: bool
) -> None:
    """An answer through the router equals the engine's own answer: status, body, text, content type."""
    request = text_requests.request(endpoint, stream=stream, include_usage=stream, max_tokens=8, ignore_eos=True)
    for api in engine_apis:
        api.answer(request)  # from here on it is a GPU hit of the same length, whichever engine the router asks
    differences = router_api.fewest_differences(engine_apis, request)
    assert not differences, f"expected the engine's own answer through the router, got {'; '.join(differences)}"


@requirement("API-09")
@pytest.mark.impact("asks")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_router_passes_a_stream_on_as_it_comes(
    api: Api, router_api: Api, text_requests: TextRequests, endpoint: str
) -> None:
    """Through the router, too, the first token arrives before the last one is computed, unless the engine itself buffers."""
    request = functools.partial(text_requests.request, endpoint, stream=True, max_tokens=96, ignore_eos=True)
    late = router_api.collected(request)
    assert not late or api.collected(request), (
        f"expected the first of 96 tokens well before the last, got the first token after {', '.join(late)} in every stream "
        "through the router"
    )


@requirement("API-09")
@pytest.mark.parametrize("bad", BAD)
def test_the_router_refuses_as_the_engine_does(api: Api, router_api: Api, bad: BadRequest) -> None:
    """An invalid request through the router gets the same status as from the engine, and an error object."""
    own, through = api.send_bad(bad), router_api.send_bad(bad)
    assert through.status == own.status, (
        f"expected HTTP {own.status}, as from the engine, got {through.status}: {through.excerpt}"
    )
    assert router_api.error_message(through), (
        f"expected an error object with a message, as from the engine, got {through.text[:200]}"
    )
