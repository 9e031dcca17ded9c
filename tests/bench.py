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

import psutil
from rich.console import Console
from rich.table import Table

from fixtures.evidence import logs
from fixtures.evidence.metrics import Samples
from fixtures.measure.prompts import Prompts
from fixtures.stack.record import StackRecord
from fixtures.stack.stack import Stack

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
        stack.ask(prompts.unique(chunks=1))
    return count / (time.monotonic() - begin)


def clock(stack: Stack, prompts: Prompts, count: int = 30) -> dict[str, float]:
    """Our TTFT against the engine's own histogram on the same requests, in ms."""
    differences = []
    for _ in range(count):
        before = stack.engine.counters()
        exchange = stack.ask(prompts.unique(chunks=4), stream=True)
        after = stack.engine.counters().delta(before)
        assert after.ttft_sum is not None
        assert after.ttft_count == 1
        differences.append((exchange.ttft_s - after.ttft_sum) * 1e3)
    return {
        "TTFT, ours minus the engine's, median (ms)": statistics.median(differences),
        "TTFT, ours minus the engine's, worst (ms)": max(differences, key=abs),
    }


def sampler(stack: Stack, prompts: Prompts, count: int = 120) -> dict[str, float]:
    """What sampling GPU memory adds to TTFT, on pairs of reloads of one prompt with and without it; empty on a CPU."""
    if stack.record.device != "cuda":
        return {}
    ratios, prompt = [], prompts.unique(chunks=16)
    stack.ask(prompt)
    memory = stack.gpu_memory()
    for number in range(count):
        took = {}
        for sampled in (True, False) if number % 2 else (False, True):
            stack.drop_gpu_copy()
            with memory if sampled else contextlib.nullcontext():
                took[sampled] = stack.ask(prompt, stream=True).ttft_s
        ratios.append(took[True] / took[False])
    return {"GPU memory sampler, added to TTFT, median (%)": (statistics.median(ratios) - 1) * 100}


def parsers(stack: Stack) -> dict[str, float]:
    """Throughput of the parsers on what the run has left, in MB/s."""
    text = "\n".join(stack.log_text().values())
    text *= max(1, 20_000_000 // len(text))
    begin = time.monotonic()
    logs.read(text)
    log_rate = len(text) / 1e6 / (time.monotonic() - begin)
    exposition = stack.engine.client.get("/metrics").text
    begin = time.monotonic()
    for _ in range(100):
        Samples.parse(exposition)
    return {
        "log parser (MB/s)": log_rate,
        "metrics parser (MB/s)": 100 * len(exposition) / 1e6 / (time.monotonic() - begin),
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
            subprocess.run([sys.executable, "-m", "fixtures.stack.stop", str(record)], cwd=ROOT, check=False)
    table = Table("figure", "value", title="kv-offload conformance: benchmark")
    for title, value in figures.items():
        table.add_row(title, f"{value:.4g}")
    Console().print(table)
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "bench.json").write_text(json.dumps(figures, indent=2) + "\n")
    return int(figures["exit code of the suite"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
