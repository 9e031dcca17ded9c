"""Healthy variants: nothing may fire on them."""

from __future__ import annotations

import dataclasses
import re

from lab.catalogue.model import KNOWN_DEFECTS, SENTINELS, Healthy, Hook, Process, Proxy, Values
from lab.catalogue.settings import (
    ADAPTERS,
    BOTH,
    BY_KV,
    CAPACITY,
    DISK,
    DISK_IN_PROCESS,
    ENCRYPTED,
    EVERYTHING_BELOW,
    FAILED_LOADS_COMPUTED,
    FROZEN_ONLY,
    IN_PROCESS_BELOW,
    KILLED_ONLY,
    LM,
    LOOKED_AT,
    NAMES,
    NATIVE_TIER,
    NO_PREFIX_CACHE,
    ON_ONE_STORE,
    OWN_CONNECTOR,
    QWEN,
    REMOTE,
    REMOTE_IN_PROCESS,
    ROUTED,
    ROUTED_BY_KV,
    ROUTED_BY_PREFIX,
    ROUTING,
    SHARED,
    SHORT_DEADLINES,
    SIZED,
    SMALL_TIER,
    TWO_ENGINES,
    TWO_NAMES,
    made_here,
)

JSON_LOGS = """{
  "version": 1, "disable_existing_loggers": false,
  "formatters": {"json": {"class": "pythonjsonlogger.json.JsonFormatter",
                          "format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
  "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}},
  "loggers": {"vllm": {"handlers": ["out"], "level": "INFO", "propagate": false}}
}"""


BFLOAT16 = Values({"vllmConfig.dtype": "bfloat16"}, where="command", shows="--dtype bfloat16")


def _env(name: str, value: str, files: dict[str, str] | None = None) -> Values:
    """The configuration with one more variable, and files that it names."""
    shows = f"{name}={re.escape(value)}".replace(re.escape("{folder}"), ".*")
    return Values({}, env=((name, value),), files=files or {}, where="environment", shows=shows)


def _args(*words: str, shows: str = "") -> Values:
    """The configuration with more words on the engine's command line."""
    return Values({}, extra_args=words, where="command", shows=shows or re.escape(" ".join(words)))


