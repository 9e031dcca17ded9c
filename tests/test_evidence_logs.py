"""Logs: exact facts from logs of real runs, one line of every generation, no crash on any text."""

from __future__ import annotations

import functools
import json
import random
import re
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.catalogue.signatures import SIGNATURES
from fixtures.evidence.logs.crash import first_error
from fixtures.evidence.logs.facts import LogFacts
from fixtures.evidence.logs.lines import LogLine, parse_line
from fixtures.evidence.logs.reader import LogReader, read_log
from fixtures.evidence.logs.search import _SAYING, SAYS
from fixtures.evidence.shape import FULL, UNKNOWN, KvShape
from tests.log_lines import SILENT, SILENT_WRAPPERS, WRAPPERS, docker, record_of

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).parent / "data" / "evidence"
HEALTHY = sorted(DATA.glob("*.log"))


def recorded(name: str) -> str:
    return (DATA / name).read_bytes().decode()


# --- lines ------------------------------------------------------------------------------------------------------------


def test_a_coloured_line_of_both_programs_is_taken_apart() -> None:
    line = parse_line(
        "(EngineCore pid=702) \x1b[32;20m[2026-11-25 04:25:21,672] LMCache INFO:\x1b[0m Post initializing "
        "LMCacheEngine \x1b[3m(cache_engine.py:303:lmcache.v1.cache_engine)\x1b[0m\r\n"
    )
    assert line.message == "Post initializing LMCacheEngine"
    assert (line.level, line.process) == ("INFO", "EngineCore")
    assert line.time == datetime(2026, 11, 25, 4, 25, 21, 672000)
    assert "\x1b" not in line.text


@pytest.mark.parametrize(
    ("raw", "message", "level", "process", "time"),
    [
        (
            "(EngineCore pid=1) INFO 11-25 04:31:03 [core.py:133] ready",
            "ready",
            "INFO",
            "EngineCore",
            datetime(2026, 11, 25, 4, 31, 3),
        ),
        (
            "(VllmWorker rank=1 pid=277) WARNING 04-01 12:00:00 [a.py:1] slow",
            "slow",
            "WARNING",
            "VllmWorker rank=1",
            datetime(2026, 4, 1, 12),
        ),
        ("INFO 01-16 03:30:21 api_server.py:12] old", "old", "INFO", None, datetime(2026, 1, 16, 3, 30, 21)),
        (
            "INFO LMCache: msg [2025-01-16 03:30:21,567] -- /opt/lmcache/x.py:12",
            "msg",
            "INFO",
            None,
            datetime(2025, 1, 16, 3, 30, 21, 567000),
        ),
        (
            "(APIServer pid=5) INFO:     Application startup complete.",
            "Application startup complete.",
            "INFO",
            "APIServer",
            None,
        ),
        (
            "(EngineCore pid=7) (APIServer pid=5) INFO 11-25 04:25:51 [core.py:1214] [shutdown] EngineCore: x",
            "[shutdown] EngineCore: x",
            "INFO",
            "EngineCore",
            datetime(2026, 11, 25, 4, 25, 51),
        ),
        (
            "[pod/e-0/vllm] 2026-11-25T04:25:51.123456789Z [2026-11-25 04:25:51,004] LMCache ERROR: bad (a.py:1:b.c)",
            "bad",
            "ERROR",
            None,
            datetime(2026, 11, 25, 4, 25, 51, 4000),
        ),
        (
            '(EngineCore pid=7) ERROR 11-25 04:25:51 [core.py:1]   File "x.py", line 3',
            '  File "x.py", line 3',
            "ERROR",
            "EngineCore",
            datetime(2026, 11, 25, 4, 25, 51),
        ),
        ("ValueError: plain", "ValueError: plain", None, None, None),
        ("INFO 02-30 04:31:03 [core.py:133] no such day", "no such day", "INFO", None, None),
    ],
)
def test_every_wrapper_comes_off(
    raw: str, message: str, level: str | None, process: str | None, time: datetime | None
) -> None:
    line = parse_line(raw, year=2026)
    assert (line.message, line.level, line.process, line.time) == (message, level, process, time)


# --- real runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_a_healthy_run_has_no_fault_and_no_crash(path: Path) -> None:
    text = path.read_bytes().decode()
    assert [str(finding) for finding in read_log(text).faults] == []
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
    assert facts.hit_tokens() is None, "chunks are no tokens"
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


# --- one line of every generation -------------------------------------------------------------------------------------

WARNING = "[2026-11-25 04:25:21,672] LMCache WARNING: {} (cache_engine.py:577:lmcache.v1.cache_engine)"
NEW = "[2026-11-25 04:25:21,672] LMCache INFO: {} (cache_engine.py:577:lmcache.v1.cache_engine)"
TRANSFER = "size: 0.1250 {}, cost 50.0000 ms, throughput: 2.5 GB/s; offload_time: 4.6 ms, put_time: 0.06 ms"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (f"Stored 1024 out of total 2048 tokens. {TRANSFER.format('gb')}", (1024, None)),  # 0.3.3 to 0.3.9
        (f"Stored 1024 out of total 2048 tokens. {TRANSFER.format('GB')}", (1024, None)),  # 0.3.13
        (f"[req_id=a-1] Stored 1024 out of total 2048 tokens. {TRANSFER.format('GB')}", (1024, "a-1")),
        ("Stored 1024 out of total 2048 tokens", (1024, None)),  # layerwise, up to 0.3.9.post2
        ("Stored 1024 tokens in 0.050 seconds", (1024, None)),  # multi-process server
        ("Store skips 0 tokens and then stores 1024 tokens", (1024, None)),  # 0.1 and 0.2
    ],
)
def test_stored(message: str, expected: tuple[int, str | None]) -> None:
    (event,) = read_log(NEW.format(message)).stored
    assert (event.tokens, event.request_id) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Retrieved 512 out of 768 out of total 1024 tokens", (512, None)),  # 0.3.3
        (
            "Retrieved 512 out of 768 required tokens (from 1024 total tokens). size: 0.1 gb, cost 4.0 ms, "
            "throughput: 30.8832 GB/s;",
            (512, None),
        ),  # 0.3.7 to 0.3.13
        (
            "[req_id=a-1] Retrieved 512 out of 768 required tokens (from 1024 total tokens). size: 0.1 gb, "
            "cost 4.0 ms, throughput: 30.8832 GB/s;",
            (512, "a-1"),
        ),  # 0.3.15 to 0.5.6
        ("[req_id=a-1] Retrieved 512 out of 768 out of total 1024 tokens", (512, "a-1")),  # layerwise
        ("Retrieved 512 tokens", (512, None)),  # layerwise
        ("Retrieved 512 tokens in 0.004 seconds", (512, None)),  # multi-process server
        ("Injected token number: 512", (512, None)),  # 0.1 and 0.2
    ],
)
def test_retrieved(message: str, expected: tuple[int, str | None]) -> None:
    (event,) = read_log(NEW.format(message)).retrieved
    assert (event.tokens, event.request_id) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        # id, hit, chunks hit, chunks asked
        (
            "Reqid: a-1, Total tokens 1080, LMCache hit tokens: 1024, need to load: -48",
            ("a-1", 1024, None, None),
        ),  # 0.3.3 to 0.3.13
        (
            "Reqid: a-1, Total tokens 1080, Inference Engine computed tokens: 16, LMCache hit tokens: 1024, "
            "need to load: 1008",
            ("a-1", 1024, None, None),
        ),  # 0.3.15 to 0.5.6
        (
            "Reqid: a-1, Total tokens 1080, Inference Engine computed tokens: 16, LMCache hit tokens: 1024, "
            "but need to load: 1008 < min_retrieve 2048, skip retrieve but record for save skip",
            ("a-1", 1024, None, None),
        ),
        (
            "Prefetch request completed (L1+L2): 3/4 prefix hits (2 L1, 1 L2) in 1.8 ms (request_id=7)",
            (None, None, 3, 4),
        ),  # 0.4.1: the number is the server's own
        (
            "Prefetch request completed (L1+L2): 3/4 prefix hits (2 L1, 1 L2) in 1.8 ms "
            "(external_request_id=a-1, prefetch_request_id=7)",
            ("a-1", None, 3, 4),
        ),  # 0.4.5
        (
            "Prefetch request completed (L1+L2): 3/4 retained keys (2 L1, 1 L2) in 1.8 ms "
            "(external_request_id=a-1, prefetch_request_id=-1)",
            ("a-1", None, 3, 4),
        ),  # 0.5.0 to 0.5.6
        ("<resume-load> req=a-1 apc=16 lmcache=1024 load=1008", ("a-1", 1024, None, None)),  # 0.5.6
        ("vLLM hit is: 16, Need to load is 1008", (None, None, None, None)),  # 0.4.5 to 0.5.6, DEBUG
    ],
)
def test_hit(message: str, expected: tuple[object, ...]) -> None:
    (hit,) = read_log(NEW.format(message)).hits
    assert (hit.request_id, hit.hit_tokens, hit.hit_chunks, hit.asked_chunks) == expected


