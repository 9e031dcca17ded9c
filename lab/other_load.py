"""How much of the machine programs take that are not the lab's own.

A fault that turns a timing requirement cannot be judged on a machine that others keep busy: the suite then says that the
measurement is too noisy, and that is not a miss. Only what was measured here excuses a fault, never the suite's word alone.
"""

from __future__ import annotations

import contextlib
import os
import time

import psutil

BUSY_CORES = 0.2
"""Chosen: what others take of an idle machine is a few hundredths of a core; one program that computes takes a whole one."""


class OtherLoad:
    """Cores that others kept busy since this was made."""

    def __init__(self) -> None:
        self._begin, self._others = time.monotonic(), _others_s()

    def cores(self) -> float:
        """On average, over the cores that this process may use."""
        return max(0.0, _others_s() - self._others) / max(time.monotonic() - self._begin, 0.01)


def _others_s() -> float:
    """CPU seconds so far of the cores that this process may use, without its own and those of all below it, ended or not."""
    every = psutil.cpu_times(percpu=True)
    usable = [every[core] for core in os.sched_getaffinity(0) if core < len(every)]
    busy = sum(now.user + now.nice + now.system + now.irq + now.softirq + now.steal for now in usable)
    own = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            own += times.user + times.system + times.children_user + times.children_system
    return float(busy - own)
