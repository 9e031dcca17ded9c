"""Faults that need a GPU, and the healthy variant of its configuration."""

from __future__ import annotations

from lab.catalogue.model import Fault, Healthy, Hook, Values, ids
from lab.catalogue.settings import ACTIVE, CORRECT, LOADS, STORES

GPU_FAULTS: tuple[Fault, ...] = (
    Fault(
        "connector-overridden",
        "configuration",
        "--kv-offloading-size beside the chart's connector: vLLM puts its own in its place, without a message",
        "V 0.32 config/vllm.py (source)",
        Values({}, extra_args=("--kv-offloading-size", "1"), where="command", shows="--kv-offloading-size 1"),
        ids("CFG-01"),
        allowed=ACTIVE | LOADS | STORES,
        tests=("CFG-01", "ACT-02", "ACC-02", "API-06"),
    ),
    Fault(
        "card-load-damaged",
        "wrong answer",
        "one layer of the first chunk is zero when it reaches the card",
        "V#31210, LM#4385",
        Hook("corrupt-load", {"first": 1, "layer": 7}),
        ids("COR-01"),
        allowed=CORRECT,
        tests=("CFG-01", "ACC-02", "COR-01", "COR-02", "COR-03", "COR-04", "API-02", "API-06"),
    ),
    Fault(
        "card-load-left-out",
        "wrong answer",
        "chunks are reported as loaded and never reach the card",
        "V#45704; LM 0.5.3 vllm_v1_adapter.py, start_load_kv without attention metadata (source)",
        Hook("empty-load"),
        ids("COR-01"),
        allowed=CORRECT | ids("ACT-03"),
        tests=("CFG-01", "ACC-02", "COR-01", "COR-02", "COR-03", "COR-04", "API-02", "API-06"),
    ),
    Fault(
        "card-load-slow",
        "latency",
        "every load to the card takes half a second longer than its bytes need",
        "LM#1938, LM#2205",
        Hook("slow-load", {"seconds": 0.5}),
        ids("LAT-01 LAT-03 LAT-06"),
        tests=("CFG-01", "ACC-02", "LAT-01", "LAT-02", "LAT-03", "LAT-05", "LAT-06", "API-06"),
    ),
    Fault(
        "card-memory-leak",
        "memory",
        "every load keeps 32 MiB of the card",
        "LM#5270, LM#1399",
        Hook("take-gpu-memory", {"bytes": 32 << 20, "most": 3 << 30}),
        ids("MEM-02"),
        allowed=ids("MEM-01"),
        tests=("CFG-01", "ACC-02", "MEM-02", "API-06"),
    ),
    Fault(
        "card-memory-taken",
        "memory",
        "the first load takes 4 GiB of the card beyond what the engine was promised, and keeps them",
        "PS#1062",
        Hook("take-gpu-memory", {"bytes": 4 << 30, "most": 4 << 30}),
        ids("MEM-01"),
        tests=("CFG-01", "ACC-02", "MEM-01", "API-06"),
    ),
)

GPU_HEALTHY: tuple[Healthy, ...] = (
    Healthy("card-as-configured", "the configuration as it is", None, without=("ACT-05", "API-05", "COR-05")),
)
