"""What the server refuses, and references of manifests that lead nowhere (CFG-05)."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.core.errors import NotJudged
from fixtures.evidence.manifest import effective, references, unresolved
from tests import release_site
from tests.release_site import Site, changed, engine

pytest.importorskip("kubernetes")

site4 = release_site.site4


def test_what_the_server_refuses_is_reported(site4: Site) -> None:
    release = site4.install()
    assert release.refused() == []
    site4.cluster.refuses["rel-m-deployment-vllm"] = "spec.selector: field is immutable"
    assert release.refused() == ["Deployment rel-m-deployment-vllm: spec.selector: field is immutable"]
    site4.cluster.forbidden.add(("patch", "secrets"))
    with pytest.raises(NotJudged, match=r"docs/rbac\.yaml"):
        release.refused()


def test_references_that_lead_nowhere_are_reported(site4: Site) -> None:
    values = changed(
        pvcStorage="1Gi",
        storageClass="fast",
        env=[{"name": "T", "valueFrom": {"secretKeyRef": {"name": "nobody", "key": "t"}}}],
    )
    values["servingEngineSpec"]["runtimeClassName"] = "nvidia"
    found = site4.install(values).dangling()
    assert [one.split(",")[0] for one in found] == [
        "there is no StorageClass fast",
        "there is no RuntimeClass nvidia",
        "there is no Secret nobody in namespace mine",
    ]


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([{"kind": "Service", "metadata": {"name": "s"}, "spec": {"selector": {"a": "2"}}}], "selects no pod"),
        (
            [
                engine(ports=[{"name": "http", "containerPort": 8000}]),
                {
                    "kind": "Service",
                    "metadata": {"name": "s"},
                    "spec": {"selector": {"a": "1"}, "ports": [{"port": 80, "targetPort": "web"}]},
                },
            ],
            "refers to the port 'web'",
        ),
        (
            [engine(ports=[{"containerPort": 9000}], startupProbe={"httpGet": {"port": 8000}})],
            "startupProbe of vllm asks port 8000",
        ),
        ([engine(args=["--k8s-label-selector", "a=2"])], "selects engines by a=2"),
        ([engine(args=["--k8s-label-selector", ""])], "empty selector"),
    ],
)
def test_ports_and_selectors_are_followed(objects: list[dict[str, Any]], words: str) -> None:
    found = unresolved(objects)
    assert len(found) == 1
    assert words in found[0]


def test_references_of_a_pod() -> None:
    thing = engine(
        envFrom=[{"configMapRef": {"name": "c", "optional": True}}],
        env=[{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "d", "key": "k"}}}],
    )
    thing["spec"]["template"]["spec"] |= {
        "imagePullSecrets": [{"name": "pull"}],
        "volumes": [
            {"name": "v", "persistentVolumeClaim": {"claimName": "claim"}},
            {"name": "s", "secret": {"secretName": "x"}},
        ],
    }
    found = {(one.kind, one.name, one.optional, one.key) for one in references([thing])}
    assert found == {
        ("Secret", "pull", False, None),
        ("PersistentVolumeClaim", "claim", False, None),
        ("Secret", "x", False, None),
        ("ConfigMap", "c", True, None),
        ("ConfigMap", "d", False, "k"),
    }


def test_an_overridden_connector_has_no_effect() -> None:
    one = engine(command=["vllm", "serve", "--kv-transfer-config", '{"a":1}', "--kv-transfer-config", '{"b":1}'])
    two = engine(command=["vllm", "serve", "--kv-transfer-config", '{"b":1}'])
    assert effective([one]) == effective([two])
