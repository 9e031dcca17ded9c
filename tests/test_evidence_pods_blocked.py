"""Why pods wait, by objects recorded on Kubernetes 1.36: what cannot come, and what may still come."""

from __future__ import annotations

import pytest

from fixtures.evidence.pods.blocked import blocked_owner, blocked_pod
from fixtures.evidence.pods.objects import by_object, event_time, seconds_of, state_of, uid_of
from fixtures.provide.release import readiness
from fixtures.provide.release.snapshot import ReleaseSnapshot
from tests.pod_examples import AT, BEGAN, FATES, event, pending, unschedulable

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


def test_an_autoscaler_that_makes_room_is_waited_for() -> None:
    one = seen("gpu")
    pod = one.found[0]
    one.events[uid_of(pod)].append({"reason": "TriggeredScaleUp", "involvedObject": {"uid": uid_of(pod)}})
    assert one.blocked(later("gpu") + 60) == []


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
    assert blocked_owner(one, [failed, claim], AT + 15) is not None, "a claim is not a pod"
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
    row = readiness.rows(ReleaseSnapshot([one], [], [], [], {"1": [event("FailedCreate", QUOTA)]}), AT + 5)[0]
    assert row[:3] == ("o", "no pod", "FailedCreate")
    assert "exceeded quota" in row[3]


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
    row = readiness.rows(seen("pull"), later("pull"))[0]
    assert row[1:3] == ("Pending", "ImagePullBackOff")
    assert "ImagePullBackOff" in row[3]
    no_pod = readiness.rows(seen("runtime"), later("runtime"))
    assert any("RuntimeClass" in row[3] for row in no_pod)
