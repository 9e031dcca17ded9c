"""Faults of the folder of a disk tier below the cache server, and of LMCache's own fault injector above it."""

from __future__ import annotations

from lab.catalogue.model import Fault, Process, ids
from lab.catalogue.settings import DISK, EVICTED, FAILING_LOADS, LOOKED_AT

FAULTS: tuple[Fault, ...] = (
    Fault(
        "disk-folder-gone",
        "configuration",
        "the folder of the disk tier is gone, as after an unmounted volume: LMCache makes it once, at its start",
        "LM 0.5.6 l2_adapters/fs_l2_adapter.py (source)",
        Process("remove-folder", values=DISK),
        ids("TIR-06"),
        tests=LOOKED_AT,
    ),
    Fault(
        "disk-folder-write-protected",
        "configuration",
        "the folder of the disk tier cannot be written to: LMCache starts on it without an error",
        "LM 0.5.6 l2_adapters/fs_l2_adapter.py (source)",
        Process("write-protect-folder", values=DISK),
        ids("TIR-06"),
        tests=LOOKED_AT,
    ),
    Fault(
        "disk-full-at-64-mib",
        "inactive",
        "the folder of the disk tier is on a file system of 64 MiB, a quarter of what it is to take",
        "LM 0.5.6 l2_adapters/fs_l2_adapter.py (source): a write that fails is logged",
        Process("small-folder", values=DISK),
        ids("TIR-01"),
        tests=EVICTED,
    ),
    Fault(
        "below-loads-fail",
        "inactive",
        "the tier finds every chunk, and loads of every second one fail: LMCache's own fault injector",
        "LM 0.5.6 l2_adapters/fault_inject_l2_adapter.py (source)",
        FAILING_LOADS,
        ids("TIR-01"),
        tests=EVICTED,
    ),
)
