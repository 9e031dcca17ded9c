"""The configuration in effect, as programs, logs and command lines say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.core.errors import NotJudged, SubjectFault
from fixtures.core.record import EngineServer, RequestedConfig, Server
from fixtures.core.units import GIB
from fixtures.subject.stack import Stack
from tests.fakes import engine_server
from tests.fakes.engine_server import CONFIGURATION, FakeServer, environment, record, with_cache

if TYPE_CHECKING:
    from pathlib import Path


cache = engine_server.cache
engine = engine_server.engine


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (
            ("--kv-transfer-config", '{"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both"}'),
            "LMCacheMPConnector",
        ),
        (("vllm", "serve"), None),
    ],
    ids=["connector", "none"],
)
def test_the_connector_of_a_command_line(tmp_path: Path, argv: tuple[str, ...], found: str | None) -> None:
    stack = Stack(record(tmp_path, engines=[EngineServer(name="engine-0", url="http://127.0.0.1:9", argv=argv)]))
    connector = stack.engine.connector()
    assert (connector.name if connector else None) == found


def test_a_connector_that_is_no_json_is_a_fault_and_no_command_line_is_not_judged(tmp_path: Path) -> None:
    server = EngineServer(name="engine-0", url="http://127.0.0.1:9", argv=("--kv-transfer-config", "{"))
    with pytest.raises(SubjectFault, match="engine engine-0: --kv-transfer-config is not JSON"):
        Stack(record(tmp_path, engines=[server])).engine.connector()
    with pytest.raises(NotJudged, match="command line of engine engine-0 is not known"):
        Stack(record(tmp_path)).engine.connector()


def test_the_configuration_in_effect_is_the_servers_own(tmp_path: Path, engine: FakeServer, cache: FakeServer) -> None:
    stack = with_cache(tmp_path, engine, cache, kv_bytes_per_token=4096, requested=RequestedConfig(chunk_tokens=256))
    assert (stack.effective_config.buffer_bytes, stack.effective_config.chunk_tokens) == (GIB, 64)
    assert stack.chunk_tokens == 64
    assert stack.tier.tokens() == stack.tier.capacity_tokens() == GIB // 4096


def test_what_counts_is_the_last_start_in_a_log(tmp_path: Path) -> None:
    """A log that every start is appended to (``tee -a``, systemd) begins with one of long ago."""

    def life(connector: str, dtype: str, ranks: int) -> str:
        lines = (
            f"(APIServer pid=1) INFO 11-25 04:31:01 [api_utils.py:325] {BANNER} version 0.32.0",
            f"(EngineCore pid=2) INFO 11-25 04:31:02 [core.py:64] Initializing a V1 LLM engine (v0.32.0) with config: "
            f"model='m', dtype=torch.{dtype}, tensor_parallel_size={ranks}",
            f"(EngineCore pid=2) INFO 11-25 04:31:03 [factory.py:50] Creating v1 connector with name: {connector} and id: 1",
            *(
                f"[2026-11-25 04:31:04,1] LMCache INFO: LMCache initialized for role KVConnectorRole.WORKER with "
                f"version 0.5.6, metadata: LMCacheMetadata(world_size={ranks}, worker_id={rank})"
                for rank in range(ranks)
            ),
        )
        return "".join(f"{line}\n" for line in lines)

    log = tmp_path / "engine-0.log"
    statistics = "(APIServer pid=1) INFO 11-25 04:31:13 [loggers.py:127] Engine 000: Running: 0 reqs\n" * 30_000
    log.write_text(life("LMCacheConnectorV1", "float16", 4) + statistics)
    servers = [EngineServer(name="engine-0", url="http://127.0.0.1:9", log=log)]
    stack = Stack(record(tmp_path, engines=servers))
    assert (stack.engine.start.created, stack.kv_shape(stack.engine).ranks) == ("LMCacheConnectorV1", 4)
    with log.open("a") as file:
        file.write(life("OffloadingConnector", "bfloat16", 2))
    stack = Stack(record(tmp_path, engines=servers))
    assert (stack.engine.start.created, stack.engine.start.dtype) == ("OffloadingConnector", "bfloat16")
    assert stack.kv_shape(stack.engine).ranks == 2
    log.write_text(statistics)
    assert Stack(record(tmp_path, engines=servers)).engine.start.created is None, "rotated: its start is gone"


BANNER = "\u2588 \u2588"


def test_the_configuration_of_an_in_process_cache_is_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "engine-0.log"
    stack = Stack(record(tmp_path, engines=[EngineServer(name="engine-0", url="http://127.0.0.1:9", log=log)]))
    log.write_text(CONFIGURATION)
    assert (stack.effective_config.buffer_bytes, stack.effective_config.chunk_tokens) == (int(2.5 * GIB), 128)


def test_where_no_program_says_the_chunk_it_is_the_one_asked_for(tmp_path: Path) -> None:
    stack = Stack(record(tmp_path, requested=RequestedConfig(chunk_tokens=512)))
    assert stack.chunk_tokens == 512
    assert stack.tier.tokens() is None
    with pytest.raises(NotJudged, match="no LMCache on this stack reports"):
        _ = stack.effective_config
    with pytest.raises(NotJudged, match="size of the CPU tier"):
        stack.tier.capacity_tokens()


def test_a_chunk_that_nothing_says_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(NotJudged, match="command line of engine engine-0 is not known"):
        _ = Stack(record(tmp_path)).chunk_tokens


KNOWN = ("LMCACHE_CHUNK_SIZE", "LMCACHE_LOCAL_CPU", "LMCACHE_MAX_LOCAL_CPU_SIZE")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("LMCACHE_CHUNK_SIZE", []),
        ("LMCACHE_USE_EXPERIMENTAL", []),
        ("VLLM_SERVER_DEV_MODE", []),
        (
            "LMCACHE_MAX_LOCAL_CPUSIZE",
            ["LMCACHE_MAX_LOCAL_CPUSIZE on engine-0 (did you mean LMCACHE_MAX_LOCAL_CPU_SIZE?)"],
        ),
        ("LMCACHE_CHUNKSIZE", ["LMCACHE_CHUNKSIZE on engine-0 (did you mean LMCACHE_CHUNK_SIZE?)"]),
        ("LM_CACHE_ZZZZZZZZZZZZZZ", ["LM_CACHE_ZZZZZZZZZZZZZZ on engine-0"]),
    ],
    ids=["known", "retired", "of-vllm", "misspelt", "run-together", "nothing-like-it"],
)
def test_names_that_the_installed_lmcache_does_not_read(tmp_path: Path, name: str, found: list[str]) -> None:
    assert environment(tmp_path, KNOWN, **{name: "1"}).unknown_lmcache_names() == found


def test_names_are_not_judged_where_they_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(NotJudged, match="cannot determine"):
        environment(tmp_path, None, LMCACHE_X="1").unknown_lmcache_names()


def test_names_of_cache_servers_count_too(tmp_path: Path) -> None:
    servers = [Server(name="kv", url="http://127.0.0.1:9", env={"LMCACHE_CHUNKSIZE": "1"})]
    stack = Stack(record(tmp_path, cache_servers=servers, lmcache_names=KNOWN))
    assert stack.unknown_lmcache_names() == ["LMCACHE_CHUNKSIZE on kv (did you mean LMCACHE_CHUNK_SIZE?)"]
