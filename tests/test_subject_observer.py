"""One request, observed: every number belongs to this request, and every fault has its reason."""

from __future__ import annotations

import re
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NoAnswer, NotJudged, SubjectFault, SubjectGone
from fixtures.core.record import EngineServer
from fixtures.instruments import client
from fixtures.instruments.openai_api import Api
from fixtures.instruments.prompts import Prompts
from fixtures.instruments.response import Response
from fixtures.instruments.text_requests import BAD_REQUESTS
from fixtures.subject.context import Context
from fixtures.subject.exchange import TokenSources
from fixtures.subject.stack import Stack
from tests.fakes import engine_server
from tests.fakes.engine_server import MODEL, FakeServer, engine_of, record, with_cache

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from fixtures.subject.exchange import Exchange

cache = engine_server.cache
engine = engine_server.engine
process = engine_server.process
prompts = engine_server.prompts


# --- one request, and no other -----------------------------------------------------------------------------------


def test_an_exchange_counts_its_own_tokens(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    engine.counts = {"computed": 1000, "gpu_hit": 200, "loaded": 30}
    engine.finished = 7
    stack = Stack(record(tmp_path, engine.url))
    seen: list[Exchange] = []
    stack.context.on_exchange = seen.append
    asked = stack.complete(prompts.of_length(50), max_tokens=3, logprobs=5, cache_salt="x")
    assert asked.tokens == TokenSources(50, 0, 0)
    assert seen == [asked]
    (payload,) = engine.posts
    assert payload["prompt"] == list(asked.prompt.ids) if asked.prompt else False
    assert {
        name: payload[name] for name in ("model", "max_tokens", "temperature", "stream", "logprobs", "cache_salt")
    } == {
        "model": MODEL,
        "max_tokens": 3,
        "temperature": 0,
        "stream": False,
        "logprobs": 5,
        "cache_salt": "x",
    }


def test_counters_that_come_late_are_waited_for(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    """vLLM counts a request after it has answered it."""
    engine.on_post = lambda payload: threading.Timer(0.2, engine.count, [payload]).start()
    assert Stack(record(tmp_path, engine.url)).complete(prompts.of_length(50)).tokens == TokenSources(50, 0, 0)


def test_a_gateway_that_does_not_stream_is_told_by_the_requirement_that_owns_it(
    tmp_path: Path, engine: FakeServer, prompts: Prompts
) -> None:
    stack = Stack(record(tmp_path, engine.url))
    with pytest.raises(NotJudged, match=r"expected a stream with a token, got application/json: .* give the address"):
        stack.complete(prompts.of_length(50), stream=True)
    assert [incident.owner for incident in stack.context.incidents.found] == ["API-03"]


def test_a_stream_that_is_an_error_is_a_request_that_failed(
    tmp_path: Path, engine: FakeServer, prompts: Prompts
) -> None:
    """Seen with a full Redis below LMCache in process: vLLM fails the request once its stream is open."""
    engine.answer = (200, 'data: {"error": {"message": "KV load failure", "code": 500}}\n\ndata: [DONE]\n\n')
    stack = Stack(record(tmp_path, engine.url))
    with pytest.raises(NoAnswer, match=r"an error in place of an answer: .*KV load failure"):
        stack.complete(prompts.of_length(50), stream=True)
    assert not stack.context.incidents.found


def test_a_limit_of_the_rate_of_requests_is_nobodys_fault(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    engine.answer = (429, {"error": {"message": "slow down"}})
    stack = Stack(record(tmp_path, engine.url))
    with pytest.raises(NotJudged, match=r"a limit of the rate of requests .* give the address of the engine itself"):
        stack.complete(prompts.of_length(50))
    api = Api(stack.engine.client, MODEL, lambda: 100)
    with pytest.raises(NotJudged, match="HTTP 429"):
        api.send_bad(next(bad for bad in BAD_REQUESTS if bad.data is None))


@pytest.mark.parametrize("refused", [0, 3], ids=["any-prompt", "long-ones"])
def test_a_gateway_that_takes_no_token_ids_breaks_no_claim(
    tmp_path: Path, engine: FakeServer, prompts: Prompts, refused: int
) -> None:
    def answer(payload: dict[str, Any]) -> None:
        status = 422 if len(payload["prompt"]) >= refused else 200
        engine.answer = (status, {"error": {"message": "a prompt has to be a text"}})

    engine.on_post = answer
    stack = Stack(record(tmp_path, engine.url))
    with pytest.raises(SubjectFault if refused else NotJudged, match=r"HTTP.* 422.*a prompt has to be a text"):
        stack.complete(prompts.of_length(50))


# --- hangs --------------------------------------------------------------------------------------------------------------


def test_a_request_that_never_ends_costs_one_test_its_verdict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: FakeServer, prompts: Prompts
) -> None:
    monkeypatch.setattr(client._Watch, "LOOKS_AT", 0.2)  # a busy machine needs a while to look
    (tmp_path / "engine-0.log").write_text('INFO: "GET /metrics"\nINFO: request cmpl-7 waits for a load\n')
    engines = [EngineServer(name="engine-0", url=engine.url, log=tmp_path / "engine-0.log")]
    stack = Stack(record(tmp_path, engines=engines), deadlines=Deadlines(answer_s=1.0, token_s=0.01, probe_s=2.0))
    free = threading.Event()

    def hang(_: dict[str, Any]) -> None:
        engine.running = engine.fetching = 1
        free.wait(60)

    engine.on_post = hang
    with pytest.raises(NoAnswer) as raised:
        stack.complete(prompts.of_length(50))
    text = str(raised.value)
    assert "no answer within" in text
    assert "engine engine-0: 1 running, 0 waiting, 1 fetching KV (in_progress)" in text
    assert "log of engine-0: INFO: request cmpl-7 waits for a load" in text
    assert "GET /metrics" not in text
    behind = stack.health.explain(raised.value)
    assert behind is not None
    assert str(behind).startswith("a request never ended, so the test is not judged: POST")
    assert [incident.owner for incident in stack.context.incidents.found] == ["ACT-04", "ACC-02"]
    for _ in range(2):
        begin = time.monotonic()
        with pytest.raises(SubjectGone, match="engine engine-0 has been hanging since a request that never ended"):
            stack.complete(prompts.of_length(50))
        assert time.monotonic() - begin < 3.0, "not the 60 s for which the engine hangs"
    free.set()
    engine.running = engine.fetching = 0
    engine.on_post = engine.count
    assert stack.complete(prompts.of_length(50)).sources.computed == 50, "it serves again"


def test_the_deadline_of_a_request_grows_with_its_tokens_and_the_measured_rate(
    tmp_path: Path, engine: FakeServer
) -> None:
    stack = Stack(record(tmp_path, engine.url))
    long = {"prompt": [1] * 131072, "max_tokens": 100}
    assert stack.engine.client.deadline_of(long) == pytest.approx(120 + 50 + 4 * 131.072)
    stack.context.rate(255, 0.001)
    assert stack.context.deadlines.tokens_per_s == 1000, "too short to say anything"
    stack.context.rate(2000, 4.0)
    stack.context.rate(2000, 2.0)
    assert stack.context.deadlines.tokens_per_s == 500, "of equal prompts the slower one"
    stack.context.rate(1000, 0.1)
    assert stack.context.deadlines.tokens_per_s == 500, "the longest prompt decides"
    assert stack.engine.client.deadline_of(long) == pytest.approx(170 + 4 * 131072 / 500)
    assert stack.engine.client.deadline_of({"messages": [{"role": "user", "content": "x" * 500}]}) > 124


def test_a_verified_cold_prompt_shows_the_rate(tmp_path: Path, engine: FakeServer) -> None:
    stack = Stack(record(tmp_path, engine.url))

    def slowly(payload: dict[str, Any]) -> None:
        time.sleep(0.2)
        engine.count(payload)

    engine.on_post = slowly
    stack.complete(Prompts(1, "rate", 256, 4000).of_length(1000))
    assert 500 < stack.context.deadlines.tokens_per_s < 5000


# --- metrics that cannot be had -----------------------------------------------------------------------------------------


@pytest.mark.long
def test_slow_metrics_are_told_and_not_stormed(
    tmp_path: Path, engine: FakeServer, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixtures.subject.cache_counters.SLOW_METRICS_S", 0.2)
    engine.metrics_s = 0.3
    stack = Stack(record(tmp_path, engine.url), deadlines=Deadlines(idle_s=0.5))
    (note,) = stack.cache.slow_metrics()
    assert re.match(r"reading /metrics of engine engine-0 takes \d+\.\d s", note)
    engine.running = 1
    asked = engine.pages
    with pytest.raises(NotJudged, match="is busy"):
        stack.complete(prompts.of_length(50))
    assert engine.pages - asked <= 4
    engine.metrics_s = 0.0
    assert Stack(record(tmp_path, engine.url)).cache.slow_metrics() == []


def test_metrics_that_never_come_cost_their_deadline_once(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    stack = Stack(record(tmp_path, engine.url), deadlines=Deadlines(metrics_s=1.5, probe_s=0.7))
    engine.metrics_s = 60.0
    for within_s in (5.0, 1.4):
        began = time.monotonic()
        with pytest.raises(NotJudged, match=r"no answer within 1\.5 s"):
            stack.complete(prompts.of_length(50))
        assert time.monotonic() - began < within_s
    assert {one.owner for one in stack.context.incidents.found} == {"ACC-07"}
    engine.metrics_s = 0.0
    assert stack.complete(prompts.of_length(50)).sources.computed == 50


@pytest.mark.long
def test_a_page_of_20_mb_is_read_like_any_other(
    tmp_path: Path, engine: FakeServer, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = 'vllm:e2e_request_latency_seconds_bucket{engine="0",le="0.5",model_name="m%d"} 7\n'
    more = "".join(bucket % number for number in range(250_000))
    assert len(more) > 20_000_000
    page = engine.metrics
    monkeypatch.setattr(engine, "metrics", lambda: page() + more)
    began = time.process_time()
    assert Stack(record(tmp_path, engine.url)).complete(prompts.of_length(50)).sources.computed == 50
    assert time.process_time() - began < 30


@pytest.mark.parametrize(
    ("page", "status", "words"),
    [
        ("", 500, "got HTTP 500"),
        ("", 0, "closed connection without response"),
        ("# TYPE a gauge\nvllm:num_requests_running 1", 200, "got a part of them: the page ends within the line"),
        ("<html>502 Bad Gateway</html>", 200, "got another page: '<html>502 Bad Gateway</html>'"),
    ],
)
def test_metrics_that_fail_are_told_where_they_belong(
    tmp_path: Path, engine: FakeServer, prompts: Prompts, page: str, status: int, words: str
) -> None:
    stack = Stack(record(tmp_path, engine.url))
    engine.metrics_status, engine.page = status, page
    with pytest.raises(NotJudged, match="nothing that needs them can be judged"):
        stack.complete(prompts.of_length(50))
    (incident,) = stack.context.incidents.found
    assert incident.owner == "ACC-07"
    assert words in incident.text


def test_a_restart_during_a_request_is_reported(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    engine.counts["computed"], engine.finished = 1000, 7

    def restart(payload: dict[str, Any]) -> None:
        engine.counts["computed"], engine.finished = len(payload["prompt"]), 8

    engine.on_post = restart
    stack = Stack(record(tmp_path, engine.url))
    with pytest.raises(SubjectGone, match=r"engine-0 restarted during the run: computed was 1000 and is 50"):
        stack.complete(prompts.of_length(50))
    assert [incident.owner for incident in stack.context.incidents.found] == ["ACT-04"]
    engine.counts["computed"], engine.finished = 1000, 0
    with pytest.raises(SubjectGone, match="engine-0 restarted during the run"):
        stack.complete_concurrently([prompts.of_length(50)])


def test_a_counter_that_falls_while_its_process_lives_is_no_restart(
    tmp_path: Path, engine: FakeServer, prompts: Prompts, process: subprocess.Popen[bytes]
) -> None:
    engine.counts["computed"] = 1000
    engine.on_post = lambda _: engine.counts.update(computed=5)
    stack = Stack(record(tmp_path, engines=[engine_of(process, engine.url, None)]), deadlines=Deadlines(counted_s=0.1))
    with pytest.raises(NotJudged, match="a counter of engine engine-0 fell"):
        stack.complete(prompts.of_length(50))
    assert [incident.owner for incident in stack.context.incidents.found] == ["ACC-07"]


def test_an_engine_that_counts_no_sources_is_not_judged(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    engine.counts = {}
    engine.on_post = lambda payload: setattr(engine, "finished", engine.finished + 1)
    with pytest.raises(NotJudged, match="vllm:prompt_tokens_by_source_total"):
        Stack(record(tmp_path, engine.url)).complete(prompts.of_length(50))


def test_requests_together_are_known_in_sum(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    stack = Stack(record(tmp_path, engine.url))
    seen: list[Exchange] = []
    stack.context.on_exchange = seen.append
    asked = [prompts.of_length(length) for length in (20, 30, 40, 50)]
    exchanges, tokens = stack.complete_concurrently(asked, at_once=3, max_tokens=2)
    assert tokens == TokenSources(140, 0, 0)
    assert [exchange.prompt for exchange in exchanges] == asked == [exchange.prompt for exchange in seen]
    assert sorted(len(payload["prompt"]) for payload in engine.posts) == [20, 30, 40, 50]
    assert all(payload["max_tokens"] == 2 for payload in engine.posts)
    with pytest.raises(ValueError):
        _ = exchanges[0].sources


# --- faults and their reasons -----------------------------------------------------------------------------------------


def test_a_server_error_is_a_fault(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    engine.answer = (500, {"error": {"message": "boom"}})
    with pytest.raises(SubjectFault, match=r"POST /v1/completions: expected HTTP 200, got 500: .*boom"):
        Stack(record(tmp_path, engine.url)).complete(prompts.of_length(50))


def test_a_page_of_metrics_that_fails_once_is_asked_for_again() -> None:
    """prometheus_client does so while a process of a starting engine makes its file."""
    empty = "unpack_from requires a buffer of at least 4 bytes"
    pages = [Response(500, {}, empty, 0.0), Response(200, {}, "vllm:prompt_tokens_total 3\n", 0.0)]
    context = Context()
    client = SimpleNamespace(get=lambda *_, **__: pages.pop(0))
    assert context.samples(client, "engine a").value("vllm:prompt_tokens_total") == 3  # type: ignore[arg-type]
    assert not pages
    asked: list[int] = []
    client.get = lambda *_, **__: asked.append(1) or Response(500, {}, empty, 0.0)
    for _ in range(2):
        with pytest.raises(NotJudged, match="expected metrics, got HTTP 500: 'unpack_from"):
            context.samples(client, "engine a")  # type: ignore[arg-type]
        asked.append(0)
    assert asked.index(0) > 2, "the first time it is waited for"
    assert asked[asked.index(0) + 1 :] == [1, 0], "and not after that"


def test_metrics_that_fail_name_their_server(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    stack = with_cache(tmp_path, engine, cache)
    engine.metrics_status = cache.metrics_status = 500
    with pytest.raises(NotJudged, match="GET /metrics of engine engine-0: expected metrics, got HTTP 500"):
        stack.engine.counters()
    with pytest.raises(NotJudged, match="GET /metrics of cache server kv: expected metrics, got HTTP 500"):
        stack.cache.counters()
    assert [one.owner for one in stack.context.incidents.found] == ["ACC-07", "ACC-07"]
