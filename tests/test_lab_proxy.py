"""The fault proxy: passes everything through untouched, and each fault does to an answer what its name says."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import SubjectFault
from fixtures.core.waiting import poll
from fixtures.instruments.client import Client, bearer
from lab.proxy.fault import Fault
from lab.proxy.faults import FAULTS
from lab.proxy.server import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.instruments.response import Response

METRICS = 'vllm:prompt_tokens_by_source_total{source="external_kv_transfer"} 12.0\nvllm:kv_cache_usage_perc 0.5\n'


class Engine(BaseHTTPRequestHandler):
    """Answers like an engine: echoes the prompt, streams word by word."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, Any]]
    gone: threading.Event

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.reply(200, METRICS.encode(), "text/plain")
        else:
            self.reply(200, json.dumps({"data": [{"id": "m", "max_model_len": 8192}]}).encode())

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(asked)
        if asked.get("key") is not None:
            allowed = self.headers.get("Authorization") == f"Bearer {asked['key']}"
            self.reply(200 if allowed else 401, b"{}")
            return
        if asked.get("bad"):
            self.reply(400, json.dumps({"error": {"message": "bad"}}).encode())
            return
        time.sleep(asked.get("wait", 0.0))
        text = str(asked["prompt"])
        usage: dict[str, Any] = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        if "cached" in asked:
            usage["prompt_tokens_details"] = {"cached_tokens": asked["cached"]}
        head = {"id": "cmpl-1", "object": "text_completion", "created": 1}
        if not asked.get("stream"):
            choice = {"index": 0, "text": text, "finish_reason": "length"}
            self.reply(200, json.dumps(head | {"choices": [choice], "usage": usage}).encode())
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for number in range(asked.get("pieces", 4)):
                reason = "length" if number == asked.get("pieces", 4) - 1 else None
                choice = {"index": 0, "text": f"{text}{number}", "finish_reason": reason}
                self.event(json.dumps(head | {"choices": [choice]}))
                time.sleep(asked.get("pause", 0.0))
            self.event(json.dumps(head | {"choices": [], "usage": usage}))
            self.event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.gone.set()
            self.close_connection = True

    def event(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


@pytest.fixture
def engine() -> Iterator[ThreadingHTTPServer]:
    handler = type("Handler", (Engine,), {"seen": [], "gone": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def through(engine: ThreadingHTTPServer) -> Iterator[Any]:
    """Makes a client that talks to the engine through a proxy with the given fault."""
    running: list[Proxy] = []

    def make(fault: str, /, **params: Any) -> tuple[Client, Proxy]:
        proxy = Proxy(f"http://127.0.0.1:{engine.server_address[1]}", (FAULTS | {"none": Fault})[fault](**params))
        running.append(proxy.__enter__())
        return Client(proxy.url, deadline_s=10.0), proxy

    yield make
    for proxy in running:
        proxy.__exit__()


def ask(client: Client, prompt: Any = "hello", **options: Any) -> Response:
    return client.post("/v1/completions", {"prompt": prompt, "model": "m", **options})


def test_without_a_fault_everything_passes(engine: ThreadingHTTPServer, through: Any) -> None:
    client, proxy = through("none")
    direct = Client(f"http://127.0.0.1:{engine.server_address[1]}")
    for options in ({}, {"stream": True}, {"bad": True}):
        ours, theirs = ask(client, **options), ask(direct, **options)
        assert (ours.status, ours.text, ours.content_type) == (theirs.status, theirs.text, theirs.content_type)
    assert client.get("/metrics").text == METRICS
    assert proxy.fired == 0


def test_a_key_is_lent_to_everybody(through: Any) -> None:
    client, proxy = through("lend-key")
    statuses = [
        client.post("/v1/completions", {"prompt": "p", "key": "k"}, headers=headers).status
        for headers in ({}, bearer("k"), {}, bearer("wrong"))
    ]
    assert statuses == [401, 200, 200, 200]
    assert proxy.fired == 2


def test_a_stream_is_not_buffered(through: Any) -> None:
    client, _ = through("none")
    response = ask(client, stream=True, pieces=5, pause=0.1)
    assert response.ttft_s is not None
    assert response.ttft_s < 0.3 < 0.4 < response.total_s


def test_a_client_that_hangs_up_is_hung_up_on_at_the_engine(engine: ThreadingHTTPServer, through: Any) -> None:
    client, _ = through("none")
    assert client.abort_after("/v1/completions", {"prompt": "x", "stream": True, "pieces": 100, "pause": 0.05}, 0.1)
    assert engine.RequestHandlerClass.gone.wait(5.0)  # type: ignore[attr-defined]


def test_many_at_once_all_pass(through: Any) -> None:
    client, _ = through("none")
    with ThreadPoolExecutor(16) as pool:
        texts = pool.map(lambda n: ask(client, f"p{n}", wait=0.05).json["choices"][0]["text"], range(32))
        assert list(texts) == [f"p{n}" for n in range(32)]


def test_cut_stream(through: Any) -> None:
    client, proxy = through("cut-stream", after=2)
    response = ask(client, stream=True)
    assert response.cut is not None
    assert len(response.events) == 2
    assert proxy.fired == 1


@pytest.mark.parametrize(("times", "seen"), [(0, 0), (2, 2)])
def test_lose_done(through: Any, times: int, seen: int) -> None:
    client, proxy = through("lose-done", times=times)
    response = ask(client, stream=True)
    assert response.cut is None
    assert sum(event.data == "[DONE]" for event in response.events) == seen
    assert proxy.fired == 1


def test_drop_event(through: Any) -> None:
    client, _ = through("drop-event", number=2)
    response = ask(client, "w", stream=True)
    assert response.stream is not None
    assert response.stream.text == "w0w2w3"


def test_buffered(through: Any) -> None:
    client, proxy = through("buffered")
    response = ask(client, stream=True, pieces=4, pause=0.1)
    assert response.ttft_s is not None
    assert response.ttft_s > 0.35
    assert response.stream is not None
    assert not response.stream.violations
    assert proxy.fired == 1


@pytest.mark.parametrize("stream", [True, False])
def test_content_type(through: Any, stream: bool) -> None:
    client, proxy = through("content-type", stream=stream, to="text/x")
    assert ask(client, stream=stream).content_type == "text/x"
    assert ask(client, stream=not stream).content_type != "text/x"
    assert proxy.fired == 1


def test_usage(through: Any) -> None:
    client, proxy = through("usage", name="prompt_tokens")
    assert ask(client).json["usage"]["prompt_tokens"] == 4
    response = ask(client, stream=True)
    assert response.stream is not None
    assert (response.stream.usage or {})["prompt_tokens"] == 4
    assert proxy.fired == 2


def test_cached_tokens(through: Any) -> None:
    client, proxy = through("cached-tokens")

    def cached(**options: Any) -> Any:
        return ask(client, **options).usage["prompt_tokens_details"]["cached_tokens"]

    found = [cached(cached=5), cached(cached=7, stream=True), cached(cached=9)]
    assert found == [5, 5, 7]
    assert proxy.fired == 2
    assert "prompt_tokens_details" not in ask(client).usage


def test_finish_reason(through: Any) -> None:
    client, _ = through("finish-reason", to="stop")
    assert ask(client).json["choices"][0]["finish_reason"] == "stop"
    response = ask(client, stream=True)
    assert response.stream is not None
    assert list(response.stream.finish_reasons) == ["stop"]


def test_without(through: Any) -> None:
    client, proxy = through("without", name="created")
    assert "created" not in ask(client).json
    assert "created" in ask(client, stream=True).text
    assert proxy.fired == 1


def test_status(through: Any) -> None:
    client, _ = through("status", status=500, every=3)
    assert [ask(client).status for _ in range(6)] == [200, 200, 500, 200, 200, 500]


def test_status_when_busy(through: Any) -> None:
    client, proxy = through("status", status=503, busy=3)
    assert ask(client).status == 200
    with ThreadPoolExecutor(4) as pool:
        assert 503 in list(pool.map(lambda _: ask(client, wait=0.3).status, range(4)))
    assert proxy.fired >= 1


def test_bad_requests(through: Any) -> None:
    client, _ = through("bad-requests", status=200)
    assert ask(client, bad=True).status == 200
    client, _ = through("bad-requests", body="no")
    response = ask(client, bad=True)
    assert (response.status, response.text) == (400, "no")
    assert ask(client).status == 200


def test_forward_as(engine: ThreadingHTTPServer, through: Any) -> None:
    client, proxy = through("forward-as", change={"temperature": 2.0}, drop=("stop",))
    ask(client, stop=["x"], temperature=0)
    assert engine.RequestHandlerClass.seen[-1]["temperature"] == 2.0  # type: ignore[attr-defined]
    assert "stop" not in engine.RequestHandlerClass.seen[-1]  # type: ignore[attr-defined]
    assert proxy.fired == 1


def test_swap(through: Any) -> None:
    client, proxy = through("swap", seconds=2.0)
    with ThreadPoolExecutor(2) as pool:
        texts = list(pool.map(lambda p: ask(client, p, wait=0.1).json["choices"][0]["text"], ["a", "b"]))
    assert texts == ["b", "a"]
    assert proxy.fired == 1


def test_an_answer_alone_is_not_swapped(through: Any) -> None:
    client, proxy = through("swap", seconds=0.05)
    assert ask(client, "a").json["choices"][0]["text"] == "a"
    assert proxy.fired == 0


@pytest.mark.parametrize("stream", [True, False])
def test_slow_repeat(through: Any, stream: bool) -> None:
    client, proxy = through("slow-repeat")
    first = ask(client, [1, 2, 3], wait=0.3, stream=stream)
    again = ask(client, [1, 2, 3], wait=0.3, stream=stream)
    assert again.text == first.text
    assert again.total_s > 0.55
    assert proxy.fired == 1


@pytest.mark.long
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("shadow", [True, False])
def test_edge_cache(engine: ThreadingHTTPServer, through: Any, stream: bool, shadow: bool) -> None:
    client, proxy = through("edge-cache", shadow=shadow, most=1)
    seen = engine.RequestHandlerClass.seen  # type: ignore[attr-defined]
    first = ask(client, [1, 2, 3], wait=1.0, stream=stream)
    again = ask(client, [1, 2, 3], wait=1.0, stream=stream)
    assert again.text == first.text
    assert again.total_s < 0.9
    assert proxy.fired == 1
    wanted = 2 if shadow else 1
    assert poll(lambda: len(seen), lambda count: count >= wanted, 10.0) == wanted
    ask(client, [1, 2, 3], wait=1.0, stream=stream)
    assert proxy.fired == 1
    assert len(seen) == (3 if shadow else 2)


def test_drop_last_token(engine: ThreadingHTTPServer, through: Any) -> None:
    client, proxy = through("drop-last-token")
    seen = engine.RequestHandlerClass.seen  # type: ignore[attr-defined]
    for _ in range(2):
        ask(client, [1, 2, 3], stream=False)
    assert [one["prompt"] for one in seen] == [[1, 2, 3], [1, 2]]
    assert proxy.fired == 1


def test_models(through: Any) -> None:
    client, _ = through("models", change={"max_model_len": "8192"})
    assert client.get("/v1/models").json["data"][0]["max_model_len"] == "8192"


def test_metrics(through: Any) -> None:
    client, _ = through("metrics", rename=("vllm:kv_cache_usage_perc", "vllm:other"))
    assert "vllm:other 0.5" in client.get("/metrics").text
    client, proxy = through("metrics", double='source="external_kv_transfer"')
    assert '"external_kv_transfer"} 24.0' in client.get("/metrics").text
    assert proxy.fired == 1


def test_delay(through: Any) -> None:
    client, _ = through("delay", seconds=0.2)
    assert ask(client).total_s > 0.2


def test_delay_of_one_path(through: Any) -> None:
    client, proxy = through("delay", seconds=0.2, path="/metrics")
    assert client.get("/metrics").total_s > 0.2
    ask(client)
    assert proxy.fired == 1


def test_an_engine_that_is_gone_breaks_the_connection() -> None:
    with Proxy("http://127.0.0.1:9", Fault()) as proxy, pytest.raises(SubjectFault):
        Client(proxy.url).get("/health")


# --- in front of a router ---------------------------------------------------------------------------------------------


def test_a_list_of_models_gets_one_that_is_gone_or_loses_all(through: Any) -> None:
    client, proxy = through("list-models")
    assert [one["id"] for one in client.get("/v1/models").json["data"]] == ["m", "gone"]
    assert proxy.fired == 1
    client, _ = through("list-models", none=True)
    assert client.get("/v1/models").json["data"] == []


@pytest.fixture
def others() -> Iterator[list[ThreadingHTTPServer]]:
    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Engine,), {"seen": [], "gone": threading.Event()}))
        for _ in range(2)
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def behind(proxy: Proxy, others: list[ThreadingHTTPServer]) -> list[list[Any]]:
    """What each of the other engines was asked, which the fault may send requests to from now on."""
    proxy.fault.engines = tuple(f"http://127.0.0.1:{one.server_address[1]}" for one in others)
    return [one.RequestHandlerClass.seen for one in others]  # type: ignore[attr-defined]


