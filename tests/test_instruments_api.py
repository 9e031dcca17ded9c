"""The API checks, against a small strict server and the same server with one thing wrong at a time."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import itertools
import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fixtures.core.errors import NotApplicable, NotJudged, SubjectFault
from fixtures.instruments.api import Api, count_tokens
from fixtures.instruments.client import Client
from fixtures.instruments.response import Response
from fixtures.instruments.text_requests import BAD_REQUESTS, WORDS, BadRequest, Request, TextRequests
from suite import test_serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODEL, LONGEST = "tiny", 64

# Shapes of vLLM 0.32, with every field that it adds to OpenAI's.
COMPLETION: dict[str, Any] = {
    "id": "cmpl-8a3c3b9d5c2a8beb",
    "object": "text_completion",
    "created": 1764045088,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "text": " river stone",
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
            "token_ids": None,
            "prompt_logprobs": None,
            "prompt_token_ids": None,
        }
    ],
    "service_tier": None,
    "system_fingerprint": None,
    "usage": {"prompt_tokens": 9, "total_tokens": 11, "completion_tokens": 2, "prompt_tokens_details": None},
    "kv_transfer_params": None,
}
PIECES: list[dict[str, Any]] = [
    {
        "id": "cmpl-91f04c7be2a8d310",
        "object": "text_completion",
        "created": 1764045088,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "text": text,
                "logprobs": None,
                "finish_reason": reason,
                "stop_reason": None,
                "prompt_token_ids": None,
                "token_ids": None,
            }
        ],
        "usage": None,
    }
    for text, reason in ((" river", None), (" stone", "length"))
]
CHAT: dict[str, Any] = {
    "id": "chatcmpl-a2e3c7c0e8d64b4f",
    "object": "chat.completion",
    "created": 1764045088,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": " river stone",
                "refusal": None,
                "annotations": None,
                "audio": None,
                "function_call": None,
                "tool_calls": [],
                "reasoning": None,
            },
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
            "token_ids": None,
        }
    ],
    "service_tier": None,
    "system_fingerprint": None,
    "usage": {"prompt_tokens": 9, "total_tokens": 11, "completion_tokens": 2, "prompt_tokens_details": None},
    "prompt_logprobs": None,
    "prompt_token_ids": None,
    "kv_transfer_params": None,
}
DELTAS: list[dict[str, Any]] = [
    {
        "id": "chatcmpl-b7d1f0a93c5e4826",
        "object": "chat.completion.chunk",
        "created": 1764045088,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason, "token_ids": None}],
        "prompt_token_ids": None,
    }
    for delta, reason in (
        ({"role": "assistant", "content": ""}, None),
        ({"content": " river"}, None),
        ({"content": " stone"}, None),
        ({"content": ""}, "stop"),
    )
]


def refusal(message: str, code: int = 400) -> tuple[int, dict[str, Any]]:
    return code, {"error": {"message": message, "type": "BadRequestError", "param": None, "code": code}}


def judge(path: str, content_type: str, raw: bytes) -> tuple[int, dict[str, Any]] | None:
    """What a strict server has against a request; None for a good one. Written without a look at the list under test."""
    try:
        body = json.loads(raw)
    except ValueError:
        return refusal("the body is not JSON")
    if content_type != "application/json":
        return refusal("unsupported media type", 415)
    if not isinstance(body, dict):
        return refusal("the body is no object")
    if body.get("model") != MODEL:
        return refusal(f"the model {body.get('model')} does not exist", 404)
    prompt, messages = body.get("prompt"), body.get("messages")
    if path.endswith("chat/completions"):
        if not isinstance(messages, list) or not messages:
            return refusal("messages: a list is required")
    elif not isinstance(prompt, str | list):
        return refusal("prompt: a text or a list of tokens is required")
    if isinstance(prompt, list) and len(prompt) > LONGEST:
        return refusal(f"the model takes {LONGEST} tokens")
    for name, low, high in (("max_tokens", 0, LONGEST), ("n", 1, 128), ("logprobs", 0, 20), ("temperature", 0, 2)):
        value = body.get(name, low)
        if not isinstance(value, int | float) or not low <= value <= high:
            return refusal(f"{name}: must be {low} to {high}")
    return None


class Server(ThreadingHTTPServer):
    """Answers as ``completion``, ``chat`` and their streams say; ``strict`` False accepts whatever comes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.reset()

    def reset(self) -> None:
        self.plain = {"/v1/completions": copy.deepcopy(COMPLETION), "/v1/chat/completions": copy.deepcopy(CHAT)}
        self.streams: dict[str, list[Any]] = {
            "/v1/completions": copy.deepcopy(PIECES),
            "/v1/chat/completions": copy.deepcopy(DELTAS),
        }
        self.plain_type, self.stream_type = "application/json", "text/event-stream; charset=utf-8"
        self.end = "data: [DONE]\n\n"
        self.cut = False
        self.listed: tuple[int, Any] = 200, {"data": []}
        self.judge: Callable[[str, str, bytes], tuple[int, dict[str, Any]] | None] = judge
        self.seen: list[tuple[str, str, bytes]] = []


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for a delayed acknowledgement

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        return self.answer(*self.server.listed)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content_type = self.headers.get("Content-Type", "")
        self.server.seen.append((self.path, content_type, raw))
        if self.path == "/tokenize":
            return self.answer(200, {"count": len(json.loads(raw).get("prompt", "").split())})
        refused = self.server.judge(self.path, content_type, raw)
        if refused is not None:
            return self.answer(*refused)
        with contextlib.suppress(ValueError, AttributeError):
            if json.loads(raw).get("stream"):
                return self.stream()
        return self.answer(200, self.server.plain[self.path])

    def answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", self.server.plain_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", self.server.stream_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        events = [
            f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in self.server.streams[self.path]
        ]
        for text in [*events, self.server.end]:
            self.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode() if text else b"")
        if self.server.cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with Server() as started:
        threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield started
        started.shutdown()


