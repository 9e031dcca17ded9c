"""Requests that wait for an engine that has failed, when the router was to send it none any more."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.catalogue import limits
from fixtures.catalogue.limits import Limit
from fixtures.core.errors import NotJudged
from fixtures.experiments import failover as module
from fixtures.experiments import router_load
from fixtures.experiments.failover import Failover, Kept, failover
from fixtures.instruments.response import Response
from fixtures.instruments.text_requests import TextRequests
from suite import test_routed
from tests.fakes.answers import whole
from tests.fakes.failing_stack import FakeStack

if TYPE_CHECKING:
    from fixtures.experiments.disruption import Disruption

WAIT_S = 0.4
"""Of a request that the router sent to the engine that hangs, until it sends it to the other one."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FAILOVER_S", 0.5), ("RETURNED_S", 0.5), ("FAILOVER_REQUEST_S", 2.0), ("KEPT_WAIT_S", 0.1)):
        monkeypatch.setattr(limits, name, Limit("x", "at most", value, "s"))
    monkeypatch.setattr(router_load, "STUCK_S", 0.2)
    monkeypatch.setattr(module, "BUSY_S", 0.1)
    monkeypatch.setattr(module, "REST_S", 0.05)


def run(stack: FakeStack) -> Failover:
    return failover(stack, TextRequests("m", 1, "test"), stack.fails)  # type: ignore[arg-type]


def judge(stack: FakeStack, found: Failover) -> None:
    router = SimpleNamespace(check_watches=lambda: None)
    test_routed.test_one_failed_engine_blocks_no_request(
        SimpleNamespace(routers=[router]),  # type: ignore[arg-type]
        lambda _: found,
        lambda *_, **__: None,  # type: ignore[arg-type]
        lambda *_: None,
        "frozen",
    )


def elsewhere(payload: dict[str, Any]) -> Response:
    """The answer of the other engine, after a while."""
    time.sleep(WAIT_S)
    return whole(payload)


def refused(_: Any) -> Response:
    return Response(503, {}, "no engine", total_s=0.1)


class Excludes(FakeStack):
    """A router that takes the engine out of use after a time, in seconds."""

    after_s = 0.3

    @contextlib.contextmanager
    def fails(self, stack: Any, part: Any) -> Iterator[Disruption]:
        with super().fails(stack, part) as found:
            self.began = time.monotonic()
            yield found

    def post(self, path: str, payload: dict[str, Any], headers: Any = None, deadline_s: float = 0.0) -> Response:
        if self.failed and time.monotonic() - self.began > self.after_s:
            self.notices_after = 0
        return super().post(path, payload, headers, deadline_s)


def test_a_router_that_keeps_a_hung_engine_and_asks_another_one_late_is_found() -> None:
    """No request is lost, every answer is whole, and none outlives its deadline."""
    stack = FakeStack(elsewhere)
    found = run(stack)
    assert (found.lost, found.late, found.noticed_s) == (0, (), 0.0)
    assert len(found.kept.troubled) > 1
    assert len(found.kept.troubled) < found.kept.asked
    assert "answered after 0.4 s, where the engines need 0.0 s on average" in found.kept.troubled
    with pytest.raises(
        AssertionError, match=r"expected at most 1 request to fail or wait .* got \d+ of \d+, the first:"
    ):
        judge(stack, found)


@pytest.mark.parametrize("dead", [elsewhere, refused])
def test_what_waits_or_fails_before_the_settings_promise_anything_else_is_no_fault(dead: Any) -> None:
    stack = Excludes(dead)
    found = run(stack)
    assert found.kept.asked >= 12
    assert found.kept.troubled == ()
    judge(stack, found)


def test_a_router_that_seldom_uses_the_engine_that_it_keeps_is_found() -> None:
    """Rows of answers come again and again; only what is sent after the promised time shows that it is kept."""
    asked = itertools.count(1)
    found = run(FakeStack(lambda payload: elsewhere(payload) if next(asked) % 4 == 0 else whole(payload)))
    assert found.noticed_s == 0.0
    assert len(found.kept.troubled) > 1


def test_an_engine_that_is_kept_for_longer_than_promised_is_found() -> None:
    """Every request is answered, so the router seems to have noticed long before it does."""

    class Late(Excludes):
        after_s = 1.5

    found = run(Late(elsewhere))
    assert found.noticed_s == 0.0
    assert len(found.kept.troubled) > 1


def test_a_second_router_that_keeps_the_engine_is_found() -> None:
    stack = FakeStack(whole)  # the first one asks the other engine at once
    second = SimpleNamespace(**vars(stack.routers[0]))
    turns = itertools.count()

    def post(path: str, payload: dict[str, Any], **named: Any) -> Response:
        return elsewhere(payload) if stack.failed and next(turns) % 2 else stack.post(path, payload, **named)

    second.client = SimpleNamespace(post=post)
    stack.routers.append(second)
    found = run(stack)
    assert found.kept.asked >= 24
    assert len(found.kept.troubled) > 1


def test_engines_that_need_as_long_for_their_answers_explain_a_wait() -> None:
    stack = FakeStack(elsewhere)
    stack.answer_s = 0.1
    found = run(stack)
    assert found.kept.troubled == ()
    judge(stack, found)


def test_without_the_times_of_the_engines_a_wait_is_not_known_and_a_failure_is() -> None:
    class Uncounted(FakeStack):
        def first_tokens(self, engine: Any) -> int | None:
            return None

    stack = Uncounted(elsewhere)
    found = run(stack)
    assert found.kept.troubled == ()
    with pytest.raises(NotJudged, match="metrics of the engines do not say how long their answers take"):
        judge(stack, found)


def test_too_few_requests_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Excludes):
        def post(self, path: str, payload: dict[str, Any], headers: Any = None, deadline_s: float = 0.0) -> Response:
            if self.failed and self.notices_after == 0:
                time.sleep(0.3)
            return super().post(path, payload, headers, deadline_s)

    monkeypatch.setattr(limits, "FAILOVER_REQUEST_S", Limit("x", "at most", 0.1, "s"))
    stack = Slow(elsewhere)
    stack.answer_s = 0.2
    found = run(stack)
    with pytest.raises(NotJudged, match="too few to show whether it does: run it on an idle machine"):
        found.kept.check_known()


def test_an_engine_that_starts_again_by_itself_is_not_watched_any_longer() -> None:
    class Restarts(FakeStack):
        @contextlib.contextmanager
        def fails(self, stack: Any, part: Any) -> Iterator[Disruption]:
            with super().fails(stack, part) as found:
                found.lasts = False
                yield found

    stack = Restarts(elsewhere)
    found = run(stack)
    assert found.kept == Kept()
    judge(stack, found)


def test_a_single_one_is_not_judged() -> None:
    stack = Excludes(elsewhere)
    found = run(stack)
    judge(stack, dataclasses.replace(found, kept=Kept(12, ("HTTP 500",))))
