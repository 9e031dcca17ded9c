"""The values file as the chart reads it: compared, with what Helm renders (data/values/rendered.json)."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fixtures.core.errors import ConfigurationError
from fixtures.core.record import RequestedConfig
from fixtures.evidence.flags import flag_value
from fixtures.provide.process import local_command as local
from fixtures.provide.values.go import go_int, go_text
from fixtures.provide.values.ignored import ignored
from fixtures.provide.values.loading import load_values
from fixtures.provide.values.render import render_engine, secrets
from fixtures.provide.values.schema import Values
from fixtures.provide.values.tiers import cache_servers
from fixtures.provide.values.yaml import digest, read_yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.provide.values.engine_command import EngineCommand

    Load = Callable[..., Values]
    Render = Callable[..., EngineCommand]

DATA = Path(__file__).parent / "data" / "values"
CONFIGS = Path(__file__).parents[1] / "configs"
HELM = json.loads((DATA / "rendered.json").read_text(encoding="utf-8"))
V1 = '{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}'

MODEL = """\
name: m
repository: lmcache/vllm-openai
tag: latest
modelURL: x/y
replicaCount: 1
requestCPU: 1
requestMemory: 1Gi
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "values.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def values_text(model: str = "", top: str = "", tail: str = "") -> str:
    """A values file of one model: lines of the model, lines below servingEngineSpec, lines at the top level."""
    spec = "".join(f"    {line}\n" for line in (MODEL + model).splitlines())
    shared = "".join(f"  {line}\n" for line in top.splitlines())
    return f"servingEngineSpec:\n{shared}  modelSpec:\n  -\n{spec}{tail}"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def _load(model: str = "vllmConfig: {maxModelLen: 16384}", top: str = "", tail: str = "") -> Values:
        return load_values(write(tmp_path, values_text(model, top, tail)))

    return _load


@pytest.fixture
def render(load: Load) -> Render:
    return lambda *args, **kwargs: render_engine(load(*args, **kwargs))


def lmcache(**keys: Any) -> str:
    return f"vllmConfig: {{maxModelLen: 16384}}\nlmcacheConfig: {json.dumps({'enabled': True, **keys})}"


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


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("", 1024**3),
        ("limitMemory: 2G", 2 * 1000**3),
        ("resources: {requests: {memory: 1Gi}, limits: {memory: 512Mi}}", 512 * 1024**2),
        ("resources: {requests: {memory: 1.5Gi}}", 3 * 512 * 1024**2),
        ("resources: {requests: {cpu: 1}}", None),
        ("limitMemory: lots", None),
    ],
)
def test_the_memory_limit(render: Render, model: Any, size: Any) -> None:
    assert render(model).requested.memory_limit_bytes == size


