"""Pods and events as Kubernetes wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fixtures.evidence.pods.objects import seconds_of

FATES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "data/cluster/fates.json").read_text())


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
