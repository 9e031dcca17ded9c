"""Log lines of vLLM and LMCache that several tests use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.log_lines import read_log

if TYPE_CHECKING:
    from fixtures.evidence.logs.facts import LogFacts


DATA = Path(__file__).parent / "data" / "evidence"


HEALTHY = sorted(DATA.glob("*.log"))


# --- one line of every generation -------------------------------------------------------------------------------------

WARNING = "[2026-11-25 04:25:21,672] LMCache WARNING: {} (cache_engine.py:577:lmcache.v1.cache_engine)"


NEW = "[2026-11-25 04:25:21,672] LMCache INFO: {} (cache_engine.py:577:lmcache.v1.cache_engine)"


# --- ranks and requests -----------------------------------------------------------------------------------------------


def steps(*lines: str) -> LogFacts:
    return read_log("\n".join(lines))


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
    "write-handed-over": "Expired lease of key k: its buffer goes to another writer",
    "write-inconsistent": "L1Manager: commit on key k is late, potential inconsistent data might be written",
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
    "native-transfer-lost": "Failed to synchronize transfer end event; skipping 3 remaining transfers",
    "native-files-failed": "Job 12 block I/O failed: [Errno 28] No space left on device",
    "native-objects-failed": "agent.transfer failed for job 3",
    "native-transfer-failed": "transfer failed job=3 state=ERR",
    "requests-not-loaded": "Failing 1 request(s) due to KV load failure (failure_policy=fail, 512 tokens affected)",
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
    "layout-not-known": "vLLM is not available but tried to query kv cache layout information, cannot get KV cache layout",
    "hash-seed-unset": "Using builtin hash without PYTHONHASHSEED set. For production environments",
    "hash-fallback": "Could not load 'sha256_cbor' from vLLM. Using builtin hash. This may cause inconsistencies",
}


DEAD = "(APIServer pid=5) ERROR 11-25 04:36:39 [async_llm.py:704] vllm.v1.engine.exceptions.EngineDeadError: x"


STOP = "(APIServer pid=5) INFO 11-25 04:36:39 [launcher.py:100] [shutdown] API server: shutdown triggered"


def error(process: str, *messages: str) -> str:
    return "\n".join(f"({process} pid=5) ERROR 11-25 04:36:39 [core.py:7] {message}" for message in messages)


TRACEBACK = "Traceback (most recent call last):"


FRAME = '  File "core.py", line 660, in run'


# --- wrappers ---------------------------------------------------------------------------------------------------------

SERVER_LINE = "[2026-08-21 21:08:22,628] LMCache INFO: Stored 1024 tokens in 0.050 seconds (x.py:1:lmcache.a)"


ENGINE_LINE = "(EngineCore pid=7) INFO 11-25 04:31:03 [kv.py:1] GPU KV cache size: 477,072 tokens"


# --- errors of unknown wording, and the suite's own footprints --------------------------------------------------------

ERROR = "[2026-11-25 04:25:21,672] LMCache ERROR: {} (cache_engine.py:577:lmcache.v1.cache_engine)"


def ids(text: str) -> list[tuple[str, str]]:
    return [(found.signature.id, found.signature.group) for found in read_log(text).findings]


CHAIN = "During handling of the above exception, another exception occurred:"


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


def request_log(prompt: str) -> str:
    return (
        f"INFO 11-25 04:31:03 [logger.py:39] Received request cmpl-9: prompt: {prompt!r}, "
        "params: SamplingParams(n=1), prompt_token_ids: [1], lora_request: None.\n"
    )
