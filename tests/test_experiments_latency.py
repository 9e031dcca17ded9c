"""``latency.measure`` on a stack whose times and token sources are chosen here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.catalogue import limits
from fixtures.core.errors import NotJudged
from fixtures.experiments import baseline, latency, misses, store_cost
from fixtures.instruments.prompts import Prompt, Prompts
from fixtures.instruments.trials import MAX_TRIALS, MIN_TRIALS, Trial, Trials
from fixtures.subject.exchange import Exchange, TokenSources
from tests.fakes.timed_stack import CHUNK, LINK, FakeStack, whole

if TYPE_CHECKING:
    from collections.abc import Callable


def measure(stack: FakeStack, longest: int = 100 * CHUNK) -> Any:
    return latency.measure(stack, Prompts(3, "latency", CHUNK, longest))  # type: ignore[arg-type]


def discarded(stack: FakeStack, found: Any) -> int:
    """Pairs that are not among the trials; nor is the first, by which the length was chosen."""
    return len({prompt.ids for prompt in stack.asked if prompt.tokens > 1}) - len(found.trials) - 1


def test_clear_trials_by_hand() -> None:
    """16 chunks: cold 1 + 25.7 ms, floor 1 + 0.256 ms: already below 15 % of it."""
    stack = FakeStack()
    found = measure(stack)
    assert (found.prompt_tokens, found.loaded_tokens) == (257, 256)
    assert found.transfer_s == pytest.approx(256e-6)
    assert found.floor_s == pytest.approx(0.001256)
    assert found.ratio.median == pytest.approx((0.002 + 512e-6) / (0.001 + 0.0257))
    assert len(found.trials) == MIN_TRIALS
    assert len({prompt.ids for prompt in stack.asked if prompt.tokens > 1}) == MIN_TRIALS + 1, "every pair is fresh"


def test_the_curve_doubles_from_1k_to_what_is_computed_within_a_second() -> None:
    """At 100 us a token a prompt of 8 k takes 0.8 s and is in, one of 16 k is not; every length has its GPU hit."""
    stack, source = FakeStack(), Prompts(3, "curve", CHUNK, 20000)
    judged = latency.measure(stack, source)  # type: ignore[arg-type]
    curve = latency.measure_curve(stack, source, judged)  # type: ignore[arg-type]
    assert [one.prompt_tokens for one in curve] == [257, 1025, 2049, 4097, 8193]
    assert {trial.hit_s for one in curve for trial in one.trials} == {0.0015}
    assert latency.wins_from(curve) == 257


def test_lengths_of_a_curve_are_whole_chunks_of_any_size() -> None:
    """Chunks of 47 tokens: 21 of them are the longest prompt within 1 k, and the longest that the model takes comes last."""
    stack, source = FakeStack(cold_s=10e-6), Prompts(3, "curve", 47, 8001)
    judged = latency.measure(stack, source)  # type: ignore[arg-type]
    curve = latency.measure_curve(stack, source, judged)  # type: ignore[arg-type]
    assert [one.loaded_tokens for one in curve] == [47 * chunks for chunks in (21, 42, 64, 84, 168, 170)]
    assert [one.prompt_tokens for one in curve] == [one.loaded_tokens + 1 for one in curve]


def test_offload_pays_from_the_length_beyond_which_every_reload_wins() -> None:
    def at(tokens: int, ratio: float) -> Trials:
        return Trials(tokens, tokens - 1, 0.0, (Trial(cold_s=1.0, reload_s=ratio, fixed_s=0.0),) * 8)

    curve = [at(257, 0.5), at(513, 1.1), at(1025, 0.8), at(2049, 0.2)]
    assert latency.wins_from(curve) == 1025
    assert latency.wins_from(curve[:2]) is None


@pytest.mark.long
def test_the_engine_without_its_connector_is_measured_at_the_longest_prompt_of_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(baseline, "measure_gaps", lambda *_: (0.02,))
    stack = FakeStack()
    found = baseline.measure_baseline(stack, Prompts(3, "baseline", CHUNK, 20000), {"LAT-04", "LAT-07", "LAT-09"})  # type: ignore[arg-type]
    assert found.prompt_tokens == 624 * CHUNK + 1, "1 249 chunks take 2 s, half of them just under one"
    assert len(found.cold_s) == store_cost.COLD_TRIALS
    assert found.pool_tokens == 4096
    assert (found.decode_tokens_per_s, found.gaps_s) == ((), (0.02,)), "an answer in one piece does not cost the rest"
    assert len(found.unstored_s) == store_cost.UNSTORED_TRIALS
    assert found.unstored_s == pytest.approx(found.cold_s[: store_cost.UNSTORED_TRIALS], rel=0.01), (
        "as many tokens at once"
    )
    assert stack.asked[-2 - misses.MISSES].tokens == CHUNK - 1, "of which nothing is stored"
    assert len(found.fixed_wait_s) == misses.MISSES


def test_the_link_that_was_measured_goes_before_the_hosts_own() -> None:
    """PCIe to the card, not a copy within the host: a floor of the wrong link judges nothing."""
    assert measure(FakeStack(link=LINK / 4)).transfer_s == pytest.approx(4 * 256e-6)


def test_without_a_link_the_reload_is_timed_and_no_floor_is_claimed() -> None:
    """LAT-01 is judged, LAT-02 and LAT-03 are not: never by a link of another machine."""
    found = measure(FakeStack(link=None))
    assert found.ratio.high < limits.RELOAD_OVER_COLD
    with pytest.raises(NotJudged, match="where the engine runs"):
        _ = found.floor_s


def test_a_trial_in_which_the_engine_preempted_does_not_count() -> None:
    stack = FakeStack(preempted=lambda asked: min(asked, 6) // 3)
    found = measure(stack)
    assert discarded(stack, found) == 2
    assert len(found.trials) == MIN_TRIALS
    with pytest.raises(NotJudged, match="the engine preempted a request"):
        measure(FakeStack(preempted=lambda asked: asked))


def test_a_reload_that_brought_too_little_is_told_to_the_one_who_owns_it() -> None:
    short = TokenSources(17, 0, 240)
    stack = FakeStack(sources=lambda repeat, prompt: short if repeat == 1 else whole(prompt))
    measure(stack)
    assert stack.kept[0] == ((stack.asked[1],), short)
    assert len(stack.kept) == stack.repeats


def test_the_prompt_grows_until_a_reload_has_room() -> None:
    """Cold 10 us a token: 1 ms + n us is at most 0.15 x (1 ms + 10 n us) from 1 700 tokens on; lengths double from 256."""
    stack = FakeStack(cold_s=10e-6)
    found = measure(stack, longest=200 * CHUNK)
    assert found.prompt_tokens == 128 * CHUNK + 1
    lengths = [prompt.tokens for prompt in stack.asked if prompt.tokens > 1]
    assert list(dict.fromkeys(lengths)) == [16 * CHUNK + 1, 32 * CHUNK + 1, 64 * CHUNK + 1, 128 * CHUNK + 1]


@pytest.mark.parametrize(
    ("longest", "tokens"), [(401, 401), (400, 385), (416, 401)], ids=["fits-exactly", "one-less", "one-chunk-less-one"]
)
def test_the_longest_prompt_is_the_last_resort(longest: int, tokens: int) -> None:
    """A floor of half a cold prompt is more than is wanted, but still leaves room."""
    found = measure(FakeStack(cold_s=5e-6), longest=longest)
    assert found.prompt_tokens == tokens


def test_without_room_nothing_is_claimed() -> None:
    stack = FakeStack(cold_s=1e-6)
    with pytest.raises(
        NotJudged, match=r"even at 1585 tokens the floor \(3 ms\) is above 80% of a cold prompt \(3 ms\)"
    ):
        measure(stack)
    assert stack.repeats == 4, "no trial is run for nothing"


@pytest.mark.parametrize("longest", [1, CHUNK - 1, CHUNK])
def test_a_model_that_takes_less_than_a_chunk_and_a_token_is_not_judged(longest: int) -> None:
    with pytest.raises(NotJudged, match=f"the model takes {longest} tokens"):
        measure(FakeStack(), longest=longest)


def test_without_the_size_of_a_token_there_is_no_floor() -> None:
    with pytest.raises(NotJudged, match="bytes of KV per token are not known"):
        measure(FakeStack(record=SimpleNamespace(kv_bytes_per_token=None)))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda prompt: TokenSources(prompt.tokens, 0, 0),
        lambda prompt: TokenSources(1, prompt.whole_chunk_tokens, 0),
        lambda prompt: TokenSources(1 + CHUNK, 0, prompt.whole_chunk_tokens - CHUNK),
    ],
    ids=["computed", "from-the-gpu", "one-chunk-short"],
)
def test_an_unverified_reload_is_thrown_away_and_counted(wrong: Callable[[Prompt], TokenSources]) -> None:
    """Its time would be wonderful; it must not be in the trials."""
    bad = {2, 5, 6}
    stack = FakeStack(sources=lambda repeat, prompt: wrong(prompt) if repeat in bad else whole(prompt))
    honest = stack.reload_s
    stack.reload_s = lambda prompt: 1e-6 if stack.repeats in bad else honest(prompt)
    found = measure(stack)
    assert discarded(stack, found) == 3
    assert len(found.trials) == MIN_TRIALS
    assert min(one.reload_s for one in found.trials) >= 0.002


def test_a_cold_run_that_was_not_cold_is_thrown_away() -> None:
    stack = FakeStack()
    stack.cold_sources = lambda prompt: (
        TokenSources(1, prompt.tokens - 1, 0) if stack.repeats == 1 else TokenSources(prompt.tokens, 0, 0)
    )
    found = measure(stack)
    assert discarded(stack, found) == 1


def test_four_failures_in_a_row_are_for_another_requirement_to_judge() -> None:
    stack = FakeStack(sources=lambda repeat, prompt: TokenSources(prompt.tokens - repeat, repeat, 0))
    with pytest.raises(NotJudged, match=r"ACC-02.*last attempt.*repeat 253 computed \+ 4 GPU hit \+ 0 loaded"):
        measure(stack)
    assert stack.repeats == 4


def test_three_failures_in_a_row_are_not() -> None:
    stack = FakeStack(sources=lambda n, prompt: whole(prompt) if n % 4 == 0 else TokenSources(257, 0, 0))
    assert discarded(stack, measure(stack)) == 3 * (MIN_TRIALS + 1)


def test_an_undecided_ratio_takes_every_trial_allowed() -> None:
    stack = FakeStack()
    stack.reload_s = lambda prompt: (0.001 + 100e-6 * prompt.tokens) * (0.7 if stack.repeats % 2 else 1.1)
    found = measure(stack)
    assert len(found.trials) == MAX_TRIALS
    with pytest.raises(NotJudged, match="just exceeds"):
        found.check_decided(limits.RELOAD_OVER_COLD)


def test_what_the_log_does_not_confirm_is_not_timed() -> None:
    """H200, full graphs: 1 024 tokens counted as loaded, found in the log and never retrieved."""

    def contradicted(exchange: Exchange) -> None:
        raise NotJudged(f"the log says that none of {exchange.sources.loaded} tokens was retrieved")

    with pytest.raises(NotJudged, match="none of 256 tokens was retrieved"):
        measure(FakeStack(expect_retrieved=contradicted))
