"""Logs: any text is read, in pieces too, and lines that say nothing are skipped quickly."""

from __future__ import annotations

import functools
import json
import random
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.evidence.logs.crash import first_error
from fixtures.evidence.logs.facts import LogFacts
from fixtures.evidence.logs.lines import parse_line
from fixtures.evidence.logs.reader import LogReader
from fixtures.evidence.logs.search import _SAYING, SAYS
from tests.log_examples import (
    ACCESS,
    ASGI,
    CHAIN,
    DEAD,
    ENGINE_LINE,
    ERROR,
    EXAMPLES,
    GROUP,
    HANDLED,
    HEALTHY,
    NEW,
    RAW,
    SERVER_LINE,
    STOP,
    TRACEBACK,
    WARNING,
    ids,
    request_log,
)
from tests.log_lines import SILENT, SILENT_WRAPPERS, WRAPPERS, docker, read_log, record_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# --- any text ---------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [*EXAMPLES.values(), *HEALTHY[1].read_bytes().decode().split("\n")[:60], STOP, DEAD, TRACEBACK]
)


TEXT = st.lists(st.one_of(st.text(), PIECES, PIECES.map(lambda piece: piece[: len(piece) // 2])), max_size=12).map(
    "\n".join
)


@given(TEXT)
@settings(max_examples=150, deadline=None)
def test_no_text_is_too_strange(text: str) -> None:
    facts = read_log(text)
    assert all(finding.line.text for finding in facts.findings)
    assert facts.stored_tokens("a") is None or facts.stored_tokens() is not None
    first_error(text)
    for line in text.split("\n"):
        parse_line(line)


@given(st.text(alphabet="{}[]()<>'\"\\,:= a1"))
@settings(max_examples=150, deadline=None)
def test_no_configuration_is_too_strange(body: str) -> None:
    for configuration in read_log(NEW.format("LMCache Configuration: {" + body + "}")).configurations:
        assert configuration.max_local_cpu_gib is None


# --- piece by piece ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_a_log_read_in_pieces_says_the_same(path: Path) -> None:
    data = path.read_bytes()
    reader, at, cut = LogReader(2026), 0, random.Random(7)
    middle = data.index(b"\n", len(data) // 2) + 1
    while at < len(data):
        step = min(cut.choice([1, 30, 700, 9000]), len(data) - at, middle - at if at < middle else len(data))
        reader.feed(data[at : at + step])
        at += step
    whole = read_log(data.decode(), 2026)
    assert reader.facts() == whole
    later = reader.facts(middle)
    assert later.stored == whole.stored[len(whole.stored) - len(later.stored) :]


def test_an_unfinished_line_counts_as_it_stands() -> None:
    reader = LogReader()
    reader.feed(NEW.format("Stored 256 tokens in 0.1 seconds").encode())
    assert reader.facts().stored_tokens() == reader.facts().stored_tokens() == 256
    reader.feed(b"\n" + NEW.format("Stored 512 tokens in 0.1 seconds").encode() + b"\n")
    assert reader.facts().stored_tokens() == 768


@pytest.mark.parametrize("wrapper", SILENT_WRAPPERS)
def test_lines_that_say_nothing_cost_a_pass_over_their_bytes(wrapper: str) -> None:
    """Against a search of the same text by the same process, so that a busy machine slows both."""

    def cost(work: Callable[[], object]) -> float:
        begin = time.process_time()
        work()
        return time.process_time() - begin

    for kind, line in SILENT.items():
        data = f"{SILENT_WRAPPERS[wrapper](line)}\n".encode()
        assert replace(read_log(data.decode()), speaks=False, format_known=None) == LogFacts()
        data *= 1_500_000 // len(data)
        search = min(cost(functools.partial(data.find, b"no such text")) for _ in range(5))
        reader = LogReader()
        reader.feed(f"{NEW.format('x')}\n".encode())  # until a line is known, the first of every piece are taken apart
        took = min(cost(functools.partial(reader.feed, data)) for _ in range(3))
        assert took < 40 * search, f"{kind}: {len(data) / 1e6 / took:.0f} MB/s"


QUIET_PIECES = [
    *(wrap(line) for wrap in WRAPPERS.values() for line in (SERVER_LINE, ENGINE_LINE, NEW.format("x"))),
    *(record_of(text, level, name) for text in ("x", "LMCache is unhealthy, skipping x", "Stored 256 tokens in 0.1 seconds")
      for level in ("DEBUG", "INFO", "WARNING", "ERROR", "info", "error", "20", "40") for name in ("lmcache.v1", "vllm", "x")),
    *(json.dumps({"message": "x", "level": level, "logger": "lmcache"}) for level in (10, 20, 40)),
    json.dumps({"log": WARNING.format("x CUDA error: y"), "level": "info", "logger": "lmcache"}),
    json.dumps({"name": "x", "message": TRACEBACK, "level": "info", "labels": {"app": "lmcache", "name": "lmcache.v1"}}),
    *(line.format(text) for text in EXAMPLES.values() for line in (WARNING, NEW, ERROR, "{}", "\x1b[33m{}\x1b[0m")),
    *(f"(APIServer pid=1) WARNING 11-25 04:31:03 [a.py:1] {text}" for text in ("nothing", *EXAMPLES.values())),
    request_log(NEW.format("x")), ACCESS, ASGI, HANDLED, STOP, DEAD, *RAW, *GROUP, "", CHAIN,
]  # fmt: skip


def read_all(text: str, monkeypatch: pytest.MonkeyPatch) -> LogFacts:
    """What a reader says that looks at every line."""
    with monkeypatch.context() as patch:
        patch.setattr("fixtures.evidence.logs.reader.SAYS", re.compile(rb"[^\n]+"))
        return read_log(text)


@pytest.mark.long
def test_lines_that_are_skipped_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the search skips and what a reader without it finds are the same."""
    dice = random.Random(7)
    pieces = [*QUIET_PIECES, *(wrap(line) for wrap in SILENT_WRAPPERS.values() for line in SILENT.values())]
    pieces += [docker(line) for line in pieces]
    for _ in range(600):
        text = "\n".join(dice.choices(pieces, k=dice.randint(1, 12)))
        assert replace(read_all(text, monkeypatch), format_known=None) == replace(read_log(text), format_known=None)


@pytest.mark.parametrize("text", _SAYING)
def test_every_text_that_says_something_is_found_whatever_stands_around_it(text: str) -> None:
    coloured = "\x1b[31m" + "\x1b[0m".join(text) + "\x1b[0;1m"
    for line in (f"(APIServer pid=1) WARNING 11-25 04:31:03 [a.py:1] {text}", f"x{text}x", coloured):
        assert SAYS.search(line.encode())
    assert SAYS.search(json.dumps({"message": text}).encode())


@pytest.mark.parametrize("wrapper", SILENT_WRAPPERS)
@pytest.mark.parametrize("level", ["ERROR", "CRITICAL"])
def test_an_unknown_error_of_lmcache_is_found_behind_every_wrapper(wrapper: str, level: str) -> None:
    line = f"(EngineCore pid=7) [2026-11-25 04:25:21,672] LMCache {level}: not seen before (a.py:1:lmcache.v1.b)"
    assert ids(SILENT_WRAPPERS[wrapper](line)) == [("unknown-error", "warning")]


@pytest.mark.parametrize("level", ["error", "ERR", "Fatal", 40, 45, 50, 100, "40"])
def test_an_unknown_error_of_lmcache_is_found_by_its_level(level: str | int) -> None:
    line = json.dumps({"msg": "not seen before", "level": level, "logger": "lmcache.v1.b"})
    for text in (line, line.replace(": ", ":"), docker(line), docker(docker(line))):
        assert ids(text) == [("unknown-error", "warning")]


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_lines_of_a_real_run_that_are_skipped_say_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrap in SILENT_WRAPPERS.values():
        text = "\n".join(map(wrap, path.read_bytes().decode().splitlines()))
        assert read_all(text, monkeypatch) == read_log(text)


def test_a_prompt_that_quotes_a_line_of_lmcache_does_not_speak_for_it() -> None:
    reader = LogReader()
    reader.feed(f"{NEW.format('x')}\n".encode())
    end = reader.offset
    reader.feed(request_log(NEW.format("x")).encode())
    assert (reader.facts().speaks, reader.facts(end).speaks) == (True, False)
    reader.feed(f"{NEW.format('y')}\n{request_log(NEW.format('x'))}".encode())
    assert reader.facts(end).speaks


def test_a_log_without_its_start_says_so() -> None:
    whole = HEALTHY[1].read_bytes().decode()
    assert read_log(whole).has_start
    assert not read_log(whole[len(whole) // 2 :]).has_start
