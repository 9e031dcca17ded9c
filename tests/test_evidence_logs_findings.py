"""Logs: errors of unknown wording, tracebacks, and the errors that the suite itself provokes."""

from __future__ import annotations

import pytest

from fixtures.evidence.logs.facts import LogFacts
from fixtures.evidence.logs.reader import LogReader
from tests.log_examples import (
    ACCESS,
    ASGI,
    CHAIN,
    DEAD,
    ERROR,
    FRAME,
    GROUP,
    HANDLED,
    NEW,
    RAW,
    SERVER_LINE,
    STOP,
    TRACEBACK,
    WARNING,
    ids,
    request_log,
    steps,
)
from tests.log_lines import read_log, record_of


@pytest.mark.parametrize(("level", "id"), [("WARNING", "traceback-handled"), ("ERROR", "traceback")])
def test_a_traceback_has_the_level_of_its_record(level: str, id: str) -> None:  # noqa: A002
    text = f"[2026-11-25 04:25:21,672] LMCache {level}: boom (a.py:1:b.c)\nTraceback (most recent call last):\n  x\n"
    assert [finding.signature.id for finding in read_log(text).findings] == [id]


START = "(EngineCore pid=9) INFO 11-25 04:37:00 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: x"


@pytest.mark.parametrize(
    ("lines", "faults"),
    [
        ((DEAD, STOP), 1),
        ((STOP, DEAD), 0),
        ((STOP, DEAD, START, DEAD), 1),
        ((STOP, WARNING.format("CUDA error: x")), 1),
    ],
)
def test_an_engine_that_was_told_to_stop_may_be_dead(lines: tuple[str, ...], faults: int) -> None:
    assert len(steps(*lines).of("init", "run", "config")) == faults


def test_the_traceback_of_a_request_that_was_answered_with_500_is_no_finding() -> None:
    above = "(APIServer pid=1192) ERROR:    Exception in ASGI application\n"
    traceback = "(APIServer pid=1192) Traceback (most recent call last):\n"  # as uvicorn logs it under vLLM 0.25.1
    assert read_log(above + traceback).findings == ()
    assert [found.signature.id for found in read_log(traceback).findings] == ["traceback"]


def test_the_traceback_of_a_refused_request_is_no_finding() -> None:
    """Recorded from vLLM 0.32: malformed JSON is answered with a 400, and logged with a traceback."""
    refused = (
        "(APIServer pid=12164) ERROR 11-25 10:36:07 [validation.py:151] RequestValidationError caught. Request id: None\n"
        "(APIServer pid=12164) ERROR 11-25 10:36:07 [validation.py:151] Traceback (most recent call last):\n"
    )
    assert read_log(refused).findings == ()
    assert read_log(refused.replace("validation.py", "server_utils.py")).findings == ()  # as vLLM 0.25.1 logs it
    assert [found.signature.id for found in read_log(refused.replace("validation.py", "core.py")).findings] == [
        "traceback"
    ]


@pytest.mark.parametrize(
    ("message", "group"),
    [
        ("FSL2Adapter failed to load /x/y", "run"),
        ("S3L2Adapter failed to launch PUT", "run"),
        ("Valkey GET dispatch failed after 1/2 keys (task_id=3): x", "run"),
        ("Failed to read from file /x: [Errno 5]", "run"),
        ("Cannot store keys due to exception", "run"),
        ("[REMOTE_AUDIT][x]:GET|FAILED|Key:k|Error: e", "run"),
        ("Failed to delete /x: e", "warning"),
        ("Error closing backend x", "warning"),
        ("Failed to load remote connector x due to import/attribute error: y", "warning"),
        ("the moon is full", "warning"),
    ],
)
def test_an_error_of_lmcache_is_never_silent(message: str, group: str) -> None:
    (finding,) = read_log(ERROR.format(message)).findings
    assert (finding.signature.group, message in str(finding)) == (group, True)
    assert read_log(NEW.format(message)).findings == ()
    assert read_log(f"(EngineCore pid=7) ERROR 11-25 04:31:03 [core.py:1] {message}").findings == (), "not LMCache's"


