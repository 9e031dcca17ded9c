"""Useful: is a reload faster than a recompute, and by how much of what is physically possible?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import limits, measure_misses, measure_together, requirement, store_cost

if TYPE_CHECKING:
    from fixtures.core.record import Baseline
    from fixtures.instruments.prompts import Prompts
    from fixtures.instruments.trials import Trials
    from fixtures.plugin.recording import RecordFigure
    from fixtures.subject.stack import Stack

pytestmark = pytest.mark.exclusive_host


@requirement("LAT-01")
def test_a_reload_reaches_the_first_token_sooner(latency: Trials, figures: RecordFigure) -> None:
    """Over verified pairs, the whole 95 % interval of reload / cold lies below 0.9."""
    ratio = latency.ratio
    figures("prompt", latency.prompt_tokens, "tokens")
    figures(
        "TTFT cold",
        latency.cold.median * 1e3,
        "ms",
        n=ratio.n,
        low=latency.cold.low * 1e3,
        high=latency.cold.high * 1e3,
        better="lower",
    )
    figures(
        "TTFT reload",
        latency.reload.median * 1e3,
        "ms",
        n=ratio.n,
        low=latency.reload.low * 1e3,
        high=latency.reload.high * 1e3,
        better="lower",
    )
    figures("reload / cold", ratio.median, "", n=ratio.n, low=ratio.low, high=ratio.high, better="lower")
    latency.check_decided(limits.RELOAD_OVER_COLD)
    assert ratio.high < limits.RELOAD_OVER_COLD, (
        f"expected reload / cold below {limits.RELOAD_OVER_COLD} with 95 % confidence, got {ratio} "
        f"(cold {latency.cold.median * 1e3:.0f} ms, reload {latency.reload.median * 1e3:.0f} ms)"
    )


@requirement("LAT-02")
def test_the_figure_is_physically_possible(latency: Trials, figures: RecordFigure) -> None:
    """No reload is faster than its bytes can move; one that is was answered by the GPU, or by no engine at all."""
    floor = latency.floor_s
    figures("floor", floor * 1e3, "ms")
    latency.check_possible(limits.RELOAD_OVER_FLOOR)
    assert latency.reload.low >= limits.RELOAD_OVER_FLOOR * floor, (
        f"expected a reload of at least {limits.RELOAD_OVER_FLOOR} x the floor of {floor * 1e3:.1f} ms, "
        f"got {latency.reload.median * 1e3:.1f} ms: something else than the tier answered, or the clock is wrong"
    )


@requirement("LAT-03")
def test_half_of_the_possible_saving_is_realised(latency: Trials, figures: RecordFigure) -> None:
    """Offload efficiency, (cold - reload) / (cold - floor), is at least one half."""
    efficiency = latency.efficiency
    figures(
        "offload efficiency",
        efficiency.median,
        "",
        n=efficiency.n,
        low=efficiency.low,
        high=efficiency.high,
        better="higher",
    )
    latency.check_efficiency(limits.EFFICIENCY)
    assert efficiency.low >= limits.EFFICIENCY, (
        f"expected an offload efficiency of at least {limits.EFFICIENCY}, got {efficiency} "
        f"(cold {latency.cold.median * 1e3:.0f} ms, reload {latency.reload.median * 1e3:.0f} ms, "
        f"floor {latency.floor_s * 1e3:.0f} ms)"
    )


@requirement("LAT-04")
def test_misses_stay_cheap(stack: Stack, prompts: Prompts, baseline: Baseline, figures: RecordFigure) -> None:
    """Storing its KV slows a cold prompt by at most 25 % + 50 ms, against the same engine without a connector."""
    cost = store_cost(stack, prompts, baseline)
    stored, without = cost.with_store, cost.without
    figures("prompt", baseline.prompt_tokens, "tokens")
    figures("TTFT cold, without offload", without.median * 1e3, "ms", n=without.n)
    figures(
        "TTFT cold, with offload",
        stored.median * 1e3,
        "ms",
        n=stored.n,
        low=stored.low * 1e3,
        high=stored.high * 1e3,
        better="lower",
    )
    cost.check_decided()
    assert not cost.too_slow, (
        f"expected a cold prompt of {baseline.prompt_tokens} tokens within {cost.allowed_s(without.median) * 1e3:.0f} ms "
        f"({without.median * 1e3:.0f} ms without a connector + {limits.STORE_SHARE:.0%} + {limits.STORE_FIXED_S} s), got "
        f"{stored.median * 1e3:.0f} ms"
    )


@requirement("LAT-05")
def test_a_miss_never_waits_on_the_cache(stack: Stack, prompts: Prompts, figures: RecordFigure) -> None:
    """A prompt that the cache has to be asked about takes no longer than its computation and the fixed cost explain."""
    found = measure_misses(stack, prompts)
    fixed, wait = found.fixed_wait, found.miss_wait
    figures("fixed wait of a request", fixed.median * 1e3, "ms", n=fixed.n, low=fixed.low * 1e3, high=fixed.high * 1e3)
    figures("unexplained wait of a miss", wait.median * 1e3, "ms", n=wait.n, low=wait.low * 1e3, high=wait.high * 1e3)
    found.check_decided()
    assert fixed.high < limits.FIXED_WAIT_S, (
        f"expected a request of two tokens not to wait on the cache, got {fixed.median * 1e3:.0f} ms beyond a round trip and "
        f"one step of the engine (median of {fixed.n})"
    )
    assert wait.high < limits.MISS_WAIT_S, (
        f"expected a miss not to wait on the cache, got {wait.median * 1e3:.0f} ms beyond its computation (median of "
        f"{wait.n}; LMCache's lookup timeout is 3 s)"
    )
    assert not found.stalls, (
        f"expected no miss to wait on the cache, {found.stalls} of {wait.n} waited {limits.STALL_S:.0f} s and more"
    )


@requirement("LAT-06")
def test_a_reload_wins_under_concurrency_too(stack: Stack, prompts: Prompts, figures: RecordFigure) -> None:
    """With 8 requests in flight, the median reload still reaches its first token sooner than the median cold prompt."""
    ratio = measure_together(stack, prompts)
    figures("reload / cold, 8 at once", ratio.median, "", n=ratio.n, low=ratio.low, high=ratio.high, better="lower")
    assert ratio.high < limits.RELOAD_OVER_COLD, (
        f"expected reload / cold below {limits.RELOAD_OVER_COLD} with 8 in flight, got {ratio}"
    )
