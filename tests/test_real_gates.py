"""A bare ``--gate`` by what runs on real engines came to: open on a healthy subject, and closed by one seeded fault.

Both runs of a configuration were made with ``--gate`` and kept by ``-p tests.real_outcomes``, the one with a fault of the lab
for the requirement that catches it. Here today's catalogue, waivers, fold and gate are held against their cases;
test_configs.py tests the way there (options, selection, exit code) for every MUST. A MUST that is new needs new runs: without
one it closes the gate here, as "not run".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.provide.values.config import available, load_config
from fixtures.report import gate, verdicts, waivers
from tests import real_outcomes
from tests.shipped import CONFIGS, GPU, ROUTED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fixtures.report.waivers import Waiver
    from tests.real_outcomes import Recorded

WITHOUT_A_RUN = {
    "cpu-cluster": "needs a cluster: docs/evidence/node-chart.md is a run, of before its outcomes were kept by case",
    **dict.fromkeys(
        GPU, "needs a GPU: docs/evidence has reports, none of a healthy run whose outcomes were kept by case"
    ),
    **dict.fromkeys(
        (*ROUTED, "disk", "disk-in-process", "embedded", "native-cpu", "remote", "remote-in-process", "shared"),
        "its runs on a real engine are not kept by case yet",
    ),
}
"""Configurations of which no run is kept, and why."""
WAIVERS = dict.fromkeys(ROUTED, "two-engines") | {"disk": "disk", "remote": "remote"}
"""The folder of the waivers of known defects with which the gate is open; the others need none."""


def accepted(name: str) -> Mapping[str, Waiver]:
    return waivers.load(CONFIGS / WAIVERS[name] / "waivers.yaml") if name in WAIVERS else {}


def recorded(name: str, what: str) -> Recorded:
    path = real_outcomes.FOLDER / f"{name}.{what}.json"
    if name in WITHOUT_A_RUN:
        assert not path.exists(), f"remove {name} from WITHOUT_A_RUN"
        pytest.skip(f"{name}: {WITHOUT_A_RUN[name]}")
    return real_outcomes.read(path)


def claimed(name: str) -> set[str]:
    return {str(one) for one in load_config(name, CONFIGS).expect.profiles} - {"chart"}


@pytest.mark.parametrize("name", available(CONFIGS))
def test_the_gate_is_open_by_a_real_healthy_run(name: str) -> None:
    run = recorded(name, "healthy")
    assert (run.fault, run.exit_code) == ("", 0)
    assert set(run.gate) == claimed(name), "run it again: the configuration claims other profiles now"
    results = verdicts.fold(run.cases, accepted(name))
    assert [(each.id, why) for each, why in gate.unmet(results, run.gate, accepted(name))] == []
    assert not gate.has_failed(results)


@pytest.mark.parametrize("name", available(CONFIGS))
def test_the_gate_is_closed_by_a_real_fault(name: str) -> None:
    """The cases that the fault turned, in the place of the same ones of the healthy run."""
    run = recorded(name, "fault")
    failed = {id_ for case in run.cases if case.outcome == "failed" for id_ in case.ids}
    assert run.fault
    assert run.exit_code == 1
    again = {case.nodeid for case in run.cases}
    healthy = recorded(name, "healthy")
    cases = [*run.cases, *(case for case in healthy.cases if case.nodeid not in again)]
    results = verdicts.fold(cases, accepted(name))
    unmet = {each.id: why for each, why in gate.unmet(results, healthy.gate, accepted(name))}
    assert len(unmet) == 1, "one fault, one requirement"
    assert failed == set(unmet)
    assert all(why.startswith("non-conformant: expected ") for why in unmet.values()), unmet
    assert gate.has_failed(results)
