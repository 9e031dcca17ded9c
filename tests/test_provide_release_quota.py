"""What a quota counts and a limit range refuses."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.provide.release import quota
from tests import release_site
from tests.release_site import Site, changed, missing, service

pytest.importorskip("kubernetes")

site4 = release_site.site4


@pytest.mark.parametrize(
    ("hard", "used", "words"),
    [
        ({"requests.cpu": "3"}, {"requests.cpu": "2500m"}, "requests.cpu: the release requests"),
        ({"memory": "512Mi"}, {}, "memory: the release requests"),
        ({"pods": "10"}, {"pods": "9"}, "pods: the release requests 2, but 1 of 10 are left"),
        ({"limits.memory": "64Gi"}, {}, "must specify limits.memory"),
        ({"persistentvolumeclaims": "0"}, {}, "persistentvolumeclaims: the release requests 1, but 0 of 0 are left"),
        (
            {"requests.storage": "10Gi"},
            {},
            "requests.storage: the release requests 50.0 GiB, but 10.0 GiB of 10.0 GiB are left",
        ),
        ({"requests.nvidia.com/gpu": "0", "pods": "10", "services": "10"}, {}, None),
    ],
)
def test_quotas_are_added_up(site4: Site, hard: dict[str, str], used: dict[str, str], words: str | None) -> None:
    site4.cluster.put("api/v1/namespaces", "", {"metadata": {"name": "mine"}})
    team: dict[str, Any] = {"metadata": {"name": "team"}, "spec": {"hard": hard}, "status": {"used": used}}
    site4.cluster.put("api/v1/resourcequotas", "mine", team)
    told = "\n".join(one.text for one in site4.check(changed(pvcStorage="50Gi"), exists=True) if one.state == "missing")
    if words is None:
        assert told == ""
    else:
        assert "ResourceQuota team: " in told
        assert words in told
    team["spec"]["scopes"] = ["BestEffort"]
    assert missing(site4.check(changed(pvcStorage="50Gi"), exists=True)) == {}


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"type": "Container", "max": {"cpu": "500m"}}, "container vllm: 1 cpu, the maximum is 0.5"),
        ({"type": "Container", "min": {"memory": "2Gi"}}, "1.0 GiB memory, the minimum is 2.0 GiB"),
        ({"type": "Pod", "max": {"memory": "512Mi"}}, "pod: 1.0 GiB memory, the maximum is 0.5 GiB"),
        ({"type": "PersistentVolumeClaim", "max": {"storage": "10Gi"}}, "50.0 GiB storage, the maximum is 10.0 GiB"),
        ({"type": "Container", "default": {"memory": "64Gi"}, "defaultRequest": {"cpu": "1"}}, None),
    ],
)
def test_limit_ranges_are_compared(site4: Site, limit: dict[str, Any], words: str | None) -> None:
    site4.cluster.put("api/v1/namespaces", "", {"metadata": {"name": "mine"}})
    site4.cluster.put("api/v1/limitranges", "mine", {"metadata": {"name": "l"}, "spec": {"limits": [limit]}})
    checks = [one for one in site4.check(changed(pvcStorage="50Gi"), exists=True) if one.state == "missing"]
    assert any(one.name == "limits" and words in one.text for one in checks) if words else checks == []


def workload(
    *containers: dict[str, Any], init: list[dict[str, Any]] | None = None, kind: str = "Deployment", **spec: Any
) -> dict[str, Any]:
    """What makes pods of these containers, each given by its resources."""

    def named(letter: str, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {"name": f"{letter}{number}", "restartPolicy": one.get("restartPolicy"), "resources": one}
            for number, one in enumerate(given)
        ]

    pod = {"containers": named("c", list(containers)), "initContainers": named("i", init or [])}
    return {"kind": kind, "metadata": {"name": "w"}, "spec": {"template": {"spec": pod}, **spec}}


CLAIM = {
    "metadata": {"name": "data"},
    "spec": {"resources": {"requests": {"storage": "30Gi"}}, "storageClassName": "fast"},
}


GIB_1 = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


@pytest.mark.parametrize(
    ("objects", "hard", "says"),
    [
        ([workload(GIB_1, init=[{"requests": {"memory": "9Gi"}}])], {"requests.memory": "8Gi"}, "requests 9.0 GiB"),
        ([workload(GIB_1, init=[{"requests": {"memory": "9Gi"}}])], {"requests.memory": "9Gi"}, None),
        (
            [workload(GIB_1, init=[GIB_1 | {"restartPolicy": "Always"}, {"requests": {"memory": "2Gi"}}])],
            {"requests.memory": "2Gi"},
            "requests 3.0 GiB",
        ),
        ([workload(GIB_1, init=[{}])], {"requests.cpu": "9"}, "Deployment w must specify requests.cpu"),
        ([workload(GIB_1, init=[{}])], {"requests.nvidia.com/gpu": "9"}, None),
        ([workload({}, replicas=0)], {"requests.cpu": "0", "pods": "0"}, None),
        ([workload({"requests": {"cpu": "700m"}})], {"requests.cpu": "0.7"}, None),
        ([workload(GIB_1)], {"count/replicasets.apps": "0"}, "count/replicasets.apps: the release requests 1"),
        ([workload(GIB_1)], {"secrets": "0"}, "secrets: the release requests 1 (one is Helm's own, of the release)"),
        ([{"kind": "Secret", "metadata": {"name": "s"}}], {"count/secrets": "1"}, "requests 2"),
        ([{"kind": "ServiceAccount", "metadata": {"name": "s"}}], {"count/serviceaccounts": "0"}, "requests 1"),
        ([service("LoadBalancer", 2)], {"services.loadbalancers": "0"}, "requests 1"),
        ([service("LoadBalancer", 2)], {"services.nodeports": "1"}, "requests 2"),
        ([service("LoadBalancer", 2, allocateLoadBalancerNodePorts=False)], {"services.nodeports": "0"}, None),
        ([service("NodePort", 1)], {"services.nodeports": "0", "services.loadbalancers": "0"}, "nodeports: the"),
        ([service("ClusterIP", 1)], {"services.nodeports": "0", "services.loadbalancers": "0"}, None),
        (
            [workload(GIB_1, kind="StatefulSet", replicas=2, volumeClaimTemplates=[CLAIM])],
            {"requests.storage": "50Gi"},
            "requests.storage: the release requests 60.0 GiB",
        ),
        (
            [workload(GIB_1, kind="StatefulSet", replicas=2, volumeClaimTemplates=[CLAIM])],
            {"persistentvolumeclaims": "1"},
            "persistentvolumeclaims: the release requests 2",
        ),
        (
            [workload(GIB_1, kind="StatefulSet", replicas=2, volumeClaimTemplates=[CLAIM])],
            {"fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1", "count/replicasets.apps": "0"},
            "fast.storageclass.storage.k8s.io/persistentvolumeclaims: the release requests 2",
        ),
    ],
)
def test_what_a_quota_counts(objects: list[dict[str, Any]], hard: dict[str, str], says: str | None) -> None:
    found = list(quota.over_quota([{"metadata": {"name": "team"}, "spec": {"hard": hard}}], [], objects))
    assert len(found) == (says is not None), found
    assert says is None or says in found[0]


@pytest.mark.parametrize(
    ("thing", "limit", "says"),
    [
        (
            workload({"requests": {"memory": "48Gi"}}),
            {"type": "Container", "default": {"memory": "512Mi"}},
            "container c0: 48.0 GiB memory requested without a limit, and 0.5 GiB is the default limit of the namespace",
        ),
        (workload({"requests": {"memory": "512Mi"}}), {"type": "Container", "default": {"memory": "512Mi"}}, None),
        (workload({"requests": {"cpu": "2"}}), {"type": "Container", "max": {"cpu": "1"}}, "2 cpu, the maximum is 1"),
        (
            workload({"requests": {"cpu": "2"}}),
            {"type": "Pod", "max": {"cpu": "64"}},
            "pod: no limit for cpu, which is",
        ),
        (workload(GIB_1, {"requests": {"cpu": "2"}}), {"type": "Pod", "max": {"cpu": "64"}}, None),
        (workload({}), {"type": "Pod", "min": {"cpu": "1"}}, "pod: no request for cpu, which is required"),
        (workload({}), {"type": "Container", "min": {"cpu": "1"}}, None),
        (
            workload({"requests": {"cpu": "1"}, "limits": {"cpu": "8"}}),
            {"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}},
            "container c0: the limit for cpu is 8 times the request, the maximum is 2 times",
        ),
        (workload(GIB_1), {"type": "Container", "maxLimitRequestRatio": {"cpu": "1"}}, None),
        (
            workload({"requests": {"cpu": "1"}}),
            {"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}},
            "no limit for cpu, but the limit may be at most 2 times the request",
        ),
        (
            workload(GIB_1, init=[{"limits": {"memory": "200Gi"}}]),
            {"type": "Container", "max": {"memory": "64Gi"}},
            "container i0: 200.0 GiB memory, the maximum is 64.0 GiB",
        ),
        (
            workload(GIB_1, init=[{"limits": {"memory": "200Gi"}}]),
            {"type": "Pod", "max": {"memory": "64Gi"}},
            "pod: 200.0 GiB memory, the maximum is 64.0 GiB",
        ),
        (
            workload(GIB_1, kind="StatefulSet", volumeClaimTemplates=[CLAIM]),
            {"type": "PersistentVolumeClaim", "max": {"storage": "10Gi"}},
            "StatefulSet w, claim data: 30.0 GiB storage, the maximum is 10.0 GiB",
        ),
        (workload({}, replicas=0), {"type": "Pod", "max": {"cpu": "64"}}, None),
    ],
)
def test_what_a_limit_range_refuses(thing: dict[str, Any], limit: dict[str, Any], says: str | None) -> None:
    found = list(quota.outside_limits([{"metadata": {"name": "l"}, "spec": {"limits": [limit]}}], [thing]))
    assert len(found) == (says is not None), found
    assert says is None or says in found[0]


def test_a_pod_that_asks_as_a_whole_is_left_to_the_server() -> None:
    one = workload({})
    one["spec"]["template"]["spec"]["resources"] = {"requests": {"cpu": "4"}}
    hard = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "8", "requests.memory": "1Gi"}}}
    ranges = [{"spec": {"limits": [{"type": "Pod", "max": {"cpu": "8"}}]}}]
    assert list(quota.over_quota([hard], [], [one])) == []
    assert list(quota.outside_limits(ranges, [one])) == []