# ---- error sentences


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "values.yaml is empty; write at least one key into it."),
        ("# nothing\n", "values.yaml is empty; write at least one key into it."),
        ("- a\n", "values.yaml contains a list, not a mapping; start it with a key such as 'name:'."),
        (
            "a: [1\n",
            "values.yaml, line 2, column 1: while parsing a flow sequence, did not find expected ',' or ']'; correct the YAML",
        ),
        ("a: 1\na: 2\n", "values.yaml, line 2, column 1: the key 'a' is given twice, keep one of the two; correct the"),
        ("foo: 1\n", "values.yaml contains no key of the chart; give a values file with engines under"),
        ("servingEngineSpec: 5\n", "values.yaml: servingEngineSpec holds the number 5; write a mapping."),
        (
            "servingEngineSpec:\n",
            "values.yaml: servingEngineSpec holds nothing (are the lines below it indented?); write",
        ),
        ("servingEngineSpec: {modelSpec: {a: 1}}", "servingEngineSpec.modelSpec holds a mapping; write a list."),
        ("servingEngineSpec: {modelSpec: [{name: [a]}]}", "modelSpec[0].name holds a list; write a single value."),
        (
            "servingEngineSpec: {modelspec: []}",
            "servingEngineSpec.modelspec is not a key of the chart; did you mean modelSpec?",
        ),
        (
            "servingEngineSpec: {env: [{name: A, value: 1}]}",
            "servingEngineSpec.env[0].value holds the number 1; write a text",
        ),
        ("servingEngineSpec: {env: [{value: a}]}", "servingEngineSpec.env[0].name is missing; add it."),
        (
            "servingEngineSpec: {zzz: 1}",
            "servingEngineSpec.zzz is not a key of the chart; remove it, or use one of configs,",
        ),
        (
            "servingEngineSpec: {}\nrouterspec: {}",
            "values.yaml: routerspec is not a key of the chart; did you mean routerSpec?",
        ),
        (
            "servingEngineSpec: {lmcacheConfig: {}}",
            "lmcacheConfig is not a key of the chart; it belongs under servingEngineSpec.modelSpec[*].",
        ),
    ],
)
def test_a_wrong_file_is_one_sentence_with_the_remedy(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        load_values(write(tmp_path, text))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("lmcacheConfig: {cpuOffloadBufferSize: 1}", "lmcacheConfig.cpuOffloadBufferSize is not a key of the chart; "
         "did you mean cpuOffloadingBufferSize?"),
        ("lmcacheConfig: {CPUOffloadingBufferSize: 1}", "did you mean cpuOffloadingBufferSize?"),
        ("lmcacheConfig: {enable: true}", "did you mean enabled?"),
        ("lmCacheConfig: {enabled: true}", "lmCacheConfig is not a key of the chart; did you mean lmcacheConfig?"),
        ("hfToken: a", "did you mean hf_token?"),
        ("lmcacheConfig: {hf_token: a}", "hf_token is not a key of the chart; it belongs under servingEngine"),
        ("lmcacheConfig: {hfToken: a}", "did you mean hf_token, under servingEngineSpec.modelSpec[*]?"),
        ("vllmConfig: {lmcacheConfig: {}}", "vllmConfig.lmcacheConfig is not a key of the chart; it belongs under "
         "servingEngineSpec.modelSpec[*]."),
        ("lmcacheConfig:\ncpuOffloadingBufferSize: 1", "modelSpec[0].cpuOffloadingBufferSize is not a key of the "
         "chart; it belongs under servingEngineSpec.modelSpec[*].lmcacheConfig\n"),
        ("vllmConfig: {gpuMemoryUtilisation: 1}", "did you mean gpuMemoryUtilization?"),
        ("lmcacheConfig: {enableController: 'true'}", "holds the text 'true'; write true or false without quotes."),
    ],
)  # fmt: skip
def test_a_misplaced_key_is_named_with_its_place(load: Load, model: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        load(model)
    assert sentence in str(error.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist; give the path"):
        load_values(tmp_path / "none.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_values(tmp_path)


def test_a_missing_model(load: Load) -> None:
    with pytest.raises(ConfigurationError, match=r"modelSpec\[1\] does not exist: the list has 1 models; add one"):
        render_engine(load(), 1)


def test_the_digest_ignores_comments_order_and_quotes(tmp_path: Path) -> None:
    first = write(tmp_path, "a: 'x'\nb: 1\n")
    one = digest(read_yaml(first))
    assert digest(read_yaml(write(tmp_path, "# c\nb: 1\na: x\n"))) == one
    assert digest(read_yaml(write(tmp_path, "b: '1'\na: x\n"))) != one


# ---- properties

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20)


@given(size=SCALARS, enabled=SCALARS, level=SCALARS)
def test_no_scalar_breaks_the_rendering(size: Any, enabled: Any, level: Any) -> None:
    spec = {**yaml.safe_load(MODEL), "vllmConfig": {"v0": 0}}
    spec["lmcacheConfig"] = {"enabled": enabled, "cpuOffloadingBufferSize": size, "logLevel": level}
    command = render_engine(Values.model_validate({"servingEngineSpec": {"modelSpec": [spec]}}))
    assert all(isinstance(word, str) for word in command.argv)
    assert all(isinstance(value, str) for _, value in command.env)
    assert (command.connector is not None) is bool(enabled)
    assert ("LMCACHE_LOCAL_CPU" in command.effective_env) is (go_int(size) > 0)


@given(st.integers(-(10**5), 10**5))
def test_a_whole_number_and_its_text_mean_the_same(number: Any) -> None:
    assert go_int(number) == go_int(str(number)) == go_int(f"{number}.0") == number
    assert go_text(number) == go_text(float(number)) == str(number)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_printed_without_loss(number: Any) -> None:
    assert float(go_text(number)) == number


# ---- cache servers and what is left out


def test_a_cache_server_among_the_extra_objects_is_found() -> None:
    (server,) = cache_servers(load_values(DATA / "multi-process.yaml"), release="rel")
    assert (server.name, server.service, server.port) == ("rel-kv-server", "rel-kv-server", 5555)
    assert (server.l1_size_gb, server.chunk_tokens, server.replicas) == (2.0, 256, 1)
    assert dict(server.env)["LMCACHE_TRACK_USAGE"] == "false"


def test_extra_objects_may_be_text(load: Load) -> None:
    objects = "extraObjects:\n- |\n  kind: Deployment\n  metadata: {name: '{{ .Release.Name }}-kv'}\n"
    objects += "  spec: {template: {spec: {containers: [{command: [lmcache], args: [server, --port, '1']}]}}}\n"
    (server,) = cache_servers(load(tail=objects))
    assert (server.name, server.service, server.port, server.l1_size_gb) == ("vllm-kv", None, 1, None)
    assert cache_servers(load(tail="extraObjects: [5, {kind: ConfigMap}]\n")) == ()


@pytest.mark.parametrize(
    "container",
    ["env: [null]", "env: x", "ports: [null, {name: null}, {name: [a]}]", "resources: null", "args: [server, null]"],
)
@pytest.mark.parametrize(
    "service",
    ["spec: null", "spec: {selector: x}", "spec: {selector: {a: b}, ports: [null, {port: null, targetPort: [a]}]}"],
)
def test_nulls_in_extra_objects_are_read_as_nothing(load: Load, container: Any, service: Any) -> None:
    text = (
        f"extraObjects:\n- {{kind: Service, {service}}}\n- kind: Deployment\n  metadata: null\n  spec:\n    replicas: null\n"
        "    template:\n      metadata: {labels: {a: b}}\n      spec:\n        containers:\n        - null\n        - text\n"
        f"        - {{command: [lmcache, server], {container}}}\n"
        "- {kind: Deployment, spec: {template: {spec: {containers: null}}}}\n- null\n"
    )
    found = cache_servers(load(tail=text))
    assert [(one.service, one.port, one.env) for one in found] == [(None, 5555, ())]


LAUGH = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LAUGH, "contains more than 50000 values after expansion of its aliases"),
        ("x: [" + "1," * 110_000 + "]", "contains more than 50000 values; write"),
        ("[" * 200 + "]" * 200, "is nested"),
        ("- " * 5000, "is nested"),
        ("a: &a [*a]", "contains an anchor that refers to itself"),
        ("a: b: c", "is not YAML; correct it, or write a mapping"),
    ],
)
def test_an_extra_object_that_is_no_text_of_yaml_says_why(load: Load, text: str, says: str) -> None:
    values = load(tail=f"extraObjects: [{json.dumps(text)}]\n" if text.count(",") < 1000 else "")
    values.extra_objects = [text]
    began = time.process_time()
    with pytest.raises(ConfigurationError, match=rf"extraObjects\[0\] is a string that {says}"):
        cache_servers(values)
    assert time.process_time() - began < 1.0


