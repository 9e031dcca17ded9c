"""Logs of a stack: windows, excerpts, findings, and what a log without its start proves."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NotJudged
from fixtures.core.record import EngineServer
from fixtures.subject.host_access import HostAccess
from fixtures.subject.log_file import LogFile
from fixtures.subject.stack import Stack
from tests.fakes import engine_server
from tests.fakes.engine_server import START, STORED_64, FakeServer, environment, record, with_cache

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.instruments.prompts import Prompts

cache = engine_server.cache
engine = engine_server.engine
prompts = engine_server.prompts


@pytest.mark.parametrize("level", ["WARNING", "warn", "Error", "CRITICAL"])
def test_a_level_that_hides_the_proof_is_not_judged(tmp_path: Path, level: str) -> None:
    stack = environment(tmp_path, None, LMCACHE_LOG_LEVEL=level)
    stack.engine.log = LogFile(tmp_path / "engine-0.log")
    with pytest.raises(NotJudged, match=f"LMCACHE_LOG_LEVEL={level.upper()} on engine-0 hides"):
        stack.logs.require_info_level()
    with pytest.raises(NotJudged, match="hides"):
        stack.logs.offload_announced(stack.engine)


@pytest.mark.parametrize("env", [{}, {"LMCACHE_LOG_LEVEL": "INFO"}, {"LMCACHE_LOG_LEVEL": "debug"}], ids=str)
def test_a_level_that_shows_the_proof_is_judged(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = environment(tmp_path, None, **env)
    with pytest.raises(NotJudged, match="no access to its logs"):
        stack.logs.require_info_level()
    log = tmp_path / "engine-0.log"
    stack.engine.log = LogFile(log)
    stack.logs.require_info_level()
    log.write_text(START)
    assert not stack.logs.offload_announced(stack.engine), "a log that may speak and does not: nothing was initialised"
    log.write_text(
        "[2026-11-25 04:25:21,672] LMCache INFO: LMCache initialized for role KVConnectorRole.WORKER (a.py:1:b)\n"
    )
    assert stack.logs.offload_announced(stack.engine)
    monkeypatch.setattr(LogFile, "text", lambda *_: pytest.fail("a log of megabytes was read again for one request"))
    stack.logs.require_info_level()
    assert stack.logs.offload_announced(stack.engine)


NOISE = '(APIServer pid=5) INFO:     127.0.0.1:5 - "GET /metrics HTTP/1.1" 200 OK\n'


KEPT = '(APIServer pid=5) INFO:     127.0.0.1:5 - "POST /v1/completions HTTP/1.1" 200 OK'


def test_an_excerpt_drops_the_noise_of_this_suites_own_polls(
    tmp_path: Path, engine: FakeServer, cache: FakeServer
) -> None:
    stack = with_cache(tmp_path, engine, cache)
    (tmp_path / "engine-0.log").write_text("before\n")
    positions = stack.logs.positions()
    assert positions == {"engine-0": 7, "kv": 0}, "a log that is not there yet begins at 0"
    with (tmp_path / "engine-0.log").open("a") as file:
        file.write(NOISE * 300 + f"\n\x1b[32mfirst\x1b[0m\n{NOISE}{KEPT}\n" + NOISE * 300)
    (tmp_path / "kv.log").write_text("stored\n")
    assert stack.logs.since(positions) == f"== engine-0\nfirst\n{KEPT}\n== kv\nstored"
    assert stack.logs.since(positions, lines=1) == f"== engine-0\n{KEPT}\n== kv\nstored"
    (tmp_path / "kv.log").write_text(NOISE)
    assert "== kv" not in stack.logs.since(positions), "a log with nothing to say has no headline"


def test_a_log_window_begins_just_before_the_request(
    tmp_path: Path, engine: FakeServer, cache: FakeServer, prompts: Prompts
) -> None:
    stack = with_cache(tmp_path, engine, cache)
    line = "[2026-11-25 04:31:45,869] LMCache INFO: Stored 64 tokens in 0.017 seconds (x.py:1:y)\n"
    (tmp_path / "kv.log").write_text(line)

    def store(payload: dict[str, Any]) -> None:
        with (tmp_path / "kv.log").open("a") as file:
            file.write(line * 2)
        engine.count(payload)

    engine.on_post = store
    asked = stack.complete(prompts.of_length(50))
    assert asked.stored_in(stack.accounting.log_of(asked).facts()) == 128


def test_findings_are_those_of_every_log(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    stack = with_cache(tmp_path, engine, cache)
    failed = "[2026-11-25 04:31:45,869] LMCache ERROR: Some keys not found during retrieve! (x.py:1:y)\n"
    (tmp_path / "engine-0.log").write_text("fine\n")
    (tmp_path / "kv.log").write_text(failed)
    assert [found.signature.id for found in stack.logs.findings("run")] == ["mp-keys-missing"]
    assert stack.logs.findings("init") == []
    assert os.fspath(tmp_path) not in str(stack.logs.findings("run")[0])


def test_a_log_without_its_start_is_no_proof_of_nothing(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    stack = with_cache(tmp_path, engine, cache)
    (tmp_path / "engine-0.log").write_text(NOISE * 30)
    (tmp_path / "kv.log").write_text(STORED_64)
    with pytest.raises(NotJudged, match="does not contain the start-up"):
        stack.logs.offload_announced(stack.engine)
    (tmp_path / "engine-0.log").write_text(START + NOISE)
    with pytest.raises(NotJudged, match="does not contain the start-up"):
        stack.logs.offload_announced(stack.engine)
    cache.status = {"non_cuda_context_meta": {"7": {"world_size": 1}}}
    assert stack.logs.offload_announced(stack.engine), "a worker is registered"


UNKNOWN_KEY = "[2026-11-25 04:25:21,672] LMCache WARNING: Unknown config key: max_cpu (config_base.py:1:b)\n"
UP = "[2026-11-25 04:25:21,672] LMCache INFO: LMCache ZMQ cache server is running... (server.py:1:b)\n"


def test_settings_are_not_judged_by_a_log_without_its_start(
    tmp_path: Path, engine: FakeServer, cache: FakeServer
) -> None:
    """LMCache complains of a setting when it starts: one that was rotated since then holds no complaint."""
    stack = with_cache(tmp_path, engine, cache)
    own, server = tmp_path / "engine-0.log", tmp_path / "kv.log"
    own.write_text(NOISE * 30)
    server.write_text(STORED_64)
    with pytest.raises(NotJudged, match=r"^the log of engine-0 does not contain the start-up"):
        stack.logs.findings("config")
    stack.record.cache_servers[0].argv = ("/opt/venv/bin/lmcache", "server")
    with pytest.raises(NotJudged, match=r"^the log of engine-0, kv does not contain the start-up"):
        stack.logs.findings("config")
    assert stack.logs.findings("run") == [], "what fails while it runs is logged while it runs"
    with own.open("a") as file:
        file.write(UNKNOWN_KEY)
    assert len(stack.logs.findings("config")) == 1, "a complaint is one wherever it stands"
    own.write_text(START + NOISE)
    server.write_text(UP + STORED_64)
    stack = with_cache(tmp_path, engine, cache)
    assert stack.logs.findings("config") == []


def test_a_start_without_lmcache_is_proof(tmp_path: Path, engine: FakeServer) -> None:
    log = tmp_path / "engine-0.log"
    log.write_text(START + NOISE)
    stack = Stack(record(tmp_path, engines=[EngineServer(name="engine-0", url=engine.url, log=log)]))
    assert not stack.logs.offload_announced(stack.engine)


def test_a_log_of_an_unknown_format_is_not_judged(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    stack = with_cache(tmp_path, engine, cache)
    (tmp_path / "engine-0.log").write_text("ts=1 lvl=3 something\n" * 30)
    for ask in (
        stack.logs.require_info_level,
        lambda: stack.logs.findings("run"),
        lambda: stack.logs.offload_announced(stack.engine),
    ):
        with pytest.raises(NotJudged, match="the log of engine-0 has an unknown format"):
            ask()


def test_lines_that_ray_has_merged_are_not_counted(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    stack = with_cache(tmp_path, engine, cache)
    log = tmp_path / "engine-0.log"
    line = "(RayWorkerWrapper pid=7) [2026-11-30 11:00:00,000] LMCache INFO: [req_id=a-0] Stored 512 out of total 512 tokens."
    log.write_text(f"{START}{line}\n")
    stack.logs.require_info_level()
    log.write_text(f"{START}{line}\n{line} [repeated 3x across cluster] (Ray deduplicates logs by default.)\n")
    with pytest.raises(NotJudged, match="RAY_DEDUP_LOGS=0"):
        stack.logs.require_info_level()


@pytest.mark.parametrize("group", ["run", "warning", "config"])
@pytest.mark.parametrize(
    "text", [None, "", "\n\n", "hello\nworld\n"], ids=["absent", "empty", "blank", "of something else"]
)
def test_a_log_that_says_nothing_is_no_proof_that_nothing_failed(
    tmp_path: Path, engine: FakeServer, cache: FakeServer, text: str | None, group: Any
) -> None:
    stack = with_cache(tmp_path, engine, cache)
    (tmp_path / "kv.log").write_text(STORED_64)
    if text is not None:
        (tmp_path / "engine-0.log").write_text(text)
    with pytest.raises(NotJudged, match="the log of engine-0 contains no line of vLLM or LMCache"):
        stack.logs.findings(group)
    (tmp_path / "kv.log").write_text(text or "")
    with pytest.raises(NotJudged, match=r"contains no line|does not contain the start-up"):
        stack.logs.offload_announced(stack.engine)
    (tmp_path / "engine-0.log").write_text(START)
    (tmp_path / "kv.log").write_text(STORED_64)
    assert stack.logs.findings(group) == []


def test_what_was_logged_before_the_run_is_history(tmp_path: Path, engine: FakeServer) -> None:
    failed = "[2026-11-25 04:31:45,869] LMCache ERROR: Put task failed for key {}: x (x.py:1:y)\n"
    log = tmp_path / "engine-0.log"
    log.write_text(failed.format("old"))
    of = record(tmp_path, engines=[EngineServer(name="engine-0", url=engine.url, log=log)])
    own, attached = Stack(of), Stack(of, HostAccess(of, attached=True))
    assert [len(own.logs.findings("run")), len(attached.logs.findings("run"))] == [1, 0]
    assert ["old" in str(one) for one in attached.logs.earlier_findings("run")] == [True]
    with log.open("a") as file:
        file.write(failed.format("new"))
    assert ["new" in str(one) for one in attached.logs.findings("run")] == [True]
    assert len(own.logs.findings("run")) == 2
    assert len(attached.logs.earlier_findings("run")) == 1
