"""Faults and tries of the lab."""

from __future__ import annotations

from pathlib import Path

from lab.catalogue import FAULTS, HEALTHY
from lab.catalogue.gpu import GPU_FAULTS
from lab.grouping import needs_of
from lab.history import read

IDS = {fault.id for fault in FAULTS} | {variant.id for variant in HEALTHY}


VERSIONS = {"vllm": "1", "lmcache": "2", "on": "a CPU"}
PAGE = Path(__file__).resolve().parents[1] / "docs/evidence/lab.jsonl"


def faults_of(configuration: str) -> dict[str, tuple[str, ...] | None]:
    """The faults that the lab seeds into a stack of a configuration, with what each turned at its last good try.

    None of one that has no such try. Those of a card are seeded into gpu-small, the default of ``python -m lab --gpu``.
    """
    if configuration == "gpu-small":
        on_a_card = {one.id: one.fired for one in read(PAGE) if one.good and one.on_gpu}
        return {fault.id: on_a_card.get(fault.id) for fault in GPU_FAULTS}
    values = {fault.id: needs_of(fault).values for fault in FAULTS}
    tried = {one.id: one.fired for one in read(PAGE) if one.good and not one.on_gpu}
    return {
        id_: tried.get(id_)
        for id_, one in values.items()
        if ((one and one.configuration) or "embedded") == configuration
    }
