"""What measurements scatter by on real machines: recorded once with the suite's own experiments, kept as JSON lines.

``python -m lab --record-samples`` appends a line to ``docs/evidence/samples.jsonl``. Every number in it was measured on a
healthy deployment; the simulation multiplies its scatter onto effects of known size.
"""

from __future__ import annotations

import json
import os
import random
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from fixtures.catalogue import limits
from fixtures.core.errors import NotJudged
from fixtures.core.files import PUBLIC, append
from fixtures.experiments import decoding, latency, load, misses, store_cost
from fixtures.experiments.filling import fill_tier
from fixtures.instruments.growth import CYCLES, Growth
from fixtures.instruments.prompts import Prompts
from fixtures.provide.process import teardown
from fixtures.subject.stack import Stack
from lab import bench as benches
from lab.grouping import COMPARED
from lab.other_load import BUSY_CORES, OtherLoad
from lab.subject import ROOT, LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from fixtures.core.record import Baseline, Load
    from fixtures.subject.exchange import Exchange
    from lab.runner import Runner

KEPT = ROOT / "docs" / "evidence" / "samples.jsonl"
THROUGHPUT = frozenset({"THR-01", "THR-03"})
"""What takes most of the time of a recording."""


@dataclass(frozen=True)
class Samples:
    """One recording; times in seconds, rates in tokens per second, memory in bytes. Empty: not recorded there."""

    where: str
    """Machine, and what else it did."""
    source: str
    """How the samples came here."""
    pairs: tuple[tuple[float, float, float], ...] = ()
    """TTFT of a cold prompt, of its reload, and of a prompt of one token."""
    together: tuple[tuple[float, float], ...] = ()
    """Median TTFT of eight cold prompts at once, and of their reloads; by round."""
    cold_s: tuple[float, ...] = ()
    cold_without_s: tuple[float, ...] = ()
    fixed_wait_s: tuple[float, ...] = ()
    miss_wait_s: tuple[float, ...] = ()
    decode: tuple[float, ...] = ()
    decode_without: tuple[float, ...] = ()
    gaps_s: tuple[float, ...] = ()
    gaps_without_s: tuple[float, ...] = ()
    unstored_s: tuple[float, ...] = ()
    unstored_without_s: tuple[float, ...] = ()
    within_pool: tuple[float, ...] = ()
    """Time of a conversation, with / without the connector; by user."""
    beyond_pool: tuple[float, ...] = ()
    beyond_pool_ttft: tuple[float, ...] = ()
    host_bytes: tuple[int, ...] = ()
    """Host memory after each cycle of MEM-04."""
    counts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """What MEM-07 counts, after each cycle."""

    @property
    def line(self) -> str:
        """As one line of JSON, without what is empty."""
        return json.dumps({name: value for name, value in asdict(self).items() if value}, default=list)

    @classmethod
    def of(cls, line: str) -> Self:
        """Of one line."""
        row: dict[str, Any] = json.loads(line)
        counts = {name: tuple(values) for name, values in row.pop("counts", {}).items()}
        for name in ("pairs", "together"):
            row[name] = tuple(tuple(one) for one in row.get(name, ()))
        rest: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in row.items()}
        return cls(**rest, counts=counts)


def read(path: Path = KEPT) -> list[Samples]:
    """Every recording that is kept."""
    return [Samples.of(line) for line in path.read_text().splitlines()] if path.exists() else []


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
        found = _measured(Stack(bench.record), baseline)
    finally:
        teardown.tear_down(bench.record, runner.cache / "stacks")
    cores, versions = len(os.sched_getaffinity(0)), runner.versions
    taken = others.cores()
    busy = "busy" if taken > BUSY_CORES else "quiet"
    where = f"{versions['on']}, {cores} {busy} cores: others took {taken:.1f} of them"
    source = f"python -m lab --record-samples; vLLM {versions['vllm']}, LMCache {versions['lmcache']}"
    kept = Samples(where, source, **found)
    with append(path) as file:
        file.write(f"{kept.line}\n".encode())
    path.chmod(PUBLIC)
    return kept


