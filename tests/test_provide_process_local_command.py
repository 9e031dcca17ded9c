"""The command of the chart, adapted to this machine."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.evidence.flags import flag_value
from fixtures.provide.process import host_copies
from fixtures.provide.process import local_command as local
from fixtures.provide.values.loading import load_values
from fixtures.provide.values.render import render_engine
from fixtures.provide.values.tiers import cache_servers
from tests import values_files
from tests.values_files import DATA, LAUGH, V1, lmcache

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.provide.values.engine_command import EngineCommand
    from fixtures.provide.values.sections import Values

    Load = Callable[..., Values]
    Render = Callable[..., EngineCommand]

load = values_files.load
render = values_files.render


# ---- local processes

PYTHON = Path("/env/bin/python")


def to_local(command: EngineCommand, **changes: Any) -> local.LocalCommand:
    given = {"device": "cpu", "cache_server": ("127.0.0.1", 6000), "model_dir": Path("/m"), **changes}
    return local.to_local_command(command, python=PYTHON, host="127.0.0.1", port=8100, prom_dir=Path("/p"), **given)


def test_on_a_cpu_the_multi_process_connector_takes_over(render: Render) -> None:
    done = to_local(render(lmcache(cpuOffloadingBufferSize="1", kvRole="kv_both")))
    head = f"/env/bin/python {local.SERVE} --model /m --served-model-name x/y"
    assert done.argv[:-1] == tuple(
        f"{head} --host 127.0.0.1 --port 8100 --no-enable-prefix-caching --max-model-len 16384 "
        "--kv-transfer-config".split()
    )
    assert json.loads(done.argv[-1]) == {
        "kv_connector": "LMCacheMPConnector",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"lmcache.mp.host": "tcp://127.0.0.1", "lmcache.mp.port": 6000},
    }
    assert done.env["PROMETHEUS_MULTIPROC_DIR"] == "/p"
    assert done.env["POD_IP"] == "127.0.0.1"
    assert "HF_HOME" not in done.env
    assert not any("$(" in value for value in done.env.values())
    assert {change.what for change in done.substitutions} == {
        "program", "model", "host", "port", "connector",
        "env HF_HOME", "env POD_IP", "env PROMETHEUS_MULTIPROC_DIR", "env LMCACHE_LMCACHE_INSTANCE_ID",
        "env VLLM_SERVER_DEV_MODE",
    }  # fmt: skip


def test_the_server_is_not_imported_once_more_by_what_it_spawns(tmp_path: Path) -> None:
    """A stand-in for vLLM's server, which starts a process as vLLM starts its engine core on a CPU."""
    server = tmp_path / "vllm/entrypoints/openai/api_server.py"
    server.parent.mkdir(parents=True)
    (tmp_path / "core.py").write_text("import sys\n\ndef run(): print('vllm' in sys.modules)\n")
    server.write_text(
        "import multiprocessing, sys\nimport core\nif __name__ == '__main__':\n    print(sys.argv[1:], flush=True)\n"
        "    one = multiprocessing.get_context('spawn').Process(target=core.run)\n    one.start()\n    one.join()\n"
    )
    command = [sys.executable, local.SERVE, "--port", "1"]
    done = subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["['--port', '1']", "False"]


def test_a_model_made_here_brings_the_options_that_it_needs(render: Render) -> None:
    flags = {"--tokenizer-mode": ("mistral",), "--lora-modules": ("a=/m/a", "b=/m/b")}
    done = to_local(render(lmcache()), model_flags=flags)
    assert list(done.argv[-5:]) == ["--tokenizer-mode", "mistral", "--lora-modules", "a=/m/a", "b=/m/b"]
    assert {"tokenizer-mode", "lora-modules"} <= {change.what for change in done.substitutions}
    asked = render("vllmConfig: {extraArgs: [--tokenizer-mode, auto]}")
    assert to_local(asked, model_flags=flags).argv.count("--tokenizer-mode") == 1


