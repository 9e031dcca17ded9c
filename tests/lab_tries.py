"""Faults and tries of the lab."""

from __future__ import annotations

from lab.catalogue import FAULTS, HEALTHY

IDS = {fault.id for fault in FAULTS} | {variant.id for variant in HEALTHY}


VERSIONS = {"vllm": "1", "lmcache": "2", "on": "a CPU"}
