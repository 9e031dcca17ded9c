"""Faults of what is passed on: other fields, keys and headers, answers exchanged between clients, metrics, time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from lab.proxy.fault import Answer, Fault, Request


class ForwardAs(Fault):
    """Requests reach the engine with other options than the client gave.

    ``change`` sets options, ``drop`` removes them; ``endpoint`` narrows it.
    """

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Changed on the way in."""
        if not request.generates:
            return forward(request)
        body = request.json
        wanted = self.params.get("endpoint", request.path) == request.path and body
        drop = [name for name in self.params.get("drop", ()) if name in body]
        if wanted and (self.params.get("change") or drop):
            self.acts()
            for name in drop:
                del body[name]
            request.body = json.dumps(body | self.params.get("change", {})).encode()
        return super().exchange(request, forward)


class LendKey(Fault):
    """The key of the first client that has one opens the engine to all clients; ``endpoint`` narrows it."""

    key: str | None = None

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Changed on the way in."""
        name = next((name for name in request.headers if name.lower() == "authorization"), "Authorization")
        given = request.headers.get(name)
        with self.lock:
            self.key = self.key or given
        wanted = self.params.get("endpoint", request.path) == request.path
        if wanted and self.key is not None and given != self.key:
            self.acts()
            request.headers[name] = self.key
        return super().exchange(request, forward)


class Swap(Fault):
    """Two plain answers that are in flight together go to each other's client."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.waiting: list[tuple[Answer, threading.Event]] = []

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """The first one waits a moment for a second one."""
        answer = forward(request)
        if not request.generates or answer.events is not None or answer.status != 200:
            return answer
        event = threading.Event()
        with self.lock:
            partner = self.waiting.pop() if self.waiting else None
            if partner is None:
                self.waiting.append((answer, event))
            else:
                answer.body, partner[0].body = partner[0].body, answer.body
                partner[1].set()
        if partner is not None:
            self.acts()
        elif not event.wait(self.params.get("seconds", 0.05)):
            with self.lock:
                self.waiting = [one for one in self.waiting if one[0] is not answer]
        return answer


class WithoutHeader(Fault):
    """A router that loses the header ``name`` of every request on the way."""

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Passed on without it."""
        if request.headers.pop(self.params["name"], None) is not None:
            self.acts()
        return forward(request)


class Metrics(Fault):
    """``/metrics`` says something else: ``rename`` is (old, new), ``double`` a series whose value is doubled.

    With ``after``, every page after so many is ``body`` with ``status`` instead.
    """

    pages = 0

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """The text is changed."""
        answer = forward(request)
        if request.path != "/metrics" or answer.status != 200:
            return answer
        with self.lock:
            self.pages += 1
        if self.pages > self.params.get("after", self.pages):
            self.acts()
            return Answer(self.params.get("status", 500), {"content-type": "text/html"}, self.params["body"].encode())
        text = answer.body.decode()
        if "rename" in self.params:
            old, new = self.params["rename"]
            changed = text.replace(old, new)
        elif "double" not in self.params:
            return answer
        else:
            changed = "\n".join(_doubled(line, self.params["double"]) for line in text.split("\n"))
        if changed != text:
            self.acts()
        answer.body = changed.encode()
        return answer


def _doubled(line: str, series: str) -> str:
    if series not in line or line.startswith("#"):
        return line
    head, _, value = line.rpartition(" ")
    return f"{head} {2 * float(value)}"


class Delay(Fault):
    """Every request waits ``seconds``, as on a busy network; with ``path``, every request for that."""

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Waits, then passes on."""
        if request.path == self.params.get("path", request.path):
            self.acts()
            time.sleep(self.params["seconds"])
        return forward(request)