@pytest.fixture
def server(shared: Server) -> Server:
    shared.reset()
    return shared


@pytest.fixture(scope="module")
def shared_api(shared: Server) -> Api:
    """Making the official client takes longer than a test."""
    return Api(Client(shared.url), MODEL, lambda: LONGEST)


@pytest.fixture
def api(server: Server, shared_api: Api) -> Api:
    return shared_api


def request(endpoint: str) -> Request:
    return TextRequests(MODEL, 1, "t").request(endpoint)


ENDPOINTS = pytest.mark.parametrize("endpoint", ["completions", "chat"])
BAD = pytest.mark.parametrize("bad", BAD_REQUESTS, ids=lambda bad: bad.name)

# --- bad requests -----------------------------------------------------------------------------------------------------


@BAD
def test_a_strict_server_refuses_every_bad_request(api: Api, bad: BadRequest) -> None:
    response = api.send_bad(bad)
    assert 400 <= response.status < 500
    assert api.error_message(response)
    test_serving.test_a_bad_request_is_refused_and_hurts_nobody(api, TextRequests(MODEL, 1, "t"), bad)


@BAD
def test_a_server_that_accepts_a_bad_request_is_noticed(server: Server, api: Api, bad: BadRequest) -> None:
    def lenient(path: str, content_type: str, raw: bytes) -> tuple[int, dict[str, Any]] | None:
        return None

    server.judge = lenient
    with pytest.raises(AssertionError, match=f"expected a 4xx for {bad.name}, got 200"):
        test_serving.test_a_bad_request_is_refused_and_hurts_nobody(api, TextRequests(MODEL, 1, "t"), bad)


@pytest.mark.parametrize(
    "answer",
    [(500, {"error": {"message": "boom"}}), (400, {"detail": "no"}), (400, {"error": {"message": ""}}), (400, [])],
    ids=["server-error", "no-error-object", "no-message", "no-object"],
)
def test_a_refusal_in_the_wrong_form_is_noticed(server: Server, api: Api, answer: tuple[int, Any]) -> None:
    server.judge = lambda *_: answer
    with pytest.raises(AssertionError, match=r"expected a 4xx|expected an error object"):
        test_serving.test_a_bad_request_is_refused_and_hurts_nobody(api, TextRequests(MODEL, 1, "t"), BAD_REQUESTS[0])