def test_requests_go_astray_in_turn(through: Any, others: list[ThreadingHTTPServer]) -> None:
    client, proxy = through("astray")
    first, second = behind(proxy, others)
    for prompt in "abcd":
        assert ask(client, prompt).status == 200
    assert ([one["prompt"] for one in first], [one["prompt"] for one in second]) == (["b", "d"], ["a", "c"])
    assert client.get("/v1/models").status == 200, "what generates nothing takes its way"
    assert proxy.fired == 4


def test_every_so_many_repeats_go_to_another_engine(through: Any, others: list[ThreadingHTTPServer]) -> None:
    client, proxy = through("astray", by="repeats", every=2)
    first, second = behind(proxy, others)
    for prompt in "abba":
        ask(client, prompt)
    assert [one["prompt"] for one in first] == ["a"]
    assert [one["prompt"] for one in second] == ["b", "b", "a"], "the second repeat is not where it was before"
    assert proxy.fired == 1


def test_a_header_is_lost_on_the_way(through: Any) -> None:
    client, proxy = through("without-header", name="authorization")
    assert client.post("/v1/completions", {"prompt": "x", "key": "k"}, headers=bearer("k")).status == 401
    assert proxy.fired == 1


def gone() -> str:
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        return f"http://127.0.0.1:{server.server_address[1]}"