def test_tokens_from_below_the_cpu_tier_are_told_by_the_lookup() -> None:
    """Recorded with LMCache 0.5.6 and a tier of files; so do 0.5.3 and 0.5.5."""
    said = "Prefetch request completed (L1+L2): 16/16 retained keys ({} L1, {} L2) in 51.4 ms (external_request_id={}-0-93, "
    text = "\n".join(
        NEW.format(said.format(*counts) + "prefetch_request_id=11)")
        for counts in ((0, 16, "cmpl-b8"), (0, 16, "cmpl-b8"), (16, 0, "cmpl-a7"))
    )
    facts = read_log(text)
    assert facts.below_tokens("cmpl-b8", 256) == 4096, "a repeated lookup counts once"
    assert facts.below_tokens("cmpl-a7", 256) == 0
    assert facts.below_tokens("cmpl-b8", 256, KvShape(2, 2)) == 2048
    assert facts.below_tokens("cmpl-c9", 256) is None
    assert (
        read_log(NEW.format("Reqid: a-1, Total tokens 9, LMCache hit tokens: 8, need to load: 8")).below_tokens(
            "a-1", 256
        )
        is None
    )


def test_a_pending_lookup_is_no_hit() -> None:
    assert read_log(NEW.format("Reqid: a-1, Total tokens 1080, LMCache hit tokens: None.")).hits == ()


@pytest.mark.parametrize(
    ("message", "cpu", "chunk"),
    [
        ("LMCache Configuration: {'chunk_size': 256, 'max_local_cpu_size': '20.0 GB', 'kind': <K.A: 1>}", 20.0, 256),
        ("Creating LMCacheEngine with config: {'chunk_size': 16, 'max_local_cpu_size': 2.5}", 2.5, 16),
        ("Creating LMCacheEngine with config: LMCacheEngineConfig(chunk_size=64, max_local_cpu_size=5)", 5.0, 64),
        ("LMCache Configuration: {'local_disk': None}", None, None),
    ],
)
def test_configuration(message: str, cpu: float | None, chunk: int | None) -> None:
    (configuration,) = read_log(NEW.format(message)).configurations
    assert (configuration.max_local_cpu_gib, configuration.chunk_size) == (cpu, chunk)


@pytest.mark.parametrize(
    "message",
    [
        "LMCache ZMQ cache server is running on tcp://localhost:5555",  # 0.3.13 to 0.5.4
        "LMCache zmq cache server is running on localhost:5555",  # 0.5.6
        "LMCache gRPC cache server is running on localhost:5556",  # 0.5.6
        "LMCache cache server is running...",
    ],
)
def test_server_up(message: str) -> None:
    assert len(read_log(NEW.format(message)).servers_up) == 1


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (
            "(EngineCore pid=1) INFO 11-25 04:31:13 [core.py:1] Initializing a V1 LLM engine (v0.32.0) with: x",
            "0.32.0",
        ),
        (
            "INFO 01-16 03:30:21 llm_engine.py:234] Initializing an LLM engine (v0.6.6.post1) with config: x",
            "0.6.6.post1",
        ),
        ("INFO 04-01 03:30:21 [api_server.py:1043] vLLM API server version 0.8.5", "0.8.5"),
        (
            "(APIServer pid=1) INFO 11-25 04:31:03 [api_utils.py:347]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.32.0\r",
            "0.32.0",
        ),
    ],
)
def test_engine_version(line: str, version: str) -> None:
    assert [fact.version for fact in read_log(line).versions] == [version]


# --- ranks and requests -----------------------------------------------------------------------------------------------


def steps(*lines: str) -> LogFacts:
    return read_log("\n".join(lines))


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


# --- signatures -------------------------------------------------------------------------------------------------------

