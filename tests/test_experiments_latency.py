"""``latency.measure`` on a stack whose times and token sources are chosen here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.catalogue import limits
from fixtures.core.errors import NotJudged
from fixtures.core.record import Baseline
from fixtures.evidence.metrics import EngineCounters
from fixtures.experiments import baseline, latency, misses, store_cost
from fixtures.instruments.prompts import Prompt, Prompts
from fixtures.instruments.response import Response
from fixtures.instruments.trials import MAX_TRIALS, MIN_TRIALS, Interval, Trial, Trials
from fixtures.subject.exchange import Exchange, TokenSources

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 16
PER_TOKEN = 1000
LINK = 1e9
"""Bytes/s: a token takes a microsecond."""


@dataclass
class FakeStack:
    """Cold prompts take ``cold_s`` seconds a token; repeats ``reload_s`` seconds in all, from ``source``."""

    cold_s: float = 100e-6
    reload_s: Callable[[Prompt], float] = lambda prompt: 0.002 + prompt.whole_chunk_tokens * 2e-6
    fixed_s: float = 0.001
    hit_s: float = 0.0015
    pool_tokens: int = 4096
    sources: Callable[[int, Prompt], TokenSources] = lambda repeat, prompt: TokenSources(
        prompt.tokens - prompt.whole_chunk_tokens, 0, prompt.whole_chunk_tokens
    )
    """Of the n-th repeat."""
    cold_sources: Callable[[Prompt], TokenSources] = lambda prompt: TokenSources(prompt.tokens, 0, 0)
    record: Any = field(
        default_factory=lambda: SimpleNamespace(kv_bytes_per_token=PER_TOKEN, baseline=None, engines=[])
    )
    link: float | None = LINK
    preempted: Callable[[int], int] = lambda asked: 0
    """Preemptions until so many requests were sent."""
    kept: list[tuple[tuple[Prompt, ...], TokenSources]] = field(default_factory=list)
    expect_retrieved: Callable[[Exchange], None] = lambda exchange: None
    asked: list[Prompt] = field(default_factory=list)
    repeats: int = 0
    dropped_before: set[tuple[int, ...]] = field(default_factory=set)

    @property
    def engine(self) -> Any:
        return SimpleNamespace(
            counters=lambda: EngineCounters(preemptions=self.preempted(len(self.asked))),
            client=SimpleNamespace(get=lambda path: None),
        )

    @property
    def link_bytes_per_s(self) -> float:
        if self.link is None:
            raise NotJudged("the bandwidth cannot be measured where the engine runs")
        return self.link

    def load_per_core(self) -> float | None:
        return None

    @property
    def accounting(self) -> Any:
        return SimpleNamespace(expect_retrieved=self.expect_retrieved)

    @property
    def tier(self) -> Any:
        return SimpleNamespace(expect_kept=lambda prompts, tokens: self.kept.append((tuple(prompts), tokens)))

    def complete(self, prompt: Prompt, *, stream: bool, **_: Any) -> Exchange:
        assert stream, "without a stream there is no time to first token"
        if prompt.tokens == 1:
            seconds, sources = self.fixed_s, TokenSources(1, 0, 0)
        elif sum(one.ids == prompt.ids for one in self.asked) == 2:
            seconds, sources = self.hit_s, TokenSources(1, prompt.tokens - 1, 0)
        elif prompt.ids in {one.ids for one in self.asked}:
            assert prompt.ids in self.dropped_before, "a repeat with its GPU copy in place says nothing"
            self.repeats += 1
            seconds, sources = self.reload_s(prompt), self.sources(self.repeats, prompt)
        else:
            seconds, sources = self.fixed_s + self.cold_s * prompt.tokens, self.cold_sources(prompt)
        self.asked.append(prompt)
        response = Response(200, {}, "", total_s=seconds, content_s=(seconds,))
        return Exchange(prompt, {}, response, "engine-0", tokens=sources)

    def complete_concurrently(
        self, prompts: list[Prompt], *, at_once: int, stream: bool
    ) -> tuple[list[Exchange], TokenSources]:
        """All in one batch: each reaches its first token when all are computed."""
        found = [self.complete(prompt, stream=stream) for prompt in prompts]
        assert at_once == len(prompts)
        whole = self.fixed_s + sum(one.ttft_s - self.fixed_s for one in found)
        found = [replace(one, response=replace(one.response, content_s=(whole,))) for one in found]
        return found, TokenSources(sum(prompt.tokens for prompt in prompts), 0, 0)

    def clear_prefix_cache(self) -> None:
        self.dropped_before |= {prompt.ids for prompt in self.asked}


def measure(stack: FakeStack, longest: int = 100 * CHUNK) -> Any:
    return latency.measure(stack, Prompts(3, "latency", CHUNK, longest))  # type: ignore[arg-type]


def test_clear_trials_by_hand() -> None:
    """16 chunks: cold 1 + 25.7 ms, floor 1 + 0.256 ms: already below 15 % of it."""
    stack = FakeStack()
    found = measure(stack)
    assert (found.prompt_tokens, found.loaded_tokens) == (257, 256)
    assert found.transfer_s == pytest.approx(256e-6)
    assert found.floor_s == pytest.approx(0.001256)
    assert found.ratio.median == pytest.approx((0.002 + 512e-6) / (0.001 + 0.0257))
    assert found.discarded == ()
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


@pytest.mark.parametrize(
    ("cold_s", "decided", "within"),
    [(100e-6, True, True), (200e-6, True, False), ([*[300e-6] * 5, *[50e-6] * 5], False, False)],
    ids=["as-without", "twice", "noisy"],
)
def test_what_the_store_costs(cold_s: Any, decided: bool, within: bool) -> None:
    baseline = Baseline(pool_tokens=1, prompt_tokens=4097, cold_s=(0.4107,) * 8)
    times = iter(cold_s if isinstance(cold_s, list) else [cold_s] * 10)

    class Varying(FakeStack):
        def complete(self, prompt: Prompt, *, stream: bool, **_: Any) -> Exchange:
            self.cold_s = next(times)
            return super().complete(prompt, stream=stream)

    cost = store_cost.store_cost(Varying(), Prompts(3, "cost", CHUNK, 20000), baseline)  # type: ignore[arg-type]
    assert cost.allowed_s(0.4107) == pytest.approx(1.25 * 0.4107 + 0.05)
    if decided:
        cost.check_decided()
        assert cost.too_slow != within
    else:
        with pytest.raises(NotJudged, match=r"includes the limit \(0\.563 to 0\.563 s\)"):
            cost.check_decided()


@pytest.mark.parametrize("slower", [1, 2], ids=["same-machine", "slower-machine"])
def test_a_machine_that_is_slower_now_is_not_the_store(slower: int) -> None:
    """Cold prompts take twice as long: the store's doing, unless those that are not stored do, too."""
    as_then = 0.001 + 100e-6 * 4097
    baseline = Baseline(pool_tokens=1, prompt_tokens=4097, cold_s=(0.4107,) * 8, unstored_s=(as_then,) * 8)

    class Slower(FakeStack):
        def complete(self, prompt: Prompt, *, stream: bool, **_: Any) -> Exchange:
            self.cold_s = 200e-6 if prompt.tokens == 4097 else slower * 100e-6
            return super().complete(prompt, stream=stream)

    cost = store_cost.store_cost(Slower(), Prompts(3, "cost", CHUNK, 20000), baseline)  # type: ignore[arg-type]
    if slower == 1:
        cost.check_decided()
        assert cost.too_slow
    else:
        with pytest.raises(NotJudged, match=r"also take \S+ times as long"):
            cost.check_decided()


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
    assert len(found.discarded) == 2
    assert "preempted" in found.discarded[0]
    assert len(found.trials) == MIN_TRIALS


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


