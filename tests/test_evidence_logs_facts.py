"""Logs: tokens of requests, ranks, engines and groups of keys are summed as they are meant."""

from __future__ import annotations

import pytest

from fixtures.evidence.shape import FULL, UNKNOWN, KvShape
from tests.log_examples import NEW, steps
from tests.log_lines import read_log


def test_ranks_are_not_summed() -> None:
    line = "(Worker_TP{} pid=1) " + NEW.format("[req_id=cmpl-a-0-1f] Stored 1024 out of total 1024 tokens.")
    facts = steps(line.format(0), line.format(1), line.format(0), line.format(1))
    assert facts.stored_tokens("cmpl-a") == 2048
    assert {event.worker for event in facts.stored} == {"Worker_TP0", "Worker_TP1"}


def test_ranks_that_write_without_a_name_are_not_summed_either() -> None:
    role = "LMCache initialized for role KVConnectorRole.WORKER with version 0.5.6, vllm version 0.32.0, lmcache "
    ranks = [NEW.format(f"{role}cache_engine metadata: LMCacheMetadata(worker_id={rank})") for rank in (0, 1)]
    stored = NEW.format("[req_id=cmpl-a-0-1f] Stored 1024 out of total 1024 tokens.")
    assert steps(*ranks, stored, stored).stored_tokens("cmpl-a") == 1024
    mla = NEW.format("Initialize storage manager on rank 0, use layerwise: False,save only first rank: True")
    assert steps(*ranks, mla, stored).stored_tokens("cmpl-a") == 1024


def test_engines_of_one_log_are_summed_by_request() -> None:
    line = "(EngineCore_DP{0} pid=1) " + NEW.format(
        "[req_id=cmpl-{0}-0-1f] Retrieved 512 out of 512 out of total 9 tokens"
    )
    assert steps(line.format(0), line.format(1)).retrieved_tokens() == 1024


@pytest.mark.parametrize(
    ("asked", "found"),
    [("cmpl-abc", 256), ("cmpl-abc-0", 256), ("cmpl-abc-0-1f2e", 256), ("cmpl-ab", 0), ("chatcmpl-9", 512), ("9", 0)],
)
def test_the_id_of_the_response_is_enough(asked: str, found: int) -> None:
    facts = steps(
        NEW.format("[req_id=cmpl-abc-0-1f2e] Stored 256 out of total 256 tokens."),
        NEW.format("[req_id=chatcmpl-9-8a] Stored 512 out of total 512 tokens."),
    )
    assert facts.stored_tokens(asked) == found


def test_a_repeated_lookup_counts_once() -> None:
    line = NEW.format("Reqid: cmpl-a-0-1, Total tokens 1080, LMCache hit tokens: 1024, need to load: 1024")
    assert steps(line, line).hit_tokens("cmpl-a") == steps(line, line).hit_tokens() == 1024


def test_silence_is_told_apart_from_zero() -> None:
    assert read_log("").speaks is False
    assert read_log("").stored_tokens() == 0


def test_two_named_ranks_store_once() -> None:
    line = (
        "(VllmWorker TP{} pid=7743) [2026-08-21 21:08:22,628] LMCache INFO: Stored 7219 out of total 7219 tokens. "
        "size: 0.8812 gb, cost 30.0 ms, throughput: 29.4 GB/s"
    )
    facts = steps(line.format(0), line.format(1))
    assert {event.worker for event in facts.stored} == {"VllmWorker TP0", "VllmWorker TP1"}
    assert facts.stored_tokens() == facts.stored_tokens(shape=KvShape(2, 2)) == 7219


def test_two_ranks_of_a_server_store_and_load_once() -> None:
    stored, loaded = (
        NEW.format("Stored 1600 tokens in 0.01 seconds"),
        NEW.format("Retrieved 1600 tokens in 0.01 seconds"),
    )
    hit = NEW.format(
        "Prefetch request completed (L1+L2): 200/200 retained keys (200 L1, 0 L2) in 1.8 ms "
        "(external_request_id=cmpl-a-0, prefetch_request_id=7)"
    )
    facts, shape = steps(stored, stored, hit, loaded, loaded), KvShape(2, 2)
    assert facts.stored_tokens(None, shape) == facts.retrieved_tokens(None, shape) == 1600
    assert facts.hit_tokens("cmpl-a", 16, shape) == 1600
    assert steps(stored).stored_tokens(None, shape) == 800, "a rank that stored nothing is missed"


def test_ranks_of_the_start_count_in_a_later_window() -> None:
    """In process on vLLM 0.32: the lines that name the ranks are in the start, those of a request name none."""
    role = (
        "LMCache initialized for role KVConnectorRole.WORKER with version 0.5.6, vllm version 0.32.0, lmcache cache_engine "
        "metadata: LMCacheMetadata(model_name='m', world_size=2, local_world_size=2, worker_id={}, use_mla=False)"
    )
    stored = NEW.format("[req_id=cmpl-a-0-1f] Stored 2048 out of total 2048 tokens.")
    start = steps(NEW.format(role.format(0)), NEW.format(role.format(1)))
    shape = start.shape()
    assert shape is not None
    assert (shape.ranks, shape.savers) == (2, 2)
    assert steps(stored, stored).stored_tokens("cmpl-a", shape) == 2048
    first = "Initialize storage manager on rank 0, use layerwise: False,save only first rank: True"
    mla = steps(NEW.format(role.format(0)), NEW.format(first))
    assert mla.shape() == KvShape(2, 1, source=shape.source)
    assert steps(stored).stored_tokens("cmpl-a", mla.shape()) == 2048


def test_data_parallel_ranks_are_never_divided() -> None:
    line = "(Worker_DP{}_TP{} pid=1) " + NEW.format("Stored 1024 out of total 1024 tokens.")
    facts = steps(*(line.format(dp, tp) for dp in (0, 1) for tp in (0, 1)))
    assert facts.stored_tokens(None, KvShape(2, 2)) == 2048
    engines = "(EngineCore_DP{} pid=1) " + NEW.format("Stored 1024 out of total 1024 tokens.")
    assert steps(engines.format(0), engines.format(1)).stored_tokens(None, KvShape(1, 1)) == 2048


@pytest.mark.parametrize(
    ("windows", "keys", "asked", "chunks"),
    [
        ((FULL,), 11, 44, 11),
        ((FULL, FULL, FULL, FULL), 12, 44, 3),
        ((FULL, 1, 1, 1), 12, 44, 9),
        ((FULL, 1, 1, 1), 14, 44, 11),
        ((FULL, 4), 14, 22, 10),
        ((FULL, UNKNOWN), 22, 22, 11),
        ((FULL, UNKNOWN), 14, 22, None),
        ((FULL, 4), 0, 22, 0),
        ((FULL, 4), 14, None, None),
    ],
)
def test_chunks_of_the_keys_of_several_groups(
    windows: tuple[int, ...], keys: int, asked: int, chunks: int | None
) -> None:
    assert KvShape(1, 1, windows).chunks(keys, asked) == chunks