EXAMPLES = {
    "init-failed": "Failed to initialize LMCacheManager components: No supported cpu connector found.. System will "
    "operate in degraded mode (recompute).",
    "post-init-failed": "Failed during post_init: boom. System will operate in degraded mode (recompute).",
    "marked-failed": "LMCacheEngine marked as init failed: boom",
    "post-init-skipped": "Skipping post_init due to previous initialization failure",
    "no-transfer-connector": "RuntimeError: No supported cpu connector found.",
    "unsupported-connector": "ValueError: Unsupported connector type: LMCacheConnector",
    "native-library": "ImportError: c_ops.cpython-312-x86_64-linux-gnu.so: undefined symbol: _ZN3c106detail",
    "engine-start-failed": "EngineCore failed to start.",
    "worker-start-failed": "WorkerProc failed to start.",
    "native-no-device": "Exception: CPU Offloading is currently only supported on CUDA-alike and XPU GPUs",
    "native-switched-off": "Detected prefix caching disabled, disabling CPU offload since it requires prefix caching.",
    "native-store-refused": "Request cmpl-8: cannot store chunks",
    "native-load-skipped": (
        "SimpleCPUOffloadScheduler: update_state_after_alloc called for req_id=cmpl-8 with num_external_tokens=64 but no "
        "pending CPU hit from get_num_new_matched_tokens(); skipping load."
    ),
    "native-not-pinned": ("host_register failed for rank=0 at 0.00 of 34.36 GB; the offload region stays pageable"),
    "engine-init-failed": "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc",
    "unhealthy-skip": "LMCache is unhealthy, skipping retrieve_layer operation",
    "unhealthy-monitor": "HealthMonitor: System unhealthy, entering degraded mode",
    "retrieved-too-few": "Request aThe number of retrieved tokens is less than the expected number of tokens! This "
    "should not happen!",
    "load-failed": "Request cmpl-a-0 failed to load 512 tokens across 32 blocks",
    "block-unretrievable": "The cache block is in the storage, but it can't be retrieved",
    "write-expired": "L1Manager: write reservation on key k (tag 't') expired; handing the buffer to a new writer",
    "read-unlocked": "L1Manager: finish read on non-read-locked key k, potential inconsistent data might be read",
    "put-failed": "Put task failed for key k: [Errno 111] Connection refused",
    "remote-connection": "Failed to initialize/re-establish remote connection: [Errno 111] Connection refused",
    "remote-read": "batched_get_non_blocking timed out",
    "remote-timeout": "batched get blocking timeout, trigger cancel the future task",
    "remote-lookup": "lm connector failed in exists: [Errno 104] Connection reset by peer",
    "remote-bigtable": "Bigtable async timeout in batched_put: 504 Deadline. Skipping.",
    "remote-mooncake": "Timeout when putting key k using put_from. Decode instance may redo prefill.",
    "tier-disabled": "S3 connection disabled after 5 consecutive failures. All future S3 operations will be skipped.",
    "tier-connection": "S3L2Adapter connection error (1/5): x",
    "backend-not-created": "Failed to create backend local_disk: PermissionError",
    "second-tier-store": "Store task 7 to adapter 0 failed for keys: [ObjectKey(chunk_hash=b'a')]",
    "second-tier-valkey": "Valkey SET failed (batch task_id=1, key idx=0): timeout",
    "second-tier-hyperpod": "SageMaker HyperPod store failed: x",
    "peer-load-failed": "P2P load task 7 timed out; treating as a failure",
    "nixl-put-failed": "NIXL batched put failed for 3 key(s); skipping best-effort offload: x",
    "remote-error": "Error occurred in get_blocking: x, return None",
    "disk-load-failed": "Failed to load chunk from disk for key k: [Errno 5] Input/output error",
    "offload-transfer": "Exception in ('CPU', 'GPU') transfer 235: AssertionError()",
    "mp-store-failed": "Something went wrong when processing the store request for request_id=a",
    "mp-retrieve-failed": "Something went wrong when processing the retrieve request for request_id=a, result=False",
    "mp-keys-missing": "Some keys not found during retrieve!",
    "mp-no-gpu-context": "No GPU context found for model m with world size 1 during lookup!",
    "mp-unregistered": "Rejecting STORE for unregistered GPU instance ID 7",
    "mp-block-underflow": "RETRIEVE block ID underflow for request_id=a: each group needs num_chunks",
    "mp-degraded": "LMCache server is unhealthy — entering degraded mode",
    "mp-lookup-timeout": "LOOKUP to tcp://localhost:5555 timed out after 300.0s. Marking server as unhealthy.",
    "mp-prefetch-timeout": "QUERY_PREFETCH_STATUS to tcp://localhost:5555 timed out. Marking unhealthy.",
    "mp-store-dropped": "Dropping store for request a while the server is unhealthy; reporting it as completed",
    "mp-load-bypassed": "Bypassing LMCache for request a after a failed async KV load; the prompt will be recomputed",
    "mp-register-again-failed": "Failed to re-register KV caches after server recovery; will retry on next heartbeat",
    "mp-engine-driven-store": "Engine-driven pickle store incomplete (instance_id=1, object_keys=2, reserved=1)",
    "prefetched-read-failed": "Failed to read prefetched object k from L1 storage: e",
    "rpc-timeout": "Timeout occurred for rank 0, recreating all sockets. Error: x",
    "rpc-error": "ZMQ error for rank 0: x, recreating all sockets",
    "async-lookup-timeout": "Request a is still waiting for async lookup after 3 seconds, returning 0 lmcache",
    "lookup-error": "Error processing lookup request: x",
    "serde-failed": "Serde task 3 (SERIALIZE) failed",
    "request-internal-error": "Request a failed with an internal error during generation",
    "engine-fatal": "EngineCore encountered a fatal error.",
    "engine-dead": "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.",
    "worker-exception": "WorkerProc hit an exception.",
    "process-died": "Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting down executor.",
    "out-of-memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    "out-of-memory-type": "torch.OutOfMemoryError: Allocation on device 0 would exceed allowed memory.",
    "device-error": "RuntimeError: CUDA error: no kernel image is available for execution on the device",
    "traceback": "Traceback (most recent call last):",
    "config-unparsable": "Failed to parse LMCACHE_MAX_LOCAL_CPU_SIZE='20Gi': could not convert string to float: '20Gi'",
    "config-unknown-key": "Unknown configuration key: max_local_cpu (source: environment variables)",
    "config-absent-key": "Config key 'max_cpu' does not exist in configuration",
    "double-unpin": "Pin count of MemoryObj 7is negative: -1.Double unpin occurred somewhere.Setting pin count",
    "double-free": "Ref count of MemoryObj 7is negative: -1.Double free occurred somewhere.Setting ref count back to 0",
    "forced-unpin": "Force unpinned 3 timeout objects in 5 pinned_objects within 300 seconds",
    "pin-timeout": "Pin timeout detected for MemoryObj 7. Pin count: 1, Elapsed time: 300.00s. Forcing unpin to 0.",
    "leaked-object": "MemoryObj at 7 is being garbage collected with ref_count=1, pin_count=0.",
    "memory-pressure": "Local cpu memory under pressure so choosing to store only  3 total chunks of KV cache.",
    "allocation-failed": "Failed to allocate memory for the KV cache. The KV cache will not be stored.",
    "save-skipped": "Skipping KV save for request a: slot_mapping/token_ids length mismatch",
    "mp-hit-mismatch": "[req=a] LMCache hit mismatch across servers: [1, 2] → take min=1",
    "rank-mismatch": "Lookup results (number of hit tokens) differ across (TP and PP) ranks: [1, 2].",
    "mp-reaped": "Reaped non-GPU instance 7: silent for 61.0s (pinged=True)",
    "hash-seed-unset": "Using builtin hash without PYTHONHASHSEED set. For production environments",
    "hash-fallback": "Could not load 'sha256_cbor' from vLLM. Using builtin hash. This may cause inconsistencies",
}


@pytest.mark.parametrize("id", sorted(EXAMPLES))
def test_each_signature_is_found_by_its_id_alone(id: str) -> None:  # noqa: A002
    (finding,) = read_log(f"before\n{WARNING.format(EXAMPLES[id])}\nafter").findings
    assert finding.signature.id == id or (id, finding.signature.id) == ("traceback", "traceback-handled")
    assert EXAMPLES[id] in finding.line.text