def test_a_dead_engine_is_kept(engine: Any, through: Any) -> None:
    client, proxy = through("keeps-dead", then="error")
    proxy.fault.engines = (f"http://127.0.0.1:{engine.server_address[1]}",)
    assert [ask(client).status for _ in range(4)] == [200] * 4
    assert proxy.fired == 0, "nothing is wrong while it lives"
    proxy.fault.engines = (gone(),)
    assert sorted(ask(client).status for _ in range(4)) == [200, 200, 502, 502]
    assert proxy.fired == 2


def test_the_end_of_a_dead_engine_looks_like_an_answer(through: Any) -> None:
    client, proxy = through("keeps-dead", then="end")
    proxy.fault.engines = (gone(),)
    ask(client)
    answer = ask(client)
    assert (answer.status, answer.usage["completion_tokens"]) == (200, 3)


def test_an_engine_that_failed_once_is_forgotten(through: Any, others: list[ThreadingHTTPServer]) -> None:
    client, proxy = through("keeps-dead", then="forget")
    _, second = behind(proxy, others)
    alive = proxy.fault.engines
    proxy.fault.engines = (gone(), alive[1])
    assert [ask(client, prompt).status for prompt in "ab"] == [200, 200]
    proxy.fault.engines = alive
    assert [ask(client, prompt).status for prompt in "cd"] == [200, 200]
    assert [one["prompt"] for one in second] == ["b", "c", "d"], "also once the first one is back"
    assert proxy.fired == 1


def test_a_stream_begins_again_in_its_middle(through: Any) -> None:
    client, proxy = through("send-again", after=2)
    response = ask(client, "w", stream=True)
    assert response.stream is not None
    assert response.stream.text == "w0w1w0w1w2w3"
    assert proxy.fired == 1
