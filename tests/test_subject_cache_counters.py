"""The counters of a cache server belong to this exchange; what nothing counts is not judged."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NotJudged, SubjectFault, SubjectGone
from fixtures.core.record import EngineServer
from fixtures.instruments.prompts import Prompts
from fixtures.subject.stack import Stack
from tests.fakes import engine_server
from tests.fakes.engine_server import FakeServer, record, with_cache

if TYPE_CHECKING:
    from pathlib import Path


cache = engine_server.cache
engine = engine_server.engine
process = engine_server.process
prompts = engine_server.prompts


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


def test_a_cache_that_restarted_is_reported(
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


def test_counters_for_people_leave_out_what_is_absent(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    found = with_cache(tmp_path, engine, cache).cache.snapshot()
    assert found["engine-0"]["computed"] == 0
    assert "preemptions" not in found["engine-0"]
    assert found["cache"]["flavour"] == "multi-process"
    json.dumps(found)
    assert Stack(record(tmp_path)).cache.snapshot() == {}, (
        "a stack that is gone has none, and that is not an error here"
    )


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


@pytest.mark.parametrize("busy", [True, False], ids=["others-use-it", "no-other-does"])
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
