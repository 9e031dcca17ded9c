"""Answers, plain and streamed, alone and together, and how two servers differ."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, ClassVar

import pytest

from fixtures.core.errors import NoAnswer, NotJudged, SubjectFault
from fixtures.instruments.client import Client
from fixtures.instruments.openai_api import Answer, Api
from fixtures.instruments.response import Response
from fixtures.instruments.text_requests import Request, TextRequests
from fixtures.instruments.tokenizer import count_tokens
from tests.fakes import openai_server
from tests.fakes.openai_server import ENDPOINTS, MODEL, Server, refusal, request

if TYPE_CHECKING:
    from collections.abc import Callable

api, server, shared, shared_api = openai_server.FIXTURES


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


# --- streams that are collected on the way ----------------------------------------------------------------------------


class Streams(Api):
    """Gives streams whose first token comes after these shares of their time."""

    def __init__(self, *shares: float) -> None:
        self.shares = list(shares)

    def stream_with_text(self, make: Callable[[], Request], pieces: int = 16) -> Response:
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


def test_the_state_of_the_pods_is_part_of_a_difference() -> None:
    refused = Canned({"error": "no engine"}, status=503)
    refused.answer = dataclasses.replace(refused.answer, context="; pod engine: Running, not ready")
    own, other = Api(Canned({"choices": ["a"]}), "m", lambda: 1), Api(refused, "m", lambda: 1)  # type: ignore[arg-type]
    (found,) = other.differences(own, Request("completions", {"prompt": "x"}))
    assert found == "status: expected 200, got 503; pod engine: Running, not ready"


def test_a_limit_of_the_rate_is_no_difference() -> None:
    engine, gateway = (Api(Canned({}, status=status), "m", lambda: 1) for status in (200, 429))  # type: ignore[arg-type]
    with pytest.raises(NotJudged, match="limit of the rate"):
        gateway.differences(engine, Request("completions", {"prompt": "x"}))


def test_an_engine_that_differs_from_itself_says_nothing_of_its_router() -> None:
    answers = [Canned({"choices": [text]}).answer for text in ("a", "b")]
    engine = Canned({})
    engine.post = lambda *_, **__: answers.pop(0)  # type: ignore[method-assign]
    other = Api(Canned({"choices": ["c"]}), "m", lambda: 1)  # type: ignore[arg-type]
    with pytest.raises(NotJudged, match="the engine itself gives different answers to the same request"):
        other.differences(Api(engine, "m", lambda: 1), Request("completions", {"prompt": "x"}))  # type: ignore[arg-type]


class Canned:
    """A client that gives one answer, whatever it is asked."""

    base_url = "http://127.0.0.1:9"
    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, body: object, status: int = 200, kind: str = "application/json") -> None:
        self.answer = Response(status=status, headers={"content-type": kind}, text=json.dumps(body), total_s=0.0)

    def on_trouble(self) -> None:
        pass

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


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, None), (199, SubjectFault), (201, SubjectFault), (499, SubjectFault), (500, NoAnswer), (501, NoAnswer)],
)
def test_only_a_200_is_an_answer_and_a_fault_of_the_server_is_none(status: int, kind: type[Exception] | None) -> None:
    client = Canned({"choices": [{"text": "a"}]}, status=status)
    api = Api(client, "m", lambda: 1)  # type: ignore[arg-type]
    if kind is None:
        assert api.send(Request("completions", {"prompt": "x"})) is client.answer
    else:
        with pytest.raises(SubjectFault, match=f"expected HTTP 200, got {status}: ") as raised:
            api.send(Request("completions", {"prompt": "x"}))
        assert type(raised.value) is kind


@pytest.mark.parametrize("kind", ["application/javascript", "application/json+x", "text/plain"])
def test_a_plain_answer_is_json_and_says_so(kind: str) -> None:
    api = Api(Canned({"choices": [{"text": "a"}]}, kind=kind), "m", lambda: 1)  # type: ignore[arg-type]
    assert f"content type {kind!r} of a plain answer" in api.schema_violations(Request("completions", {"prompt": "x"}))


@pytest.mark.parametrize("other", ["a", "c"], ids=["less", "greater"])
def test_what_answers_itself_in_another_way_proves_nothing(other: str) -> None:
    api = Api(Canned({"choices": [{"text": other}]}), "m", lambda: 1)  # type: ignore[arg-type]
    request = Request("completions", {"prompt": "x"})
    api.check_repeatable(request, other, agree=False)
    api.check_repeatable(request, "b", agree=True)
    with pytest.raises(NotJudged, match=r"different answers to the same request \(API-06\)"):
        api.check_repeatable(request, "b", agree=False)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({}, 0),
        ({"prompt_tokens": 9}, 9),
        ({"completion_tokens": 2}, 2),
        ({"prompt_tokens": 9, "completion_tokens": 2}, 11),
    ],
)
def test_tokens_that_a_usage_does_not_name_are_none(usage: dict[str, int], tokens: int) -> None:
    assert Answer("a", "stop", usage, "1").tokens_in_all == tokens
