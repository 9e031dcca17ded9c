"""``Stack`` against a fake engine: every number belongs to this request, and every fault has its reason."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NoAnswer, NotApplicable, NotJudged, StackError, SubjectFault, SubjectGone
from fixtures.core.processes import ProcessRef
from fixtures.core.record import Baseline, EngineServer, RequestedConfig, Server, StackRecord
from fixtures.core.units import GIB
from fixtures.evidence.logs.reader import LogReader, read_log
from fixtures.evidence.shape import FULL, UNKNOWN, KvShape
from fixtures.experiments.aborts import abort_requests
from fixtures.experiments.filling import fill_tier
from fixtures.instruments.host_memory import HostMemory
from fixtures.instruments.prompts import Prompts, Vocabulary
from fixtures.subject.cache_server import CacheServer, shape_of_server
from fixtures.subject.exchange import TokenSources
from fixtures.subject.log_file import LogFile
from fixtures.subject.memory import process_trees
from fixtures.subject.metrics_pages import metrics_pages
from fixtures.subject.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_httpserver import HTTPServer

    from fixtures.subject.exchange import Exchange

MODEL = "tiny"
SOURCES = {"computed": "local_compute", "gpu_hit": "local_cache_hit", "loaded": "external_kv_transfer"}


class FakeServer(ThreadingHTTPServer):
    """Serves an engine's and a cache server's endpoints from plain attributes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.lock = threading.Lock()
        self.counts = dict.fromkeys(SOURCES, 0)
        self.finished = self.running = self.waiting = 0
        self.usage = 0.0
        self.cache: dict[str, float] = {}
        self.info: dict[str, str] = {"block_size": "16", "num_gpu_blocks": "100", "enable_prefix_caching": "True"}
        self.config: Any = None
        self.status: Any = None
        self.models: list[dict[str, Any]] = [{"id": MODEL, "max_model_len": 4096}]
        self.answer: tuple[int, Any] = (200, {"id": "cmpl-1", "choices": [{"text": "a"}]})
        self.on_post: Callable[[dict[str, Any]], None] = self.count
        self.posts: list[dict[str, Any]] = []
        self.metrics_status = 200
        self.metrics_s = 0.0
        self.page = ""
        self.pages = self.fetching = 0

    def count(self, payload: dict[str, Any]) -> None:
        """One request, computed from nothing."""
        with self.lock:
            self.counts["computed"] += len(payload.get("prompt") or ())
            self.finished += 1

    def metrics(self) -> str:
        label = f'engine="0",model_name="{MODEL}"'
        config = ",".join(f'{name}="{value}"' for name, value in self.info.items())
        lines = [f"vllm:cache_config_info{{{config}}} 1.0"] if self.info else []
        lines += [
            f'vllm:prompt_tokens_by_source_total{{{label},source="{SOURCES[name]}"}} {float(value)}'
            for name, value in self.counts.items()
        ]
        lines.append(f'vllm:request_success_total{{{label},finished_reason="length"}} {float(self.finished)}')
        lines.append(f"vllm:num_requests_running{{{label}}} {float(self.running)}")
        lines.append(f"vllm:num_requests_waiting{{{label}}} {float(self.waiting)}")
        lines.append(f"vllm:kv_cache_usage_perc{{{label}}} {self.usage}")
        lines.append(f'vllm:num_requests_kv_fetch_by_stage{{{label},stage="in_progress"}} {float(self.fetching)}')
        lines += [f"lmcache_mp_{name} {value}" for name, value in self.cache.items()]
        return "\n".join(lines) + "\n"


class Handler(BaseHTTPRequestHandler):
    server: FakeServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.server.pages += 1
            time.sleep(self.server.metrics_s)
            self.reply(self.server.metrics_status, (self.server.page or self.server.metrics()).encode(), "text/plain")
        elif self.path == "/v1/models":
            self.reply(200, json.dumps({"data": self.server.models}).encode())
        elif self.path == "/status" and self.server.status is not None:
            self.reply(200, json.dumps(self.server.status).encode())
        elif self.path == "/config" and self.server.config is not None:
            self.reply(200, json.dumps(self.server.config).encode())
        else:
            self.reply(404, b"{}")

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if self.path == "/reset_prefix_cache":
            return self.reply(200, b'{"success": true}')
        self.server.posts.append(payload)
        try:
            self.server.on_post(payload)
        except ConnectionAbortedError:
            self.close_connection = True
            return None
        status, body = self.server.answer
        return self.reply(status, json.dumps(body).encode())

    def reply(self, status: int, data: bytes, content_type: str = "application/json") -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


@contextlib.contextmanager
def serving() -> Iterator[FakeServer]:
    with FakeServer() as started:
        threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield started
        started.shutdown()


@pytest.fixture
def engine() -> Iterator[FakeServer]:
    with serving() as started:
        yield started


@pytest.fixture
def cache() -> Iterator[FakeServer]:
    """A cache server of 1 GiB, with LMCache 0.5.6's names."""
    with serving() as started:
        started.cache = {"l1_write_chunks_total": 0, "lookup_requested_tokens_total": 0, "lookup_hit_tokens_total": 0}
        started.config = {
            "mp": {"chunk_size": 64},
            "storage_manager": {"l1_manager_config": {"memory_config": {"size_in_bytes": GIB}}},
        }
        yield started


@pytest.fixture
def prompts() -> Prompts:
    return Prompts(1, "stack", 16, 4000)


def record(folder: Path, url: str = "http://127.0.0.1:9", **fields: Any) -> StackRecord:
    engines = fields.pop("engines", None) or [EngineServer(name="engine-0", url=url)]
    return StackRecord(
        id="s", kind="process", config="c", folder=folder, model=MODEL, engines=engines, **{"device": "cpu"} | fields
    )


def with_cache(folder: Path, engine: FakeServer, cache: FakeServer, **fields: Any) -> Stack:
    engines = [EngineServer(name="engine-0", url=engine.url, cache_server="kv", log=folder / "engine-0.log")]
    servers = [Server(name="kv", url=cache.url, log=folder / "kv.log")]
    return Stack(record(folder, engines=engines, cache_servers=servers, **fields))


# --- what Prometheus would scrape ---------------------------------------------------------------------------------------


