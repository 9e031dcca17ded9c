"""What a fault of a proxy is: it sees every request and its answer, and passes both on unless it overrides something."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

GENERATING = ("/v1/completions", "/v1/chat/completions")


class Cut(Exception):  # noqa: N818 - what happens, not an error of the proxy
    """The connection to the client breaks here."""


@dataclass
class Request:
    """One request of a client."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    to: str | None = None
    """Base URL of whom to ask; None: the upstream of the proxy."""
    within_s: float = 600.0
    """What is silent for longer is given up, with a TimeoutError."""

    @property
    def generates(self) -> bool:
        """Whether it asks for a completion."""
        return self.method == "POST" and self.path in GENERATING

    @property
    def json(self) -> dict[str, Any]:
        """The body as an object; empty if it is none."""
        with contextlib.suppress(ValueError):
            found = json.loads(self.body)
            return found if isinstance(found, dict) else {}
        return {}

    @property
    def streams(self) -> bool:
        """Whether it asks for a stream."""
        return self.json.get("stream") is True


@dataclass
class Answer:
    """A plain answer; a stream has ``events`` instead of a body."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    events: Iterator[bytes] | None = None
    cut: bool = False
    """Announce the whole body, send half of it, and close."""

    def with_json(self, change: Callable[[Any], Any]) -> bool:
        """Change a JSON body in place; False if it is none, or an error."""
        if self.status != 200:
            return False
        try:
            body = json.loads(self.body)
        except ValueError:
            return False
        self.body = json.dumps(change(body) or body).encode()
        return True


class Fault:
    """Passes everything through; every fault overrides what it needs."""

    def __init__(self, **params: Any) -> None:
        self.params = params
        self.engines: tuple[str, ...] = ()
        """Base URLs of the engines behind a router, for a fault that passes it by."""
        self.fired = 0
        self.lock = threading.Lock()

    def acts(self) -> int:
        """Note that the fault acts now; how often it has."""
        with self.lock:
            self.fired += 1
            return self.fired

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """The answer to a request; ``forward`` asks the engine."""
        answer = forward(request)
        if answer.events is not None:
            answer.events = self.events(request, answer.events)
        return answer

    def events(self, request: Request, events: Iterator[bytes]) -> Iterator[bytes]:  # noqa: ARG002
        """The events of a stream, each with its blank line."""
        return events


def as_event(data: Any) -> bytes:
    """An event with these data, and its blank line."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def data_of(event: bytes) -> dict[str, Any] | None:
    """The object of an event; None for ``[DONE]`` and comments."""
    with contextlib.suppress(ValueError):
        found = json.loads(event.removeprefix(b"data:").strip())
        return found if isinstance(found, dict) else None
    return None
