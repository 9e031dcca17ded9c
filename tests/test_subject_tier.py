"""What a tier has to hold, and when nothing is claimed of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.record import EngineServer
from fixtures.core.units import GIB
from fixtures.instruments.prompts import Prompts
from fixtures.subject.exchange import TokenSources
from fixtures.subject.stack import Stack
from tests.fakes import engine_server
from tests.fakes.engine_server import FakeServer, record, with_cache

if TYPE_CHECKING:
    from pathlib import Path


cache = engine_server.cache
engine = engine_server.engine


def tier_of(folder: Path, engine: FakeServer, cache: FakeServer, tokens: int, **fields: Any) -> Stack:
    """A stack whose tier holds so many tokens, and stores what it is sent."""
    stack = with_cache(folder, engine, cache, kv_bytes_per_token=GIB // tokens, **fields)

    def store(payload: dict[str, Any]) -> None:
        engine.count(payload)
        cache.cache["l1_write_chunks_total"] += len(payload["prompt"]) // 64

    engine.on_post = store
    return stack


SHORT = TokenSources(65, 0, 64)


def test_what_was_stored_and_not_evicted_has_to_come_back(
    tmp_path: Path, engine: FakeServer, cache: FakeServer
) -> None:
    stack, source = tier_of(tmp_path, engine, cache, 2000), Prompts(1, "kept", 64, 4000)
    prompt, other = source.of_length(129), source.of_length(129)
    stack.complete(prompt)
    stack.tier.expect_kept([prompt], TokenSources(1, 0, 128))
    stack.tier.expect_kept([prompt], TokenSources(1, 64, 64))
    stack.tier.expect_kept([other], TokenSources(129, 0, 0))
    assert not stack.context.incidents.found, "all of it came, or it was never sent"
    stack.tier.expect_kept([prompt], SHORT)
    (incident,) = stack.context.incidents.of("ACC-02")
    assert "expected 128 tokens of prompt-1 (129 tokens) from the tier" in incident.text
    assert "got 65 computed + 0 GPU hit + 64 loaded" in incident.text


@pytest.mark.parametrize("policy", ["LRU", "MRU"])
def test_what_may_have_been_evicted_need_not_come_back(
    tmp_path: Path, engine: FakeServer, cache: FakeServer, policy: str
) -> None:
    stack, source = tier_of(tmp_path, engine, cache, 2000), Prompts(1, "kept", 64, 4000)
    stack.cache_servers[0].server.argv = ("lmcache", "server", "--eviction-policy", policy)
    old, new = source.of_length(129), source.of_length(129)
    stack.complete(old)
    for _ in range(14):
        stack.complete(source.of_length(65))
    stack.complete(new)
    assert not stack.tier.holds(old), "more than half of the tier was sent since"
    assert stack.tier.holds(new) == (policy == "LRU"), "the newest is what is evicted first by another policy"


@pytest.mark.parametrize(("apart_s", "claimed"), [(0.3, False), (1.5, True)])
def test_nothing_is_claimed_of_a_full_tier_that_had_no_time_to_make_room(
    tmp_path: Path,
    engine: FakeServer,
    cache: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    apart_s: float,
    claimed: bool,
) -> None:
    """As on an H200: prompts of 16 % of the tier, every 0.3 s; LMCache's server refused half of the chunks of one."""
    stack, source = tier_of(tmp_path, engine, cache, 2000), Prompts(1, "kept", 64, 4000)
    now = iter(range(1000))
    clock = SimpleNamespace(monotonic=lambda: next(now) * apart_s)
    monkeypatch.setattr("fixtures.subject.tier.time", clock)
    for _ in range(7):
        prompt = source.of_length(193)
        stack.complete(prompt)
    assert stack.tier.holds(prompt) == claimed


def test_the_policy_of_a_cache_server_is_what_it_says_itself(
    tmp_path: Path, engine: FakeServer, cache: FakeServer
) -> None:
    def policy(status: Any, *argv: str) -> tuple[str, bool]:
        cache.status = status
        stack = with_cache(tmp_path, engine, cache)
        stack.cache_servers[0].server.argv = ("lmcache", "server", *argv)
        return stack.tier.eviction_policy, stack.tier.evicts_by_age

    said = {"storage_manager": {"l1_eviction_controller": {"eviction_policy": "ARC"}}}
    assert policy(said, "--eviction-policy", "LRU") == ("ARC", False)
    assert policy(None, "--eviction-policy", "IsolatedLRU") == ("ISOLATEDLRU", True)
    managers: list[Any] = [None, {}, {"l1_eviction_controller": []}]
    for manager in managers:
        assert policy({"storage_manager": manager}) == ("LRU", True)
    assert policy(None) == ("LRU", True)


