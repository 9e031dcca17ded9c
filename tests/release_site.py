"""A stand-in cluster, a real Helm and a stand-in chart, for all tests of a release."""

from __future__ import annotations

import copy
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.progress import Progress
from fixtures.core.record import Release, StackRecord
from fixtures.provide.kube import charts
from fixtures.provide.kube.api import Kube
from fixtures.provide.kube.cluster_context import ClusterContext
from fixtures.provide.kube.helm import Helm, Layers
from fixtures.provide.release import cleanup, preflight, readiness
from fixtures.provide.release.plan import Plan
from fixtures.provide.release.under_test import ReleaseUnderTest
from fixtures.provide.target import Target
from tests.fakes.api_server import FakeCluster
from tests.helm_binaries import helm as binary
from tests.stand_in_chart import STAND_IN, VALUES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fixtures.provide.release.checks import Check


pytest.importorskip("kubernetes")


class Site:
    """A stand-in cluster, a real Helm, a stand-in chart."""

    def __init__(self, major: int, folder: Path) -> None:
        self.cluster = FakeCluster().start()
        self.folder = folder
        context = ClusterContext(str(self.cluster.kubeconfig(folder)), "fake")
        self.kube = Kube(context, patience_s=2.0)
        self.helm = Helm((str(binary(major)),), context, folder / "helm")
        self.chart = charts.chart_of(str(STAND_IN), None, folder / "work")
        self.namespace = "mine"
        self.values = folder / "values.yaml"
        self.lines: list[str] = []
        self.progress = Progress(self, live=False, every_s=600)  # type: ignore[arg-type]

    def write(self, text: str) -> None:
        self.lines.append(text)

    def flush(self) -> None:
        pass

    def install(self, values: dict[str, Any] = VALUES, /, **labels: str) -> ReleaseUnderTest:
        self.values.write_text(json.dumps(values))
        self.cluster.put("api/v1/namespaces", "", {"metadata": {"name": self.namespace, "labels": labels}})
        self.helm.install("rel", self.namespace, self.chart, Layers((self.values,)), labels=cleanup.labels("s"))
        return self.release()

    def release(self, *, own: bool = True) -> ReleaseUnderTest:
        facts = Release(
            name="rel",
            namespace=self.namespace,
            kubeconfig=self.kube.context.kubeconfig,
            context="fake",
            helm=self.helm.command,
            chart_args=tuple(self.chart.args),
            own=own,
            images={"example/engine:1": "example/engine@sha256:1"},
        )
        record = StackRecord(id="s", kind="chart", config="c", folder=self.folder, model="m", release=facts)
        return ReleaseUnderTest(record, self.kube, self.helm)

    def check(self, values: dict[str, Any], *, exists: bool = False) -> list[Check]:
        objects = self.helm.render_values(self.chart, "rel", self.namespace, values)
        plan = Plan(
            config=None,  # type: ignore[arg-type]
            kube=self.kube,
            helm=self.helm,
            chart=self.chart,
            layers=Layers(),
            namespace=self.namespace,
            release="rel",
            own_namespace=not exists,
            objects=objects,
            crds=(),
            values=values,
        )
        return preflight.check(plan)

    @property
    def target(self) -> Target:
        """The installed release, for those who adopt it."""
        kubeconfig = self.kube.context.kubeconfig
        return Target(
            helm=str(self.helm.command[0]),
            context="fake",
            kubeconfig=kubeconfig,
            namespace=self.namespace,
            release="rel",
        )

    def wait(self) -> Any:
        return readiness.until_ready(
            self.kube, self.namespace, self.helm.manifest("rel", self.namespace), self.progress
        )


@pytest.fixture(params=[pytest.param(3, marks=pytest.mark.long), 4])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    made = Site(request.param, tmp_path)
    yield made
    made.cluster.stop()


@pytest.fixture
def site4(tmp_path: Path) -> Iterator[Site]:
    made = Site(4, tmp_path)
    yield made
    made.cluster.stop()


def changed(**model: Any) -> dict[str, Any]:
    found = copy.deepcopy(VALUES)
    found["servingEngineSpec"]["modelSpec"][0] |= model
    return found


def engine(**container: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "vllm", **container}]}}
    spec = {"selector": {"matchLabels": {"a": "1"}}, "template": template}
    return {"kind": "Deployment", "metadata": {"name": "engine"}, "spec": spec}


def running(thing: dict[str, Any], *command: str, ip: str = "10.1.0.1", host: str = "192.0.2.1") -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True"}
    container = {"name": "main", "command": list(command)}
    status = {"phase": "Running", "podIP": ip, "hostIP": host, "conditions": [ready]}
    return thing | {"spec": {"containers": [container]}, "status": status}


# --- preflight --------------------------------------------------------------------------------------------------------


def missing(checks: list[Check]) -> dict[str, str]:
    return {one.name: f"{one.text} -> {one.remedy}" for one in checks if one.state == "missing"}


def service(kind: str, ports: int, **spec: Any) -> dict[str, Any]:
    return {
        "kind": "Service",
        "metadata": {"name": "s"},
        "spec": {"type": kind, "ports": [{"port": number} for number in range(ports)], **spec},
    }


CRDS = "apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def busy() -> float:
    """How much longer things take on this machine now than on an idle one: its load per core, at least 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
