"""A release of 64 engines behind a router, on a stand-in cluster: found, and judged by a round of the profile, in two minutes.

The engines are stand-ins in this process, reached through the port-forwards of the stand-in cluster.
"""

from __future__ import annotations

import contextlib
import copy
import json
import threading
import time
import urllib.request
import zlib
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from fixtures.core.errors import NotJudged
from fixtures.core.units import MIB
from fixtures.core.waiting import poll
from fixtures.evidence.pods.containers import role_of
from fixtures.evidence.pods.objects import is_ready, name_of
from fixtures.experiments.listing import Listing, listing
from fixtures.experiments.router_cost import router_cost
from fixtures.experiments.routing import RoutedConversations, astray, recomputed
from fixtures.instruments.text_requests import TextRequests
from fixtures.provide.release.adopt import adopt
from fixtures.provide.release.cluster_session import ClusterSession
from fixtures.subject.stack import Stack
from tests.release_site import Site, busy, changed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fixtures.core.record import StackRecord

pytest.importorskip("kubernetes")

COUNT = 64
WITHIN_S = 120.0
ROUNDS = 3
GROWTH = 24 * MIB
"""Of this process from the first round to the last: what a round leaves behind is less than 128 KiB for each engine."""


class Engine(BaseHTTPRequestHandler):
    """One stand-in for an engine; ``server.known`` holds the prompts that it was sent."""

    protocol_version = "HTTP/1.1"

    def reply(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size) or b"null")
        text = self.server.answer(self.path, body, self.headers)  # type: ignore[attr-defined]
        stream = bool(body) and body.get("stream") is True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if stream else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = reply  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_: Any) -> None:
        pass


class EngineServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Engine)
        self.lock, self.known = threading.Lock(), set[str]()
        self.finished = self.reused = self.computed = 0
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, path: str, body: Any, headers: Any) -> bytes:
        if path == "/v1/models":
            return json.dumps({"object": "list", "data": [{"id": "org/m", "max_model_len": 4096}]}).encode()
        if path == "/metrics":
            return self.metrics()
        tokens = len(body["prompt"].split())
        with self.lock:
            known = body["prompt"] in self.known
            self.known.add(body["prompt"])
            self.finished += 1
            self.reused += tokens - 1 if known else 0
            self.computed += 1 if known else tokens
        return answer_of(tokens, stream=body.get("stream") is True)

    def metrics(self) -> bytes:
        lines = [
            'vllm:cache_config_info{block_size="16",enable_prefix_caching="True",num_gpu_blocks="512"} 1',
            f'vllm:prompt_tokens_by_source_total{{source="local_compute"}} {self.computed}',
            f'vllm:prompt_tokens_by_source_total{{source="local_cache_hit"}} {self.reused}',
            'vllm:prompt_tokens_by_source_total{source="external_kv_transfer"} 0',
            f"vllm:prompt_tokens_total {self.computed + self.reused}",
            f'vllm:request_success_total{{finished_reason="length"}} {self.finished}',
            *("vllm:num_requests_running 0", "vllm:num_requests_waiting 0", "vllm:kv_cache_usage_perc 0"),
        ]
        return ("\n".join(lines) + "\n").encode()


def answer_of(tokens: int, *, stream: bool) -> bytes:
    usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
    choice = {"index": 0, "text": "x", "finish_reason": "length", "logprobs": None}
    body = {"id": "cmpl-0", "object": "text_completion", "created": 1, "model": "org/m", "choices": [choice]}
    if stream:
        return b"data: " + json.dumps(body).encode() + b"\n\ndata: [DONE]\n\n"
    return json.dumps(body | {"usage": usage}).encode()


class RouterServer(EngineServer):
    """A router that keeps sessions together; a session comes to the engine that its hash names."""

    engines: tuple[EngineServer, ...] = ()

    def answer(self, path: str, body: Any, headers: Any) -> bytes:
        session = headers.get("x-user-id") or ""
        engine = self.engines[zlib.crc32(session.encode()) % len(self.engines)]
        request = urllib.request.Request(f"http://127.0.0.1:{engine.server_address[1]}{path}")
        if body is not None:
            request.data = json.dumps(body).encode()
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(4, tmp_path)
    yield made
    made.cluster.stop()


@dataclass
class Many:
    """A release of several engines on a stand-in cluster, and the stand-ins that its port-forwards lead to."""

    site: Site
    pods: list[str]
    servers: tuple[EngineServer, ...]
    router: RouterServer
    record: StackRecord
    began: float
    """When the release was first looked at, on the monotonic clock."""

    def close(self) -> None:
        for server in (*self.servers, self.router):
            server.shutdown()
            server.server_close()