def test_bad_requests_are_what_their_names_say(server: Server, api: Api) -> None:
    sent = {}
    for bad in BAD_REQUESTS:
        api.send_bad(bad)
        sent[bad.name] = server.seen[-1]
    assert sent["empty-body"][2] == b""
    assert sent["wrong-content-type"][1] == "text/plain"
    assert json.loads(sent["wrong-content-type"][2])["model"] == MODEL
    assert len(json.loads(sent["prompt-too-long"][2])["prompt"]) == LONGEST + 1
    assert "prompt" not in json.loads(sent["no-prompt"][2])
    assert "messages" not in json.loads(sent["chat-without-messages"][2])
    assert {path for path, _, _ in sent.values()} == {"/v1/completions", "/v1/chat/completions"}
    assert len(sent) == len(BAD_REQUESTS), "names are used once"


# --- the schema -------------------------------------------------------------------------------------------------------


@ENDPOINTS
def test_a_good_answer_has_no_violation(api: Api, endpoint: str) -> None:
    assert api.schema_violations(request(endpoint)) == []


def test_a_good_answer_with_usage_and_log_probabilities_has_no_violation(server: Server, api: Api) -> None:
    choice = server.plain["/v1/completions"]["choices"][0]
    choice["logprobs"] = {
        "text_offset": [0, 6],
        "token_logprobs": [-0.5, -1],
        "tokens": [" river", " stone"],
        "top_logprobs": [{" river": -0.5}, {" stone": -1}],
    }
    server.streams["/v1/completions"].append(
        {**PIECES[0], "choices": [], "usage": {"prompt_tokens": 9, "total_tokens": 11, "completion_tokens": 2}}
    )
    assert api.schema_violations(request("completions")) == []


def at(body: Any, path: tuple[str | int, ...]) -> tuple[Any, str | int]:
    for key in path[:-1]:
        body = body[key]
    return body, path[-1]


