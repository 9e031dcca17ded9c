"""Filling a tier until it evicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.core.errors import NotJudged
from fixtures.core.units import GIB
from fixtures.experiments.filling import fill_tier
from tests.fakes import engine_server
from tests.fakes.engine_server import FakeServer, with_cache

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.instruments.prompts import Prompts


cache = engine_server.cache
engine = engine_server.engine
prompts = engine_server.prompts


def test_a_tier_that_never_evicts_was_never_full(
    tmp_path: Path, engine: FakeServer, cache: FakeServer, prompts: Prompts
) -> None:
    stack = with_cache(tmp_path, engine, cache, kv_bytes_per_token=GIB // 1000)
    with pytest.raises(
        NotJudged, match=r"2048 tokens were sent to a tier of 1000 tokens, and its own counters show no eviction"
    ):
        fill_tier(stack, prompts)
    cache.cache["l1_evicted_chunks_total"] = 1
    engine.on_post = lambda payload: (engine.count(payload), cache.cache.update(l1_evicted_chunks_total=2))[0]
    assert fill_tier(stack, prompts) == 8 * 256
    engine.info["num_gpu_blocks"] = "200"
    larger = with_cache(tmp_path, engine, cache, kv_bytes_per_token=GIB // 1000)
    engine.on_post = lambda payload: (
        engine.count(payload),
        cache.cache.update(l1_evicted_chunks_total=1 + len(engine.posts)),
    )[0]
    assert fill_tier(larger, prompts) == 2 * 8 * 256, "until the pool of 3200 tokens was used, too"
