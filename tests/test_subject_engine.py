"""What an engine says of itself: its pool, its context length, its GPU prefix cache, its log probabilities."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NotJudged, SubjectFault
from fixtures.core.record import EngineServer, Server
from fixtures.subject.stack import Stack
from tests.fakes import engine_server
from tests.fakes.engine_server import MODEL, FakeServer, record

if TYPE_CHECKING:
    from pathlib import Path


LOGPROBS = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}]}
cache = engine_server.cache
engine = engine_server.engine


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
    stack.record.routers.append(Server(name="router", url="http://127.0.0.1:9"))
    assert stack.engine.client.headers["X-data-parallel-rank"] == "0"
    assert stack.router.headers["X-data-parallel-rank"] == "0", "or a repeat through it is computed by another rank"
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


@pytest.mark.parametrize(("most", "given"), [(20, 5), (3, 1), (0, None)])
def test_log_probabilities_are_asked_for_until_some_are_given(
    tmp_path: Path, engine: FakeServer, most: int, given: int | None
) -> None:
    def answer(payload: dict[str, Any]) -> None:
        if payload.get("logprobs", 0) > most:
            engine.answer = (400, {"error": {"message": f"logprobs are more than {most}"}})
        else:
            engine.answer = (200, {"id": "cmpl-1", "choices": [{"text": "a", "logprobs": LOGPROBS}]})
            engine.count(payload)

    engine.on_post = answer
    assert Stack(record(tmp_path, engine.url)).accepted_logprobs((5, 1)) == given


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        [],
        LOGPROBS | {"top_logprobs": None},
        LOGPROBS | {"top_logprobs": [None]},
        LOGPROBS | {"top_logprobs": [{}]},
        LOGPROBS | {"top_logprobs": [{"a": None}]},
        LOGPROBS | {"token_logprobs": [None]},
        LOGPROBS | {"token_logprobs": []},
        {"content": [{"token": "a", "logprob": -1.0}]},
    ],
)
def test_a_gateway_that_removes_log_probabilities_is_told(tmp_path: Path, engine: FakeServer, given: object) -> None:
    def answer(payload: dict[str, Any]) -> None:
        engine.answer = (200, {"id": "cmpl-1", "choices": [{"text": "a", "logprobs": given}]})
        engine.count(payload)

    engine.on_post = answer
    with pytest.raises(NotJudged, match=r"does not contain the log-probabilities .* a gateway"):
        Stack(record(tmp_path, engine.url)).accepted_logprobs((5, 1))
