"""What a vLLM command line leads to."""

from __future__ import annotations

import pytest

from fixtures.evidence.connector import connector_fault, connector_of
from fixtures.evidence.vllm_options import parallel_of, parse_options, served_names
from tests.command_lines import FAULT, FLAG, MP, NIXL, OK, OPEN, SIZE, V1, multi, read, text, verdict

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
    ("shell-su", ("su", "app", "-c", f"exec vllm serve m {FLAG} '{MP}'"), "LMCacheMPConnector", OK),
    ("shell-pipefail", ("bash", "-ceuo", "pipefail", f"vllm serve m {FLAG} '{MP}'"), "LMCacheMPConnector", OK),
    ("env-split", ("env", "-S", "A=1 vllm serve m", FLAG, V1), "LMCacheConnectorV1", OK),
    (
        "module",
        ("python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "m", FLAG, V1),
        "LMCacheConnectorV1",
        OK,
    ),
    ("size-none", (FLAG, V1, "--kv-offloading-size", "None"), "LMCacheConnectorV1", OK),
    ("size-empty", (FLAG, V1, "--kv-offloading-size="), "LMCacheConnectorV1", OK),
    ("none", (FLAG, V1, FLAG, "None"), None, FAULT),
    ("nothing", (FLAG, ""), None, FAULT),
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


@pytest.mark.parametrize(("argv", "name", "says"), [case[1:] for case in COMMANDS], ids=[case[0] for case in COMMANDS])
def test_the_connector_of_a_command_line(argv: tuple[str, ...], name: str | None, says: str) -> None:
    words = (
        argv if argv[:1] and argv[0] in {"bash", "/bin/sh", "python3", "su", "env"} else ("vllm", "serve", "m", *argv)
    )
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
    beside = multi(text("NixlConnector", role), text("LMCacheConnectorV1", role))
    assert verdict(connector_of((FLAG, beside))) == OPEN


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


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (("--a.b", "--c=d", "--e"), ["e", "a"]),
        (("--a.b=1", "--c=d", "--e"), ["c", "e", "a"]),
        (("--a", "-1", "-b", "-", "--"), ["a", "-1", "-b"]),
    ],
    ids=["value-of-a-dotted-key", "with-equals", "short"],
)
def test_the_value_of_a_dotted_key_is_no_option_of_its_own(words: tuple[str, ...], keys: list[str]) -> None:
    assert [key for key, _ in parse_options(("vllm", "serve", "m", *words)).pairs] == keys


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("", ["org/m"]),
        ("--served-model-name a b", ["a", "b"]),
        ("--served_model_name a a --port 1", ["a"]),
        ("--served-model-name=a --lora-modules x=/x y=/y", ["a", "x", "y"]),
        ('--lora-modules {"name":"x","path":"/x"} z', ["org/m", "x"]),
    ],
)
def test_an_engine_lists_every_name_of_its_model_and_its_adapters(words: str, names: list[str]) -> None:
    assert served_names(["vllm", "serve", "/m", *words.split()], "org/m") == names
