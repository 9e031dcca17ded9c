"""The configurations that ship, by what they need."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
GPU = ("cpu-offload", "gpu-small", "gpu-multi-process", "gpu-two-engines", "native-offload")
ROUTED = ("two-engines", "router-session", "router-prefix", "router-kv")
