"""What a router adds, on stand-ins with chosen times."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NotApplicable, NotJudged, SubjectFault
from fixtures.experiments import router_cost as router_cost_module
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
        self.routers = [
            SimpleNamespace(session_key="x-user-id", affinity="session", client=self.client("router", added, status))
        ]
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


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the engines that the router sends a session to, in turn."""
    names = ["a"]

    def ask(stack: FakeStack, *_: Any) -> Any:
        names.append(names.pop(0))
        return SimpleNamespace(engine=next(one for one in stack.engines if one.name == names[-1]))

    monkeypatch.setattr(router_cost_module, "complete_through", ask)
    return names


def cost(stack: FakeStack) -> RouterCost:
    return router_cost(stack, TextRequests("m", 1, "test"))  # type: ignore[arg-type]


def test_a_quick_router_is_measured_until_that_is_sure_on_warm_engines() -> None:
    stack = FakeStack(lambda _: 0.004)
    found = cost(stack)
    assert found.small
    assert not found.large
    assert found.median.ms.median == pytest.approx(found.most_ms) == pytest.approx(4)
    assert len(stack.asked["router"]) == 3 * PAIRS, "with fewer, one of twenty could be late"
    assert (len(stack.asked["a"]), len(stack.asked["b"])) == (3 * PAIRS + 6, 6)
    found.check_decided()


def test_each_way_is_the_first_of_every_second_pair() -> None:
    """What a machine does to the second of two requests is done to both ways alike."""
    stack, order = FakeStack(lambda _: 0.004), list[str]()

    def noted(client: Any, name: str) -> Any:
        def post(*given: Any, **named: Any) -> Response:
            order.append(name)
            return client.post(*given, **named)

        return SimpleNamespace(post=post)

    stack.engines = [SimpleNamespace(name="a", client=noted(stack.engines[0].client, "engine"))]
    stack.routers[0].client = noted(stack.routers[0].client, "router")
    cost(stack)
    assert order[: 2 + 2 * PAIRS] == ["engine"] * 2 + ["router", "engine", "engine", "router"] * (PAIRS // 2)


@pytest.mark.parametrize(("median_s", "judged"), [(0.021, True), (0.015, False), (0.02, False)])
def test_a_median_beyond_its_limit_is_the_routers_however_late_the_engine_was(median_s: float, judged: bool) -> None:
    """One of six pairs is late either way, so the share of late ones alone is not the router's doing."""
    added = [*[median_s] * 60, *[0.06] * 18, *[-0.06] * 12]
    found = RouterCost(tuple(added), 0.5)
    assert found.large
    if judged:
        found.check_decided()
    else:
        with pytest.raises(NotJudged, match="the router is not the cause"):
            found.check_decided()


def test_a_slower_engine_is_not_taken_for_a_slow_router(home: list[str]) -> None:
    """Two cards of different kinds: the session stays on the slow one, of which the router is no cause."""
    home[:] = ["b"]
    stack = FakeStack(lambda _: 0.104)
    stack.engines[1].client = stack.client("b", lambda _: 0.1, 200)
    assert cost(stack).small


def test_engines_that_a_router_uses_in_turn_are_asked_straight_in_turn() -> None:
    class InTurn(SimpleNamespace):
        @property
        def affinity(self) -> str:
            raise NotApplicable("the policy roundrobin keeps nothing on one engine")

    stack = FakeStack(lambda number: 0.1 * (number % 2))
    stack.engines[1].client = stack.client("b", lambda _: 0.1, 200)
    stack.routers = [InTurn(session_key="x-user-id", client=stack.routers[0].client)]
    found = cost(stack)
    assert len(stack.asked["a"]) == len(stack.asked["b"])
    with pytest.raises(NotJudged):
        found.check_decided()


def test_every_batch_has_a_prompt_of_its_own() -> None:
    stack = FakeStack(lambda _: 0.004)
    cost(stack)
    assert len(set(itertools.chain(*stack.asked.values()))) == 3


def test_a_router_that_was_late_once_is_measured_for_longer() -> None:
    stack = FakeStack(lambda number: 0.1 if number == 7 else 0.002)
    assert cost(stack).small
    assert len(stack.asked["router"]) == 4 * PAIRS


@pytest.mark.parametrize(
    ("slow", "batches"), [(lambda _: 0.03, 1), (lambda number: 0.06 * (number % 4 == 0), 1)], ids=["always", "often"]
)
def test_a_router_that_is_always_slow_or_often_late_is_found_soon(slow: Callable[[int], float], batches: int) -> None:
    stack = FakeStack(slow)
    found = cost(stack)
    assert found.large
    assert not found.small
    assert len(stack.asked["router"]) == batches * PAIRS
    found.check_decided()


def test_a_router_near_its_limit_is_not_judged() -> None:
    stack = FakeStack(lambda number: 0.06 * (number % 18 == 0))
    found = cost(stack)
    assert not found.small
    assert not found.large
    assert len(stack.asked["router"]) == BATCHES * PAIRS
    with pytest.raises(NotJudged, match=r"more than 50 ms in 10 of 192 pairs: too noisy to decide"):
        found.check_decided()


def test_a_machine_that_is_late_on_either_way_says_nothing_of_the_router() -> None:
    added = [0.06 * ((number % 5 == 0) - (number % 7 == 3)) for number in range(2 * PAIRS)]
    with pytest.raises(NotJudged, match=r"straight to the engine was as late: the router is not the cause"):
        RouterCost(tuple(added), 0.5).check_decided()


def test_on_a_busy_machine_a_slow_router_is_not_judged() -> None:
    with pytest.raises(NotJudged, match=r"seems to add 30 .* ms.*, on a machine with 5.0 runnable"):
        cost(FakeStack(lambda _: 0.03, load=5.0)).check_decided()
    cost(FakeStack(lambda _: 0.001, load=5.0)).check_decided()


def test_a_request_that_fails_is_a_fault() -> None:
    with pytest.raises(SubjectFault, match="expected a stream with a token, got HTTP 502"):
        cost(FakeStack(lambda _: 0.0, status=502))
