"""Faults of a router: what it lists, and which engine it sends a request to."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from lab.proxy.fault import Answer, Fault, Request


class Models(Fault):
    """``/v1/models`` says something else."""

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Every entry changed."""
        answer = forward(request)
        if request.path == "/v1/models" and answer.status == 200:
            self.acts()
            answer.with_json(lambda body: body | {"data": [one | self.params["change"] for one in body["data"]]})
        return answer


class ListModels(Fault):
    """``/v1/models`` lists one more model, ``name``, that of an engine that is gone; with ``status`` requests for it get that.

    With ``none`` it lists nothing, with ``first`` what it listed at first, whatever became of the engines.
    """

    first: Answer | None = None

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Another list."""
        name = self.params.get("name", "gone")
        if "status" in self.params and request.json.get("model") == name:
            self.acts()
            error = b'{"error": {"message": "this model is not served", "type": "invalid_request_error"}}'
            return Answer(self.params["status"], {"content-type": "application/json"}, error)
        answer = forward(request)
        if self.params.get("first"):
            if request.path == "/v1/models":
                self.acts()
                self.first = self.first or answer
                return dataclasses.replace(self.first)
            return answer
        if request.path == "/v1/models" and answer.status == 200:
            self.acts()
            answer.with_json(
                lambda body: body | {"data": [] if self.params.get("none") else _with_model(body["data"], name)}
            )
        return answer


def _with_model(listed: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The list with a model of that name; as it is where it has one."""
    return listed if any(one["id"] == name for one in listed) else [*listed, listed[0] | {"id": name}]


class Astray(Fault):
    """A router that chooses engines as it likes.

    ``by``: ``turns``; ``hash``, of the whole prompt; ``repeats``: prompts go to the engines in turn and stay there, but every
    ``every``-th request for a prompt that was sent before, of all of them together, goes to another engine.
    """

    requests = 0

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.homes: dict[bytes, int] = {}

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Asks an engine itself."""
        if not request.generates:
            return forward(request)
        by = self.params.get("by", "turns")
        if by == "repeats":
            return self._repeats(request, forward)
        with self.lock:
            self.requests += 1
            chosen = _digest(request)[0] if by == "hash" else self.requests
        self.acts()
        request.to = self.engines[chosen % len(self.engines)]
        return forward(request)

    def _repeats(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """New prompts go to the engines in turn, so that the engine of each is known, and repeats to the same one, but some."""
        with self.lock:
            key = _digest(request)
            again = key in self.homes
            home = self.homes.setdefault(key, len(self.homes))
            self.requests += again
            astray = again and self.requests % self.params["every"] == 0
        if astray:
            self.acts()
        request.to = self.engines[(home + astray) % len(self.engines)]
        return forward(request)


def _digest(request: Request) -> bytes:
    """Of the prompt."""
    return hashlib.sha256(str(request.json.get("prompt")).encode()).digest()


class KeepsDead(Fault):
    """A router that keeps sending every second request to the first engine, even when that has ended.

    ``then``: what the client gets of it: ``error`` (a 502), ``hang``, or ``end``, an answer that ends too early; with
    ``forget`` the second engine answers all requests from then on, also when the first one is back; with ``again`` its whole
    answer follows what has come of a stream.
    """

    forgotten = False

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Asks the first engine itself, and does not look for another one."""
        if self.forgotten and request.generates:
            request.to = self.engines[1]
            return forward(request)
        with self.lock:
            number = self.params["number"] = self.params.get("number", 0) + request.generates
        if not request.generates or number % 2:
            return forward(request)
        request.to = self.engines[0]
        try:
            answer = super().exchange(request, forward)
            if self.params["then"] == "again" and answer.events is not None:
                answer.events = self._again(request, answer.events, forward)
            return answer
        except (OSError, http.client.HTTPException):
            self.acts()
        if self.params["then"] == "forget":
            self.forgotten, request.to = True, self.engines[1]
            return forward(request)
        if self.params["then"] == "hang":
            time.sleep(120)
        if self.params["then"] == "end" and not request.streams:
            choice = {"index": 0, "text": "half an answer", "finish_reason": "length"}
            body = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}}
            return Answer(200, {"content-type": "application/json"}, json.dumps(body).encode())
        return Answer(502, {"content-type": "application/json"}, b'{"error": {"message": "the engine is gone"}}')

    def _again(
        self, request: Request, events: Iterator[bytes], forward: Callable[[Request], Answer]
    ) -> Iterator[bytes]:
        """The events of the first engine, and where they break off, all of the second one."""
        try:
            yield from events
        except (OSError, http.client.HTTPException):
            self.acts()
            request.to = self.engines[1]
            yield from forward(request).events or ()


class GivesUp(Fault):
    """A router of its own: generating requests go to the engines in turn, and one that is silent for ``seconds`` fails.

    With ``again`` it is then sent to the next engine; with ``excludes`` an engine that was silent gets no request until it says
    that it is well, which it is asked once a second.
    """

    turns = 0
    looked = 0.0

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.silent: set[str] = set()

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Asks an engine itself, gives it up after a while, and asks it again with its next turn."""
        if not request.generates:
            return forward(request)
        self._look(forward)
        with self.lock:
            self.turns += 1
            left = [one for one in self.engines if one not in self.silent]
            chosen = [left[(self.turns + step) % len(left)] for step in range(len(left))]
        request.within_s = self.params["seconds"]
        for engine in chosen if self.params.get("again") else chosen[:1]:
            request.to = engine
            try:
                return super().exchange(request, forward)
            except OSError:
                self.acts()
                if self.params.get("excludes"):
                    self.silent.add(engine)
        return Answer(504, {"content-type": "application/json"}, b'{"error": {"message": "the engine is silent"}}')

    def _look(self, forward: Callable[[Request], Answer]) -> None:
        """Ask the engines that were silent whether they are well."""
        with self.lock:
            again = time.monotonic() - self.looked > 1.0
            self.looked = time.monotonic() if again else self.looked
        for engine in tuple(self.silent) if again else ():
            try:
                if forward(Request("GET", "/health", {}, b"", engine, 0.5)).status == 200:
                    self.silent.discard(engine)
            except OSError:
                continue
