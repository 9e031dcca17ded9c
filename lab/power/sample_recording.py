"""Records what measurements scatter by on this machine, with the suite's own experiments (`lab.power.samples`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.provide.process import process_teardown
from fixtures.subject.stack import Stack
from lab import bench as benches
from lab import json_lines
from lab.grouping import COMPARED
from lab.other_load import BUSY_CORES, OtherLoad
from lab.power.recorded_latency import measured
from lab.power.samples import KEPT, Samples
from lab.seeding_subject import LabError

if TYPE_CHECKING:
    from lab.runner import Runner

THROUGHPUT = frozenset({"THR-01", "THR-03"})
"""What takes most of the time of a recording."""


def record(runner: Runner, path: Path = KEPT, *, throughput: bool = True) -> Samples:
    """Stand the subject up twice, without its connector and with it, measure both with the suite's own experiments, keep it.

    Raises:
        LabError: the engine without its connector could not be measured.
    """
    others = OtherLoad()
    runner.compared = COMPARED if throughput else COMPARED - THROUGHPUT
    baseline = runner.compared_with
    if baseline is None:
        raise LabError("the engine without its connector could not be measured")
    bench = benches.stand_up(
        "samples",
        runner.subject,
        None,
        runner.env,
        runner.folder / "samples",
        runner.cache,
        runner.progress,
    )
    try:
        bench.record.baseline = baseline
        found = measured(Stack(bench.record), baseline)
    finally:
        process_teardown.tear_down(bench.record, runner.cache / "stacks")
    cores, versions = len(os.sched_getaffinity(0)), runner.versions
    taken = others.cores()
    busy = "busy" if taken > BUSY_CORES else "quiet"
    where = f"{versions['on']}, {cores} {busy} cores: others took {taken:.1f} of them"
    source = f"python -m lab --record-samples; vLLM {versions['vllm']}, LMCache {versions['lmcache']}"
    kept = Samples(where, source, **found)
    json_lines.keep(path, kept)
    return kept
