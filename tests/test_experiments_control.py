"""The matched control and its sensitivity check, on a stack whose answers are chosen here."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NotApplicable, NotJudged
from fixtures.core.incidents import Incidents
from fixtures.experiments.control import LOGPROBS, Control
from fixtures.instruments.prompts import Prompt, Prompts
from fixtures.instruments.response import Response
from fixtures.subject.exchange import Exchange, TokenSources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHUNK = 16
COLD, HIT = TokenSources(65, 0, 0), TokenSources(1, 64, 0)


def exchange(
    tops: Mapping[str, float], tokens: TokenSources = COLD, prompt: Prompt | None = None, later: float = -1.0
) -> Exchange:
    """An answer of two tokens; ``tops`` are the log-probabilities of the first."""
    best = max(tops, key=lambda name: tops[name])
    probabilities = {
        "tokens": [best, "b"],
        "token_logprobs": [tops[best], later],
        "top_logprobs": [dict(tops), {"b": later}],
    }
    choice = {"text": f"{best}b", "finish_reason": "length", "logprobs": probabilities}
    return Exchange(
        prompt, {}, Response(200, {}, json.dumps({"id": "cmpl-1", "choices": [choice]}), 0.1), "engine-0", tokens
    )


@dataclass
class FakeStack:
    answers: Callable[[int, Prompt], Exchange]
    gpu_prefix_cache: bool = True
    device: str = "cuda"
    asked: list[tuple[Prompt, dict[str, Any]]] = field(default_factory=list)
    logprobs: int | None = LOGPROBS
    block: int | None = 4
    chunk_tokens: int = CHUNK
    kept: list[tuple[tuple[Prompt, ...], TokenSources]] = field(default_factory=list)
    context: Any = field(default_factory=lambda: SimpleNamespace(incidents=Incidents()))

    def accepted_logprobs(self, wanted: tuple[int, ...]) -> int | None:
        return next((number for number in wanted if self.logprobs is not None and number <= self.logprobs), None)

    @property
    def tier(self) -> Any:
        return SimpleNamespace(expect_kept=lambda prompts, tokens: self.kept.append((tuple(prompts), tokens)))

    @property
    def started_counters(self) -> Any:
        return SimpleNamespace(block_size=self.block)

    @property
    def record(self) -> Any:
        return SimpleNamespace(device=self.device)

    def complete(self, prompt: Prompt, **options: Any) -> Exchange:
        self.asked.append((prompt, options))
        return self.answers(len(self.asked), prompt)


def control(stack: FakeStack) -> Control:
    return Control(stack)  # type: ignore[arg-type]


@pytest.fixture
def prompts() -> Prompts:
    return Prompts(1, "control", CHUNK, 1000)


def depends_on_the_prompt(prompt: Prompt, tokens: TokenSources = COLD) -> Exchange:
    return exchange({"a": -random.Random(str(prompt.ids)).random(), "b": -3.0}, tokens, prompt)


# --- the control ------------------------------------------------------------------------------------------------------


def test_the_control_is_the_gpus_own_copy(prompts: Prompts) -> None:
    stack = FakeStack(lambda number, prompt: exchange({"a": -0.1 * number}, HIT if number == 2 else COLD))
    made = control(stack)
    answer = made.answer(prompts.unique(chunks=4), 4)
    assert answer.fingerprint[3][0] == -0.2, "the second answer, not the cold one"
    assert made.name == "GPU's own copy"
    assert [options for _, options in stack.asked] == [{"max_tokens": 4, "logprobs": LOGPROBS}] * 2
    assert stack.asked[0][0] == stack.asked[1][0]


@pytest.mark.parametrize(
    "sources",
    [TokenSources(65, 0, 0), TokenSources(17, 48, 0), TokenSources(1, 0, 64)],
    ids=["computed-again", "one-block-short", "reloaded"],
)
def test_a_control_that_the_gpu_did_not_answer_is_none(prompts: Prompts, sources: TokenSources) -> None:
    stack = FakeStack(lambda number, prompt: exchange({"a": -0.1}, sources if number == 2 else COLD))
    with pytest.raises(NotJudged, match=r"was not a complete GPU hit \(" + str(sources).replace("+", r"\+")):
        control(stack).answer(prompts.unique(chunks=4), 4)


def test_without_a_prefix_cache_a_cpu_has_its_cold_run(prompts: Prompts) -> None:
    stack = FakeStack(lambda number, prompt: exchange({"a": -0.1}), gpu_prefix_cache=False, device="cpu")
    made = control(stack)
    assert made.answer(prompts.unique(chunks=4), 4).sources == COLD
    assert made.name == "cold run"
    assert len(stack.asked) == 1


def test_without_a_prefix_cache_a_gpu_has_no_control(prompts: Prompts) -> None:
    stack = FakeStack(lambda number, prompt: exchange({"a": -0.1}), gpu_prefix_cache=False)
    with pytest.raises(NotJudged, match="turn enablePrefixCaching on"):
        control(stack).answer(prompts.unique(chunks=4), 4)


# --- sensitivity ------------------------------------------------------------------------------------------------------


def test_a_model_that_answers_the_same_whatever_it_read_cannot_testify(prompts: Prompts) -> None:
    stack = FakeStack(lambda number, prompt: exchange({"a": -0.1}))
    prompt = prompts.unique(chunks=4)
    with pytest.raises(NotJudged, match="does not depend on its prompt"):
        control(stack).require_input_sensitivity(prompts, prompt, exchange({"a": -0.1}), 4)
    (asked, options) = stack.asked[0]
    assert [at for at in range(65) if asked.ids[at] != prompt.ids[at]] == [1], "one early token is changed"
    assert options["logprobs"] == LOGPROBS


@pytest.mark.parametrize(
    "later", [-1.0, -1.0000001], ids=["in-the-first-token", "only-in-the-last-bits-of-a-later-one"]
)
def test_a_model_that_depends_on_what_it_read_can_be_checked(prompts: Prompts, later: float) -> None:
    first = -0.2 if later == -1.0 else -0.1
    stack = FakeStack(lambda number, prompt: exchange({"a": first}, later=later))
    control(stack).require_input_sensitivity(prompts, prompts.unique(chunks=4), exchange({"a": -0.1}), 4)


# --- what may be compared ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "whole"),
    [
        (TokenSources(1, 0, 64), True),
        (TokenSources(17, 0, 48), False),
        (TokenSources(65, 0, 0), False),
        (TokenSources(0, 1, 64), False),
        (TokenSources(1, 64, 0), False),
    ],
    ids=str,
)
def test_only_a_whole_reload_may_be_compared(prompts: Prompts, sources: TokenSources, whole: bool) -> None:
    stack, prompt = FakeStack(lambda number, prompt: exchange({"a": -1.0})), prompts.unique(chunks=4)
    made = control(stack)
    if whole:
        made.check_reloaded(exchange({"a": -1.0}, sources), prompt)
        made.check_loaded(sources, [prompt])
    else:
        with pytest.raises(NotJudged, match="not a complete reload"):
            made.check_reloaded(exchange({"a": -1.0}, sources), prompt)
        with pytest.raises(NotJudged, match="expected 64 loaded tokens"):
            made.check_loaded(sources, [prompt])
    assert stack.kept == [((prompt,), sources)] * 2, "whatever came, ACC-02 is told where it has to be there"


@pytest.mark.parametrize(
    ("cache", "device", "aligned", "reason"),
    [
        (True, "cuda", True, None),
        (True, "cpu", False, None),
        (True, "cuda", False, "there is no control for this case"),
        (False, "cpu", True, "no part of a prompt can be on the GPU"),
        (False, "cuda", False, "no part of a prompt can be on the GPU"),
    ],
    ids=["aligned-cuda", "within-cpu", "within-cuda", "no-cache-cpu", "no-cache-cuda"],
)
def test_a_mixed_prefix(cache: bool, device: str, aligned: bool, reason: str | None) -> None:
    made = control(FakeStack(lambda number, prompt: exchange({"a": -1.0}), cache, device))
    if reason is None:
        made.require_partial_hit_control(aligned=aligned)
    else:
        with pytest.raises(NotJudged, match=reason):
            made.require_partial_hit_control(aligned=aligned)


# --- a suffix of more than one token ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "block", "chunk", "tokens"),
    [("one", 4, 16, 1), ("one", None, 16, 1), ("two", 4, 16, 2), ("block", 4, 16, 4), ("block", 16, 256, 16)],
)
def test_a_suffix_of_a_block_has_a_control(length: Any, block: int | None, chunk: int, tokens: int) -> None:
    stack = FakeStack(lambda number, prompt: exchange({"a": -1.0}), block=block, chunk_tokens=chunk)
    assert control(stack).suffix(length) == tokens


@pytest.mark.parametrize(
    ("length", "block", "chunk", "reason"),
    [
        ("block", 128, 128, NotApplicable),
        ("block", 128, 64, NotApplicable),
        ("two", 1, 16, NotApplicable),
        ("two", None, 16, NotJudged),
    ],
)
def test_some_suffixes_do_not_exist(length: Any, block: int | None, chunk: int, reason: type[NotJudged]) -> None:
    stack = FakeStack(lambda number, prompt: exchange({"a": -1.0}), block=block, chunk_tokens=chunk)
    with pytest.raises(reason):
        control(stack).suffix(length)


# --- how many log-probabilities ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "asked"), [(20, 5), (5, 5), (4, 1), (1, 1)])
def test_no_more_log_probabilities_are_asked_for_than_the_engine_gives(most: int, asked: int, prompts: Prompts) -> None:
    stack = FakeStack(lambda number, prompt: exchange({"a": -1.0}), logprobs=most)
    control(stack).complete(prompts.unique(chunks=1), 2)
    assert stack.asked[0][1]["logprobs"] == asked


def test_an_engine_without_log_probabilities_is_not_judged(prompts: Prompts) -> None:
    stack = FakeStack(lambda number, prompt: exchange({"a": -1.0}), logprobs=0)
    with pytest.raises(NotJudged, match="--max-logprobs 0"):
        control(stack).answer(prompts.unique(chunks=1), 2)
    assert stack.asked == []


# --- the comparison ---------------------------------------------------------------------------------------------------


def test_a_model_that_differs_from_itself_says_nothing_about_the_tier(prompts: Prompts) -> None:
    stack = FakeStack(lambda number, prompt: exchange({"a": -0.1 - 0.01 * (number == 3)}, HIT))
    prompt = prompts.unique(chunks=4)
    with pytest.raises(NotJudged, match=r"not deterministic: two answers.*differ"):
        control(stack).assert_same(exchange({"a": -0.3}), prompt, exchange({"a": -0.1}), 4)


def test_a_reload_that_differs_from_a_model_that_does_not_is_wrong(prompts: Prompts) -> None:
    stack = FakeStack(lambda number, prompt: exchange({"a": -0.1}, HIT))
    prompt, other = prompts.unique(chunks=4), prompts.unique(chunks=4)
    theirs = exchange({"a": -0.3000001}, HIT, other)
    among = {prompt: exchange({"a": -0.1}, HIT, prompt), other: theirs}
    with pytest.raises(AssertionError, match=r"-0\.3 against -0\.1.*; the answer is closer to that of prompt-2"):
        control(stack).assert_same(exchange({"a": -0.3}), prompt, exchange({"a": -0.1}), 4, among=among)
    assert len(stack.asked) > 1
    control(stack).assert_same(exchange({"a": -0.1}), prompt, exchange({"a": -0.1}), 4)


@pytest.mark.parametrize(
    ("cold", "again", "outcome"),
    [
        ({"a": -1.0, "b": -3.0}, {"a": -1.000001, "b": -3.0}, NotJudged),
        # bfloat16 on a CPU with AMX (seen: 5e-4 apart)
        ({"a": -5.437628, "b": -5.5}, {"a": -5.438105, "b": -5.5001}, NotJudged),
        # two ranks that rounding swaps
        ({"a": -5.0, "b": -5.77586}, {"a": -5.0001, "c": -5.77588}, NotJudged),
        ({"a": -5.0, "b": -5.4}, {"a": -5.2, "b": -5.4}, AssertionError),
        ({"a": -5.0, "b": -5.4}, {"x": -5.6, "y": -5.9}, AssertionError),
    ],
)
def test_without_a_prefix_cache_rounding_is_not_judged(
    cold: dict[str, float], again: dict[str, float], outcome: type[BaseException], prompts: Prompts
) -> None:
    """A cold run computes the last tokens in another shape; how much that may move is measured against another prompt."""
    prompt = prompts.unique(chunks=4)
    stack = FakeStack(lambda number, prompt: exchange({"x": -5.5, "y": -6.5}), gpu_prefix_cache=False, device="cpu")
    with pytest.raises(outcome):
        control(stack).assert_same(exchange(again), prompt, exchange(cold), 4)
    ((asked, _),) = stack.asked
    assert asked.tokens == prompt.tokens
    assert asked.ids[0] == prompt.ids[0]
    assert asked.ids[1:] == prompt.ids[:0:-1]


@pytest.mark.parametrize(("apart", "right"), [(0.0, True), (1e-6, True), (0.02, True), (0.2, False), (2.0, False)])
def test_where_tokens_are_computed_anew_the_answer_is_near_and_no_more(
    apart: float, right: bool, prompts: Prompts
) -> None:
    stack, prompt = FakeStack(lambda number, prompt: exchange({"a": -0.1})), prompts.unique(chunks=4)
    again, expected, changed = exchange({"a": -1.0 - apart}), exchange({"a": -1.0}), exchange({"a": -1.5})
    if right:
        control(stack).assert_near(again, prompt, expected, changed)
    else:
        with pytest.raises(AssertionError, match="by rounding only"):
            control(stack).assert_near(again, prompt, expected, changed)


@pytest.mark.parametrize(
    ("device", "apart", "right"), [("cpu", 0.02, True), ("cpu", 0.2, False), ("cuda", 0.2, True), ("cuda", 0.3, False)]
)
def test_an_answer_is_that_to_its_own_prompt(device: str, apart: float, right: bool, prompts: Prompts) -> None:
    stack, prompt = FakeStack(lambda number, prompt: exchange({"a": -0.1}), device=device), prompts.unique(chunks=4)
    again, expected, other = exchange({"a": -1.0 - apart}), exchange({"a": -1.0}), exchange({"a": -1.5}, prompt=prompt)
    if right:
        control(stack).assert_own(again, prompt, expected, other)
    else:
        with pytest.raises(AssertionError, match=r"by rounding only|nearer to that of"):
            control(stack).assert_own(again, prompt, expected, other)


@pytest.mark.parametrize(
    ("device", "anew", "verdict"),
    [
        ("cpu", exchange({"a": -1.0}), "holds"),
        ("cpu", exchange({"a": -1.4}), "differs"),
        ("cpu", exchange({"a": -1.0}, HIT), "not judged"),
        ("cuda", exchange({"a": -9.0}), "holds"),
    ],
)
def test_a_reload_is_near_to_what_another_tenant_computes(
    prompts: Prompts, device: str, anew: Exchange, verdict: str
) -> None:
    changed = exchange({"a": -2.0})
    stack = FakeStack(lambda number, prompt: anew if number == 1 else changed, device=device)
    prompt, again = prompts.unique(chunks=4), exchange({"a": -1.0})
    if verdict == "holds":
        control(stack).assert_near_anew(again, prompts, prompt, 4)
    else:
        with pytest.raises(AssertionError if verdict == "differs" else NotJudged, match=r"rounding|cache salt"):
            control(stack).assert_near_anew(again, prompts, prompt, 4)
    assert not stack.asked or str(stack.asked[0][1]["cache_salt"]).startswith("anew-")


def test_sources_that_do_not_add_up_are_for_their_own_requirement(prompts: Prompts) -> None:
    stack, prompt = FakeStack(lambda number, prompt: exchange({"a": -0.1})), prompts.unique(chunks=4)
    control(stack).check_total(TokenSources(65, 0, 0), prompt)
    assert not stack.context.incidents.found
    control(stack).check_total(TokenSources(64, 0, 0), prompt)
    (incident,) = stack.context.incidents.found
    assert incident.owner == "ACC-03"
    assert "add up to 65 tokens, got 64 computed" in incident.text


# --- whose answer it is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_noisy_answer_is_still_nearest_to_its_own(seed: int) -> None:
    """Answers of one batch differ by a few hundredths; another prompt's by far more, and in its tokens."""
    source = random.Random(seed)
    names = [f"t{number}" for number in range(40)]
    candidates = [
        exchange({name: -source.uniform(0.1, 6) for name in source.sample(names, LOGPROBS)}) for _ in range(16)
    ]
    made = control(FakeStack(lambda number, prompt: candidates[0]))
    for own in candidates:
        tops = dict(own.fingerprint[4][0])
        noisy = {name: value + source.uniform(-0.06, 0.06) for name, value in tops.items()}
        noisy.pop(min(noisy, key=lambda name: noisy[name]))  # the last of the five may be another one in a batch
        noisy["other"] = -7.0
        assert made.closest_answer(exchange(noisy), candidates) is own


