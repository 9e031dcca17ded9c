"""An engine that died says why, and one that lives is not called dead."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NoAnswer, SubjectFault, SubjectGone
from fixtures.subject.stack import Stack
from tests.fakes import engine_server
from tests.fakes.engine_server import FakeServer, engine_of, record

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from fixtures.instruments.prompts import Prompts


engine = engine_server.engine
process = engine_server.process
prompts = engine_server.prompts


CRASH = "(EngineCore pid=5) ERROR 11-25 04:36:39 [core.py:7] ValueError: No available memory for the cache blocks.\n"


@pytest.mark.parametrize("when", ["before-the-request", "during-the-request"])
@pytest.mark.parametrize("text", [CRASH, "all is well\n"], ids=["with-an-error", "without"])
def test_an_engine_that_died_says_why(
    tmp_path: Path,
    engine: FakeServer,
    prompts: Prompts,
    process: subprocess.Popen[bytes],
    when: str,
    text: str,
) -> None:
    log = tmp_path / "engine-0.log"
    log.write_text(text)

    def die(_: dict[str, Any]) -> None:
        process.kill()
        process.wait()
        raise ConnectionAbortedError

    url = engine.url if when == "during-the-request" else "http://127.0.0.1:9"
    stack = Stack(record(tmp_path, engines=[engine_of(process, url, log)]))
    engine.on_post = die
    if when == "before-the-request":
        process.kill()
        process.wait()
    why = "ValueError: No available memory for the cache blocks." if text == CRASH else "its log names no error"
    ended = f"engine engine-0 ended during the run: {why}"
    with pytest.raises((NoAnswer, SubjectGone)) as raised:
        stack.complete(prompts.of_length(50))
    behind = stack.health.explain(raised.value) if isinstance(raised.value, NoAnswer) else raised.value
    assert behind is not None
    assert str(behind).startswith(f"{ended}; therefore not judged")
    assert [one.text for one in stack.context.incidents.of("ACT-04")] == [
        f"expected every process to run until the end of the run, got {ended}"
    ]
    begin = time.monotonic()
    with pytest.raises(SubjectGone, match="ended during the run"):
        stack.health.check_serving()
    assert time.monotonic() - begin < 1.0


def test_processes_that_a_run_has_ended_itself_are_not_dead(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    log = tmp_path / "engine-0.log"
    log.write_text(CRASH)
    stack = Stack(record(tmp_path, engines=[engine_of(process, "http://127.0.0.1:9", log)]))
    stack.health.ended = True
    process.kill()
    process.wait()
    assert stack.health.explain(AssertionError("expected no shared memory left")) is None
    assert not stack.health.gone()
    assert not stack.context.incidents.found


def test_an_engine_that_lives_is_not_called_dead(
    tmp_path: Path, engine: FakeServer, prompts: Prompts, process: subprocess.Popen[bytes]
) -> None:
    engine.answer = (503, {})
    stack = Stack(record(tmp_path, engines=[engine_of(process, engine.url, None)]))
    with pytest.raises(SubjectFault, match="got 503"):
        stack.complete(prompts.of_length(50))
    reference = stack.engine.server.process
    assert reference is not None
    assert reference.pid == process.pid
