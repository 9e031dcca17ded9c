"""The pages of metrics that Prometheus would scrape of a stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.core.errors import NotJudged
from fixtures.core.record import EngineServer, Server
from fixtures.subject.metrics_pages import metrics_pages, page_of
from fixtures.subject.router import routers_of
from fixtures.subject.stack import Stack
from tests.fakes import engine_server
from tests.fakes.engine_server import FakeServer, record, serving, with_cache

if TYPE_CHECKING:
    from pathlib import Path

engine, cache = engine_server.engine, engine_server.cache


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


@pytest.mark.parametrize(
    ("url", "page"),
    [
        ("http://10.0.0.1:80/router", "http://10.0.0.1:29000"),
        ("http://[fd00::1]:80", "http://[fd00::1]:29000"),
        ("http://router:80", "http://router:29000"),
    ],
)
def test_a_router_gives_its_metrics_at_the_same_host(tmp_path: Path, url: str, page: str) -> None:
    argv = ("vllm_router", "--prometheus-port=29000")
    stack = Stack(record(tmp_path, routers=[Server(name="r", url=url, argv=argv)]))
    (router,) = routers_of(stack)
    assert page_of(router).base_url == page
