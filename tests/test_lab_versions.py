"""What each pair of versions wrote in a run, and the page that says what changed between them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.record import EngineServer, Server, StackRecord
from fixtures.evidence.metrics import CacheCounters, EngineCounters
from fixtures.evidence.prometheus import Samples
from lab import versions
from lab.versions import Recording
from tests.log_lines import read_log

if TYPE_CHECKING:
    from pathlib import Path

PAIRS = sorted(one.name for one in versions.RECORDINGS.iterdir())
NAMES = ("vllm-0.9.0-lmcache-0.5.3", "vllm-0.10.0-lmcache-0.5.4")


@pytest.mark.parametrize("pair", PAIRS)
def test_the_counters_of_every_pair_are_read(pair: str) -> None:
    folder = versions.RECORDINGS / pair
    engine = EngineCounters.read(Samples.parse((folder / "engine.metrics.txt").read_text()))
    assert None not in (engine.computed, engine.gpu_hit, engine.loaded, engine.prompt_tokens, engine.requests_finished)
    assert None not in (engine.running, engine.waiting, engine.kv_usage, engine.preemptions)
    assert (engine.block_size, engine.pool_tokens, engine.prefix_caching_enabled) == (128, 128 * 256, True)
    cache = CacheCounters.read(Samples.parse((folder / "cache-server.metrics.txt").read_text()), 256)
    assert cache.flavour == "multi-process"
    assert None not in (cache.stored_tokens, cache.lookup_tokens, cache.hit_tokens, cache.evicted, cache.usage_ratio)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_logs_of_every_pair_are_read(pair: str) -> None:
    folder, (vllm, lmcache) = versions.RECORDINGS / pair, versions.versions(pair)
    engine = read_log((folder / "engine.log").read_text())
    assert vllm in {one.version for one in engine.versions} <= {vllm, lmcache}
    assert [one.tokens for one in engine.kv_pools] == [32768]
    server = read_log((folder / "cache-server.log").read_text())
    assert [one.version for one in server.versions] == [lmcache]
    assert server.servers_up
    assert server.registered
    assert server.stored
    assert server.hits
    assert server.retrieved
    assert server.of("init", "run", "config") == engine.of("init", "run", "config") == ()


def test_the_page_is_in_step() -> None:
    assert versions.document(versions.recordings()) == versions.DOCUMENT.read_text(), "run python -m lab.versions"
    assert len(PAIRS) >= 4


def test_what_changed_from_one_pair_to_the_next() -> None:
    old = Recording({"engine": {"vllm:a": ("x",), "vllm:b": (), "vllm:c": ()}}, {"engine": {"Stored N": "Stored"}})
    new = Recording(
        {"engine": {"vllm:a": ("x", "y"), "vllm:b": (), "vllm:d": ("z",)}}, {"engine": {"Kept N": "Stored"}}
    )
    text = versions.document(dict(zip(NAMES, (old, new), strict=True)))
    assert "## vLLM 0.9.0 with LMCache 0.5.3 to vLLM 0.10.0 with LMCache 0.5.4" in text, "by number, not by letter"
    assert text.splitlines()[-5:] == [
        "| the engine | metric `vllm:a` | labels: new `y` |",
        "| the engine | metric `vllm:c` | gone |",
        "| the engine | metric `vllm:d` | new, labels `z` |",
        "| the engine | line `Kept N` | new |",
        "| the engine | line `Stored N` | gone |",
    ]
    assert "Nothing." in versions.document(dict(zip(NAMES, (old, old), strict=True)))
    with pytest.raises(ValueError, match="not the name of a pair"):
        versions.versions("latest")


PAGE = """\
# HELP vllm:time_to_first_token_seconds Histogram.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{le="0.1",model_name="m"} 1.0
vllm:time_to_first_token_seconds_sum{model_name="m"} 0.5
vllm:time_to_first_token_seconds_count{model_name="m"} 1.0
# TYPE vllm:prompt_tokens_by_source_total counter
vllm:prompt_tokens_by_source_total{model_name="m",source="local_compute"} 7.0
vllm:prompt_tokens_by_source_total{model_name="n",source="local_compute"} 8.0
vllm:prompt_tokens_by_source_total{model_name="m",source="external_kv_transfer"} 9.0
vllm:prompt_tokens_by_source_created{model_name="m",source="local_compute"} 1.7e9
# TYPE python_info gauge
python_info{version="3.11"} 1.0
"""
LOG = """\
[2026-11-30 01:25:24,409] LMCache INFO: Stored 512 tokens in 0.054 seconds (a.py:1:b)
[2026-11-30 01:25:25,409] LMCache INFO: Stored 256 tokens in 0.051 seconds (a.py:1:b)
[2026-11-30 01:25:25,509] LMCache INFO: LMCache ZMQ cache server is running on tcp://192.0.2.7:5555 (a.py:1:b)
[2026-11-30 01:25:25,609] LMCache WARNING: pinned memory is not available (a.py:1:b)
[2026-11-30 01:25:25,709] LMCache INFO: anything else (a.py:1:b)
"""


def test_a_recording_has_one_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made when the last test has ended, of what the stack of the tests wrote."""
    for name in ("engine.log", "kv.log"):
        (tmp_path / name).write_text(LOG)
    stack = StackRecord(
        id="s",
        kind="process",
        config="c",
        folder=tmp_path,
        model="m",
        device="cpu",
        engines=[EngineServer(name="e", url="http://127.0.0.1:9", log=tmp_path / "engine.log")],
        cache_servers=[Server(name="kv", url="http://127.0.0.1:9", log=tmp_path / "kv.log")],
    )
    monkeypatch.setattr(versions, "metrics_pages", lambda _: {"e": PAGE, "kv": "# nothing\n"})
    monkeypatch.setenv(versions.FOLDER_VARIABLE, str(tmp_path / NAMES[0]))
    item: Any = SimpleNamespace(funcargs={"stack": SimpleNamespace(record=stack)})
    versions.pytest_runtest_teardown(item, item)
    assert not (tmp_path / NAMES[0]).exists()
    skipped: Any = SimpleNamespace()
    versions.pytest_runtest_teardown(skipped, None)
    found = versions.recordings(tmp_path)[NAMES[0]]
    assert found.metrics == {
        "engine": {
            "vllm:time_to_first_token_seconds": ("model_name",),
            "vllm:prompt_tokens_by_source_total": ("model_name", "source"),
        },
        "cache-server": {},
    }
    assert list(found.lines["engine"].values()) == ["Stored", "ServerUp", "Warning"]
    page = (tmp_path / NAMES[0] / "engine.metrics.txt").read_text()
    assert ("_bucket" in page, "python_info" in page, page.count("prompt_tokens_by_source_total{")) == (False, False, 2)
    log = (tmp_path / NAMES[0] / "engine.log").read_text()
    assert ("192.0.2.7" in log, log.count("Stored")) == (False, 1)
