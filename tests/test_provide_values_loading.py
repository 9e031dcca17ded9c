"""A values file: what is refused with one sentence, and what its digest ignores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fixtures.core.errors import ConfigurationError
from fixtures.provide.values.go import go_int, go_text
from fixtures.provide.values.ignored import ignored
from fixtures.provide.values.loading import load_values
from fixtures.provide.values.render import render_engine
from fixtures.provide.values.sections import Values
from fixtures.provide.values.yaml import digest, read_yaml
from tests import values_files
from tests.values_files import MODEL, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fixtures.provide.values.engine_command import EngineCommand

    Load = Callable[..., Values]
    Render = Callable[..., EngineCommand]

load = values_files.load
render = values_files.render


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
    with pytest.raises(
        ConfigurationError, match=r"cannot be read \(it is not a file\); give a readable YAML file in UTF-8\.$"
    ):
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