def whole(prompt: Prompt) -> TokenSources:
    return TokenSources(prompt.tokens - prompt.whole_chunk_tokens, 0, prompt.whole_chunk_tokens)


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
    assert len(found.discarded) == 3
    assert "repeat" in found.discarded[0]
    assert len(found.trials) == MIN_TRIALS
    assert min(one.reload_s for one in found.trials) >= 0.002


def test_a_cold_run_that_was_not_cold_is_thrown_away() -> None:
    stack = FakeStack()
    stack.cold_sources = lambda prompt: (
        TokenSources(1, prompt.tokens - 1, 0) if stack.repeats == 1 else TokenSources(prompt.tokens, 0, 0)
    )
    found = measure(stack)
    assert len(found.discarded) == 1
    assert f"cold 1 computed + {16 * CHUNK} GPU hit" in found.discarded[0]


def test_four_failures_in_a_row_are_for_another_requirement_to_judge() -> None:
    stack = FakeStack(sources=lambda repeat, prompt: TokenSources(prompt.tokens, 0, 0))
    with pytest.raises(NotJudged, match=r"ACC-02.*repeat 257 computed \+ 0 GPU hit \+ 0 loaded"):
        measure(stack)
    assert stack.repeats == 4


def test_three_failures_in_a_row_are_not() -> None:
    found = measure(FakeStack(sources=lambda n, prompt: whole(prompt) if n % 4 == 0 else TokenSources(257, 0, 0)))
    assert len(found.discarded) == 3 * (MIN_TRIALS + 1)


def test_an_undecided_ratio_takes_every_trial_allowed() -> None:
    stack = FakeStack()
    stack.reload_s = lambda prompt: (0.001 + 100e-6 * prompt.tokens) * (0.7 if stack.repeats % 2 else 1.1)
    found = measure(stack)
    assert len(found.trials) == MAX_TRIALS
    with pytest.raises(NotJudged, match="still includes"):
        found.check_decided(limits.RELOAD_OVER_COLD)