@pytest.mark.parametrize(
    ("level", "message", "id"),
    [
        ("WARNING", "Failed to initialize/re-establish remote connection: timed out", "remote-connection"),
        (
            "WARNING",
            "Failed to initialize/re-establish remote connection: [Errno -2] Name unknown",
            "remote-connection",
        ),
        (
            "WARNING",
            "Connection will not be re-established yet since it has not been long enough since the last failure",
            "remote-connection",
        ),
        ("ERROR", "Irrecoverable error during connection initialization", "remote-connection"),
        ("WARNING", "lm connector failed in exists: timed out", "remote-lookup"),
        ("WARNING", "get blocking timeout, trigger cancel the future task", "remote-timeout"),
        ("WARNING", "batched_async_contains timed out", "remote-read"),
        ("WARNING", "Timeout during batch_put_from; some decoders may redo prefill.", "remote-mooncake"),
        ("WARNING", "Serde: serialize task 7 failed (3 objects)", "serde-failed"),
        ("WARNING", "Serde wrapper: deserialize failed for task 7; reporting all keys as failed", "serde-failed"),
        ("ERROR", "Serde wrapper: inner.submit_load_task raised for task 7", "serde-failed"),
        ("WARNING", "Valkey GET unexpected error (batch=7, idx=7): x", "second-tier-valkey"),
        ("WARNING", "P2P load task 7 has a missing/invalid remote address; treating as a failure", "peer-load-failed"),
        ("ERROR", "S3 connection error (1/5): AWS_ERROR_TIMEOUT", "tier-connection"),
        ("ERROR", "BigtableL2Adapter disabled after 5 consecutive failures", "tier-disabled"),
        ("ERROR", "S3L2Adapter disabled after 5 consecutive connection failures", "tier-disabled"),
        ("ERROR", "Failed to create remote backend for plugin x: y", "backend-not-created"),
    ],
)
def test_a_tier_that_fails_is_never_silent(level: str, message: str, id: str) -> None:  # noqa: A002
    """Literals of LMCache 0.5.6, at the level it logs them at."""
    (finding,) = read_log(f"[2026-08-21 21:08:22,628] LMCache {level}: {message} (a.py:1:x)\n").findings
    assert (finding.signature.id, finding.signature.group) == (id, "run")


@pytest.mark.parametrize(
    "message",
    [
        "P2P lookup task 7 timed out; treating as a miss",
        "Serde wrapper: temp alloc failed for store task 7",
        "Valkey DEL failed for key idx 7: x",
        "SageMaker HyperPod lease release failed: x",
        "Error occurred when closing remote connection: x",
    ],
)
def test_a_warning_of_no_lost_chunk_is_no_fault(message: str) -> None:
    assert read_log(WARNING.format(message)).faults == ()


def test_every_signature_has_an_example_and_every_id_is_used_once() -> None:
    ids = [signature.id for signature in SIGNATURES]
    assert len(ids) == len(set(ids))
    assert set(ids) - {"traceback-handled"} == set(EXAMPLES)


def test_no_example_is_an_event() -> None:
    facts = read_log("\n".join(NEW.format(message) for message in EXAMPLES.values()))
    assert (facts.stored, facts.hits, facts.retrieved, facts.configurations) == ((), (), (), ())


@pytest.mark.parametrize(
    "message",
    [
        "LMCache server is healthy again — resuming normal operation",
        "Finished re-registering KV caches after server recovery",
        "Could not load 'builtin' from vLLM. Using builtin hash. This may cause inconsistencies.",
        "Skipping abort-time backend cleanup for request a: lmcache_engine is not initialized",
        "Unknown vLLM environment variable detected: VLLM_RPC_TIMEOUT",
    ],
)
def test_harmless_lines(message: str) -> None:
    assert read_log(NEW.format(message)).findings == read_log(WARNING.format(message)).findings == ()


def test_groups_and_severities() -> None:
    facts = read_log("\n".join(WARNING.format(message) for message in EXAMPLES.values()))
    assert {finding.signature.group for finding in facts.faults} == {"init", "run", "config"}
    assert {finding.signature.group for finding in facts.warnings} == {"warning"}
    assert [finding.signature.id for finding in facts.of("config")] == [
        "config-unparsable",
        "config-unknown-key",
        "config-absent-key",
    ]


@pytest.mark.parametrize(("level", "id"), [("WARNING", "traceback-handled"), ("ERROR", "traceback")])
def test_a_traceback_has_the_level_of_its_record(level: str, id: str) -> None:  # noqa: A002
    text = f"[2026-11-25 04:25:21,672] LMCache {level}: boom (a.py:1:b.c)\nTraceback (most recent call last):\n  x\n"
    assert [finding.signature.id for finding in read_log(text).findings] == [id]


DEAD = "(APIServer pid=5) ERROR 11-25 04:36:39 [async_llm.py:704] vllm.v1.engine.exceptions.EngineDeadError: x"
STOP = "(APIServer pid=5) INFO 11-25 04:36:39 [launcher.py:100] [shutdown] API server: shutdown triggered"
START = "(EngineCore pid=9) INFO 11-25 04:37:00 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: x"


@pytest.mark.parametrize(
    ("lines", "faults"),
    [
        ((DEAD, STOP), 1),
        ((STOP, DEAD), 0),
        ((STOP, DEAD, START, DEAD), 1),
        ((STOP, WARNING.format("CUDA error: x")), 1),
    ],
)
def test_an_engine_that_was_told_to_stop_may_be_dead(lines: tuple[str, ...], faults: int) -> None:
    assert len(steps(*lines).faults) == faults


# --- why it crashed ---------------------------------------------------------------------------------------------------

NOISE = (
    "(APIServer pid=5) WARNING 11-25 04:36:39 [system_utils.py:299] Found ulimit of 20000 and failed to automatically "
    "increase with error x. This can cause fd limit errors like `OSError: [Errno 24] Too many open files`."
)


def error(process: str, *messages: str) -> str:
    return "\n".join(f"({process} pid=5) ERROR 11-25 04:36:39 [core.py:7] {message}" for message in messages)