def test_the_metrics_pages_are_those_of_all_servers(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    with serving() as router:
        router.page = "router_requests 1\n"
        port = f"--prometheus-port={router.server_port}"
        routers = [
            Server(name="r", url="http://127.0.0.1:9", argv=("vllm_router", port)),
            Server(name="s", url=router.url),
        ]
        stack = with_cache(tmp_path, engine, cache, routers=routers)
        pages = metrics_pages(stack)
        assert list(pages) == ["engine-0", "kv", "r", "s"]
        assert (pages["r"], pages["s"]) == (router.page, router.page)
        assert "lmcache_mp_" in pages["kv"]
        router.metrics_status = 404
        with pytest.raises(NotJudged, match="metrics of r cannot be read: HTTP 404"):
            metrics_pages(stack)
    with pytest.raises(NotJudged, match="metrics of engine-0 cannot be read"):
        metrics_pages(Stack(record(tmp_path)))
    engines = [EngineServer(name="engine-0", url=engine.url, counters=False)]
    with pytest.raises(NotJudged, match="add --url for each engine"):
        metrics_pages(Stack(record(tmp_path, engines=engines)))


# --- one request, and nobody else's -----------------------------------------------------------------------------------


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


def test_foreign_traffic_is_not_judged(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    def two(payload: dict[str, Any]) -> None:
        engine.count(payload)
        engine.count({"prompt": [1] * 17})

    engine.on_post = two
    stack = Stack(record(tmp_path, engine.url))
    seen: list[Exchange] = []
    stack.context.on_exchange = seen.append
    with pytest.raises(
        NotJudged, match=r"engine-0 finished 2 requests, but this suite sent only 1: it has other clients"
    ):
        stack.complete(prompts.of_length(50))
    assert seen == [], "what is thrown away is nobody's evidence"
    with pytest.raises(NotJudged, match="engine-0 finished 6 requests, but this suite sent only 3"):
        stack.complete_concurrently([prompts.of_length(50) for _ in range(3)], at_once=3)


@pytest.mark.parametrize("together", [False, True], ids=["alone", "together"])
def test_a_request_of_another_client_that_still_runs_is_not_judged(
    tmp_path: Path, engine: FakeServer, prompts: Prompts, together: bool
) -> None:
    def another_begins(payload: dict[str, Any]) -> None:
        engine.count(payload)
        engine.counts["computed"] += 700  # prefilled, and still decoding when ours is answered
        engine.running = 1

    engine.on_post = another_begins
    stack = Stack(record(tmp_path, engine.url), deadlines=Deadlines(counted_s=0.2))
    ask = (lambda prompt: stack.complete_concurrently([prompt])) if together else stack.complete
    with pytest.raises(NotJudged, match=r"engine-0 is still busy \(1 running, 0 waiting\) although the 1 request\(s\)"):
        ask(prompts.of_length(50))


def test_another_engine_on_the_same_cache_server_is_watched(
    tmp_path: Path, engine: FakeServer, cache: FakeServer, prompts: Prompts
) -> None:
    with serving() as second:
        engines = [
            EngineServer(name=name, url=one.url, cache_server="kv")
            for name, one in (("engine-0", engine), ("engine-1", second))
        ]
        stack = Stack(record(tmp_path, engines=engines, cache_servers=[Server(name="kv", url=cache.url)]))
        assert stack.complete(prompts.of_length(50)).tokens == TokenSources(50, 0, 0)

        def both(payload: dict[str, Any]) -> None:
            engine.count(payload)
            second.count(payload)

        engine.on_post = both
        with pytest.raises(
            NotJudged, match="engine engine-1 shares the cache server of engine-0 and served other clients"
        ):
            stack.complete(prompts.of_length(50))


def test_a_busy_engine_is_not_judged(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    engine.running, engine.waiting = 2, 1
    with pytest.raises(
        NotJudged, match=r"engine-0 is busy \(2 running, 1 waiting\), although this suite sends no request"
    ):
        Stack(record(tmp_path, engine.url), deadlines=Deadlines(idle_s=0.2)).complete(prompts.of_length(50))
    assert engine.posts == []


def test_requests_that_this_suite_abandoned_are_its_own(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    stack = Stack(record(tmp_path, engine.url), deadlines=Deadlines(idle_s=0.2, drained_s=0.1))
    engine.on_post = lambda _: setattr(engine, "running", 1)
    abort_requests(stack, [prompts.of_length(50)])
    with pytest.raises(
        SubjectGone, match=r"busy \(1 running, 0 waiting\) with requests of this suite that were aborted"
    ):
        stack.complete(prompts.of_length(50))
    (incident,) = stack.context.incidents.of("MEM-03")
    assert "expected an idle engine" in incident.text
    engine.running, engine.on_post = 0, engine.count
    stack.traffic.wait_until_idle()
    assert stack.complete(prompts.of_length(50)).sources.computed == 50


# --- hangs --------------------------------------------------------------------------------------------------------------


def test_a_request_that_never_ends_costs_one_test_its_verdict(
    tmp_path: Path, engine: FakeServer, prompts: Prompts
) -> None:
    (tmp_path / "engine-0.log").write_text('INFO: "GET /metrics"\nINFO: request cmpl-7 waits for a load\n')
    engines = [EngineServer(name="engine-0", url=engine.url, log=tmp_path / "engine-0.log")]
    stack = Stack(record(tmp_path, engines=engines), deadlines=Deadlines(answer_s=0.5, token_s=0.01, probe_s=0.3))
    free = threading.Event()

    def hang(_: dict[str, Any]) -> None:
        engine.running = engine.fetching = 1
        free.wait(10)

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
        assert time.monotonic() - begin < 1.0
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
    assert re.match(r"GET /metrics of engine engine-0 takes \d+\.\d s", note)
    engine.running = 1
    asked = engine.pages
    with pytest.raises(NotJudged, match="is busy"):
        stack.complete(prompts.of_length(50))
    assert engine.pages - asked <= 4
    engine.metrics_s = 0.0
    assert Stack(record(tmp_path, engine.url)).cache.slow_metrics() == []


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


def test_an_engine_that_comes_to_rest_is_waited_for(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    engine.running = 1
    threading.Timer(0.15, setattr, [engine, "running", 0]).start()
    assert Stack(record(tmp_path, engine.url)).complete(prompts.of_length(50)).sources.computed == 50


def test_a_restart_during_a_request_is_told(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
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


def test_metrics_that_fail_name_their_server(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    stack = with_cache(tmp_path, engine, cache)
    engine.metrics_status = cache.metrics_status = 500
    with pytest.raises(NotJudged, match="GET /metrics of engine engine-0: expected metrics, got HTTP 500"):
        stack.engine.counters()
    with pytest.raises(NotJudged, match="GET /metrics of cache server kv: expected metrics, got HTTP 500"):
        stack.cache.counters()
    assert [one.owner for one in stack.context.incidents.found] == ["ACC-07", "ACC-07"]


CRASH = "(EngineCore pid=5) ERROR 11-25 04:36:39 [core.py:7] ValueError: No available memory for the cache blocks.\n"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield started
    started.kill()
    started.wait()


def engine_of(process: subprocess.Popen[bytes], url: str, log: Path | None) -> EngineServer:
    return EngineServer(name="engine-0", url=url, process=ProcessRef.of(process.pid), log=log)


@pytest.mark.parametrize("when", ["before-the-request", "during-the-request"])
@pytest.mark.parametrize("text", [CRASH, "all is well\n"], ids=["with-an-error", "without"])
def test_an_engine_that_died_says_why(
    tmp_path: Path,
    engine: FakeServer,
    prompts: Prompts,
    process: subprocess.Popen[bytes],
    when: str,
    text: str,
) -> None:
    log = tmp_path / "engine-0.log"
    log.write_text(text)

    def die(_: dict[str, Any]) -> None:
        process.kill()
        process.wait()
        raise ConnectionAbortedError

    url = engine.url if when == "during-the-request" else "http://127.0.0.1:9"
    stack = Stack(record(tmp_path, engines=[engine_of(process, url, log)]))
    engine.on_post = die
    if when == "before-the-request":
        process.kill()
        process.wait()
    why = "ValueError: No available memory for the cache blocks." if text == CRASH else "its log names no error"
    ended = f"engine engine-0 ended during the run: {why}"
    with pytest.raises((NoAnswer, SubjectGone)) as raised:
        stack.complete(prompts.of_length(50))
    behind = stack.health.explain(raised.value) if isinstance(raised.value, NoAnswer) else raised.value
    assert behind is not None
    assert str(behind).startswith(f"{ended}; therefore not judged")
    assert [one.text for one in stack.context.incidents.of("ACT-04")] == [
        f"expected every process to run until the end of the run, got {ended}"
    ]
    begin = time.monotonic()
    with pytest.raises(SubjectGone, match="ended during the run"):
        stack.health.check_serving()
    assert time.monotonic() - begin < 1.0


def test_processes_that_a_run_has_ended_itself_are_not_dead(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    log = tmp_path / "engine-0.log"
    log.write_text(CRASH)
    stack = Stack(record(tmp_path, engines=[engine_of(process, "http://127.0.0.1:9", log)]))
    stack.health.ended = True
    process.kill()
    process.wait()
    assert stack.health.explain(AssertionError("expected no shared memory left")) is None
    assert not stack.health.gone()
    assert not stack.context.incidents.found


def test_an_engine_that_lives_is_not_called_dead(
    tmp_path: Path, engine: FakeServer, prompts: Prompts, process: subprocess.Popen[bytes]
) -> None:
    engine.answer = (503, {})
    stack = Stack(record(tmp_path, engines=[engine_of(process, engine.url, None)]))
    with pytest.raises(SubjectFault, match="got 503"):
        stack.complete(prompts.of_length(50))
    assert stack.engine.pid == process.pid


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (
            ("--kv-transfer-config", '{"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both"}'),
            "LMCacheMPConnector",
        ),
        (("vllm", "serve"), None),
    ],
    ids=["connector", "none"],
)
def test_the_connector_of_a_command_line(tmp_path: Path, argv: tuple[str, ...], found: str | None) -> None:
    stack = Stack(record(tmp_path, engines=[EngineServer(name="engine-0", url="http://127.0.0.1:9", argv=argv)]))
    connector = stack.engine.connector()
    assert (connector.name if connector else None) == found


def test_a_connector_that_is_no_json_is_a_fault_and_no_command_line_is_not_judged(tmp_path: Path) -> None:
    server = EngineServer(name="engine-0", url="http://127.0.0.1:9", argv=("--kv-transfer-config", "{"))
    with pytest.raises(SubjectFault, match="engine engine-0: --kv-transfer-config is not JSON"):
        Stack(record(tmp_path, engines=[server])).engine.connector()
    with pytest.raises(NotJudged, match="command line of engine engine-0 is not known"):
        Stack(record(tmp_path)).engine.connector()


# --- the cache behind it ----------------------------------------------------------------------------------------------


def test_the_caches_own_counters_are_deltas_of_this_exchange(
    tmp_path: Path, engine: FakeServer, cache: FakeServer, prompts: Prompts
) -> None:
    cache.cache["l1_write_chunks_total"] = 100
    stack = with_cache(tmp_path, engine, cache)

    def store(payload: dict[str, Any]) -> None:
        engine.count(payload)
        threading.Timer(0.1, cache.cache.__setitem__, ["l1_write_chunks_total", 103]).start()

    engine.on_post = store
    asked = stack.complete(Prompts(1, "s", 64, 4000).unique(chunks=3))
    assert stack.accounting.stored_tokens(asked) == 3 * 64, "chunks of the size that the server says it has"


def test_a_cache_that_restarted_is_told(
    tmp_path: Path, engine: FakeServer, cache: FakeServer, prompts: Prompts
) -> None:
    cache.cache["l1_write_chunks_total"] = 100
    stack = with_cache(tmp_path, engine, cache)
    asked = stack.complete(prompts.of_length(50))
    cache.cache["l1_write_chunks_total"] = 2
    with pytest.raises(
        SubjectGone, match="the cache behind engine engine-0 restarted during the run: stored_tokens was 6400"
    ):
        stack.accounting.cache_delta(asked)


@pytest.mark.parametrize(
    ("argv", "kind", "words"),
    [
        ((), NotJudged, "the command line of engine engine-0 is not known"),
        (("vllm",), SubjectFault, "the engine runs without a KV connector"),
        (
            ("--kv-transfer-config", '{"kv_connector": "LMCacheConnectorV1"}'),
            SubjectFault,
            "LMCache did not start in it, or PROMETHEUS_MULTIPROC_DIR",
        ),
        (("--kv-transfer-config", '{"kv_connector": "LMCacheMPConnector"}'), NotJudged, "cache server .* is not known"),
    ],
    ids=["unknown", "no-connector", "in-process", "multi-process"],
)
def test_a_cache_that_counts_nothing(
    tmp_path: Path,
    engine: FakeServer,
    prompts: Prompts,
    argv: tuple[str, ...],
    kind: type[BaseException],
    words: str,
) -> None:
    """The request itself is observed all the same: only the test that asks for these counters fails."""
    stack = Stack(record(tmp_path, engines=[EngineServer(name="engine-0", url=engine.url, argv=argv)]))
    with pytest.raises(kind, match=words):
        stack.cache.counters()
    asked = stack.complete(prompts.of_length(50))
    assert asked.sources.computed == 50
    with pytest.raises(kind, match=words):
        stack.accounting.cache_delta(asked)


def test_pins_that_nothing_counts_are_not_judged_and_the_missing_counters_have_their_owner(
    tmp_path: Path, engine: FakeServer
) -> None:
    stack = Stack(record(tmp_path, engines=[EngineServer(name="engine-0", url=engine.url, argv=("vllm",))]))
    with pytest.raises(NotJudged, match="no cache exposes the number of pinned objects"):
        stack.cache.pinned_when_idle()
    (incident,) = stack.context.incidents.found
    assert incident.owner == "ACC-07"
    assert "runs without a KV connector" in incident.text


def test_the_configuration_in_effect_is_the_servers_own(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    stack = with_cache(tmp_path, engine, cache, kv_bytes_per_token=4096, requested=RequestedConfig(chunk_tokens=256))
    assert (stack.effective_config.buffer_bytes, stack.effective_config.chunk_tokens) == (GIB, 64)
    assert stack.chunk_tokens == 64
    assert stack.tier.tokens() == stack.tier.capacity_tokens() == GIB // 4096


def test_what_counts_is_the_last_start_in_a_log(tmp_path: Path) -> None:
    """A log that every start is appended to (``tee -a``, systemd) begins with one of long ago."""

    def life(connector: str, dtype: str, ranks: int) -> str:
        lines = (
            f"(APIServer pid=1) INFO 11-25 04:31:01 [api_utils.py:325] {BANNER} version 0.32.0",
            f"(EngineCore pid=2) INFO 11-25 04:31:02 [core.py:64] Initializing a V1 LLM engine (v0.32.0) with config: "
            f"model='m', dtype=torch.{dtype}, tensor_parallel_size={ranks}",
            f"(EngineCore pid=2) INFO 11-25 04:31:03 [factory.py:50] Creating v1 connector with name: {connector} and id: 1",
            *(
                f"[2026-11-25 04:31:04,1] LMCache INFO: LMCache initialized for role KVConnectorRole.WORKER with "
                f"version 0.5.6, metadata: LMCacheMetadata(world_size={ranks}, worker_id={rank})"
                for rank in range(ranks)
            ),
        )
        return "".join(f"{line}\n" for line in lines)

    log = tmp_path / "engine-0.log"
    statistics = "(APIServer pid=1) INFO 11-25 04:31:13 [loggers.py:127] Engine 000: Running: 0 reqs\n" * 30_000
    log.write_text(life("LMCacheConnectorV1", "float16", 4) + statistics)
    servers = [EngineServer(name="engine-0", url="http://127.0.0.1:9", log=log)]
    stack = Stack(record(tmp_path, engines=servers))
    assert (stack.engine.start.created, stack.kv_shape(stack.engine).ranks) == ("LMCacheConnectorV1", 4)
    with log.open("a") as file:
        file.write(life("OffloadingConnector", "bfloat16", 2))
    stack = Stack(record(tmp_path, engines=servers))
    assert (stack.engine.start.created, stack.engine.start.dtype) == ("OffloadingConnector", "bfloat16")
    assert stack.kv_shape(stack.engine).ranks == 2
    log.write_text(statistics)
    assert Stack(record(tmp_path, engines=servers)).engine.start.created is None, "rotated: its start is gone"


BANNER = "\u2588 \u2588"
CONFIGURATION = (
    "[2026-11-25 04:25:21,672] LMCache INFO: Creating LMCacheEngine with config: "
    "{'chunk_size': 128, 'max_local_cpu_size': 2.5} (cache_engine.py:1:x)\n"
)


def test_the_configuration_of_an_in_process_cache_is_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "engine-0.log"
    stack = Stack(record(tmp_path, engines=[EngineServer(name="engine-0", url="http://127.0.0.1:9", log=log)]))
    log.write_text(CONFIGURATION)
    assert (stack.effective_config.buffer_bytes, stack.effective_config.chunk_tokens) == (int(2.5 * GIB), 128)


def test_where_no_program_says_the_chunk_it_is_the_one_asked_for(tmp_path: Path) -> None:
    stack = Stack(record(tmp_path, requested=RequestedConfig(chunk_tokens=512)))
    assert stack.chunk_tokens == 512
    assert stack.tier.tokens() is None
    with pytest.raises(NotJudged, match="no LMCache on this stack reports"):
        _ = stack.effective_config
    with pytest.raises(NotJudged, match="size of the CPU tier"):
        stack.tier.capacity_tokens()


def test_a_chunk_that_nothing_says_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(NotJudged, match="command line of engine engine-0 is not known"):
        _ = Stack(record(tmp_path)).chunk_tokens


@pytest.mark.parametrize(
    ("info", "pool"),
    [
        ({"block_size": "16", "num_gpu_blocks": "100"}, 1600),
        ({"block_size": "16", "num_gpu_blocks": "100", "kv_cache_size_tokens": "1584"}, 1584),
        ({}, 524_288),
    ],
    ids=["blocks", "tokens", "log"],
)
def test_the_pool_in_tokens(tmp_path: Path, engine: FakeServer, info: dict[str, str], pool: int) -> None:
    log = tmp_path / "engine-0.log"
    log.write_text("(EngineCore pid=1) INFO 11-25 04:31:03 [kv.py:1] CPU KV cache size: 524,288 tokens\n")
    engine.info = info
    stack = Stack(record(tmp_path, engines=[EngineServer(name="engine-0", url=engine.url, log=log)]))
    assert stack.pool_tokens == pool
    assert stack.gpu_prefix_cache, "where it does not say, a GPU copy may be there"


def test_an_engine_may_be_told_to_give_its_usage_always(tmp_path: Path) -> None:
    for argv, always in (((), False), (("vllm", "serve"), False), (("vllm", "--enable_force_include_usage"), True)):
        engines = [EngineServer(name="engine-0", url="http://127.0.0.1:9", argv=argv)]
        assert Stack(record(tmp_path, engines=engines)).engine.always_gives_usage is always


@pytest.mark.parametrize(("server", "evicting"), [(None, 1600), ("kv", 3200)], ids=["in-process", "cache-server"])
def test_a_data_parallel_engine_is_asked_and_judged_by_its_first_rank(
    tmp_path: Path, engine: FakeServer, cache: FakeServer, server: str | None, evicting: int
) -> None:
    """vLLM gives its ranks requests in turn; each has a pool, and in process a tier, of its own."""
    info = 'vllm:cache_config_info{block_size="16",engine="%d",num_gpu_blocks="100"} 1.0\n'
    engine.page = info % 0 + info % 1
    engines = [EngineServer(name="engine-0", url=engine.url, argv=("vllm", "serve"), cache_server=server)]
    stack = Stack(record(tmp_path, engines=engines, cache_servers=[Server(name="kv", url=cache.url)]))
    assert stack.engine.client.headers["X-data-parallel-rank"] == "0"
    assert stack.pool_tokens == 1600
    assert stack.tier.pool_tokens() == evicting


def test_a_pool_of_unknown_size_is_not_judged(tmp_path: Path, engine: FakeServer) -> None:
    engine.info = {}
    with pytest.raises(NotJudged, match="size of the KV pool"):
        _ = Stack(record(tmp_path, engine.url)).pool_tokens


def test_the_context_length_is_that_of_our_model(tmp_path: Path, engine: FakeServer) -> None:
    engine.models = [{"id": "other", "max_model_len": 7}, {"id": MODEL, "max_model_len": 4096}]
    assert Stack(record(tmp_path, engine.url)).max_model_len == 4096
    engine.models = [{"id": "other", "max_model_len": 7}, {"id": MODEL}]
    with pytest.raises(SubjectFault, match="expected max_model_len of tiny"):
        _ = Stack(record(tmp_path, engine.url)).max_model_len


def test_the_gpu_copy_is_dropped_once_at_a_time(tmp_path: Path, engine: FakeServer) -> None:
    stack, titles = Stack(record(tmp_path, engine.url)), []

    def step(title: str) -> contextlib.AbstractContextManager[None]:
        titles.append(title)
        return contextlib.nullcontext()

    stack.context.step = step
    assert stack.clear_prefix_cache() == "reset"
    assert titles == ["clear the GPU prefix cache of engine-0"]
    engine.info["enable_prefix_caching"] = "False"
    assert Stack(record(tmp_path, engine.url)).clear_prefix_cache() == "nothing to drop"


def test_rest_is_waited_for(tmp_path: Path, engine: FakeServer) -> None:
    stack = Stack(record(tmp_path, engine.url))
    engine.running, engine.usage = 1, 0.5
    threading.Timer(0.1, setattr, [engine, "running", 0]).start()
    threading.Timer(0.2, setattr, [engine, "usage", 0.0]).start()
    assert (stack.traffic.wait_until_idle().running, stack.traffic.wait_until_idle().kv_usage) == (0, 0)
    stack.context.deadlines = Deadlines(drained_s=0.1)
    engine.usage = 0.25
    assert stack.traffic.wait_until_idle().kv_usage == 0.25, "a block that stays held is shown, for the test to judge"


def test_hanging_up_counts_those_that_were_left_without_an_answer(
    tmp_path: Path, engine: FakeServer, prompts: Prompts
) -> None:
    engine.on_post = lambda _: time.sleep(0.5)
    abandoned = abort_requests(Stack(record(tmp_path, engine.url)), [prompts.of_length(20) for _ in range(4)])
    assert abandoned == 4
    assert {payload["stream"] for payload in engine.posts} == {False, True}


def test_a_tier_that_never_evicts_was_never_full(
    tmp_path: Path, engine: FakeServer, cache: FakeServer, prompts: Prompts
) -> None:
    stack = with_cache(tmp_path, engine, cache, kv_bytes_per_token=GIB // 1000)
    with pytest.raises(
        NotJudged, match=r"2048 tokens were sent to a tier of 1000 tokens, and its own counters show no eviction"
    ):
        fill_tier(stack, prompts)
    cache.cache["l1_evicted_chunks_total"] = 1
    engine.on_post = lambda payload: (engine.count(payload), cache.cache.update(l1_evicted_chunks_total=2))[0]
    assert fill_tier(stack, prompts) == 8 * 256
    engine.info["num_gpu_blocks"] = "200"
    larger = with_cache(tmp_path, engine, cache, kv_bytes_per_token=GIB // 1000)
    engine.on_post = lambda payload: (
        engine.count(payload),
        cache.cache.update(l1_evicted_chunks_total=1 + len(engine.posts)),
    )[0]
    assert fill_tier(larger, prompts) == 2 * 8 * 256, "until the pool of 3200 tokens was used, too"


def test_clients_that_are_refused_have_abandoned_nothing(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    stack = Stack(record(tmp_path, engine.url))
    engine.answer = (400, {"error": {"message": "no"}})
    asked = [prompts.of_length(20) for _ in range(4)]
    with pytest.raises(SubjectFault, match="got 400"):
        abort_requests(stack, asked)
    engine.answer = (200, {"id": "cmpl-1", "choices": [{"text": "a"}]})
    with pytest.raises(NotJudged, match=r"of 4 requests were aborted before they were answered"):
        abort_requests(stack, asked, at_least=4)


@pytest.mark.parametrize(("most", "given"), [(20, 5), (3, 1), (0, None)])
def test_log_probabilities_are_asked_for_until_some_are_given(
    tmp_path: Path, engine: FakeServer, most: int, given: int | None
) -> None:
    def answer(payload: dict[str, Any]) -> None:
        if payload.get("logprobs", 0) > most:
            engine.answer = (400, {"error": {"message": f"logprobs are more than {most}"}})
        else:
            engine.answer = (200, {"id": "cmpl-1", "choices": [{"text": "a"}]})
            engine.count(payload)

    engine.on_post = answer
    assert Stack(record(tmp_path, engine.url)).accepted_logprobs((5, 1)) == given


# --- what the tier has to hold ----------------------------------------------------------------------------------------


def tier_of(folder: Path, engine: FakeServer, cache: FakeServer, tokens: int, **fields: Any) -> Stack:
    """A stack whose tier holds so many tokens, and stores what it is sent."""
    stack = with_cache(folder, engine, cache, kv_bytes_per_token=GIB // tokens, **fields)

    def store(payload: dict[str, Any]) -> None:
        engine.count(payload)
        cache.cache["l1_write_chunks_total"] += len(payload["prompt"]) // 64

    engine.on_post = store
    return stack


SHORT = TokenSources(65, 0, 64)


def test_what_was_stored_and_not_evicted_has_to_come_back(
    tmp_path: Path, engine: FakeServer, cache: FakeServer
) -> None:
    stack, source = tier_of(tmp_path, engine, cache, 2000), Prompts(1, "kept", 64, 4000)
    prompt, other = source.of_length(129), source.of_length(129)
    stack.complete(prompt)
    stack.tier.expect_kept([prompt], TokenSources(1, 0, 128))
    stack.tier.expect_kept([prompt], TokenSources(1, 64, 64))
    stack.tier.expect_kept([other], TokenSources(129, 0, 0))
    assert not stack.context.incidents.found, "all of it came, or it was never sent"
    stack.tier.expect_kept([prompt], SHORT)
    (incident,) = stack.context.incidents.of("ACC-02")
    assert "expected 128 tokens of prompt-1 (129 tokens) from the tier" in incident.text
    assert "got 65 computed + 0 GPU hit + 64 loaded" in incident.text


@pytest.mark.parametrize("policy", ["LRU", "MRU"])
def test_what_may_have_been_evicted_need_not_come_back(
    tmp_path: Path, engine: FakeServer, cache: FakeServer, policy: str
) -> None:
    stack, source = tier_of(tmp_path, engine, cache, 2000), Prompts(1, "kept", 64, 4000)
    stack.cache_servers[0].server.argv = ("lmcache", "server", "--eviction-policy", policy)
    old, new = source.of_length(129), source.of_length(129)
    stack.complete(old)
    for _ in range(14):
        stack.complete(source.of_length(65))
    stack.complete(new)
    assert not stack.tier.holds(old), "more than half of the tier was sent since"
    assert stack.tier.holds(new) == (policy == "LRU"), "the newest is what is evicted first by another policy"


def test_the_policy_of_a_cache_server_is_what_it_says_itself(
    tmp_path: Path, engine: FakeServer, cache: FakeServer
) -> None:
    def policy(status: Any, *argv: str) -> tuple[str, bool]:
        cache.status = status
        stack = with_cache(tmp_path, engine, cache)
        stack.cache_servers[0].server.argv = ("lmcache", "server", *argv)
        return stack.tier.eviction_policy, stack.tier.evicts_by_age

    said = {"storage_manager": {"l1_eviction_controller": {"eviction_policy": "ARC"}}}
    assert policy(said, "--eviction-policy", "LRU") == ("ARC", False)
    assert policy(None, "--eviction-policy", "IsolatedLRU") == ("ISOLATEDLRU", True)
    managers: list[Any] = [None, {}, {"l1_eviction_controller": []}]
    for manager in managers:
        assert policy({"storage_manager": manager}) == ("LRU", True)
    assert policy(None) == ("LRU", True)


def test_the_policy_of_a_tier_in_process_is_that_of_its_configuration_line(tmp_path: Path) -> None:
    log = tmp_path / "engine-0.log"

    def policy(line: str, **fields: Any) -> str:
        log.write_text(line)
        one = EngineServer(name="engine-0", url="http://127.0.0.1:9", log=log, **fields)
        return Stack(record(tmp_path, engines=[one])).tier.eviction_policy

    says = "LMCache INFO: LMCache Configuration: {'chunk_size': 256, 'cache_policy': 'fifo'} (config.py:1:lmcache)\n"
    assert policy(says, env={"LMCACHE_CACHE_POLICY": "LFU"}) == "FIFO"
    assert policy("", env={"LMCACHE_CACHE_POLICY": "lfu"}) == "LFU"
    native = '{"kv_connector":"OffloadingConnector","kv_role":"kv_both","kv_connector_extra_config":{"eviction_policy":"arc"}}'
    assert policy("", argv=("vllm", "serve", "m", "--kv-transfer-config", native)) == "ARC"
    assert policy("", argv=("vllm", "serve", "m")) == "LRU"


def test_nothing_is_claimed_of_a_tier_that_others_use_or_that_was_restarted(
    tmp_path: Path, engine: FakeServer, cache: FakeServer
) -> None:
    stack, source = tier_of(tmp_path, engine, cache, 2000), Prompts(1, "kept", 64, 4000)
    prompt = source.of_length(129)
    stack.complete(prompt)
    assert stack.tier.holds(prompt)
    cache.cache["l1_write_chunks_total"] += 16
    assert not stack.tier.holds(prompt), "another client has stored 1024 tokens"
    cache.cache["l1_write_chunks_total"] = 0
    assert not stack.tier.holds(prompt), "the server has begun again"
    stack.complete(prompt)
    assert stack.tier.holds(prompt)
    stack.tier.forget()
    assert not stack.tier.holds(prompt), "the suite has cleared it"
    stack.complete(prompt)
    assert stack.tier.holds(prompt)
    cache.cache = {}
    assert not stack.tier.holds(prompt)


def test_nothing_is_claimed_of_a_tier_whose_size_is_not_known(
    tmp_path: Path, engine: FakeServer, cache: FakeServer
) -> None:
    stack, source = with_cache(tmp_path, engine, cache), Prompts(1, "kept", 64, 4000)
    prompt = source.of_length(129)
    stack.complete(prompt)
    assert not stack.tier.holds(prompt)


# --- the machine ------------------------------------------------------------------------------------------------------


def test_the_link_is_measured_where_the_engine_runs_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixtures.instruments.bounds.host_copy_bytes_per_s", lambda: 5e9)
    assert Stack(record(tmp_path, link_bytes_per_s=3e9)).link_bytes_per_s == 3e9
    here = EngineServer(name="engine-0", url="http://127.0.0.1:9", process=ProcessRef.of(os.getpid()))
    assert Stack(record(tmp_path, engines=[here])).link_bytes_per_s == 5e9
    for elsewhere in (record(tmp_path), record(tmp_path, engines=[here], device="cuda")):
        with pytest.raises(NotJudged, match="between host and GPU cannot be measured"):
            _ = Stack(elsewhere).link_bytes_per_s


class FakeAccess:
    """The way to pods in which a script prints what is chosen here."""

    api_key = None

    def __init__(self, python: Callable[..., str]) -> None:
        self.python = python

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.mark.parametrize(
    ("device", "workers", "out", "expected"),
    [("cuda", 1, "2.5e10\n", 2.5e10), ("cuda", 4, "warning\n2.5e10\n", 1e11), ("cpu", 4, "1e10", 1e10)],
)
def test_in_a_pod_a_script_measures_it(tmp_path: Path, device: str, workers: int, out: str, expected: float) -> None:
    access: Any = FakeAccess(lambda *_, **__: out)
    stack = Stack(record(tmp_path, device=device, requested=RequestedConfig(workers=workers)), access)
    assert stack.link_bytes_per_s == expected


def test_a_pod_in_which_no_script_runs_has_no_link(tmp_path: Path) -> None:
    def python(*_: Any, **__: Any) -> str:
        raise StackError("no module named torch")

    access: Any = FakeAccess(python)
    stack = Stack(record(tmp_path, device="cuda"), access)
    with pytest.raises(NotJudged, match=r"could not be measured in the pod .* no module named torch"):
        _ = stack.link_bytes_per_s
    assert stack.load_per_core() is None


def test_the_load_of_this_machine_is_a_number(tmp_path: Path) -> None:
    here = EngineServer(name="engine-0", url="http://127.0.0.1:9", process=ProcessRef.of(os.getpid()))
    load = Stack(record(tmp_path, engines=[here])).load_per_core()
    assert load is not None
    assert load > 0
    assert Stack(record(tmp_path)).load_per_core() is None


# --- names and memory -------------------------------------------------------------------------------------------------


def environment(folder: Path, known: tuple[str, ...] | None, **env: str) -> Stack:
    server = EngineServer(name="engine-0", url="http://127.0.0.1:9", env=env)
    return Stack(record(folder, engines=[server], lmcache_names=known))


KNOWN = ("LMCACHE_CHUNK_SIZE", "LMCACHE_LOCAL_CPU", "LMCACHE_MAX_LOCAL_CPU_SIZE")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("LMCACHE_CHUNK_SIZE", []),
        ("LMCACHE_USE_EXPERIMENTAL", []),
        ("VLLM_SERVER_DEV_MODE", []),
        (
            "LMCACHE_MAX_LOCAL_CPUSIZE",
            ["LMCACHE_MAX_LOCAL_CPUSIZE on engine-0 (did you mean LMCACHE_MAX_LOCAL_CPU_SIZE?)"],
        ),
        ("LMCACHE_CHUNKSIZE", ["LMCACHE_CHUNKSIZE on engine-0 (did you mean LMCACHE_CHUNK_SIZE?)"]),
        ("LM_CACHE_ZZZZZZZZZZZZZZ", ["LM_CACHE_ZZZZZZZZZZZZZZ on engine-0"]),
    ],
    ids=["known", "retired", "of-vllm", "misspelt", "run-together", "nothing-like-it"],
)
def test_names_that_the_installed_lmcache_does_not_read(tmp_path: Path, name: str, found: list[str]) -> None:
    assert environment(tmp_path, KNOWN, **{name: "1"}).unknown_lmcache_names() == found


def test_names_are_not_judged_where_nobody_knows_them(tmp_path: Path) -> None:
    with pytest.raises(NotJudged, match="cannot determine"):
        environment(tmp_path, None, LMCACHE_X="1").unknown_lmcache_names()


def test_names_of_cache_servers_count_too(tmp_path: Path) -> None:
    servers = [Server(name="kv", url="http://127.0.0.1:9", env={"LMCACHE_CHUNKSIZE": "1"})]
    stack = Stack(record(tmp_path, cache_servers=servers, lmcache_names=KNOWN))
    assert stack.unknown_lmcache_names() == ["LMCACHE_CHUNKSIZE on kv (did you mean LMCACHE_CHUNK_SIZE?)"]


def budget_of(
    folder: Path,
    *,
    engines: int = 1,
    workers: int = 1,
    limit: int | None = None,
    device: str = "cuda",
    of_server: int | None = None,
) -> Any:
    log = folder / "engine-0.log"
    log.write_text(CONFIGURATION)  # 2.5 GiB
    servers = [
        EngineServer(
            name=f"engine-{number}", url="http://127.0.0.1:9", log=log, resident_at_ready_bytes=(3 + number) * GIB
        )
        for number in range(engines)
    ]
    requested = RequestedConfig(workers=workers, memory_limit_bytes=limit, cache_server_limit_bytes=of_server)
    return Stack(record(folder, engines=servers, requested=requested, device=device)).memory_budgets()


@pytest.mark.parametrize(
    ("asked", "needed"),
    [
        ({"limit": 32 * GIB}, 1 * 2.5 * 1.07 + 8),
        ({"limit": 32 * GIB, "workers": 4}, 4 * 2.5 * 1.07 + 8),
        ({"limit": 32 * GIB, "engines": 3}, 1 * 2.5 * 1.07 + 8),
        ({"engines": 3}, 3 * 2.5 * 1.07 + 3 * 8),
        ({"engines": 3, "workers": 2}, 6 * 2.5 * 1.07 + 3 * 8),
        ({"device": "cpu", "engines": 3}, 3 * 2.5 * 1.07 + 3 + 4 + 5),
        ({"device": "cpu", "engines": 3, "limit": 32 * GIB}, 1 * 2.5 * 1.07 + 5),
    ],
    ids=[
        "one",
        "workers",
        "limit-of-each-engine",
        "host-of-all",
        "host-workers",
        "cpu-host-of-all",
        "cpu-largest-engine",
    ],
)
def test_the_memory_budget_by_hand(tmp_path: Path, asked: dict[str, Any], needed: float) -> None:
    (budget,) = budget_of(tmp_path, **asked)
    assert budget.needed_bytes == pytest.approx(needed * GIB, abs=2)
    assert budget.limit_bytes == asked.get("limit", psutil.virtual_memory().total)
    assert ("memory limit of the values" in budget.limit_is) == ("limit" in asked)
    assert "2.5 GiB x 1.07" in budget.terms


def test_a_cache_server_with_a_limit_of_its_own_is_held_against_that(tmp_path: Path) -> None:
    engine, server = budget_of(tmp_path, limit=16 * GIB, of_server=4 * GIB)
    assert (engine.needed_bytes, engine.limit_bytes) == (8 * GIB, 16 * GIB)
    assert server.needed_bytes == pytest.approx((2.5 * 1.07 + 1.25) * GIB, abs=2)
    assert (server.limit_bytes, server.limit_is) == (4 * GIB, "the memory limit of the cache server")


@given(tokens=st.integers(0, 10**8), per_token=st.integers(1, 10**6))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_buffer_to_buy_holds_more_than_the_pool(tmp_path: Path, tokens: int, per_token: int) -> None:
    gib = Stack(record(tmp_path, kv_bytes_per_token=per_token)).tier.buffer_gib_for(tokens)
    assert gib == int(gib) >= 1
    assert int(gib) * GIB // per_token > tokens
    assert (gib - 1) * GIB // per_token <= tokens, "and no GiB more than that"


def test_the_bounds_of_host_memory(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    stack = with_cache(
        tmp_path, engine, cache, requested=RequestedConfig(connector={"kv_connector": "x"}), device="cuda"
    )
    stack.record.engines[0].resident_at_ready_bytes = 3 * GIB
    memory = HostMemory({}, samples=[(0.0, {"kv": 5, "engine-0": 7}), (1.0, {"kv": 6, "engine-0": 4})])
    bounds = {bound.name: (bound.peak_bytes, bound.limit_bytes) for bound in stack.host_memory_bounds(memory)}
    assert bounds == {"kv": (6, GIB + 5 * GIB // 4), "engine-0": (7, 4 * GIB)}
    stack.record.engines[0].cache_server = None
    assert stack.host_memory_bounds(memory)[1].limit_bytes == 4 * GIB, (
        "in-process: a pinned buffer is resident when ready"
    )
    stack.record.engines[0].resident_at_ready_bytes = GIB // 2
    assert stack.host_memory_bounds(memory)[1].limit_bytes == 5 * GIB // 2, "one that is taken page by page is not"
    stack.record.engines[0].resident_at_ready_bytes = 3 * GIB
    plain = Baseline(pool_tokens=1, prompt_tokens=1, cold_s=(1.0,), resident_bytes=5 * GIB // 2)
    stack.record.baseline, stack.record.device = plain, "cpu"
    assert stack.host_memory_bounds(memory)[1].limit_bytes == int(2.5 * GIB) + int(1.07 * GIB) + GIB
    stack.record.baseline = None
    stack.record.requested.connector = None
    assert stack.host_memory_bounds(memory)[1].limit_bytes == 4 * GIB, "no connector, no buffer"


@pytest.mark.parametrize(
    ("device", "settings", "workers", "limit"),
    [
        ("cuda", "", 1, 30 + 1),  # pinned whole at the start: it is in what the engine had taken when it was ready
        ("cuda", "", 2, 30 + 1),
        ("cuda", ", 'enable_lazy_memory_allocator': False", 1, 30 + 1),
        ("cuda", ", 'enable_lazy_memory_allocator': True", 1, 30 + 0.8 * 2.5 + 1),
        ("cuda", ", 'enable_lazy_memory_allocator': True, 'lazy_memory_initial_ratio': 0.5", 2, 30 + 2.5 + 1),
        ("cpu", "", 1, 30 + 2.5 + 1),
        ("cpu", "", 2, 30 + 5 + 1),
    ],
)
def test_a_pinned_buffer_counts_once(tmp_path: Path, device: str, settings: str, workers: int, limit: float) -> None:
    log = tmp_path / "engine-0.log"
    log.write_text(CONFIGURATION.replace("}", settings + "}"))
    server = EngineServer(name="engine-0", url="http://127.0.0.1:9", log=log, resident_at_ready_bytes=30 * GIB)
    asked = RequestedConfig(connector={"kv_connector": "LMCacheConnectorV1"}, workers=workers)
    stack = Stack(record(tmp_path, engines=[server], requested=asked, device=device))
    memory = HostMemory({}, samples=[(0.0, {"engine-0": 7})])
    assert stack.host_memory_bounds(memory)[0].limit_bytes == pytest.approx(limit * GIB, abs=2)


def test_memory_of_other_machines_is_not_judged(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    with pytest.raises(NotJudged, match="do not run on this machine"):
        process_trees(record(tmp_path).servers)
    trees = process_trees([engine_of(process, "http://127.0.0.1:9", None)])
    assert [one.pid for one in trees["engine-0"]()] == [process.pid]


# --- logs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["WARNING", "warn", "Error", "CRITICAL"])
def test_a_level_that_hides_the_proof_is_not_judged(tmp_path: Path, level: str) -> None:
    stack = environment(tmp_path, None, LMCACHE_LOG_LEVEL=level)
    stack.engine.log = LogFile(tmp_path / "engine-0.log")
    with pytest.raises(NotJudged, match=f"LMCACHE_LOG_LEVEL={level.upper()} on engine-0 hides"):
        stack.logs.require_info_level()
    with pytest.raises(NotJudged, match="hides"):
        stack.logs.offload_announced(stack.engine)


@pytest.mark.parametrize("env", [{}, {"LMCACHE_LOG_LEVEL": "INFO"}, {"LMCACHE_LOG_LEVEL": "debug"}], ids=str)
def test_a_level_that_shows_the_proof_is_judged(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = environment(tmp_path, None, **env)
    with pytest.raises(NotJudged, match="no access to its logs"):
        stack.logs.require_info_level()
    log = tmp_path / "engine-0.log"
    stack.engine.log = LogFile(log)
    stack.logs.require_info_level()
    assert not stack.logs.offload_announced(stack.engine), "a log that may speak and does not: nothing was initialised"
    log.write_text(
        "[2026-11-25 04:25:21,672] LMCache INFO: LMCache initialized for role KVConnectorRole.WORKER (a.py:1:b)\n"
    )
    assert stack.logs.offload_announced(stack.engine)
    monkeypatch.setattr(LogFile, "text", lambda *_: pytest.fail("a log of megabytes was read again for one request"))
    stack.logs.require_info_level()
    assert stack.logs.offload_announced(stack.engine)


NOISE = '(APIServer pid=5) INFO:     127.0.0.1:5 - "GET /metrics HTTP/1.1" 200 OK\n'
KEPT = '(APIServer pid=5) INFO:     127.0.0.1:5 - "POST /v1/completions HTTP/1.1" 200 OK'


def test_an_excerpt_drops_the_noise_of_this_suites_own_polls(
    tmp_path: Path, engine: FakeServer, cache: FakeServer
) -> None:
    stack = with_cache(tmp_path, engine, cache)
    (tmp_path / "engine-0.log").write_text("before\n")
    positions = stack.logs.positions()
    assert positions == {"engine-0": 7, "kv": 0}, "a log that is not there yet begins at 0"
    with (tmp_path / "engine-0.log").open("a") as file:
        file.write(NOISE * 300 + f"\n\x1b[32mfirst\x1b[0m\n{NOISE}{KEPT}\n" + NOISE * 300)
    (tmp_path / "kv.log").write_text("stored\n")
    assert stack.logs.since(positions) == f"== engine-0\nfirst\n{KEPT}\n== kv\nstored"
    assert stack.logs.since(positions, lines=1) == f"== engine-0\n{KEPT}\n== kv\nstored"
    (tmp_path / "kv.log").write_text(NOISE)
    assert "== kv" not in stack.logs.since(positions), "a log with nothing to say has no headline"


def test_a_log_window_begins_just_before_the_request(
    tmp_path: Path, engine: FakeServer, cache: FakeServer, prompts: Prompts
) -> None:
    stack = with_cache(tmp_path, engine, cache)
    line = "[2026-11-25 04:31:45,869] LMCache INFO: Stored 64 tokens in 0.017 seconds (x.py:1:y)\n"
    (tmp_path / "kv.log").write_text(line)

    def store(payload: dict[str, Any]) -> None:
        with (tmp_path / "kv.log").open("a") as file:
            file.write(line * 2)
        engine.count(payload)

    engine.on_post = store
    asked = stack.complete(prompts.of_length(50))
    assert asked.stored_in(stack.accounting.log_of(asked).facts()) == 128


@given(text=st.text(alphabet="ab\u00e9\u4f60\n", max_size=30), more=st.text(alphabet="ab\u00e9\u4f60\n", max_size=30))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_log_is_read_from_where_it_ended(tmp_path: Path, text: str, more: str) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(text.encode())
    log = LogFile(path)
    position = log.position()
    path.write_bytes((text + more).encode())
    assert (log.text(position), log.text()) == (more, text + more)
    path.unlink()
    assert (log.position(), log.text(), log.text(5)) == (0, "", "")


def test_findings_are_those_of_every_log(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    stack = with_cache(tmp_path, engine, cache)
    failed = "[2026-11-25 04:31:45,869] LMCache ERROR: Some keys not found during retrieve! (x.py:1:y)\n"
    (tmp_path / "engine-0.log").write_text("fine\n")
    (tmp_path / "kv.log").write_text(failed)
    assert [found.signature.id for found in stack.logs.findings("run")] == ["mp-keys-missing"]
    assert stack.logs.findings("init") == []
    assert os.fspath(tmp_path) not in str(stack.logs.findings("run")[0])


def test_counters_for_people_leave_out_what_is_absent(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    found = with_cache(tmp_path, engine, cache).cache.snapshot()
    assert found["engine-0"]["computed"] == 0
    assert "preemptions" not in found["engine-0"]
    assert found["cache"]["flavour"] == "multi-process"
    json.dumps(found)
    assert Stack(record(tmp_path)).cache.snapshot() == {}, "a stack that is gone has none, and that is no error here"


def test_watched_metrics_that_are_missing_are_named(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    stack = with_cache(tmp_path, engine, cache)
    missing = stack.cache.missing_metrics("engine")
    assert "vllm:time_to_first_token_seconds_sum" in missing
    assert "vllm:request_success_total" not in missing
    missing = stack.cache.missing_metrics("cache")
    assert "lmcache_mp_l1_usage_ratio" in missing
    assert "lmcache_mp_l1_write_chunks_total" not in missing
    engine.page = 'vllm:prompt_tokens_total{engine="0"} 0.0\nvllm:generation_tokens_total{engine="0"} 0.0\n'
    with pytest.raises(NotJudged, match=r"has served no request since it started, .*vllm:num_requests_running"):
        stack.cache.missing_metrics("engine")


# --- what else the counters may include ---------------------------------------------------------------------------------


@pytest.mark.parametrize("busy", [True, False], ids=["others-use-it", "nobody-else-does"])
def test_a_cache_that_counts_too_much_is_watched_for_others(
    tmp_path: Path, engine: FakeServer, cache: FakeServer, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    monkeypatch.setattr("fixtures.subject.cache_counters.WATCHED_S", 0.3)

    def store(payload: dict[str, Any]) -> None:
        engine.count(payload)
        cache.cache["l1_write_chunks_total"] += 9

    engine.on_post = store
    stack = with_cache(tmp_path, engine, cache)
    asked = stack.complete(Prompts(1, "x", 64, 4000).of_length(65))
    if not busy:
        assert stack.accounting.stored_tokens(asked) == 9 * 64, "a fault of its own stays one"
        return
    timer = threading.Timer(0.1, lambda: cache.cache.update(lookup_requested_tokens_total=500))
    timer.start()
    with pytest.raises(NotJudged, match="the cache counted 576 tokens, but this request accounts for only 64"):
        _ = stack.accounting.stored_tokens(asked)
    timer.join()


@pytest.mark.parametrize("size", [16, 300, 5000, 30999, 151936])
def test_the_vocabulary_is_found_by_asking(tmp_path: Path, engine: FakeServer, size: int) -> None:
    def only_known(payload: dict[str, Any]) -> None:
        known = max(payload["prompt"]) < size
        engine.answer = (200, {}) if known else (400, {"error": {"message": "Token id 9 is out of vocabulary"}})

    engine.on_post = only_known
    found = Stack(record(tmp_path, engine.url)).vocabulary
    assert 0 < found.first < found.end <= size
    assert found == Vocabulary.of_size(min(size, 31000) if size < 31000 else size)
    assert len(engine.posts) <= 17


def test_the_vocabulary_of_a_model_at_hand_is_read(tmp_path: Path, engine: FakeServer) -> None:
    (tmp_path / "config.json").write_text('{"text_config": {"vocab_size": 512, "bos_token_id": 3}}')
    found = Stack(record(tmp_path, engine.url, model_folder=tmp_path)).vocabulary
    assert (found.bos, found.first, found.end) == (3, 128, 496)
    assert engine.posts == []


# --- one log, read once -----------------------------------------------------------------------------------------------

STORED_64 = "[2026-11-25 04:31:45,869] LMCache INFO: Stored 64 tokens in 0.017 seconds (x.py:1:y)\n"


def test_a_log_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "x.log", []
    path.write_text(STORED_64 * 1000)
    log = LogFile(path)
    real = LogReader.feed
    monkeypatch.setattr(LogReader, "feed", lambda self, data: (read.append(len(data)), real(self, data))[1])
    assert len(log.facts().stored) == 1000
    mark = log.position()
    with path.open("a") as file:
        file.write(STORED_64)
    assert len(log.facts(mark).stored) == 1
    assert len(log.facts().stored) == 1001
    assert read == [len(STORED_64) * 1000, len(STORED_64)]


@pytest.mark.parametrize("how", ["truncated", "replaced", "truncated-and-longer"])
def test_a_log_that_is_rotated_loses_nothing_that_was_read(tmp_path: Path, how: str) -> None:
    path = tmp_path / "x.log"
    path.write_text("begin\n" + STORED_64 * 3)
    log = LogFile(path)
    assert log.facts().stored_tokens() == 192
    mark = log.position()
    if how == "replaced":
        path.rename(tmp_path / "x.log.1")
    path.write_text(STORED_64.replace("64", "128") * (20 if how == "truncated-and-longer" else 1))
    count = 20 if how == "truncated-and-longer" else 1
    assert log.facts(mark).stored_tokens() == 128 * count
    assert log.facts().stored_tokens() == 192 + 128 * count
    assert log.text(mark).count("128") == count
    assert log.position() == mark + path.stat().st_size


def test_a_log_that_shrinks_while_it_is_read_loses_nothing_that_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.log"
    path.write_text(STORED_64 * 10_000)
    log = LogFile(path)
    monkeypatch.setattr("fixtures.subject.log_file._PIECE_BYTES", 100_000)
    real, pieces = LogReader.feed, []

    def feed(self: LogReader, data: bytes) -> None:
        real(self, data)
        pieces.append(data)
        path.write_text(STORED_64.replace("64", "128"))

    monkeypatch.setattr(LogReader, "feed", feed)
    read = log.facts().stored_tokens()
    assert read == 64 * b"".join(pieces).count(b"0.017 seconds")
    assert 100_000 <= len(b"".join(pieces)) < 200_000
    assert log.facts().stored_tokens() == read + 128


def test_a_log_that_is_truncated_unread_keeps_its_marks(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text(STORED_64 * 9 + STORED_64[:20])
    log = LogFile(path)
    mark = log.position()
    path.write_text(STORED_64)
    assert log.facts(mark).stored_tokens() == 64


INITIALISED = "[2026-11-25 04:25:21,672] LMCache INFO: LMCache initialized for role KVConnectorRole.WORKER (a.py:1:b)\n"
START = "(EngineCore pid=7) INFO 11-25 04:25:20 [core.py:1] Initializing a V1 LLM engine (v0.32.0) with config: x\n"


def test_a_log_without_its_start_is_no_proof_of_nothing(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    stack = with_cache(tmp_path, engine, cache)
    (tmp_path / "engine-0.log").write_text(NOISE * 30)
    (tmp_path / "kv.log").write_text(STORED_64)
    with pytest.raises(NotJudged, match="does not contain the start-up"):
        stack.logs.offload_announced(stack.engine)
    (tmp_path / "engine-0.log").write_text(START + NOISE)
    with pytest.raises(NotJudged, match="does not contain the start-up"):
        stack.logs.offload_announced(stack.engine)
    cache.status = {"non_cuda_context_meta": {"7": {"world_size": 1}}}
    assert stack.logs.offload_announced(stack.engine), "a worker is registered"


def test_a_start_without_lmcache_is_proof(tmp_path: Path, engine: FakeServer) -> None:
    log = tmp_path / "engine-0.log"
    log.write_text(START + NOISE)
    stack = Stack(record(tmp_path, engines=[EngineServer(name="engine-0", url=engine.url, log=log)]))
    assert not stack.logs.offload_announced(stack.engine)


def test_a_log_of_an_unknown_format_is_not_judged(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    stack = with_cache(tmp_path, engine, cache)
    (tmp_path / "engine-0.log").write_text("ts=1 lvl=3 something\n" * 30)
    for ask in (
        stack.logs.require_info_level,
        lambda: stack.logs.findings("run"),
        lambda: stack.logs.offload_announced(stack.engine),
    ):
        with pytest.raises(NotJudged, match="the log of engine-0 has an unknown format"):
            ask()


def test_what_was_logged_before_the_run_is_history(tmp_path: Path, engine: FakeServer) -> None:
    failed = "[2026-11-25 04:31:45,869] LMCache ERROR: Put task failed for key {}: x (x.py:1:y)\n"
    log = tmp_path / "engine-0.log"
    log.write_text(failed.format("old"))
    of = record(tmp_path, engines=[EngineServer(name="engine-0", url=engine.url, log=log)])
    own, attached = Stack(of), Stack(of, attached=True)
    assert [len(own.logs.findings("run")), len(attached.logs.findings("run"))] == [1, 0]
    assert ["old" in str(one) for one in attached.logs.earlier_findings("run")] == [True]
    with log.open("a") as file:
        file.write(failed.format("new"))
    assert ["new" in str(one) for one in attached.logs.findings("run")] == [True]
    assert len(own.logs.findings("run")) == 2
    assert len(attached.logs.earlier_findings("run")) == 1


# --- tensor parallel --------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_two_ranks_behind_a_server_count_once(
    tmp_path: Path, engine: FakeServer, cache: FakeServer, prompts: Prompts
) -> None:
    """One line and one set of keys per rank: as recorded with tensor parallelism over two cards."""
    stack = with_cache(tmp_path, engine, cache)
    cache.status = {"cache_context_meta": {"1": {"world_size": 2}, "2": {"world_size": 2}}}

    def store(payload: dict[str, Any]) -> None:
        with (tmp_path / "kv.log").open("a") as file:
            file.write(STORED_64 * 2)
        cache.cache["l1_write_chunks_total"] += 2
        engine.count(payload)

    engine.on_post = store
    asked = stack.complete(prompts.of_length(50))
    assert (asked.stored_in(stack.accounting.log_of(asked).facts()), stack.accounting.stored_tokens(asked)) == (64, 64)
    assert stack.kv_shape(stack.engine) == KvShape(2, 2, source="GET /status")


def test_two_ranks_in_process_count_once(tmp_path: Path, engine: FakeServer, prompts: Prompts) -> None:
    """vLLM 0.32: the lines that name the ranks are in the start of the log, long before the request."""
    log = tmp_path / "engine-0.log"
    role = INITIALISED.replace(" (a.py", ": LMCacheMetadata(world_size=2, worker_id={}, use_mla=False) (a.py")
    log.write_text(START + role.format(0) + role.format(1))
    stored = "[2026-11-25 04:31:45,869] LMCache INFO: [req_id=cmpl-1-0] Stored 64 out of total 64 tokens. (x.py:1:y)\n"
    stack = Stack(record(tmp_path, engines=[EngineServer(name="engine-0", url=engine.url, log=log)]))

    def store(payload: dict[str, Any]) -> None:
        with log.open("a") as file:
            file.write(stored * 2)
        engine.count(payload)

    engine.on_post = store
    asked = stack.complete(prompts.of_length(70))
    assert (asked.stored_in(stack.accounting.log_of(asked).facts()), stack.accounting.stored_tokens(asked)) == (64, 64)


def of_groups(*groups: int, world: int = 1) -> dict[str, Any]:
    kernels = [{"kernel_group_idx": at, "object_group_idx": group} for at, group in enumerate(groups)]
    return {"world_size": world, "kv_cache_layout": {"kernel_groups": kernels}}


@pytest.mark.parametrize(
    ("contexts", "windows", "ranks", "shape"),
    [
        ([], [], 1, KvShape(1, 1, (FULL,), "the values")),
        ([], [], 4, KvShape(4, 4, (FULL,), "the values")),
        ([{"world_size": 2}] * 2, [], 1, KvShape(2, 2, (FULL,), "GET /status")),
        ([{"world_size": 1}] * 4, [], 4, KvShape(4, 1, (FULL,), "GET /status")),  # MLA
        ([of_groups(0, 0)], [-1, 1024], 1, KvShape(1, 1, (FULL,), "GET /status")),
        ([of_groups(0, 1)], [-1, 1024], 1, KvShape(1, 1, (FULL, 4), "GET /status")),
        ([of_groups(0, 1, world=2)], [], 2, KvShape(2, 2, (UNKNOWN, UNKNOWN), "GET /status")),
        ([{"world_size": "x", "kv_cache_layout": 3}], [], 1, KvShape(1, 1, (FULL,), "the values")),
    ],
)
def test_the_shape_of_a_server(contexts: list[Any], windows: list[int], ranks: int, shape: KvShape) -> None:
    groups = "".join(f"KernelGroupInfo(layers=1, sw_size_tokens={tokens})\n" for tokens in windows)
    assert shape_of_server(contexts, read_log(groups), ranks, 256) == shape


def test_a_cache_server_that_has_only_metrics_has_no_status(httpserver: HTTPServer) -> None:
    """The port of ``prometheus_client`` answers every path with the metrics."""
    httpserver.expect_request(re.compile(".*")).respond_with_data("# HELP a b\n# TYPE a gauge\na 1.0\n")
    server = CacheServer(Server(name="kv", url=httpserver.url_for("").rstrip("/")))
    assert (server.status(), server.config(), server.contexts(), server.read_locked()) == ({}, {}, [], None)
    assert server.samples().problem is None


def test_the_adapters_of_the_model(tmp_path: Path, engine: FakeServer) -> None:
    with pytest.raises(NotApplicable, match="no LoRA adapter"):
        _ = Stack(record(tmp_path, engine.url)).adapters
    engine.models += [{"id": "a", "parent": MODEL}, {"id": "b", "parent": MODEL}, {"id": "c", "parent": "another"}]
    assert Stack(record(tmp_path, engine.url)).adapters == ("a", "b")
