"""Where a router sends requests, on stand-ins whose counters say which engine answered."""

from __future__ import annotations

import contextlib
import json
import zlib
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.catalogue import limits
from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NotApplicable, NotJudged, SubjectFault
from fixtures.evidence.metrics import EngineCounters, Registry
from fixtures.experiments.routing import (
    RoutedConversations,
    assert_at_home,
    assert_reused,
    astray,
    complete_through,
    models_of_engines,
    recomputed,
)
from fixtures.instruments.response import Response
from fixtures.instruments.text_requests import TextRequests
from fixtures.subject.router import AFFINITY_OF, Router

ANSWER = '{"choices": [{"text": "x"}]}'


@dataclass
class FakeEngine:
    name: str
    finished: int = 0
    known: set[str] = field(default_factory=set)
    last: int = 0
    models: tuple[str, ...] = ("m",)

    def counters(self) -> EngineCounters:
        return EngineCounters(requests_finished=self.finished)

    def answer(self, prompt: str) -> None:
        self.finished += 1
        self.last = max((len(one) for one in self.known if prompt.startswith(one)), default=0)
        self.known.add(prompt)

    @property
    def client(self) -> Any:
        body = json.dumps({"data": [{"id": model} for model in self.models]})
        return SimpleNamespace(get=lambda _: Response(200, {}, body, total_s=0.0), post=self.post)

    def post(self, _: str, payload: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
        assert headers is None
        self.answer(payload["prompt"])
        return Response(200, {}, ANSWER, total_s=0.1)


class FakeStack:
    """``choose`` gives the index of the engine by the number of the request, its session and its prompt."""

    def __init__(self, choose: Any, argv: tuple[str, ...] = ("--routing-logic", "session"), routers: int = 1) -> None:
        self.choose, self.sent, self.status, self.body = choose, 0, 200, ANSWER
        self.gpu_prefix_cache = True
        self.seen: list[dict[str, str] | None] = []
        self.engines = [FakeEngine("a"), FakeEngine("b")]
        self.health = SimpleNamespace(known_gone=frozenset())
        self.context = SimpleNamespace(permit=lambda _: None, deadlines=Deadlines(counted_s=0.05))
        self.traffic = SimpleNamespace(idle=lambda engine: engine.counters(), settled=self.settled)
        self.routers = [self.router(f"router-{number}", argv) for number in range(routers)]

    def router(self, name: str, argv: tuple[str, ...]) -> Router:
        found = Router.__new__(Router)
        found.name, found.server = name, SimpleNamespace(argv=argv)  # type: ignore[assignment]
        found.client = SimpleNamespace(post=self.post)  # type: ignore[assignment]
        return found

    def post(self, path: str, payload: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
        assert path == "/v1/completions"
        self.seen.append(headers)
        self.sent += 1
        chosen = self.choose(self.sent, (headers or {}).get("x-user-id"), payload["prompt"])
        for at in chosen if isinstance(chosen, list) else [chosen]:
            self.engines[at].answer(payload["prompt"])
        return Response(self.status, {}, self.body, total_s=0.1)

    def settled(self, engine: FakeEngine, before: EngineCounters, count: int, others: Any) -> EngineCounters:
        assert (count, others) == (1, {})
        assert engine.finished == (before.requests_finished or 0) + 1
        return EngineCounters(computed=1, gpu_hit=engine.last, loaded=0)


def source() -> TextRequests:
    return TextRequests("m", 1, "test")


def conversations(stack: FakeStack) -> RoutedConversations:
    found = RoutedConversations(stack, source())  # type: ignore[arg-type]
    found.begin()
    return found


def by_session(_number: int, session: str | None, _prompt: str) -> int:
    return zlib.crc32(str(session).encode()) % 2


def by_beginning(_number: int, _session: str | None, prompt: str) -> int:
    return len(prompt.split()[0]) % 2


def in_turn(number: int, _session: str | None, _prompt: str) -> int:
    return number % 2


def by_whole_prompt(_number: int, _session: str | None, prompt: str) -> int:
    return zlib.crc32(prompt.encode()) % 2


def test_a_router_that_keeps_sessions_together_loses_none() -> None:
    stack = FakeStack(by_session)
    found = conversations(stack)
    repeats = found.repeat()
    assert (astray(repeats), recomputed(repeats)) == ([], [])
    assert found.engines == 2
    sessions = [(headers or {})["x-user-id"] for headers in stack.seen]
    assert sessions[7:] == sessions[6::-1], "the repeats come in reverse order"
    assert len(set(sessions)) == 7


def test_a_policy_that_goes_by_the_prompt_is_told_no_session() -> None:
    stack = FakeStack(by_beginning, ("--policy", "cache_aware"))
    assert astray(conversations(stack).repeat()) == []
    assert stack.seen == [None] * 21, "begun together, found one by one, repeated"


def test_a_router_that_goes_by_the_load_alone_loses_what_it_spread() -> None:
    stack = FakeStack(lambda number, *_: number % 2 if number <= 7 else 0, ("--policy", "cache_aware"))
    assert len(astray(conversations(stack).repeat())) >= 3


@pytest.mark.parametrize(
    ("told", "fault", "says"),
    [
        (Registry(2, 42), None, ""),
        (Registry(0, 0), SubjectFault, "got 0 keys of 0 registered workers: .*TIR-06"),
        (Registry(2, 0), SubjectFault, "got 0 keys of 2 registered workers: .*ACC-01"),
        (Registry(None, None), NotJudged, "name no LMCache controller"),
    ],
)
def test_a_router_whose_registry_is_empty_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, told: Registry, fault: type[Exception] | None, says: str
) -> None:
    monkeypatch.setattr("fixtures.subject.router.IN_STEP_S", 0.05)
    stack = FakeStack(in_turn, ("--routing-logic", "kvaware"))
    stack.routers[0].registry = lambda: told  # type: ignore[method-assign]
    with pytest.raises(fault, match=says) if fault else contextlib.nullcontext():
        assert conversations(stack).engines == 2


def test_conversations_wait_until_the_registry_is_in_step() -> None:
    stack = FakeStack(in_turn, ("--routing-logic", "kvaware"))
    shown = [Registry(2, 9, 0, 0), Registry(2, 9, 2, 0), Registry(1, 4, 0, 2), Registry(2, 9, 0, 2)]
    stack.routers[0].registry = lambda: shown.pop(0) if len(shown) > 1 else shown[0]  # type: ignore[method-assign]
    assert conversations(stack).engines == 2
    assert shown == [Registry(2, 9, 0, 2)]


def test_a_run_waits_for_as_many_workers_as_there_are_engines() -> None:
    router = FakeStack(in_turn, ("--routing-logic", "kvaware")).routers[0]
    shown = [Registry(0, 0, 0, 0), Registry(1, 0, 0, 1), Registry(2, 0, 1, 1), Registry(2, 0, 0, 2)]
    router.registry = lambda: shown.pop(0) if len(shown) > 1 else shown[0]  # type: ignore[method-assign]
    router.wait_until_in_step(2)
    assert shown == [Registry(2, 0, 0, 2)]
    asked: list[int] = []
    by_session = FakeStack(in_turn, ("--routing-logic", "session")).routers[0]
    by_session.registry = lambda: asked.append(1) or Registry(0, 0)  # type: ignore[method-assign]
    by_session.wait_until_in_step(2)
    assert not asked


def test_a_router_that_is_told_what_engines_hold_finds_what_it_never_sent() -> None:
    stack = FakeStack(in_turn, ("--policy", "kv_aware"))
    stack.choose = lambda _, __, prompt: next(at for at, one in enumerate(stack.engines) if prompt in one.known)
    found = conversations(stack)
    assert stack.seen == [], "all of them were begun at the engines themselves"
    assert [one.home.name for one in found.begun] == list("abababa")
    assert astray(found.repeat()) == []
    stack.choose = lambda *_: 0
    assert len(astray(found.repeat())) == 3, "a registry that knows nothing"


def test_conversations_that_all_come_to_one_engine_show_nothing() -> None:
    with pytest.raises(NotJudged, match="sent all of 17 conversations to b"):
        conversations(FakeStack(lambda *_: 1))


def test_a_router_that_takes_turns_is_found_though_half_of_the_repeats_are_lucky() -> None:
    repeats = conversations(FakeStack(in_turn)).repeat()
    assert len(astray(repeats)) >= 3
    assert "KV on" in astray(repeats)[0]
    assert recomputed(repeats)
    with pytest.raises(AssertionError, match=r"expected every repeat on the engine that holds the KV, got .*KV on"):
        assert_at_home(repeats, "every repeat")
    with pytest.raises(AssertionError, match="expected every repeat to reuse KV"):
        assert_reused(repeats, "every repeat")


def test_a_router_that_goes_by_the_whole_prompt_loses_what_goes_on() -> None:
    found = conversations(FakeStack(by_whole_prompt))
    assert astray(found.repeat()) == []
    assert astray(found.repeat(longer=True))


def test_a_longer_conversation_reuses_the_kv_of_the_shorter_one() -> None:
    found = conversations(FakeStack(by_session))
    assert recomputed(found.repeat(longer=True)) == []


def test_another_replica_is_asked_where_it_is_named() -> None:
    found = conversations(FakeStack(by_session, routers=2))
    assert astray(found.repeat(through=1)) == []


def test_what_is_not_answered_or_not_known_is_reported() -> None:
    stack = FakeStack(lambda *_: [0, 1])
    with pytest.raises(NotJudged, match="a, b each finished a request"):
        complete_through(stack, stack.routers[0].client, source().request("completions"))  # type: ignore[arg-type]
    stack = FakeStack(lambda *_: [])
    with pytest.raises(NotJudged, match="an engine that is not known here"):
        complete_through(stack, stack.routers[0].client, source().request("completions"))  # type: ignore[arg-type]
    stack.body = "<html>We will be back</html>"
    with pytest.raises(SubjectFault, match="expected a JSON body, got HTTP 200: '<html>"):
        complete_through(stack, stack.routers[0].client, source().request("completions"))  # type: ignore[arg-type]
    stack.status = 503
    with pytest.raises(SubjectFault, match="expected HTTP 200, got 503"):
        complete_through(stack, stack.routers[0].client, source().request("completions"))  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", sorted(name for name, keeps in AFFINITY_OF.items() if keeps is None))
def test_a_policy_that_keeps_nothing_together_has_no_affinity(policy: str) -> None:
    with pytest.raises(NotApplicable, match="keeps nothing on one engine"):
        RoutedConversations(FakeStack(in_turn, ("--policy", policy)), source())  # type: ignore[arg-type]


def test_a_policy_that_is_not_known_is_not_judged() -> None:
    with pytest.raises(NotJudged, match="command line of router-0 is not known"):
        RoutedConversations(FakeStack(in_turn, ()), source())  # type: ignore[arg-type]
    with pytest.raises(NotJudged, match=r"command line of router-0 names no policy \(--routing-logic"):
        RoutedConversations(FakeStack(in_turn, ("gateway", "--port", "80")), source())  # type: ignore[arg-type]
    with pytest.raises(NotJudged, match="does not know what the policy magic"):
        RoutedConversations(FakeStack(in_turn, ("--routing-logic", "magic")), source())  # type: ignore[arg-type]


def test_vllm_router_goes_by_the_prompt_where_no_policy_is_named() -> None:
    router = FakeStack(in_turn, ("vllm-router", "--worker-urls", "http://a:1")).routers[0]
    assert (router.affinity, router.excludes_after_s) == ("prefix", (60 + 5) * 3)


def test_the_time_until_a_failed_engine_is_excluded_is_that_of_the_health_checks() -> None:
    def promised(*argv: str, unready_after_s: float | None = None) -> float:
        router = FakeStack(in_turn, argv).routers[0]
        router._engines = [SimpleNamespace(unready_after_s=unready_after_s), SimpleNamespace(unready_after_s=18.0)]  # type: ignore[list-item]
        return router.excludes_after_s

    checks = ("--static-backends", "http://a:1,http://b:1", "--static-backend-health-checks")
    assert promised(*checks) == 60 + 10 * 2, "one after the other"
    assert promised(*checks, "--static-backend-health-check-timeout-seconds", "3") == 60 + 3 * 2
    assert promised("--service-discovery", "k8s") == limits.FAILOVER_S
    assert promised("--service-discovery", "k8s", unready_after_s=66.0) == 66.0, "the readiness probe of one engine"


@pytest.mark.parametrize("key", ["a b", "x-user:", "x\ny", "sitz-ungsgröße"])
def test_a_session_key_that_no_header_can_have_is_not_judged(key: str) -> None:
    stack = FakeStack(in_turn, ("--routing-logic", "session", "--session-key", key))
    with pytest.raises(NotJudged, match=r"no header can have that name .*routerSpec.sessionKey"):
        RoutedConversations(stack, source()).begin()  # type: ignore[arg-type]


def test_the_models_of_live_engines_are_those_that_they_list() -> None:
    stack = FakeStack(in_turn)
    stack.engines[1].models = ("m", "other")
    assert models_of_engines(stack) == {"m", "other"}  # type: ignore[arg-type]
    stack.health.known_gone = frozenset({"b"})
    assert models_of_engines(stack) == {"m"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (400, "{}", SubjectFault),
        (503, "{}", SubjectFault),
        (200, '{"choices": []}', SubjectFault),
        (429, "{}", NotJudged),
    ],
)
def test_conversations_that_were_not_answered_are_at_home_nowhere(
    status: int, body: str, fault: type[Exception]
) -> None:
    """Those that are begun together: an engine without a GPU copy would make the other one their home."""
    stack = FakeStack(by_beginning, ("--policy", "cache_aware"))
    post = stack.post

    def once_refused(*given: Any, **named: Any) -> Response:
        if stack.sent == 3:
            stack.sent += 1
            return Response(status, {}, body, total_s=0.1)
        return post(*given, **named)

    stack.routers[0].client = SimpleNamespace(post=once_refused)  # type: ignore[assignment]
    with pytest.raises(fault, match=r"expected HTTP 200, got|expected choices.0|limit of the rate"):
        conversations(stack)


@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_repeat_whose_answer_is_an_error_shows_no_affinity(status: int) -> None:
    stack = FakeStack(by_session)
    found = conversations(stack)
    stack.status = status
    with pytest.raises(SubjectFault, match=f"through the router: expected HTTP 200, got {status}"):
        found.repeat()
