"""The faults and the healthy variants, as data.

Every fault names the requirements that must turn (``expected``), those that may turn with them as a consequence
(``allowed``), and nothing else may: a check that fires on everything catches nothing. What is in neither set and fires is
*unrelated*, and the lab fails.

Sources: PS vllm-project/production-stack, LM LMCache/LMCache, V vllm-project/vllm, by issue or pull-request number;
"source" where the code itself was read.

One module for each area, as in ``suite/``: a fault is in that of the requirements that it turns first of all. `folders` has
those of files below the cache server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.catalogue import (
    accounted,
    active,
    bounded,
    capacity,
    configured,
    correct,
    folders,
    resilient,
    routed,
    serving,
    throughput,
    tiers,
    useful,
)
from lab.catalogue.gpu import GPU_FAULTS, GPU_HEALTHY
from lab.catalogue.healthy import HEALTHY

if TYPE_CHECKING:
    from lab.catalogue.model import Fault

__all__ = ["FAULTS", "GPU_FAULTS", "GPU_HEALTHY", "HEALTHY", "SAMPLE"]

FAULTS: tuple[Fault, ...] = (
    *configured.FAULTS,
    *active.FAULTS,
    *accounted.FAULTS,
    *correct.FAULTS,
    *useful.FAULTS,
    *throughput.FAULTS,
    *bounded.FAULTS,
    *capacity.FAULTS,
    *resilient.FAULTS,
    *serving.FAULTS,
    *routed.FAULTS,
    *tiers.FAULTS,
    *folders.FAULTS,
)

SAMPLE: tuple[str, ...] = (
    "write-expired",
    "one-layer-zero",
    "stream-cut",
    "metrics-fail",
    "metric-renamed",
)
"""A few of several kinds, in some minutes (``--sample``): what a pipeline has time for."""