# --- LAT-05 -----------------------------------------------------------------------------------------------------------


def waits(*seen: float, inside: float | None = None) -> tuple[misses.Wait, ...]:
    return tuple(misses.Wait(one, one if inside is None else inside) for one in seen)


QUICK = waits(*[0.01] * 9)


def misses_of(fixed: Any = QUICK, found: Any = QUICK, **fields: Any) -> misses.Misses:
    return misses.Misses(fixed, found, **{"without": None, "load": 0.5} | fields)


def test_quick_answers_are_decided() -> None:
    misses_of().check_decided()


@pytest.mark.parametrize("name", ["fixed", "found"])
def test_a_wait_of_every_request_inside_of_the_engine_is_the_caches(name: str) -> None:
    held = misses_of(**{name: waits(*[0.3] * 9)})
    held.check_decided()
    assert max(held.fixed_wait.low, held.miss_wait.low) == 0.3


@pytest.mark.parametrize("name", ["fixed", "found"])
def test_a_wait_outside_of_the_engine_is_not_the_caches(name: str) -> None:
    """A proxy holds the first event of every stream for 300 ms, cold and warm alike."""
    with pytest.raises(NotJudged, match=r"waits 300 ms, but by the engine's own clock only 10 ms: .*proxy"):
        misses_of(**{name: waits(*[0.3] * 9, inside=0.01)}).check_decided()


def test_a_wait_without_the_connector_too_is_not_the_caches() -> None:
    with pytest.raises(NotJudged, match="310 ms on the same engine without its connector"):
        misses_of(waits(*[0.3] * 9), without=Interval(0.31, 0.3, 0.32, 9)).check_decided()
    misses_of(waits(*[0.3] * 9), without=Interval(0.01, 0.01, 0.02, 9)).check_decided()


@pytest.mark.parametrize("name", ["fixed", "found"])
def test_a_busy_machine_is_not_judged(name: str) -> None:
    noisy = waits(*[0.02] * 4, *[0.269] * 5)
    with pytest.raises(NotJudged, match="too noisy"):
        misses_of(**{name: noisy}).check_decided()
    with pytest.raises(NotJudged, match=r"15\.0 runnable processes per core"):
        misses_of(**{name: waits(*[0.3] * 9)}, load=15.0).check_decided()


def test_one_stall_is_not_a_verdict_and_two_are() -> None:
    one = misses_of(found=waits(*[0.01] * 20, 2.5))
    with pytest.raises(NotJudged, match=r"only one of 21 misses waited, for 2\.5 s"):
        one.check_decided()
    two = misses_of(found=waits(*[0.01] * 19, 2.5, 3.0))
    two.check_decided()
    assert two.stalls == 2


class Timed(FakeStack):
    """Its engine counts TTFT itself; ``holds`` seconds pass between the engine and the client."""

    holds: float = 0.0
    waits: Callable[[Prompt], float] = staticmethod(lambda prompt: 0.0)
    ttft_sum: float = 0.0

    @property
    def engine(self) -> Any:
        return SimpleNamespace(
            counters=lambda: EngineCounters(ttft_sum=self.ttft_sum, ttft_count=len(self.asked)),
            client=SimpleNamespace(get=lambda path: None),
        )

    def complete(self, prompt: Prompt, *, stream: bool, **_: Any) -> Exchange:
        exchange = super().complete(prompt, stream=stream)
        inside = exchange.ttft_s + self.waits(prompt)
        self.ttft_sum += inside
        response = replace(exchange.response, content_s=(inside + self.holds,), total_s=inside + self.holds)
        return replace(exchange, response=response)


@pytest.mark.parametrize("holder", ["nothing", "proxy", "lookup"])
def test_who_holds_the_first_event_is_told_apart(holder: str) -> None:
    stack = Timed()
    stack.holds = 0.3 if holder == "proxy" else 0.0
    stack.waits = lambda prompt: 0.3 if holder == "lookup" and prompt.tokens >= CHUNK else 0.0
    found = misses.measure_misses(stack, Prompts(3, "misses", CHUNK, 20000))  # type: ignore[arg-type]
    assert len(found.misses) == misses.MISSES
    if holder == "proxy":
        with pytest.raises(NotJudged, match="proxy"):
            found.check_decided()
    else:
        found.check_decided()
        assert (found.miss_wait.low >= limits.MISS_WAIT_S) == (holder == "lookup")


def test_a_stall_is_looked_for_again() -> None:
    stack = Timed()
    stack.waits = lambda prompt: 3.0 if len(stack.asked) == 3 else 0.0
    found = misses.measure_misses(stack, Prompts(3, "misses", CHUNK, 20000))  # type: ignore[arg-type]
    assert found.stalls == 1
    assert len(found.misses) == misses.MISSES + misses.MORE_MISSES


