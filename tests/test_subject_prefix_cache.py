"""Getting the GPU copy out of the way: by reset, else by a flood, else not at all."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.core.errors import NotJudged, SubjectFault
from fixtures.instruments.prompts import BOS, FIRST_ID, LAST_ID
from fixtures.instruments.response import Response
from fixtures.subject import prefix_cache as eviction

DONE, REFUSED = (200, '{"success": true}'), (200, '{"success": false}')


@dataclass
class FakeClient:
    """Answers resets in turn, the last one for ever; keeps the prompts it was sent."""

    resets: deque[tuple[int, str]]
    completion: int = 200
    reset_count: int = 0
    prompts: list[list[int]] = field(default_factory=list)
    payloads: list[dict[str, Any]] = field(default_factory=list)
    usage: deque[float] = field(default_factory=lambda: deque([0.0]))

    def get(self, path: str) -> Response:
        assert path == "/metrics"
        used = self.usage[0] if len(self.usage) == 1 else self.usage.popleft()
        return Response(200, {}, f"# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc {used}\n", 0.01)

    def post(self, path: str, payload: dict[str, Any] | None = None) -> Response:
        if path == "/reset_prefix_cache":
            self.reset_count += 1
            status, text = self.resets[0] if len(self.resets) == 1 else self.resets.popleft()
            return Response(status, {}, text, 0.01)
        assert path == "/v1/completions"
        assert payload is not None
        asked = payload["prompt"]
        self.prompts += asked if isinstance(asked[0], list) else [asked]
        self.payloads.append(payload)
        return Response(self.completion, {}, json.dumps({"choices": []}), 0.01)


@dataclass
class FakeLog:
    """A log whose next lines come with each reset."""

    fake: FakeClient
    lines: list[str]

    def position(self) -> int:
        return self.fake.reset_count

    def text(self, since: int) -> str:
        return "".join(f"WARNING {line}\n" for line in self.lines[since : self.fake.reset_count])


def client(*resets: tuple[int, str], **fields: Any) -> FakeClient:
    return FakeClient(deque(resets), **fields)


def drop(
    fake: Any,
    *,
    caching: bool = True,
    pool: int = 1000,
    tier: int | None = None,
    longest: int = 300,
    block: int | None = None,
    chunk: int = 256,
    reset_s: float = 30.0,
) -> str:
    facts = eviction.Pool(pool, tier, block, chunk, longest)
    return eviction.clear_prefix_cache(fake, model="m", prefix_caching=caching, pool=lambda: facts, reset_s=reset_s)


def test_without_prefix_caching_nothing_is_sent() -> None:
    fake = client(DONE)
    assert drop(fake, caching=False) == "nothing to drop"
    assert (fake.reset_count, fake.prompts) == (0, [])


def test_a_reset_that_is_refused_at_first_is_asked_for_again() -> None:
    fake = client(REFUSED, (200, '{"success":False}'), DONE)
    assert drop(fake) == "reset"
    assert (fake.reset_count, fake.prompts) == (3, [])


@pytest.mark.parametrize("text", ["", '{"success": true}', "null"], ids=["empty", "success", "null"])
def test_a_reset_that_is_answered_is_done(text: str) -> None:
    """Older engines answer 200 with an empty body."""
    assert drop(client((200, text))) == "reset"


def test_a_reset_that_is_refused_for_ever_is_a_fault() -> None:
    fake = client(REFUSED)
    with pytest.raises(SubjectFault, match=r"got refusals for 0 s: blocks of finished requests"):
        drop(fake, reset_s=0.2)
    assert fake.reset_count > 2
    assert fake.prompts == [], "a flood would hide that blocks are held"


def test_a_reset_that_fails_is_a_fault() -> None:
    with pytest.raises(SubjectFault, match="expected HTTP 200, got 500"):
        drop(client((500, "Internal Server Error")))


@dataclass
class FakeEngine:
    """A prefix cache of vLLM 0.32: whole blocks are kept, the least recently used goes first, others are used again first.

    Of every prompt of a chunk and more the tier stores its chunks.
    """

    block: int
    chunk: int
    blocks: int
    keeps: bool = False
    hits: int = 0
    stored: int = 0
    asked: int = 0
    cached: dict[tuple[int, ...], None] = field(default_factory=dict)
    """By all tokens up to the end of the block; the least recently used first."""

    def get(self, path: str) -> Response:
        text = f"vllm:prefix_cache_hits_total {self.hits}\nvllm:kv_cache_usage_perc 0\n"
        return Response(200 if path == "/metrics" else 404, {}, text, 0.01)

    def post(self, path: str, payload: dict[str, Any] | None = None) -> Response:
        if payload is None:
            return Response(404, {}, "", 0.01)
        asked = payload["prompt"]
        for ids in asked if isinstance(asked[0], list) else [asked]:
            self.ask(tuple(ids))
        return Response(200, {}, "{}", 0.01)

    def ask(self, ids: tuple[int, ...]) -> int:
        """One prompt; returns the tokens that the GPU's copy brought."""
        self.asked += 1
        self.stored += len(ids) // self.chunk * self.chunk
        keys = [ids[:end] for end in range(self.block, len(ids) + 1, self.block)]
        hit = 0
        for key in keys[: (len(ids) - 1) // self.block]:
            if key not in self.cached:
                break
            hit += self.block
        for key in reversed(keys):
            self.cached.pop(key, None)
            self.cached[key] = None
        while len(self.cached) > self.blocks and not self.keeps:
            self.cached.pop(next(iter(self.cached)))
        self.hits += hit
        return hit


@pytest.mark.parametrize(("block", "chunk"), [(128, 256), (16, 256), (16, 64), (64, 128), (16, 32), (32, 1000)])
def test_a_flood_of_prompts_below_a_chunk_leaves_the_tier_alone(block: int, chunk: int) -> None:
    fake = FakeEngine(block, chunk, blocks=300)
    own = tuple(range(2000, 2000 + 4 * chunk + 1))
    assert fake.ask(own) == 0
    assert fake.ask(own) > 0, "before the flood the GPU has its copy"
    stored = fake.stored
    assert drop(fake, pool=300 * block, tier=300 * block, longest=8192, block=block, chunk=chunk) == "flood"
    assert fake.stored == stored
    assert fake.ask(own) == 0


def test_a_gpu_copy_that_no_flood_evicts_is_not_judged() -> None:
    fake = FakeEngine(16, 256, blocks=300, keeps=True)
    with pytest.raises(NotJudged, match=r"filling its pool \(4800 tokens\) 3 times with other prompts did not evict"):
        drop(fake, pool=4800, longest=8192, block=16)


@pytest.mark.parametrize(("block", "chunk"), [(128, 128), (16, 17), (256, 256), (None, 256)])
def test_where_no_prompt_is_a_block_and_less_than_a_chunk_the_tier_has_to_be_larger(
    block: int | None, chunk: int
) -> None:
    with pytest.raises(NotJudged, match=f"a chunk of {chunk} tokens is not longer than a block"):
        drop(client((404, "")), pool=1000, tier=1000, block=block, chunk=chunk)


@pytest.mark.parametrize("status", [404, 405])
def test_without_a_reset_the_pool_is_flooded(status: int) -> None:
    fake = client((status, "Not Found"))
    assert drop(fake, pool=1000, longest=300) == "flood"
    assert fake.reset_count == 1
    assert sum(map(len, fake.prompts)) >= 1200
    assert all(payload["max_tokens"] == 1 and payload["model"] == "m" for payload in fake.payloads)


@given(pool=st.integers(10, 5000), longest=st.integers(8, 2000))
@settings(max_examples=40, deadline=None)
def test_a_flood_fills_the_pool_with_prompts_that_fit(pool: int, longest: int) -> None:
    fake = client((404, ""))
    assert drop(fake, pool=pool, longest=longest) == "flood"
    assert sum(map(len, fake.prompts)) >= int(1.2 * pool)
    assert sum(map(len, fake.prompts)) <= 1.2 * pool + longest, "more would only take time, and room in the tier"
    assert max(map(len, fake.prompts)) <= longest - 2
    for ids in fake.prompts:
        assert ids[0] == BOS
        assert all(FIRST_ID <= one < LAST_ID for one in ids[1:])


def test_every_flood_is_fresh() -> None:
    """A flood that repeats the last one is answered by the prefix cache, and pushes nothing out."""
    fake = client((404, ""))
    drop(fake)
    drop(fake)
    beginnings = [tuple(ids[:17]) for ids in fake.prompts]
    assert len(set(beginnings)) == len(beginnings)


@pytest.mark.parametrize(
    ("tier", "floods"),
    [(1699, False), (0, False), (1700, True), (None, True)],
    ids=["small", "none", "large", "unknown"],
)
def test_a_flood_that_would_flush_the_tier_too_is_not_sent(tier: int | None, floods: bool) -> None:
    fake = client((404, ""))
    if floods:
        assert drop(fake, pool=1000, tier=tier) == "flood"
    else:
        with pytest.raises(
            NotJudged, match=rf"VLLM_SERVER_DEV_MODE=1.*pool \(1000 tokens\).*CPU tier \({tier} tokens\)"
        ):
            drop(fake, pool=1000, tier=tier)
        assert fake.prompts == []


def test_a_flood_that_is_refused_is_a_fault() -> None:
    with pytest.raises(SubjectFault, match="expected HTTP 200, got 503"):
        drop(client((404, ""), completion=503))


REFUSED_LINE = "Failed to reset prefix cache because some blocks (513) are not freed yet"


def test_an_answer_that_does_not_say_is_believed_by_the_log() -> None:
    """vLLM 0.25 answers an empty 200 while an asynchronous store still holds the blocks, and drops nothing."""
    fake = client((200, ""))
    log = FakeLog(fake, [REFUSED_LINE, REFUSED_LINE, "Successfully reset prefix cache"])
    assert eviction.reset(fake, log)  # type: ignore[arg-type]
    assert fake.reset_count == 3


def test_without_a_log_the_held_blocks_are_waited_for() -> None:
    fake = client((200, ""), usage=deque([0.5, 0.2, 0.0]))
    assert eviction.reset(fake)  # type: ignore[arg-type]
    assert (fake.reset_count, list(fake.usage)) == (1, [0.0])


def test_a_log_that_lags_does_not_make_a_refused_reset_a_done_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its line comes too late: the reset is asked for again, once no block is held."""
    monkeypatch.setattr(eviction, "HELD_S", 0.05)
    fake = client((200, ""), usage=deque([0.5] * 3 + [0.0]))
    assert eviction.reset(fake, FakeLog(fake, []))  # type: ignore[arg-type]
    assert fake.reset_count >= 2
    assert list(fake.usage) == [0.0]