BROKEN = {
    "not-an-object": [1],
    "a-text": "choices",
    "empty": {},
    "choices-are-null": {"choices": None},
    "no-choice": {"choices": []},
    "choice-is-a-number": {"choices": [5]},
    "choice-without-text": {"choices": [{"index": 0}]},
    "message-is-null": {"choices": [{"message": None}]},
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_an_answer_without_its_text_is_the_subjects_fault(server: Server, api: Api, body: Any) -> None:
    server.plain["/v1/completions"] = body
    with pytest.raises(SubjectFault, match=r"expected choices\.0.* in the answer, got"):
        api.answer(request("completions"))


@pytest.mark.parametrize("value", [None, 5, "seven", [7]], ids=str)
def test_an_answer_without_usage_or_id_is_for_its_reader_to_judge(server: Server, api: Api, value: Any) -> None:
    server.plain["/v1/completions"] |= {"usage": value}
    del server.plain["/v1/completions"]["id"]
    answer = api.answer(request("completions"))
    assert (answer.text, answer.usage, answer.id) == (" river stone", {}, "")


@pytest.mark.parametrize(
    "body", [[], {}, {"data": None}, {"data": {}}, {"data": ["m"]}, {"data": [{"object": "model"}]}], ids=str
)
def test_a_broken_list_of_models_is_the_subjects_fault(server: Server, api: Api, body: Any) -> None:
    server.listed = 200, body
    with pytest.raises(SubjectFault, match=r"expected data in the answer|expected a list of models with ids"):
        api.models()


def test_models_are_listed_by_id(server: Server, api: Api) -> None:
    server.listed = 200, {"data": [{"id": "m", "max_model_len": 8}]}
    assert api.models() == {"m": {"id": "m", "max_model_len": 8}}
    server.listed = 503, {}
    with pytest.raises(SubjectFault, match="expected HTTP 200, got 503"):
        api.models()


PLAIN_FIELDS = {
    "completions": [("id",), ("object",), ("created",), ("model",), ("choices",), ("choices", 0, "text")],
    "chat": [("id",), ("object",), ("created",), ("model",), ("choices",), ("choices", 0, "message", "role")],
}
BOTH = [("choices", 0, "finish_reason"), ("choices", 0, "index"), ("usage", "prompt_tokens")]
CASES = [
    pytest.param(endpoint, path, id=f"{endpoint}-{'.'.join(map(str, path))}")
    for endpoint, paths in PLAIN_FIELDS.items()
    for path in [*paths, *BOTH]
]


@pytest.mark.parametrize(("endpoint", "path"), CASES)
def test_a_missing_field_of_a_plain_answer_is_found(
    server: Server, api: Api, endpoint: str, path: tuple[str | int, ...]
) -> None:
    inside, name = at(server.plain[request(endpoint).path], path)
    del inside[name]
    assert any(
        found.startswith(f"plain answer: {'.'.join(map(str, path))}: ")
        for found in api.schema_violations(request(endpoint))
    )


@pytest.mark.parametrize(("endpoint", "path"), CASES)
def test_a_wrong_type_in_a_plain_answer_is_found(
    server: Server, api: Api, endpoint: str, path: tuple[str | int, ...]
) -> None:
    """Also where it could be read as the right one: a number as a text breaks clients in other languages."""
    inside, name = at(server.plain[request(endpoint).path], path)
    inside[name] = str(inside[name]) if isinstance(inside[name], int) else 7
    assert any(
        found.startswith(f"plain answer: {'.'.join(map(str, path))}")
        for found in api.schema_violations(request(endpoint))
    )


@pytest.mark.parametrize(
    ("endpoint", "path", "value"),
    [
        ("completions", ("choices", 0, "text"), None),
        ("completions", ("choices", 0, "finish_reason"), "because"),
        ("completions", ("object",), "chat.completion.chunk"),
        ("completions", ("created",), "1764045088"),
        ("chat", ("choices", 0, "delta"), None),
        ("chat", ("choices", 0, "delta", "content"), 7),
        ("chat", ("choices", 0, "finish_reason"), "because"),
        ("chat", ("object",), "chat.completion"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_a_wrong_piece_of_a_stream_is_found(
    server: Server, api: Api, endpoint: str, path: tuple[str | int, ...], value: Any
) -> None:
    inside, name = at(server.streams[request(endpoint).path][1], path)
    inside[name] = value
    assert any(
        found.startswith(f"stream: {'.'.join(map(str, path))}") for found in api.schema_violations(request(endpoint))
    )


def test_a_plain_answer_without_its_finish_reason_is_unfinished(server: Server, api: Api) -> None:
    """Null is right in a piece of a stream, and only there."""
    server.plain["/v1/completions"]["choices"][0]["finish_reason"] = None
    (found,) = api.schema_violations(request("completions"))
    assert found.startswith("plain answer: choices.0.finish_reason")


def test_a_plain_answer_that_is_no_object_is_found(server: Server, api: Api) -> None:
    server.plain["/v1/completions"] = [1]  # type: ignore[assignment]
    assert any(found.startswith("plain answer: the whole: ") for found in api.schema_violations(request("completions")))


@ENDPOINTS
def test_a_wrong_content_type_is_found(server: Server, api: Api, endpoint: str) -> None:
    server.plain_type = "text/plain; charset=utf-8"
    assert "content type 'text/plain' of a plain answer" in api.schema_violations(request(endpoint))


@ENDPOINTS
@pytest.mark.parametrize(
    ("broken", "words"),
    [('{"id": "a', "an event is not JSON"), ("[]", "the whole: "), ("7", "the whole: "), ("null", "the whole: ")],
    ids=["half-an-event", "list", "number", "null"],
)
def test_an_event_that_is_no_object_is_found(server: Server, api: Api, endpoint: str, broken: str, words: str) -> None:
    server.streams[request(endpoint).path].insert(1, broken)
    assert any(found.startswith(f"stream: {words}") for found in api.schema_violations(request(endpoint)))


@ENDPOINTS
def test_a_stream_that_breaks_off_is_found(server: Server, api: Api, endpoint: str) -> None:
    server.cut = True
    found = api.schema_violations(request(endpoint))
    assert any(one.startswith("stream: it broke off") for one in found)


@ENDPOINTS
def test_an_error_in_mid_stream_is_found(server: Server, api: Api, endpoint: str) -> None:
    server.streams[request(endpoint).path].insert(1, {"error": {"message": "engine died", "type": "x", "code": 500}})
    assert any("the official client fails" in found for found in api.schema_violations(request(endpoint)))


def test_an_empty_stream_is_found(server: Server, api: Api) -> None:
    server.streams["/v1/completions"] = []
    assert api.schema_violations(request("completions")) == ["the official client gets an empty stream"]


def test_every_violation_is_said_once(server: Server, api: Api) -> None:
    for piece in server.streams["/v1/completions"]:
        piece["created"] = "now"
    found = api.schema_violations(request("completions"))
    assert len(found) == 1


# --- answers ----------------------------------------------------------------------------------------------------------


@ENDPOINTS
def test_an_answer_is_the_same_plain_and_streamed(api: Api, endpoint: str) -> None:
    plain, streamed = api.answer(request(endpoint)), api.answer(request(endpoint).streamed())
    assert plain.text == streamed.text == " river stone"
    assert plain.finish_reason == streamed.finish_reason
    assert (plain.usage["prompt_tokens"], streamed.usage) == (9, {})
    assert plain.id != streamed.id


@pytest.mark.parametrize("break_it", ["end", "cut"])
def test_an_answer_from_a_broken_stream_is_a_fault(server: Server, api: Api, break_it: str) -> None:
    server.end, server.cut = "", break_it == "cut"
    with pytest.raises(SubjectFault, match=r"well-formed stream.*\[DONE\]"):
        api.answer(request("chat").streamed())


def test_a_refused_good_request_is_a_fault(server: Server, api: Api) -> None:
    server.judge = lambda *_: refusal("overloaded", 503)
    with pytest.raises(SubjectFault, match="expected HTTP 200, got 503"):
        api.text(request("chat"))


def test_answers_together_come_in_order(server: Server, api: Api) -> None:
    asked = [request("completions"), request("chat"), request("completions").streamed()]
    assert [answer.id[:5] for answer in api.answer_together(asked)] == ["cmpl-", "chatc", "cmpl-"]


def test_only_the_prompt_is_sent_to_the_tokenizer(server: Server, api: Api) -> None:
    asked = TextRequests(MODEL, 1, "t").request("completions", max_tokens=3, ignore_eos=True)
    assert api.count_tokens(asked) == len(asked.payload["prompt"].split())
    assert set(json.loads(server.seen[-1][2])) == {"model", "prompt"}
    for status, kind, words in (
        (404, NotJudged, "POST /tokenize: HTTP 404; without vLLM's tokenizer endpoint"),
        (500, SubjectFault, "POST /tokenize: expected HTTP 200, got 500"),
    ):
        server.judge = lambda *_, code=status: refusal("no such path", code)
        with pytest.raises(kind, match=words):
            count_tokens(Client(f"{server.url}/nowhere"), asked)


# --- what an answer says of itself ------------------------------------------------------------------------------------


@ENDPOINTS
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("model", "another", "model: expected 'tiny', as was asked for, got 'another'"),
        ("created", 1764045088123, "created: expected seconds since 1970, got 1764045088123"),
        ("created", 0, "created: expected seconds since 1970, got 0"),
    ],
    ids=["another-model", "milliseconds", "zero"],
)
def test_a_false_fact_is_found(
    server: Server, api: Api, endpoint: str, stream: bool, field: str, value: Any, words: str
) -> None:
    path = request(endpoint).path
    for body in server.streams[path] if stream else [server.plain[path]]:
        body[field] = value
    assert api.schema_violations(request(endpoint)) == [f"{'stream' if stream else 'plain answer'}: {words}"]


def test_a_second_served_name_is_the_same_model(server: Server, api: Api) -> None:
    server.plain["/v1/completions"]["model"] = "first-name"
    server.listed = 200, {"data": [{"id": "first-name", "root": "org/m"}, {"id": MODEL, "root": "org/m"}]}
    assert api.schema_violations(request("completions")) == []
    server.listed = 200, {"data": [{"id": "first-name", "root": "org/other"}, {"id": MODEL, "root": "org/m"}]}
    assert len(api.schema_violations(request("completions"))) == 1


def test_an_id_that_comes_again_is_found(server: Server, api: Api) -> None:
    server.plain["/v1/chat/completions"]["id"] = DELTAS[0]["id"]
    assert api.schema_violations(request("chat")) == [f"two answers have the same id {DELTAS[0]['id']!r}"]


@pytest.mark.parametrize(
    ("details", "found"),
    [(None, 0), ({"cached_tokens": 0}, 0), ({"cached_tokens": 9}, 0), ({}, 0), ({"audio_tokens": None}, 0)]
    + [({"cached_tokens": wrong}, 1) for wrong in (10, -1, "9", 2.5)]
    + [([1], 1), ("x", 1)],
)
def test_cached_tokens_beyond_the_prompt_are_found(server: Server, api: Api, details: Any, found: int) -> None:
    server.plain["/v1/completions"]["usage"]["prompt_tokens_details"] = details
    assert len(api.usage_violations(api.answer(request("completions")))) == found


# --- reasoning parsers, and text that is none -------------------------------------------------------------------------


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
    test_serving.test_a_bad_request_is_refused_and_hurts_nobody(api, texts, BAD_REQUESTS[0])


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


# --- streams that are collected on the way ----------------------------------------------------------------------------


class Streams(Api):
    """Gives streams whose first token comes after these shares of their time."""

    def __init__(self, *shares: float) -> None:
        self.shares = list(shares)

    def stream_with_text(self, make: Callable[[], Request], pieces: int = 16, attempts: int = 5) -> Response:
        return Response(status=200, headers={}, text="", total_s=1.0, content_s=(self.shares.pop(0),))


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        ((0.1, 0.1), 0),
        ((0.95, 0.1, 0.1), 0),
        ((0.1, 0.95, 0.1), 0),
        ((0.95, 0.95, 0.95, 0.95), 4),
        ((0.95, 0.95, 0.1, 0.1), None),
        ((0.95, 0.95, 0.95, 0.1), None),
    ],
)
def test_collected_streams_are_told_from_a_busy_machine(shares: tuple[float, ...], found: int | None) -> None:
    api = Streams(*shares)
    if found is None:
        with pytest.raises(NotJudged, match="of 4 streams arrived all at once"):
            api.collected(lambda: request("completions"))
    else:
        assert len(api.collected(lambda: request("completions"))) == found
    assert api.shares == []