def test_an_error_and_its_traceback_are_one_finding_with_its_reason() -> None:
    (finding,) = read_log(
        f"{ERROR.format('boom')}\nTraceback (most recent call last):\n  File x\nValueError: y\n"
    ).findings
    assert finding.signature.id == "traceback"
    assert "boom" in str(finding)


BAD_REQUESTS = [
    "(APIServer pid=1) ERROR 11-25 10:36:07 [validation.py:151] {}",
    "(APIServer pid=1) ERROR 11-25 10:36:07 [entrypoints/.../handlers/validation.py:151] {}",  # level DEBUG
    "(APIServer pid=1) ERROR 11-25 10:36:07 [entrypoints/.../handlers/http.py:18] {}",
    "(APIServer pid=1) ERROR 11-25 10:36:07 [server_utils.py:151] {}",  # 0.25
    "(APIServer pid=1) ERROR 11-25 10:36:07 [chat_utils.py:530] {}",
    "(APIServer pid=1) ERROR 11-25 10:36:07 [hermes_tool_parser.py:117] {}",
    "(APIServer pid=1) ERROR 11-25 10:36:07 [deepseek_r1_reasoning_parser.py:9] {}",
]


@pytest.mark.parametrize("line", BAD_REQUESTS)
def test_the_suites_own_bad_requests_are_never_findings(line: str) -> None:
    assert (
        read_log("\n".join([line.format("caught"), line.format(TRACEBACK), line.format("ValueError: x")])).findings
        == ()
    )
    assert [one.signature.id for one in read_log(line.replace("/.../", "/x/").format("CUDA error: x")).findings] == []


@pytest.mark.parametrize(
    "name",
    [
        "vllm.entrypoints.serve.exception_handling.handlers.validation",
        "vllm.tool_parsers.hermes_tool_parser",
        "vllm.renderers.mistral",
    ],
)
def test_the_suites_own_bad_requests_in_a_json_log_are_never_findings(name: str) -> None:
    line = record_of("RequestValidationError caught. Request id: None", "ERROR", name=name, exc_info=TRACEBACK)
    assert read_log(line).findings == ()
    assert [one.signature.id for one in read_log(line.replace(name, "vllm.v1.core")).findings] == ["traceback"]


@pytest.mark.parametrize(
    "message",
    [
        "Error in preprocessing prompt inputs",
        "Error in applying chat template from request",
        "An error occurred in `transformers` while applying chat template",
    ],
)
def test_a_bad_request_with_a_prefix_on_every_line_is_no_finding(message: str) -> None:
    """vLLM up to 0.15: the traceback has the prefix of its record on every line."""
    prefix = "(APIServer pid=3210) ERROR 02-21 16:58:46 [serving.py:323] "
    other = "(EngineCore pid=3211) INFO 02-21 16:58:46 [loggers.py:1] Running: 0 reqs"
    record = [
        prefix + message,
        prefix + TRACEBACK,
        prefix + FRAME,
        prefix + "ValueError: max_tokens must be at least 1",
    ]
    assert ids("\n".join(record)) == []
    assert ids("\n".join([record[0], other, *record[1:]])) == []
    chained = [prefix, prefix + "During handling of the above exception, another exception occurred:", prefix]
    assert ids("\n".join([*record, *chained, *record[1:]])) == []
    later = prefix.replace("serving.py:323", "core.py:7")
    assert ids("\n".join([*record, later + "x", later + TRACEBACK])) == [("traceback", "run")]
    assert ids("\n".join([record[0], later + TRACEBACK])) == [("traceback", "run")], "of another place"


CAUSE = "The above exception was the direct cause of the following exception:"


