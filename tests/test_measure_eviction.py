"""Getting the GPU copy out of the way: by reset, else by a flood, else not at all."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.errors import NotJudged, SubjectFault
from fixtures.measure import eviction
from fixtures.measure.client import Response
from fixtures.measure.prompts import BOS, FIRST_ID, LAST_ID

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
        self.prompts.append(payload["prompt"])
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
    fake: FakeClient, *, caching: bool = True, pool: int = 1000, tier: int | None = None, longest: int = 300
) -> str:
    return eviction.drop_gpu_copy(
        fake,  # type: ignore[arg-type]
        model="m",
        prefix_caching=caching,
        pool_tokens=lambda: pool,
        tier_tokens=lambda: tier,
        max_model_len=lambda: longest,
    )


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


def test_a_reset_that_is_refused_for_ever_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction, "RESET_WITHIN_S", 0.2)
    fake = client(REFUSED)
    with pytest.raises(SubjectFault, match=r"refused for 0 s: blocks of finished requests"):
        drop(fake)
    assert fake.reset_count > 2
    assert fake.prompts == [], "a flood would hide that blocks are held"


def test_a_reset_that_fails_is_a_fault() -> None:
    with pytest.raises(SubjectFault, match="expected HTTP 200, got 500"):
        drop(client((500, "Internal Server Error")))


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
