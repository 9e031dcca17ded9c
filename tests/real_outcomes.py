"""What runs on real engines came to, case by case: ``pytest suite -p tests.real_outcomes`` writes it, tests read it.

With ``KV_OFFLOAD_OUTCOMES=FILE`` the run that is going on is written there. What the tests read lies in
``tests/data/real_outcomes``: for every configuration that runs on a CPU a healthy run, and one with a fault of the lab.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixtures.plugin.judgement import STATE_KEY
from fixtures.plugin.transport import SUBJECTS_KEY
from fixtures.report.cases import Case, Phase

if TYPE_CHECKING:
    import pytest

FOLDER = Path(__file__).parent / "data" / "real_outcomes"
VARIABLE = "KV_OFFLOAD_OUTCOMES"


@dataclass(frozen=True)
class Recorded:
    """A run on a real engine."""

    fault: str
    """Name of the lab's fault that was seeded; empty for a healthy run."""
    exit_code: int
    gate: list[str]
    """The profiles that it asked for."""
    versions: dict[str, str]
    arguments: list[str]
    cases: tuple[Case, ...]


def read(path: Path) -> Recorded:
    """A run as it was written."""
    found = json.loads(path.read_text(encoding="utf-8"))
    cases = tuple(
        Case(each["case"], tuple(each["ids"]), [Phase("call", each["outcome"], each["reason"])])
        for each in found.pop("cases")
    )
    return Recorded(**found, cases=cases)


def pytest_terminal_summary(exitstatus: int, config: pytest.Config) -> None:
    """Write the run."""
    state = config.stash[STATE_KEY]
    subjects: Any = config.stash[SUBJECTS_KEY]
    written: dict[str, Any] = {
        "fault": os.environ.get("KV_OFFLOAD_OUTCOMES_FAULT", ""),
        "exit_code": int(exitstatus),
        "gate": list(state.gate or ()),
        "versions": next((one["versions"] for one in subjects.values()), {}),
        "arguments": [one for one in config.invocation_params.args if not one.startswith(("--report", "--run", "-p"))],
        "cases": [
            {"case": case.nodeid, "ids": case.ids, "outcome": case.outcome, "reason": case.reason}
            for case in state.log.cases
        ],
    }
    Path(os.environ[VARIABLE]).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
