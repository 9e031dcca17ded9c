"""Budgets of host memory, and the processes that use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.core.baseline_record import Baseline
from fixtures.core.errors import NotJudged
from fixtures.core.record import EngineServer, RequestedConfig
from fixtures.core.units import GIB
from fixtures.instruments.host_memory import HostMemory
from fixtures.subject.host_access import process_trees
from fixtures.subject.stack import Stack
from tests.fakes import engine_server
from tests.fakes.engine_server import CONFIGURATION, FakeServer, engine_of, record, with_cache

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


cache = engine_server.cache
engine = engine_server.engine
process = engine_server.process


def budget_of(
    folder: Path,
    *,
    engines: int = 1,
    workers: int = 1,
    limit: int | None = None,
    device: str = "cuda",
    of_server: int | None = None,
) -> Any:
    log = folder / "engine-0.log"
    log.write_text(CONFIGURATION)  # 2.5 GiB
    servers = [
        EngineServer(
            name=f"engine-{number}", url="http://127.0.0.1:9", log=log, resident_at_ready_bytes=(3 + number) * GIB
        )
        for number in range(engines)
    ]
    requested = RequestedConfig(workers=workers, memory_limit_bytes=limit, cache_server_limit_bytes=of_server)
    return Stack(record(folder, engines=servers, requested=requested, device=device)).memory_budgets()


@pytest.mark.parametrize(
    ("asked", "needed"),
    [
        ({"limit": 32 * GIB}, 1 * 2.5 * 1.07 + 8),
        ({"limit": 32 * GIB, "workers": 4}, 4 * 2.5 * 1.07 + 8),
        ({"limit": 32 * GIB, "engines": 3}, 1 * 2.5 * 1.07 + 8),
        ({"engines": 3}, 3 * 2.5 * 1.07 + 3 * 8),
        ({"engines": 3, "workers": 2}, 6 * 2.5 * 1.07 + 3 * 8),
        ({"device": "cpu", "engines": 3}, 3 * 2.5 * 1.07 + 3 + 4 + 5),
        ({"device": "cpu", "engines": 3, "limit": 32 * GIB}, 1 * 2.5 * 1.07 + 5),
    ],
    ids=[
        "one",
        "workers",
        "limit-of-each-engine",
        "host-of-all",
        "host-workers",
        "cpu-host-of-all",
        "cpu-largest-engine",
    ],
)
def test_the_memory_budget_by_hand(tmp_path: Path, asked: dict[str, Any], needed: float) -> None:
    (budget,) = budget_of(tmp_path, **asked)
    assert budget.needed_bytes == pytest.approx(needed * GIB, abs=2)
    assert budget.limit_bytes == asked.get("limit", psutil.virtual_memory().total)
    assert ("memory limit of the values" in budget.limit_is) == ("limit" in asked)
    assert "2.5 GiB x 1.07" in budget.terms


def test_a_cache_server_with_a_limit_of_its_own_is_held_against_that(tmp_path: Path) -> None:
    engine, server = budget_of(tmp_path, limit=16 * GIB, of_server=4 * GIB)
    assert (engine.needed_bytes, engine.limit_bytes) == (8 * GIB, 16 * GIB)
    assert server.needed_bytes == pytest.approx((2.5 * 1.07 + 1.25) * GIB, abs=2)
    assert (server.limit_bytes, server.limit_is) == (4 * GIB, "the memory limit of the cache server")


@given(tokens=st.integers(0, 10**8), per_token=st.integers(1, 10**6))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_buffer_to_buy_holds_more_than_the_pool(tmp_path: Path, tokens: int, per_token: int) -> None:
    gib = Stack(record(tmp_path, kv_bytes_per_token=per_token)).tier.buffer_gib_for(tokens)
    assert gib == int(gib) >= 1
    assert int(gib) * GIB // per_token > tokens
    assert (gib - 1) * GIB // per_token <= tokens, "and no GiB more than that"


def test_the_bounds_of_host_memory(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    stack = with_cache(
        tmp_path, engine, cache, requested=RequestedConfig(connector={"kv_connector": "x"}), device="cuda"
    )
    stack.record.engines[0].resident_at_ready_bytes = 3 * GIB
    memory = HostMemory({}, samples=[(0.0, {"kv": 5, "engine-0": 7}), (1.0, {"kv": 6, "engine-0": 4})])
    bounds = {bound.name: (bound.peak_bytes, bound.limit_bytes) for bound in stack.host_memory_bounds(memory)}
    assert bounds == {"kv": (6, GIB + 5 * GIB // 4), "engine-0": (7, 4 * GIB)}
    stack.record.engines[0].cache_server = None
    assert stack.host_memory_bounds(memory)[1].limit_bytes == 4 * GIB, (
        "in-process: a pinned buffer is resident when ready"
    )
    stack.record.engines[0].resident_at_ready_bytes = GIB // 2
    assert stack.host_memory_bounds(memory)[1].limit_bytes == 5 * GIB // 2, "one that is taken page by page is not"
    stack.record.engines[0].resident_at_ready_bytes = 3 * GIB
    plain = Baseline(pool_tokens=1, prompt_tokens=1, cold_s=(1.0,), resident_bytes=5 * GIB // 2)
    stack.record.baseline, stack.record.device = plain, "cpu"
    assert stack.host_memory_bounds(memory)[1].limit_bytes == int(2.5 * GIB) + int(1.07 * GIB) + GIB
    stack.record.baseline = None
    stack.record.requested.connector = None
    assert stack.host_memory_bounds(memory)[1].limit_bytes == 4 * GIB, "no connector, no buffer"


@pytest.mark.parametrize(
    ("device", "settings", "workers", "limit"),
    [
        ("cuda", "", 1, 30 + 1),  # pinned whole at the start: it is in what the engine had taken when it was ready
        ("cuda", "", 2, 30 + 1),
        ("cuda", ", 'enable_lazy_memory_allocator': False", 1, 30 + 1),
        ("cuda", ", 'enable_lazy_memory_allocator': True", 1, 30 + 0.8 * 2.5 + 1),
        ("cuda", ", 'enable_lazy_memory_allocator': True, 'lazy_memory_initial_ratio': 0.5", 2, 30 + 2.5 + 1),
        ("cpu", "", 1, 30 + 2.5 + 1),
        ("cpu", "", 2, 30 + 5 + 1),
    ],
)
def test_a_pinned_buffer_counts_once(tmp_path: Path, device: str, settings: str, workers: int, limit: float) -> None:
    log = tmp_path / "engine-0.log"
    log.write_text(CONFIGURATION.replace("}", settings + "}"))
    server = EngineServer(name="engine-0", url="http://127.0.0.1:9", log=log, resident_at_ready_bytes=30 * GIB)
    asked = RequestedConfig(connector={"kv_connector": "LMCacheConnectorV1"}, workers=workers)
    stack = Stack(record(tmp_path, engines=[server], requested=asked, device=device))
    memory = HostMemory({}, samples=[(0.0, {"engine-0": 7})])
    assert stack.host_memory_bounds(memory)[0].limit_bytes == pytest.approx(limit * GIB, abs=2)


def test_memory_of_other_machines_is_not_judged(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    with pytest.raises(NotJudged, match="do not run on this machine"):
        process_trees(record(tmp_path).servers)
    trees = process_trees([engine_of(process, "http://127.0.0.1:9", None)])
    assert [one.pid for one in trees["engine-0"]()] == [process.pid]


@pytest.mark.parametrize(
    ("labels", "budget"),
    [
        ({"gpu_memory_utilization": "0.5"}, 42 * GIB),
        ({"gpu_memory_utilization": "0.5", "kv_cache_memory_bytes": "None"}, 42 * GIB),
        ({"gpu_memory_utilization": "0.5", "kv_cache_memory_bytes": "1073741824"}, "does not limit the engine"),
        ({"gpu_memory_utilization": "None"}, "is known"),
        ({}, "is known"),
    ],
)
def test_what_an_engine_may_take_of_a_card(
    tmp_path: Path, engine: FakeServer, labels: dict[str, str], budget: int | str
) -> None:
    """vLLM leaves gpu_memory_utilization out of account where --kv-cache-memory-bytes sets the pool (0.11 to 0.32)."""
    engine.info = labels
    stack = Stack(record(tmp_path, engine.url, device="cuda", gpu_total_bytes=80 * GIB))
    if isinstance(budget, str):
        with pytest.raises(NotJudged, match=budget):
            stack.gpu_budget_bytes()
    else:
        assert 40 * GIB < stack.gpu_budget_bytes() <= budget + GIB
