"""What is in effect against what the values ask for, and what of it can be judged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NotJudged
from fixtures.core.model_geometry import Parallel
from fixtures.core.record import RequestedConfig, Server
from fixtures.subject.stack import Stack
from tests.fakes.configured_stack import SERVE, V1, stack_of

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_httpserver import HTTPServer


IN_EFFECT = {"chunk_size": 256, "max_local_cpu_size": 5.0, "local_disk": None, "max_local_disk_size": 0.0}


DISK = {"local_disk": "file:///tiers/disk", "max_local_disk_size": 20.0}


@pytest.mark.parametrize(
    ("asked", "said", "different", "unknown"),
    [
        ({"chunk_tokens": 256, "buffer_gb": 5, "buffer_text": "5"}, {}, "", ""),
        ({"chunk_tokens": 128}, {}, "expected a chunk of 128 tokens .values., got 256 on engine-0", ""),
        ({"buffer_gb": 20, "buffer_text": "20"}, {}, "expected a CPU buffer of 20 GiB .* got 5 GiB on engine-0", ""),
        (
            {"buffer_text": "20Gi"},
            {},
            "a CPU buffer in GB as a plain number, got '20Gi': the cache uses 5 GiB",
            "",
        ),
        (
            {"buffer_text": "20Gi"},
            {"max_local_cpu_size": None},
            "",
            "a CPU buffer of 20Gi, but the effective size is not",
        ),
        ({"buffer_gb": 5, "buffer_text": "5"}, {"max_local_cpu_size": "?"}, "", "a CPU buffer of 5 GiB"),
        ({"chunk_text": "abc"}, {}, "", "a chunk of 'abc', which is not a number of tokens"),
        ({"buffer_gb": 5, "buffer_text": "5"}, {"max_local_cpu_size": float("inf")}, "", "a CPU buffer of 5 GiB"),
        ({"chunk_tokens": 256}, {"chunk_size": None}, "", "the effective chunk size is not known"),
        ({"chunk_tokens": 256}, {"chunk_size": True}, "", "the effective chunk size is not known"),
        ({"disk_gb": 20, "disk_text": "20"}, DISK, "", ""),
        ({"disk_gb": 30, "disk_text": "30"}, DISK, "expected a disk tier of 30 GiB .* got 20 GiB", ""),
        (
            {"disk_gb": 20, "disk_text": "20"},
            {},
            "a disk tier of 20 GiB .* got 0 GiB .*LMCACHE_LOCAL_DISK is not set",
            "",
        ),
        ({"disk_gb": 0, "disk_text": "0"}, {}, "", ""),
        ({}, {}, "", ""),
    ],
)
def test_what_was_asked_for_against_what_is_in_effect(
    tmp_path: Path, asked: dict[str, Any], said: dict[str, Any], different: str, unknown: str
) -> None:
    stack = stack_of(tmp_path, RequestedConfig(**asked), said=IN_EFFECT | said)
    found = stack.compare_config(stack.engine)
    for texts, pattern in ((found.different, different), (found.unknown, unknown)):
        if not pattern:
            assert texts == []
        else:
            with pytest.raises(NotJudged, match=pattern):
                raise NotJudged("; ".join(texts))


def test_nothing_is_judged_where_no_program_says_it(tmp_path: Path) -> None:
    found = stack_of(tmp_path, RequestedConfig(chunk_tokens=256))
    with pytest.raises(NotJudged, match="no LMCache on this stack reports"):
        found.compare_config(found.engine).check_known()


def test_a_configuration_file_is_what_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "lmcache.yaml"
    file.write_text("chunk_size: 128\nmax_local_cpu_size: 7.5\n")
    said = IN_EFFECT | {"chunk_size": 128, "max_local_cpu_size": 7.5}
    asked = RequestedConfig(config_file=str(file))
    found = stack_of(tmp_path, asked, said=said)
    assert not found.compare_config(found.engine).different
    found.compare_config(found.engine).check_known()
    found = stack_of(tmp_path, asked, said=IN_EFFECT)
    assert "expected a chunk of 128 tokens" in found.compare_config(found.engine).different[0]
    found = stack_of(tmp_path, RequestedConfig(config_file="/nowhere.yaml"), said=said)
    assert not found.compare_config(found.engine).different
    with pytest.raises(
        NotJudged, match=r"of engine-0 are not known: /nowhere.yaml .LMCACHE_CONFIG_FILE. cannot be read"
    ):
        found.compare_config(found.engine).check_known()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"- chunk_size\n", "contains a list, not a mapping"),
        (b"chunk_size: 128: 3\n", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"[" * 300, "is nested more than 50 levels deep"),
        (b"x" * 5_000_000, "contains more than 262144 characters"),
    ],
)
def test_a_configuration_file_that_lmcache_could_not_read_leaves_open_what_is_asked_for(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    file = tmp_path / "lmcache.yaml"
    file.write_bytes(content)
    found = stack_of(tmp_path, RequestedConfig(config_file=str(file)), said=IN_EFFECT)
    assert not found.compare_config(found.engine).different
    with pytest.raises(NotJudged, match=f"LMCACHE_CONFIG_FILE. {problem}"):
        found.compare_config(found.engine).check_known()
    found = stack_of(tmp_path, RequestedConfig(), env={"LMCACHE_CONFIG_FILE": str(file)}, config=V1)
    with pytest.raises(NotJudged, match=f"the chunk size of engine engine-0 is not known: .* {problem}"):
        _ = found.chunk_tokens


@pytest.mark.parametrize(
    ("env", "extra", "chunk"),
    [
        ({}, {}, 256),  # LMCache's own default, where everything that could say otherwise is known
        ({"LMCACHE_CHUNK_SIZE": "64"}, {}, 64),
        ({"LMCACHE_CHUNK_SIZE": "abc"}, {}, 256),
        ({"LMCACHE_CHUNK_SIZE": "64"}, {"lmcache.chunk_size": 512}, 512),
        ({"LMCACHE_CONFIG_FILE": "lmcache.yaml"}, {}, 128),
        ({"LMCACHE_CONFIG_FILE": "lmcache.yaml", "LMCACHE_CHUNK_SIZE": "64"}, {}, 64),
        ({"LMCACHE_CONFIG_FILE": "/nowhere.yaml"}, {}, None),
    ],
)
def test_the_chunk_of_an_engine_whose_log_has_lost_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], extra: dict[str, Any], chunk: int | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lmcache.yaml").write_text("chunk_size: 128\n")
    stack = stack_of(tmp_path, RequestedConfig(), env=env, config=V1 | {"kv_connector_extra_config": extra})
    if chunk is not None:
        assert stack.chunk_tokens == chunk
    else:
        with pytest.raises(NotJudged, match=r"is not known: /nowhere.yaml .LMCACHE_CONFIG_FILE. cannot be read"):
            _ = stack.chunk_tokens


def test_the_chunk_of_a_cache_server_that_does_not_say_it(tmp_path: Path) -> None:
    stack = stack_of(tmp_path, RequestedConfig(), config={"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both"})
    with pytest.raises(NotJudged, match="cache server that engine engine-0 offloads to is not known"):
        _ = stack.chunk_tokens
    server = Server(name="kv", url="http://127.0.0.1:9", argv=("lmcache", "server", "--chunk-size", "64"))
    stack.record.cache_servers.append(server)
    stack.record.engines[0].cache_server = "kv"
    assert Stack(stack.record).record.servers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fixtures.subject.cache_server.CacheServer.config", lambda _: {})
        assert Stack(stack.record).chunk_tokens == 64


def test_the_log_beats_the_command_line(tmp_path: Path) -> None:
    stack = stack_of(tmp_path, RequestedConfig(), said=IN_EFFECT)
    assert stack.connector_fault(stack.engine) is None
    assert stack.engine.log is not None
    with stack.engine.log.path.open("a") as log:
        log.write(
            "INFO 11-25 04:31:24 [factory.py:62] Creating v1 connector with name: OffloadingConnector and engine_id: 0\n"
        )
    fault = stack.connector_fault(stack.engine)
    assert fault is not None
    assert "got OffloadingConnector" in fault


def test_a_configuration_file_of_vllm_that_cannot_be_read_is_not_judged(tmp_path: Path) -> None:
    stack = stack_of(tmp_path, RequestedConfig())
    stack.record.engines[0].argv = (*SERVE, "--config", "/nowhere.yaml")
    with pytest.raises(NotJudged, match=r"reads options from /nowhere.yaml"):
        stack.connector_fault(stack.engine)


def test_a_connector_in_a_variable_is_known_from_the_log_alone(tmp_path: Path) -> None:
    stack = stack_of(tmp_path, RequestedConfig())
    stack.record.engines[0].argv = (*SERVE, "--kv-transfer-config", "$(KV_CONFIG)")
    with pytest.raises(NotJudged, match="reads --kv-transfer-config from a variable, which cannot be read"):
        stack.connector_fault(stack.engine)
    stack = stack_of(tmp_path, RequestedConfig(), said=IN_EFFECT)
    stack.record.engines[0].argv = (*SERVE, "--kv-transfer-config", "$(KV_CONFIG)")
    assert stack.engine.log is not None
    with stack.engine.log.path.open("a") as log:
        log.write(
            "INFO 11-25 04:31:24 [factory.py:62] Creating v1 connector with name: LMCacheMPConnector and engine_id: 0\n"
        )
    found = stack.engine.connector()
    assert found is not None
    assert found.name == "LMCacheMPConnector"


def test_the_two_halves_of_a_disaggregated_release_are_not_judged(tmp_path: Path) -> None:
    stack = stack_of(tmp_path, RequestedConfig(), config=V1 | {"kv_role": "kv_producer"})
    assert stack.connector_fault(stack.engine) is not None, "one engine that only stores is no such release"
    other = stack.record.engines[0].model_copy(
        update={
            "name": "engine-1",
            "argv": (*SERVE, "--kv-transfer-config", json.dumps(V1 | {"kv_role": "kv_consumer"})),
        }
    )
    stack.record.engines.append(other)
    stack = Stack(stack.record)
    for engine in stack.engines:
        with pytest.raises(NotJudged, match="disaggregated prefill"):
            stack.connector_fault(engine)
    stack = stack_of(
        tmp_path, RequestedConfig(), config=V1 | {"kv_role": "kv_consumer"}, env={"LMCACHE_ENABLE_PD": "True"}
    )
    with pytest.raises(NotJudged, match="LMCACHE_ENABLE_PD=True on engine-0"):
        stack.connector_fault(stack.engine)


@pytest.mark.parametrize(
    ("extra", "said"),
    [({"lmcache.enable_pd": True}, None), ({}, {"enable_pd": True}), ({}, {"enable_nixl": True, "enable_pd": False})],
)
def test_half_of_a_disaggregated_release_is_known_by_lmcaches_settings(
    tmp_path: Path, extra: dict[str, Any], said: dict[str, Any] | None
) -> None:
    config = V1 | {"kv_role": "kv_consumer", "kv_connector_extra_config": extra}
    stack = stack_of(tmp_path, RequestedConfig(), config=config, said=said)
    with pytest.raises(NotJudged, match=r"LMCache of engine-0 runs with enable_(pd|nixl)"):
        stack.connector_fault(stack.engine)


def test_each_engine_is_held_against_its_own_entry_of_the_values(tmp_path: Path) -> None:
    stack = stack_of(tmp_path, RequestedConfig(chunk_tokens=128), said=IN_EFFECT)
    stack.record.engines.append(
        stack.record.engines[0].model_copy(update={"name": "engine-1", "requested": RequestedConfig(chunk_tokens=256)})
    )
    first, second = (Stack(stack.record).compare_config(engine) for engine in Stack(stack.record).engines)
    assert (len(first.different), second.different) == (1, [])


def test_data_parallel_ranks_do_not_share_a_request(tmp_path: Path) -> None:
    asked = RequestedConfig(connector=V1, workers=4, parallel=Parallel(tensor=2, data=2))
    stack = stack_of(tmp_path, asked, said=IN_EFFECT)
    stack.record.kv_bytes_per_token = 2**20
    assert stack.tier.tokens() == 2 * 5 * 2**30 // 2**20
    (budget,) = stack.memory_budgets()
    assert "4 worker(s) x 5 GiB" in budget.terms


@pytest.mark.parametrize(
    ("env", "extra", "found"),
    [
        ({"LMCACHE_CHUNK_SIZE": "512"}, {"lmcache.chunk_size": 256}, 1),
        ({"LMCACHE_CHUNK_SIZE": "256"}, {"lmcache.chunk_size": 256}, 0),
        ({"LMCACHE_MAX_LOCAL_CPU_SIZE": "20"}, {"lmcache.max_local_cpu_size": 20.0, "lmcache.local_cpu": True}, 0),
        ({"LMCACHE_LOCAL_CPU": "True"}, {"lmcache.local_cpu": False}, 1),
        ({"LMCACHE_CHUNK_SIZE": "512"}, {"chunk_size": 256}, 0),
    ],
)
def test_a_variable_that_the_connector_overrides_is_shadowed(
    tmp_path: Path, env: dict[str, str], extra: dict[str, Any], found: int
) -> None:
    config = V1 | {"kv_connector_extra_config": extra}
    stack = stack_of(tmp_path, RequestedConfig(), env=env, config=config)
    shadowed = stack.shadowed_settings(stack.engine)
    assert len(shadowed) == found
    assert all("512" not in one and next(iter(env)) in one for one in shadowed), "names only: a value may be a secret"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"save_unfull_chunk": True}, "save_unfull_chunk=True: the last chunk"),
        ({"min_retrieve_tokens": 4096}, "min_retrieve_tokens=4096: a shorter hit"),
        ({"enable_blending": True}, "enable_blending=True: chunks are reused"),
        ({"save_unfull_chunk": False, "min_retrieve_tokens": 0, "enable_blending": False}, ""),
        (None, ""),
    ],
)
def test_without_the_arithmetic_of_whole_chunks_no_prompt_is_judged(
    tmp_path: Path, said: dict[str, Any] | None, words: str
) -> None:
    stack = stack_of(tmp_path, RequestedConfig(), said=said)
    if words:
        with pytest.raises(NotJudged, match=words):
            stack.check_whole_chunks()
    else:
        stack.check_whole_chunks()


@pytest.mark.parametrize(
    ("words", "env", "different"),
    [
        ((), {}, True),
        ((), {"LMCACHE_MAX_LOCAL_DISK_SIZE": "20"}, True),
        ((), {"LMCACHE_LOCAL_DISK": "/x"}, False),
        (("--l2-adapter", '{"type": "fs", "base_path": "/x"}'), {}, False),
    ],
)
def test_a_disk_size_without_a_path_makes_no_tier_beside_a_cache_server(
    tmp_path: Path, httpserver: HTTPServer, words: tuple[str, ...], env: dict[str, str], different: bool
) -> None:
    httpserver.expect_request("/config").respond_with_json({"mp": {"chunk_size": 256}})
    server = Server(name="kv-server", url=httpserver.url_for("").rstrip("/"), argv=("lmcache", "server", *words))
    stack = stack_of(tmp_path, RequestedConfig(disk_gb=20, disk_text="20", chunk_tokens=256), env=env)
    stack.record.engines[0].cache_server = "kv-server"
    stack.record.cache_servers.append(server)
    stack = Stack(stack.record)
    found = stack.compare_config(stack.engine)
    assert bool(found.different) == different
    if different:
        assert "expected a disk tier of 20 GiB (values: '20'), got 0 GiB" in found.different[0]
        assert "LMCACHE_LOCAL_DISK is not set" in found.different[0]
    else:
        with pytest.raises(NotJudged, match="does not report the engine's own disk tier"):
            found.check_known()