def test_what_a_local_process_leaves_out_is_listed_by_path(load: Load) -> None:
    assert ignored(load("requestGPU: 1\npvcStorage: 50Gi\naffinity: {}", tail="routerSpec: {tag: x}\n")) == [
        "servingEngineSpec.modelSpec[0].requestGPU: a local process is neither limited nor given a share",
        "servingEngineSpec.modelSpec[0].repository: no image is pulled; a local Python environment takes its place",
        "servingEngineSpec.modelSpec[0].tag: no image is pulled; a local Python environment takes its place",
        "servingEngineSpec.modelSpec[0].requestCPU: a local process is neither limited nor given a share",
        "servingEngineSpec.modelSpec[0].requestMemory: a local process is neither limited nor given a share",
        "servingEngineSpec.modelSpec[0].pvcStorage: no volume is mounted; the Hugging Face cache of the user is used",
        "routerSpec.tag: no image is pulled; a local Python environment takes its place",
    ]


# ---- local processes

PYTHON = Path("/env/bin/python")


def localise(command: EngineCommand, **changes: Any) -> local.LocalCommand:
    given = {"device": "cpu", "cache_server": ("127.0.0.1", 6000), "model_dir": Path("/m"), **changes}
    return local.to_local_command(command, python=PYTHON, host="127.0.0.1", port=8100, prom_dir=Path("/p"), **given)


