"""How long what may pass by itself is waited for: to the second, and what is said then."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.evidence.pods.blocked import blocked_claim, blocked_owner, blocked_pod
from tests.pod_examples import AT, BEGAN, event, pending, unschedulable

TAINT = "2 node(s) had untolerated taint {node.kubernetes.io/not-ready: }"
PULLS = 'Failed to pull image "a": TLS handshake timeout'


def waits(reason: str, message: str = "") -> dict[str, Any]:
    return pending(containerStatuses=[{"name": "vllm", "state": {"waiting": {"reason": reason, "message": message}}}])


@pytest.mark.parametrize(
    ("pod", "events", "autoscaled", "grace_s"),
    [
        (unschedulable(), [], False, 12),
        (unschedulable(), [], True, 90),
        (unschedulable(), [event("NotTriggerScaleUp", "no")], False, 90),
        (unschedulable(TAINT), [], False, 120),
        (waits("ImageInspectError"), [], False, 180),
        (waits("ImagePullBackOff", PULLS), [], False, 180),
        (waits("CreateContainerConfigError", "failed to sync secret cache: timed out"), [], False, 180),
        (pending(), [event("FailedMount", 'configmap "nobody" not found')], False, 20),
        (pending(), [event("FailedCreatePodSandBox", "network not ready", 119)], False, 120),
    ],
    ids=["no-node", "autoscaled", "refused", "not-ready", "inspect", "pull", "cache", "mount", "sandbox"],
)
def test_a_pod_blocks_when_its_grace_is_over_and_no_second_before(
    pod: dict[str, Any], events: list[dict[str, Any]], autoscaled: bool, grace_s: int
) -> None:
    assert blocked_pod(pod, events, AT + grace_s - 1, autoscaled=autoscaled) is None
    assert blocked_pod(pod, events, AT + grace_s, autoscaled=autoscaled) is not None


def test_owners_and_claims_have_eight_seconds() -> None:
    owner = {"kind": "DaemonSet", "metadata": {"name": "o"}, "status": {"desiredNumberScheduled": 0}}
    refused = [event("FailedCreate", "exceeded quota", 0)]
    assert blocked_owner(owner, refused, AT + 7) is None
    assert blocked_owner(owner, refused, AT + 8) is not None, "none of it is wanted yet, so none is there"
    claim = {"metadata": {"name": "c", "creationTimestamp": BEGAN}, "status": {"phase": "Pending"}}
    assert blocked_claim(claim, [], AT + 7, classes=[]) is None
    assert blocked_claim(claim, [], AT + 8, classes=[]) is not None


def test_of_several_refusals_the_last_one_is_reported() -> None:
    refusals = [event("NotTriggerScaleUp", "the first", 10), event("FailedScaleUp", "the last", 20)]
    found = blocked_pod(unschedulable(), refusals, AT + 100)
    assert found is not None
    assert found.message.endswith("(FailedScaleUp: the last)")
    found = blocked_pod(unschedulable(), [event("TriggeredScaleUp", at_s=5), *refusals], AT + 200)
    assert found is not None
    assert found.message.endswith("(FailedScaleUp: the last)")
