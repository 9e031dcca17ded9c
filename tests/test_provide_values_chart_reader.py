"""The keys of a chart at hand are those of its own templates."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.provide.values.chart_reader import of_chart
from fixtures.provide.values.keys import ROWS, VERSIONS, order_of, rows
from tests import values_refused
from tests.values_refused import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.provide.values.sections import Values

    Load = Callable[..., Values]

load = values_refused.load


CHARTS = os.environ.get("KV_OFFLOAD_TEST_CHARTS")


needs_charts = pytest.mark.skipif(
    CHARTS is None, reason="set KV_OFFLOAD_TEST_CHARTS to a folder with one folder of the chart per version"
)


# ---- a chart at hand

TEMPLATE = """\
{{- define "one.probe" }}{{ .seconds | default 3 }}{{- end }}
{{- range $modelSpec := .Values.servingEngineSpec.modelSpec }}
name: {{ $modelSpec.name }}
{{- with $modelSpec.vllmConfig }}{{ if hasKey . "myOwn" }}{{ .myOwn | quote }}{{ end }}{{ end }}
{{- include "one.probe" $modelSpec.probe }}
{{- end }}
{{- with .Values.servingEngineSpec }}{{ toYaml .free | nindent 2 }}{{ end }}
{{- range $key, $value := .Values.map }}{{ $key }}{{ $value.inner }}{{ end }}
{{- $x := default .Values.first (index .Values "second") }}{{ $x.third }}
"""


@pytest.fixture
def fork(tmp_path: Path) -> Path:
    folder = tmp_path / "fork" / "helm"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("name: vllm-stack\nversion: 7.0.0\ndependencies: [{name: dep}]\n")
    (folder / "values.yaml").write_text("servingEngineSpec: {documented: 1}\n")
    (folder / "values.schema.json").write_text(json.dumps({"properties": {"routerSpec": {"type": "object"}}}))
    (folder / "templates" / "all.yaml").write_text(TEMPLATE)
    return folder


def test_a_chart_at_hand_is_read_by_its_own_templates(fork: Path) -> None:
    paths = {"/".join(path) for path in of_chart(fork).top.paths()}
    assert paths == {
        *("servingEngineSpec", "servingEngineSpec/documented", "servingEngineSpec/free", "servingEngineSpec/free/**"),
        *("servingEngineSpec/modelSpec", "servingEngineSpec/modelSpec/*", "servingEngineSpec/modelSpec/*/name"),
        *("servingEngineSpec/modelSpec/*/vllmConfig", "servingEngineSpec/modelSpec/*/vllmConfig/myOwn"),
        *("servingEngineSpec/modelSpec/*/probe", "servingEngineSpec/modelSpec/*/probe/seconds"),
        *("map", "map/*", "map/*/inner", "first", "first/third", "second", "second/third"),
        *("routerSpec", "routerSpec/**", "dep", "dep/**", "global", "global/**"),
    }


def test_a_chart_at_hand_decides(load: Load, fork: Path) -> None:
    keys = of_chart(fork.parent)
    load({"servingEngineSpec": {"modelSpec": [{"name": "m", "vllmConfig": {"myOwn": 1}}], "free": {"a": 1}}}, keys=keys)
    message = refusal(load, {"servingEngineSpec": {"modelSpec": [{"name": "m", "tag": "t"}]}}, keys=keys)
    assert "modelSpec[0].tag is not a key of the chart" in message


def test_a_packed_chart_is_read_alike(fork: Path, tmp_path: Path) -> None:
    packed = tmp_path / "vllm-stack-7.0.0.tgz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(fork, "vllm-stack")
    assert list(of_chart(packed).top.paths()) == list(of_chart(fork).top.paths())
    assert of_chart(packed).version == "7.0.0"


@pytest.mark.parametrize("content", [None, b"no archive"])
def test_what_is_no_chart_is_one_sentence(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "x.tgz"
    if content:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"--chart .*x.tgz"):
        of_chart(path)


@pytest.mark.parametrize("name", ["Chart.yaml", "values.yaml", "values.schema.json"])
def test_a_chart_with_a_broken_file_is_one_sentence(fork: Path, name: str) -> None:
    (fork / name).write_text("a: [\n")
    with pytest.raises(ConfigurationError, match=f"its {name} cannot be read") as caught:
        of_chart(fork)
    assert "\n" not in str(caught.value)


@needs_charts
def test_the_table_says_what_the_charts_say() -> None:
    folders = sorted(Path(str(CHARTS)).iterdir(), key=order_of)
    assert [folder.name for folder in folders] == list(VERSIONS)
    assert rows({folder.name: of_chart(folder).top for folder in folders}) == "\n".join(ROWS)