def test_on_a_cpu_the_multi_process_connector_takes_over(render: Render) -> None:
    done = localise(render(lmcache(cpuOffloadingBufferSize="1", kvRole="kv_both")))
    head = "/env/bin/python -m vllm.entrypoints.openai.api_server --model /m --served-model-name x/y"
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


def test_a_model_made_here_brings_the_options_that_it_needs(render: Render) -> None:
    flags = {"--tokenizer-mode": ("mistral",), "--lora-modules": ("a=/m/a", "b=/m/b")}
    done = localise(render(lmcache()), model_flags=flags)
    assert list(done.argv[-5:]) == ["--tokenizer-mode", "mistral", "--lora-modules", "a=/m/a", "b=/m/b"]
    assert {"tokenizer-mode", "lora-modules"} <= {change.what for change in done.substitutions}
    asked = render("vllmConfig: {extraArgs: [--tokenizer-mode, auto]}")
    assert localise(asked, model_flags=flags).argv.count("--tokenizer-mode") == 1


def test_the_way_that_an_engine_moves_its_kv_is_offered_by_its_cache_server(render: Render) -> None:
    asked = {"name": "LMCACHE_MP_TRANSFER_MODE", "value": "lmcache_driven"}
    tier = local.in_process_tier(render(f"{lmcache()}\nenv: {json.dumps([asked])}"))
    assert tier.argv[-2:] == ("--supported-transfer-mode", "lmcache_driven")
    assert "--supported-transfer-mode" not in local.in_process_tier(render(lmcache())).argv


def test_on_a_gpu_the_connector_stays_word_for_word(render: Render) -> None:
    done = localise(render(lmcache()), device="cuda", cache_server=None)
    assert done.argv[-2:] == ("--kv-transfer-config", V1)
    assert "connector" not in {change.what for change in done.substitutions}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_explicit_multi_process_connector_gets_the_local_address_only(device: Any) -> None:
    command = render_engine(load_values(DATA / "multi-process.yaml"))
    done = localise(command, device=device)
    used = json.loads(done.argv[-1])
    assert used["kv_connector_extra_config"] == {
        "lmcache.mp.host": "tcp://127.0.0.1",
        "lmcache.mp.port": 6000,
        "lmcache.mp.mq_timeout": 5,
        "lmcache.mp.heartbeat_interval": 2,
    }
    assert done.argv.count("--served-model-name") == 1
    assert not local.needs_local_cache_server(command)


@pytest.mark.parametrize(("device", "first"), [("cpu", "LMCacheMPConnector"), ("cuda", "LMCacheConnectorV1")])
def test_members_of_a_multi_connector_get_the_local_address(render: Render, device: Any, first: Any) -> None:
    several = {"lmcache.mp.server_urls": "kv-a:5555,kv-b:5555"}
    served = {"kv_connector": "LMCacheMPConnector", "kv_connector_extra_config": several}
    members = [{"kv_connector": "NixlConnector"}, json.loads(V1), served]
    asked = {"kv_connector": "MultiConnector", "kv_connector_extra_config": {"connectors": members}}
    command = render(f"vllmConfig: {{v0: 0, extraArgs: [--kv-transfer-config, '{json.dumps(asked)}']}}\n")
    used = json.loads(localise(command, device=device).argv[-1])
    nixl, *rest = used["kv_connector_extra_config"]["connectors"]
    assert (used["kv_connector"], nixl) == ("MultiConnector", members[0])
    assert [one["kv_connector"] for one in rest] == [first, "LMCacheMPConnector"]
    assert rest[-1]["kv_connector_extra_config"] == {"lmcache.mp.host": "tcp://127.0.0.1", "lmcache.mp.port": 6000}
    assert local.needs_local_cache_server(command)


