"""When two answers of one engine differ: what that says of the tier, on a stack whose answers are chosen here."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from fixtures.core.errors import NotJudged
from fixtures.experiments.control import LOGPROBS
from tests.fakes import answering_stack
from tests.fakes.answering_stack import HIT, FakeStack, control, exchange

if TYPE_CHECKING:
    from fixtures.instruments.prompts import Prompts
    from fixtures.subject.exchange import Exchange

prompts = answering_stack.prompts


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
        ("cpu", [exchange({"a": -1.0})], "holds"),
        ("cpu", [exchange({"a": -1.4})], "differs"),
        ("cpu", [exchange({"a": -1.0}, HIT)] * 2, "not judged"),
        ("cpu", [exchange({"a": -9.0}, HIT), exchange({"a": -1.0})], "holds"),
        ("cpu", [exchange({"a": -1.0}, HIT), exchange({"a": -1.4})], "differs"),
        ("cuda", [exchange({"a": -9.0})], "holds"),
    ],
)
def test_a_reload_is_near_to_what_another_tenant_computes(
    prompts: Prompts, device: str, anew: list[Exchange], verdict: str
) -> None:
    changed = exchange({"a": -2.0})
    stack = FakeStack(lambda number, prompt: anew[number - 1] if number <= len(anew) else changed, device=device)
    prompt, again = prompts.unique(chunks=4), exchange({"a": -1.0})
    if verdict == "holds":
        control(stack).assert_near_anew(again, prompts, prompt, 4)
    else:
        with pytest.raises(AssertionError if verdict == "differs" else NotJudged, match=r"rounding|cache salt"):
            control(stack).assert_near_anew(again, prompts, prompt, 4)
    salts = [options["cache_salt"] for _, options in stack.asked if "cache_salt" in options]
    assert len(set(salts)) == len(salts) == (len(anew) if device == "cpu" else 0)
    assert all("kv_transfer_params" in stack.asked[number][1] for number in range(1, len(salts)))


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
