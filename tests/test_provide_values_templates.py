"""The engine's command as Helm renders it from a chart at hand, and that the rules of ``values`` say the same."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.evidence.manifest import pod_templates, references, unresolved
from fixtures.evidence.pods.containers import role_of
from fixtures.provide.kube.charts import chart_of
from fixtures.provide.kube.helm import Helm, HelmError
from fixtures.provide.process.commands import commands_of
from fixtures.provide.target import Target
from fixtures.provide.values.config import available, load_config
from fixtures.provide.values.key_check import check
from fixtures.provide.values.keys import VERSIONS, of_version
from fixtures.provide.values.layers import Layer
from fixtures.provide.values.loading import values_of
from fixtures.provide.values.render import render_engine
from fixtures.provide.values.templates import RULES_SINCE, engine_of, rendered
from fixtures.provide.values.tiers import stores_among
from fixtures.provide.values.yaml import load_all, read_yaml
from tests.helm_binaries import helm as binary

if TYPE_CHECKING:
    from fixtures.provide.values.engine_command import EngineCommand

CONFIGS = Path(__file__).parents[1] / "configs"
RECORDED = json.loads((Path(__file__).parent / "data/values/rendered.json").read_text(encoding="utf-8"))["cases"]
CHARTS = os.environ.get("KV_OFFLOAD_TEST_CHARTS")
OURS = {name: load_config(name, CONFIGS).values.data for name in available(CONFIGS)}
CASES: dict[str, dict[str, Any]] = OURS | {
    name: load_all(case["values"])[0]
    for name, case in RECORDED.items()
    if "helm" not in case and not case.get("refused_here")
}


def deployment(**container: Any) -> list[dict[str, Any]]:
    inner = {"name": "vllm", "command": ["vllm", "serve", "x/y", "--port", "8000"], **container}
    return [
        {
            "kind": "Deployment",
            "metadata": {"name": "vllm-m-deployment-vllm"},
            "spec": {"replicas": 2, "template": {"spec": {"containers": [inner]}}},
        },
        {"kind": "ConfigMap", "metadata": {"name": "vllm-configs"}, "data": {"A": "1"}},
    ]


def of(objects: list[dict[str, Any]]) -> EngineCommand:
    spec = {"name": "m", "lmcacheConfig": {"enabled": True, "cpuOffloadingBufferSize": "5"}}
    return engine_of(objects, values_of({"servingEngineSpec": {"modelSpec": [spec]}}))


def test_the_command_is_the_deployments_own() -> None:
    found = of(
        deployment(
            args=["--revision", 7],
            env=[
                {"name": "A", "value": "b"},
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "EMPTY"},
            ],
            envFrom=[{"configMapRef": {"name": "vllm-configs"}}, {"secretRef": {"name": "s"}}],
        )
    )
    assert found.argv == ("vllm", "serve", "x/y", "--port", "8000", "--revision", "7")
    assert found.env == (("A", "b"), ("POD_IP", "$(status.podIP)"), ("T", "$(secretKeyRef:s/k)"), ("EMPTY", ""))
    assert found.env_from == (("A", "1"),)
    assert (found.model, found.replicas, found.requested.buffer_gb) == ("x/y", 2, 5.0)


@pytest.mark.parametrize(
    ("objects", "sentence"),
    [
        ([], "renders no Deployment vllm-m-deployment-vllm (it renders none), and a local stack"),
        ([{"kind": "RayCluster", "metadata": {"name": "r"}}], r"it renders RayCluster r"),
        (deployment(command=["bash", "-c", "vllm serve x"]), "starts the engine by 'bash -c vllm serve x'"),
    ],
)
def test_what_is_no_engine_of_this_kind_is_one_sentence(objects: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        of(objects)
    assert sentence in str(error.value)


def test_without_a_chart_the_rules_serve(tmp_path: Path) -> None:
    config = load_config("embedded", CONFIGS)
    assert rendered(config, Target(), tmp_path) == (config, None)
    assert rendered(config, Target(chart_version="0.1.12"), tmp_path) == (config, None)
    same, how = rendered(config, Target(chart_version="0.1.5"), tmp_path)
    assert same == config
    assert "but 0.1.5 has other rules: give the chart itself with --chart PATH" in str(how)


def test_without_a_helm_the_rules_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("embedded", CONFIGS)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("KV_OFFLOAD_HELM", raising=False)
    same, how = rendered(config, Target(chart=str(tmp_path)), tmp_path)
    assert same == config
    assert "Helm was not found" in str(how)
    with pytest.raises(ConfigurationError, match="command not found"):
        rendered(config, Target(chart=str(tmp_path), helm="nowhere"), tmp_path)


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm((str(binary(3)),), None, tmp_path_factory.mktemp("helm"))


CHANGED = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: "{{ .Release.Name }}-{{ (index .Values.servingEngineSpec.modelSpec 0).name }}-deployment-vllm"}
spec:
  template:
    spec:
      containers:
      - name: vllm
        command: [vllm, serve, {{ (index .Values.servingEngineSpec.modelSpec 0).modelURL }}, --of-this-chart, --port, "1"]
"""


