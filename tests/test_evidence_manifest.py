"""What a command line says about offload."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.evidence.command import BOTH, FLAG, LMCACHE_CONNECTORS, Connector, connector_of
from fixtures.evidence.manifest import flag_positions, flag_value

V1 = json.dumps({"kv_connector": "LMCacheConnectorV1", "kv_role": BOTH})
MP = json.dumps({"kv_connector": "LMCacheMPConnector", "kv_role": "kv_producer"})


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        ([], None),
        (["vllm", "serve", "m"], None),
        (["--port", "1"], "1"),
        (["--port=1"], "1"),
        (["--port", "1", "--port", "2"], "2"),
        (["--port=1", "--port", "2"], "2"),
        (["--port", "2", "--port=3"], "3"),
        (["--port"], ""),
        (["--port", "1", "--port"], ""),
        (["--port="], ""),
        (["--port=a=b"], "a=b"),
        (["--port", "--host"], "--host"),
        (["--ports", "1", "--portx=1", "port", "1", "-port", "1"], None),
    ],
)
def test_the_last_flag_counts(argv: list[str], value: str | None) -> None:
    assert flag_value(argv, "--port") == value


@pytest.mark.parametrize("word", ["--max-model-len", "--max_model_len", "--max-model_len"])
def test_dashes_and_underscores_are_one_flag(word: str) -> None:
    # vLLM's parser turns the one into the other (FlexibleArgumentParser).
    assert flag_value([word, "8"], "--max-model-len") == flag_value([f"{word}=8"], "--max-model-len") == "8"
    assert flag_value(["--x=--max_model_len", "8"], "--max-model-len") is None


@given(st.lists(st.sampled_from(["--a", "--a=1", "--b_c", "--b-c=2", "x", "=", "--", "-a", "--a_=3"])))
def test_positions_and_value_agree(argv: list[str]) -> None:
    for flag in ("--a", "--b-c"):
        found = flag_positions(argv, flag)
        assert (flag_value(argv, flag) is None) == (not found)
        assert all(argv[at].startswith("--") for at in found)


def test_a_connector_is_read_as_the_engine_reads_it() -> None:
    assert connector_of(["vllm", "serve", "m"]) is None
    assert connector_of(["vllm", FLAG, V1]) == Connector("LMCacheConnectorV1", BOTH, V1)
    assert connector_of([f"{FLAG}={V1}", FLAG, MP]) == Connector("LMCacheMPConnector", "kv_producer", MP)
    assert connector_of(
        ["--kv_transfer_config", MP, FLAG.replace("-", "_").replace("__", "--") + f"={V1}"]
    ) == Connector("LMCacheConnectorV1", BOTH, V1)
    assert {"LMCacheConnectorV1", "LMCacheMPConnector"} <= LMCACHE_CONNECTORS


def test_what_a_connector_does_not_say_is_not_made_up() -> None:
    assert connector_of([FLAG, "{}"]) == Connector("None", "None", "{}")


@pytest.mark.parametrize(
    ("text", "says"),
    [("{'a': 1}", "is not JSON .*: {'a': 1}"), ("", "is not JSON"), ("[1]", r"is not a JSON object: \[1\]")],
)
def test_a_connector_that_is_no_json_object_is_shown(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        connector_of([FLAG, text])