def many(site: Site, folder: Path, count: int) -> Many:
    site.cluster.programs["memory.stat"] = "anon 100\nshmem 7\n"
    site.install(changed(replicaCount=count))
    poll(lambda: sum(map(is_ready, site.cluster.pods("mine"))), lambda ready: ready > count, 30.0)
    pods = [name_of(pod) for pod in site.cluster.pods("mine") if role_of(pod) == "engine"]
    servers, router = tuple(EngineServer() for _ in pods), RouterServer()
    router.engines = servers
    site.cluster.targets |= {
        (name, 8000): ("127.0.0.1", one.server_address[1]) for name, one in zip(pods, servers, strict=True)
    }
    site.cluster.targets["router", 8000] = ("127.0.0.1", router.server_address[1])
    began = time.monotonic()
    record = adopt(site.target, folder=folder / "run", device="cpu")
    for one in record.routers:
        one.argv = ("vllm-router", "--routing-logic", "session", "--session-key", "x-user-id")
    return Many(site, pods, servers, router, record, began)


@pytest.mark.long
def test_sixty_four_engines_are_found_and_judged_in_two_minutes(site: Site, tmp_path: Path) -> None:
    memory = []
    with (
        contextlib.closing(many(site, tmp_path, COUNT)) as found,
        ClusterSession(found.record, tmp_path / "many") as access,
    ):
        assert len(found.record.engines) == COUNT
        stack = Stack(access.record, access)
        for number in range(ROUNDS):
            round_of_the_profile(stack, number)
            if number == 0:
                took = time.monotonic() - found.began
            memory.append(psutil.Process().memory_info().rss)
    assert took < WITHIN_S * busy(), f"{took:.0f} s to find {COUNT} engines and judge a round"
    assert memory[-1] - memory[0] < GROWTH, f"memory after each round: {[size // MIB for size in memory]} MiB"


def scaled_up(found: Many) -> None:
    """Another engine gets what comes now."""
    found.servers = (*found.servers, EngineServer())
    found.router.engines = found.servers[-1:]


def scaled_down(found: Many) -> None:
    """The pod of an engine is gone, and so is what listened there."""
    gone, found.router.engines = found.servers[0], found.servers[1:]
    found.site.cluster.remove("api/v1/pods", "mine", found.pods[0])
    poll(lambda: found.pods[0] in map(name_of, found.site.cluster.pods("mine")), lambda there: not there, 5.0)
    del found.site.cluster.targets[found.pods[0], 8000]
    found.site.cluster.cut()
    gone.shutdown()
    gone.server_close()
    found.servers = found.servers[1:]


def rolled_out(found: Many) -> None:
    """As `kubectl rollout restart` does: every engine has another pod."""
    (deployment,) = (
        one for one in found.site.cluster.find("apis/apps/v1/deployments", "mine") if "vllm" in name_of(one)
    )
    again = copy.deepcopy(deployment)
    again["spec"]["template"]["metadata"]["annotations"] = {"kubectl.kubernetes.io/restartedAt": "now"}
    found.site.cluster.put("apis/apps/v1/deployments", "mine", again)
    poll(lambda: {*found.pods} & {*map(name_of, found.site.cluster.pods("mine"))}, lambda old: not old, 5.0)
    found.site.cluster.cut()
    scaled_up(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (scaled_up, r"an engine that is not known here: it was added meanwhile \(a scale-up, a rollout\)"),
        (scaled_down, "the release was changed meanwhile: pod .* was deleted"),
        (rolled_out, "the release was changed meanwhile: pod .* was deleted|an engine that is not known here"),
    ],
)
def test_engines_that_come_and_go_during_a_run_are_not_blamed(
    site: Site, tmp_path: Path, change: Callable[[Many], None], words: str
) -> None:
    with (
        contextlib.closing(many(site, tmp_path, 3)) as found,
        ClusterSession(found.record, tmp_path / "many") as access,
    ):
        stack = Stack(access.record, access)
        conversations = RoutedConversations(stack, TextRequests("org/m", 0, "before"))
        conversations.begin()
        change(found)
        with pytest.raises(NotJudged, match=words):
            conversations.repeat()
        assert not stack.context.incidents.found


def round_of_the_profile(stack: Stack, number: int) -> None:
    """What the tests of the profile router ask that neither stop an engine nor evict."""
    assert listing(stack, stack.routers[0]) == Listing((), ())
    for longer in (False, True):
        conversations = RoutedConversations(stack, TextRequests("org/m", number, f"many-{longer}"))
        conversations.begin()
        assert conversations.engines > 1
        repeats = conversations.repeat(longer=longer)
        assert astray(repeats) == []
        assert longer or recomputed(repeats) == []
    assert router_cost(stack, TextRequests("org/m", number, "cost")).added_s
