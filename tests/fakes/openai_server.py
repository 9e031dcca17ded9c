"""A small strict server of the OpenAI API, which can be told to do one thing wrong."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.instruments.client import Client
from fixtures.instruments.openai_api import Api
from fixtures.instruments.text_requests import Request, TextRequests

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
        return refusal("the body is not an object")
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

    def handle_error(self, *_: Any) -> None:
        """A client that ends a connection is not news."""

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


FIXTURES = (api, server, shared, shared_api)
"""A module that uses `api` or `server` has all of them."""


def request(endpoint: str) -> Request:
    return TextRequests(MODEL, 1, "t").request(endpoint)


ENDPOINTS = pytest.mark.parametrize("endpoint", ["completions", "chat"])
