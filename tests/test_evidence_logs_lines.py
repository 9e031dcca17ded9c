"""Logs: a line is read behind every wrapper, in JSON, and with the name of every worker."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from fixtures.evidence.logs.lines import LogLine, parse_line
from fixtures.evidence.logs.reader import LogReader
from tests.log_examples import ENGINE_LINE, EXAMPLES, HEALTHY, NEW, SERVER_LINE, WARNING
from tests.log_lines import WRAPPERS, read_log, record_of


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
        ("(RayWorkerWrapper pid=7) ", "RayWorkerWrapper pid=7"),
        ("(RayWorkerWrapper pid=7, ip=10.0.0.3) ", "RayWorkerWrapper pid=7"),
        ("[rank3]: ", "rank3"),
        ("", None),
    ],
)
def test_every_name_of_a_worker(prefix: str, process: str | None) -> None:
    line = parse_line(prefix + SERVER_LINE)
    assert (line.process, line.level, line.message) == (process, "INFO", "Stored 1024 tokens in 0.050 seconds")


def test_rays_workers_are_told_apart_by_their_ids() -> None:
    lines = (f"(RayWorkerWrapper pid={pid}, ip=10.0.0.3) {SERVER_LINE}" for pid in (7, 8))
    assert read_log("\n".join(lines)).stored_tokens() == 1024


def test_lines_that_ray_has_merged_are_told() -> None:
    line = f"(RayWorkerWrapper pid=7, ip=10.0.0.3) {SERVER_LINE}"
    assert read_log(line).merged is False
    assert read_log(f"{line} [repeated 3x across cluster] (Ray deduplicates logs by default.)").merged is True


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
