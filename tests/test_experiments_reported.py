"""What answers report of their own tokens, on an engine whose counters and reports are chosen here."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NotApplicable, NotJudged, SubjectFault
from fixtures.evidence.metrics import EngineCounters
from fixtures.evidence.vllm_options import parse_options
from fixtures.experiments import reported
from fixtures.instruments.prompts import Prompt, Prompts
from fixtures.instruments.response import Response
from fixtures.instruments.text_requests import TextRequests
from fixtures.subject.exchange import Exchange, TokenSources

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.instruments.text_requests import Request

ON = ("vllm", "serve", "m", "--enable-prompt-tokens-details")
OFF = ("vllm", "serve", "m")
CHUNK = 16
SOURCES = {"fresh": TokenSources(100, 0, 0), "repeated": TokenSources(4, 96, 0), "reloaded": TokenSources(4, 0, 96)}
STEPS = list(SOURCES)


@dataclass
class FakeEngine:
    argv: tuple[str, ...] | None = ON
    connected: str | None = "LMCacheMPConnector"
    finished: int = 0
    name: str = "e"

    def options(self) -> Any:
        if self.argv is None:
            raise NotJudged("the command line is not known")
        return parse_options(self.argv)

    def connector(self) -> Any:
        return SimpleNamespace(offloading=SimpleNamespace(name=self.connected)) if self.connected else None

    def counters(self) -> EngineCounters:
        return EngineCounters(requests_finished=self.finished)


@dataclass
class FakeStack:
    """Counts ``sources`` for each request, and reports ``cached`` of them."""

    cached: Callable[[TokenSources], int | None] = lambda sources: sources.reused
    engine: FakeEngine = field(default_factory=FakeEngine)
    others: list[FakeEngine] = field(default_factory=list)
    routes_to: int = 0
    status: int = 200
    statistics: Callable[[TokenSources, int], Any] = lambda sources, hit: {
        reported.STATISTICS: {
            "num_vllm_cached_tokens": sources.gpu_hit,
            "num_lmcache_cached_tokens": hit,
            "num_lmcache_extra_cached_tokens": sources.loaded,
        }
    }
    swapped: bool = False
    lost: int = 0
    """Chunks of the repeats in flight that the tier has lost."""
    kept: list[TokenSources] = field(default_factory=list)
    on_gpu: dict[tuple[int, ...], int] = field(default_factory=dict)
    stored: set[tuple[int, ...]] = field(default_factory=set)
    asked: list[Any] = field(default_factory=list)
    payloads: list[dict[str, Any]] = field(default_factory=list)
    cleared: list[FakeEngine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context = SimpleNamespace(permit=lambda _: None, deadlines=Deadlines(counted_s=0.1), step=nullcontext)
        self.tier = SimpleNamespace(expect_kept=lambda _, sources: self.kept.append(sources))
        self.accounting = SimpleNamespace(hit_tokens=lambda exchange: exchange.prompt.whole_chunk_tokens)
        self.health = SimpleNamespace(known_gone=frozenset())
        self.traffic = SimpleNamespace(idle=lambda engine: engine.counters(), settled=self.settled)

    @property
    def engines(self) -> list[FakeEngine]:
        return [self.engine, *self.others]

    @property
    def router(self) -> Any:
        return SimpleNamespace(post=self.route)

    def clear_prefix_cache(self, *, engine: FakeEngine | None = None) -> None:
        self.cleared.append(engine or self.engine)
        self.on_gpu.clear()

    def next_sources(self) -> TokenSources:
        return SOURCES[STEPS[len(self.asked) - 1]]

    def answer(self, sources: TokenSources, **more: Any) -> Response:
        cached = self.cached(sources)
        details = None if cached is None else {"cached_tokens": cached}
        usage = {"prompt_tokens": sources.total, "prompt_tokens_details": details}
        body = {"choices": [{"text": "x"}], "usage": usage} | more
        return Response(self.status, {}, json.dumps(body), total_s=0.1)

    def send(self, path: str, payload: dict[str, Any]) -> Exchange:
        self.asked.append(path)
        step = "fresh" if len(self.asked) == 1 else "reloaded" if self.cleared else "repeated"
        return Exchange(None, payload, self.answer(SOURCES[step]), "e", SOURCES[step])

    def route(self, path: str, payload: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
        assert not headers
        self.asked.append((path, payload))
        if self.routes_to < len(self.engines):
            self.engines[self.routes_to].finished += 1
        return self.answer(self.next_sources())

    def settled(self, engine: FakeEngine, before: EngineCounters, count: int, _: Any) -> EngineCounters:
        assert engine.finished - (before.requests_finished or 0) == count
        sources = self.next_sources()
        return EngineCounters(computed=sources.computed, gpu_hit=sources.gpu_hit, loaded=sources.loaded)

    def ask(self, prompt: Prompt) -> TokenSources:
        whole = prompt.whole_chunk_tokens
        hit = self.on_gpu.get(prompt.ids[:CHUNK], 0)
        loaded = max(whole - hit, 0) if prompt.ids in self.stored else 0
        self.on_gpu[prompt.ids[:CHUNK]] = whole
        self.stored.add(prompt.ids)
        return TokenSources(prompt.tokens - hit - loaded, hit, loaded)

    def complete(self, prompt: Prompt, **options: Any) -> Exchange:
        sources = self.ask(prompt)
        self.payloads.append(options)
        hit = prompt.whole_chunk_tokens if sources.reused else 0
        given = self.statistics(sources, hit) if options.get("kv_transfer_params") else None
        return Exchange(prompt, {}, self.answer(sources, kv_transfer_params=given), "e", sources)

    def complete_concurrently(self, prompts: list[Prompt], *, at_once: int) -> tuple[list[Exchange], TokenSources]:
        assert at_once == 16
        each = [self.ask(prompt) for prompt in prompts]
        if self.cleared and self.lost:
            each[0] = TokenSources(each[0].computed + CHUNK, 0, each[0].loaded - CHUNK)
        told = [each[1], each[0], *each[2:]] if self.swapped and self.cleared else each
        exchanges = [Exchange(one, {}, self.answer(of), "e") for one, of in zip(prompts, told, strict=True)]
        sums = (sum(getattr(one, name) for one in each) for name in ("computed", "gpu_hit", "loaded"))
        return exchanges, TokenSources(*sums)


def request() -> Request:
    return TextRequests("m", 1, "reported").request("chat")


def reports(stack: FakeStack, *steps: Any) -> list[reported.Reported]:
    return reported.reports_of(stack, request(), steps)  # type: ignore[arg-type]


def source() -> Prompts:
    return Prompts(1, "reported", CHUNK, 4000)


def test_what_is_counted_is_right() -> None:
    for steps in (("fresh", "repeated"), ("fresh", "reloaded")):
        stack = FakeStack()
        found = reports(stack, *steps)
        assert [one.what for one in found] == list(steps)
        assert [one.cached for one in found] == [0, 96]
        assert all(one.right for one in found)
        assert len(stack.cleared) == ("reloaded" in steps)


@pytest.mark.parametrize(
    ("cached", "right"),
    [
        (lambda sources: sources.gpu_hit, [True, False]),  # what was loaded is left out
        (lambda sources: sources.total, [False, False]),
        (lambda sources: sources.reused or None, [True, True]),  # older engines leave out a zero
        (lambda _: 0, [True, False]),
        (lambda _: None, [True, False]),  # it was told to report
    ],
)
def test_what_is_not_counted_is_wrong(cached: Any, right: list[bool]) -> None:
    found = reports(FakeStack(cached=cached), "fresh", "reloaded")
    assert [one.right for one in found] == right
    assert "96 tokens reused" in str(found[1])


def test_an_engine_that_is_not_told_to_report_is_not_asked() -> None:
    stack = FakeStack(engine=FakeEngine(OFF))
    with pytest.raises(NotApplicable, match="runs without --enable-prompt-tokens-details"):
        reports(stack, "fresh", "repeated")
    assert stack.asked == []
    with pytest.raises(NotApplicable):
        reports(FakeStack(engine=FakeEngine((*ON, "--no-enable-prompt-tokens-details"))), "fresh")


def test_where_the_command_line_is_not_known_the_answers_say_it() -> None:
    unknown = FakeEngine(None)
    assert all(one.right for one in reports(FakeStack(engine=unknown), "fresh", "repeated"))
    assert not all(one.right for one in reports(FakeStack(lambda _: 7, engine=unknown), "fresh", "repeated"))
    with pytest.raises(NotApplicable, match="the answers do not report cached tokens"):
        reports(FakeStack(lambda _: None, engine=unknown), "fresh", "repeated")


@pytest.mark.parametrize("details", ["7", {"cached_tokens": "7"}, {"cached_tokens": True}, {"cached_tokens": None}, []])
def test_what_is_no_number_is_no_report(details: Any) -> None:
    body = {"usage": {"prompt_tokens_details": details}}
    assert reported.cached_tokens(Response(200, {}, json.dumps(body), total_s=0.1)) is None


def test_through_the_router_the_engine_that_answered_is_counted() -> None:
    stack = FakeStack(others=[FakeEngine(name="f")], routes_to=1)
    found = reported.reports_through_router(stack, request(), STEPS)  # type: ignore[arg-type]
    assert [one.cached for one in found] == [0, 96, 96]
    assert all(one.right for one in found)
    assert [one.name for one in stack.cleared] == ["e", "f"]
    wrong = FakeStack(lambda _: 1)
    assert not any(one.right for one in reported.reports_through_router(wrong, request(), STEPS))  # type: ignore[arg-type]


def test_a_router_that_asks_others_is_not_judged() -> None:
    with pytest.raises(NotJudged, match="an engine that is not known here"):
        reported.reports_through_router(FakeStack(routes_to=5), request(), STEPS)  # type: ignore[arg-type]
    with pytest.raises(SubjectFault, match="through the router: expected HTTP 200, got 503"):
        reported.reports_through_router(FakeStack(status=503), request(), STEPS)  # type: ignore[arg-type]


def test_in_flight_together_each_is_right_and_so_is_the_sum() -> None:
    found = reported.reports_together(FakeStack(), source())  # type: ignore[arg-type]
    assert len(found.reports) == reported.TOGETHER
    assert all(one.right for one in (*found.reports, found.total))
    assert {one.reused for one in found.reports} == {0, CHUNK, 2 * CHUNK, 3 * CHUNK, 4 * CHUNK}


def test_the_report_of_another_request_is_found_where_the_sum_is_right() -> None:
    found = reported.reports_together(FakeStack(swapped=True), source())  # type: ignore[arg-type]
    assert found.total.right
    assert [one.right for one in found.reports].count(False) == 2


def test_a_tier_that_loses_a_part_says_nothing_about_each_report() -> None:
    stack = FakeStack(lost=1)
    found = reported.reports_together(stack, source())  # type: ignore[arg-type]
    assert found.total.right
    assert found.reports == ()
    assert stack.kept, "ACC-02 is told"
    with pytest.raises(NotApplicable):
        reported.reports_together(FakeStack(lambda _: None, engine=FakeEngine(None)), source())  # type: ignore[arg-type]


def statistics(stack: FakeStack) -> list[reported.RequestStatistics]:
    return reported.statistics_of(stack, source())  # type: ignore[arg-type]


def test_the_statistics_of_lmcache_are_held_against_engine_and_cache() -> None:
    stack = FakeStack()
    found = statistics(stack)
    assert [(one.loaded, one.on_gpu, one.in_tier) for one in found] == [
        (0, 0, 0),
        (0, 64, 64),
        (64, 0, 64),
        (32, 32, 64),
    ]
    assert all(one.right for one in found)
    both = {"kv_transfer_params": {reported.STATISTICS: True, "num_lmcache_extra_cached_tokens": True}}
    assert stack.payloads == [both, both, both, {}, both]


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({"num_lmcache_extra_cached_tokens": "hit"}, [True, False, True, False]),  # what the GPU has counts as loaded
        ({"num_vllm_cached_tokens": 0}, [True, False, True, False]),
        ({"num_lmcache_cached_tokens": 0}, [True, False, False, False]),
    ],
)
def test_wrong_statistics_are_found(change: dict[str, Any], right: list[bool]) -> None:
    honest = FakeStack().statistics

    def wrong(sources: TokenSources, hit: int) -> Any:
        given = honest(sources, hit)
        return {
            reported.STATISTICS: given[reported.STATISTICS] | {k: hit if v == "hit" else v for k, v in change.items()}
        }

    found = statistics(FakeStack(statistics=wrong))
    assert [one.right for one in found] == right
    assert "found in the tier; reported" in str(found[0])


def test_a_connector_that_says_one_of_them_only_is_judged_by_that() -> None:
    stack = FakeStack(statistics=lambda sources, _: {"num_lmcache_extra_cached_tokens": sources.loaded})
    found = statistics(stack)
    assert [(one.loaded, one.on_gpu, one.right) for one in found] == [(n, None, True) for n in (0, 0, 64, 32)]


@pytest.mark.parametrize("name", [None, "LMCacheConnectorV1", "OffloadingConnector"])
def test_connectors_without_statistics_are_not_asked_for_them(name: str | None) -> None:
    stack = FakeStack(engine=FakeEngine(connected=name))
    with pytest.raises(NotApplicable, match="only LMCache's multi-process connector"):
        statistics(stack)
    assert stack.payloads == []


def test_an_lmcache_that_gives_no_statistics_has_none_to_judge() -> None:
    with pytest.raises(NotApplicable, match=r"0\.5\.6 and later"):
        statistics(FakeStack(statistics=lambda *_: None))
