"""Which engines share a tier, and what of them has to be alike."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.core.errors import NotApplicable, NotJudged
from fixtures.evidence.vllm_options import parse_options
from fixtures.instruments.response import Response
from fixtures.subject import sharing

PLAIN = ("vllm", "serve", "m", "--dtype", "float32")


def engine(
    name: str,
    *,
    cache_server: str | None = None,
    argv: tuple[str, ...] = PLAIN,
    env: dict[str, str] | None = None,
    dtype: str | None = None,
    root: str = "/model",
) -> Any:
    def options() -> Any:
        if not argv:
            raise NotJudged("the command line is not known")
        return parse_options(argv)

    models = json.dumps({"data": [{"id": "m", "root": root}]})
    return SimpleNamespace(
        name=name,
        server=SimpleNamespace(cache_server=cache_server, argv=argv, env=env or {}),
        options=options,
        start=SimpleNamespace(dtype=dtype),
        log=None,
        client=SimpleNamespace(get=lambda _: Response(200, {}, models, total_s=0.0)),
    )


def subject(*engines: Any, chunks: dict[str, int] | None = None) -> Any:
    def config(one: Any) -> Any:
        return SimpleNamespace(chunk_tokens=(chunks or {}).get(one.name, 256))

    return SimpleNamespace(engines=list(engines), model="m", effective_config_of=config)


REMOTE = {"LMCACHE_REMOTE_URL": "redis://r:1", "PYTHONHASHSEED": "0"}


def test_engines_share_a_cache_server_or_a_remote_tier() -> None:
    one, two, three = (engine(name, cache_server=server) for name, server in (("a", "s"), ("b", "s"), ("c", "t")))
    assert sharing.groups(subject(one, two, three)) == [[one, two]]
    one, two = engine("a", env=REMOTE), engine("b", env=REMOTE)
    assert sharing.groups(subject(one, two)) == [[one, two]]


def test_engines_with_tiers_of_their_own_share_none() -> None:
    with pytest.raises(NotApplicable, match="a tier of its own"):
        sharing.groups(subject(engine("a", cache_server="s"), engine("b", cache_server="t")))
    with pytest.raises(NotApplicable, match="a tier of its own"):
        sharing.groups(subject(engine("a"), engine("b")))


def test_where_engines_keep_their_kv_may_not_be_known() -> None:
    with pytest.raises(NotJudged, match="one --url"):
        sharing.groups(subject(engine("a", argv=()), engine("b", argv=())))
    hidden = {"LMCACHE_CONFIG_FILE": "/x"}
    with pytest.raises(NotJudged, match="not known whether"):
        sharing.groups(subject(engine("a", env=hidden), engine("b", env=hidden)))


def unlike(*engines: Any, **more: Any) -> str:
    return "; ".join(sharing.unlike(subject(*engines, **more), engines))


def test_engines_that_are_alike_differ_in_nothing() -> None:
    assert unlike(engine("a", cache_server="s"), engine("b", cache_server="s")) == ""
    assert unlike(engine("a", env=REMOTE), engine("b", env=REMOTE)) == ""


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"root": "/other"}, "model: /model on a, /other on b"),
        ({"argv": (*PLAIN, "--revision", "v2")}, "model revision: (not set) on a, v2 on b"),
        ({"argv": (*PLAIN, "--kv-cache-dtype", "fp8")}, "KV data type: auto on a, fp8 on b"),
        ({"argv": (*PLAIN, "--kv-cache-dtype", "float16")}, "KV data type: float32 on a, float16 on b"),
        ({"argv": ("vllm", "serve", "m")}, "data type: float32 on a, auto on b"),
        ({"dtype": "bfloat16"}, "data type: float32 on a, bfloat16 on b"),
    ],
)
def test_what_differs_is_named_with_both_values(other: dict[str, Any], said: str) -> None:
    assert unlike(engine("a", cache_server="s"), engine("b", cache_server="s", **other)) == said


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("--revision main", ""),
        ("--dtype half", "--dtype float16"),
        ("--dtype bfloat16 --kv-cache-dtype bfloat16", "--dtype bfloat16"),
        ("--dtype bfloat16 --kv-cache-dtype bfloat16", "--dtype bfloat16 --kv-cache-dtype auto"),
        ("--kv-cache-dtype fp8", "--kv-cache-dtype fp8_e4m3"),
    ],
)
def test_two_names_of_one_setting_are_alike(one: str, other: str) -> None:
    both = [
        engine(name, cache_server="s", argv=("vllm", "serve", "m", *words.split()))
        for name, words in (("a", one), ("b", other))
    ]
    assert unlike(*both) == unlike(*reversed(both)) == ""


def test_what_auto_is_may_not_be_known() -> None:
    auto = engine("a", cache_server="s", argv=("vllm", "serve", "m"))
    asked = engine("b", cache_server="s", argv=("vllm", "serve", "m", "--kv-cache-dtype", "bfloat16"))
    assert unlike(auto, asked) == ""


def test_the_log_of_the_start_comes_before_the_command_line() -> None:
    one = engine("a", cache_server="s", argv=("vllm", "serve", "m"), dtype="float32")
    assert unlike(one, engine("b", cache_server="s")) == ""


def test_a_log_whose_start_is_gone_does_not_make_the_data_types_differ() -> None:
    """The kubelet rotates the log of the busier one of two replicas first."""
    argv = ("vllm", "serve", "m")
    whole = engine("a", cache_server="s", argv=argv, dtype="bfloat16")
    assert unlike(whole, engine("b", cache_server="s", argv=argv)) == ""
    assert unlike(whole, engine("b", cache_server="s")) == "data type: bfloat16 on a, float32 on b"


def test_the_chunk_has_to_be_alike() -> None:
    one, two = engine("a", cache_server="s"), engine("b", cache_server="s")
    assert unlike(one, two, chunks={"a": 128}) == "chunk: 128 tokens on a, 256 tokens on b"


def test_in_process_the_seed_and_the_algorithm_count() -> None:
    remote = {"LMCACHE_REMOTE_URL": "redis://r:1"}
    assert "PYTHONHASHSEED: 0 on a, 1 on b" in unlike(
        engine("a", env=REMOTE), engine("b", env=REMOTE | {"PYTHONHASHSEED": "1"})
    )
    assert "PYTHONHASHSEED: (not set) on a, 0 on b" in unlike(engine("a", env=remote), engine("b", env=REMOTE))
    assert "every process draws a seed of its own" in unlike(engine("a", env=remote), engine("b", env=remote))
    random = (
        engine("a", env=remote | {"PYTHONHASHSEED": "random"}),
        engine("b", env=remote | {"PYTHONHASHSEED": "random"}),
    )
    assert "random on a, random on b: every process draws a seed of its own" in unlike(*random)
    other = REMOTE | {"LMCACHE_PRE_CACHING_HASH_ALGORITHM": "sha256_cbor"}
    assert "hash algorithm: builtin on a, sha256_cbor on b" in unlike(engine("a", env=REMOTE), engine("b", env=other))


def test_behind_a_cache_server_the_seeds_of_the_engines_do_not_count() -> None:
    one = engine("a", cache_server="s", env={"PYTHONHASHSEED": "0"})
    assert unlike(one, engine("b", cache_server="s", env={"PYTHONHASHSEED": "1"})) == ""
    assert unlike(one, engine("b", cache_server="s")) == ""


def test_nothing_known_is_not_judged() -> None:
    one, two = engine("a", argv=()), engine("b", argv=())
    two.client.get = one.client.get = lambda _: Response(500, {}, "", total_s=0.0)
    found = subject(one, two)
    found.effective_config_of = lambda one: SimpleNamespace(chunk_tokens=None)
    with pytest.raises(NotJudged, match="settings of a, b are not known"):
        sharing.unlike(found, [one, two])