def test_a_connector_that_is_not_in_effect_needs_no_cache_server(render: Render) -> None:
    command = render(lmcache().replace("{", "{extraArgs: [--kv-offloading-size, '1'], ", 1))
    assert command.connector is not None
    assert command.connector["kv_connector"] == "LMCacheConnectorV1"
    assert not local.needs_local_cache_server(command), "vLLM's own connector takes its place"
    (change,) = [one for one in localise(command, cache_server=None).substitutions if one.what == "connector"]
    assert json.loads(change.used)["kv_connector"] == "LMCacheConnectorV1", "vLLM itself has to override it"
    on_gpu = localise(command, cache_server=None, device="cuda")
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
    assert local.host_copy(command, "cpu") == (local.HOST_TIER,)
    assert (local.HOST_TIER / f"{local.HOST_MODULE}.py").is_file()
    assert local.host_copy(command, "cuda") == ()
    used = json.loads(localise(command, cache_server=None, device="cpu").argv[-1])
    spec = {"spec_name": "HostCopySpec", "spec_module_path": local.HOST_MODULE}
    assert used == {
        "kv_connector": "OffloadingConnector",
        "kv_role": "kv_both",
        "kv_connector_extra_config": spec | extra,
    }
    on_gpu = localise(command, cache_server=None, device="cuda")
    assert "connector" not in {change.what for change in on_gpu.substitutions}


def test_the_simple_native_connector_is_refused_on_a_cpu(render: Render) -> None:
    text = '{"kv_connector":"SimpleCPUOffloadConnector","kv_role":"kv_both"}'
    command = render(f"vllmConfig: {{extraArgs: [--kv-transfer-config, '{text}']}}")
    with pytest.raises(ConfigurationError, match="SimpleCPUOffloadConnector, which copies with CUDA; use --gpu"):
        localise(command, cache_server=None, device="cpu")


def test_a_multi_process_connector_without_a_server_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="add one with 'lmcache server' to extraObjects"):
        localise(render_engine(load_values(DATA / "multi-process.yaml")), cache_server=None)


@pytest.mark.parametrize("model", ["vllmConfig: {v0: 0}", lmcache(enablePD=False), lmcache(kvRole='"')])
def test_without_a_connector_that_parses_nothing_is_substituted(render: Render, model: Any) -> None:
    command = render(model)
    assert not local.needs_local_cache_server(command)
    assert localise(command, cache_server=None).argv[11:] == command.argv[7:]


def test_references_are_resolved_or_left_out_and_declared(render: Render) -> None:
    env = """
env:
- {name: TOKEN, valueFrom: {secretKeyRef: {name: s, key: k}}}
- {name: OTHER, valueFrom: {configMapKeyRef: {name: c, key: k}}}
- {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: URL, value: "http://$(POD_IP):1/$$(POD_IP)/$(UNKNOWN)"}
- {name: HF_HOME, value: /models}
"""
    done = localise(
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


def test_the_charts_own_servers_and_templates_are_left_out(render: Render) -> None:
    done = localise(render(lmcache() + "\nchatTemplate: t.jinja", tail="cacheserverSpec: {enabled: true}\n"))
    assert "LMCACHE_REMOTE_URL" not in done.env
    assert "--chat-template" not in done.argv
    assert {"chat template", "env LMCACHE_REMOTE_URL"} <= {change.what for change in done.substitutions}


def test_the_values_own_model_and_name_are_kept(render: Render) -> None:
    done = localise(render("vllmConfig: {extraArgs: [--served-model-name=mine, --port, '1']}"), model_dir=None)
    assert done.argv[3:5] == ("--model", "x/y")
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
    tier = local.in_process_tier(render(model))
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
        local.in_process_tier(render(model))
    path.write_text("chunk_size: 64\n")
    assert "64" in local.in_process_tier(render(model)).argv


def test_a_server_of_the_values_keeps_its_flags_but_the_addresses() -> None:
    (server,) = cache_servers(load_values(DATA / "multi-process.yaml"))
    argv = local.local_cache_server(server, python=PYTHON, host="127.0.0.1", port=1, http_port=2, device="cuda")
    assert argv == tuple(
        shlex.split(
            "/env/bin/lmcache server --host 127.0.0.1 --port 1 --l1-size-gb 2 --eviction-policy LRU --chunk-size 256 "
            "--supported-transfer-mode engine_driven --http-host 127.0.0.1 --http-port 2"
        )
    )
