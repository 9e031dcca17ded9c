"""Access to a release on a stand-in cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.record import EngineServer, PodRef
from fixtures.evidence.pods.containers import role_of
from fixtures.evidence.pods.objects import name_of, uid_of
from fixtures.provide.release.cluster_session import ClusterSession
from tests import release_site
from tests.stand_in_chart import VALUES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.release_site import Site

pytest.importorskip("kubernetes")


site = release_site.site4


@pytest.fixture
def access(site: Site, tmp_path: Path, httpserver: object) -> Iterator[ClusterSession]:
    values = json.loads(json.dumps(VALUES))
    values["servingEngineSpec"]["modelSpec"][0]["hf_token"] = "word-of-a-secret"
    record = site.install(values).record
    (pod,) = [one for one in site.cluster.pods("mine") if role_of(one) == "engine"]
    reference = PodRef(namespace="mine", name=name_of(pod), uid=uid_of(pod), container="vllm", port=8000, restarts=0)
    status = pod["status"]["containerStatuses"][0]
    status["restartCount"] = 0
    record.engines = [
        EngineServer(name="engine", url="http://10.0.0.1:8000", pod=reference, argv=("vllm", "serve", "m"))
    ]
    site.cluster.targets["vllm", 8000] = ("127.0.0.1", httpserver.port)  # type: ignore[attr-defined]
    httpserver.expect_request("/metrics").respond_with_data("x 1\n")  # type: ignore[attr-defined]
    with ClusterSession(record, tmp_path / "access") as opened:
        yield opened


def engine(access: ClusterSession) -> EngineServer:
    return access.record.engines[0]


def pod_of(site: Site, access: ClusterSession) -> dict[str, Any]:
    return next(one for one in site.cluster.pods("mine") if uid_of(one) == engine(access).pod.uid)  # type: ignore[union-attr]
