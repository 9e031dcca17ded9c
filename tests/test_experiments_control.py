"""The matched control and its sensitivity check, on a stack whose answers are chosen here."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from fixtures.core.errors import NotJudged
from fixtures.experiments.control import LOGPROBS
from fixtures.instruments.response import Response
from fixtures.subject.exchange import Exchange, TokenSources
from tests.fakes import answering_stack
from tests.fakes.answering_stack import COLD, HIT, FakeStack, control, exchange

if TYPE_CHECKING:
    from fixtures.instruments.prompts import Prompt, Prompts

prompts = answering_stack.prompts


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


def test_an_engine_that_computes_no_number_is_not_judged_but_told(prompts: Prompts) -> None:
    stack = FakeStack(lambda number, prompt: exchange({"a": float("nan")}))
    with pytest.raises(NotJudged, match="does not compute finite log-probabilities"):
        control(stack).answer(prompts.unique(chunks=4), 4)
    assert [incident.owner for incident in stack.context.incidents.found] == ["API-02"]


@pytest.mark.parametrize("body", ['{"choices": [{"text": "a", "logprobs": null}]}', '{"choices": [{"text": "a"}]}'])
def test_log_probabilities_that_vanish_are_not_the_tiers_fault(prompts: Prompts, body: str) -> None:
    prompt = prompts.unique(chunks=4)
    stripped = Exchange(prompt, {}, Response(200, {}, body, 0.1), "engine-0", HIT)
    stack = FakeStack(lambda number, prompt: stripped)
    with pytest.raises(NotJudged, match="does not contain the log-probabilities that were requested"):
        control(stack).complete(prompt, 4)
    (incident,) = stack.context.incidents.found
    assert incident.owner == "API-02"
    with pytest.raises(NotJudged, match="give the address of the engine itself"):
        control(stack).assert_same(stripped, prompt, exchange({"a": -1.0}), 4)


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


def test_a_long_reload_is_whole_by_its_number(prompts: Prompts) -> None:
    """Numbers above 256 are objects of their own, each time they are counted."""
    prompt = prompts.unique(chunks=40)
    control(FakeStack(lambda *_: exchange({"a": -1.0}))).check_reloaded(
        exchange({"a": -1.0}, TokenSources(1, 0, int("640"))), prompt
    )


def test_sources_that_do_not_add_up_are_for_their_own_requirement(prompts: Prompts) -> None:
    stack, prompt = FakeStack(lambda number, prompt: exchange({"a": -0.1})), prompts.unique(chunks=4)
    control(stack).check_total(TokenSources(65, 0, 0), prompt)
    assert not stack.context.incidents.found
    control(stack).check_total(TokenSources(64, 0, 0), prompt)
    (incident,) = stack.context.incidents.found
    assert incident.owner == "ACC-03"
    assert "add up to 65 tokens, got 64 computed" in incident.text


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
