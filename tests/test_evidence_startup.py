"""What the start of an engine's log says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fixtures.core.model_geometry import Parallel
from fixtures.evidence import startup
from fixtures.evidence.connector import Connector, connector_of, effective_connector
from fixtures.evidence.vllm_options import with_transfer_config, without_connector
from tests.command_lines import FLAG, KIB, MP, NIXL, OK, SIZE, START, V1, multi, verdict

METADATA = (
    "LMCache INFO: LMCache initialized for role KVConnectorRole.WORKER with version 0.5.3, lmcache cache_engine metadata: "
    "LMCacheMetadata(model_name='m', world_size={world}, local_world_size=1, worker_id=0, kv_dtype=torch.{dtype}, "
    "kv_shape={shape}, use_mla={mla}, role='worker')\n"
)


def test_the_start_of_a_log() -> None:
    found = startup.read(START)
    assert found.created == "MultiConnector"
    assert found.asked is not None
    assert found.asked.offloading == Connector("LMCacheMPConnector", "kv_both", found.asked.members[0].text)
    assert found.parallel == Parallel(2, 2, 1)
    assert found.dtype == "float16"
    assert verdict(effective_connector(found.asked, found.created)) == OK
    assert startup.read("nothing") == startup.Startup()


def test_a_log_with_a_line_per_member() -> None:
    names = ("MultiConnector", "NixlPullConnector", "LMCacheMPConnector")
    log = "".join(f"INFO [factory.py:64] Creating v1 connector with name: {name} and engine_id: x\n" for name in names)
    assert verdict(effective_connector(connector_of((FLAG, multi(NIXL, MP))), startup.read(log).created)) == OK


def test_a_json_log_is_read_too() -> None:
    line = json.dumps(
        {"level": "INFO", "message": "Creating v1 connector with name: LMCacheMPConnector and engine_id: 1"}
    )
    assert startup.read(line).created == "LMCacheMPConnector"


def test_what_a_logged_request_quotes_is_no_start() -> None:
    quoted = "Creating v1 connector with name: NixlConnector and engine_id: 1"
    line = (
        f"(APIServer pid=1) INFO 11-25 04:31:03 [logger.py:39] Received request cmpl-1: prompt: '{quoted}', params: x\n"
    )
    assert startup.read(START + line) == startup.read(START)


@pytest.mark.parametrize(
    ("world", "dtype", "shape", "mla", "size"),
    [
        (1, "bfloat16", (32, 2, 256, 8, 128), False, 128 * KIB),
        (2, "bfloat16", (32, 2, 256, 4, 128), False, 128 * KIB),
        (1, "float8_e4m3fn", (32, 2, 256, 8, 128), False, 64 * KIB),
        (4, "bfloat16", (61, 1, 256, 1, 576), True, 61 * 576 * 2),
        (1, "uint8", (32, 2, 256, 8, 128), False, None),
        (1, "bfloat16", (32, 2, 256), False, None),
    ],
)
def test_lmcache_says_how_many_bytes_it_stores(world: int, dtype: str, shape: Any, mla: bool, size: int | None) -> None:
    said = METADATA.format(world=world, dtype=dtype, shape=shape, mla=mla)
    assert startup.read(said).kv_bytes_per_token == size


def test_without_a_connector_nothing_else_changes() -> None:
    argv = ["vllm", "serve", "m", "--port=1", FLAG, V1, "--kv_transfer_config.kv_role", "kv_both", *SIZE, "-tp", "2"]
    assert without_connector(argv) == ["vllm", "serve", "m", "--port=1", "-tp", "2"]
    assert with_transfer_config(argv[:6], "X") == ["vllm", "serve", "m", "--port=1", FLAG, "X"]


@pytest.mark.parametrize(
    ("text", "balanced"),
    [
        ("(a[b]{c})d)", "(a[b]{c})"),
        ("""('"(')x""", """('"(')"""),
        ("""("'")x""", """("'")"""),
        ("{'a)': 1} b", "{'a)': 1}"),
        ("(a", "(a"),
    ],
)
def test_a_value_ends_where_its_first_bracket_does_whatever_is_quoted(text: str, balanced: str) -> None:
    assert startup._balanced(text) == balanced