def test_of_answers_with_the_same_tokens_the_closest_wins() -> None:
    far, near = exchange({"a": -0.5, "b": -1.5}), exchange({"a": -0.12, "b": -2.1})
    made = control(FakeStack(lambda number, prompt: far))
    assert made.closest_answer(exchange({"a": -0.1, "b": -2.0}), [far, near]) is near
    assert made.closest_answer(exchange({"a": -0.1, "b": -2.0}), [near, far]) is near


def test_a_token_that_only_one_has_is_far_away() -> None:
    other, same = exchange({"a": -0.1, "z": -2.0}), exchange({"a": -1.1, "b": -3.0})
    made = control(FakeStack(lambda number, prompt: same))
    assert made.closest_answer(exchange({"a": -0.1, "b": -2.0}), [other, same]) is same


def test_the_fake_depends_on_its_prompt(prompts: Prompts) -> None:
    """End to end: a model that reads passes the sensitivity check against the real change of a token."""
    stack = FakeStack(lambda number, prompt: depends_on_the_prompt(prompt))
    prompt = prompts.unique(chunks=4)
    control(stack).require_input_sensitivity(prompts, prompt, depends_on_the_prompt(prompt), 4)


@pytest.mark.parametrize(
    ("sources", "counts"),
    [
        (TokenSources(1, 32, 32), True),
        (TokenSources(1, 64, 0), False),
        (TokenSources(1, 0, 64), False),
        (TokenSources(17, 32, 16), False),
    ],
    ids=str,
)
def test_a_mixed_reload_counts_only_if_both_sides_brought_something(
    prompts: Prompts, sources: TokenSources, counts: bool
) -> None:
    made, prompt = control(FakeStack(lambda number, prompt: exchange({"a": -1.0}))), prompts.unique(chunks=4)
    if counts:
        made.require_partial_hit(exchange({"a": -1.0}, sources), prompt)
    else:
        with pytest.raises(NotJudged, match="together did not provide all"):
            made.require_partial_hit(exchange({"a": -1.0}, sources), prompt)
