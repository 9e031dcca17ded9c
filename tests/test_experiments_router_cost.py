"""What a router adds, on stand-ins with chosen times."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NotJudged, SubjectFault
from fixtures.experiments.router_cost import BATCHES, PAIRS, RouterCost, router_cost
from fixtures.instruments.response import Response
from fixtures.instruments.text_requests import TextRequests

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeStack:
    """Straight answers take 10 ms, those through the router ``added`` more."""

    def __init__(self, added: Callable[[int], float], load: float | None = 0.5, status: int = 200) -> None:
        self.asked: dict[str, list[Any]] = {"a": [], "b": [], "router": []}
        self.engines = [SimpleNamespace(name=name, client=self.client(name, lambda _: 0.0, status)) for name in "ab"]
        self.routers = [SimpleNamespace(session_key="x-user-id", client=self.client("router", added, status))]
        self.health = SimpleNamespace(known_gone=frozenset())
        self.traffic = SimpleNamespace(idle=lambda _: None)
        self.load = load

    def client(self, name: str, added: Callable[[int], float], status: int) -> Any:
        def post(path: str, payload: dict[str, Any], headers: Any) -> Response:
            assert payload["stream"]
            self.asked[name].append(payload["prompt"])
            return Response(status, {}, "", 1.0, content_s=(0.01 + added(len(self.asked[name])),))

        return SimpleNamespace(post=post)

    def load_per_core(self) -> float | None:
        return self.load


def cost(stack: FakeStack) -> RouterCost:
    return router_cost(stack, TextRequests("m", 1, "test"))  # type: ignore[arg-type]


def test_a_quick_router_is_measured_once_on_warm_engines() -> None:
    stack = FakeStack(lambda _: 0.004)
    found = cost(stack)
    assert found.small
    assert found.median_s == pytest.approx(0.004)
    assert len(stack.asked["router"]) == PAIRS
    assert (len(stack.asked["a"]), len(stack.asked["b"])) == (PAIRS + 2, 2)
    assert len(set(itertools.chain(*stack.asked.values()))) == 1, "the same prompt everywhere"
    found.check_quiet()


def test_a_router_that_was_slow_for_a_while_is_measured_again() -> None:
    stack = FakeStack(lambda number: 0.1 if number <= PAIRS else 0.002)
    assert cost(stack).small
    assert len(stack.asked["router"]) == 2 * PAIRS


@pytest.mark.parametrize("slow", [lambda _: 0.03, lambda number: 0.06 * (number % 10 == 0)])
def test_a_router_that_is_always_slow_or_often_late_is_not_small(slow: Callable[[int], float]) -> None:
    stack = FakeStack(slow)
    found = cost(stack)
    assert not found.small
    assert len(stack.asked["router"]) == BATCHES * PAIRS
    found.check_quiet()


def test_on_a_busy_machine_a_slow_router_is_not_judged() -> None:
    with pytest.raises(NotJudged, match=r"seems to add 30 ms, on a machine with 5.0 runnable"):
        cost(FakeStack(lambda _: 0.03, load=5.0)).check_quiet()
    cost(FakeStack(lambda _: 0.001, load=5.0)).check_quiet()


def test_a_request_that_fails_is_a_fault() -> None:
    with pytest.raises(SubjectFault, match="expected a stream with a token, got HTTP 502"):
        cost(FakeStack(lambda _: 0.0, status=502))
