"""Answers and streams against the schema of the API, with one thing wrong at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import SubjectFault
from tests.fakes import openai_server
from tests.fakes.openai_server import DELTAS, ENDPOINTS, MODEL, PIECES, Server, request

if TYPE_CHECKING:
    from fixtures.instruments.openai_api import Api

api, server, shared, shared_api = openai_server.FIXTURES


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


@ENDPOINTS
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_does_not_have_is_found(server: Server, api: Api, endpoint: str, number: str) -> None:
    path = request(endpoint).path
    for body in (server.plain[path], server.streams[path][1]):
        body["extra"] = [{"score": float(number)}]
    found = api.schema_violations(request(endpoint))
    assert {f"{kind}: {number} is not a JSON number" for kind in ("plain answer", "stream")} <= set(found)


def parent_of(body: Any, path: tuple[str | int, ...]) -> tuple[Any, str | int]:
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
    inside, name = parent_of(server.plain[request(endpoint).path], path)
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
    inside, name = parent_of(server.plain[request(endpoint).path], path)
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
    inside, name = parent_of(server.streams[request(endpoint).path][1], path)
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


# --- what an answer says of itself ------------------------------------------------------------------------------------


@ENDPOINTS
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("model", "another", "model: expected 'tiny', as was asked for, got 'another'"),
        ("created", 1764045088123, "created: expected seconds since 1970, got 1764045088123"),
        ("created", 0, "created: expected seconds since 1970, got 0"),
        ("created", -1764045088, "created: expected seconds since 1970, got -1764045088"),
        ("id", "", "id: expected a non-empty text, got an empty one"),
    ],
    ids=["another-model", "milliseconds", "zero", "before-1970", "empty-id"],
)
def test_a_false_fact_is_found(
    server: Server, api: Api, endpoint: str, stream: bool, field: str, value: Any, words: str
) -> None:
    path = request(endpoint).path
    for body in server.streams[path] if stream else [server.plain[path]]:
        body[field] = value
    assert api.schema_violations(request(endpoint)) == [f"{'stream' if stream else 'plain answer'}: {words}"]


@ENDPOINTS
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_choice_that_nobody_asked_for_is_found(server: Server, api: Api, endpoint: str, stream: bool) -> None:
    path = request(endpoint).path
    body = server.streams[path][0] if stream else server.plain[path]
    body["choices"] = [*body["choices"], {**body["choices"][0], "index": 1}]
    words = "choices: expected the one that was asked for, index 0, got index 1"
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


@pytest.mark.parametrize(
    ("details", "found"),
    [({"reasoning_tokens": 0, "audio_tokens": None, "note": "x"}, 0), ({"reasoning_tokens": 10**6}, 1), (3, 1)],
)
def test_details_beyond_the_answer_are_found(server: Server, api: Api, details: Any, found: int) -> None:
    server.plain["/v1/completions"]["usage"]["completion_tokens_details"] = details
    assert len(api.usage_violations(api.answer(request("completions")))) == found