def test_the_policy_of_a_tier_in_process_is_that_of_its_configuration_line(tmp_path: Path) -> None:
    log = tmp_path / "engine-0.log"

    def policy(line: str, **fields: Any) -> str:
        log.write_text(line)
        one = EngineServer(name="engine-0", url="http://127.0.0.1:9", log=log, **fields)
        return Stack(record(tmp_path, engines=[one])).tier.eviction_policy

    says = "LMCache INFO: LMCache Configuration: {'chunk_size': 256, 'cache_policy': 'fifo'} (config.py:1:lmcache)\n"
    assert policy(says, env={"LMCACHE_CACHE_POLICY": "LFU"}) == "FIFO"
    assert policy("", env={"LMCACHE_CACHE_POLICY": "lfu"}) == "LFU"
    native = '{"kv_connector":"OffloadingConnector","kv_role":"kv_both","kv_connector_extra_config":{"eviction_policy":"arc"}}'
    assert policy("", argv=("vllm", "serve", "m", "--kv-transfer-config", native)) == "ARC"
    assert policy("", argv=("vllm", "serve", "m")) == "LRU"


def test_nothing_is_claimed_of_a_tier_that_others_use_or_that_was_restarted(
    tmp_path: Path, engine: FakeServer, cache: FakeServer
) -> None:
    stack, source = tier_of(tmp_path, engine, cache, 2000), Prompts(1, "kept", 64, 4000)
    prompt = source.of_length(129)
    stack.complete(prompt)
    assert stack.tier.holds(prompt)
    cache.cache["l1_write_chunks_total"] += 16
    assert not stack.tier.holds(prompt), "another client has stored 1024 tokens"
    cache.cache["l1_write_chunks_total"] = 0
    assert not stack.tier.holds(prompt), "the server has begun again"
    stack.complete(prompt)
    assert stack.tier.holds(prompt)
    stack.tier.forget()
    assert not stack.tier.holds(prompt), "the suite has cleared it"
    stack.complete(prompt)
    assert stack.tier.holds(prompt)
    cache.cache = {}
    assert not stack.tier.holds(prompt)


def test_nothing_is_claimed_of_what_was_sent_while_nothing_was_stored(
    tmp_path: Path, engine: FakeServer, cache: FakeServer
) -> None:
    """Lines of LMCache 0.5.6 beside a KV-aware router; of a prompt of 5121 tokens it had stored the first step alone."""
    log = tmp_path / "engine-0.log"
    stack, source = tier_of(tmp_path, engine, cache, 2000), Prompts(1, "kept", 64, 4000)
    first, second = source.of_length(129), source.of_length(129)

    def freeze(on: str) -> None:
        with log.open("a") as file:
            file.write(
                f"[2026-11-30 11:32:23,675] LMCache INFO: StorageManager freeze mode set to {on} "
                "(storage_manager.py:872:lmcache.v1.storage_backend.storage_manager)\n"
            )

    freeze("True")
    freeze("False")
    stack.complete(first)
    assert stack.tier.holds(first), "what came before the first prompt is over"
    freeze("True")
    stack.complete(second)
    assert not stack.tier.holds(second)
    freeze("False")
    assert not stack.tier.holds(second)
    stack.complete(second)
    assert stack.tier.holds(second)


def test_what_was_stored_unseen_before_says_nothing_of_what_is_stored_now(
    tmp_path: Path, engine: FakeServer, cache: FakeServer
) -> None:
    """A run stores by text, too, which is counted as that of others: after more than half a tier no claim was left (seen)."""
    stack, source = tier_of(tmp_path, engine, cache, 2000), Prompts(1, "kept", 64, 4000)
    first, second = source.of_length(129), source.of_length(129)
    stack.complete(first)
    cache.cache["l1_write_chunks_total"] += 16
    stack.complete(second)
    assert not stack.tier.holds(second)
    stack.tier.forget()
    stack.complete(second)
    assert stack.tier.holds(second)
    assert not stack.tier.holds(first)
    cache.cache["l1_write_chunks_total"] += 13
    assert stack.tier.holds(second)
    cache.cache["l1_write_chunks_total"] += 3
    assert not stack.tier.holds(second), "others have stored 1024 tokens since"


def test_nothing_is_claimed_of_a_tier_whose_size_is_not_known(
    tmp_path: Path, engine: FakeServer, cache: FakeServer
) -> None:
    stack, source = with_cache(tmp_path, engine, cache), Prompts(1, "kept", 64, 4000)
    prompt = source.of_length(129)
    stack.complete(prompt)
    assert not stack.tier.holds(prompt)
