"""Faults of what an engine answers: its stream, its fields, its status."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from lab.proxy.fault import Answer, Cut, Fault, Request, as_event, data_of


class CutStream(Fault):
    """Breaks the connection after ``after`` events, in every ``every``-th stream."""

    streams = 0

    def events(self, request: Request, events: Iterator[bytes]) -> Iterator[bytes]:  # noqa: ARG002
        """Some events, then nothing."""
        self.streams += 1
        hit = self.streams % self.params.get("every", 1) == 0
        for number, event in enumerate(events):
            if hit and number == self.params.get("after", 3):
                self.acts()
                raise Cut
            yield event


class LoseDone(Fault):
    """The final ``[DONE]`` is lost, or comes twice; the connection ends in good order."""

    def events(self, request: Request, events: Iterator[bytes]) -> Iterator[bytes]:  # noqa: ARG002
        """All events but the last."""
        for event in events:
            if b"[DONE]" in event:
                self.acts()
                yield from [event] * self.params.get("times", 0)
            else:
                yield event


class DropEvent(Fault):
    """The ``number``-th event with text is lost on the way."""

    def events(self, request: Request, events: Iterator[bytes]) -> Iterator[bytes]:  # noqa: ARG002
        """The others."""
        seen = 0
        for event in events:
            choice = ((data_of(event) or {}).get("choices") or [{}])[0]
            seen += bool(choice.get("text") or choice.get("delta", {}).get("content"))
            if seen == self.params.get("number", 1):
                self.acts()
                seen += 1
                continue
            yield event


class SendAgain(Fault):
    """The events of a stream begin again after ``after`` of them, as where a router asks another engine in the middle of it."""

    def events(self, request: Request, events: Iterator[bytes]) -> Iterator[bytes]:  # noqa: ARG002
        """The first ones twice."""
        sent: list[bytes] = []
        for event in events:
            sent.append(event)
            yield event
            if len(sent) == self.params.get("after", 3):
                self.acts()
                yield from sent


class Buffered(Fault):
    """The whole stream is collected before any of it is sent, as a proxy with buffering does."""

    def events(self, request: Request, events: Iterator[bytes]) -> Iterator[bytes]:  # noqa: ARG002
        """All events at once."""
        pieces = list(events)
        self.acts()
        yield b"".join(pieces)


class ContentType(Fault):
    """Answers carry another content type."""

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Only streams or only plain answers, as asked."""
        answer = super().exchange(request, forward)
        if request.generates and answer.status == 200 and (answer.events is not None) == self.params["stream"]:
            self.acts()
            answer.headers["content-type"] = self.params["to"]
        return answer


class Rewrite(Fault):
    """Changes the body of every plain answer that is generated; subclasses say how, and in which events of a stream."""

    def _change(self, body: Any) -> Any:
        raise NotImplementedError

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Plain answers."""
        answer = super().exchange(request, forward)
        if request.generates and answer.events is None:
            answer.with_json(self._change)
        return answer


class Usage(Rewrite):
    """Usage counts ``by`` tokens too many in ``name``."""

    def _change(self, body: Any) -> Any:
        usage = body.get("usage")
        if isinstance(usage, dict) and self.params["name"] in usage:
            self.acts()
            usage[self.params["name"]] += self.params.get("by", 1)
        return body

    def events(self, request: Request, events: Iterator[bytes]) -> Iterator[bytes]:  # noqa: ARG002
        """The event with the usage."""
        for event in events:
            data = data_of(event)
            yield as_event(self._change(data)) if data and data.get("usage") else event


class CachedTokens(Rewrite):
    """Every answer reports the cached tokens of the answer before."""

    last: int | None = None

    def _change(self, body: Any) -> Any:
        details = (body.get("usage") or {}).get("prompt_tokens_details")
        if isinstance(details, dict) and details.get("cached_tokens") is not None:
            with self.lock:
                own, before = details["cached_tokens"], self.last
                self.last = own
            if before is not None:
                self.acts()
                details["cached_tokens"] = before
        return body

    def events(self, request: Request, events: Iterator[bytes]) -> Iterator[bytes]:  # noqa: ARG002
        """The event with the usage."""
        for event in events:
            data = data_of(event)
            yield as_event(self._change(data)) if data and data.get("usage") else event


class FinishReason(Rewrite):
    """Every answer says that it ended for reason ``to``."""

    def _change(self, body: Any) -> Any:
        for choice in body.get("choices", []):
            if choice.get("finish_reason") not in (None, self.params["to"]):
                self.acts()
                choice["finish_reason"] = self.params["to"]
        return body

    def events(self, request: Request, events: Iterator[bytes]) -> Iterator[bytes]:  # noqa: ARG002
        """Every event."""
        for event in events:
            data = data_of(event)
            yield as_event(self._change(data)) if data else event


class Without(Rewrite):
    """Plain answers lack a field of the schema."""

    def _change(self, body: Any) -> Any:
        if body.pop(self.params["name"], None) is not None:
            self.acts()
        return body


class Echo(Rewrite):
    """Plain answers carry another value in a field that repeats the request, or that has to be unique."""

    def _change(self, body: Any) -> Any:
        if isinstance(body, dict) and self.params["name"] in body:
            self.acts()
            body[self.params["name"]] = self.params["to"]
        return body


class CutBody(Fault):
    """The body of a plain answer breaks off in its middle, with the length of the whole announced."""

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Half of the body."""
        answer = super().exchange(request, forward)
        if request.generates and answer.events is None and answer.status == 200:
            self.acts()
            answer.cut = True
        return answer


class HoldFirstEvent(Fault):
    """The first event of every stream waits ``seconds``, whatever the engine had to do for it."""

    def events(self, request: Request, events: Iterator[bytes]) -> Iterator[bytes]:  # noqa: ARG002
        """All events, the first one late."""
        for number, event in enumerate(events):
            if number == 0:
                self.acts()
                time.sleep(self.params["seconds"])
            yield event


class Status(Fault):
    """Every ``every``-th completion fails with ``status``, or only those while ``busy`` others are in flight."""

    requests = 0
    flying = 0

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """An error without asking the engine."""
        if not request.generates:
            return forward(request)
        with self.lock:
            self.requests += 1
            self.flying += 1
            hit = self.requests % self.params.get("every", 1) == 0 and self.flying >= self.params.get("busy", 1)
        try:
            if hit:
                self.acts()
                error = {"error": {"message": "upstream failed", "type": "proxy", "code": self.params["status"]}}
                return Answer(self.params["status"], {"content-type": "application/json"}, json.dumps(error).encode())
            return forward(request)
        finally:
            with self.lock:
                self.flying -= 1


class BadRequests(Fault):
    """What the engine refuses gets another status or another body."""

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """4xx becomes what is asked."""
        answer = forward(request)
        if request.generates and 400 <= answer.status < 500:
            self.acts()
            answer.status = self.params.get("status", answer.status)
            if "body" in self.params:
                answer.body = self.params["body"].encode()
        return answer