TRACEBACK = "Traceback (most recent call last):"
FRAME = '  File "core.py", line 660, in run'


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), None),
        ((NOISE,), None),
        (
            (
                NOISE,
                error(
                    "EngineCore", "EngineCore failed to start.", TRACEBACK, FRAME, "ValueError: No available memory."
                ),
                error(
                    "APIServer",
                    TRACEBACK,
                    FRAME,
                    "RuntimeError: Engine core initialization failed. See root cause above.",
                ),
            ),
            "ValueError: No available memory.",
        ),
        (
            (
                error("EngineCore", TRACEBACK, FRAME, "RuntimeError: something below broke"),
                error("Worker_TP1", TRACEBACK, FRAME, "torch.OutOfMemoryError: CUDA out of memory. Tried"),
            ),
            "torch.OutOfMemoryError: CUDA out of memory. Tried",
        ),
        (
            (
                error(
                    "APIServer",
                    TRACEBACK,
                    FRAME,
                    "RuntimeError: Engine core initialization failed. See root cause above.",
                ),
            ),
            "RuntimeError: Engine core initialization failed. See root cause above.",
        ),
        (
            (TRACEBACK, FRAME, "importlib.metadata.PackageNotFoundError: No package metadata was found for vllm"),
            "importlib.metadata.PackageNotFoundError: No package metadata was found for vllm",
        ),
        (
            (
                TRACEBACK,
                FRAME,
                "KeyError: 'a'",
                "",
                "During handling of the above exception, another exception occurred:",
                TRACEBACK,
                FRAME,
                "ValueError: b",
            ),
            "KeyError: 'a'",
        ),
        (
            (
                TRACEBACK,
                FRAME,
                "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
                "  Value error, the model is gone [type=value_error]",
            ),
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig "
            "Value error, the model is gone [type=value_error]",
        ),
        (
            ("usage: x", "api_server.py: error: unrecognized arguments: --foo"),
            "api_server.py: error: unrecognized arguments: --foo",
        ),
        (
            ('exec: "vllm": executable file not found in $PATH',),
            'exec: "vllm": executable file not found in $PATH',
        ),
        ((error("EngineCore", "out of luck"),), "out of luck"),
    ],
)
def test_first_error(lines: tuple[str, ...], expected: str | None) -> None:
    assert first_error("\n".join(lines)) == expected


