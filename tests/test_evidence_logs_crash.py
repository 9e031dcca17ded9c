"""Logs: why an engine ended."""

from __future__ import annotations

import pytest

from fixtures.evidence.logs.crash import first_error
from tests.log_examples import FRAME, TRACEBACK, error

NOISE = (
    "(APIServer pid=5) WARNING 11-25 04:36:39 [system_utils.py:299] Found ulimit of 20000 and failed to automatically "
    "increase with error x. This can cause fd limit errors like `OSError: [Errno 24] Too many open files`."
)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), None),
        ((NOISE,), None),
        (
            (
                NOISE,
                error(
                    "EngineCore", "EngineCore failed to start.", TRACEBACK, FRAME, "ValueError: No available memory."
                ),
                error(
                    "APIServer",
                    TRACEBACK,
                    FRAME,
                    "RuntimeError: Engine core initialization failed. See root cause above.",
                ),
            ),
            "ValueError: No available memory.",
        ),
        (
            (
                error("EngineCore", TRACEBACK, FRAME, "RuntimeError: something below broke"),
                error("Worker_TP1", TRACEBACK, FRAME, "torch.OutOfMemoryError: CUDA out of memory. Tried"),
            ),
            "torch.OutOfMemoryError: CUDA out of memory. Tried",
        ),
        (
            (
                error(
                    "APIServer",
                    TRACEBACK,
                    FRAME,
                    "RuntimeError: Engine core initialization failed. See root cause above.",
                ),
            ),
            "RuntimeError: Engine core initialization failed. See root cause above.",
        ),
        (
            (TRACEBACK, FRAME, "importlib.metadata.PackageNotFoundError: No package metadata was found for vllm"),
            "importlib.metadata.PackageNotFoundError: No package metadata was found for vllm",
        ),
        (
            (
                TRACEBACK,
                FRAME,
                "KeyError: 'a'",
                "",
                "During handling of the above exception, another exception occurred:",
                TRACEBACK,
                FRAME,
                "ValueError: b",
            ),
            "KeyError: 'a'",
        ),
        (
            (
                TRACEBACK,
                FRAME,
                "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
                "  Value error, the model is gone [type=value_error]",
            ),
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig "
            "Value error, the model is gone [type=value_error]",
        ),
        (
            ("usage: x", "api_server.py: error: unrecognized arguments: --foo"),
            "api_server.py: error: unrecognized arguments: --foo",
        ),
        (
            ('exec: "vllm": executable file not found in $PATH',),
            'exec: "vllm": executable file not found in $PATH',
        ),
        ((error("EngineCore", "out of luck"),), "out of luck"),
    ],
)
def test_first_error(lines: tuple[str, ...], expected: str | None) -> None:
    assert first_error("\n".join(lines)) == expected
