"""Logs: exact facts from logs of real runs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from fixtures.evidence.logs.crash import first_error
from tests.log_examples import DATA, HEALTHY
from tests.log_lines import read_log

if TYPE_CHECKING:
    from pathlib import Path


def recorded(name: str) -> str:
    return (DATA / name).read_bytes().decode()


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_a_healthy_run_has_no_fault_and_no_crash(path: Path) -> None:
    text = path.read_bytes().decode()
    assert [str(finding) for finding in read_log(text).of("init", "run", "config")] == []
    assert first_error(text) is None


def test_there_are_healthy_runs_to_judge_by() -> None:
    assert len(HEALTHY) == 7


def test_in_process_run() -> None:
    facts = read_log(recorded("inprocess-lmcache0.5.3.engine.log"))
    assert (len(facts.stored), len(facts.hits), len(facts.retrieved)) == (27, 63, 38)
    # the engine's own counter of the same run: vllm:prompt_tokens_by_source{source="external_kv_transfer"} 138240
    assert facts.retrieved_tokens() == facts.hit_tokens() == 138_240
    assert [fact.role for fact in facts.initialised] == ["worker", "scheduler"]
    assert facts.ranks == 1
    assert [pool.tokens for pool in facts.kv_pools] == [477_072]
    assert {(fact.component, fact.version) for fact in facts.versions} == {("vllm", "0.25.1"), ("lmcache", "0.5.3")}
    assert facts.speaks


def test_in_process_cold_and_warm_request() -> None:
    facts = read_log(recorded("inprocess-lmcache0.5.3.engine.log"))
    cold, warm = "cmpl-8dd1a70a955e350e", "cmpl-b0c6617d1b8af7f4"
    assert (facts.stored_tokens(cold), facts.hit_tokens(cold), facts.retrieved_tokens(cold)) == (1024, 0, 0)
    assert (facts.stored_tokens(warm), facts.hit_tokens(warm), facts.retrieved_tokens(warm)) == (0, 1024, 1024)
    hit = next(hit for hit in facts.hits if hit.request_id == f"{warm}-0-b562652d")
    assert hit.hit_tokens == 1024
    retrieved = next(event for event in facts.retrieved if event.request_id == hit.request_id)
    assert (retrieved.tokens, retrieved.worker) == (1024, "EngineCore")
    assert retrieved.line.time == datetime(2026, 11, 25, 4, 25, 23, 365000)


def test_chunked_prefill_is_summed() -> None:
    facts = read_log(recorded("inprocess-lmcache0.5.3.engine.log"))
    steps = [event.tokens for event in facts.stored if event.request_id == "cmpl-8ff6b21e480661f1-0-9bc024ee"]
    assert steps == [8192, 6656]
    assert facts.stored_tokens("cmpl-8ff6b21e480661f1") == 14_848


def test_in_process_configuration() -> None:
    facts = read_log(recorded("inprocess-lmcache0.5.3.engine.log"))
    (configuration,) = facts.configurations
    assert configuration.chunk_size == 256
    assert configuration.max_local_cpu_gib == 20.0
    assert configuration.settings["local_cpu"] is True
    assert configuration.settings["blend_special_str"] == " # # "
    assert configuration.settings["pd_allocation_timeout_sec"] == float("inf")
    assert configuration.settings["hidden_states_retrieve_mode"] == "prefix_strict"


def test_multi_process_server_of_0_5_3() -> None:
    facts = read_log(recorded("mp-lmcache0.5.3.cache-server.log"))
    assert (len(facts.stored), len(facts.hits), len(facts.retrieved)) == (29, 38, 38)
    assert facts.retrieved_tokens() == 138_240
    assert facts.hit_tokens(chunk_tokens=256) == 138_240
    assert facts.hit_tokens() is None, "chunks are not tokens"
    assert facts.hit_tokens("cmpl-98178eb3113f96c8", chunk_tokens=256) == 1024
    assert facts.stored_tokens("cmpl-98178eb3113f96c8") is None, "the lines name no request: unknown, not zero"
    assert [fact.world_size for fact in facts.registered] == [None]
    assert len(facts.servers_up) == 2


def test_multi_process_server_of_0_5_6() -> None:
    facts = read_log(recorded("mp-lmcache0.5.6.cache-server.log"))
    assert [event.tokens for event in facts.stored[:3]] == [256, 1024, 1024]
    hit = facts.hits[0]
    assert (hit.request_id, hit.hit_chunks, hit.asked_chunks) == ("cmpl-8a3c3b9d5c2a8beb-0-baf3f3af", 4, 4)
    assert [fact.world_size for fact in facts.registered] == [1]
    assert facts.configurations[0].settings == {"chunk_size": 256, "hash_algorithm": "blake3"}
    assert [(fact.component, fact.version) for fact in facts.versions] == [("lmcache", "0.5.6")]


def test_multi_process_engine_of_0_32() -> None:
    facts = read_log(recorded("mp-vllm0.32.0.engine.log"))
    assert [pool.tokens for pool in facts.kv_pools] == [524_288]
    assert {fact.version for fact in facts.versions if fact.component == "vllm"} == {"0.32.0"}
    assert (facts.stored, facts.hits, facts.retrieved) == ((), (), ())
    assert facts.versions[0].line.time == datetime(2026, 11, 25, 4, 31, 3), "the year comes from LMCache's lines"
