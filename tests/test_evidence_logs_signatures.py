"""Logs: one line for every signature of a fault, and lines that resemble one."""

from __future__ import annotations

from typing import get_args

import pytest

from fixtures.catalogue.signatures import SIGNATURES, Group
from tests.log_examples import EXAMPLES, NEW, WARNING
from tests.log_lines import read_log


def test_the_table_names_each_signature_once_and_a_known_group() -> None:
    ids = [one.id for one in SIGNATURES]
    assert len(ids) == len(set(ids))
    assert {one.group for one in SIGNATURES} == set(get_args(Group))


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
        ("WARNING", "L1Manager: commit on key k (tag 't') whose write reservation expired, potential", "write-expired"),
        ("WARNING", "Write reservation for key k has lapsed; its memory was reused", "write-expired"),
        ("WARNING", "expired write reservation of key k", "write-expired"),
        ("WARNING", "write lease of k is over; handing the buffer to the next writer", "write-handed-over"),
    ],
)
def test_a_tier_that_fails_is_never_silent(level: str, message: str, id: str) -> None:  # noqa: A002
    """Literals of LMCache 0.5.6, at the level it logs them at; other words for a buffer that is given away."""
    (finding,) = read_log(f"[2026-08-21 21:08:22,628] LMCache {level}: {message} (a.py:1:x)\n").findings
    assert (finding.signature.id, finding.signature.group) == (id, "run")


@pytest.mark.parametrize(
    ("level", "message", "id"),
    [
        ("ERROR", "Job 12 block I/O failed: [Errno 28] No space left on device", "native-files-failed"),
        ("WARNING", "register_memory (OBJ) failed for job 3", "native-objects-failed"),
        ("WARNING", "prep_xfer_dlist (OBJ) failed for job 3", "native-objects-failed"),
        ("WARNING", "make_prepped_xfer failed for job 3", "native-objects-failed"),
        ("WARNING", "agent.transfer failed for job 3", "native-objects-failed"),
        ("WARNING", "transfer failed job=3 state=ERR", "native-transfer-failed"),
        ("ERROR", "Failed to synchronize transfer end event; skipping 3 remaining transfers", "native-transfer-lost"),
        (
            "ERROR",
            "Failing 2 request(s) due to KV load failure (failure_policy=fail, 512 tokens affected). Request IDs: {'a', 'b'}",
            "requests-not-loaded",
        ),
    ],
)
def test_vllms_own_offloading_that_fails_is_never_silent(level: str, message: str, id: str) -> None:  # noqa: A002
    """Literals of vLLM 0.32, at the level it logs them at."""
    (finding,) = read_log(f"(EngineCore pid=1) {level} 08-21 21:08:22 [manager.py:274] {message}\n").findings
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
    assert read_log(WARNING.format(message)).of("init", "run", "config") == ()


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


def test_groups() -> None:
    facts = read_log("\n".join(WARNING.format(message) for message in EXAMPLES.values()))
    assert {finding.signature.group for finding in facts.of("init", "run", "config")} == {"init", "run", "config"}
    assert {finding.signature.group for finding in facts.of("warning")} == {"warning"}
    assert [finding.signature.id for finding in facts.of("config")] == [
        "config-unparsable",
        "config-unknown-key",
        "config-absent-key",
    ]