# --- any text ---------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [*EXAMPLES.values(), *HEALTHY[1].read_bytes().decode().split("\n")[:60], STOP, DEAD, TRACEBACK]
)
TEXT = st.lists(st.one_of(st.text(), PIECES, PIECES.map(lambda piece: piece[: len(piece) // 2])), max_size=12).map(
    "\n".join
)


@given(TEXT)
@settings(max_examples=150, deadline=None)
def test_no_text_is_too_strange(text: str) -> None:
    facts = read_log(text)
    assert all(finding.line.text for finding in facts.findings)
    assert facts.stored_tokens("a") is None or facts.stored_tokens() is not None
    first_error(text)
    for line in text.split("\n"):
        parse_line(line)


@given(st.text(alphabet="{}[]()<>'\"\\,:= a1"))
@settings(max_examples=150, deadline=None)
def test_no_configuration_is_too_strange(body: str) -> None:
    for configuration in read_log(NEW.format("LMCache Configuration: {" + body + "}")).configurations:
        assert configuration.max_local_cpu_gib is None


def test_the_traceback_of_a_request_that_was_answered_with_500_is_no_finding() -> None:
    above = "(APIServer pid=1192) ERROR:    Exception in ASGI application\n"
    traceback = "(APIServer pid=1192) Traceback (most recent call last):\n"  # as uvicorn logs it under vLLM 0.25.1
    assert read_log(above + traceback).findings == ()
    assert [found.signature.id for found in read_log(traceback).findings] == ["traceback"]


def test_the_traceback_of_a_refused_request_is_no_finding() -> None:
    """Recorded from vLLM 0.32: malformed JSON is answered with a 400, and logged with a traceback."""
    refused = (
        "(APIServer pid=12164) ERROR 11-25 10:36:07 [validation.py:151] RequestValidationError caught. Request id: None\n"
        "(APIServer pid=12164) ERROR 11-25 10:36:07 [validation.py:151] Traceback (most recent call last):\n"
    )
    assert read_log(refused).findings == ()
    assert read_log(refused.replace("validation.py", "server_utils.py")).findings == ()  # as vLLM 0.25.1 logs it
    assert [found.signature.id for found in read_log(refused.replace("validation.py", "core.py")).findings] == [
        "traceback"
    ]


# --- wrappers ---------------------------------------------------------------------------------------------------------

SERVER_LINE = "[2026-08-21 21:08:22,628] LMCache INFO: Stored 1024 tokens in 0.050 seconds (x.py:1:lmcache.a)"
ENGINE_LINE = "(EngineCore pid=7) INFO 11-25 04:31:03 [kv.py:1] GPU KV cache size: 477,072 tokens"


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_line_is_read_behind_every_wrapper(wrapper: str) -> None:
    wrap = WRAPPERS[wrapper]
    facts = read_log("\n".join(map(wrap, (SERVER_LINE, ENGINE_LINE, WARNING.format(EXAMPLES["put-failed"])))))
    assert facts.stored_tokens() == 1024
    assert [pool.tokens for pool in facts.kv_pools] == [477_072]
    assert [finding.signature.id for finding in facts.findings] == ["put-failed"]
    line = parse_line(wrap(ENGINE_LINE), 2026)
    assert (line.level, line.process, line.program) == ("INFO", "EngineCore", "vllm")
    assert line.time == datetime(2026, 11, 25, 4, 31, 3)


@pytest.mark.parametrize(
    ("prefix", "process"),
    [
        ("(VllmWorker TP0 pid=7743) ", "VllmWorker TP0"),
        ("(VllmWorker rank=1 pid=277) ", "VllmWorker rank=1"),
        ("(Worker_TP1 pid=7) ", "Worker_TP1"),
        ("(Worker_PP0_TP1 pid=7) ", "Worker_PP0_TP1"),
        ("(Worker_DP0_TP1_EP1 pid=7) ", "Worker_DP0_TP1_EP1"),
        ("(EngineCore_DP0 pid=7) ", "EngineCore_DP0"),
        ("(EngineCore_0 pid=7) ", "EngineCore_0"),
        ("[blue] (Worker_TP1 pid=7) ", "Worker_TP1"),
        ("lmcache-1  | (Worker_TP1 pid=7) ", "Worker_TP1"),
        ("pod-a vllm (Worker_TP1 pid=7) ", "Worker_TP1"),
        ("[rank3]: ", "rank3"),
        ("", None),
    ],
)
def test_every_name_of_a_worker(prefix: str, process: str | None) -> None:
    line = parse_line(prefix + SERVER_LINE)
    assert (line.process, line.level, line.message) == (process, "INFO", "Stored 1024 tokens in 0.050 seconds")


def test_json_logs_are_read() -> None:
    line = parse_line(record_of("GPU KV cache size: 477,072 tokens"))
    assert (line.message, line.level, line.process) == ("GPU KV cache size: 477,072 tokens", "INFO", "EngineCore")
    assert (line.program, line.place) == ("vllm", "vllm.v1.core")
    assert line.time == datetime(2026, 11, 25, 4, 31, 3, 814000)
    facts = read_log(
        "\n".join(
            [
                record_of("GPU KV cache size: 477,072 tokens"),
                record_of(
                    "EngineCore encountered a fatal error.", "ERROR", exc_info="Traceback (most recent call last):"
                ),
                record_of("Stored 1024 tokens in 0.050 seconds", name="lmcache.v1.multiprocess.modules.transfer"),
                record_of("something new broke", "ERROR", name="lmcache.v1.new"),
            ]
        )
    )
    assert [pool.tokens for pool in facts.kv_pools] == [477_072]
    assert (facts.stored_tokens(), facts.speaks, facts.format_known) == (1024, True, True)
    assert [finding.signature.id for finding in facts.findings] == ["engine-fatal", "unknown-error"]


@pytest.mark.parametrize(
    "prefix", ["", "pod-x vllm ", "ns pod-x \u203a vllm ", "[pod/x/vllm] ", "Aug 21 21:08:22 host vllm[3]: "]
)
@pytest.mark.parametrize(
    "before",
    ["INFO:     Started server process [1]\n", "INFO 11-25 04:31:03 [core.py:1] x\n", "neither nor\n" * 500, ""],
    ids=["uvicorn", "vllm", "unknown", "nothing"],
)
def test_json_is_read_wherever_it_begins_and_whatever_stands_before(before: str, prefix: str) -> None:
    lines = [
        record_of("[req_id=cmpl-1-0] Stored 2048 out of total 2048 tokens. size", name="lmcache.v1.cache_engine"),
        record_of("write reservation on key x expired; h", "WARNING", name="lmcache.v1.x"),
        json.dumps({"message": "Put task failed for key x", "level": 40, "logger": "lmcache.v1"}),
        json.dumps({"message": "something new", "levelno": "40", "logger": "lmcache.v1"}, separators=(",", ":")),
        json.dumps({"message": "something new", "level": 20, "logger": "lmcache.v1"}),
        json.dumps({"log.level": "error", "message": "new, too", "log": {"logger": "lmcache.v1"}}),
        json.dumps({"message": "new again", "log": {"level": "error", "logger": "lmcache.v1", "origin": {}}}),
        json.dumps({"message": "an answer", "log": {"level": "info", "logger": "lmcache.v1"}}),
    ]
    text = before + "".join(f"{prefix}{line}\n" for line in lines)
    facts = read_log(text)
    assert [found.signature.id for found in facts.findings] == ["write-expired", "put-failed", *("unknown-error",) * 3]
    assert (facts.stored_tokens("cmpl-1"), facts.speaks, facts.format_known) == (2048, True, True)
    reader = LogReader()
    for line in text.encode().splitlines(keepends=True):
        reader.feed(line)
    assert reader.facts() == facts


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (10, "DEBUG"),
        (20, "INFO"),
        (30, "WARNING"),
        ("40", "ERROR"),
        (50, "CRITICAL"),
        (3, None),
        (True, None),
        ("x", None),
    ],
)
def test_a_level_is_a_name_or_a_number(level: object, name: str | None) -> None:
    assert parse_line(json.dumps({"message": "x", "level": level, "logger": "lmcache"})).level == name


@pytest.mark.parametrize(
    "prefix", ["blue:", "node3-", "{blue}", "blue", "[blue]", "<a>", "(x)", "BLUE", "[blue]: ", "a/b=c,"]
)
def test_a_prefix_of_vllm_may_end_in_anything(prefix: str) -> None:
    version = "INFO 11-25 04:31:03 [core.py:77] Initializing a V1 LLM engine (v0.11.0) with config: model='x'"
    pool = "INFO 11-25 04:31:03 [kv.py:1] GPU KV cache size: 123,456 tokens"
    dead = "ERROR 11-25 04:31:03 [core.py:1] EngineCore encountered a fatal error."
    facts = read_log("".join(f"{prefix}{line}\n" for line in (version, pool, dead)))
    assert [one.tokens for one in facts.kv_pools] == [123_456]
    assert [one.version for one in facts.versions] == ["0.11.0"]
    assert [one.signature.id for one in facts.findings] == ["engine-fatal"]
    assert (facts.has_start, facts.format_known) == (True, True)


@pytest.mark.parametrize(
    "line", ["{}", "[]", '{"message": 3}', '{"message": ""}', '{"a": {"b": 1}}', "{", '{"log": null}']
)
def test_other_json_is_its_own_message(line: str) -> None:
    assert parse_line(line) == LogLine(line, line)


def test_an_unknown_format_says_so() -> None:
    assert read_log("ts=1 lvl=3 something\n" * 30).format_known is False
    assert read_log("ts=1 lvl=3 something\n" * 5).format_known is None, "too few lines to tell"
    assert read_log("ts=1 lvl=3 something\n" * 30 + NEW.format("x")).format_known is True
    for path in HEALTHY:
        assert read_log(path.read_bytes().decode()).format_known is True


# --- ranks, groups, data parallel -------------------------------------------------------------------------------------


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


# --- errors of unknown wording, and the suite's own footprints --------------------------------------------------------

ERROR = "[2026-11-25 04:25:21,672] LMCache ERROR: {} (cache_engine.py:577:lmcache.v1.cache_engine)"


@pytest.mark.parametrize(
    ("message", "group"),
    [
        ("FSL2Adapter failed to load /x/y", "run"),
        ("S3L2Adapter failed to launch PUT", "run"),
        ("Valkey GET dispatch failed after 1/2 keys (task_id=3): x", "run"),
        ("Failed to read from file /x: [Errno 5]", "run"),
        ("Cannot store keys due to exception", "run"),
        ("[REMOTE_AUDIT][x]:GET|FAILED|Key:k|Error: e", "run"),
        ("Failed to delete /x: e", "warning"),
        ("Error closing backend x", "warning"),
        ("Failed to load remote connector x due to import/attribute error: y", "warning"),
        ("the moon is full", "warning"),
    ],
)
def test_an_error_of_lmcache_is_never_silent(message: str, group: str) -> None:
    (finding,) = read_log(ERROR.format(message)).findings
    assert (finding.signature.group, message in str(finding)) == (group, True)
    assert read_log(NEW.format(message)).findings == ()
    assert read_log(f"(EngineCore pid=7) ERROR 11-25 04:31:03 [core.py:1] {message}").findings == (), "not LMCache's"


def test_an_error_and_its_traceback_are_one_finding_with_its_reason() -> None:
    (finding,) = read_log(
        f"{ERROR.format('boom')}\nTraceback (most recent call last):\n  File x\nValueError: y\n"
    ).findings
    assert finding.signature.id == "traceback"
    assert "boom" in str(finding)


BAD_REQUESTS = [
    "(APIServer pid=1) ERROR 11-25 10:36:07 [validation.py:151] {}",
    "(APIServer pid=1) ERROR 11-25 10:36:07 [entrypoints/.../handlers/validation.py:151] {}",  # level DEBUG
    "(APIServer pid=1) ERROR 11-25 10:36:07 [entrypoints/.../handlers/http.py:18] {}",
    "(APIServer pid=1) ERROR 11-25 10:36:07 [server_utils.py:151] {}",  # 0.25
]


@pytest.mark.parametrize("line", BAD_REQUESTS)
def test_the_suites_own_bad_requests_are_never_findings(line: str) -> None:
    assert (
        read_log("\n".join([line.format("caught"), line.format(TRACEBACK), line.format("ValueError: x")])).findings
        == ()
    )
    assert [one.signature.id for one in read_log(line.replace("/.../", "/x/").format("CUDA error: x")).findings] == []


def test_the_suites_own_bad_requests_in_a_json_log_are_never_findings() -> None:
    name = "vllm.entrypoints.serve.exception_handling.handlers.validation"
    line = record_of("RequestValidationError caught. Request id: None", "ERROR", name=name, exc_info=TRACEBACK)
    assert read_log(line).findings == ()
    assert [one.signature.id for one in read_log(line.replace(name, "vllm.v1.core")).findings] == ["traceback"]


def ids(text: str) -> list[tuple[str, str]]:
    return [(found.signature.id, found.signature.group) for found in read_log(text).findings]


@pytest.mark.parametrize(
    "message", ["Error in preprocessing prompt inputs", "Error in applying chat template from request"]
)
def test_a_bad_request_with_a_prefix_on_every_line_is_no_finding(message: str) -> None:
    """vLLM up to 0.15: the traceback has the prefix of its record on every line."""
    prefix = "(APIServer pid=3210) ERROR 02-21 16:58:46 [serving.py:323] "
    other = "(EngineCore pid=3211) INFO 02-21 16:58:46 [loggers.py:1] Running: 0 reqs"
    record = [
        prefix + message,
        prefix + TRACEBACK,
        prefix + FRAME,
        prefix + "ValueError: max_tokens must be at least 1",
    ]
    assert ids("\n".join(record)) == []
    assert ids("\n".join([record[0], other, *record[1:]])) == []
    chained = [prefix, prefix + "During handling of the above exception, another exception occurred:", prefix]
    assert ids("\n".join([*record, *chained, *record[1:]])) == []
    later = prefix.replace("serving.py:323", "core.py:7")
    assert ids("\n".join([*record, later + "x", later + TRACEBACK])) == [("traceback", "run")]
    assert ids("\n".join([record[0], later + TRACEBACK])) == [("traceback", "run")], "of another place"


CHAIN = "During handling of the above exception, another exception occurred:"
CAUSE = "The above exception was the direct cause of the following exception:"
RAW = (TRACEBACK, FRAME, "anyio.WouldBlock")
GROUP = (
    "  + Exception Group Traceback (most recent call last):",
    '  |   File "x"',
    "  | ExceptionGroup: x",
    "  +-+---------------- 1 ----------------",
    "    | Traceback (most recent call last):",
    '    |   File "y"',
    "    | KeyError: 1",
    "    | ",
    f"    | {CHAIN}",
    "    | ",
    "    | Traceback (most recent call last):",
    "    | ValueError: 2",
    "    +------------------------------------",
)
ASGI = "ERROR:    Exception in ASGI application"
HANDLED = "[2026-08-21 21:08:22,628] LMCache WARNING: could not x (a.py:1:z)"
ACCESS = 'INFO:     127.0.0.1:44 - "POST /v1/completions HTTP/1.1" 500 Internal Server Error'


@pytest.mark.parametrize("prefix", ["", "(APIServer pid=1) ", "lmcache-1  | ", "pod-x vllm "])
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((ASGI, *RAW, "", CHAIN, "", *RAW), []),
        ((ASGI, *RAW, "", CAUSE, "", *RAW, "", CHAIN, "", *RAW), []),
        ((ASGI, *GROUP), []),
        ((ASGI, *GROUP, "", CHAIN, "", *RAW), []),
        ((HANDLED, *RAW, "", CAUSE, "", *RAW), [("traceback-handled", "warning")]),
        ((ACCESS, "", *RAW, "", CAUSE, "", *RAW), [("traceback", "run")]),
        ((ASGI, *RAW, ACCESS, "", *RAW), [("traceback", "run")]),
        ((ASGI, *RAW, "", *RAW), [("traceback", "run")]),
        (("", *GROUP), [("traceback", "run")]),
    ],
)
def test_a_chain_of_tracebacks_is_judged_by_its_first(
    prefix: str, lines: tuple[str, ...], expected: list[tuple[str, str]]
) -> None:
    text = "".join(f"{prefix}{line}\n" for line in lines)
    assert ids(text) == expected
    reader = LogReader()
    for line in text.encode().splitlines(keepends=True):
        reader.feed(line)
        reader.facts()
    assert reader.facts() == read_log(text)