def test_the_way_that_an_engine_moves_its_kv_is_offered_by_its_cache_server(render: Render) -> None:
    asked = {"name": "LMCACHE_MP_TRANSFER_MODE", "value": "lmcache_driven"}
    tier = host_copies.in_process_tier(render(f"{lmcache()}\nenv: {json.dumps([asked])}"))
    assert tier.argv[-2:] == ("--supported-transfer-mode", "lmcache_driven")
    assert "--supported-transfer-mode" not in host_copies.in_process_tier(render(lmcache())).argv


def test_on_a_gpu_the_connector_stays_word_for_word(render: Render) -> None:
    done = to_local(render(lmcache()), device="cuda", cache_server=None)
    assert done.argv[-2:] == ("--kv-transfer-config", V1)
    assert "connector" not in {change.what for change in done.substitutions}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_explicit_multi_process_connector_gets_the_local_address_only(device: Any) -> None:
    command = render_engine(load_values(DATA / "multi-process.yaml"))
    done = to_local(command, device=device)
    used = json.loads(done.argv[-1])
    assert used["kv_connector_extra_config"] == {
        "lmcache.mp.host": "tcp://127.0.0.1",
        "lmcache.mp.port": 6000,
        "lmcache.mp.mq_timeout": 5,
        "lmcache.mp.heartbeat_interval": 2,
    }
    assert done.argv.count("--served-model-name") == 1
    assert not host_copies.needs_local_cache_server(command)


@pytest.mark.parametrize(("device", "first"), [("cpu", "LMCacheMPConnector"), ("cuda", "LMCacheConnectorV1")])
def test_members_of_a_multi_connector_get_the_local_address(render: Render, device: Any, first: Any) -> None:
    several = {"lmcache.mp.server_urls": "kv-a:5555,kv-b:5555"}
    served = {"kv_connector": "LMCacheMPConnector", "kv_connector_extra_config": several}
    members = [{"kv_connector": "NixlConnector"}, json.loads(V1), served]
    asked = {"kv_connector": "MultiConnector", "kv_connector_extra_config": {"connectors": members}}
    command = render(f"vllmConfig: {{v0: 0, extraArgs: [--kv-transfer-config, '{json.dumps(asked)}']}}\n")
    used = json.loads(to_local(command, device=device).argv[-1])
    nixl, *rest = used["kv_connector_extra_config"]["connectors"]
    assert (used["kv_connector"], nixl) == ("MultiConnector", members[0])
    assert [one["kv_connector"] for one in rest] == [first, "LMCacheMPConnector"]
    assert rest[-1]["kv_connector_extra_config"] == {"lmcache.mp.host": "tcp://127.0.0.1", "lmcache.mp.port": 6000}
    assert host_copies.needs_local_cache_server(command)


def test_a_connector_that_is_not_in_effect_needs_no_cache_server(render: Render) -> None:
    command = render(lmcache().replace("{", "{extraArgs: [--kv-offloading-size, '1'], ", 1))
    assert command.connector is not None
    assert command.connector["kv_connector"] == "LMCacheConnectorV1"
    assert not host_copies.needs_local_cache_server(command), "vLLM's own connector takes its place"
    (change,) = [one for one in to_local(command, cache_server=None).substitutions if one.what == "connector"]
    assert json.loads(change.used)["kv_connector"] == "LMCacheConnectorV1", "vLLM itself has to override it"
    on_gpu = to_local(command, cache_server=None, device="cuda")
    assert "connector" not in {change.what for change in on_gpu.substitutions}


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        ("--kv-offloading-size, '1'", {}),
        (
            "--kv-offloading-size, '1', --kv-transfer-config, '{\"kv_connector_extra_config\":{\"blocks_per_chunk\":2}}'",
            {"blocks_per_chunk": 2},
        ),
        (
            '--kv-transfer-config, \'{"kv_connector":"OffloadingConnector","kv_role":"kv_both",'
            '"kv_connector_extra_config":{"cpu_bytes_to_use":1}}\'',
            {"cpu_bytes_to_use": 1},
        ),
    ],
)
def test_on_a_cpu_the_copies_of_the_native_connector_are_replaced(
    render: Render, words: str, extra: dict[str, int]
) -> None:
    command = render(f"vllmConfig: {{extraArgs: [{words}]}}")
    assert host_copies.host_copy(command, "cpu") == (host_copies.HOST_TIER,)
    assert (host_copies.HOST_TIER / f"{host_copies.HOST_MODULE}.py").is_file()
    assert host_copies.host_copy(command, "cuda") == ()
    used = json.loads(to_local(command, cache_server=None, device="cpu").argv[-1])
    spec = {"spec_name": "HostCopySpec", "spec_module_path": host_copies.HOST_MODULE}
    assert used == {
        "kv_connector": "OffloadingConnector",
        "kv_role": "kv_both",
        "kv_connector_extra_config": spec | extra,
    }
    on_gpu = to_local(command, cache_server=None, device="cuda")
    assert "connector" not in {change.what for change in on_gpu.substitutions}


