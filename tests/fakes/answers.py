"""Answers of an engine, as a client of it holds them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fixtures.experiments.router_load import ANSWER_TOKENS
from fixtures.instruments.response import Response

if TYPE_CHECKING:
    from fixtures.evidence.sse import StreamFacts

USAGE = {"prompt_tokens": 3, "completion_tokens": ANSWER_TOKENS, "total_tokens": 3 + ANSWER_TOKENS}


def whole(payload: dict[str, Any], tokens: int | None = None) -> Response:
    usage = USAGE | {"completion_tokens": tokens or payload["max_tokens"]}
    if not payload["stream"]:
        return Response(200, {}, json.dumps({"choices": [{"text": "x"}], "usage": usage}), total_s=0.1)
    return Response(200, {}, "", total_s=0.1, stream=stream_of(usage))


def stream_of(usage: dict[str, Any] | None, *, done: bool = True) -> StreamFacts:
    missing = ("the stream does not end with [DONE]",)
    return SimpleNamespace(violations=() if done else missing, done=done, usage=usage)  # type: ignore[return-value]
