"""Faults of a prompt that is asked again."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lab.proxy.fault import Answer, Cut, Fault, Request


class Repeats(Fault):
    """Treats a prompt that was sent before in another way than a new one; remembers prompts by their digest."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.known: dict[str, Any] = {}

    def key(self, request: Request) -> str | None:
        """Digest of prompt and options; None if the fault does not look."""
        body = request.json
        prompt = body.get("prompt")
        if not request.generates or not isinstance(prompt, list) or len(prompt) < self.params.get("tokens", 0):
            return None
        return hashlib.sha256(request.body).hexdigest()


class SlowRepeat(Repeats):
    """A repeat takes as long as its first time did: whatever the tier saves is lost in front of it."""

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Waits before the repeat."""
        key, begin = self.key(request), time.perf_counter()
        if key is None:
            return forward(request)
        if key in self.known:
            self.acts()
            time.sleep(self.params.get("share", 1.0) * self.known[key])
            return forward(request)
        answer = forward(request)
        if answer.events is not None:
            first = next(answer.events, b"")
            self.known[key] = time.perf_counter() - begin
            rest = answer.events
            answer.events = (piece for part in ((first,), rest) for piece in part)
        else:
            self.known[key] = time.perf_counter() - begin
        return answer


class DropLastToken(Repeats):
    """A repeat is forwarded without the last token of its prompt."""

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Forwards less of what is known."""
        key = self.key(request)
        if key is not None and key in self.known:
            self.acts()
            body = request.json
            request = dataclasses.replace(request, body=json.dumps({**body, "prompt": body["prompt"][:-1]}).encode())
        elif key is not None:
            self.known[key] = True
        return forward(request)


class EdgeCache(Repeats):
    """Answers a repeat from a copy of the first answer.

    With ``shadow`` the engine is asked all the same, behind the client's back, so that its counters move; without, it
    never hears of the repeat. ``most`` limits how often.
    """

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """From the copy."""
        key = self.key(request)
        if key is None:
            return forward(request)
        if key in self.known and self.fired < self.params.get("most", 10**9):
            self.acts()
            status, headers, body, again = self.known[key]
            if self.params.get("shadow"):
                threading.Thread(target=_drain, args=(forward, request), daemon=True).start()
            return Answer(status, dict(headers), body, iter(again) if again is not None else None)
        answer = forward(request)
        if answer.status != 200:
            return answer
        pieces: list[bytes] | None = None
        if answer.events is not None:
            pieces = []
            answer.events = _kept(answer.events, pieces)
        self.known[key] = (answer.status, dict(answer.headers), answer.body, pieces)
        return answer


def _kept(events: Iterable[bytes], into: list[bytes]) -> Iterator[bytes]:
    for event in events:
        into.append(event)
        yield event


def _drain(forward: Callable[[Request], Answer], request: Request) -> None:
    with contextlib.suppress(Cut, OSError):
        for _ in forward(request).events or ():
            pass