@pytest.mark.parametrize(
    "below", ["{name: LMCACHE_LOCAL_DISK, value: 'file:///kv/'}", "{name: LMCACHE_REMOTE_URL, value: 'lm://kv:1'}"]
)
def test_on_a_cpu_lmcache_in_process_stays_where_it_has_tiers_below(render: Render, below: str) -> None:
    command = render(f"{lmcache()}\nenv: [{below}]")
    assert not host_copies.needs_local_cache_server(command)
    assert host_copies.host_copy(command, "cpu") == (host_copies.CACHE_FOLDER,)
    assert host_copies.host_copy(command, "cuda") == ()
    made = to_local(command, cache_server=None, device="cpu")
    used = json.loads(made.argv[list(made.argv).index("--kv-transfer-config") + 1])
    assert used["kv_connector"] == "LMCacheConnectorV1"
    assert used["kv_connector_module_path"] == "kv_offload_host_cache"
    assert (host_copies.CACHE_FOLDER / "kv_offload_host_cache.py").is_file()
    assert "connector" in {change.what for change in made.substitutions}


def test_the_simple_native_connector_is_refused_on_a_cpu(render: Render) -> None:
    text = '{"kv_connector":"SimpleCPUOffloadConnector","kv_role":"kv_both"}'
    command = render(f"vllmConfig: {{extraArgs: [--kv-transfer-config, '{text}']}}")
    with pytest.raises(ConfigurationError, match="SimpleCPUOffloadConnector, which copies with CUDA; use --gpu"):
        to_local(command, cache_server=None, device="cpu")


def test_a_multi_process_connector_without_a_server_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="add one with 'lmcache server' to extraObjects"):
        to_local(render_engine(load_values(DATA / "multi-process.yaml")), cache_server=None)


@pytest.mark.parametrize("model", ["vllmConfig: {v0: 0}", lmcache(enablePD=False), lmcache(kvRole='"')])
def test_without_a_connector_that_parses_nothing_is_substituted(render: Render, model: Any) -> None:
    command = render(model)
    assert not host_copies.needs_local_cache_server(command)
    assert to_local(command, cache_server=None).argv[10:] == command.argv[7:]


def test_references_are_resolved_or_left_out_and_declared(render: Render) -> None:
    env = """
env:
- {name: TOKEN, valueFrom: {secretKeyRef: {name: s, key: k}}}
- {name: OTHER, valueFrom: {configMapKeyRef: {name: c, key: k}}}
- {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: URL, value: "http://$(POD_IP):1/$$(POD_IP)/$(UNKNOWN)"}
- {name: HF_HOME, value: /models}
"""
    done = to_local(
        render("vllmConfig: {extraArgs: [--x, $(POD_IP)]}" + env, tail="cacheserverSpec: {enabled: true}\n"),
        secrets={"TOKEN": "secret"},
    )
    assert done.env["TOKEN"] == "secret"
    assert "OTHER" not in done.env
    assert done.env["NODE"] == "localhost"
    assert done.env["URL"] == "http://127.0.0.1:1/$(POD_IP)/$(UNKNOWN)"
    assert done.env["HF_HOME"] == "/models"
    assert done.argv[-2:] == ("--x", "127.0.0.1")
    assert "secret" not in " ".join(map(str, done.substitutions)).replace("secretKeyRef", "")


