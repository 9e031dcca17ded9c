"""What is in effect with vLLM's own offloading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixtures.core.errors import NotJudged
from fixtures.core.record import EngineServer, RequestedConfig, StackRecord
from fixtures.evidence.prometheus import Samples
from fixtures.subject.stack import Stack
from tests.fakes.configured_stack import stack_of

NATIVE_START = (Path(__file__).parent / "data/evidence/native-h200-vllm0.32.0.engine.log").read_text()
"""OffloadingConnector on an H200, which says that it made 34.36 GB; a CPU makes no such region."""


SIMPLE_START = (
    "(Worker pid=1) INFO 11-29 22:04:08 [simple_cpu_offload_connector.py:150] SimpleCPUOffloadConnector: role=WORKER, "
    "per_rank=16.00 GB, world_size=2, mode=eager, backend=cpu, disk=none\n"
)


INFO = 'vllm:cache_config_info{{block_size="16",kv_offloading_size="{size}"}} 1.0\n'


def native_stack(
    folder: Path, monkeypatch: pytest.MonkeyPatch, start: str, size: str, *argv: str, **extra: Any
) -> Stack:
    connector = {"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}
    stack = stack_of(folder, RequestedConfig(buffer_gb=32, buffer_text="32"), config=connector, argv=argv)
    (folder / "engine-0.log").write_text(start)
    monkeypatch.setattr(stack.engine, "samples", lambda: Samples.parse(INFO.format(size=size)))
    return stack


@pytest.mark.parametrize(
    ("start", "size", "extra", "buffer_gib", "chunk"),
    [
        ("", "32.0", {}, 32, 16),
        (NATIVE_START, "32.0", {}, 32, 16),
        (NATIVE_START.replace("34.36", "34.35"), "None", {"cpu_bytes_to_use": 32 << 30}, 32, 16),
        (NATIVE_START.replace("34.36", "17.18"), "32.0", {}, 16, 16),
        (SIMPLE_START, "32.0", {}, 32, 16),
        (SIMPLE_START, "None", {}, 32, 16),
        ("", "32.0", {"blocks_per_chunk": 4}, 32, 64),
        ("", "32.0", {"block_size": 128}, 32, 128),
    ],
)
def test_the_tier_of_a_native_connector(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start: str,
    size: str,
    extra: dict[str, Any],
    buffer_gib: int,
    chunk: int,
) -> None:
    stack = native_stack(tmp_path, monkeypatch, start, size, **extra)
    found = stack.effective_config
    assert found.buffer_bytes is not None
    assert (round(found.buffer_bytes / 2**30, 1), found.chunk_tokens) == (buffer_gib, chunk)
    different = stack.compare_config(stack.engine).different
    assert bool(different) == (buffer_gib != 32)
    assert (stack.chunk_tokens, stack.logs.offload_announced(stack.engine)) == (chunk, True)


@pytest.mark.parametrize("metric", ["vllm:kv_offload_total_bytes_total", "vllm:simple_kv_offload_info", "vllm:x"])
def test_a_native_connector_is_known_by_its_metrics_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    engine = EngineServer(name="engine-0", url="http://127.0.0.1:9")
    stack = Stack(StackRecord(id="x", kind="attach", config="c", folder=tmp_path, model="m", engines=[engine]))
    page = INFO.format(size="4.0") + f'{metric}{{engine="0"}} 1.0\n'
    monkeypatch.setattr(stack.engine, "samples", lambda: Samples.parse(page))
    if metric == "vllm:x":
        with pytest.raises(NotJudged):
            _ = stack.chunk_tokens
    else:
        assert (stack.chunk_tokens, stack.effective_config.buffer_bytes) == (16, 4 << 30)
        assert stack.tier.eviction_policy == "LRU"
