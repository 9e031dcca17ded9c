"""Answers that outgrow the KV pool, and what their replay shows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.catalogue import limits
from fixtures.core.errors import NotJudged
from fixtures.experiments import preemption
from fixtures.subject.exchange import TokenSources
from tests.fakes.counting_stack import BLOCK, CHUNK, FakeStack, answer, source

# --- preemption -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "block", "longest", "expected"),
    [
        (255, 128, 8190, (15, 2138, 204)),
        (511, 64, 8190, (15, 2138, 140)),
        (1023, 32, 8190, (31, 1002, 126)),
        (29_000, 16, 16_000, (40, 11326, 314)),
        (57_000, 16, 32_000, (30, 29917, 523)),
    ],
)
def test_a_load_fits_the_pool_and_outgrows_it(
    blocks: int, block: int, longest: int, expected: tuple[int, int, int]
) -> None:
    """The first: 255 = 15 x 17 blocks of 128 tokens; 30 steps for all, 8 tokens to spare: 2138; 30 + 128 + 30 + 16: 204."""
    load = preemption.pressure(blocks, block, longest)
    assert load == preemption.Pressure(*expected)
    assert load is not None
    steps = load.requests * load.prompt_tokens // preemption.STEP_TOKENS + load.requests

    def taken(tokens: int) -> int:
        return load.requests * -(-tokens // block)

    assert taken(load.prompt_tokens + steps) <= blocks, "all of them run before the first one grows"
    assert taken(load.prompt_tokens + load.answer_tokens) > blocks + load.requests, "then there is no room for all"
    assert load.prompt_tokens + load.answer_tokens <= longest


@pytest.mark.parametrize(("blocks", "longest"), [(8, 8190), (10**6, 8190)])
def test_there_is_not_always_such_a_load(blocks: int, longest: int) -> None:
    assert preemption.pressure(blocks, 16, longest) is None


def test_a_pool_that_is_too_large_is_not_judged() -> None:
    with pytest.raises(NotJudged, match="smaller pool"):
        preemption.preempt(FakeStack(pool_tokens=10**7), source())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("preemptions", "share", "why"),
    [
        (0, 0.0, "nothing was preempted"),
        (4, 0.5, "the tier loaded 50%"),
        (4, 1.0, ""),
        (4, float(limits.REPLAYED_SHARE), ""),
    ],
)
def test_only_a_replay_from_the_tier_counts(preemptions: int, share: float, why: str) -> None:
    stack = FakeStack(pool_tokens=32768)
    load = preemption.pressure(255, BLOCK, source().max_tokens)
    assert load is not None
    whole = (load.prompt_tokens - 1) // CHUNK * CHUNK
    stack.preemptions, stack.hits = preemptions, round(preemptions * whole * share)
    found = preemption.preempt(stack, source())  # type: ignore[arg-type]
    assert found.requests == load.requests
    assert found.preemptions == preemptions
    assert len(found.to_check) == preemption.TO_CHECK
    assert {one.tokens for one in found.to_check} == {whole + 1}
    if why:
        with pytest.raises(NotJudged, match=why):
            found.check_preempted()
    else:
        found.check_preempted()


@pytest.mark.parametrize(("on_gpu", "compared"), [(512, 1), (128, 0)])
def test_copies_on_the_gpu_count_where_they_are_whole(on_gpu: int, compared: int) -> None:
    prompt = source().unique(chunks=2)
    sources = iter((TokenSources(513 - on_gpu, on_gpu, 0), TokenSources(1, 0, 512)))
    control: Any = SimpleNamespace(
        complete=lambda *_: answer(prompt, sources=next(sources)), check_reloaded=lambda *_: None
    )
    stack: Any = FakeStack()
    if not compared:
        with pytest.raises(NotJudged, match="complete copy left on the GPU"):
            preemption.answers_afterwards(stack, control, [prompt], 4)
        return
    (found,) = preemption.answers_afterwards(stack, control, [prompt], 4)
    assert (found.on_gpu.sources.gpu_hit, found.reloaded.sources.loaded) == (512, 512)
