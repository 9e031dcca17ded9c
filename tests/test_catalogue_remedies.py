"""What blocks a pod has its own remedy."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.evidence.pods.blocked import Blocked, blocked_pod, rejected_pods
from fixtures.evidence.pods.containers import out_of_memory
from tests.pod_examples import AT, BEGAN, event, pending, unschedulable


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("2 node(s) had untolerated taint {nvidia.com/gpu: present}.", "servingEngineSpec.tolerations"),
        (
            "1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint {nvidia.com/gpu: present}.",
            "servingEngineSpec.tolerations",
        ),
        ("2 node(s) had untolerated taint {dedicated: gpu}.", "servingEngineSpec.tolerations"),
        (
            "1 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }",
            "no node has enough free GPUs",
        ),
        ("2 node(s) had untolerated taint {node.kubernetes.io/unreachable: }", "add a node that fits"),
        (
            "1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, 2 node(s) didn't match Pod's node "
            "affinity/selector.",
            "modelSpec[].nodeSelectorTerms",
        ),
        (
            "1 node(s) didn't match Pod's node affinity/selector, 2 node(s) had volume node affinity conflict.",
            "another zone",
        ),
        ("2 node(s) didn't have free ports for the requested pod ports.", "another hostPort"),
        ("1 Insufficient memory, 1 node(s) didn't match Pod's node affinity/selector.", "lower the requests"),
        ('persistentvolumeclaim "x" not found', "create that claim"),
        ("2 Insufficient nvidia.com/mig-1g.10gb.", "no node has enough free GPUs"),
        ("1 node(s) didn't find available persistent volumes to bind.", "create a PersistentVolume"),
        ("1 node(s) didn't match pod anti-affinity rules.", "change the affinity"),
        (
            "1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.",
            "ReadWriteMany",
        ),
        (
            "0/1 nodes are available: 1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode "
            "already in-use by another pod.",
            "ReadWriteMany",
        ),
    ],
)
def test_what_no_node_fits_for_has_its_own_remedy(message: str, words: str) -> None:
    found = blocked_pod(unschedulable(message), [], AT + 20)
    assert found is not None
    assert words in found.remedy


@pytest.mark.parametrize(
    "taint",
    ["node.kubernetes.io/not-ready: ", "node.cloudprovider.kubernetes.io/uninitialized: true",
     "node.cilium.io/agent-not-ready: ", "node.kubernetes.io/disk-pressure: "],
)  # fmt: skip
def test_a_node_that_starts_is_waited_for(taint: str) -> None:
    pod = unschedulable(f"0/1 nodes are available: 1 node(s) had untolerated taint {{{taint}}}.")
    assert blocked_pod(pod, [], AT + 60) is None
    assert blocked_pod(pod, [], AT + 130) is not None


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("AttachVolume.Attach failed: disk(x) already attached to node(n1), could not be attached", "ReadWriteMany"),
        ("AttachVolume.Attach failed: The disk resource 'x' is already being used by 'y'", "ReadWriteMany"),
        ("mount failed: exit status 32 Output: mount.nfs: access denied by server", "make that mount work on its node"),
        ("bad option; you might need a /sbin/mount.<type> helper program.", "make that mount work on its node"),
        ("hostPath type check failed: /models is not a directory", "create that folder or file on its node"),
    ],
)
def test_a_mount_that_fails_has_its_own_remedy(message: str, words: str) -> None:
    found = blocked_pod(pending(), [event("FailedMount", message, 118)], AT + 130)
    assert found is not None
    assert words in found.remedy


@pytest.mark.parametrize(
    ("reason", "message", "words"),
    [
        ("ImagePullBackOff", "failed to extract layer: no space left on device", "free disk space"),
        ("ImagePullBackOff", "no match for platform in manifest: not found", "processor architecture of its node"),
        ("ImageInspectError", 'short-name "x" did not resolve to an alias', "give the image name with its registry"),
    ],
)
def test_an_image_that_cannot_be_had_has_its_own_remedy(reason: str, message: str, words: str) -> None:
    waits = [{"name": "vllm", "state": {"waiting": {"reason": reason, "message": message}}}]
    found = blocked_pod(pending(containerStatuses=waits), [], AT + 200)
    assert found is not None
    assert words in found.remedy
    passes = "space" in message or reason == "ImageInspectError"
    assert (blocked_pod(pending(containerStatuses=waits), [], AT + 30) is None) == passes


def rejected(name: str, reason: str = "UnexpectedAdmissionError") -> dict[str, Any]:
    pod = pending(phase="Failed", reason=reason, message="Allocate failed due to requested number of devices")
    made = BEGAN if name == "a" else "2026-11-25T14:02:00Z"
    owner = [{"uid": "set", "controller": True}]
    return pod | {"metadata": {"name": name, "ownerReferences": owner, "creationTimestamp": made}}


def test_a_node_that_rejects_its_pods_again_and_again_is_reported() -> None:
    three = [rejected(name) for name in "abc"]
    (found,) = rejected_pods(three, AT + 130)
    assert str(found).startswith("Pod c: UnexpectedAdmissionError: Allocate failed")
    assert "device plugin" in found.remedy
    assert rejected_pods(three, AT + 100) == [], "a kubelet that has just started"
    assert rejected_pods(three, AT + 900) == [], "long ago"
    assert rejected_pods(three[1:], AT + 130) == []
    assert rejected_pods([rejected(name, "Evicted") for name in "abc"], AT + 130) == []
    runs = pending(phase="Running") | {"metadata": three[0]["metadata"] | {"name": "d"}}
    assert rejected_pods([*three, runs], AT + 130) == [], "one came through"


def test_a_user_that_may_not_be_root_has_its_own_remedy() -> None:
    say = {"reason": "CreateContainerConfigError", "message": "container has runAsNonRoot and image will run as root"}
    found = blocked_pod(pending(containerStatuses=[{"name": "vllm", "state": {"waiting": say}}]), [], AT + 5)
    assert found is not None
    assert "securityContext" in found.remedy


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            "failed to create containerd task: nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, "
            "please update your driver to a newer version",
            "update the driver, or use an image",
        ),
        ("nvidia-container-cli: initialization error: nvml error: driver not loaded", "load the NVIDIA driver"),
        ("nvml error: driver/library version mismatch", "restart the node"),
        ('exec: "vllm": executable file not found in $PATH', "correct the command"),
        ("failed to inject CDI devices: unresolvable CDI devices nvidia.com/gpu=0", "nvidia-ctk cdi generate"),
        ("nvidia-container-cli: device error: GPU-1: unknown device: unknown", "nvidia-ctk cdi generate"),
    ],
)
def test_what_a_container_cannot_start_for_has_its_own_remedy(message: str, words: str) -> None:
    waits = [{"name": "vllm", "state": {"waiting": {"reason": "RunContainerError", "message": message}}}]
    found = blocked_pod(pending(containerStatuses=waits), [], AT + 5)
    assert found is not None
    assert words in found.remedy
    ended = {"terminated": {"reason": "StartError", "exitCode": 128, "message": message}}
    again = [
        {"name": "vllm", "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}
    ]
    found = blocked_pod(pending(containerStatuses=again), [], AT + 5)
    assert found is not None
    assert message[:40] in found.message
    assert words in found.remedy


@pytest.mark.parametrize(
    ("message", "blocks"),
    [
        ("Back-off pulling image: dial tcp: i/o timeout", False),
        ("toomanyrequests: You have reached your pull rate limit", False),
        ("manifest unknown", True),
    ],
)
def test_a_pull_that_may_succeed_at_the_next_attempt_is_waited_for(message: str, blocks: bool) -> None:
    waits = [{"name": "vllm", "state": {"waiting": {"reason": "ImagePullBackOff", "message": message}}}]
    assert (blocked_pod(pending(containerStatuses=waits), [], AT + 30) is not None) == blocks
    assert blocked_pod(pending(containerStatuses=waits), [], AT + 300) is not None


def test_lack_of_memory_is_told_with_limit_and_need() -> None:
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    state = [
        {"name": "vllm", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}
    ]
    pod = pending(containerStatuses=state)
    pod["spec"]["containers"] = [
        {
            "name": "vllm",
            "command": ["vllm", "serve", "m", "-tp", "2"],
            "env": [{"name": "LMCACHE_MAX_LOCAL_CPU_SIZE", "value": "20"}],
            "resources": {"limits": {"memory": "32Gi"}},
        }
    ]
    found = blocked_pod(pod, [], AT + 5)
    assert found is not None
    assert found.reason == "OOMKilled"
    assert "its memory reached the limit of 32Gi" in found.message
    assert "40 GiB of CPU tier (LMCACHE_MAX_LOCAL_CPU_SIZE, 2 workers)" in found.message
    assert "needs 47 GiB or more" in found.message
    pod["spec"]["containers"][0] = {"name": "vllm", "command": ["lmcache", "server", "--l1-size-gb", "4"]}
    assert "its node had no memory left, and it has no memory limit; 4 GiB of CPU tier (--l1-size-gb)" in str(
        out_of_memory(pod)
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            "ModuleNotFoundError: No module named 'lmcache.integration'",
            "'lmcache.integration'; use an image that contains LMCache, such as",
        ),
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 12040).",
            "(found version 12040).; the node's NVIDIA driver is older",
        ),
        ("ValueError: boom", "its log says: ValueError: boom"),
    ],
)
def test_the_first_error_of_a_log_has_its_own_remedy(error: str, words: str) -> None:
    ended = Blocked("Pod p", "CrashLoopBackOff", "container vllm ended 1 times", "correct what it says")
    assert f"Pod p: container vllm ended 1 times; its log says: {error}" in ended.with_error(error)
    assert words in ended.with_error(error)
    assert ended.with_error("ValueError: boom").endswith("boom")