def test_a_local_stack_runs_what_a_changed_chart_renders(tmp_path: Path, helm: Helm) -> None:
    folder = tmp_path / "chart"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: vllm-stack\nversion: 7.0.0\n")
    (folder / "templates" / "engine.yaml").write_text(CHANGED)
    config = load_config("embedded", CONFIGS)
    target = Target(chart=str(folder), helm=str(helm.command[0]))
    found, how = rendered(config, target, tmp_path / "run")
    command, server = commands_of(found)
    assert "--of-this-chart" in command.argv
    assert server is None
    assert "is what Helm v3" in str(how)
    (folder / "templates" / "engine.yaml").write_text('{{ fail "no" }}')
    with pytest.raises(ConfigurationError, match="does not render with --chart"):
        rendered(config, target, tmp_path / "run")


@pytest.mark.skipif(
    CHARTS is None, reason="set KV_OFFLOAD_TEST_CHARTS to a folder with one folder of the chart per version"
)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_rules_say_what_the_chart_renders(tmp_path: Path, helm: Helm, version: str) -> None:
    at = chart_of(str(Path(str(CHARTS)) / version), None, tmp_path)
    same = 0
    for name, data in CASES.items():
        if check(Layer(name, data), of_version(version)).problems:
            continue  # refused where this version is named
        values = values_of(json.loads(json.dumps(data)))
        try:
            objects = helm.render_values(at, "vllm", "default", data)
        except HelmError:
            assert VERSIONS.index(version) < VERSIONS.index(RULES_SINCE), name
            continue
        theirs = engine_of(objects, values)
        if VERSIONS.index(version) >= VERSIONS.index(RULES_SINCE):
            mine = render_engine(values)
            assert (mine.argv, mine.env, dict(mine.env_from)) == (theirs.argv, theirs.env, dict(theirs.env_from)), name
            assert mine.replicas == theirs.replicas, name
        same += 1
    assert same > 20


@pytest.mark.skipif(
    CHARTS is None, reason="set KV_OFFLOAD_TEST_CHARTS to a folder with one folder of the chart per version"
)
@pytest.mark.parametrize("version", VERSIONS[VERSIONS.index("0.1.0") :])
def test_the_cache_server_of_the_chart_is_what_its_engines_name(tmp_path: Path, helm: Helm, version: str) -> None:
    at = chart_of(str(Path(str(CHARTS)) / version), None, tmp_path)
    data = read_yaml(CONFIGS / "cpu-offload/values.yaml")
    server: dict[str, Any] = {"servicePort": 81, "containerPort": 8080, "serde": "naive"}
    if VERSIONS.index(version) < VERSIONS.index("0.1.11"):  # before, the section alone switches it on
        labels = {"environment": "cacheserver", "release": "cacheserver"}
        server |= {"repository": "lmcache/vllm-openai", "tag": "x", "labels": labels}
    else:
        server |= {"enabled": True, "image": {"repository": "lmcache/vllm-openai", "tag": "x"}}
    data["cacheserverSpec"] = server
    asked = check(Layer("values", {"cacheserverSpec": server}), of_version(version)).problems
    assert not [one for one in asked if "cacheserverSpec" in str(one)]
    objects = helm.render_values(at, "vllm", "default", data)
    assert unresolved(objects) == []
    assert {one.name for one in references(objects) if one.kind == "Service"} == {"vllm-cache-server-service"}
    roles = {role_of(template) for _, template in pod_templates(objects)}
    assert roles == {"engine", "router", "cache server"}
    (store,) = stores_among(objects)
    assert (store.program, store.service, store.port) == ("lmcache_server", "vllm-cache-server-service", 81)
    assert store.lmcache == ("0.0.0.0", "8080")
