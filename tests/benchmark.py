"""How long things take: stand-up, suite, exchanges per second, the TTFT clock, memory of pytest, the parsers.

Figures, not tests: a timed test fails on a busy machine and passes on a fast one. Run by ``tox -e bench``, which hands
options for pytest on (``tox -e bench -- --gpu --stack process ...``); writes ``reports/bench.json`` and prints a table.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from rich.table import Table

from fixtures.core.record import StackRecord
from fixtures.evidence.logs.reader import LogReader
from fixtures.evidence.prometheus import Samples
from fixtures.instruments.prompts import Prompts
from fixtures.instruments.trials import median_interval
from fixtures.subject.stack import Stack
from tests.log_lines import SILENT, SILENT_WRAPPERS, read_log

if TYPE_CHECKING:
    from fixtures.instruments.trials import Interval

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "reports"


def run_suite(folder: Path, options: list[str]) -> tuple[Path, dict[str, float]]:
    """The whole suite on a stack of its own that is kept; returns its record and the figures of the run."""
    command = [sys.executable, "-m", "pytest", str(ROOT / "suite"), "-q", "--keep-stack", f"--run-dir={folder}"]
    process = subprocess.Popen([*command, f"--report-dir={folder / 'reports'}", *options], cwd=ROOT)
    peak = 0
    begin = time.monotonic()
    while process.poll() is None:
        try:
            peak = max(peak, psutil.Process(process.pid).memory_info().rss)
        except psutil.Error:
            break
        time.sleep(0.1)
    seconds = time.monotonic() - begin
    shutil.copytree(folder / "reports", REPORTS / "bench", dirs_exist_ok=True)
    report = json.loads((folder / "reports" / "conformance.json").read_text())
    record = next(folder.glob("*/*/record.json"))
    ready = StackRecord.load(record).ready_after_s or float("nan")
    return record, {
        "exit code of the suite": process.wait(),
        "conformant requirements": report["totals"]["conformant"],
        "stand-up to ready (s)": ready,
        "ready to verdict (s)": seconds - ready,
        "peak memory of pytest (MB)": peak / 1e6,
    }


def exchanges(stack: Stack, prompts: Prompts, count: int = 50) -> float:
    """Observed exchanges per second, of prompts of one chunk."""
    begin = time.monotonic()
    for _ in range(count):
        stack.complete(prompts.unique(chunks=1))
    return count / (time.monotonic() - begin)


def clock(stack: Stack, prompts: Prompts, count: int = 100) -> dict[str, float]:
    """Our TTFT against the engine's own histogram on the same requests, and a round trip of its HTTP server, in ms."""
    differences, round_trips = [], []
    for _ in range(count):
        before = stack.engine.counters()
        round_trips.append(stack.engine.client.get("/version").total_s * 1e3)
        exchange = stack.complete(prompts.unique(chunks=4), stream=True)
        after = stack.engine.counters().delta(before)
        assert after.ttft_sum is not None
        assert after.ttft_count == 1
        differences.append((exchange.ttft_s - after.ttft_sum) * 1e3)
    return (
        of_interval("TTFT, ours minus the engine's, median (ms)", median_interval(differences))
        | {"TTFT, ours minus the engine's, worst (ms)": max(differences, key=abs)}
        | of_interval("round trip of GET /version, median (ms)", median_interval(round_trips))
    )


