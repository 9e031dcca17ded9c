"""Lines of logs that say nothing, as real runs wrote them, and everything that may be wrapped around a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fixtures.evidence.logs.lines import parse_line
from fixtures.evidence.logs.reader import LogReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.evidence.logs.facts import LogFacts


def docker(line: str) -> str:
    return json.dumps({"log": line + "\n", "stream": "stderr", "time": "2026-08-21T21:08:22.628123456Z"})


def record_of(message: str, level: str = "INFO", name: str = "vllm.v1.core", **more: object) -> str:
    """One line of vLLM's ``--log-format json`` (0.32, python-json-logger)."""
    fields = {"asctime": "2026-11-25 04:31:03,814", "levelname": level, "name": name}
    return json.dumps({**fields, "processName": "EngineCore", "process": 7, "message": message, **more})


def as_json(line: str) -> str:
    """What the program of a line writes with a formatter for JSON."""
    parsed = parse_line(line)
    return record_of(parsed.message, parsed.level or "INFO", f"{parsed.program or 'router'}.v1.core")


WRAPPERS: dict[str, Callable[[str], str]] = {
    "bare": lambda line: line,
    "compose": lambda line: f"lmcache-1  | {line}",
    "compose-timestamps": lambda line: f"lmcache-1  | 2026-08-21T21:08:22.628123456Z {line}",
    "docker": docker,
    "cri": lambda line: f"2026-08-21T21:08:22.628123456Z stderr F {line}",
    "kubectl": lambda line: f"[pod/e-0/vllm] {line}",
    "kubectl-timestamps": lambda line: f"[pod/e-0/vllm] 2026-08-21T21:08:22.628123456Z {line}",
    "stern": lambda line: f"engine-7d9f-abcde vllm {line}",
    "stern-timestamps": lambda line: f"engine-7d9f-abcde vllm 2026-08-21T21:08:22.628123456Z {line}",
    "prefix": lambda line: f"[blue] {line}",
    "rank": lambda line: f"[rank0]: {line}",
    "shipper": lambda line: json.dumps({"kubernetes": {"pod": "e-0"}, "message": line, "level": "unknown"}),
    "colour": lambda line: f"\x1b[36m{line}\x1b[0m",
}

_LMCACHE = (
    "(EngineCore pid=702) \x1b[32;20m[2026-11-25 04:25:21,672] LMCache {}:\x1b[0m {} "
    "\x1b[3m(detection.py:303:lmcache.v1.gpu_connector.kv_format.detection)\x1b[0m"
)
SILENT = {
    "access": '(APIServer pid=2235) INFO:     127.0.0.1:51234 - "POST /v1/completions HTTP/1.1" 200 OK',
    "vLLM INFO": (
        "(APIServer pid=2235) INFO 11-25 04:31:03 [loggers.py:271] Engine 000: Avg prompt throughput: 1638.4 tokens/s, "
        "Avg generation throughput: 6.4 tokens/s, Running: 0 reqs, Waiting: 0 reqs, GPU KV cache usage: 0.0%, "
        "Prefix cache hit rate: 12.5%, External prefix cache hit rate: 43.0%"
    ),
    "vLLM INFO about LMCache": (
        "(APIServer pid=2235) INFO 11-25 04:31:03 [metrics.py:103] KV Transfer metrics: LMCache MP lookup count=4, "
        "LMCache MP lookup avg latency (ms)=1.234"
    ),
    "vLLM WARNING": (
        "(EngineCore pid=702) WARNING 11-25 04:31:03 [vllm.py:1012] Enforce eager set, disabling torch.compile and "
        "CUDAGraphs. This is equivalent to setting -cc.mode=none -cc.cudagraph_mode=none"
    ),
    "vLLM request": (
        "(APIServer pid=2235) INFO 11-25 04:31:03 [logger.py:39] Received request cmpl-9: prompt: 'What is an Error, and "
        "what does LMCache do about a failed one?', params: SamplingParams(n=1), prompt_token_ids: [1, 5], lora_request: None."
    ),
    "LMCache INFO": _LMCACHE.format("INFO", "Engine KV Format: EngineKVFormat.NL_X_NB_NH_BS_CS NL x [NB, NH, BS, CS]"),
    "LMCache DEBUG": _LMCACHE.format(
        "DEBUG", "Engine KV Format: EngineKVFormat.NL_X_NB_NH_BS_CS NL x [NB, NH, BS, CS]"
    ),
    "LMCache WARNING": _LMCACHE.format(
        "WARNING", "Failed to allocate memory block of size 2097152 because no memory is available"
    ),
    "router ERROR": (
        "2026-11-25 04:31:03 ERROR vllm_router_rs::routers::http::router: src/routers/http/router.rs:870: Failed to send "
        "typed request worker_url=http://127.0.0.1:8001 route=/v1/completions error=error sending request"
    ),
}
SILENT_WRAPPERS = WRAPPERS | {"json": as_json, "json in docker": lambda line: docker(as_json(line))}


def read_log(text: str, year: int | None = None) -> LogFacts:
    """Read a whole log, or any part of one."""
    reader = LogReader(year)
    reader.feed(text.encode("utf-8", "replace"))
    return reader.facts()