def _measured(stack: Stack, baseline: Baseline) -> dict[str, Any]:
    seed = random.SystemRandom().randrange(2**31)
    source = Prompts(seed, "samples", stack.chunk_tokens, stack.max_model_len, stack.vocabulary)
    trials = [trial for _ in range(2) for trial in latency.measure(stack, source).trials]
    waits = misses.measure_misses(stack, source)
    found: dict[str, Any] = {
        "pairs": tuple((one.cold_s, one.reload_s, one.fixed_s) for one in trials),
        "together": tuple(_together(stack, source)),
        "cold_s": store_cost.measure_cold(stack, source, baseline.prompt_tokens),
        "cold_without_s": baseline.cold_s,
        "fixed_wait_s": tuple(one.seen_s for one in waits.fixed),
        "miss_wait_s": tuple(one.seen_s for one in waits.misses),
        "decode": decoding.measure_decoding(stack, source),
        "decode_without": baseline.decode_tokens_per_s,
        "gaps_s": decoding.measure_gaps(stack, source),
        "gaps_without_s": baseline.gaps_s,
        "unstored_s": store_cost.measure_unstored(stack, source, baseline.prompt_tokens),
        "unstored_without_s": baseline.unstored_s,
        **_loads(stack, source, baseline),
    }
    return found | _cycles(stack, source)


def _together(stack: Stack, source: Prompts) -> Iterator[tuple[float, float]]:
    seen: list[Exchange] = []
    stack.context.on_exchange = seen.append
    try:
        latency.measure_together(stack, source)
    except NotJudged:
        pass  # the rounds are what is recorded
    finally:
        stack.context.on_exchange = lambda _: None
    for start in range(0, len(seen), 2 * latency.AT_ONCE):
        cold, reload = (seen[at : at + latency.AT_ONCE] for at in (start, start + latency.AT_ONCE))
        yield statistics.median(one.ttft_s for one in cold), statistics.median(one.ttft_s for one in reload)


def _loads(stack: Stack, source: Prompts, baseline: Baseline) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if baseline.within_pool is not None:
        within = load.serve(stack, source, load.shape_of(baseline.within_pool)).load
        found["within_pool"] = _by_user(within, baseline.within_pool, lambda one: one.latency_s)
    if baseline.beyond_pool is not None:
        closed, opened = (one.load for one in load.serve_beyond_pool(stack, source))
        found["beyond_pool"] = _by_user(closed, baseline.beyond_pool[0], lambda one: one.latency_s)
        found["beyond_pool_ttft"] = _by_user(opened, baseline.beyond_pool[1], lambda one: one.ttft_s, first_round=1)
    return found


def _by_user(
    ours: Load, theirs: Load, times: Callable[[Load], Sequence[float | None]], first_round: int = 0
) -> tuple[float, ...]:
    return tuple(
        load.ratio(
            times(ours)[start : start + ours.rounds],
            times(theirs)[start : start + ours.rounds],
            ours.rounds,
            first_round,
        ).median
        for start in range(0, len(times(ours)), ours.rounds)
    )


def _cycles(stack: Stack, source: Prompts) -> dict[str, Any]:
    """Host memory and counts after each of so many cycles as MEM-04 and MEM-07 have at least, with a full tier."""
    fill_tier(stack, source)
    with stack.host_memory() as memory:
        host = Growth(limits.HOST_GROWTH)
        counts: dict[str, list[int]] = {kind: [] for kind in stack.resource_counts()}
        sizes: list[int] = []
        for _ in range(CYCLES):
            cycle = [source.unique(chunks=2) for _ in range(16)]
            stack.complete_concurrently(cycle, at_once=4)
            stack.clear_prefix_cache()
            stack.complete_concurrently(cycle, at_once=4)
            sizes.append(memory.read_all())
            host.add(sizes[-1])
            for kind, count in stack.resource_counts().items():
                counts[kind].append(count)
    return {"host_bytes": tuple(sizes), "counts": {kind: tuple(values) for kind, values in counts.items()}}


def scatter(samples: Iterable[float]) -> tuple[float, ...]:
    """Each sample as a multiple of their median."""
    values = tuple(samples)
    middle = statistics.median(values)
    return tuple(value / middle for value in values)
