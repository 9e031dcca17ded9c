"""The checks of a cluster before anything is made."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.provide.release.checks import CHECKS, demand, override
from tests import release_site
from tests.release_site import CRDS, Site, changed, missing
from tests.stand_in_chart import VALUES

pytest.importorskip("kubernetes")

site = release_site.site
site4 = release_site.site4


def test_a_cluster_with_room_passes(site: Site) -> None:
    checks = site.check(changed(pvcStorage="1Gi"))
    assert missing(checks) == {}
    assert {"cluster", "helm", "chart", "engines", "rights", "room", "references", "volumes", "model"} == {
        one.name for one in checks
    }
    demand(checks)


def test_everything_that_is_missing_is_on_one_screen(site4: Site) -> None:
    values = changed(requestGPU=1, requestMemory="48Gi", pvcStorage="50Gi", storageClass="fast")
    values["servingEngineSpec"]["runtimeClassName"] = "nvidia"
    values["monitoring"] = {"enabled": True}
    site4.cluster.forbidden |= {("create", "pods/exec"), ("create", "namespaces")}
    found = missing(site4.check(values))
    assert "room" not in found, "that is a warning"
    assert "runtimeClassName" in found["references"] or "StorageClass" in found["references"]
    assert "create pods/exec in namespace mine; create namespaces in the cluster" in found["rights"]
    assert "monitoring is enabled" in found["chart"]
    with pytest.raises(ConfigurationError) as told:
        demand(site4.check(values))
    assert "nothing was installed" in str(told.value)
    assert len(str(told.value).splitlines()) < 24
    assert all(not one.startswith(("POST /api/v1", "PUT", "PATCH", "DELETE")) for one in site4.cluster.requests)


@pytest.mark.parametrize("why", ["gpu", "memory", "both on one node", "cordoned", "not ready"])
def test_that_no_node_seems_to_be_large_enough_is_a_warning(site4: Site, why: str) -> None:
    (node,) = site4.cluster.find("api/v1/nodes")
    keys: dict[str, Any] = {}
    if why == "gpu":
        keys = {"requestGPU": 1}
    elif why == "memory":
        keys = {"requestMemory": "48Gi"}
    elif why == "both on one node":
        other = copy.deepcopy(node)
        other["metadata"] = {"name": "other"}
        node["status"]["allocatable"] |= {"cpu": "1m"}
        other["status"]["allocatable"] |= {"memory": "1Mi"}
        site4.cluster.put("api/v1/nodes", "", other)
    elif why == "cordoned":
        node["spec"] = {"unschedulable": True}
    else:
        node["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
    checks = site4.check(changed(**keys))
    demand(checks)
    (warning,) = [one for one in checks if one.state == "warning"]
    assert str(warning).startswith("warning  room: no node seems to be large enough for Deployment ")
    assert ("no node offers GPUs" in warning.remedy) == (why == "gpu")
    if why == "memory":
        assert "48.0 GiB memory)" in warning.text


@pytest.mark.parametrize("by", ["karpenter", "status", "deployment"])
def test_a_pool_that_is_scaled_to_zero_is_a_warning_where_an_autoscaler_runs(site4: Site, by: str) -> None:
    put = site4.cluster.put
    if by == "karpenter":
        put(CRDS, "", {"metadata": {"name": "nodepools.karpenter.sh"}})
    elif by == "status":
        put("api/v1/configmaps", "kube-system", {"metadata": {"name": "cluster-autoscaler-status"}})
    else:
        key = ("apis/apps/v1/deployments", "kube-system", "gpu-cluster-autoscaler")
        site4.cluster.objects[key] = {"metadata": {"name": key[2]}, "spec": {}}
    checks = site4.check(changed(requestGPU=1))
    assert missing(checks) == {}
    (warning,) = [one for one in checks if one.state == "warning"]
    assert "may add one" in warning.text
    demand(checks)


def test_one_check_can_be_overridden_and_the_override_is_seen(site4: Site) -> None:
    checks = site4.check(changed(pvcStorage="1Gi", storageClass="fast"))
    with pytest.raises(ConfigurationError, match="To skip checks: --no-preflight references"):
        demand(checks)
    overridden = override(checks, ["references"])
    demand(overridden)
    assert [str(one)[:30] for one in overridden if one.state == "overridden"] == ["override references: there is "]
    assert set(CHECKS) >= {one.name for one in checks} - {"room"}, "a warning refuses nothing"


def test_neighbours_in_a_namespace_that_exists(site4: Site) -> None:
    site4.install()
    found = missing(site4.check(VALUES, exists=True))
    assert "has a release rel already" in found["release"]
    assert "environment=test matches rel-m-deployment-vllm" in found["selectors"]