@pytest.mark.parametrize("prefix", ["", "(APIServer pid=1) ", "lmcache-1  | ", "pod-x vllm "])
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((ASGI, *RAW, "", CHAIN, "", *RAW), []),
        ((ASGI, *RAW, "", CAUSE, "", *RAW, "", CHAIN, "", *RAW), []),
        ((ASGI, *GROUP), []),
        ((ASGI, *GROUP, "", CHAIN, "", *RAW), []),
        ((HANDLED, *RAW, "", CAUSE, "", *RAW), [("traceback-handled", "warning")]),
        ((ACCESS, "", *RAW, "", CAUSE, "", *RAW), [("traceback", "run")]),
        ((ASGI, *RAW, ACCESS, "", *RAW), [("traceback", "run")]),
        ((ASGI, *RAW, "", *RAW), [("traceback", "run")]),
        (("", *GROUP), [("traceback", "run")]),
    ],
)
def test_a_chain_of_tracebacks_is_judged_by_its_first(
    prefix: str, lines: tuple[str, ...], expected: list[tuple[str, str]]
) -> None:
    text = "".join(f"{prefix}{line}\n" for line in lines)
    assert ids(text) == expected
    reader = LogReader()
    for line in text.encode().splitlines(keepends=True):
        reader.feed(line)
        reader.facts()
    assert reader.facts() == read_log(text)


def test_an_answered_error_in_a_json_log_is_no_finding() -> None:
    line = record_of("Exception in ASGI application\n", "ERROR", name="uvicorn.error", exc_info=TRACEBACK)
    assert ids(line) == []


def test_a_traceback_belongs_to_the_line_above_of_its_own_process() -> None:
    other = "(EngineCore pid=2) INFO 11-25 04:31:03 [loggers.py:1] Running: 1 reqs"
    own = [f"(APIServer pid=1) {line}" for line in (ASGI, *RAW)]
    assert ids("\n".join([own[0], other, *own[1:]])) == []
    assert ids("\n".join([own[0], f"(EngineCore pid=2) {TRACEBACK}"])) == []
    assert ids("\n".join([other, own[0], f"(EngineCore pid=2) {TRACEBACK}"])) == [("traceback-handled", "warning")]


@pytest.mark.parametrize(
    "prompt",
    [
        "why do I get torch.OutOfMemoryError: CUDA out of memory?",
        "explain: Traceback (most recent call last):\n File x\nKeyError",
        "vllm.v1.engine.exceptions.EngineDeadError: help",
        "what is CUDA error: no kernel image",
        "undefined symbol: foo",
        SERVER_LINE,
        NEW.format("[req_id=cmpl-1-0] Stored 2048 out of total 2048 tokens."),
        ERROR.format("Put task failed for key x: boom"),
        "INFO 11-25 04:31:03 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: x",
        "(EngineCore pid=7) [2026-11-25 04:25:21,672] LMCache WARNING: LMCache is unhealthy, skipping store",
    ],
)
@pytest.mark.parametrize("prefix", ["", "(APIServer pid=1) ", "pod-x vllm ", "blue:"])
def test_a_prompt_that_the_engine_logs_says_nothing(prompt: str, prefix: str) -> None:
    empty = LogFacts(format_known=True)
    assert read_log(prefix + request_log(prompt)) == empty
    assert read_log(prefix + request_log(prompt).replace(" cmpl-9", "")) == empty
    answer = request_log(prompt).replace("Received request cmpl-9: prompt", "Generated response cmpl-9: output")
    assert read_log(prefix + answer) == empty
    assert read_log(record_of(f"Received request cmpl-9: prompt: {prompt!r}")) == empty
    arguments = f"{prefix}INFO 11-25 04:31:03 [utils.py:12] non-default args: {{'x': {prompt!r}}}"
    assert read_log(arguments).of("init", "run", "config") == ()


def test_no_level_below_warning_is_a_fault() -> None:
    line = "(EngineCore pid=1) {} 11-25 04:31:03 [w.py:1] Exception in ('CPU', 'GPU') transfer 235: AssertionError()"
    assert ids(line.format("INFO")) == []
    assert ids(line.format("ERROR")) == [("offload-transfer", "run")]
    assert ids('INFO:     127.0.0.1:1 - "GET /x?a=CUDA error: HTTP/1.1" 404') == []


def test_debug_lines_are_never_findings() -> None:
    assert (
        read_log("(EngineCore pid=7) DEBUG 11-25 04:31:03 [v1/core.py:1] env: CUDA error: x EngineDeadError").findings
        == ()
    )