def test_the_charts_own_templates_are_left_out_and_its_cache_server_is_kept(render: Render) -> None:
    done = to_local(render(lmcache() + "\nchatTemplate: t.jinja", tail="cacheserverSpec: {enabled: true}\n"))
    assert done.env["LMCACHE_REMOTE_URL"] == "lm://vllm-cache-server-service:80", (
        "local_tiers points it to the store of the stack"
    )
    assert "--chat-template" not in done.argv
    assert {"chat template"} <= {change.what for change in done.substitutions}


def test_the_values_own_model_and_name_are_kept(render: Render) -> None:
    done = to_local(render("vllmConfig: {extraArgs: [--served-model-name=mine, --port, '1']}"), model_dir=None)
    assert done.argv[2:4] == ("--model", "x/y")
    assert [word for word in done.argv if "served-model-name" in word] == ["--served-model-name=mine"]
    assert flag_value(done.argv, "--port") == "8100"


@pytest.mark.parametrize(
    ("model", "size", "chunk"),
    [
        (lmcache(cpuOffloadingBufferSize="20"), "20", "256"),
        (lmcache(cpuOffloadingBufferSize="0.5"), "5", "256"),  # renders nothing: LMCache's own default
        (lmcache(cpuOffloadingBufferSize=20.5), "20.5", "256"),
        (lmcache() + "\nenv: [{name: LMCACHE_MAX_LOCAL_CPU_SIZE, value: 20Gi}]", "5", "256"),
        (lmcache() + "\nenv: [{name: LMCACHE_MAX_LOCAL_CPU_SIZE, value: ' \"0.5\" '}]", "0.5", "256"),
        (lmcache() + "\nenv: [{name: LMCACHE_CHUNK_SIZE, value: '64'}]", "5", "64"),
        (lmcache() + "\nenv: [{name: LMCACHE_CHUNK_SIZE, value: abc}]", "5", "256"),
    ],
)
def test_the_tier_is_as_large_as_lmcache_would_make_it(render: Render, model: Any, size: Any, chunk: Any) -> None:
    tier = host_copies.in_process_tier(render(model))
    argv = local.local_cache_server(tier, python=PYTHON, host="127.0.0.1", port=1, http_port=2, device="cpu")
    assert argv == (
        *f"/env/bin/lmcache server --l1-size-gb {size} --chunk-size {chunk} --eviction-policy LRU".split(),
        *shlex.split("--host 127.0.0.1 --port 1 --http-host 127.0.0.1 --http-port 2"),
        *shlex.split("--supported-transfer-mode engine_driven"),
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read .*No such file"),
        (b"- chunk_size\n", "contains a list, not a mapping"),
        (b"chunk_size: 1: 2\n", "is not YAML"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"a: " * 2_000_000, "contains more than 262144 characters"),
        (LAUGH.encode(), "contains more than 10000 values after expansion of its aliases"),
    ],
)
def test_a_file_on_which_lmcache_would_end_the_engine_is_refused(
    render: Render, tmp_path: Path, content: Any, problem: str
) -> None:
    path = tmp_path / "lmcache.yaml"
    if content is not None:
        path.write_bytes(content)
    model = lmcache() + f"\nenv: [{{name: LMCACHE_CONFIG_FILE, value: {path}}}]"
    with pytest.raises(
        ConfigurationError, match=f"^LMCACHE_CONFIG_FILE: {path} {problem}.*; the engine would stop at start-up"
    ):
        host_copies.in_process_tier(render(model))
    path.write_text("chunk_size: 64\n")
    assert "64" in host_copies.in_process_tier(render(model)).argv


def test_a_server_of_the_values_keeps_its_flags_but_the_addresses() -> None:
    (server,) = cache_servers(load_values(DATA / "multi-process.yaml"))
    argv = local.local_cache_server(server, python=PYTHON, host="127.0.0.1", port=1, http_port=2, device="cuda")
    assert argv == tuple(
        shlex.split(
            "/env/bin/lmcache server --host 127.0.0.1 --port 1 --l1-size-gb 2 --eviction-policy LRU --chunk-size 256 "
            "--supported-transfer-mode engine_driven --http-host 127.0.0.1 --http-port 2"
        )
    )