def test_an_answered_error_in_a_json_log_is_no_finding() -> None:
    line = record_of("Exception in ASGI application\n", "ERROR", name="uvicorn.error", exc_info=TRACEBACK)
    assert ids(line) == []


def test_a_traceback_belongs_to_the_line_above_of_its_own_process() -> None:
    other = "(EngineCore pid=2) INFO 11-25 04:31:03 [loggers.py:1] Running: 1 reqs"
    own = [f"(APIServer pid=1) {line}" for line in (ASGI, *RAW)]
    assert ids("\n".join([own[0], other, *own[1:]])) == []
    assert ids("\n".join([own[0], f"(EngineCore pid=2) {TRACEBACK}"])) == []
    assert ids("\n".join([other, own[0], f"(EngineCore pid=2) {TRACEBACK}"])) == [("traceback-handled", "warning")]


def request_log(prompt: str) -> str:
    return (
        f"INFO 11-25 04:31:03 [logger.py:39] Received request cmpl-9: prompt: {prompt!r}, "
        "params: SamplingParams(n=1), prompt_token_ids: [1], lora_request: None.\n"
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "why do I get torch.OutOfMemoryError: CUDA out of memory?",
        "explain: Traceback (most recent call last):\n File x\nKeyError",
        "vllm.v1.engine.exceptions.EngineDeadError: help",
        "what is CUDA error: no kernel image",
        "undefined symbol: foo",
        SERVER_LINE,
        NEW.format("[req_id=cmpl-1-0] Stored 2048 out of total 2048 tokens."),
        ERROR.format("Put task failed for key x: boom"),
        "INFO 11-25 04:31:03 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: x",
        "(EngineCore pid=7) [2026-11-25 04:25:21,672] LMCache WARNING: LMCache is unhealthy, skipping store",
    ],
)
@pytest.mark.parametrize("prefix", ["", "(APIServer pid=1) ", "pod-x vllm ", "blue:"])
def test_a_prompt_that_the_engine_logs_says_nothing(prompt: str, prefix: str) -> None:
    empty = LogFacts(format_known=True)
    assert read_log(prefix + request_log(prompt)) == empty
    assert read_log(prefix + request_log(prompt).replace(" cmpl-9", "")) == empty
    answer = request_log(prompt).replace("Received request cmpl-9: prompt", "Generated response cmpl-9: output")
    assert read_log(prefix + answer) == empty
    assert read_log(record_of(f"Received request cmpl-9: prompt: {prompt!r}")) == empty
    arguments = f"{prefix}INFO 11-25 04:31:03 [utils.py:12] non-default args: {{'x': {prompt!r}}}"
    assert read_log(arguments).faults == ()


def test_no_level_below_warning_is_a_fault() -> None:
    line = "(EngineCore pid=1) {} 11-25 04:31:03 [w.py:1] Exception in ('CPU', 'GPU') transfer 235: AssertionError()"
    assert ids(line.format("INFO")) == []
    assert ids(line.format("ERROR")) == [("offload-transfer", "run")]
    assert ids('INFO:     127.0.0.1:1 - "GET /x?a=CUDA error: HTTP/1.1" 404') == []


