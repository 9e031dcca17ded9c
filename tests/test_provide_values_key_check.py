"""Typing errors in keys and values are refused in every section; what is legal passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests import values_refused
from tests.values_refused import MODEL, refusal, values

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.provide.values.sections import Values

    Load = Callable[..., Values]

load = values_refused.load


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
    (
        {"maxUnavailablePodDisruptionBudjet": 1},
        "maxUnavailablePodDisruptionBudjet",
        "did you mean maxUnavailablePodDisruptionBudget, of chart 0.0.2 to 0.1.10?",
    ),
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
            "modelSpec[0].replicaCount holds the text 'abc'; write a whole number from 0 to 10000",
        ),
        (
            {"model": {"replicaCount": 1.5}},
            "modelSpec[0].replicaCount holds the number 1.5; write a whole number from 0 to 10000.",
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
            {"servingEngineSpec": {"labels": "app: engine"}},
            "servingEngineSpec.labels holds the text 'app: engine'; write a mapping.",
        ),
        ({"servingEngineSpec": {"labels": ["app"]}}, "servingEngineSpec.labels holds a list; write a mapping."),
        (
            {"servingEngineSpec": {"modelSpec": []}},
            "servingEngineSpec.modelSpec lists no model, so no engine is started;",
        ),
        ({"servingEngineSpec": {"enableEngine": False}}, "enableEngine switches all engines off; set it to true."),
        ({"model": {"enabled": False}}, "enabled is false and no other model is enabled, so no engine is started"),
        ({"model": {"replicaCount": 100_000}}, "holds the number 100000; write a whole number from 0 to 10000."),
        ({"routerSpec": {"containerPort": 70_000}}, "write the number of a port, at most 65535."),
        (
            {"routerSpec": {"replicaCount": -1}},
            "routerSpec.replicaCount holds the number -1; write a whole number from 0 to 10000.",
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
