"""What the suite reads from a subject is arbitrary bytes: no traceback and no hang, whatever they are.

Every example of Hypothesis is a seed, and every seed a batch of inputs: pieces of real logs, metrics pages and streams, cut,
repeated, wrapped and mixed. 500 inputs of each kind; ``KV_OFFLOAD_FUZZ=1000000`` sets another number:

    KV_OFFLOAD_FUZZ=1000000 pytest tests/test_fuzz.py --timeout 0

A failure names the seed; ``inputs(Random(seed), ...)`` makes the same inputs again.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fixtures.catalogue.signatures import SIGNATURES
from fixtures.evidence import sse
from fixtures.evidence.logs.crash import first_error
from fixtures.evidence.logs.reader import LogReader
from fixtures.evidence.metrics import CacheCounters, EngineCounters
from fixtures.evidence.prometheus import Samples
from fixtures.evidence.shape import KvShape
from fixtures.evidence.watched import missing_metrics
from tests.fuzzing import BATCH, INPUTS, for_seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = Path(__file__).parent / "data" / "evidence"
LONGEST_S = 5.0
"""No input takes longer, on a busy machine."""

LOG_LINES = [line for path in sorted(DATA.glob("*.log")) for line in path.read_bytes().splitlines()][::7]
LOG_LINES += [f"[2026-11-25 04:25:21,672] LMCache ERROR: {one.text} failed (a.py:1:b)".encode() for one in SIGNATURES]
LOG_LINES += [
    json.dumps({"message": "x", "levelname": "ERROR", "name": "lmcache.v1", "exc_info": "Traceback"}).encode()
]
METRICS = [line for path in sorted(DATA.glob("*.txt")) for line in path.read_bytes().splitlines()][::5]
STREAM = [
    b'data: {"id":"a","choices":[{"index":0,"text":"x","finish_reason":null}]}\n\n',
    b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}\r\n\r\n',
    b'data: {"id":"a","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\n',
    b"data: [DONE]\n\n",
    b": comment\nevent: x\nid: 1\nretry: 10\n",
    b'data: {"error": {"message": "x"}}\n\n',
]
ODD = [
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b"\x1b[31m", b'"', b"\\", b"{", b"}", b"[", b"(", b" ", b"9" * 5000,
    b"-1", b"NaN", b"null", b"1e999", "é你\u2028".encode(), b"(Worker_TP0 pid=1) ", b"lmcache-1  | ", b'{"log":"', b"=",
]  # fmt: skip


def inputs(dice: random.Random, lines: list[bytes], joint: bytes) -> Iterator[bytes]:
    """A batch of inputs."""
    for _ in range(BATCH):
        data = bytearray(joint.join(dice.choice(lines) for _ in range(dice.randint(0, 6))))
        for _ in range(dice.choice((0, 1, 2, 4))):
            at = dice.randint(0, len(data))
            kind = dice.randint(0, 4)
            if kind == 0:
                del data[at : at + dice.randint(1, 40)]
            elif kind == 1:
                data[at:at] = dice.choice(ODD)
            elif kind == 2:
                data[at : at + 1] = bytes([dice.randint(0, 255)])
            elif kind == 3:
                data[at:at] = data[at // 2 : at // 2 + dice.randint(1, 200)]
            elif dice.random() < 0.02:  # long runs are what makes a pattern slow
                data[at:at] = (dice.choice(ODD)[:20] or b" ") * 20_000
        yield bytes(data)


def fuzzed(lines: list[bytes], joint: bytes, read: Callable[[random.Random, bytes], None], seed: int) -> None:
    dice = random.Random(seed)
    for data in inputs(dice, lines, joint):
        begin = time.process_time()
        read(dice, data)
        assert time.process_time() - begin < LONGEST_S, f"slow: {data[:200]!r}..."


def fed(dice: random.Random, data: bytes, feed: Callable[[bytes], object]) -> None:
    """The same bytes in pieces."""
    at = 0
    while at < len(data):
        size = dice.choice((1, 7, 64, 5000)) if len(data) < 2000 else 5000
        feed(data[at : at + size])
        at += size


def read_log(dice: random.Random, data: bytes) -> None:
    reader = LogReader()
    fed(dice, data, reader.feed)
    for since in (0, dice.randint(0, len(data))):
        facts = reader.facts(since)
        for shape in (None, KvShape(2, 2), KvShape(4, 1, (-1, 3))):
            facts.stored_tokens(None, shape)
            facts.retrieved_tokens("cmpl-1", shape)
            facts.hit_tokens(None, 256, shape)
        assert all(str(one) for one in facts.findings)
    first_error(data.decode("utf-8", "replace"))


def read_metrics(_: random.Random, data: bytes) -> None:
    samples = Samples.parse(data.decode("utf-8", "replace"))
    EngineCounters.read(samples).delta(EngineCounters())
    CacheCounters.read(samples, 256, KvShape(2, 2))
    missing_metrics(samples, "engine")


def read_stream(dice: random.Random, data: bytes) -> None:
    reader, events = sse.SseReader(), []
    fed(dice, data, lambda piece: events.extend(reader.feed(piece)))
    events += reader.close()
    at_once = sse.SseReader()
    assert [*at_once.feed(data), *at_once.close()] == events
    for kind in (None, "completion", "chat"):
        sse.check_stream(events, kind, reader.problems)


CASES = {
    "logs": (LOG_LINES, b"\n", read_log),
    "metrics": (METRICS, b"\n", read_metrics),
    "streams": (STREAM, b"", read_stream),
}


@pytest.mark.fuzz
@pytest.mark.parametrize("what", CASES)
def test_nothing_that_a_subject_sends_breaks_a_reader(what: str) -> None:
    lines, joint, read = CASES[what]

    def run(seed: int) -> None:
        fuzzed(lines, joint, read, seed)

    for_seeds(INPUTS // BATCH, run)