def test_debug_lines_are_never_findings() -> None:
    assert (
        read_log("(EngineCore pid=7) DEBUG 11-25 04:31:03 [v1/core.py:1] env: CUDA error: x EngineDeadError").findings
        == ()
    )


# --- piece by piece ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_a_log_read_in_pieces_says_the_same(path: Path) -> None:
    data = path.read_bytes()
    reader, at, cut = LogReader(2026), 0, random.Random(7)
    middle = data.index(b"\n", len(data) // 2) + 1
    while at < len(data):
        step = min(cut.choice([1, 30, 700, 9000]), len(data) - at, middle - at if at < middle else len(data))
        reader.feed(data[at : at + step])
        at += step
    whole = read_log(data.decode(), 2026)
    assert reader.facts() == whole
    later = reader.facts(middle)
    assert later.stored == whole.stored[len(whole.stored) - len(later.stored) :]


def test_an_unfinished_line_counts_as_it_stands() -> None:
    reader = LogReader()
    reader.feed(NEW.format("Stored 256 tokens in 0.1 seconds").encode())
    assert reader.facts().stored_tokens() == reader.facts().stored_tokens() == 256
    reader.feed(b"\n" + NEW.format("Stored 512 tokens in 0.1 seconds").encode() + b"\n")
    assert reader.facts().stored_tokens() == 768


@pytest.mark.parametrize("wrapper", SILENT_WRAPPERS)
def test_lines_that_say_nothing_cost_a_pass_over_their_bytes(wrapper: str) -> None:
    """Against a search of the same text by the same process, so that a busy machine slows both."""

    def cost(work: Callable[[], object]) -> float:
        begin = time.process_time()
        work()
        return time.process_time() - begin

    for kind, line in SILENT.items():
        data = f"{SILENT_WRAPPERS[wrapper](line)}\n".encode()
        assert replace(read_log(data.decode()), speaks=False, format_known=None) == LogFacts()
        data *= 1_500_000 // len(data)
        search = min(cost(functools.partial(data.find, b"no such text")) for _ in range(5))
        reader = LogReader()
        reader.feed(f"{NEW.format('x')}\n".encode())  # until a line is known, the first of every piece are taken apart
        took = min(cost(functools.partial(reader.feed, data)) for _ in range(3))
        assert took < 40 * search, f"{kind}: {len(data) / 1e6 / took:.0f} MB/s"


QUIET_PIECES = [
    *(wrap(line) for wrap in WRAPPERS.values() for line in (SERVER_LINE, ENGINE_LINE, NEW.format("x"))),
    *(record_of(text, level, name) for text in ("x", "LMCache is unhealthy, skipping x", "Stored 256 tokens in 0.1 seconds")
      for level in ("DEBUG", "INFO", "WARNING", "ERROR", "info", "error", "20", "40") for name in ("lmcache.v1", "vllm", "x")),
    *(json.dumps({"message": "x", "level": level, "logger": "lmcache"}) for level in (10, 20, 40)),
    json.dumps({"log": WARNING.format("x CUDA error: y"), "level": "info", "logger": "lmcache"}),
    json.dumps({"name": "x", "message": TRACEBACK, "level": "info", "labels": {"app": "lmcache", "name": "lmcache.v1"}}),
    *(line.format(text) for text in EXAMPLES.values() for line in (WARNING, NEW, ERROR, "{}", "\x1b[33m{}\x1b[0m")),
    *(f"(APIServer pid=1) WARNING 11-25 04:31:03 [a.py:1] {text}" for text in ("nothing", *EXAMPLES.values())),
    request_log(NEW.format("x")), ACCESS, ASGI, HANDLED, STOP, DEAD, *RAW, *GROUP, "", CHAIN,
]  # fmt: skip


def read_all(text: str, monkeypatch: pytest.MonkeyPatch) -> LogFacts:
    """What a reader says that looks at every line."""
    with monkeypatch.context() as patch:
        patch.setattr("fixtures.evidence.logs.reader.SAYS", re.compile(rb"[^\n]+"))
        return read_log(text)


@pytest.mark.long
def test_lines_that_are_skipped_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the search skips and what a reader without it finds are the same."""
    dice = random.Random(7)
    pieces = [*QUIET_PIECES, *(wrap(line) for wrap in SILENT_WRAPPERS.values() for line in SILENT.values())]
    pieces += [docker(line) for line in pieces]
    for _ in range(600):
        text = "\n".join(dice.choices(pieces, k=dice.randint(1, 12)))
        assert replace(read_all(text, monkeypatch), format_known=None) == replace(read_log(text), format_known=None)


@pytest.mark.parametrize("text", _SAYING)
def test_every_text_that_says_something_is_found_whatever_stands_around_it(text: str) -> None:
    coloured = "\x1b[31m" + "\x1b[0m".join(text) + "\x1b[0;1m"
    for line in (f"(APIServer pid=1) WARNING 11-25 04:31:03 [a.py:1] {text}", f"x{text}x", coloured):
        assert SAYS.search(line.encode())
    assert SAYS.search(json.dumps({"message": text}).encode())


@pytest.mark.parametrize("wrapper", SILENT_WRAPPERS)
@pytest.mark.parametrize("level", ["ERROR", "CRITICAL"])
def test_an_unknown_error_of_lmcache_is_found_behind_every_wrapper(wrapper: str, level: str) -> None:
    line = f"(EngineCore pid=7) [2026-11-25 04:25:21,672] LMCache {level}: not seen before (a.py:1:lmcache.v1.b)"
    assert ids(SILENT_WRAPPERS[wrapper](line)) == [("unknown-error", "warning")]


@pytest.mark.parametrize("level", ["error", "ERR", "Fatal", 40, 45, 50, 100, "40"])
def test_an_unknown_error_of_lmcache_is_found_by_its_level(level: str | int) -> None:
    line = json.dumps({"msg": "not seen before", "level": level, "logger": "lmcache.v1.b"})
    for text in (line, line.replace(": ", ":"), docker(line), docker(docker(line))):
        assert ids(text) == [("unknown-error", "warning")]


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_lines_of_a_real_run_that_are_skipped_say_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrap in SILENT_WRAPPERS.values():
        text = "\n".join(map(wrap, path.read_bytes().decode().splitlines()))
        assert read_all(text, monkeypatch) == read_log(text)


def test_a_prompt_that_quotes_a_line_of_lmcache_does_not_speak_for_it() -> None:
    reader = LogReader()
    reader.feed(f"{NEW.format('x')}\n".encode())
    end = reader.offset
    reader.feed(request_log(NEW.format("x")).encode())
    assert (reader.facts().speaks, reader.facts(end).speaks) == (True, False)
    reader.feed(f"{NEW.format('y')}\n{request_log(NEW.format('x'))}".encode())
    assert reader.facts(end).speaks


def test_a_log_without_its_start_says_so() -> None:
    whole = HEALTHY[1].read_bytes().decode()
    assert read_log(whole).has_start
    assert not read_log(whole[len(whole) // 2 :]).has_start
