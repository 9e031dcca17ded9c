"""Models that reason, say nothing, have no chat template or answer differently each time."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NotApplicable, NotJudged, SubjectFault
from fixtures.instruments.text_requests import BAD_REQUESTS, TextRequests
from suite import test_serving
from tests.fakes import openai_server
from tests.fakes.openai_server import ENDPOINTS, MODEL, Server, refusal, request

if TYPE_CHECKING:
    from fixtures.instruments.openai_api import Api

api, server, shared, shared_api = openai_server.FIXTURES


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_an_engine_with_a_reasoning_parser_conforms(server: Server, api: Api, name: str) -> None:
    message = server.plain["/v1/chat/completions"]["choices"][0]["message"]
    message |= {"content": None, name: " river stone"}
    for piece in server.streams["/v1/chat/completions"][1:3]:
        delta = piece["choices"][0]["delta"]
        delta[name] = delta.pop("content")
    for piece in server.streams["/v1/chat/completions"]:
        piece["id"] = "chatcmpl-other"
    texts = TextRequests(MODEL, 1, "t")
    test_serving.test_answers_match_the_schema(api, texts, "chat")
    test_serving.test_a_stream_says_the_same_as_a_plain_answer(api, texts, "chat")
    test_serving.test_the_same_request_gives_the_same_answer(api, texts, "chat")
    assert api.answer(request("chat")).reasoning == " river stone"
    del message["content"]  # a gateway that leaves out nulls, which the official client takes
    assert api.text(request("chat")) == " river stone"
    assert api.schema_violations(request("chat")) == []
    assert api.stream_with_text(lambda: request("chat").streamed(), pieces=2).ttft_s is not None


@ENDPOINTS
def test_answers_without_text_prove_nothing(server: Server, api: Api, endpoint: str) -> None:
    choice = server.plain[request(endpoint).path]["choices"][0]
    choice.update(text="") if endpoint == "completions" else choice["message"].update(content=None)
    for piece in server.streams[request(endpoint).path]:
        piece["choices"][0].update(text="") if endpoint == "completions" else piece["choices"][0].update(delta={})
    texts = TextRequests(MODEL, 1, "t")
    for test in (
        test_serving.test_a_stream_says_the_same_as_a_plain_answer,
        test_serving.test_the_same_request_gives_the_same_answer,
        test_serving.test_a_stop_string_ends_the_answer,
    ):
        with pytest.raises(NotJudged, match="prove nothing"):
            test(api, texts, endpoint)
    test_serving.test_a_bad_request_is_refused_and_harms_no_other(api, texts, BAD_REQUESTS[0])


def test_a_stream_that_says_nothing_of_a_spoken_answer_is_found(server: Server, api: Api) -> None:
    for piece in server.streams["/v1/completions"]:
        piece["choices"][0]["text"] = ""
    with pytest.raises(AssertionError, match="expected the streamed text ' river stone', got ''"):
        test_serving.test_a_stream_says_the_same_as_a_plain_answer(api, TextRequests(MODEL, 1, "t"), "completions")


@pytest.mark.parametrize(
    "words",
    [
        "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template if the "
        "tokenizer does not define one.",
        "Cannot use chat template functions because tokenizer.chat_template is not set and no template argument was passed!",
    ],
    ids=["vllm", "transformers"],
)
def test_a_model_without_a_chat_template_has_no_chats_to_judge(server: Server, api: Api, words: str) -> None:
    server.judge = lambda path, *_: refusal(words) if path.endswith("chat/completions") else None
    texts = TextRequests(MODEL, 1, "t")
    for test in (
        test_serving.test_answers_match_the_schema,
        test_serving.test_a_stream_says_the_same_as_a_plain_answer,
        test_serving.test_a_stop_string_ends_the_answer,
    ):
        with pytest.raises(NotApplicable, match="no chat template, so the engine refuses chat requests"):
            test(api, texts, "chat")
    assert api.endpoints(texts) == ["completions"]
    assert {one.endpoint for one in texts.mixed(4, api.endpoints(texts))} == {"completions"}
    test_serving.test_answers_match_the_schema(api, texts, "completions")


def test_a_refusal_for_another_reason_is_a_fault_of_the_chats(server: Server, api: Api) -> None:
    server.judge = lambda *_: refusal("the chat template is broken")
    with pytest.raises(SubjectFault, match="expected HTTP 200, got 400"):
        api.endpoints(TextRequests(MODEL, 1, "t"))


def test_a_model_that_answers_differently_is_not_blamed_on_the_stream(server: Server, api: Api) -> None:
    """Mixture-of-experts models, speculative decoding: API-06 owns that."""
    said, turn = server.plain["/v1/completions"]["choices"][0], itertools.count()

    def another(*_: Any) -> None:
        said["text"] = f" river stone {next(turn)}"

    server.judge = another
    texts = TextRequests(MODEL, 1, "t")
    for test in (
        test_serving.test_a_stream_says_the_same_as_a_plain_answer,
        test_serving.test_a_stop_string_ends_the_answer,
    ):
        with pytest.raises(NotJudged, match="the engine itself gives different answers"):
            test(api, texts, "completions")
    with pytest.raises(AssertionError, match="expected identical answers at temperature 0, got 3"):
        test_serving.test_the_same_request_gives_the_same_answer(api, texts, "completions")
