"""Why things wait, by objects recorded on Kubernetes 1.36 (one node, containerd, no GPU)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.evidence.pods.blocked import blocked_owner, blocked_pod, rejected_pods
from fixtures.evidence.pods.containers import (
    argv_of,
    env_of,
    main_container,
    out_of_memory,
    quantity,
    requests_of,
    role_of,
    speaks_http,
)
from fixtures.evidence.pods.objects import (
    by_object,
    event_time,
    is_ready,
    last_end,
    ready_budget_s,
    restarts,
    seconds_of,
    started_in_s,
    startup_budget_s,
    state_of,
    uid_of,
)
from fixtures.provide.release import discover, waiting
from fixtures.provide.release.snapshot import ReleaseSnapshot

FATES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "data/cluster/fates.json").read_text())
STANDARD = {"metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}


def seen(fate: str) -> ReleaseSnapshot:
    one = FATES[fate]
    return ReleaseSnapshot(
        [one["deployment"]], one["replica_sets"], one["pods"], one["claims"], by_object(one["events"]), [STANDARD]
    )


def later(fate: str) -> float:
    """A moment when every grace is over."""
    events = FATES[fate]["events"]
    return max(map(event_time, events)) + 5 if events else 0.0


@pytest.mark.parametrize(
    ("fate", "who", "words"),
    [
        ("crash", "Pod crash-", "container vllm ended"),
        ("pull", "Pod pull-", "no-such-image:1: not found"),
        ("gpu", "Pod gpu-", "Insufficient nvidia.com/gpu"),
        ("runtime", "ReplicaSet runtime-", 'RuntimeClass "no-such-class" not found'),
        ("secret", "Pod secret-", 'secret "nobody" not found'),
        ("noclass", "PersistentVolumeClaim noclass", "there is no StorageClass fast"),
        ("quota", "ReplicaSet quota-", "exceeded quota"),
    ],
)
def test_what_cannot_come_is_named(fate: str, who: str, words: str) -> None:
    first = seen(fate).blocked(later(fate) + 20)[0]
    assert first.thing.startswith(who)
    assert words in first.message.replace("\\", "")
    assert first.remedy


def test_a_volume_that_cannot_be_mounted_is_named_after_its_grace() -> None:
    began = seconds_of(FATES["mount"]["pods"][0]["metadata"]["creationTimestamp"])
    assert began is not None
    assert seen("mount").blocked(began + 5) == []
    assert 'configmap "nobody" not found' in seen("mount").blocked(began + 40)[0].message


@pytest.mark.parametrize("fate", ["ready", "never"])
def test_what_may_still_come_is_waited_for(fate: str) -> None:
    assert seen(fate).blocked(later(fate) + 3600) == []


@pytest.mark.parametrize("fate", ["gpu", "runtime", "quota"])
def test_what_young_releases_pass_through_has_a_grace(fate: str) -> None:
    one = FATES[fate]
    began = seconds_of(one["deployment"]["metadata"]["creationTimestamp"])
    assert began is not None
    assert seen(fate).blocked(began + 2) == []


def test_somebody_who_makes_room_is_waited_for() -> None:
    one = seen("gpu")
    pod = one.found[0]
    one.events[uid_of(pod)].append({"reason": "TriggeredScaleUp", "involvedObject": {"uid": uid_of(pod)}})
    assert one.blocked(later("gpu") + 60) == []


BEGAN = "2026-11-25T14:00:00Z"
AT = seconds_of(BEGAN) or 0.0


def pending(**status: Any) -> dict[str, Any]:
    conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": BEGAN}]
    waits = [{"name": "vllm", "state": {"waiting": {"reason": "ContainerCreating"}}}]
    meta = {"name": "p", "uid": "1", "creationTimestamp": BEGAN}
    return {
        "metadata": meta,
        "spec": {"containers": [{"name": "vllm"}]},
        "status": {"phase": "Pending", "conditions": conditions, "containerStatuses": waits, **status},
    }


def event(reason: str, message: str = "", at_s: float = 5.0) -> dict[str, Any]:
    stamp = f"2026-11-25T14:{int(at_s // 60):02d}:{int(at_s % 60):02d}Z"
    return {"reason": reason, "message": message, "lastTimestamp": stamp, "involvedObject": {"uid": "1"}}


def unschedulable(message: str = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.") -> dict[str, Any]:
    one = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return pending(conditions=[{**one, "lastTransitionTime": BEGAN}], containerStatuses=[])


@pytest.mark.parametrize("reason", ["Nominated", "NominatedNode", "TriggeredScaleUp"])
def test_a_node_that_is_being_made_is_waited_for(reason: str) -> None:
    assert blocked_pod(unschedulable(), [event(reason)], AT + 600) is None
    assert blocked_pod(unschedulable(), [event("FailedScheduling")], AT + 20) is not None


def test_missing_gpus_are_told_with_what_helps_against_them() -> None:
    gpu = blocked_pod(unschedulable(), [], AT + 20)
    assert gpu is not None
    assert "install the device plugin" in gpu.remedy
    other = blocked_pod(unschedulable("0/1 nodes are available: 1 Insufficient memory."), [], AT + 20)
    assert other is not None
    assert other.remedy == "add a node that fits, or lower the requests in the values"


def test_an_autoscaler_has_time_to_announce_a_node() -> None:
    assert blocked_pod(unschedulable(), [], AT + 60, autoscaled=True) is None
    assert blocked_pod(unschedulable(), [], AT + 120, autoscaled=True) is not None


def test_a_volume_that_is_being_made_does_not_block_its_pod() -> None:
    pod = unschedulable("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.")
    assert blocked_pod(pod, [], AT + 100) is None


NO_RUNTIME = (
    "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for "
    '"nvidia" is configured'
)


def test_a_runtime_that_the_node_does_not_have_blocks_within_seconds() -> None:
    found = blocked_pod(pending(), [event("FailedCreatePodSandBox", NO_RUNTIME)], AT + 6)
    assert found is not None
    assert "nvidia-ctk runtime configure" in found.remedy
    assert 'runtimeClassName to ""' in found.remedy
    young = [event("TriggeredScaleUp", at_s=1), event("FailedCreatePodSandBox", NO_RUNTIME)]
    assert blocked_pod(pending(), young, AT + 30) is None, "an operator is about to install it on a new node"


def test_a_network_that_starts_is_waited_for() -> None:
    say = "plugin type=cilium failed: unable to connect to Cilium daemon"
    assert blocked_pod(pending(), [event("FailedCreatePodSandBox", say)], AT + 30) is None
    found = blocked_pod(pending(), [event("FailedCreatePodSandBox", say, 120)], AT + 130)
    assert found is not None
    assert "network plugin" in found.remedy


def test_a_volume_of_another_node_has_its_own_remedy() -> None:
    say = 'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) vllm-0'
    found = blocked_pod(pending(), [event("FailedAttachVolume", say)], AT + 30)
    assert found is not None
    assert "ReadWriteMany" in found.remedy
    assert "create what it mounts" not in found.remedy


CALICO = 'plugin type="calico" failed (add): stat /var/lib/calico/nodename: no such file or directory'
NOBODY = 'MountVolume.SetUp failed for volume "cfg" : configmap "nobody" not found'


@pytest.mark.parametrize(
    ("reason", "message"),
    [("FailedCreatePodSandBox", NO_RUNTIME), ("FailedCreatePodSandBox", CALICO), ("FailedMount", NOBODY)],
)
def test_what_came_right_before_the_image_was_pulled_blocks_nothing(reason: str, message: str) -> None:
    failed = event(reason, message, 118)
    assert blocked_pod(pending(), [failed], AT + 130) is not None
    for later in ("Pulling", "Pulled", "Created", "Started"):
        assert blocked_pod(pending(), [failed, event(later, at_s=125)], AT + 130) is None
        assert blocked_pod(pending(), [event(later, at_s=118), failed], AT + 130) is None, "of the same second"
        assert blocked_pod(pending(), [event(later, at_s=100), failed], AT + 130) is not None


def test_a_volume_that_is_attached_at_last_blocks_nothing() -> None:
    failed = event("FailedAttachVolume", 'AttachVolume.Attach failed for volume "pvc-1" : rpc error: Internal', 10)
    assert blocked_pod(pending(), [failed], AT + 30) is not None
    for said in ("", 'AttachVolume.Attach succeeded for volume "pvc-1" '):
        assert blocked_pod(pending(), [failed, event("SuccessfulAttachVolume", said, 15)], AT + 30) is None
    other = event("SuccessfulAttachVolume", 'AttachVolume.Attach succeeded for volume "pvc-2" ', 15)
    assert blocked_pod(pending(), [failed, other], AT + 30) is not None, "another volume"
    early = event("SuccessfulAttachVolume", 'AttachVolume.Attach succeeded for volume "pvc-1" ', 5)
    assert blocked_pod(pending(), [early, failed], AT + 30) is not None


@pytest.mark.parametrize(
    ("reason", "message", "words"),
    [
        (
            "FailedMount",
            'MountVolume.MountDevice failed for volume "pvc-1" : driver name ebs.csi.aws.com not found in the list of '
            "registered CSI drivers",
            "install the CSI driver",
        ),
        ("FailedAttachVolume", "CSINode ip-10 does not contain driver ebs.csi.aws.com", "install the CSI driver"),
        ("FailedMount", "failed to sync configmap cache: timed out waiting for the condition", "the kubelet"),
        ("FailedMount", 'object "ns"/"kube-root-ca.crt" not registered', "create what it mounts"),
    ],
)
def test_a_mount_that_the_next_attempt_may_do_has_a_grace(reason: str, message: str, words: str) -> None:
    assert blocked_pod(pending(), [event(reason, message, 20)], AT + 30) is None
    assert blocked_pod(pending(), [event(reason, message, 63)], AT + 170) is None, "the next attempt comes late"
    found = blocked_pod(pending(), [event(reason, message, 127)], AT + 130)
    assert found is not None
    assert words in found.remedy


@pytest.mark.parametrize(
    ("reason", "message", "words"),
    [
        (
            "CreateContainerConfigError",
            "services have not yet been read at least once, cannot construct envvars",
            "the kubelet",
        ),
        (
            "CreateContainerConfigError",
            "failed to sync secret cache: timed out waiting for the condition",
            "the kubelet",
        ),
        (
            "CreateContainerConfigError",
            "failed to sync configmap cache: timed out waiting for the condition",
            "kubelet",
        ),
        (
            "CreateContainerError",
            'failed to reserve container name "vllm_p_ns_1_0": name "vllm_p_ns_1_0" is reserved for "abc"',
            "delete the pod",
        ),
        ("CreateContainerError", "error reserving ctr name k8s_vllm_p for id abc: name is reserved", "delete the pod"),
    ],
)
def test_a_container_that_the_next_attempt_may_make_has_a_grace(reason: str, message: str, words: str) -> None:
    waits = [{"name": "vllm", "state": {"waiting": {"reason": reason, "message": message}}}]
    pod = pending(containerStatuses=waits)
    assert blocked_pod(pod, [], AT + 60) is None
    young = [event("Pulled", at_s=600), event("Failed", f"Error: {message}", 605)]
    assert blocked_pod(pod, young, AT + 700) is None, "it lasts since its event, not since the pod is there"
    again = [event("Failed", f"Error: {message}", 30), event("Started", at_s=600)]
    assert blocked_pod(pod, again, AT + 700) is None, "it had come right meanwhile"
    found = blocked_pod(pod, young, AT + 800)
    assert found is not None
    assert words in found.remedy


def test_a_secret_that_is_not_there_blocks_at_once() -> None:
    say = {"reason": "CreateContainerConfigError", "message": 'secret "nobody" not found'}
    found = blocked_pod(pending(containerStatuses=[{"name": "vllm", "state": {"waiting": say}}]), [], AT + 2)
    assert found is not None
    assert "create the Secret" in found.remedy


@pytest.mark.parametrize(
    "message",
    [
        'OCI runtime create failed: exec: "nvidia-container-runtime": executable file not found in $PATH: <nil>: unknown',
        "fork/exec /usr/local/nvidia/toolkit/nvidia-container-runtime: no such file or directory: unknown",
        "failed to find runtime handler nvidia from runtime list map[crun:0xc000 runc:0xc0001]",
        "Error response from daemon: unknown or invalid runtime name: nvidia",
    ],
)
def test_every_words_for_a_runtime_that_is_not_there_block_within_seconds(message: str) -> None:
    found = blocked_pod(pending(), [event("FailedCreatePodSandBox", message)], AT + 6)
    assert found is not None
    assert "nvidia-ctk runtime configure" in found.remedy


def test_a_network_that_lacks_a_program_is_waited_for_too() -> None:
    say = 'failed to setup network for sandbox "1": exec: "portmap": executable file not found in $PATH'
    assert blocked_pod(pending(), [event("FailedCreatePodSandBox", say)], AT + 30) is None


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


def test_a_node_that_rejects_its_pods_again_and_again_is_told() -> None:
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
    ("refusal", "message"),
    [
        ("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 in backoff after failed scale-up"),
        ("FailedScaleUp", "Node scale up in zones a associated with this pod failed: GCE out of resources."),
    ],
)
def test_the_last_word_of_an_autoscaler_counts(refusal: str, message: str) -> None:
    announced, refused = event("TriggeredScaleUp", at_s=10), event(refusal, message, 100)
    assert blocked_pod(unschedulable(), [announced, refused], AT + 150) is None, "it may try another group"
    found = blocked_pod(unschedulable(), [announced, refused], AT + 200)
    assert found is not None
    assert message in found.message
    repeated = {**event(refusal, message, 190), "firstTimestamp": event("", at_s=100)["lastTimestamp"]}
    assert blocked_pod(unschedulable(), [announced, repeated], AT + 200) is not None
    before = {**event(refusal, message, 110), "firstTimestamp": event("", at_s=1)["lastTimestamp"]}
    late = event("TriggeredScaleUp", at_s=100)
    assert blocked_pod(unschedulable(), [late, before], AT + 150) is None, "said before, too"
    assert blocked_pod(unschedulable(), [refused, event("TriggeredScaleUp", at_s=110)], AT + 900) is None
    assert blocked_pod(unschedulable(), [event("TriggeredScaleUp", at_s=100), refused], AT + 900) is None
    first = event(refusal, message, 10)
    assert blocked_pod(unschedulable(), [first], AT + 60) is None, "there is an autoscaler: it may try again"
    assert blocked_pod(unschedulable(), [first], AT + 100) is not None


def test_the_last_word_of_karpenter_counts_and_the_schedulers_is_none() -> None:
    announced = event("Nominated", at_s=10)
    scheduler = {**event("FailedScheduling", "0/1 nodes", 100), "source": {"component": "default-scheduler"}}
    assert blocked_pod(unschedulable(), [announced, scheduler], AT + 900) is None
    karpenter = {**event("FailedScheduling", "no instance type", 100), "reportingComponent": "karpenter"}
    assert blocked_pod(unschedulable(), [announced, karpenter], AT + 150) is None
    assert blocked_pod(unschedulable(), [announced, karpenter], AT + 200) is not None


QUOTA = 'create Pod o-0 in StatefulSet o failed error: pods "o-0" is forbidden: exceeded quota: q, requested: pods=1'


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_sets_that_may_make_no_pod_are_told_by_their_events(kind: str) -> None:
    one = {"kind": kind, "metadata": {"name": "o", "uid": "1"}, "spec": {"replicas": 2}, "status": {}}
    failed = event("FailedCreate", QUOTA)
    assert blocked_owner(one, [failed], AT + 7) is None
    found = blocked_owner(one, [failed], AT + 15)
    assert found is not None
    assert str(found).startswith(f"{kind} o: no pod is made: create Pod o-0")
    assert "raise the quota" in found.remedy
    claim = event("SuccessfulCreate", "create Claim data-o-0 Pod o-0 in StatefulSet o success", 6)
    assert blocked_owner(one, [failed, claim], AT + 15) is not None, "a claim is no pod"
    made = event("SuccessfulCreate", "create Pod o-0 in StatefulSet o successful", 6)
    assert blocked_owner(one, [failed, made], AT + 15) is None
    assert blocked_owner(one, [event("FailedCreate", QUOTA, 2), made], AT + 600) is None
    again = event("FailedCreate", QUOTA, 60)
    assert blocked_owner(one, [made, again], AT + 70) is not None
    webhook = event("FailedCreate", 'create Pod o-0 failed: failed calling webhook "m": connection refused')
    assert blocked_owner(one, [webhook], AT + 60) is None
    assert blocked_owner(one, [webhook], AT + 200) is not None
    one["status"] = {"replicas": 2, "desiredNumberScheduled": 2, "currentNumberScheduled": 2}
    assert blocked_owner(one, [failed], AT + 15) is None, "it has all of its pods"


def test_a_set_that_may_make_no_pod_is_a_row() -> None:
    one = {"kind": "StatefulSet", "metadata": {"name": "o", "uid": "1"}, "spec": {"replicas": 1}}
    row = waiting.rows(ReleaseSnapshot([one], [], [], [], {"1": [event("FailedCreate", QUOTA)]}), AT + 5)[0]
    assert row[:3] == ("o", "no pod", "FailedCreate")
    assert "exceeded quota" in row[3]


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


def test_an_evicted_pod_blocks_nothing() -> None:
    pod = pending(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    assert blocked_pod(pod, [event("FailedMount")], AT + 100) is None
    assert state_of(pod) == "Evicted: The node was low on resource: memory."


def test_the_state_of_a_pod_in_words() -> None:
    flaps = {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "lastTransitionTime": BEGAN}
    assert state_of(pending(phase="Running", conditions=[flaps], containerStatuses=[])) == (
        f"Running, not Ready since {BEGAN} (ContainersNotReady)"
    )
    assert state_of(pending(conditions=[{"type": "Ready", "status": "True"}])) == "Ready"
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}
    assert state_of(pending(conditions=[waits])) == "Unschedulable: 0/1 nodes are available"


def test_rows_show_why() -> None:
    row = waiting.rows(seen("pull"), later("pull"))[0]
    assert row[1:3] == ("Pending", "ImagePullBackOff")
    assert "ImagePullBackOff" in row[3]
    no_pod = waiting.rows(seen("runtime"), later("runtime"))
    assert any("RuntimeClass" in row[3] for row in no_pod)


def test_readiness_and_start_up() -> None:
    pod = FATES["ready"]["pods"][0]
    assert is_ready(pod)
    assert not is_ready(FATES["never"]["pods"][0])
    assert not is_ready({**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    started = started_in_s(pod, "vllm")
    assert started is not None
    assert 0 <= started < 10
    assert restarts(FATES["crash"]["pods"][0]) >= 2
    assert last_end(FATES["crash"]["pods"][0]) == "Error (exit code 1)"


def test_times_of_the_scheduler_count() -> None:
    assert event_time({"eventTime": "2026-11-25T14:55:41.556143Z"}) == pytest.approx(1795618541.556143)
    assert event_time({"lastTimestamp": "2026-11-25T14:55:41Z"}) == 1795618541.0
    assert event_time({}) == 0.0


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["/opt/venv/bin/vllm", "serve", "m"], "engine"),
        (["vllm", "serve", "m"], "engine"),
        (["python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "m"], "engine"),
        (["/opt/venv/bin/lmcache", "server"], "cache server"),
        (["/opt/venv/bin/lmcache_server", "0.0.0.0", "81"], "cache server"),
        (["/usr/bin/lmcache_experimental_server", "0.0.0.0", "81"], "cache server"),
        (["python3", "-m", "lmcache.v1.server", "0.0.0.0", "81"], "cache server"),
        (["python3", "-m", "lmcache.experimental.server", "0.0.0.0", "81"], "cache server"),
        (["python3", "-m", "lmcache.v1.multiprocess.http_server"], "cache server"),
        (["bash", "-c", "lmcache server --port 5555"], "cache server"),
        (["python3", "-m", "lmcache.cli.main", "server"], "cache server"),
        (["bash", "-c", "vllm serve m --port 9000"], "engine"),
        (["/bin/sh", "-ec", "ray start --head && exec /opt/venv/bin/vllm serve m"], "engine"),
        (["bash", "-lc", "export A=1\nsleep 5; HF_HOME=/x vllm serve m 2>&1 | tee log"], "engine"),
        (["numactl", "--cpunodebind=0", "vllm", "serve", "m"], "engine"),
        (["lmcache_vllm", "serve", "m"], "engine"),
        (["bash", "-c", 'eval "exec vllm serve m ${MORE}"'], "engine"),
        (["bash", "-c", 'eval "$(conda shell.bash hook)"; sleep infinity'], "other"),
        (["vllm", "serve", "m", "--headless"], "other"),
        (["bash", "-c", "ray start --address=$LWS_LEADER_ADDRESS:6379 --block"], "other"),
        (["python", "watch.py", "--note", "restarts vllm serve when it hangs"], "other"),
        (["python", "router.py", "--routing-logic", "roundrobin"], "router"),
        (["nginx"], "other"),
    ],
)
def test_roles_by_what_is_run(command: list[str], role: str) -> None:
    sidecar = {"name": "sidecar", "command": ["tail"]}
    pod = {"metadata": {}, "spec": {"containers": [sidecar, {"name": "main", "command": command}]}}
    assert role_of(pod) == role
    if role in {"engine", "cache server"}:
        assert main_container(pod, role)["name"] == "main"


def test_a_shell_around_a_command_is_taken_off() -> None:
    script = 'set -e; vllm serve "$MODEL" --port ${PORT} \\\n --kv-transfer-config \'{"kv_connector": "X"}\''
    env = [{"name": "MODEL", "value": "org/m"}, {"name": "PORT", "value": "9000"}]
    container = {"command": ["bash", "-c"], "args": [script], "env": env}
    words = argv_of(container)
    assert words == ("vllm", "serve", "org/m", "--port", "9000", "--kv-transfer-config", '{"kv_connector": "X"}')
    pod = {"metadata": {}, "spec": {"containers": [container]}}
    assert discover.port_of(pod, "engine") == 9000
    assert discover.served_model(pod) == "org/m"


def test_an_image_that_starts_vllm_by_itself_is_an_engine() -> None:
    container = {"image": "registry/vllm/vllm-openai:v0.32.0", "args": ["--model", "org/m"]}
    pod = {"metadata": {}, "spec": {"containers": [container]}}
    assert role_of(pod) == "engine"
    assert discover.served_model(pod) == "org/m"


@pytest.mark.parametrize(
    ("image", "args", "role"),
    [
        ("registry.redhat.io/rhaiis/vllm-cuda-rhel9:3", ["--model", "org/m"], "engine"),
        ("public.ecr.aws/q9t5s3a7/vllm-cpu-release-repo:v0.32.0", ["--model=org/m", "--port=8000"], "engine"),
        ("quay.io/modh/vllm@sha256:0", ["--model", "org/m"], "engine"),
        ("quay.io/modh/vllm", ["--help"], "other"),
        ("example/vllm-router:1", ["--model", "org/m"], "other"),
        ("example/my-vllm-bench", ["--model", "org/m"], "other"),
    ],
)
def test_images_of_others_that_start_vllm_by_themselves(image: str, args: list[str], role: str) -> None:
    pod = {"metadata": {}, "spec": {"containers": [{"image": image, "args": args}]}}
    assert role_of(pod) == role
    assert role == "other" or discover.served_model(pod) == "org/m"


def test_what_eval_runs_is_read_as_a_script() -> None:
    script = (
        'if [ "$A" = b ]; then exit 1; fi\neval "vllm serve \\\n /m \\\n --served-model-name "org/m" --port 8001 ${X}"'
    )
    pod = {"metadata": {}, "spec": {"containers": [{"command": ["/bin/bash", "-c"], "args": [script]}]}}
    assert discover.port_of(pod, "engine") == 8001
    assert discover.served_model(pod) == "org/m"


def test_variables_of_the_pod_are_filled_in() -> None:
    container = {"command": ["vllm", "serve", "$(MODEL)", "$(NODE)"], "env": [{"name": "MODEL", "value": "org/m"}]}
    assert argv_of(container) == ("vllm", "serve", "org/m", "$(NODE)")


def test_only_lmcache_server_speaks_http() -> None:
    assert speaks_http(("lmcache", "server", "--port", "1"))
    assert speaks_http(("python", "-m", "lmcache.v1.multiprocess.http_server"))
    assert not speaks_http(("/x/lmcache_experimental_server", "h", "81"))
    assert not speaks_http(("python", "-m", "lmcache.v1.server", "h", "81"))


def test_ports_and_models_of_pods() -> None:
    def pod(*command: str, **container: Any) -> dict[str, Any]:
        return {"metadata": {}, "spec": {"containers": [{"command": list(command), **container}]}}

    assert discover.port_of(pod("vllm", "serve", "m", "--port", "9000"), "engine") == 9000
    assert discover.port_of(pod("vllm", "serve", "m"), "engine") == 8000
    assert discover.port_of(pod("lmcache", "server", "--http-port", "8180"), "cache server") == 8180
    module = ("python", "-m", "lmcache.v1.multiprocess.server", "--port", "5555")
    assert speaks_http(module)
    assert discover.port_of(pod(*module), "cache server") == 9090
    assert discover.port_of(pod(*module, "--prometheus-port", "9100"), "cache server") == 9100
    named = pod("x", ports=[{"name": "router-port", "containerPort": 8001}])
    assert discover.port_of(named, "router") == 8001
    assert discover.served_model(pod("vllm", "serve", "org/m")) == "org/m"
    assert discover.served_model(pod("vllm", "serve", "/m", "--served-model-name", "org/m")) == "org/m"
    assert discover.served_model(pod("vllm", "serve")) is None


@pytest.mark.parametrize(
    ("text", "number"), [("100m", 0.1), ("48Gi", 48 * 1024**3), ("2", 2.0), ("1e3", 1000.0), ("1.5G", 1.5e9)]
)
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "many", "20GB", "1 Gi"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        quantity(text)


def test_requests_of_a_pod() -> None:
    spec = {
        "containers": [
            {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"nvidia.com/gpu": "1"}}},
            {"resources": {"requests": {"cpu": "500m"}}},
            {},
        ],
        "initContainers": [{"resources": {"requests": {"cpu": "4"}}}],
    }
    assert requests_of(spec) == {"cpu": 4.0, "memory": 1024**3, "nvidia.com/gpu": 1.0}


def test_the_budget_of_a_start_up() -> None:
    probe = {"initialDelaySeconds": 15, "periodSeconds": 10, "failureThreshold": 60}
    assert startup_budget_s({"startupProbe": probe}) == 615.0
    assert startup_budget_s({"startupProbe": {}}) is None
    assert startup_budget_s({}) is None


@pytest.mark.parametrize(
    ("readiness", "expected"),
    [
        (None, 21.0),
        ({"initialDelaySeconds": 30, "periodSeconds": 5}, 36.0),
        ({"periodSeconds": 2}, 23.0),
        ({"initialDelaySeconds": 1, "periodSeconds": 5, "successThreshold": 3}, 36.0),
    ],
)
def test_the_budget_until_a_container_is_ready(readiness: dict[str, int] | None, expected: float) -> None:
    """The router of chart 0.1.12 was ready after 34 s without a restart: its readiness probe begins after 30 s."""
    probe = {"initialDelaySeconds": 5, "periodSeconds": 5, "failureThreshold": 3}
    assert ready_budget_s({"startupProbe": probe, "readinessProbe": readiness}) == expected
    assert ready_budget_s({"readinessProbe": readiness}) is None


def test_environments_keep_doubles_and_references() -> None:
    env = [
        {"name": "A", "value": "1"},
        {"name": "A", "value": "2"},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "EMPTY"},
    ]
    assert env_of({"env": env}) == [
        ("A", "1"),
        ("A", "2"),
        ("IP", "$(status.podIP)"),
        ("KEY", "$(secretKeyRef:s/k)"),
        ("EMPTY", ""),
    ]
