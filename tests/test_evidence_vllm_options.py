"""What a vLLM command line leads to. The outcomes of ``test_options`` were read off the parser of vLLM 0.32 itself."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.core.errors import NotJudged
from fixtures.core.model_geometry import Parallel
from fixtures.evidence import startup
from fixtures.evidence.connector import (
    Connector,
    connector_fault,
    connector_of,
    effective_connector,
    lmcache_file,
    lmcache_settings,
)
from fixtures.evidence.vllm_options import Options, parallel_of, parse_options, with_transfer_config, without_connector
from fixtures.provide.kv_size import kv_bytes_per_token

FLAG = "--kv-transfer-config"


def text(name: str, role: str = "kv_both", **more: Any) -> str:
    return json.dumps({"kv_connector": name, "kv_role": role, **more})


V1, MP, NIXL = text("LMCacheConnectorV1"), text("LMCacheMPConnector"), text("NixlConnector")
SIZE = ("--kv-offloading-size", "8")
FILE = "tensor-parallel-size: 2\nkv_transfer_config:\n  kv_connector: LMCacheMPConnector\n  kv_role: kv_both\neager: true\n"


def multi(*members: str, role: str = "kv_both") -> str:
    return text("MultiConnector", role, kv_connector_extra_config={"connectors": [json.loads(one) for one in members]})


def at(key: str, value: str, port: int | None = None) -> str:
    extra = {key: value} | ({"lmcache.mp.port": port} if port else {})
    return text("LMCacheMPConnector", kv_connector_extra_config=extra)


def read(path: str) -> str:
    if path == "/c.yaml":
        return FILE
    raise OSError(path)


OK, FAULT, OPEN = "conformant", "non-conformant", "not judged"
COMMANDS: list[tuple[str, tuple[str, ...], str | None, str]] = [
    ("none", (), None, FAULT),
    ("json", (FLAG, V1), "LMCacheConnectorV1", OK),
    ("equals", (f"{FLAG}={V1}",), "LMCacheConnectorV1", OK),
    ("underscores", ("--kv_transfer_config", MP), "LMCacheMPConnector", OK),
    ("underscores-equals", (f"--kv_transfer_config={MP}",), "LMCacheMPConnector", OK),
    ("abbreviated", ("--kv-transfer", V1), "LMCacheConnectorV1", OK),
    ("last-of-two", (FLAG, V1, FLAG, MP), "LMCacheMPConnector", OK),
    ("dotted", (f"{FLAG}.kv_connector", "LMCacheMPConnector", f"{FLAG}.kv_role=kv_both"), "LMCacheMPConnector", OK),
    (
        "dotted-abbreviated",
        ("--kv_transfer.kv_connector=LMCacheMPConnector", "--kv-transfer.kv_role", "kv_both"),
        "LMCacheMPConnector",
        OK,
    ),
    (
        "dotted-replaces-json",
        (f"{FLAG}.kv_connector", "LMCacheMPConnector", f"{FLAG}.kv_role=kv_both", FLAG, V1),
        "LMCacheMPConnector",
        OK,
    ),
    ("dotted-without-role", (FLAG, V1, f"{FLAG}.kv_connector=LMCacheMPConnector"), "LMCacheMPConnector", FAULT),
    ("config-file", ("--config", "/c.yaml"), "LMCacheMPConnector", OK),
    ("config-file-and-flag", ("--config", "/c.yaml", FLAG, V1), "LMCacheConnectorV1", OK),
    ("config-with-equals-is-not-read", ("--config=/c.yaml",), None, FAULT),
    ("shell", ("bash", "-c", f"ulimit -n 65536; exec vllm serve m {FLAG} '{MP}'"), "LMCacheMPConnector", OK),
    ("shell-login", ("/bin/sh", "-ec", f"vllm serve m \\\n  {FLAG}='{V1}' # offload"), "LMCacheConnectorV1", OK),
    (
        "module",
        ("python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "m", FLAG, V1),
        "LMCacheConnectorV1",
        OK,
    ),
    ("size-native", SIZE, "OffloadingConnector", OK),
    ("size-equals", ("--kv_offloading_size=8",), "OffloadingConnector", OK),
    ("size-abbreviated", ("--kv-offloading-s", "8"), "OffloadingConnector", OK),
    ("size-lmcache", (*SIZE, "--kv-offloading-backend", "lmcache"), "LMCacheMPConnector", OK),
    ("size-from-file", ("--config", "/c.yaml", *SIZE), "OffloadingConnector", FAULT),
    ("size-overrides-lmcache", (FLAG, V1, *SIZE), "OffloadingConnector", FAULT),
    ("size-overrides-with-mp", (FLAG, V1, *SIZE, "--kv-offloading-backend=lmcache"), "LMCacheMPConnector", FAULT),
    ("size-and-same", (FLAG, MP, *SIZE, "--kv-offloading-backend=lmcache"), "LMCacheMPConnector", OK),
    ("size-and-same-native", (FLAG, text("OffloadingConnector"), *SIZE), "OffloadingConnector", OK),
    ("size-makes-both", (FLAG, text("OffloadingConnector", "kv_producer"), *SIZE), "OffloadingConnector", OK),
    ("backend-alone", ("--kv-offloading-backend", "lmcache"), None, FAULT),
    ("native", (FLAG, text("OffloadingConnector")), "OffloadingConnector", OK),
    ("simple", (FLAG, text("SimpleCPUOffloadConnector")), "SimpleCPUOffloadConnector", OK),
    (
        "dynamic",
        (FLAG, text("LMCacheConnectorV1Dynamic", kv_connector_module_path="lmcache.x")),
        "LMCacheConnectorV1Dynamic",
        OK,
    ),
    ("multi", (FLAG, multi(NIXL, MP)), "MultiConnector", OK),
    ("multi-nested", (FLAG, multi(NIXL, multi(V1))), "MultiConnector", OK),
    ("multi-native", (FLAG, multi(NIXL, text("OffloadingConnector"))), "MultiConnector", OK),
    ("multi-without-tier", (FLAG, multi(NIXL, NIXL)), "MultiConnector", OPEN),
    ("multi-empty", (FLAG, multi()), "MultiConnector", OPEN),
    ("multi-of-a-wrong-role", (FLAG, multi(NIXL, text("LMCacheMPConnector", "kv_producer"))), "MultiConnector", FAULT),
    ("nixl", (FLAG, NIXL), "NixlConnector", OPEN),
    ("nixl-producer", (FLAG, text("NixlConnector", "kv_producer")), "NixlConnector", OPEN),
    ("vendor", (FLAG, text("Fast", kv_connector_module_path="vendor.fast")), "Fast", OPEN),
    ("vendor-wrong-role", (FLAG, text("Fast", "kv_consumer", kv_connector_module_path="vendor.fast")), "Fast", FAULT),
    ("store", (FLAG, text("MooncakeStoreConnector")), "MooncakeStoreConnector", OK),
    ("benchmark", (FLAG, text("DecodeBenchConnector")), "DecodeBenchConnector", FAULT),
    ("producer", (FLAG, text("LMCacheConnectorV1", "kv_producer")), "LMCacheConnectorV1", FAULT),
    ("no-role", (FLAG, '{"kv_connector": "LMCacheConnectorV1"}'), "LMCacheConnectorV1", FAULT),
    ("empty", (FLAG, "{}"), "None", FAULT),
]


def verdict(connector: Connector | None, **more: Any) -> str:
    try:
        return OK if connector_fault(connector, expected="engine-0", **more) is None else FAULT
    except NotJudged:
        return OPEN


@pytest.mark.parametrize(("argv", "name", "says"), [case[1:] for case in COMMANDS], ids=[case[0] for case in COMMANDS])
def test_the_connector_of_a_command_line(argv: tuple[str, ...], name: str | None, says: str) -> None:
    words = argv if argv[:1] and argv[0] in {"bash", "/bin/sh", "python3"} else ("vllm", "serve", "m", *argv)
    found = connector_of(words, {}, read)
    assert (found.name if found else None) == name
    assert verdict(found) == says


def test_an_override_is_told_with_what_won() -> None:
    fault = connector_fault(connector_of((FLAG, V1, "--kv-offloading-size", "1")), expected="engine-0")
    assert fault is not None
    assert "LMCacheConnectorV1" in fault
    assert "got OffloadingConnector: --kv-offloading-size 1 (backend native) overrides it silently" in fault


def test_a_flag_of_the_environment_chooses_the_simple_connector() -> None:
    found = connector_of(SIZE, {"VLLM_USE_SIMPLE_KV_OFFLOAD": "1"})
    assert found is not None
    assert found.name == "SimpleCPUOffloadConnector"


@pytest.mark.parametrize("role", ["kv_producer", "kv_consumer"])
def test_half_of_a_disaggregated_release_is_not_judged(role: str) -> None:
    found = connector_of((FLAG, text("LMCacheConnectorV1", role)))
    assert verdict(found, disaggregated="its engines have both roles") == OPEN
    assert verdict(connector_of((FLAG, V1)), disaggregated="its engines have both roles") == OK


@pytest.mark.parametrize(
    ("argv", "created", "name", "says"),
    [
        ((FLAG, V1), "LMCacheConnectorV1", "LMCacheConnectorV1", OK),
        ((FLAG, V1), "OffloadingConnector", "OffloadingConnector", FAULT),
        ((FLAG, V1, *SIZE), "OffloadingConnector", "OffloadingConnector", FAULT),
        # vLLM 0.11: the backend lmcache led to the in-process connector
        ((FLAG, V1, *SIZE, "--kv-offloading-backend=lmcache"), "LMCacheConnectorV1", "LMCacheConnectorV1", OK),
        ((*SIZE, "--kv-offloading-backend=lmcache"), "LMCacheConnectorV1", "LMCacheConnectorV1", OK),
        (SIZE, "SimpleCPUOffloadConnector", "SimpleCPUOffloadConnector", OK),
        ((FLAG, NIXL), "NixlPullConnector", "NixlConnector", OPEN),
        ((FLAG, text("Fast")), "FastConnector", "FastConnector", OPEN),
        ((FLAG, multi(NIXL, MP)), "MultiConnector", "MultiConnector", OK),
        # Members that are built through the factory have a line of their own, after that of the MultiConnector
        ((FLAG, multi(NIXL, MP)), "LMCacheMPConnector", "MultiConnector", OK),
        ((FLAG, multi(MP, NIXL)), "NixlPullConnector", "MultiConnector", OK),
        ((FLAG, multi(multi(MP, V1), NIXL)), "LMCacheConnectorV1", "MultiConnector", OK),
        ((FLAG, multi(V1, text("Fast"))), "FastConnector", "MultiConnector", OK),
        ((FLAG, multi(NIXL, MP)), "OffloadingConnector", "OffloadingConnector", FAULT),
        ((FLAG, multi(text("OffloadingConnector")), *SIZE), "OffloadingConnector", "OffloadingConnector", FAULT),
        ((FLAG, V1), "MultiConnector", "MultiConnector", FAULT),
        ((), "LMCacheMPConnector", "LMCacheMPConnector", OPEN),
        ((), None, None, FAULT),
    ],
)
def test_the_log_says_which_connector_runs(
    argv: tuple[str, ...], created: str | None, name: str | None, says: str
) -> None:
    found = effective_connector(connector_of(argv), created)
    assert (found.name if found else None) == name
    assert verdict(found) == says


@pytest.mark.parametrize(
    ("argv", "address"),
    [
        ((FLAG, V1), None),
        ((FLAG, MP), ("localhost", 5555)),
        ((*SIZE, "--kv-offloading-backend", "lmcache"), ("localhost", 5555)),
        (
            (
                FLAG,
                text(
                    "LMCacheMPConnector",
                    kv_connector_extra_config={"lmcache.mp.host": "tcp://kv.ns", "lmcache.mp.port": 7},
                ),
            ),
            ("kv.ns", 7),
        ),
        (
            (
                FLAG,
                text(
                    "LMCacheMPConnector",
                    kv_connector_extra_config={"lmcache.mp.server_urls": ["tcp://a:1", "tcp://b:2"]},
                ),
            ),
            ("a", 1),
        ),
        (
            (FLAG, multi(NIXL, text("LMCacheMPConnector", kv_connector_extra_config={"lmcache.mp.host": "kv"}))),
            ("kv", 5555),
        ),
        ((FLAG, text("LMCacheMPConnector", kv_connector_extra_config={"lmcache.mp.port": "x"})), ("localhost", 5555)),
        ((FLAG, at("lmcache.mp.port", "9" * 5000)), ("localhost", 5555)),
        ((FLAG, at("lmcache.mp.host", "tcp://kv:" + "9" * 5000)), ("kv", 5555)),
        ((FLAG, at("lmcache.mp.host", "tcp://[::1]", port=6555)), ("::1", 6555)),
        ((FLAG, at("lmcache.mp.host", "tcp://[fd00::7]:7", port=6555)), ("fd00::7", 7)),
        ((FLAG, at("lmcache.mp.server_urls", "[::1]:1,[::2]:2")), ("::1", 1)),
    ],
)
def test_where_the_cache_server_is(argv: tuple[str, ...], address: tuple[str, int] | None) -> None:
    found = connector_of(argv)
    assert found is not None
    assert found.cache_server == address


@pytest.mark.parametrize(
    ("argv", "sizes", "workers"),
    [
        ("", (1, 1, 1), 1),
        ("-tp 4", (4, 1, 1), 4),
        ("-tp=4", (4, 1, 1), 4),
        ("-t 4", (4, 1, 1), 4),
        ("-pp 2", (1, 2, 1), 2),
        ("-dp 2", (1, 1, 2), 2),
        ("--data-parallel-size 2", (1, 1, 2), 2),
        ("--data_parallel_size=2 -dpl 1", (1, 1, 1), 1),
        ("-dp 8 -dpn 3 -tp 2", (2, 1, 1), 2),
        ("-dp 8 --data-parallel-external-lb --data-parallel-rank=0", (1, 1, 1), 1),
        ("-dp 8 --nnodes 2", (1, 1, 4), 4),
        ("--tensor_parallel_size=4", (4, 1, 1), 4),
        ("--tensor-par 4", (4, 1, 1), 4),
        ("--tensor 4", (4, 1, 1), 4),
        ("-pp 2 -tp 2 -tp 4", (4, 2, 1), 8),
        ("-tp 2 --tensor-parallel-size 1", (1, 1, 1), 1),
        ("--config /c.yaml", (2, 1, 1), 2),
        ("--config /c.yaml -tp 4", (4, 1, 1), 4),
        ("-tp 4 --config /c.yaml", (4, 1, 1), 4),
        ("-tp many", (1, 1, 1), 1),
    ],
)
def test_parallel_sizes(argv: str, sizes: tuple[int, int, int], workers: int) -> None:
    found = parallel_of(parse_options(argv.split(), read))
    assert (found.tensor, found.pipeline, found.data) == sizes
    assert found.workers == workers
    assert found.ranks == sizes[0] * sizes[1]


def test_a_switch_of_a_config_file() -> None:
    """vLLM 0.32 gives ``enable-prefix-caching: false`` on as ``--no-enable-prefix-caching``."""
    found = parse_options(("--config", "/c.yaml"), lambda _: "enable-prefix-caching: false\nenable-lora: true\n")
    assert (found.switch("enable-prefix-caching"), found.switch("enable-lora")) == (False, True)
    found = parse_options(("--config", "/c.yaml"), lambda _: "enable_prefix_caching: false\n")
    assert found.switch("enable-prefix-caching") is None, "vLLM does not find it"


MISTRAL_7B = {
    "hidden_size": 4096,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 32768,
    "model_type": "mistral",
}
QWEN3_8B = {
    "head_dim": 128,
    "hidden_size": 4096,
    "max_position_embeddings": 40960,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 151936,
    "model_type": "qwen3",
}
LLAMA32_1B = {
    "head_dim": 64,
    "hidden_size": 2048,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
    "model_type": "llama",
}
DEEPSEEK = {
    "hidden_size": 7168,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "max_position_embeddings": 163840,
    "num_attention_heads": 128,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "torch_dtype": "bfloat16",
    "vocab_size": 129280,
    "model_type": "deepseek_v3",
}
KIB = 1024


@pytest.mark.parametrize(
    ("config", "argv", "size"),
    [
        (MISTRAL_7B, "", 128 * KIB),
        (MISTRAL_7B, "--kv-cache-dtype auto", 128 * KIB),
        (MISTRAL_7B, "--kv-cache-dtype fp8", 64 * KIB),
        (MISTRAL_7B, "--kv_cache_dtype=fp8_e4m3", 64 * KIB),
        (MISTRAL_7B, "--kv-cache-dtype fp8_e5m2 --dtype float32", 64 * KIB),
        (MISTRAL_7B, "--kv-cache-dtype bfloat16 --dtype float32", 128 * KIB),
        (MISTRAL_7B, "--dtype float16", 128 * KIB),
        (MISTRAL_7B, "--dtype half", 128 * KIB),
        (MISTRAL_7B, "--dtype float32", 256 * KIB),
        (MISTRAL_7B, "--dt=float", 256 * KIB),
        (MISTRAL_7B, "--kv-cache-dtype turboquant_k8v4", None),
        (MISTRAL_7B, "-tp 4", 128 * KIB),
        (MISTRAL_7B, "-tp 8", 128 * KIB),
        (MISTRAL_7B, "-tp 16", 256 * KIB),
        (MISTRAL_7B, "-pp 2", 128 * KIB),
        (QWEN3_8B, "", 144 * KIB),
        (LLAMA32_1B, "", 32 * KIB),
        (LLAMA32_1B, '--hf-overrides {"num_hidden_layers":8}', 16 * KIB),
        (DEEPSEEK, "", 61 * 576 * 2),
        (DEEPSEEK, "-tp 8", 61 * 576 * 2),
        (DEEPSEEK | {"index_head_dim": 128}, "", None),
        (MISTRAL_7B | {"quantization_config": {"kv_cache_scheme": {"num_bits": 8}}}, "", None),
        (MISTRAL_7B, '--speculative-config {"method":"eagle3","model":"x"}', None),
        (MISTRAL_7B, '--speculative-config {"method":"ngram"}', 128 * KIB),
        ({"model_type": "gpt2", "n_layer": 12}, "", None),
        ({"model_type": "x", "num_hidden_layers": "many"}, "", None),
    ],
)
def test_bytes_of_kv_per_token(config: dict[str, Any], argv: str, size: int | None) -> None:
    assert kv_bytes_per_token(config, parse_options(argv.split())) == size


# --- the start of a log -----------------------------------------------------------------------------------------------

START = (
    "(APIServer pid=1) INFO 11-25 04:31:03 [api_utils.py:286] non-default args: {'model': 'm', 'kv_transfer_config': "
    "KVTransferConfig(kv_connector='MultiConnector', engine_id='0d', kv_role='kv_both', kv_connector_extra_config="
    "{'connectors': [{'kv_connector': 'LMCacheMPConnector', 'kv_role': 'kv_both'}]}, kv_connector_module_path=None)}\n"
    "(EngineCore pid=2) INFO 11-25 04:31:13 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='m', "
    "dtype=torch.float16, max_seq_len=8192, tensor_parallel_size=2, pipeline_parallel_size=2, data_parallel_size=1, "
    "decode_context_parallel_size=1, quantization_config=None, kv_cache_dtype=fp8, device_config=cuda\n"
    "(Worker pid=3) INFO 11-25 04:31:24 [factory.py:62] Creating v1 connector with name: MultiConnector and engine_id: 0d\n"
)
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


# --- never a traceback ------------------------------------------------------------------------------------------------

SPELLINGS = (
    f"-tp -tp= --config /c.yaml bash -c serve - -- -. -x.y=1 --= ' [1] 2 {FLAG} {FLAG}. {FLAG}.=x {FLAG}.a.b+ "
    f"{FLAG}.kv_connector --kv-offloading-size --kv_offloading_backend"
)
WORDS = st.text(max_size=8) | st.sampled_from(["", V1, multi(V1), *SPELLINGS.split()])


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
NO_FILES = [
    *("a: 2027-02-30", "a: !!timestamp x", "a: !!bool x", "a: !!int ''", "? [a]\n: b", "a: &a [*a]", "a: \x00", BOMB),
    *("[" * 5000, "- " * 5000, "a: " + "{b: " * 5000, f"a: {'9' * 5000}", "a: b\n" * 20_000, "a: " + "x" * 300_000),
]


@pytest.mark.parametrize("content", NO_FILES, ids=range(len(NO_FILES)))
def test_a_file_that_cannot_be_read_is_unknown_at_once(content: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=r"^(?:is not YAML|contains|is nested)"):
        lmcache_file(content)
    assert parse_options(["vllm", "serve", "--config", "f", "-tp", "2"], lambda _: content) == Options(
        (("-tp", "2"),), "f"
    )
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("content", ["hf-overrides: {a: 2024-01-01}", "hf-overrides: {2024-01-01: a}", "[a]", "x"])
def test_options_of_a_file_that_vllm_cannot_take_are_unknown(content: str) -> None:
    assert parse_options(["vllm", "serve", "--config", "f"], lambda _: content).unread == "f"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("- a\n- b\n", "contains a list, not a mapping"),
        ("just a text", "contains a str, not a mapping"),
        ("a: b: c", "is not YAML: mapping values are not allowed"),
        (BOMB, "contains more than 10000 values after expansion of its aliases"),
        ("[" * 5000, "is nested more than 50 levels deep"),
        ("x" * 5_000_000, "contains more than 262144 characters"),
    ],
)
def test_what_lmcache_could_not_read_is_told(content: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        lmcache_file(content)


@pytest.mark.parametrize("content", ["", "# nothing yet\n", "{}", "---\n"])
def test_an_empty_file_sets_nothing(content: str) -> None:
    assert lmcache_file(content) == {}


def test_a_file_may_use_anchors() -> None:
    assert lmcache_file("a: &a {b: 1}\nc: *a\nd: &d text\ne: *d") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": "text",
        "e": "text",
    }


@pytest.mark.parametrize("depth", [10, 150, 320])
def test_connectors_inside_each_other(depth: int) -> None:
    one = V1
    for _ in range(depth):
        one = f'{{"kv_connector": "MultiConnector", "kv_connector_extra_config": {{"connectors": [{one}]}}}}'
    try:
        found = connector_of((FLAG, one))
    except ValueError:
        return
    assert found is not None
    assert [member.name for member in found.members] == ["LMCacheConnectorV1"]


def test_options_without_an_end() -> None:
    parse_options(["vllm", "serve", f"{FLAG}.{'a.' * 5000}", "1", f"{FLAG}.b", "[" * 50_000, f"{FLAG}.c", "9" * 5000])


@given(st.lists(WORDS, max_size=8))
@settings(max_examples=150, deadline=None)
def test_any_command_line_is_read(argv: list[str]) -> None:
    found = parse_options(argv, read)
    parallel_of(found)
    lmcache_settings(argv)
    without_connector(argv)
    try:
        connector = connector_of(found)
    except ValueError:
        return
    verdict(connector)
    assert connector is None or connector.cache_server is None or connector.cache_server[1] > 0


@given(st.text(max_size=300) | st.lists(st.sampled_from(START.split(" ")), max_size=40).map(" ".join))
@settings(max_examples=150, deadline=None)
def test_any_log_is_read(log: str) -> None:
    startup.read(log)


def test_without_a_connector_nothing_else_changes() -> None:
    argv = ["vllm", "serve", "m", "--port=1", FLAG, V1, "--kv_transfer_config.kv_role", "kv_both", *SIZE, "-tp", "2"]
    assert without_connector(argv) == ["vllm", "serve", "m", "--port=1", "-tp", "2"]
    assert with_transfer_config(argv[:6], "X") == ["vllm", "serve", "m", "--port=1", FLAG, "X"]
