"""Requests through a router while an engine fails, on stand-ins whose router does what a test says."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.catalogue import limits
from fixtures.catalogue.limits import Limit
from fixtures.core.errors import NoAnswer, NotApplicable, NotJudged
from fixtures.evidence.sse import Event
from fixtures.experiments import failover as module
from fixtures.experiments.failover import Failover, failover
from fixtures.instruments.response import Response
from fixtures.instruments.text_requests import TextRequests
from tests.fakes.answers import stream_of, whole
from tests.fakes.failing_stack import FakeStack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.experiments.disruption import Disruption


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAILOVER_S", Limit("x", "at most", 0.5, "s"))
    monkeypatch.setattr(limits, "RETURNED_S", Limit("x", "at most", 0.5, "s"))
    monkeypatch.setattr(limits, "FAILOVER_REQUEST_S", Limit("x", "at most", 1, "s"))
    monkeypatch.setattr(module, "REST_S", 0.05)


def run(stack: FakeStack) -> Failover:
    return failover(stack, TextRequests("m", 1, "test"), stack.fails)  # type: ignore[arg-type]


def refused(_: Any) -> Response:
    return Response(503, {}, "no engine", total_s=0.1)


def test_a_router_that_notices_loses_little() -> None:
    found = run(FakeStack(refused, notices_after=5))
    assert 1 <= found.lost <= 8
    assert found.noticed_s is not None
    assert (found.late, found.short) == ((), 0)
    assert found.returned_s is not None
    assert "not answered: HTTP 503: no engine" in found.timeline
    assert "router-0 uses a again" in found.timeline


def test_once_the_first_engine_was_killed_the_others_are_too_and_all_come_back_together() -> None:
    class Kills(FakeStack):
        ended: tuple[str, ...] = ()

        @contextlib.contextmanager
        def fails(self, stack: Any, part: Any) -> Iterator[Disruption]:
            with super().fails(stack, part) as found:
                found.kill = self.kill
                yield found
                self.ended = ()

        def kill(self, *parts: Any) -> float:
            self.ended = tuple(one.name for one in parts)
            return time.monotonic()

        def post(self, path: str, payload: dict[str, Any], headers: Any = None, deadline_s: float = 0.0) -> Response:
            return refused(payload) if self.ended else super().post(path, payload, headers, deadline_s)

    stack = Kills(refused, notices_after=5)
    stack.routers[0].models = lambda: frozenset(() if stack.ended else {"m"})
    found = run(stack)
    assert found.missing == (), "while the second engine served"
    assert found.alone is not None
    assert found.alone.listed == frozenset()
    assert found.alone.refusal is not None
    assert found.alone.refusal.status == 503
    assert found.alone.serves_again
    assert found.returned_s is not None
    assert "router-0: listed no model of theirs; a request: 503" in found.timeline


def test_what_hangs_is_waited_for_until_one_is_overdue() -> None:
    """The engine is resumed then, and what still waits for it ends by itself."""
    asked = itertools.count()

    def hangs(_: Any) -> Response:
        if next(asked):
            assert resumed.wait(20)
            return refused(_)
        time.sleep(0.3)
        raise NoAnswer("no answer within 1 s", overdue=True)

    class Resumes(FakeStack):
        @contextlib.contextmanager
        def fails(self, stack: Any, part: Any) -> Iterator[Disruption]:
            with super().fails(stack, part) as found:
                yield found
                resumed.set()

    resumed = threading.Event()
    stack = Resumes(hangs, notices_after=8)
    found = run(stack)
    assert len(found.late) == 1
    assert found.lost > 1


def test_a_request_that_had_begun_before_the_end_is_no_time_below_zero() -> None:
    """It was asked before the engine failed and lost afterwards; the router never sent the engine another one."""
    about_to_end = threading.Event()

    def cut_off(_: Any) -> Response:
        assert about_to_end.wait(5)
        time.sleep(0.05)
        return Response(503, {}, "no engine", total_s=0.1)

    class Loses(FakeStack):
        @contextlib.contextmanager
        def fails(self, stack: Any, part: Any) -> Iterator[Disruption]:
            self.failed = True
            while not self.hits:
                time.sleep(0.001)
            with super().fails(stack, part) as found:
                about_to_end.set()
                yield found

    found = run(Loses(cut_off, notices_after=1))
    assert (found.lost, found.noticed_s) == (1, 0.0)


def test_what_breaks_before_the_end_of_the_engine_is_known_is_counted() -> None:
    """Of a container Kubernetes says it a second later, of local processes the end of the last one is waited for."""

    def broken(payload: dict[str, Any]) -> Response:
        return Response(200, {}, "", total_s=0.1, cut="it broke off", stream=stream_of(None, done=False))

    class Late(FakeStack):
        @contextlib.contextmanager
        def fails(self, stack: Any, part: Any) -> Iterator[Disruption]:
            with super().fails(stack, part) as found:
                time.sleep(0.2)
                found.acted = found.note("a is known to have failed")
                yield found

    found = run(Late(broken, notices_after=4))
    assert found.lost >= 4
    assert found.noticed_s == 0.0
    found.require_broken_streams()


@pytest.mark.parametrize("counted", [True, False])
def test_the_engine_fails_once_it_has_begun_answers(counted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that wait for their first token when it fails are no streams that break off."""
    monkeypatch.setattr(module, "BUSY_S", 5.0 if counted else 0.1)
    begun: list[int] = []

    class Begins(FakeStack):
        def first_tokens(self, engine: Any) -> int | None:
            if engine.finished and not self.failed:
                begun.append(min(len(begun) // 5, 2))
            return engine.finished + (begun[-1] if begun else 0) if counted else None

    run(Begins(whole))
    assert not counted or begun[-1] == 2


def test_a_router_that_tries_again_elsewhere_loses_nothing() -> None:
    found = run(FakeStack(whole))
    assert (found.lost, found.noticed_s) == (0, 0.0)


def test_a_router_that_never_notices_is_reported() -> None:
    found = run(FakeStack(refused))
    assert found.noticed_s is None
    assert found.lost > 5


def test_a_second_router_that_never_notices_is_found() -> None:
    """A Service in front of two replicas sends half of the users to it."""
    stack = FakeStack(whole)  # the first one tries again elsewhere
    clients = SimpleNamespace(**vars(stack.routers[0]))
    clients.client = SimpleNamespace(
        post=lambda *given, **named: refused(None) if stack.failed else stack.post(*given, **named)
    )
    stack.routers.append(clients)
    found = run(stack)
    assert found.noticed_s is None
    assert found.lost > 5


def test_what_a_router_that_cannot_notice_does_not_do_is_not_waited_for() -> None:
    stack = FakeStack(refused)
    stack.routers[0].server.watches = False
    stack.routers[0].excludes_after_s = 30.0
    begun = time.monotonic()
    assert run(stack).noticed_s is None
    assert time.monotonic() - begun < 10


def test_a_page_in_place_of_an_answer_is_no_answer() -> None:
    found = run(FakeStack(lambda _: Response(200, {}, "<html>We will be back</html>", total_s=0.1), notices_after=5))
    assert 1 <= found.lost <= 8
    assert found.noticed_s is not None
    assert "expected a JSON body, got HTTP 200: '<html>" in found.timeline


def test_requests_that_hang_are_late() -> None:
    def hangs(_: Any) -> Response:
        raise NoAnswer("POST /v1/completions: no answer within 1 s", overdue=True)

    found = run(FakeStack(hangs, notices_after=3))
    assert found.late
    assert "no answer within 1 s" in found.late[0]


@pytest.mark.parametrize("answer", ["broken", "cut", "short"])
def test_answers_that_end_early_are_lost_and_those_that_hide_it_are_short(answer: str) -> None:
    def dead(payload: dict[str, Any]) -> Response:
        if answer == "short":
            return whole(payload, tokens=3)
        if answer == "cut":
            return Response(200, {}, "", total_s=0.1, cut="the connection broke")
        return Response(200, {}, "", total_s=0.1, stream=stream_of(None, done=False))

    found = run(FakeStack(dead, notices_after=4))
    assert found.lost >= 1
    assert bool(found.short) == (answer == "short")
    assert found.missing == ()


def test_an_answer_that_was_begun_twice_is_not_whole() -> None:
    def dead(payload: dict[str, Any]) -> Response:
        begun_twice = tuple(0.001 * at for at in range(payload["max_tokens"] + 3))
        return dataclasses.replace(whole(payload), content_s=begun_twice if payload["stream"] else ())

    found = run(FakeStack(dead, notices_after=4, by_streams=True))
    assert found.short >= 1
    assert "not answered: not as many tokens as asked for" in found.timeline


@pytest.mark.parametrize(
    "data", [None, '{"error": null, "choices": []}', '{"error": {"message": "the engine is gone"}}']
)
def test_a_stream_that_breaks_off_without_a_word_is_unseen(data: str | None) -> None:
    def dead(payload: dict[str, Any]) -> Response:
        if not payload["stream"]:
            return refused(payload)
        events = () if data is None else (Event(data),)
        return Response(200, {}, "", total_s=0.1, stream=stream_of(None, done=False), events=events)

    found = run(FakeStack(dead, notices_after=3, by_streams=True))
    found.require_broken_streams()
    assert found.broken >= 1
    assert found.unseen == (0 if data is not None and "gone" in data else found.broken)


def test_what_a_stopped_engine_still_had_to_answer_is_no_return_of_it() -> None:
    """It goes on with what was sent to it before, and the router sends it nothing more."""

    class Forgets(FakeStack):
        @contextlib.contextmanager
        def fails(self, stack: Any, part: Any) -> Iterator[Disruption]:
            with super().fails(stack, part) as found:
                yield found
            self.ignores = True
            threading.Thread(target=self.go_on).start()

        def go_on(self) -> None:
            for _ in range(5):
                time.sleep(0.02)
                self.engine.finished += 1

    assert run(Forgets(whole)).returned_s is None


def test_where_the_engine_is_not_used_again_nothing_is_known_of_what_follows() -> None:
    found = run(FakeStack(whole))
    found.require_return()
    with pytest.raises(NotJudged, match="did not use the engine again"):
        dataclasses.replace(found, returned_s=None).require_return()


def test_without_a_broken_stream_nothing_is_known_of_them() -> None:
    with pytest.raises(NotJudged, match="no stream was being answered"):
        run(FakeStack(whole)).require_broken_streams()


@pytest.mark.parametrize(("again", "tokens"), [(False, 96), (True, 512)])
def test_streams_are_long_where_none_was_under_way_before(
    monkeypatch: pytest.MonkeyPatch, again: bool, tokens: int
) -> None:
    asked: list[int] = []

    def noted(stack: Any, source: Any, stream_tokens: int = 0) -> Any:
        asked.append(stream_tokens)
        raise NotJudged("nothing is sent")

    monkeypatch.setattr(module, "RouterLoad", noted)
    stack = FakeStack(whole)
    with pytest.raises(NotJudged, match="nothing is sent"):
        failover(stack, TextRequests("m", 1, "test"), stack.fails, long_streams=again)  # type: ignore[arg-type]
    assert asked == [tokens]


def test_an_engine_that_is_sent_nothing_shows_nothing() -> None:
    with pytest.raises(NotJudged, match="the router sent a none of"):
        run(FakeStack(refused, ignores_victim=True))


@pytest.mark.parametrize("usage", [True, False], ids=["shorter", "without-usage"])
def test_a_gateway_that_never_gives_whole_answers_says_nothing_of_an_end(usage: bool) -> None:
    """It ignores ``ignore_eos``, or passes no usage on; API-04 judges that."""

    class Short(FakeStack):
        def post(self, path: str, payload: dict[str, Any], headers: Any = None, deadline_s: float = 0.0) -> Response:
            super().post(path, payload, headers, deadline_s)
            return whole(payload, tokens=3) if usage else Response(200, {}, '{"choices": [{"text": "x"}]}', total_s=0.1)

    with pytest.raises(
        NotJudged, match="requests through the router got no complete answer although every engine serves"
    ):
        run(Short(refused))


def test_an_end_that_comes_as_an_event_of_its_own_is_no_second_answer() -> None:
    class Ends(FakeStack):
        def post(self, path: str, payload: dict[str, Any], headers: Any = None, deadline_s: float = 0.0) -> Response:
            found = super().post(path, payload, headers, deadline_s)
            times = tuple(0.001 * at for at in range(payload["max_tokens"] + 1))
            return dataclasses.replace(found, content_s=times if payload["stream"] else ())

    assert run(Ends(whole)).lost == 0


def test_a_name_of_the_engine_that_is_left_has_to_be_listed() -> None:
    stack = FakeStack(whole)
    for engine in stack.engines:
        engine.client.get = lambda _: Response(200, {}, '{"data": [{"id": "m"}, {"id": "alias"}]}', total_s=0.1)
    assert run(stack).missing == ("alias",)


def test_one_engine_alone_has_no_other_to_take_over() -> None:
    with pytest.raises(NotApplicable, match="one engine only"):
        run(FakeStack(refused, engines=1))
