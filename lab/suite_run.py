"""One run of the suite on a stack, and the verdicts that its report holds.

Invariant: a run that does not end, or that writes no report, is an error of the lab and no verdict.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fixtures.core.waiting import poll
from fixtures.plugin.locks import FINISHED
from lab import case_selection, forked
from lab.catalogue.model import KEPT_S
from lab.seeding_subject import ROOT, LabError

RUN_DEADLINE_S = 1200.0
"""One run of the suite; what takes longer hangs. The embedded suite takes 2 min, and 10 where bfloat16 is emulated."""
FIRST_TEST_DEADLINE_S = 120.0
TEST_DEADLINE_S = 200
"""One test under a fault: above the client's own deadline of 120 s."""


@dataclass(frozen=True)
class Verdicts:
    """What one run of the suite said."""

    fired: dict[str, str]
    """Requirement id to its reason: non-conformant or advisory."""
    judged: frozenset[str]
    not_judged: dict[str, str]
    """Requirement id to its reason: not judged, or partly."""
    errors: dict[str, str]
    """Requirement id to the error of the run: a fault of the suite, whatever was seeded."""


def judge(
    folder: Path,
    options: list[str],
    *,
    cases: str,
    tests: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    meanwhile: Any = None,
    environment: dict[str, str] | None = None,
    kept_s: float = KEPT_S,
) -> Verdicts:
    """Run the suite and read its report.

    Args:
        folder: for the report and the run's own files.
        options: what tells pytest its subject.
        cases: ``fast``, ``slow`` (fast and the timing tests) or ``full``.
        tests, without: requirement ids (or cases) whose tests alone are run, or left out.
        meanwhile: called once, as soon as the first test is over.
        environment: further variables.
        kept_s: how long a prompt that was stored early has to be kept.

    Raises:
        LabError: there is no report, the run did not end, or it was over before ``meanwhile`` could be called.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    arguments = [
        *("suite", "-p", "lab.case_selection", "-q", "-p", "no:cacheprovider", "--tb=short"),
        *("-p", "no:hypothesispytest"),  # seconds to import, and no test of the suite uses it
        *(f"--report-dir={folder}", f"--run-dir={folder / 'runs'}", f"--timeout={TEST_DEADLINE_S}"),
        *(f"--deadline=kept={kept_s:g}", *options),
    ]
    chosen = {
        case_selection.ENV_CASES: cases,
        case_selection.ENV_TESTS: " ".join(tests),
        case_selection.ENV_WITHOUT: " ".join(without),
    }
    variables = os.environ | chosen | (environment or {})
    if cases == "full" or tests:
        arguments.append("--profiles=all")  # of these only the tests that are named, or everything
    run = forked.start("pytest", arguments, ROOT, log := folder / "pytest.log", variables=variables)
    try:
        if meanwhile is not None:
            wait_for_first_test(folder, run, log)
            meanwhile()
        run.join(RUN_DEADLINE_S)
        if run.is_alive():
            raise LabError(f"the suite did not end within {RUN_DEADLINE_S:.0f} s (log: {log})")
    finally:
        if run.is_alive():
            run.terminate()
            run.join(30)
            run.kill()
        run.join()
    report = folder / "conformance.json"
    if not report.exists():
        tail = log.read_text().splitlines()[-5:] if log.exists() else ["it never began"]
        raise LabError(f"the suite wrote no report: {' / '.join(tail)} (log: {log})")
    return read_verdicts(json.loads(report.read_text()))


def read_verdicts(report: dict[str, Any]) -> Verdicts:
    """The verdicts of a conformance report."""
    entries = report["requirements"]
    return Verdicts(
        fired={e["id"]: e["reason"] for e in entries if e["verdict"] in {"non-conformant", "advisory"}},
        judged=frozenset(e["id"] for e in entries if e["cases"]["judged"]),
        not_judged={e["id"]: e["reason"] for e in entries if e["verdict"] in {"not judged", "partly judged"}},
        errors={e["id"]: e["reason"] for e in entries if e["errored"]},
    )


def wait_for_first_test(folder: Path, run: BaseProcess, log: Path) -> None:
    """Return as soon as one test of a run has ended.

    Raises:
        LabError: the run ended, or none was over in time.
    """
    if not poll(lambda: not run.is_alive() or any(folder.glob(f"runs/*/{FINISHED}")), bool, FIRST_TEST_DEADLINE_S):
        raise LabError(f"no test was over within {FIRST_TEST_DEADLINE_S:.0f} s (log: {log})")
    if not run.is_alive():
        raise LabError(f"the suite was over before anything happened to the processes (log: {log})")
