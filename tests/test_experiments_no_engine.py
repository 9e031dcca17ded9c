"""What a router says while no engine serves, on stand-ins that are ended and come back."""

from __future__ import annotations

import contextlib
import itertools
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.catalogue import limits
from fixtures.catalogue.limits import Limit
from fixtures.core.errors import NoAnswer, NotJudged
from fixtures.experiments import no_engine as module
from fixtures.experiments.disruption import Disruption
from fixtures.experiments.no_engine import NoEngine, no_engine
from fixtures.instruments.response import Response
from fixtures.instruments.text_requests import TextRequests
from fixtures.subject.router import Router

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ANSWER = '{"choices": [{"text": "x"}]}'
ERROR = {"error": {"message": "no engine", "type": "unavailable"}}


class FakeStack:
    """Two engines; ``dead`` answers a path while both are dead, ``afterwards`` says whether the router works again."""

    def __init__(self, dead: Callable[[str], Response], *, afterwards: bool = True) -> None:
        self.dead, self.afterwards, self.ended = dead, afterwards, False
        self.alive = {"a", "b"}
        self.health = SimpleNamespace(known_gone=frozenset())
        self.engines = [SimpleNamespace(name=name, client=SimpleNamespace(get=lambda _: models("m"))) for name in "ab"]
        router = Router.__new__(Router)
        router.name = "router-0"
        checks = ("--policy", "x", "--health-check-interval-secs", "0.2", "--health-check-timeout-secs", "0")
        router.server = SimpleNamespace(watches=True, argv=checks)  # type: ignore[assignment]
        router.client = SimpleNamespace(get=self.answer, post=lambda path, _, **__: self.answer(path))  # type: ignore[assignment]
        self.routers = [router]

    def answer(self, path: str) -> Response:
        if not self.alive or (self.ended and not self.afterwards):
            return self.dead(path)
        return models("m") if path == "/v1/models" else Response(200, {}, ANSWER, total_s=0.1)

    @contextlib.contextmanager
    def all_killed(self, _: Any, engines: Any) -> Iterator[Disruption]:
        self.alive -= {one.name for one in engines}
        self.done = Disruption("all are killed")
        yield self.done
        self.alive |= {one.name for one in engines}
        self.ended = True


def models(*names: str) -> Response:
    return Response(200, {}, json.dumps({"data": [{"id": name} for name in names]}), total_s=0.1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FAILOVER_S", "RETURNED_S"):
        monkeypatch.setattr(limits, name, Limit("x", "at most", 0.2, "s"))


def run(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> NoEngine:
    monkeypatch.setattr(module, "all_killed", stack.all_killed)
    return no_engine(stack, TextRequests("m", 1, "test"))  # type: ignore[arg-type]


def refuses(path: str) -> Response:
    return models() if path == "/v1/models" else Response(503, {}, json.dumps(ERROR), total_s=0.1)


def lists_only(path: str) -> Response:
    return models("m") if path == "/v1/models" else refuses(path)


def serves_only(path: str) -> Response:
    return models("other") if path == "/v1/models" else Response(200, {}, ANSWER, total_s=0.1)


def shows_a_page(path: str) -> Response:
    return models("m") if path == "/v1/models" else Response(200, {}, "<html>We will be back</html>", total_s=0.1)


def test_a_router_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = FakeStack(refuses)
    found = run(stack, monkeypatch)
    assert found.listed == frozenset()
    assert found.refusal is not None
    assert found.refusal.status == 503
    assert found.serves_again
    assert stack.alive == {"a", "b"}
    assert ": listed no model of theirs; a request: 503" in stack.done.timeline


def test_an_error_in_place_of_a_list_lists_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(FakeStack(lambda _: Response(503, {}, json.dumps(ERROR), total_s=0.1)), monkeypatch)
    assert found.listed == frozenset()


def test_a_router_that_goes_on_listing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(FakeStack(lists_only), monkeypatch).listed == {"m"}


def test_a_request_without_an_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(path: str) -> Response:
        if path == "/v1/models":
            return models()
        raise NoAnswer("no answer", overdue=True)

    stack = FakeStack(hangs)
    found = run(stack, monkeypatch)
    assert found.refusal is None
    assert "a request: no answer" in stack.done.timeline


@pytest.mark.parametrize("afterwards", [refuses, lists_only, serves_only, shows_a_page])
def test_a_router_that_does_not_list_and_serve_again_is_reported(
    afterwards: Callable[[str], Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not run(FakeStack(afterwards, afterwards=False), monkeypatch).serves_again


def test_the_models_of_engines_that_are_not_judged_are_listed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A router in front of two models, of which one is judged: the engines of the other one run on."""

    def other_model(path: str) -> Response:
        return models("other") if path == "/v1/models" else Response(404, {}, json.dumps(ERROR), total_s=0.1)

    stack = FakeStack(other_model)
    monkeypatch.setattr(
        stack.routers[0].client, "get", lambda _: models("other") if not stack.alive else models("m", "other")
    )
    found = run(stack, monkeypatch)
    assert found.listed == frozenset()
    assert found.serves_again
    found.check_none_serves()


@pytest.mark.parametrize(
    ("status", "body", "served"),
    [(200, '{"choices": [{"text": ""}]}', True), (200, "<html>We will be back</html>", False), (503, "{}", False)],
)
def test_an_engine_that_was_added_meanwhile_is_no_fault(
    status: int, body: str, served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(
        FakeStack(lambda path: models("m") if path == "/v1/models" else Response(status, {}, body, total_s=0.1)),
        monkeypatch,
    )
    with pytest.raises(NotJudged, match="one was added meanwhile") if served else contextlib.nullcontext():
        found.check_none_serves()


def test_every_router_replica_is_asked_what_it_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = FakeStack(refuses)
    other = Router.__new__(Router)
    other.name, other.server = "router-1", stack.routers[0].server
    other.client = SimpleNamespace(get=lambda _: models("m"))  # type: ignore[assignment]
    stack.routers.append(other)
    assert run(stack, monkeypatch).listed == {"m"}


def test_a_router_may_ask_the_dead_engines_until_its_health_checks_had_their_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its list comes from an engine, so it is empty at once; a request is tried there for as long."""
    asked = itertools.count()

    def learns(path: str) -> Response:
        if path == "/v1/models" or next(asked) > 2:
            return refuses(path)
        return Response(500, {}, "Request failed: error sending request", total_s=0.1)

    found = run(FakeStack(learns), monkeypatch)
    assert found.refusal is not None
    assert found.refusal.status == 503
    found = run(FakeStack(lambda _: Response(500, {}, "Request failed", total_s=0.1)), monkeypatch)
    assert found.refusal is not None
    assert found.refusal.status == 500
