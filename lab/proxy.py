"""A fault proxy between clients and one engine.

Invariant: without a fault it passes everything through as it comes, byte for byte and piece by piece; a client that hangs
up is noticed at once and hung up on at the engine too. A proxy that buffers, or that keeps a dead client's request alive,
would be a fault of its own and every verdict behind it would be about the proxy.

Each fault counts how often it acted (``Proxy.fired``): a fault that never acted was not seeded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import json
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

GENERATING = ("/v1/completions", "/v1/chat/completions")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date", "expect", "host"}


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

    @property
    def generates(self) -> bool:
        """Whether it asks for a completion."""
        return self.method == "POST" and self.path in GENERATING

    @property
    def json(self) -> dict[str, Any]:
        """The body as an object; empty when it is none."""
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
        """Change a JSON body in place; False when it is none, or an error."""
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


def _event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _data(event: bytes) -> dict[str, Any] | None:
    """The object of an event; None for ``[DONE]`` and comments."""
    with contextlib.suppress(ValueError):
        found = json.loads(event.removeprefix(b"data:").strip())
        return found if isinstance(found, dict) else None
    return None


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
            choice = ((_data(event) or {}).get("choices") or [{}])[0]
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
            data = _data(event)
            yield _event(self._change(data)) if data and data.get("usage") else event


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
            data = _data(event)
            yield _event(self._change(data)) if data and data.get("usage") else event


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
            data = _data(event)
            yield _event(self._change(data)) if data else event


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


class Repeats(Fault):
    """Treats a prompt that was sent before in another way than a new one; remembers prompts by their digest."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.known: dict[str, Any] = {}

    def key(self, request: Request) -> str | None:
        """Digest of prompt and options; None where the fault does not look."""
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
    """``/v1/models`` lists one more model, that of an engine that is gone.

    With ``none`` it lists nothing, with ``first`` what it listed at first, whatever became of the engines.
    """

    first: Answer | None = None

    def exchange(self, request: Request, forward: Callable[[Request], Answer]) -> Answer:
        """Another list."""
        answer = forward(request)
        if self.params.get("first"):
            if request.path == "/v1/models":
                self.acts()
                self.first = self.first or answer
                return dataclasses.replace(self.first)
            return answer
        if request.path == "/v1/models" and answer.status == 200:
            self.acts()
            if self.params.get("none"):
                answer.with_json(lambda body: body | {"data": []})
            else:
                answer.with_json(lambda body: body | {"data": [*body["data"], body["data"][0] | {"id": "gone"}]})
        return answer


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
    """A router that goes on sending every second request to the first engine, also when that is gone.

    ``then``: what the client gets of it: ``error`` (a 502), ``hang``, or ``end``, an answer that ends too early; with
    ``forget`` the second engine answers all requests from then on, also when the first one is back.
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
            return super().exchange(request, forward)
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


FAULTS: dict[str, type[Fault]] = {
    "cut-stream": CutStream,
    "lose-done": LoseDone,
    "drop-event": DropEvent,
    "send-again": SendAgain,
    "buffered": Buffered,
    "content-type": ContentType,
    "usage": Usage,
    "cached-tokens": CachedTokens,
    "finish-reason": FinishReason,
    "without": Without,
    "echo": Echo,
    "cut-body": CutBody,
    "hold-first-event": HoldFirstEvent,
    "status": Status,
    "bad-requests": BadRequests,
    "forward-as": ForwardAs,
    "lend-key": LendKey,
    "swap": Swap,
    "slow-repeat": SlowRepeat,
    "drop-last-token": DropLastToken,
    "edge-cache": EdgeCache,
    "models": Models,
    "list-models": ListModels,
    "astray": Astray,
    "keeps-dead": KeepsDead,
    "without-header": WithoutHeader,
    "metrics": Metrics,
    "delay": Delay,
}


# -------------------------------------------------------------------------------------------------------- the server


@dataclass
class Proxy:
    """Listens on a free port of this machine and passes on to ``upstream`` until closed."""

    upstream: str
    fault: Fault = field(default_factory=Fault)

    def __enter__(self) -> Proxy:
        proxy = self

        class Handler(_Handler):
            def exchange(self, request: Request) -> Answer:
                return proxy.fault.exchange(request, lambda asked: _forward(proxy.upstream, asked, self.connection))

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where clients find it."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def fired(self) -> int:
        """How often the fault has acted."""
        return self.fault.fired


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # clients that come together; the default of 5 resets some of them

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that hangs up is no event."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def exchange(self, request: Request) -> Answer:
        raise NotImplementedError

    def log_message(self, *_: Any) -> None:
        """Nothing: the engine has an access log."""

    def _serve(self) -> None:
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        length = int(self.headers.get("content-length") or 0)
        request = Request(
            self.command,
            self.path,
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(length),
        )
        try:
            answer = self.exchange(request)
            self._send(answer)
        except (Cut, OSError, http.client.HTTPException):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name not in HOP_BY_HOP:
                self.send_header(name, value)
        if answer.events is None:
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if answer.cut:
                self.wfile.write(answer.body[: len(answer.body) // 2])
                raise Cut
            self.wfile.write(answer.body)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in answer.events:
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815 - the names that http.server looks for


def _forward(upstream: str, request: Request, client: socket.socket) -> Answer:
    """Ask the engine; hang up on it when the client has hung up."""
    parts = urlsplit(request.to or upstream)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)
    headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
    connection.request(request.method, request.path, body=request.body or None, headers=headers)
    engine = connection.sock
    while not select.select([engine], [], [], 0.02)[0]:
        if _gone(client):
            connection.close()
            raise Cut
    response = connection.getresponse()
    received = {name.lower(): value for name, value in response.getheaders()}
    if received.get("content-type", "").startswith("text/event-stream"):
        return Answer(response.status, received, events=_events(response, connection, client))
    with contextlib.closing(connection):
        return Answer(response.status, received, response.read())


def _events(
    response: http.client.HTTPResponse, connection: http.client.HTTPConnection, client: socket.socket
) -> Iterator[bytes]:
    """The events of a stream as they come, each with its blank line; the engine is hung up on when nobody reads on."""
    waiting = b""
    with contextlib.closing(connection):
        while piece := response.read1(65536):
            waiting += piece
            while (end := waiting.find(b"\n\n")) >= 0:
                yield waiting[: end + 2]
                waiting = waiting[end + 2 :]
            if _gone(client):
                raise Cut
        if waiting:
            yield waiting


def _gone(client: socket.socket) -> bool:
    """Whether the client has closed its end."""
    try:
        if not select.select([client], [], [], 0)[0]:
            return False
        return client.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True
