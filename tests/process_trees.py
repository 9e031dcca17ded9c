"""Records of stacks, and the end of process trees; every process here is real."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from fixtures.core.processes import ProcessRef

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., ProcessRef]


def gone() -> ProcessRef:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return ProcessRef(pid=process.pid, started=time.time())


def other(reference: ProcessRef) -> ProcessRef:
    """The same pid, of a process that ran an hour ago."""
    return reference.model_copy(update={"started": reference.started - 3600})
