"""Requests that a server has to refuse."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.instruments.text_requests import BAD_REQUESTS, BadRequest, TextRequests
from suite import test_serving
from tests.fakes import openai_server
from tests.fakes.openai_server import LONGEST, MODEL, Server

if TYPE_CHECKING:
    from fixtures.instruments.openai_api import Api

api, server, shared, shared_api = openai_server.FIXTURES


BAD = pytest.mark.parametrize("bad", BAD_REQUESTS, ids=lambda bad: bad.name)


@BAD
def test_a_strict_server_refuses_every_bad_request(api: Api, bad: BadRequest) -> None:
    response = api.send_bad(bad)
    assert 400 <= response.status < 500
    assert api.error_message(response)
    test_serving.test_a_bad_request_is_refused_and_harms_no_other(api, TextRequests(MODEL, 1, "t"), bad)


@BAD
def test_a_server_that_accepts_a_bad_request_is_noticed(server: Server, api: Api, bad: BadRequest) -> None:
    def lenient(path: str, content_type: str, raw: bytes) -> tuple[int, dict[str, Any]] | None:
        return None

    server.judge = lenient
    with pytest.raises(AssertionError, match=f"expected a 4xx for {bad.name}, got 200"):
        test_serving.test_a_bad_request_is_refused_and_harms_no_other(api, TextRequests(MODEL, 1, "t"), bad)


@pytest.mark.parametrize(
    "answer",
    [(500, {"error": {"message": "boom"}}), (400, {"detail": "no"}), (400, {"error": {"message": ""}}), (400, [])],
    ids=["server-error", "no-error-object", "no-message", "no-object"],
)
def test_a_refusal_in_the_wrong_form_is_noticed(server: Server, api: Api, answer: tuple[int, Any]) -> None:
    server.judge = lambda *_: answer
    with pytest.raises(AssertionError, match=r"expected a 4xx|expected an error object"):
        test_serving.test_a_bad_request_is_refused_and_harms_no_other(api, TextRequests(MODEL, 1, "t"), BAD_REQUESTS[0])


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
