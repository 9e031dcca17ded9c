"""How a cache server splits the KV of ranks and groups, and what its status says."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NotApplicable
from fixtures.core.record import EngineServer, Server
from fixtures.evidence.shape import FULL, UNKNOWN, KvShape
from fixtures.subject.cache_server import CacheServer, shape_of_server
from fixtures.subject.context import Context
from fixtures.subject.stack import Stack
from tests.fakes import engine_server
from tests.fakes.engine_server import MODEL, START, STORED_64, FakeServer, record, with_cache
from tests.log_lines import read_log

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_httpserver import HTTPServer

    from fixtures.instruments.prompts import Prompts


cache = engine_server.cache
engine = engine_server.engine
prompts = engine_server.prompts


def cache_server(httpserver: HTTPServer) -> CacheServer:
    access: Any = SimpleNamespace(check=lambda _: None)
    return CacheServer(Server(name="kv", url=httpserver.url_for("").rstrip("/")), access, Context())


INITIALISED = "[2026-11-25 04:25:21,672] LMCache INFO: LMCache initialized for role KVConnectorRole.WORKER (a.py:1:b)\n"


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
    server = cache_server(httpserver)
    assert (server.status(), server.config(), server.contexts(), server.read_locked()) == ({}, {}, [], None)
    assert server.samples().problem is None


@pytest.mark.parametrize(
    ("said", "locked"),
    [
        ('{"storage_manager": {"l1_managers": {"0": {"read_locked_count": 2}}}}', 2),
        ('{"storage_manager": null}', None),
        ('{"storage_manager": {"l1_managers": [1]}}', None),
        ('{"storage_manager": {"l1_managers": {"0": null}}}', None),
        ('{"storage_manager": {"l1_managers": {"0": {"read_locked_count": "x"}}}}', None),
        ('{"storage_manager": ', None),
        ("[]", None),
    ],
)
def test_a_status_of_another_shape_says_nothing(httpserver: HTTPServer, said: str, locked: int | None) -> None:
    httpserver.expect_request("/status").respond_with_data(said)
    server = cache_server(httpserver)
    assert server.read_locked() == locked
    assert server.contexts() == []


def test_the_adapters_of_the_model(tmp_path: Path, engine: FakeServer) -> None:
    with pytest.raises(NotApplicable, match="no LoRA adapter"):
        _ = Stack(record(tmp_path, engine.url)).adapters
    engine.models += [{"id": "a", "parent": MODEL}, {"id": "b", "parent": MODEL}, {"id": "c", "parent": "another"}]
    assert Stack(record(tmp_path, engine.url)).adapters == ("a", "b")