# --- requests in words ------------------------------------------------------------------------------------------------


def words_of(asked: Request) -> list[str]:
    text = asked.payload["prompt"] if asked.endpoint == "completions" else asked.payload["messages"][0]["content"]
    return str(text).split()


@given(costs=st.lists(st.integers(1, 5), min_size=len(WORDS), max_size=len(WORDS)), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_texts_have_lengths_of_their_own_whatever_a_word_is_in_tokens(costs: list[int], seed: int) -> None:
    """API-07 tells whose answer it got by the number of prompt tokens."""
    cost, source = dict(zip(WORDS, costs, strict=True)), TextRequests(MODEL, seed, "t")
    lengths = [sum(cost[word] for word in words_of(source.request("completions"))) for _ in range(16)]
    assert len(set(lengths)) == len(lengths)


@pytest.mark.parametrize(
    ("longest", "cost"), [(512, 2), (1024, 2), (2048, 2), (8192, 2), (1024, 7), (4096, 7), (8192, 7)]
)
def test_texts_fit_the_model(longest: int, cost: int) -> None:
    """1 024 tokens are the context of most examples of the chart; a word takes up to two, or its letters."""
    source = TextRequests(MODEL, 1, "t", longest, cost)
    asked = [words_of(source.request("completions")) for _ in range(24)]
    assert len({len(words) for words in asked}) == len(asked)
    assert max(map(len, asked)) * cost + 96 <= longest
    assert longest < 2048 * cost / 2 or len(asked[0]) == 24 * len(WORDS) + 7


def test_texts_are_fresh_from_their_first_words_on() -> None:
    """No two may share a block of the prefix cache, or nothing is cold."""
    sources = [TextRequests(MODEL, seed, scope) for seed in (1, 2) for scope in ("a", "b")]
    asked = [source.request(endpoint) for source in sources for endpoint in ("completions", "chat") for _ in range(8)]
    assert len({tuple(words_of(one)[:8]) for one in asked}) == len(asked)
    again = TextRequests(MODEL, 1, "a").request("completions")
    assert words_of(again) == words_of(asked[0]), "the same seed asks the same"


@ENDPOINTS
def test_a_request_is_what_was_asked_for(endpoint: str) -> None:
    source = TextRequests(MODEL, 1, "t")
    plain = source.request(endpoint, include_usage=True, stop=["x"])
    assert "stream_options" not in plain.payload, "a plain answer always has its usage"
    assert (plain.payload["stream"], plain.payload["stop"], plain.payload["temperature"]) == (False, ["x"], 0)
    streamed = source.request(endpoint, stream=True, include_usage=True, max_tokens=9, ignore_eos=True)
    assert streamed.payload["stream_options"] == {"include_usage": True}
    official = streamed.official_payload
    assert official["extra_body"] == {"ignore_eos": True}
    assert "stream" not in official
    assert "ignore_eos" not in official
    assert "extra_body" not in plain.official_payload
    assert plain.streamed().payload["stream"] is True
    assert plain.payload["stream"] is False, "a request is not changed, it is copied"


# --- a stop string ----------------------------------------------------------------------------------------------------


@functools.cache
def api_of_nothing() -> Api:
    """Made where it is used: every worker collects this module, and the client of OpenAI takes long to import."""
    return Api(Client("http://127.0.0.1:9"), MODEL, lambda: LONGEST)


@given(st.text(alphabet="abc \n\ufffd\u4f60", max_size=40))
@example("aaaa")
@example("   ")
@example("")
@settings(max_examples=200, deadline=None)
def test_a_stop_string_is_new_where_it_is_found(text: str) -> None:
    with contextlib.suppress(NotJudged):
        piece = api_of_nothing().pick_stop_string(text)
        assert piece.strip()
        assert "\ufffd" not in piece, "half a character is no text that a client can send"
        assert len(text) // 2 <= text.index(piece)


@given(st.text(alphabet="abcdef \n", min_size=2, max_size=40), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_a_stop_string_does_not_reach_across_the_end_of_the_reasoning(text: str, seam: int) -> None:
    with contextlib.suppress(NotJudged):
        piece = api_of_nothing().pick_stop_string(text, seam)
        assert not text.index(piece) < seam < text.index(piece) + len(piece)


def test_a_text_of_words_has_a_stop_string() -> None:
    source = random.Random(1)
    for _ in range(20):
        text = " ".join(source.choices(WORDS, k=24))
        assert text.index(api_of_nothing().pick_stop_string(text)) >= len(text) // 2


def test_the_state_of_the_pods_is_part_of_a_difference() -> None:
    refused = Canned({"error": "no engine"}, status=503)
    refused.answer = dataclasses.replace(refused.answer, context="; pod engine: Running, not ready")
    own, other = Api(Canned({"choices": ["a"]}), "m", lambda: 1), Api(refused, "m", lambda: 1)  # type: ignore[arg-type]
    (found,) = other.differences(own, Request("completions", {"prompt": "x"}))
    assert found == "status: expected 200, got 503; pod engine: Running, not ready"


def test_an_engine_that_differs_from_itself_says_nothing_of_its_router() -> None:
    answers = [Canned({"choices": [text]}).answer for text in ("a", "b")]
    engine = Canned({})
    engine.post = lambda *_, **__: answers.pop(0)  # type: ignore[method-assign]
    other = Api(Canned({"choices": ["c"]}), "m", lambda: 1)  # type: ignore[arg-type]
    with pytest.raises(NotJudged, match="the engine itself gives different answers to the same request"):
        other.differences(Api(engine, "m", lambda: 1), Request("completions", {"prompt": "x"}))  # type: ignore[arg-type]


def test_a_text_that_repeats_itself_is_no_fault() -> None:
    with pytest.raises(NotJudged, match="is repetitive"):
        api_of_nothing().pick_stop_string("\u4f60" * 24)


class Canned:
    """A client that gives one answer, whatever it is asked."""

    base_url = "http://127.0.0.1:9"
    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, body: object, status: int = 200, kind: str = "application/json") -> None:
        self.answer = Response(status=status, headers={"content-type": kind}, text=json.dumps(body), total_s=0.0)

    def post(self, path: str, payload: object = None, **_: object) -> Response:
        return self.answer


@pytest.mark.parametrize(
    ("through", "found"),
    [
        (Canned({"id": "2", "created": 9, "choices": ["a"]}), []),
        (Canned({"id": "2", "created": 9, "choices": ["b"]}), ["body"]),
        (Canned({"id": "2", "choices": ["a"], "extra": 1}), ["body"]),
        (Canned("no", status=503), ["status"]),
        (Canned({"id": "2", "choices": ["a"]}, kind="text/plain"), ["content type"]),
    ],
)
def test_what_a_router_changes_is_named(through: Canned, found: list[str]) -> None:
    engine = Canned({"id": "1", "created": 1, "choices": ["a"]})
    own, other = Api(engine, "m", lambda: 1), Api(through, "m", lambda: 1)  # type: ignore[arg-type]
    request = Request("completions", {"prompt": "x"})
    assert [one.partition(":")[0] for one in other.differences(own, request)] == found