HEALTHY: tuple[Healthy, ...] = (
    Healthy(
        "as-published",
        "the embedded configuration as it is, GPU prefix cache on",
        None,
        # THR and RES by "under-load" and "under-disruption", COR-06 by "failed-loads-computed"
        without=("THR-01", "THR-02", "THR-03", "RES", "COR-06"),
    ),
    Healthy("under-load", "the same under conversations", None, tests=("THR",)),
    Healthy("under-disruption", "the same with clients that disconnect", None, tests=("RES",), without=KNOWN_DEFECTS),
    Healthy("failed-loads-computed", "a failed load is computed anew", FAILED_LOADS_COMPUTED, tests=("COR-06",)),
    Healthy("short-deadlines", "a cache server is given up after 1 s", SHORT_DEADLINES, tests=("RES-04", "RES-07")),
    Healthy(
        "tier-in-files",
        "a tier in files, full, read-only, slow and gone, with files removed and cut short",
        DISK,
        tests=("TIR-04", "COR-07"),
        without=("TIR-04:frozen",),
    ),
    Healthy(
        "tier-with-checksums", "the same with checksums", Hook("checksum", values=DISK), tests=("COR-07", "COR-08")
    ),
    Healthy(
        "tier-encrypted", "the same, encrypted", ENCRYPTED, tests=("COR-07", "COR-08"), without=("COR-08:swapped",)
    ),
    Healthy(
        "tier-recounted",
        "a tier with a size counts the files of before when it starts",
        Hook("recount-at-start", values=SIZED),
        tests=("TIR-03",),
    ),
    Healthy("busy-network", "50 ms more on every request", Proxy("delay", {"seconds": 0.05})),
    Healthy(
        "metrics-slow",
        "/metrics takes eight seconds, as on an engine with many series and a busy API server",
        Proxy("delay", {"seconds": 8.0, "path": "/metrics"}),
        tests=tuple(sorted(SENTINELS | {"ACC-07"})),
        without=("COR-01:two", "COR-01:block"),  # every request waits for two pages: one case of COR-01 has to do
    ),
    Healthy("busy-machine", "another program computes on one core", Process("cpu-load"), slow=True),
    Healthy("overloaded-machine", "thirty other programs compute", Process("cpu-load", count=30)),
    Healthy("other-clients", "another client asks once a second", Process("other-clients")),
    Healthy("after-hang-ups", "forty clients have disconnected before", Process("disconnects")),
    Healthy(
        "gpu-prefix-cache-off",
        "enablePrefixCaching: false",
        NO_PREFIX_CACHE,
        without=("MEM-03",),
    ),
    Healthy(
        "chunk-128",
        "chunks of 128 tokens",
        Values({}, env=(("LMCACHE_CHUNK_SIZE", "128"),), where="environment", shows="LMCACHE_CHUNK_SIZE=128"),
    ),
    Healthy(
        "chunk-512",
        "chunks of 512 tokens",
        Values({}, env=(("LMCACHE_CHUNK_SIZE", "512"),), where="environment", shows="LMCACHE_CHUNK_SIZE=512"),
    ),
    Healthy(
        "two-engines",
        "replicaCount: 2",
        TWO_ENGINES,
    ),
    Healthy(
        "two-engines-behind-a-router",
        "two engines behind a router, and one cache server for both",
        ROUTED,
        without=KILLED_ONLY,
    ),
    Healthy("router-by-prefix", "a router that goes by the beginning of the prompt", ROUTED_BY_PREFIX, tests=ROUTING),
    Healthy("router-by-kv", "a KV-aware router that the engines tell what they hold", ROUTED_BY_KV, tests=BY_KV),
    Healthy(
        "log-level-debug",
        "log level DEBUG",
        Values({"lmcacheConfig.logLevel": "DEBUG"}, where="environment", shows="LMCACHE_LOG_LEVEL=DEBUG"),
    ),
    Healthy(
        "chunk-64",
        "chunks of 64 tokens, in blocks of 64",
        Values(
            {},
            env=(("LMCACHE_CHUNK_SIZE", "64"),),
            extra_args=("--block-size", "64", "--num-gpu-blocks-override", "512"),
            where="environment",
            shows="LMCACHE_CHUNK_SIZE=64",
        ),
    ),
    Healthy("disk-fs", "a tier of files below a small CPU tier", DISK, tests=EVERYTHING_BELOW),
    Healthy("remote-resp", "a tier in Redis below a small CPU tier", REMOTE, tests=EVERYTHING_BELOW),
    Healthy("both-below", "a tier in Redis and one in files below a small CPU tier", BOTH, tests=EVERYTHING_BELOW),
    Healthy("two-engines-on-one-store", "two engines, one cache server, one Redis", SHARED, tests=ON_ONE_STORE),
    Healthy("disk-in-process", "LMCache in process, with a tier in files", DISK_IN_PROCESS, tests=IN_PROCESS_BELOW),
    Healthy("lm-in-process", "LMCache in process, with the chart's own cache server", LM, tests=IN_PROCESS_BELOW),
    Healthy("redis-in-process", "LMCache in process, with a tier in Redis", REMOTE_IN_PROCESS, tests=IN_PROCESS_BELOW),
    Healthy("small-tier", "a CPU tier of 0.25 GiB, overfilled", SMALL_TIER, tests=CAPACITY),
    Healthy("chunk-1024", "chunks of 1 024 tokens", _env("LMCACHE_CHUNK_SIZE", "1024")),
    # vLLM's CPU attention takes multiples of 32; blocks of 16 are the default on a card, where ``--gpu`` runs.
    Healthy("block-32", "KV blocks of 32 tokens", _args("--block-size", "32", "--num-gpu-blocks-override", "1024")),
    Healthy("block-64", "KV blocks of 64 tokens", _args("--block-size", "64", "--num-gpu-blocks-override", "512")),
    Healthy(
        "adapters",
        "two LoRA adapters, and the adapter is in the key",
        Hook("adapter-in-key", values=ADAPTERS),
        tests=("COR-05", "ACC-02"),
    ),
    Healthy("llama", "a Llama-like model with a Hugging Face tokenizer", made_here("tiny-llama")),
    Healthy("mixture-of-experts", "a Mixtral-like model: eight experts, two per token", made_here("tiny-mixtral")),
    Healthy("sliding-window", "a window of 1 024 tokens in every layer", made_here("tiny-sliding")),
    Healthy("kv-fp8", "KV in fp8", _args("--kv-cache-dtype", "fp8")),
    Healthy("no-log-probabilities", "--max-logprobs 0", _args("--max-logprobs", "0")),
    Healthy("no-prompt-tokens-details", "usage without its details", _args("--no-enable-prompt-tokens-details")),
    Healthy("usage-always", "usage in every stream, asked for or not", _args("--enable-force-include-usage")),
    Healthy("data-parallel", "two data-parallel ranks, which are given requests in turn", _args("-dp", "2")),
    Healthy("bfloat16", "weights and KV in bfloat16", BFLOAT16),
    Healthy("reasoning-parser", "chat answers through a reasoning parser", _args("--reasoning-parser", "granite")),
    Healthy("engine-log-level-debug", "vLLM logs at DEBUG", _env("VLLM_LOGGING_LEVEL", "DEBUG")),
    Healthy("log-prefix", "every line of vLLM's log has a prefix", _env("VLLM_LOGGING_PREFIX", "[blue] ")),
    Healthy(
        "hugging-face-tokenizer",
        "a Qwen-like model: 8 192 words, a Hugging Face tokenizer, a chat template of its own, no begin-of-sequence token",
        QWEN,
    ),
    Healthy(
        "qwen-bfloat16",
        "a Qwen-like model in bfloat16",
        dataclasses.replace(QWEN, changes=QWEN.changes | BFLOAT16.changes, shows=BFLOAT16.shows),
    ),
    Healthy(
        "two-served-names",
        "the model is served by two names",
        _args(*NAMES),
    ),
    Healthy(
        "json-logs",
        "vLLM logs JSON (VLLM_LOGGING_CONFIG_PATH)",
        _env("VLLM_LOGGING_CONFIG_PATH", "{folder}/logging.json", files={"logging.json": JSON_LOGS}),
    ),
    Healthy(
        "lmcache-config-file",
        "LMCache's settings come from a file (LMCACHE_CONFIG_FILE)",
        _env("LMCACHE_CONFIG_FILE", "{folder}/lmcache.yaml", files={"lmcache.yaml": "chunk_size: 256\n"}),
    ),
    Healthy(
        "multi-connector",
        "LMCache's connector inside a MultiConnector",
        Values(
            OWN_CONNECTOR,
            extra_args=(
                "--kv-transfer-config",
                '{"kv_connector":"MultiConnector","kv_role":"kv_both","kv_connector_extra_config":{"connectors":'
                '[{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}]}}',
            ),
            where="command",
            shows="MultiConnector",
        ),
    ),
    Healthy(
        "multi-connector-with-a-second-tier",
        "LMCache's connector and vLLM's own inside a MultiConnector",
        Values(
            OWN_CONNECTOR,
            extra_args=(
                "--kv-transfer-config",
                '{"kv_connector":"MultiConnector","kv_role":"kv_both","kv_connector_extra_config":{"connectors":'
                '[{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"},{"kv_connector":"OffloadingConnector",'
                '"kv_role":"kv_both","kv_connector_extra_config":{"cpu_bytes_to_use":1073741824}}]}}',
            ),
            where="command",
            shows="OffloadingConnector",
        ),
    ),
    Healthy("native-offload", "vLLM's own connector, without LMCache", NATIVE_TIER),
    Healthy(
        "native-chunks-of-two-blocks",
        "vLLM's own connector with chunks of two blocks, by the connector's own configuration, and without LMCache",
        Values(
            configuration="native-cpu",
            extra_args=("--kv-transfer-config", '{"kv_connector_extra_config":{"blocks_per_chunk":2}}'),
            where="command",
            shows="blocks_per_chunk",
        ),
    ),
    Healthy(
        "disk-tier",
        "a cache server with a disk tier, and addresses that are not read: no controller, another connector",
        dataclasses.replace(
            DISK,
            env=(
                ("LMCACHE_REMOTE_URL", "lm://127.0.0.1:9"),
                ("LMCACHE_ENABLE_CONTROLLER", "False"),
                ("LMCACHE_CONTROLLER_PULL_URL", "kv-controller.invalid:9000"),
            ),
        ),
        tests=LOOKED_AT,
    ),
    Healthy(
        "router-gives-a-hung-engine-up",
        "a router that asks the other engine where one has said nothing for 6 s, and asks that no more until it is well",
        Proxy("gives-up", {"seconds": 6, "again": True, "excludes": True}, values=ROUTED),
        tests=("RTR-03", "CFG-01", "CFG-06"),
        without=FROZEN_ONLY,
    ),
    Healthy(
        "two-served-names-behind-a-router",
        "two engines whose model has two names, behind production-stack's own router",
        dataclasses.replace(TWO_NAMES, own_router=True),
        tests=("RTR-01", "RTR-02", "RTR-04", "API-02", "CFG-01"),
    ),
    Healthy(
        "three-engines",
        "replicaCount: 3, one cache server",
        Values({"replicaCount": 3}, where="record", shows="mistral-2"),
    ),
)