# --- LAT-06 -----------------------------------------------------------------------------------------------------------


@dataclass
class Together:
    """Rounds whose ratio of reload to cold is chosen here."""

    ratios: list[float]
    lost: int = 0
    rounds: int = 0
    cold: bool = False
    kept: list[TokenSources] = field(default_factory=list)

    engine = SimpleNamespace(counters=lambda: EngineCounters(preemptions=0))

    def clear_prefix_cache(self) -> None:
        pass

    @property
    def tier(self) -> Any:
        return SimpleNamespace(expect_kept=lambda _, tokens: self.kept.append(tokens))

    def complete_concurrently(
        self, prompts: list[Prompt], *, at_once: int, stream: bool
    ) -> tuple[list[Exchange], TokenSources]:
        assert stream
        self.cold = not self.cold
        self.rounds += self.cold
        seconds = 1.0 if self.cold else self.ratios[(self.rounds - 1) % len(self.ratios)]
        loaded = 0 if self.cold else sum(prompt.whole_chunk_tokens for prompt in prompts) - self.lost
        response = Response(200, {}, "", total_s=seconds, content_s=(seconds,))
        return [Exchange(one, {}, response, "engine-0") for one in prompts], TokenSources(at_once, 0, loaded)

    @property
    def accounting(self) -> Any:
        return SimpleNamespace(expect_retrieved=lambda exchange: None)


def together(stack: Together) -> Interval:
    return latency.measure_together(stack, Prompts(3, "together", CHUNK, 20000))  # type: ignore[arg-type]


@pytest.mark.parametrize(("ratio", "below"), [(0.5, True), (1.2, False)])
def test_clear_rounds_decide(ratio: float, below: bool) -> None:
    stack = Together([ratio])
    assert (together(stack).high < limits.RELOAD_OVER_COLD) == below
    assert stack.rounds == latency.ROUNDS


def test_one_slow_round_is_outvoted_by_three_more() -> None:
    stack = Together([0.5, 0.5, 2.0, *[0.5] * 6])
    assert together(stack).high == 0.5
    assert stack.rounds == latency.ROUNDS + latency.MORE_ROUNDS


def test_rounds_that_disagree_are_too_noisy() -> None:
    with pytest.raises(NotJudged, match="after 9 rounds"):
        together(Together([0.5, 1.2]))


def test_rounds_that_load_too_little_are_reported_and_not_timed() -> None:
    stack = Together([0.5], lost=CHUNK)
    with pytest.raises(NotJudged, match=r"no round .* was loaded completely \(ACC-02\)"):
        together(stack)
    assert len(stack.kept) == latency.ROUNDS


# --- LAT-08 -----------------------------------------------------------------------------------------------------------


def curve_of(stack: FakeStack, longest: int = 20000) -> tuple[Any, ...]:
    source = Prompts(3, "curve", CHUNK, longest)
    return latency.measure_curve(stack, source, latency.measure(stack, source))  # type: ignore[arg-type]


def test_every_length_with_room_has_pairs_that_decide() -> None:
    assert {(one.room, len(one.trials) >= MIN_TRIALS) for one in curve_of(FakeStack())} == {(True, True)}


def test_a_length_without_room_is_a_picture_only() -> None:
    """A fixed cost of 60 ms is more than half of a prompt of 1 k, which takes 100 ms beyond it, and less of any longer one."""
    curve = curve_of(FakeStack(fixed_s=0.12, reload_s=lambda _: 0.121))
    assert [(one.prompt_tokens, one.room, len(one.trials)) for one in curve if one.prompt_tokens <= 1025] == [
        (1025, False, latency.CURVE_PAIRS)
    ]
    assert all(one.room for one in curve if one.prompt_tokens > 1025)


def test_a_load_that_is_slow_for_long_prompts_only_is_seen_at_its_length() -> None:
    slow = FakeStack(reload_s=lambda prompt: 2.0 if prompt.tokens > 4000 else 0.002)
    found = {one.prompt_tokens: one.ratio.low >= limits.RELOAD_OVER_COLD for one in curve_of(slow)}
    assert found == {257: False, 1025: False, 2049: False, 4097: True, 8193: True}


def test_what_the_log_does_not_confirm_is_not_timed() -> None:
    """H200, full graphs: 1 024 tokens counted as loaded, found in the log and never retrieved."""

    def contradicted(exchange: Exchange) -> None:
        raise NotJudged(f"the log says that none of {exchange.sources.loaded} tokens was retrieved")

    with pytest.raises(NotJudged, match="none of 256 tokens was retrieved"):
        measure(FakeStack(expect_retrieved=contradicted))
