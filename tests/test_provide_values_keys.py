"""The keys of values against those of the chart: by version, in every section, in every layer, all mistakes at once."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fixtures.core.errors import ConfigurationError
from fixtures.provide.values.chart_reader import of_chart
from fixtures.provide.values.ignored import ignored
from fixtures.provide.values.keys import NEWEST, ROWS, VERSIONS, of_version, order_of, rows, since
from fixtures.provide.values.layers import merged, parse_set
from fixtures.provide.values.loading import load_values
from fixtures.provide.values.render import render_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.provide.values.schema import Values

    Load = Callable[..., Values]

MODEL: dict[str, Any] = {
    "name": "m",
    "repository": "r",
    "tag": "t",
    "modelURL": "x/y",
    "replicaCount": 1,
    "requestCPU": 1,
    "requestMemory": "1Gi",
}
CHARTS = os.environ.get("KV_OFFLOAD_TEST_CHARTS")
needs_charts = pytest.mark.skipif(
    CHARTS is None, reason="set KV_OFFLOAD_TEST_CHARTS to a folder with one folder of the chart per version"
)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def _load(
        over: dict[str, Any] | str, *, version: str | None = None, sets: tuple[str, ...] = (), **more: Any
    ) -> Any:
        path = tmp_path / "values.yaml"
        text = over if isinstance(over, str) else yaml.safe_dump(over)
        path.write_text(text, encoding="utf-8")
        keys = more.pop("keys", of_version(version))
        return load_values(path, sets=sets, keys=keys, **more)

    return _load


def values(model: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    engines = {"modelSpec": [MODEL | (model or {})]} | top.pop("servingEngineSpec", {})
    return {"servingEngineSpec": engines, **top}


def refusal(load: Load, over: Any, **more: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        load(over, **more)
    return str(error.value)


# ---- by version


@pytest.mark.parametrize(
    ("over", "legal", "illegal", "remedy"),
    [
        (values(cacheserverSpec={"repository": "r"}), "0.1.10", "0.1.11", "use cacheserverSpec.image.repository."),
        (values(cacheserverSpec={"tag": "t"}), "0.1.0", "0.1.12", "use cacheserverSpec.image.tag."),
        (
            values(cacheserverSpec={"image": {"repository": "r"}}),
            "0.1.11",
            "0.1.10",
            "remove it, or name another chart",
        ),
        (
            values(servingEngineSpec={"maxUnavailablePodDisruptionBudget": 1}),
            "0.0.2",
            "0.1.11",
            "use servingEngineSpec.modelSpec[*].pdb.maxUnavailable.",
        ),
        (values(servingEngineSpec={"env": []}), "0.1.10", "0.1.9", "it belongs under servingEngineSpec.modelSpec[*]."),
        (values(sharedStorage={"enabled": True}), "0.1.5", "0.1.6", "use sharedPvcStorage."),
    ],
)
def test_a_key_is_legal_for_its_versions(load: Load, over: Any, legal: Any, illegal: Any, remedy: str) -> None:
    assert load(over, version=legal).warnings == ()
    message = refusal(load, over, version=illegal)
    assert f"but chart {illegal} does not read it; {remedy}" in message


def test_without_a_version_an_older_key_passes_with_a_warning(load: Load) -> None:
    found = load(
        values(cacheserverSpec={"repository": "r"}, servingEngineSpec={"maxUnavailablePodDisruptionBudget": 1})
    )
    first, second = sorted(found.warnings)
    assert first.endswith(
        f"cacheserverSpec.repository is a key of chart 0.1.0 to 0.1.10, but {NEWEST} does not read it; use "
        "cacheserverSpec.image.repository"
    )
    assert "servingEngineSpec.maxUnavailablePodDisruptionBudget is a key of chart 0.0.2 to 0.1.10" in second
    assert load(values()).warnings == ()


def test_a_mistake_below_an_older_key_is_refused(load: Load) -> None:
    assert "sharedStorage.nfs.serverr is not a key" in refusal(load, values(sharedStorage={"nfs": {"serverr": "x"}}))


def test_an_unknown_version_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=f"give a version from 0.0.2 to {NEWEST}, or the chart itself"):
        of_version("9.9.9")
    assert of_version("v0.1.3").version == of_version("vllm-stack-0.1.3").version == "0.1.3"


def test_the_rows_of_the_table_are_those_that_its_versions_print() -> None:
    assert rows({version: of_version(version).top for version in VERSIONS}) == "\n".join(ROWS)


def test_the_table_is_in_order() -> None:
    rows = ROWS
    assert rows == sorted(rows)
    assert all(versions for versions in since().values())
    assert NEWEST in VERSIONS


# ---- every section

TYPOS = [
    ({"routerSpec": {"routingLogc": "session"}}, "routerSpec.routingLogc", "did you mean routingLogic?"),
    ({"routerSpec": {"ingress": {"hosts": [{"hots": "a"}]}}}, "routerSpec.ingress.hosts[0].hots", "did you mean host?"),
    ({"routerSpec": {"resources": {"limit": {}}}}, "routerSpec.resources.limit", "did you mean limits?"),
    ({"routerSpec": {"nodeSelector": {}}}, "routerSpec.nodeSelector", "use routerSpec.nodeSelectorTerms."),
    ({"routerSpec": {"env": [{"nam": "A"}]}}, "routerSpec.env[0].nam", "did you mean name?"),
    ({"routerSpec": {"securityContext": {"fsGrup": 1}}}, "routerSpec.securityContext.fsGrup", "did you mean fsGroup?"),
    (
        {"routerSpec": {"containerSecurityContext": {"capabilities": {"dorp": ["ALL"]}}}},
        "routerSpec.containerSecurityContext.capabilities.dorp",
        "did you mean drop?",
    ),
    (
        {"routerSpec": {"serviceMonitor": {"metricRelabelings": [{"targetlabel": "a"}]}}},
        "routerSpec.serviceMonitor.metricRelabelings[0].targetlabel",
        "did you mean targetLabel?",
    ),
    ({"extraObjects": [{"apiversion": "v1", "kind": "A"}]}, "extraObjects[0].apiversion", "did you mean apiVersion?"),
    ({"extraObjects": ["a", {"kid": "A"}]}, "extraObjects[1].kid", "did you mean kind?"),
    ({"cacheserverSpec": {"enable": True}}, "cacheserverSpec.enable", "did you mean enabled?"),
    ({"cacheserverSpec": {"image": {"tagg": "1"}}}, "cacheserverSpec.image.tagg", "did you mean tag?"),
    ({"sharedPvcStorage": {"storageclass": "a"}}, "sharedPvcStorage.storageclass", "did you mean storageClass?"),
    ({"sharedPvcStorage": {"nfs": {"sever": "a"}}}, "sharedPvcStorage.nfs.sever", "did you mean server?"),
    ({"loraController": {"image": {"tags": "a"}}}, "loraController.image.tags", "did you mean tag?"),
    ({"loraAdapters": [{"adapterSource": {"typ": "a"}}]}, "loraAdapters[0].adapterSource.typ", "did you mean type?"),
    ({"grafanaDashboards": {"enable": True}}, "grafanaDashboards.enable", "did you mean enabled?"),
    ({"routerspec": {}}, "routerspec", "did you mean routerSpec?"),
    ({"servingEngineSpecs": {}}, "servingEngineSpecs", "did you mean servingEngineSpec?"),
    ({"modelSpec": []}, "modelSpec", "it belongs under servingEngineSpec."),
    ({"lmcacheConfig": {}}, "lmcacheConfig", "it belongs under servingEngineSpec.modelSpec[*]."),
]
SHARED = [
    (
        {"startupProbe": {"initialDelaySecond": 1}},
        "startupProbe.initialDelaySecond",
        "did you mean initialDelaySeconds?",
    ),
    ({"livenessProbe": {"httpGet": {"paht": "/"}}}, "livenessProbe.httpGet.paht", "did you mean path?"),
    ({"nodeSelector": {}}, "nodeSelector", "use servingEngineSpec.modelSpec[*].nodeSelectorTerms."),
    ({"strategy": {"rollingUpdate": {"maxSurg": 1}}}, "strategy.rollingUpdate.maxSurg", "did you mean maxSurge?"),
    ({"tolerations": [{"operater": "Exists"}]}, "tolerations[0].operater", "did you mean operator?"),
    ({"replicaCount": 2}, "replicaCount", "it belongs under servingEngineSpec.modelSpec[*]."),
    ({"securityContext": {"runAsUsr": 1}}, "securityContext.runAsUsr", "did you mean runAsUser?"),
    (
        {"containerSecurityContext": {"runAsNonRooot": True}},
        "containerSecurityContext.runAsNonRooot",
        "did you mean runAsNonRoot?",
    ),
    (
        {"serviceMonitor": {"relabelings": [{"action": "keep"}, {"sourcelabels": ["a"]}]}},
        "serviceMonitor.relabelings[1].sourcelabels",
        "did you mean sourceLabels?",
    ),
]
IN_MODEL = [
    ({"startupProbe": {}}, "startupProbe", "it belongs under servingEngineSpec."),
    ({"nodeSelector": {}}, "nodeSelector", "use servingEngineSpec.modelSpec[*].nodeSelectorTerms."),
    ({"extraArgs": []}, "extraArgs", "it belongs under servingEngineSpec.modelSpec[*].vllmConfig."),
    ({"vllmConfig": {"enforceEager": True}}, "vllmConfig.enforceEager", "in extraArgs, such as --enforce-eager."),
    ({"vllmConfig": {"tensorParalelSize": 2}}, "vllmConfig.tensorParalelSize", "did you mean tensorParallelSize?"),
    ({"lmcacheConfig": {"chunkSize": 2}}, "lmcacheConfig.chunkSize", "in env, such as LMCACHE_CHUNK_SIZE."),
    ({"extraVolumes": [{"nme": "a", "emptyDir": {}}]}, "extraVolumes[0].nme", "did you mean name?"),
    (
        {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operater": "In"}]}]},
        "nodeSelectorTerms[0].matchExpressions[0].operater",
        "did you mean operator?",
    ),
    ({"keda": {"triggers": [{"typ": "prometheus"}]}}, "keda.triggers[0].typ", "did you mean type?"),
    ({"keda": {"minReplicas": 2}}, "keda.minReplicas", "did you mean minReplicaCount?"),
    ({"initContainer": {"img": "a"}}, "initContainer.img", "did you mean image?"),
    ({"pdb": {"minAvail": 1}}, "pdb.minAvail", "did you mean minAvailable?"),
    ({"resources": {"request": {}}}, "resources.request", "did you mean requests?"),
    ({"raySpec": {"headNod": {}}}, "raySpec.headNod", "did you mean headNode?"),
    ({"hf_token": {"secretNam": "a"}}, "hf_token.secretNam", "did you mean secretName?"),
    (
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"nam": "s"}}}]},
        "env[0].valueFrom.secretKeyRef.nam",
        "did you",
    ),
]
EVERY = (
    TYPOS
    + [({"servingEngineSpec": over}, f"servingEngineSpec.{path}", remedy) for over, path, remedy in SHARED]
    + [({"model": over}, f"servingEngineSpec.modelSpec[0].{path}", remedy) for over, path, remedy in IN_MODEL]
)


@pytest.mark.parametrize(("over", "path", "remedy"), EVERY, ids=[case[1] for case in EVERY])
def test_a_typing_error_is_refused_in_every_section(load: Load, over: Any, path: Any, remedy: str) -> None:
    message = refusal(load, values(**over))
    assert f"values.yaml: {path} is not a key of the chart; " in message
    assert remedy in message


@pytest.mark.parametrize(
    ("over", "sentence"),
    [
        (
            {"model": {"name": "My_Model.1"}},
            "modelSpec[0].name is 'My_Model.1', and the name of a Service holds only lower-",
        ),
        ({"model": {"name": "a" * 50}}, "modelSpec[0].name has 50 characters"),
        (
            {"servingEngineSpec": {"modelSpec": [MODEL, MODEL]}},
            "modelSpec[1].name is 'm', as that of modelSpec[0], and Helm installs no two objects of one name; give each",
        ),
        (
            {"model": {"replicaCount": "abc"}},
            "modelSpec[0].replicaCount holds the text 'abc'; write a whole number, 0 or more",
        ),
        (
            {"model": {"replicaCount": 1.5}},
            "modelSpec[0].replicaCount holds the number 1.5; write a whole number, 0 or more.",
        ),
        (
            {"routerSpec": {"servicePort": "http"}},
            "routerSpec.servicePort holds the text 'http'; write the number of a port",
        ),
        (
            {"servingEngineSpec": {"labels": None}},
            "servingEngineSpec.labels leaves no label, and the router would treat every",
        ),
        (
            {"servingEngineSpec": {"labels": {"environment": None, "release": None}}},
            "servingEngineSpec.labels leaves no label",
        ),
        (
            {"servingEngineSpec": {"modelSpec": []}},
            "servingEngineSpec.modelSpec lists no model, so no engine is started;",
        ),
        ({"servingEngineSpec": {"enableEngine": False}}, "enableEngine switches all engines off; set it to true."),
        ({"model": {"enabled": False}}, "enabled is false and no other model is enabled, so no engine is started"),
        (
            {"routerSpec": {"replicaCount": -1}},
            "routerSpec.replicaCount holds the number -1; write a whole number, 0 or more.",
        ),
    ],
)
def test_a_value_that_starts_nothing_or_too_much_is_refused(load: Load, over: Any, sentence: str) -> None:
    assert sentence in refusal(load, values(**over))


@pytest.mark.parametrize(
    "over",
    [
        {"servingEngineSpec": {"modelSpec": [MODEL, MODEL | {"enabled": False}, MODEL | {"name": "n"}]}},
        {"servingEngineSpec": {"labels": {}}},
        {"servingEngineSpec": {"labels": {"environment": None}}},
        {"servingEngineSpec": {"labels": None}, "routerSpec": {"enableRouter": False}},
        {"servingEngineSpec": {"labels": None}, "routerSpec": {"serviceDiscovery": "static"}},
        {"model": {"replicaCount": "2"}},
        {"model": {"replicaCount": None}},
        {"model": {"name": "mistral-7b-v0"}},
        {"model": {"name": 7}},
        {"servingEngineSpec": {"securityContext": {"runAsUser": 1, "sysctls": [{"name": "a", "value": "b"}]}}},
        {"servingEngineSpec": {"securityContext": {"supplementalGroups": [1], "fsGroup": 1, "seccompProfile": None}}},
        {
            "servingEngineSpec": {
                "containerSecurityContext": {"capabilities": {"add": ["SYS_PTRACE"]}, "privileged": True}
            }
        },
        {
            "servingEngineSpec": {
                "serviceMonitor": {"relabelings": [{"sourceLabels": ["a"], "regex": "b", "action": "keep"}]}
            }
        },
        {
            "model": {
                "extraVolumes": [{"name": "a", "hostPath": {"path": "/a"}}, {"name": "b", "csi": {"driver": "x"}}, None]
            }
        },
        {"model": {"extraVolumeMounts": [{"name": "a", "mountPath": "/a", "bindMountOptions": []}]}},
        {"model": {"nodeSelectorTerms": [{"matchFields": [{"key": "a", "operator": "In", "values": ["b"]}]}]}},
        {
            "model": {
                "keda": {
                    "triggers": [
                        {
                            "type": "prometheus",
                            "name": "a",
                            "metadata": {"threshold": "5", "x": 1},
                            "authenticationRef": {"name": "a"},
                            "metricType": "Value",
                            "useCachedMetrics": True,
                        }
                    ]
                }
            }
        },
        {"extraObjects": [{"apiVersion": "v1", "kind": "A", "metadata": {}, "kinds": 1, "apiversions": 2}, None, 5]},
        {"model": {"resources": {"limits": {"nvidia.com/gpu": 1}}, "podLabels": {"a/b": "c"}}},
        {"model": {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]}},
        {"model": {"pvcStorage": {"emptyDir": {"medium": "Memory"}}}},
        {"model": {"affinity": {"nodeAffinity": {"x": {}}}}},
        {"kube-prometheus-stack": {"enabled": True, "grafana": {"x": 1}}, "global": {"x": 1}},
        {"routerSpec": {"route": {"main": {"enabled": True, "matches": [{"path": {"value": "/"}}]}}}},
        {"model": {"pvcExistingClaimName": "claim"}},
        {"extraObjects": [{"kind": "Service", "anything": {"goes": 1}}]},
    ],
)
def test_what_is_legal_passes(load: Load, over: Any) -> None:
    load(values(**over))


def test_all_mistakes_are_told_at_once(load: Load) -> None:
    over = values(
        {"lmcacheConfig": {"cpuOffloadBufferSize": "1"}, "name": "A_b", "vllmConfig": {"extraArgs": 5}},
        servingEngineSpec={"startupProbe": {"initialDelaySecond": 1}, "labels": None},
        routerSpec={"routingLogc": "x"},
    )
    message = refusal(load, over)
    assert message.startswith("the values contain 4 mistakes:\n")
    for path in ("lmcacheConfig.cpuOffloadBufferSize", "startupProbe.initialDelaySecond", "routingLogc", "extraArgs"):
        assert path in message
    over["servingEngineSpec"]["modelSpec"][0]["vllmConfig"] = {}
    message = refusal(load, over)
    assert message.startswith("the values contain 5 mistakes:\n")
    assert "name is 'A_b'" in message
    assert "labels leaves no label" in message


def test_of_very_many_mistakes_the_first_are_told_and_the_rest_is_counted(load: Load) -> None:
    message = refusal(load, values({f"zz{number}": 1 for number in range(3000)}))
    assert message.count("\n") < 25
    assert "and 2980 more" in message


# ---- holders of anchors


def test_a_holder_of_anchors_at_the_top_is_ignored_as_helm_does(load: Load) -> None:
    text = yaml.safe_dump(values())
    found = load(f"x-env: &env [{{name: A, value: b}}]\nx-more: 1\n{text}  env: *env\n")
    assert found.serving_engine_spec.env is not None
    assert ignored(found) == [line for line in ignored(load(values())) if "x-" not in line]
    load(f"common: &env [{{name: A, value: b}}]\n{text}  env: *env\n")
    assert "common is not a key of the chart" in refusal(load, f"common: [{{name: A, value: b}}]\n{text}")


# ---- layers


def test_an_overlay_is_checked_like_the_file(load: Load, tmp_path: Path) -> None:
    overlay = tmp_path / "over.yaml"
    overlay.write_text("routerSpec: {routingLogc: x}\nservingEngineSpec: {labels: null}\n", encoding="utf-8")
    message = refusal(load, values({"zzz": 1}), overlays=(overlay,))
    assert "over.yaml: routerSpec.routingLogc is not a key of the chart; did you mean routingLogic?" in message
    assert "over.yaml: servingEngineSpec.labels leaves no label" in message
    assert "/values.yaml: servingEngineSpec.modelSpec[0].zzz is not a key" in message


def test_values_lie_over_each_other() -> None:
    below, above = {"a": {"b": 1, "c": [1, 2]}, "d": 1}, {"a": {"c": [3]}, "d": {"e": 2}}
    assert merged([below, above]) == {"a": {"b": 1, "c": [3]}, "d": {"e": 2}}


def test_an_overlay_is_merged_as_helm_does_it(load: Load, tmp_path: Path) -> None:
    overlay = tmp_path / "over.yaml"
    overlay.write_text(yaml.safe_dump(values({"name": "other"})), encoding="utf-8")
    found = load(
        values(cacheserverSpec={"servicePort": 81}), overlays=(overlay,), sets=("cacheserverSpec.enabled=true",)
    )
    assert render_engine(found).name == "other"
    assert found.cacheserver_spec.enabled is True
    assert found.cacheserver_spec.service_port == 81
    assert found.data["cacheserverSpec"] == {"servicePort": 81, "enabled": True}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "servingEngineSpec.modelSpec[0].replicaCount=abc",
            "--set servingEngineSpec.modelSpec[0].replicaCount: servingEngineSpec.modelSpec[0].replicaCount holds the text "
            "'abc'; write a whole number, 0 or more.",
        ),
        (
            "routerSpec.routingLogc=a",
            "--set routerSpec.routingLogc: routerSpec.routingLogc is not a key of the chart; did you",
        ),
        ("servingEngineSpec.labels=null", "--set servingEngineSpec.labels: servingEngineSpec.labels leaves no label"),
        (
            "servingEngineSpec.modelSpec=7",
            "--set servingEngineSpec.modelSpec: servingEngineSpec.modelSpec holds the number 7",
        ),
        ("servingEngineSpec.modelSpec[0].name.x=7", "name.x: expected a mapping, got the text 'm'; correct the path."),
        ("servingEngineSpec[0]=7", "--set servingEngineSpec[0]: expected a list, got a mapping; correct the path."),
        ("nonsense", "--set nonsense: this is not in Helm's notation; write KEY=VALUE, such as a.b[0].c=1."),
        ("a,b=1", "this is not in Helm's notation"),
        ("a[x]=1", "this is not in Helm's notation"),
        ("a[99999999]=1", "this is not in Helm's notation"),
        ("=1", "this is not in Helm's notation"),
        ("[0]=1", "this is not in Helm's notation"),
        ("a..b=1", "this is not in Helm's notation"),
        ("routerSpec.extraArgs={a", "--set routerSpec.extraArgs: the list is not closed; close it with a brace."),
        ("", "--set is empty; write KEY=VALUE."),
    ],
)
def test_nonsense_by_set_is_one_sentence(load: Load, text: str, sentence: str) -> None:
    message = refusal(load, values(), sets=(text,))
    assert sentence in message
    assert "\n" not in message


def test_a_secret_by_set_is_not_told(load: Load) -> None:
    message = refusal(
        load, values(), sets=("servingEngineSpec.vllmApiKey[0]=sk-1234", "servingEngineSpec.vllmApiKy=sk-1234")
    )
    assert "sk-1234" not in message


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a=b", [(("a",), "b")]),
        ("a.b[1].c=1,d=true", [(("a", "b", 1, "c"), 1), (("d",), True)]),
        ("a={x,1,null}", [(("a",), ["x", 1, None])]),
        ("a={}", [(("a",), [])]),
        ("a=", [(("a",), "")]),
        (r"a\.b=c\,d", [(("a.b",), "c,d")]),
        ("a=007,b=-3,c=1.5,d=null", [(("a",), "007"), (("b",), -3), (("c",), "1.5"), (("d",), None)]),
        ("a[0][1]=x", [(("a", 0, 1), "x")]),
        ("a=b=c", [(("a",), "b=c")]),
    ],
)
def test_set_is_read_as_helm_reads_it(text: str, parsed: Any) -> None:
    assert parse_set(text) == parsed


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
