"""Faults under the load of many conversations."""

from __future__ import annotations

from lab.catalogue.model import Fault, Hook, Proxy, ids
from lab.catalogue.settings import ASKING

FAULTS: tuple[Fault, ...] = (
    Fault(
        "crowded-load-slow",
        "latency",
        "where several requests load at once, each load takes as long as computing its tokens twice",
        "LM#1938, LM#2205",
        Hook("slow-load", {"prefills": 2.0, "crowded": 0.5}),
        ids("THR-01"),
        tests=("CFG-01", "ACC-02", "COR-01", "THR-01", "ACT-04", "API-06"),
    ),
    Fault(
        "one-in-sixty-fails",
        "serving",
        "every sixtieth completion fails with HTTP 503",
        "PS#612, PS#448 (limits under load)",
        Proxy("status", {"status": 503, "every": 60}),
        ids("THR-02"),
        allowed=ASKING,
        tests=("CFG-01", "ACC-02", "COR-01", "THR-02", "ACT-04", "API-06"),
    ),
    Fault(
        "store-takes-longer",
        "latency",
        "every store holds the engine up for half a second",
        "LM#2205, V#32604",
        Hook("slow-store", {"seconds": 0.5}),
        ids("THR-03"),
        tests=("CFG-01", "ACC-02", "COR-01", "THR-03", "ACT-04", "API-06"),
    ),
)
