"""What latencies scatter by, with and without a connector: the first part of a recording."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fixtures.core.errors import NotJudged
from fixtures.experiments import decoding, latency, misses, store_cost
from fixtures.instruments.prompts import Prompts
from lab.power.recorded_loads import cycles, loads

if TYPE_CHECKING:
    from fixtures.core.baseline_record import Baseline
    from fixtures.subject.exchange import Exchange
    from fixtures.subject.stack import Stack


def measured(stack: Stack, baseline: Baseline) -> dict[str, Any]:
    """Everything that `lab.power.samples.Samples` holds, of a stack with its connector and of the engine without."""
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
        **loads(stack, source, baseline),
    }
    return found | cycles(stack, source)


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