def sampler(stack: Stack, prompts: Prompts, seconds: float = 210.0, block: int = 10) -> dict[str, float]:
    """What sampling GPU memory adds to the TTFT of reloads, in %; empty on a CPU.

    Blocks with the sampler and without it take turns: it runs through a whole block, so that its rarer and dearer samples
    (whose memory is it) have their share. The mean shows what those add, the median what is added as a rule. Nothing else is
    observed around a request: the interval shrinks with their number, and the effect is some hundredths of a reload.
    """
    if stack.record.device != "cuda":
        return {}
    prompt, memory = prompts.unique(chunks=16), stack.gpu_memory()
    payload = {"model": stack.model, "prompt": list(prompt.ids), "max_tokens": 1, "temperature": 0, "stream": True}
    stack.complete(prompt)

    def reload_s() -> float:
        stack.clear_prefix_cache()
        found = stack.engine.client.post("/v1/completions", payload).ttft_s
        assert found is not None
        return found

    took: dict[bool, list[float]] = {True: [], False: []}
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(took[True]) % (2 * block):
        for sampled in (True, False) if len(took[True]) % (2 * block) else (False, True):
            with memory if sampled else contextlib.nullcontext():
                took[sampled] += [reload_s() for _ in range(block)]
    added = [(with_it / without - 1) * 100 for with_it, without in zip(took[True], took[False], strict=True)]
    means = {sampled: statistics.mean(seconds) for sampled, seconds in took.items()}
    return of_interval("GPU memory sampler, added to TTFT, median (%)", median_interval(added)) | {
        "GPU memory sampler, added to TTFT, means (%)": (means[True] / means[False] - 1) * 100,
        "GPU memory sampler, TTFT without it, mean (ms)": means[False] * 1e3,
    }


def of_interval(title: str, found: Interval) -> dict[str, float]:
    """A figure with its 95 % interval and its number of samples."""
    return {title: found.median, f"{title}: from": found.low, f"{title}: to": found.high, f"{title}: n": found.n}


def feed_rate(line: str, pieces: int = 4) -> float:
    """Megabytes per second of CPU time at which a log of this line alone is read, in pieces of 16 MB as a stack reads it."""
    data = f"{line}\n".encode()
    data *= 16_000_000 // len(data)
    reader = LogReader()
    begin = time.process_time()
    for _ in range(pieces):
        reader.feed(data)
    return pieces * len(data) / 1e6 / (time.process_time() - begin)


def parsers(stack: Stack) -> dict[str, float]:
    """Throughput of the parsers on what the run has left, in MB/s."""
    text = "\n".join(stack.logs.text().values())
    text *= max(1, 20_000_000 // len(text))
    begin = time.monotonic()
    read_log(text)
    log_rate = len(text) / 1e6 / (time.monotonic() - begin)
    silent = {
        f"log parser, lines that say nothing: {kind}, {wrapper} (MB/s)": feed_rate(wrap(line))
        for wrapper, wrap in SILENT_WRAPPERS.items()
        for kind, line in SILENT.items()
    }
    exposition = stack.engine.client.get("/metrics").text
    begin = time.monotonic()
    for _ in range(100):
        Samples.parse(exposition)
    return {
        "log parser (MB/s)": log_rate,
        "metrics parser (MB/s)": 100 * len(exposition) / 1e6 / (time.monotonic() - begin),
        "log parser, lines that say nothing, slowest (MB/s)": min(silent.values()),
        **silent,
    }


def main(options: list[str]) -> int:
    """Exit code of the suite."""
    with tempfile.TemporaryDirectory(prefix="kvoc-bench-") as name:
        record, figures = run_suite(Path(name), options)
        try:
            stack = Stack(StackRecord.load(record))
            seed = random.SystemRandom().randrange(2**31)
            prompts = Prompts(seed, "bench", stack.chunk_tokens, stack.max_model_len - 2)
            figures["exchanges per second"] = exchanges(stack, prompts)
            figures |= clock(stack, prompts) | sampler(stack, prompts) | parsers(stack)
        finally:
            subprocess.run([sys.executable, "-m", "fixtures", "stop", str(record)], cwd=ROOT, check=False)
    table = Table("figure", "value", title="kv-offload conformance: benchmark")
    for title, value in figures.items():
        table.add_row(title, f"{value:.4g}")
    Console().print(table)
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "bench.json").write_text(json.dumps(figures, indent=2) + "\n")
    return int(figures["exit code of the suite"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
