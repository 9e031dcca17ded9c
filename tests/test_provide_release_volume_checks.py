"""Storage classes and volumes, checked before anything is made."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.provide.release import volume_checks
from tests import release_site
from tests.release_site import Site, changed, engine, missing

pytest.importorskip("kubernetes")

site4 = release_site.site4


def test_a_cluster_without_a_default_class(site4: Site) -> None:
    site4.cluster.remove("apis/storage.k8s.io/v1/storageclasses", "", "standard")
    assert "none is the default" in missing(site4.check(changed(pvcStorage="50Gi")))["volumes"]


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"capacity": {"storage": "40Gi"}}, False),
        ({"accessModes": ["ReadOnlyMany"]}, False),
        ({"storageClassName": "other"}, False),
    ],
)
def test_a_free_volume_without_a_class_serves_a_claim_without_one(
    site4: Site, changes: dict[str, Any], fits: bool
) -> None:
    """Seen on Kubernetes 1.36: such a claim is bound where no class is the default."""
    site4.cluster.remove("apis/storage.k8s.io/v1/storageclasses", "", "standard")
    spec = {"capacity": {"storage": "60Gi"}, "accessModes": ["ReadWriteOnce"], **changes}
    volume = {"metadata": {"name": "model"}, "spec": spec, "status": {"phase": "Available"}}
    site4.cluster.put("api/v1/persistentvolumes", "", volume)
    found = missing(site4.check(changed(pvcStorage="50Gi")))
    assert ("volumes" not in found) == fits


def test_a_volume_for_several_nodes_needs_a_class_that_offers_it(site4: Site) -> None:
    site4.cluster.find("apis/storage.k8s.io/v1/storageclasses")[0]["provisioner"] = "ebs.csi.aws.com"
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteMany"]}}
    claim["spec"] |= {"resources": {"requests": {"storage": "1Gi"}}}  # type: ignore[operator]
    (found,) = volume_checks.check_volumes(site4.kube, [claim])
    assert found.state == "missing"
    assert "ReadWriteMany" in found.text


def test_a_volume_for_one_pod_and_several_pods_is_refused(site4: Site) -> None:
    spec = {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": spec}
    pods = engine(command=["vllm", "serve", "m"])
    pods["spec"]["template"]["spec"]["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    for replicas, state in ((1, "ok"), (2, "missing")):
        pods["spec"]["replicas"] = replicas
        (found,) = volume_checks.check_volumes(site4.kube, [claim, pods])
        assert found.state == state
