"""Useful: is a reload faster than a recompute, and how close is it to the physical limit?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from . import decode_cost, disturbance, limits, measure_misses, measure_together, requirement, store_cost, wins_from

if TYPE_CHECKING:
    from fixtures.core.baseline_record import Baseline
    from fixtures.instruments.prompts import Prompts
    from fixtures.instruments.trials import Trials
    from fixtures.plugin.recording import Figures
    from fixtures.subject.stack import Stack

pytestmark = pytest.mark.exclusive_host


@requirement("LAT-01")
def test_a_reload_reaches_the_first_token_sooner(latency: Trials, figures: Figures) -> None:
    """Over verified pairs of requests, the whole interval of reload / cold is below the limit."""
    ratio, cold, reload = latency.ratio, latency.cold.ms, latency.reload.ms
    figures("prompt", latency.prompt_tokens, "tokens")
    figures.interval("TTFT cold", cold, "ms", better="lower")
    figures.interval("TTFT reload", reload, "ms", better="lower")
    figures.interval("reload / cold", ratio, "", better="lower")
    latency.check_decided(limits.RELOAD_OVER_COLD)
    assert ratio.high < limits.RELOAD_OVER_COLD, (
        f"expected reload / cold below {limits.RELOAD_OVER_COLD} with {limits.CONFIDENCE:.0%} confidence, got {ratio} "
        f"(cold {cold.median:.0f} ms, reload {reload.median:.0f} ms)"
    )


@requirement("LAT-02")
def test_the_figure_is_physically_possible(latency: Trials, figures: Figures) -> None:
    """No reload is faster than the link can transfer its bytes; a faster one was not answered from the tier."""
    figures("prompt", latency.prompt_tokens, "tokens")
    figures("floor", latency.floor_ms, "ms")
    latency.check_possible(limits.RELOAD_OVER_FLOOR)
    assert latency.over_floor.low >= limits.RELOAD_OVER_FLOOR, (
        f"expected a reload of at least {limits.RELOAD_OVER_FLOOR} x the floor of {latency.floor_ms:.1f} ms, "
        f"got {latency.reload.ms.median:.1f} ms: the answer did not come from the tier, or the clock is wrong"
    )


@requirement("LAT-03")
def test_half_of_the_possible_saving_is_realised(latency: Trials, figures: Figures) -> None:
    """Offload efficiency, (cold - reload) / (cold - floor), is at least one half."""
    efficiency = latency.efficiency
    figures("prompt", latency.prompt_tokens, "tokens")
    figures.interval("offload efficiency", efficiency, "", better="higher")
    latency.check_efficiency(limits.EFFICIENCY)
    assert efficiency.low >= limits.EFFICIENCY, (
        f"expected an offload efficiency of at least {limits.EFFICIENCY}, got {efficiency} (cold "
        f"{latency.cold.ms.median:.0f} ms, reload {latency.reload.ms.median:.0f} ms, floor {latency.floor_ms:.0f} ms)"
    )


@requirement("LAT-04")
def test_misses_stay_cheap(stack: Stack, prompts: Prompts, baseline: Baseline, figures: Figures) -> None:
    """Storing KV hardly slows a cold prompt, compared with the same engine without a connector."""
    cost = store_cost(stack, prompts, baseline)
    stored, without = cost.with_store.ms, cost.without.ms
    figures("prompt", baseline.prompt_tokens, "tokens")
    figures.interval("TTFT cold, without offload", without, "ms")
    figures.interval("TTFT cold, with offload", stored, "ms", better="lower")
    cost.check_decided()
    assert not cost.too_slow, (
        f"expected a cold prompt of {baseline.prompt_tokens} tokens within {cost.allowed_ms:.0f} ms ({without.median:.0f} ms "
        f"without a connector + {limits.STORE_SHARE:.0%} + {limits.STORE_FIXED_S} s), got {stored.median:.0f} ms"
    )


@requirement("LAT-05")
def test_a_miss_never_waits_on_the_cache(stack: Stack, prompts: Prompts, figures: Figures) -> None:
    """A prompt that is not in the cache takes no longer than its computation plus a fixed cost."""
    found = measure_misses(stack, prompts)
    fixed, wait = found.fixed_wait, found.miss_wait
    figures.interval("fixed wait of a request", fixed.ms, "ms")
    figures.interval("unexplained wait of a miss", wait.ms, "ms")
    found.check_decided()
    assert fixed.high < limits.FIXED_WAIT_S, (
        f"expected a request of two tokens not to wait for the cache, got {fixed.ms.median:.0f} ms beyond a round trip and "
        f"one step of the engine (median of {fixed.n})"
    )
    assert wait.high < limits.MISS_WAIT_S, (
        f"expected a miss not to wait for the cache, got {wait.ms.median:.0f} ms beyond its computation (median of "
        f"{wait.n}; LMCache's lookup timeout is 3 s)"
    )
    assert found.stalls <= limits.STALLS, (
        f"expected no miss to wait for the cache, got {found.stalls} of {wait.n} that waited {limits.STALL_S:.0f} s or more"
    )


@requirement("LAT-08")
def test_a_reload_wins_at_every_length_with_room(latency_curve: Sequence[Trials], figures: Figures) -> None:
    """At every length whose floor leaves room, the interval of reload / cold is below the limit."""
    with_room = [one for one in latency_curve if one.room]
    for one in with_room:
        figures.interval(f"TTFT cold, {one.prompt_tokens} tokens", one.cold.ms, "ms")
        figures.interval(f"TTFT reload, {one.prompt_tokens} tokens", one.reload.ms, "ms")
        figures.interval(f"reload / cold, {one.prompt_tokens} tokens", one.ratio, "", better="lower")
        assert not one.loses(limits.RELOAD_OVER_COLD), (
            f"expected reload / cold below {limits.RELOAD_OVER_COLD} at {one.prompt_tokens} tokens, got {one.ratio}"
        )
    if (shortest := wins_from(latency_curve)) is not None:
        figures("offload pays from a prompt of", shortest, "tokens")
    for one in with_room:
        one.check_decided(limits.RELOAD_OVER_COLD)


@requirement("LAT-09")
def test_offload_does_not_slow_decoding(stack: Stack, prompts: Prompts, baseline: Baseline, figures: Figures) -> None:
    """Decoding is hardly slower than on the same engine without a connector."""
    cost = decode_cost(stack, prompts, baseline)
    figures.interval("decoding, without offload", cost.without, "tokens/s")
    figures.interval("decoding, with offload", cost.with_connector, "tokens/s", better="higher")
    cost.check_decided()
    assert not cost.too_slow, (
        f"expected at least {cost.allowed} x the {cost.without.median:.1f} tokens/s of decoding without a connector, "
        f"got {cost.with_connector.median:.1f} tokens/s"
    )


@requirement("LAT-07")
def test_running_answers_are_not_held_up(stack: Stack, prompts: Prompts, baseline: Baseline, figures: Figures) -> None:
    """While others store and load, gaps between the tokens of running answers hardly grow."""
    cost = disturbance(stack, prompts, baseline)
    figures.interval("95 of 100 gaps, without offload", cost.without.ms, "ms")
    figures.interval("95 of 100 gaps, with offload", cost.with_connector.ms, "ms", better="lower")
    cost.check_decided()
    assert not cost.too_slow, (
        f"expected running answers to wait at most {cost.allowed_ms:.0f} ms for a token ({cost.without.ms.median:.0f} "
        f"ms without a connector), got {cost.with_connector.ms.median:.0f} ms"
    )


@requirement("LAT-06")
def test_a_reload_wins_under_concurrency_too(stack: Stack, prompts: Prompts, figures: Figures) -> None:
    """With 8 requests in flight, the median reload still reaches its first token sooner than the median cold prompt."""
    ratio = measure_together(stack, prompts)
    figures.interval("reload / cold, 8 at once", ratio, "", better="lower")
    assert ratio.high < limits.RELOAD_OVER_COLD, (
        f"expected reload / cold below {limits.RELOAD_OVER_COLD} with 8 requests in flight, got {ratio}"
    )
