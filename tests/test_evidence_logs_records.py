"""Logs: records as JSON and logfmt, in the shapes and formats of logging libraries and log collectors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fixtures.evidence.logs.lines import parse_line
from tests.log_lines import read_log


def shapes_of(message: str, level: str) -> dict[str, dict[str, Any]]:
    """A record of LMCache in the JSON shapes of logging libraries and log collectors."""
    name, path = "lmcache.v1.storage", "/opt/venv/lib/python3.12/site-packages/lmcache/v1/storage.py"
    plain = {"levelname": level, "name": name, "message": message}
    own = {"icon": "x", "name": level, "no": 40}
    return {
        "loguru": {
            "text": f"2026-11-30 11:00:00 | {level} | {name}:put:12 - {message}\n",
            "record": {"level": own, "message": message, "name": name, "process": {"name": "MainProcess"}},
        },
        "loguru, intercepted": {
            "text": f"[2026-11-30 11:00:00,000] LMCache {level}: {message}\n",
            "record": {"level": own, "message": message, "name": "logging"},
        },
        "structlog": {"event": message, "level": level.lower(), "logger": name},
        "structlog, by call site": {"event": message, "level": level.lower(), "pathname": path, "lineno": 3},
        "structlog, by module": {"event": message, "level": level.lower(), "module": name},
        "python-json-logger": plain,
        "docker": {"log": json.dumps(plain) + "\n", "stream": "stderr"},
        "elastic": {"log.level": level.lower(), "message": message, "log": {"logger": name, "original": message}},
        "google cloud": {
            "severity": level,
            "message": message,
            "logging.googleapis.com/labels": {"python_logger": name},
        },
        "google cloud, source": {
            "severity": level,
            "message": message,
            "logging.googleapis.com/sourceLocation": {"file": path},
        },
        "google cloud, exported": {"jsonPayload": plain, "severity": "DEFAULT"},
        "fluent bit": {"log": json.dumps(plain), "log_processed": plain, "kubernetes": {"labels": {"name": "x"}}},
        "open telemetry": {"body": message, "severity_text": level, "attributes": {"code.filepath": path}},
        "open telemetry, collector": {
            "body": {"stringValue": message},
            "severityText": level,
            "scope": {"name": name},
        },
        "open telemetry, exporter": {"Body": message, "SeverityText": level, "InstrumentationScope": {"name": name}},
        "capitals": {"Message": message, "Level": level, "Logger": name},
        "nested logger": {"message": message, "level": level, "logger": {"name": name, "thread_name": "x"}},
        "journal": {"MESSAGE": f"[2026-11-30 11:00:00,000] LMCache {level}: {message}", "PRIORITY": "3"},
    }


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("shape", shapes_of("", ""))
def test_records_of_libraries_and_collectors_are_read(shape: str, compact: bool) -> None:
    def written(message: str, level: str) -> str:
        return json.dumps(shapes_of(message, level)[shape], separators=(",", ":") if compact else None) + "\n"

    wording = "a wholly new failure of the tier's store"
    stored = "[req_id=cmpl-1-0] Stored 2048 out of total 2048 tokens. size"
    facts = read_log(written(wording, "ERROR") + written(stored, "INFO") + written("nothing new", "INFO"))
    assert [(one.signature.id, one.line.message) for one in facts.findings] == [("tier-error", wording)]
    assert (facts.stored_tokens("cmpl-1"), facts.speaks, facts.format_known) == (2048, True, True)
    assert parse_line(written(wording, "WARNING")).level == "WARNING"
    assert not read_log(written(wording, "WARNING")).findings


@pytest.mark.parametrize("before", ["", "pod-a vllm ", "lmcache-1  | ", "Aug 21 21:08:22 host vllm[3]: "])
@pytest.mark.parametrize(
    "shape",
    [
        'time=2026-11-25T04:31:03Z level={level} logger=lmcache.v1.storage msg="{message}"',
        'ts=1 lvl={level} name=lmcache.v1.storage message="{message}" pid=3',
        'event="{message}" severity={level} pathname=/opt/site-packages/lmcache/v1/storage.py',
        'level={level} caller=lmcache/v1/storage.py:12 msg="{message}"',
        'stream=stderr msg="[2026-11-30 11:00:00,000] LMCache {LEVEL}: {message}"',
    ],
)
def test_logfmt_is_read(shape: str, before: str) -> None:
    def written(message: str, level: str) -> str:
        return before + shape.format(message=message, level=level, LEVEL=level.upper()) + "\n"

    stored = "[req_id=cmpl-1-0] Stored 2048 out of total 2048 tokens. size"
    lines = [written(stored, "info"), written("something new", "error")]
    facts = read_log("".join([*lines, written('reservation of \\"k\\" expired while it was written', "warning")]))
    assert [one.signature.id for one in facts.findings] == ["unknown-error", "write-expired"]
    assert facts.findings[1].line.message == 'reservation of "k" expired while it was written'
    assert (facts.stored_tokens("cmpl-1"), facts.speaks, facts.format_known) == (2048, True, True)
    assert not read_log(f"INFO 11-30 11:00:00 [api.py:3] Received request x: {lines[1]}").findings
    assert not read_log(lines[1].replace("lmcache", "app").replace("LMCache", "app")).findings


def test_a_record_of_others_that_names_a_file_of_logs_is_not_lmcaches() -> None:
    for other in (
        {"message": "new", "level": "error", "path": "/var/log/lmcache.log", "module": "filebeat"},
        {"message": "new", "level": "error", "log": {"file": {"path": "/var/log/lmcache/0.log"}}},
        {"message": "new", "level": "error", "logger": "app", "pathname": "/lmcache/app.py"},
        {"message": "new", "level": "error", "pathname": "/opt/lmcache/venv/lib/python3/site-packages/ray/x.py"},
        {"message": "Received request x: prompt: 'y'", "text": "[2026-11-30 11:00:00,000] LMCache ERROR: new"},
    ):
        assert not read_log(json.dumps(other) + "\n").findings, other


@pytest.mark.parametrize(
    "head",
    [
        "2026-11-30 11:00:00,123 - lmcache.v1.storage - {} - ",
        "2026-11-30 11:00:00.123 | {:8} | lmcache.v1.storage:put:12 - ",
        "(Worker_TP0 pid=3) 2026-11-30T11:00:00Z {} lmcache.v1.storage ",
        "[2026-11-30 11:00:00,123] [{}] [lmcache.v1.storage] ",
        "{}:lmcache.v1.storage:",
    ],
)
def test_formats_of_the_logging_module_and_loguru_are_read(head: str) -> None:
    stored = "[req_id=cmpl-1-0] Stored 2048 out of total 2048 tokens. size"
    lines = [
        (head.format("ERROR") + "something new"),
        head.format("INFO") + stored,
        head.format("WARNING") + "new, too",
    ]
    facts = read_log("\n".join(lines))
    assert [(one.signature.id, one.line.message) for one in facts.findings] == [("unknown-error", "something new")]
    assert (facts.stored_tokens("cmpl-1"), facts.speaks, facts.format_known) == (2048, True, True)
    quoted = f"INFO 11-30 11:00:00 [api.py:3] a prompt: '{lines[0]}'"
    assert not read_log(quoted).findings
