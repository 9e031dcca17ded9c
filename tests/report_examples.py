"""What a release is gated on: waivers, the default gate, and the comparison with the last run."""

from __future__ import annotations

from typing import Any

from fixtures.report import report as reporting
from fixtures.report.cases import Case, Figure, Phase
from fixtures.report.verdicts import fold

FAILING = '@requirement("ACC-02")\ndef test_it(): assert 0, "expected 2048, got 0"\n'


# --- comparing ------------------------------------------------------------------------------------------------------


def report(**outcomes: Any) -> dict[str, Any]:
    cases = []
    for id_, outcome in {"ACC-01": "passed", "LAT-01": "passed", **outcomes}.items():
        cases.append(Case(f"t::{id_}", (id_.replace("_", "-"),), [Phase("call", outcome, "why")]))
    cases[1].figures = [
        Figure("reload / cold", 0.40, "", 12, 0.38, 0.42, "lower"),
        Figure("TTFT reload", 20.0, "ms", 12, 19.0, 21.0, "lower"),
        Figure("efficiency", 0.9, "", 12, 0.88, 0.92, "higher"),
        Figure("peak", 2.0, "GiB", better="lower"),
        Figure("prompt", 4097, "tokens"),
    ]
    run = reporting.Circumstances(started=0.0, duration_s=1.0, exit_status=0)
    facts = {"config": "embedded", "stack": "process", "host": {"cores": 2}, "versions": {"vllm": "0.31"}}
    return reporting.build(fold(cases), run, [facts])
