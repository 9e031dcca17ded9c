"""The values file as the chart reads it: compared, with what Helm renders (data/values/rendered.json)."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.core.record import RequestedConfig
from fixtures.evidence.flags import flag_value
from fixtures.provide.values.loading import load_values
from fixtures.provide.values.render import render_engine, secrets
from tests import values_files
from tests.values_files import DATA, V1, lmcache, values_text, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.provide.values.engine_command import EngineCommand
    from fixtures.provide.values.sections import Values

    Load = Callable[..., Values]
    Render = Callable[..., EngineCommand]

load = values_files.load
render = values_files.render


CONFIGS = Path(__file__).parents[1] / "configs"


HELM = json.loads((DATA / "rendered.json").read_text(encoding="utf-8"))


# ---- against Helm itself


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in HELM["cases"].items()])
def test_a_case_renders_as_helm_renders_it_or_is_refused(tmp_path: Path, case: Any) -> None:
    path = write(tmp_path, case["values"])
    if "helm" in case or case.get("refused_here"):
        with pytest.raises(ConfigurationError):
            render_engine(load_values(path))
        return
    command = render_engine(load_values(path))
    assert list(command.argv) == case["argv"]
    assert [list(entry) for entry in command.env] == case["env"]


@pytest.mark.parametrize(("written", "printed"), HELM["cpuOffloadingBufferSize"].items())
def test_buffer_size_as_helm_prints_it(tmp_path: Path, written: Any, printed: Any) -> None:
    text = values_text(f"vllmConfig: {{v0: 0}}\nlmcacheConfig: {{enabled: true, cpuOffloadingBufferSize: {written}}}")
    path = write(tmp_path, text)
    if printed == "error":
        with pytest.raises(ConfigurationError, match="infinite"):
            load_values(path)
        return
    env = render_engine(load_values(path)).effective_env
    assert env.get("LMCACHE_MAX_LOCAL_CPU_SIZE") == printed
    assert env.get("LMCACHE_LOCAL_CPU") == (None if printed is None else "True")


@pytest.mark.parametrize(("written", "connected"), HELM["enabled"].items())
def test_enabled_as_helm_takes_it(tmp_path: Path, written: Any, connected: Any) -> None:
    path = write(tmp_path, values_text(f"vllmConfig: {{v0: 0}}\nlmcacheConfig: {{enabled: {written}}}"))
    if connected == "error":
        with pytest.raises(ConfigurationError, match="infinite"):
            load_values(path)
        return
    assert (render_engine(load_values(path)).connector is not None) is connected


@pytest.mark.parametrize(("written", "printed"), HELM["logLevel"].items())
def test_log_level_as_helm_prints_it(render: Render, written: Any, printed: Any) -> None:
    command = render(f"vllmConfig: {{v0: 0}}\nlmcacheConfig: {{enabled: true, logLevel: {written}}}")
    assert command.effective_env["LMCACHE_LOG_LEVEL"] == printed


# ---- the reference


def test_the_reference_configuration_renders_exactly() -> None:
    command = render_engine(load_values(CONFIGS / "cpu-offload" / "values.yaml"))
    assert list(command.argv) == [
        *shlex.split("/opt/venv/bin/vllm serve mistralai/Mistral-7B-Instruct-v0.3 --host 0.0.0.0 --port 8000"),
        *shlex.split("--no-enable-chunked-prefill --enable-prefix-caching --max-model-len 16384 --kv-transfer-config"),
        V1,
    ]
    assert command.env == (
        ("PYTHONHASHSEED", "123"),
        ("HF_HOME", "/data"),
        ("POD_IP", "$(status.podIP)"),
        ("PROMETHEUS_MULTIPROC_DIR", "/tmp"),
        ("LMCACHE_USE_EXPERIMENTAL", "True"),
        ("VLLM_RPC_TIMEOUT", "1000000"),
        ("LMCACHE_LOG_LEVEL", "INFO"),
        ("LMCACHE_LOCAL_CPU", "True"),
        ("LMCACHE_MAX_LOCAL_CPU_SIZE", "20"),
        ("LMCACHE_LMCACHE_INSTANCE_ID", "$(metadata.name)"),
    )
    assert command.served_model_name == command.model == "mistralai/Mistral-7B-Instruct-v0.3"
    assert (command.replicas, command.workers, command.duplicates) == (1, 1, ())
    assert command.requested == RequestedConfig(
        buffer_text="20", buffer_gb=20.0, chunk_tokens=256, memory_limit_bytes=48 * 1024**3
    )


def test_the_embedded_tier_exceeds_the_pool() -> None:
    command = render_engine(load_values(CONFIGS / "embedded" / "values.yaml"))
    pool = int(flag_value(command.argv, "--num-gpu-blocks-override") or 0) * 128
    assert pool
    assert command.requested.buffer_gb is not None
    assert command.requested.buffer_gb * 1024**3 / 4096 > 2 * pool
    assert command.duplicates == ()


# ---- the traps


def test_missing_prefix_caching_is_switched_off_only_with_other_vllm_keys(render: Render) -> None:
    assert "--no-enable-prefix-caching" in render("vllmConfig: {maxModelLen: 1}").argv
    assert "--no-enable-prefix-caching" not in render("vllmConfig: {}").argv
    assert "PROMETHEUS_MULTIPROC_DIR" not in render("vllmConfig: {}").effective_env


def test_enable_pd_false_is_no_json(render: Render) -> None:
    command = render(lmcache(enablePD=False))
    assert command.connector is None
    assert str(command.connector_text).endswith('"lmcache_rpc_port": }}')


def test_the_last_connector_wins_and_it_is_the_charts(render: Render) -> None:
    own = 'vllmConfig: {extraArgs: [--kv-transfer-config, \'{"kv_connector": "Mine"}\']}\n'
    last = render(own + "lmcacheConfig: {enabled: true}").connector
    assert last is not None
    assert last["kv_connector"] == "LMCacheConnectorV1"
    assert render(own).connector == {"kv_connector": "Mine"}


@pytest.mark.parametrize(
    "flag", ['["--kv_transfer_config={}"]', '["--kv-transfer-config", "{}"]', '["--kv_transfer_config", "{}"]']
)
def test_a_flag_is_found_however_it_is_written(render: Render, flag: str) -> None:
    assert render(f"vllmConfig: {{extraArgs: {flag}}}").connector == {}


@pytest.mark.parametrize("text", ["[]", "5", "{", ""])
def test_a_connector_that_is_no_object_is_none(render: Render, text: str) -> None:
    command = render(f"vllmConfig: {{extraArgs: [--kv-transfer-config, {json.dumps(text)}]}}")
    assert command.connector is None


def test_the_users_env_loses_to_the_charts(render: Render) -> None:
    command = render(lmcache(cpuOffloadingBufferSize="20") + '\nenv: [{name: LMCACHE_MAX_LOCAL_CPU_SIZE, value: "7"}]')
    assert command.duplicates == ("LMCACHE_MAX_LOCAL_CPU_SIZE",)
    assert command.effective_env["LMCACHE_MAX_LOCAL_CPU_SIZE"] == "20"


def test_variables_from_configs_are_shadowed_by_env(render: Render) -> None:
    command = render(top='configs: {PYTHONHASHSEED: "0", A: b}')
    assert command.env_from == (("PYTHONHASHSEED", "0"), ("A", "b"))
    assert command.effective_env["PYTHONHASHSEED"] == "123"
    assert command.duplicates == ("PYTHONHASHSEED",)


@pytest.mark.parametrize(
    ("model", "replicas"),
    [("", 1), ("keda: {enabled: true}", 1), ("replicaCount: 3", 3), ("replicaCount: 0", 0), ("replicaCount:", 1)],
)
def test_replicas(tmp_path: Path, model: Any, replicas: Any) -> None:
    text = values_text(model).replace("    replicaCount: 1\n", "", "replicaCount" in model)
    assert render_engine(load_values(write(tmp_path, text))).replicas == replicas


def test_a_second_model_is_rendered_by_its_index(tmp_path: Path) -> None:
    second = "  - {name: n, repository: r, tag: t, modelURL: z, requestCPU: 1, requestMemory: 1Gi}\n"
    values = load_values(write(tmp_path, values_text("enabled: false") + second))
    assert render_engine(values, 1).argv[:3] == ("vllm", "serve", "z")
    assert len(values.serving_engine_spec.model_spec) == 2


def test_workers_are_counted_from_the_command(render: Render) -> None:
    assert render("vllmConfig: {tensorParallelSize: 2, extraArgs: [--pipeline-parallel-size, '3']}").workers == 6


def test_secrets_are_named_but_never_part_of_a_command(load: Load) -> None:
    values = load("hf_token: hf_abc", top="vllmApiKey: {secretName: s, secretKey: k}")
    assert secrets(values) == {"HF_TOKEN": "hf_abc"}
    assert "hf_abc" not in repr(render_engine(values))


# ---- what is asked


@pytest.mark.parametrize(
    ("model", "text", "number"),
    [
        (lmcache(cpuOffloadingBufferSize="0.5"), "0.5", 0.5),
        (lmcache(cpuOffloadingBufferSize=20), "20", 20.0),
        (lmcache(cpuOffloadingBufferSize="20Gi"), "20Gi", None),
        (lmcache(cpuOffloadingBufferSize=True), "True", None),
        (lmcache(cpuOffloadingBufferSize="inf"), "inf", None),
        (lmcache(cpuOffloadingBufferSize=[20]), "[20]", None),
        (lmcache(), None, None),
        (lmcache() + '\nenv: [{name: LMCACHE_MAX_LOCAL_CPU_SIZE, value: "7.5"}]', "7.5", 7.5),
    ],
)
def test_the_buffer_asked_for(render: Render, model: Any, text: str, number: Any) -> None:
    asked = render(model).requested
    assert (asked.buffer_text, asked.buffer_gb) == (text, number)


@pytest.mark.parametrize(("written", "tokens"), [(None, 256), ("512", 512), ("abc", None)])
def test_the_chunk_asked_for(render: Render, written: Any, tokens: Any) -> None:
    env = "" if written is None else f'\nenv: [{{name: LMCACHE_CHUNK_SIZE, value: "{written}"}}]'
    assert render(lmcache() + env).requested.chunk_tokens == tokens
