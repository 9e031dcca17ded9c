"""A small chart that installs within seconds, and values for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

STAND_IN = Path(__file__).parent / "data/cluster/chart"
MODEL: dict[str, Any] = {
    "name": "m",
    "repository": "example/engine",
    "tag": "1",
    "modelURL": "org/m",
    "replicaCount": 1,
    "requestCPU": 1,
    "requestMemory": "1Gi",
    "lmcacheConfig": {"cpuOffloadingBufferSize": "20"},
}
VALUES = {"servingEngineSpec": {"modelSpec": [MODEL]}}
