"""Whatever a server answers, reading it ends in a value, a verdict or a reason, never in a traceback.

``KV_OFFLOAD_FUZZ`` is the number of inputs for each property (10 000 in CI, 500 else). Inputs are grown from a seed by plain
code: drawing whole trees with hypothesis takes a hundred times as long. A failure names its seed.
"""

from __future__ import annotations

import copy
import functools
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.deadlines import SETTABLE, Deadlines, parse
from fixtures.core.errors import ConfigurationError, NotJudged, SubjectFault
from fixtures.evidence.sse import SseReader, check_stream
from fixtures.instruments.answers import differences_of, violations_of, without_own_fields
from fixtures.instruments.client import Client, has_content
from fixtures.instruments.openai_api import Answer, Api, _text_of
from fixtures.instruments.response import Response
from fixtures.subject.context import tokens_at_most
from fixtures.subject.exchange import Exchange, first_difference, summary
from tests.fakes.openai_server import CHAT, COMPLETION, DELTAS, PIECES
from tests.fuzzing import BATCH, INPUTS, for_seeds

if TYPE_CHECKING:
    from collections.abc import Callable

LEAVES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**70,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "a",
    "[DONE]",
    "length",
    "\x00",
    [],
    {},
)
NAMES = (
    "choices",
    "message",
    "delta",
    "text",
    "content",
    "reasoning",
    "usage",
    "index",
    "logprobs",
    "token_logprobs",
    "x",
)
WITH_LOGPROBS = copy.deepcopy(COMPLETION)
WITH_LOGPROBS["choices"][0]["logprobs"] = {
    "tokens": ["a"],
    "token_logprobs": [-1.0],
    "top_logprobs": [{"a": -1.0, "b": -2.0}],
    "text_offset": [0],
}


def tree(source: random.Random, depth: int = 3) -> Any:
    """Any JSON value, with the names that matter."""
    kind = source.randrange(4) if depth else 0
    if kind == 1:
        return [tree(source, depth - 1) for _ in range(source.randrange(3))]
    if kind == 2:
        return {source.choice(NAMES): tree(source, depth - 1) for _ in range(source.randrange(4))}
    return copy.deepcopy(source.choice(LEAVES))


def damaged(source: random.Random, body: Any) -> Any:
    """A good value with one to three places replaced or removed, at any depth."""
    body = {"": copy.deepcopy(body)}
    for _ in range(source.randint(1, 3)):
        inside: Any = body
        key: Any = ""
        while isinstance(inside[key], dict | list) and inside[key] and source.random() < 0.8:
            inside = inside[key]
            key = source.choice(list(inside)) if isinstance(inside, dict) else source.randrange(len(inside))
        if key != "" and isinstance(inside, dict) and source.random() < 0.3:
            del inside[key]
        else:
            inside[key] = tree(source)
    return body[""]


class Offline(Api):
    """An API of which nothing is asked."""

    def models(self) -> dict[str, dict[str, Any]]:
        return {"m": {"id": "m", "root": 1}}


@functools.cache
def offline() -> Offline:
    return Offline(Client("http://127.0.0.1:9"), "m", lambda: 1)


def response_of(body: str, events: bytes | None = None) -> Response:
    if events is None:
        return Response(200, {}, body, 0.1)
    reader = SseReader()
    found = [*reader.feed(events), *reader.close()]
    for event in found:
        has_content(event)
        _text_of(event)
    return Response(200, {}, body, 0.1, events=tuple(found), stream=check_stream(found, problems=reader.problems))


def read(response: Response) -> None:
    looks: tuple[Callable[[], Any], ...] = (
        lambda: response.answer,
        lambda: response.usage,
        lambda: response.id,
        lambda: response.reasoning,
        lambda: response.content_type,
        lambda: offline().error_message(response),
        lambda: offline()._false_facts(response.json),
        lambda: without_own_fields(response.json),
        lambda: differences_of(response, response),
        lambda: offline().usage_violations(Answer("", None, response.usage, "")),
        lambda: summary(exchange(response)),
        lambda: first_difference(exchange(response).fingerprint, exchange(response).fingerprint),
    )
    for look in looks:
        try:
            look()
        except (SubjectFault, NotJudged):
            continue


def exchange(response: Response) -> Exchange:
    return Exchange(prompt=None, payload={}, response=response, engine="e")


def plain_answer(source: random.Random) -> None:
    body = damaged(source, source.choice((COMPLETION, CHAT, WITH_LOGPROBS)))
    text = json.dumps(body)
    if source.random() < 0.1:
        text = text[: source.randrange(len(text) + 1)]
    read(response_of(text))


def stream(source: random.Random) -> None:
    events = [json.dumps(damaged(source, one)) for one in source.choice((PIECES, DELTAS))]
    events.insert(source.randrange(3), source.choice(("[DONE]", "{", "5", '"a"', "[]", "\u00e9")))
    body = bytearray("".join(f"data: {one}\n\n" for one in events).encode())
    for _ in range(source.randrange(3)):
        body[source.randrange(len(body))] = source.randrange(256)
    read(response_of("", bytes(body[: source.randrange(len(body)) if source.random() < 0.3 else None])))


def schema(source: random.Random) -> None:
    from openai.types.chat import ChatCompletion  # takes long, and every worker collects this module

    assert isinstance(violations_of(ChatCompletion, damaged(source, CHAT)), list)


def payload(source: random.Random) -> None:
    asked = {"prompt": tree(source)} if source.random() < 0.5 else {"messages": tree(source)}
    assert Deadlines().answer(tokens_at_most(asked)) >= 120


def deadlines(source: random.Random) -> None:
    def word() -> str:
        if source.random() < 0.5:
            return source.choice(("answer=1e3", "idle=nan", "probe=-1", "=", "reset_s=5"))
        signs = [*"=_-+.e0159 ", chr(source.randrange(0xD800))]
        name = source.choice((*SETTABLE, "", "x"))
        return name + "".join(source.choice(signs) for _ in range(source.randrange(12)))

    try:
        table = parse([word() for _ in range(source.randrange(4))])
    except ConfigurationError:
        return
    assert all(getattr(table, f"{name}_s") > 0 for name in SETTABLE)


CASES: dict[str, Callable[[random.Random], None]] = {
    "plain answers": plain_answer,
    "streams": stream,
    "schemas": schema,
    "payloads": payload,
    "deadlines": deadlines,
}


@pytest.mark.fuzz
@pytest.mark.parametrize("what", CASES)
def test_no_answer_and_no_option_breaks_its_reader(what: str) -> None:
    def run(seed: int) -> None:
        source = random.Random(seed)
        for _ in range(BATCH):
            CASES[what](source)

    for_seeds(INPUTS // BATCH, run)
