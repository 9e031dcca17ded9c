"""A bare ``--gate`` by what real engines came to: open by a healthy run of a configuration, closed by every fault of the lab.

Healthy: the cases of reports of real runs (docs/evidence, or cut out by ``python -m tests.gate_data REPORT``). Faults:
what each of the lab turned on a stack of the configuration when it was last tried (docs/evidence/lab.jsonl), in the place of
the same requirements of the healthy run. Catalogue, waivers, fold and gate are today's: a MUST that is new needs new runs, as
without one it closes the gate here as "not run". test_configs.py tests the way there (options, selection, exit code).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.catalogue.requirements import REQUIREMENTS
from fixtures.catalogue.selection import musts
from fixtures.instruments.text_requests import BAD_REQUESTS
from fixtures.provide.values.config import available, load_config
from fixtures.report import gate, verdicts, waivers
from fixtures.report.cases import Case, Phase
from lab.catalogue.settings import REFUSED_AS_TEXT
from tests import gate_data
from tests.lab_tries import faults_of
from tests.reported_cases import cases_of
from tests.shipped import CONFIGS, GPU, ROOT, ROUTED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fixtures.report.waivers import Waiver

EVIDENCE = {
    "native-cpu": ROOT / "docs" / "evidence" / "cpu-native.json",
    "gpu-multi-process": ROOT / "docs" / "evidence" / "h200-healthy.json",
}
"""Reports of healthy runs that docs/evidence keeps whole; those of the other configurations are in `gate_data.FOLDER`."""
SUBJECTS = {"gpu-multi-process": "stack-healthy1"}
"""Names under which a healthy run judged a configuration that is the same but for its name (here: the lab's copy)."""
DEFECTIVE = {
    "cpu-offload": ROOT / "docs" / "evidence" / "h200-chart.json",
    "gpu-small": ROOT / "docs" / "evidence" / "h200-process-small.json",
    "cpu-cluster": gate_data.FOLDER / "faults" / "cpu-cluster.json",
}
"""Real runs that found something: of releases with defects of their own (docs/defects), and of a node with `kv_producer`."""
WITHOUT_A_RUN = {
    "cpu-offload": "needs a GPU: on an H200 vLLM and LMCache of the reference do not meet it (docs/evidence/h200-chart.json)",
    "gpu-small": "needs a GPU: its pair gives wrong answers in process (docs/evidence/h200-process-small.json)",
    "gpu-two-engines": "needs two GPUs: docs/evidence/h200-two-engines.json is a run of 40 requirements",
    "router-kv": "needs a cluster: with a list of engines its router does not notice their ends, so RTR-01 and RTR-03 are open",
}
"""Configurations of which no healthy run is kept, and why."""
NOT_SEEDED = {
    **dict.fromkeys({*GPU} - {"gpu-small"}, "the lab seeds no fault into a stack of it"),
    "cpu-cluster": "the lab seeds no fault into a cluster; its role kv_producer was seeded by hand, see DEFECTIVE",
    "router-session": "the lab seeds its faults of routers into two-engines, whose values it extends",
}
"""Configurations on which no fault was seen, and why."""
WAIVERS = dict.fromkeys(ROUTED, "two-engines") | {
    name: name for name in ("router-kv", "disk", "disk-in-process", "remote", "remote-in-process", "remote-lm")
}
"""The folder of the waivers of known defects with which the gate is open; the others need none."""


def accepted(name: str) -> Mapping[str, Waiver]:
    return waivers.load(CONFIGS / WAIVERS[name] / "waivers.yaml") if name in WAIVERS else {}


def claimed(name: str) -> list[str]:
    """The profiles that the configuration claims; those for a GPU without *chart*, as local processes."""
    return [str(one) for one in load_config(name, CONFIGS).expect.profiles if one != "chart" or name not in GPU]


def healthy(name: str) -> dict[str, Any] | None:
    """The report of a healthy run of it; None if there is none."""
    kept = EVIDENCE.get(name, gate_data.FOLDER / f"{name}.json")
    if name in WITHOUT_A_RUN:
        assert not kept.is_file(), f"{kept} is such a run: take {name} out of WITHOUT_A_RUN"
        return None
    report: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return report


@pytest.mark.parametrize("name", available(CONFIGS))
def test_the_gate_is_open_by_a_real_healthy_run(name: str) -> None:
    report = healthy(name)
    if report is None:
        pytest.skip(f"{name}: {WITHOUT_A_RUN[name]}")
    assert [subject["config"] for subject in report["subjects"]] == [SUBJECTS.get(name, name)]
    results = verdicts.fold(cases_of(report, accepted(name)), accepted(name))
    assert {one.requirement.id: one.verdict for one in results} == {
        entry["id"]: entry["verdict"] for entry in report["requirements"] if entry["id"] in REQUIREMENTS
    }
    assert [(one.id, why) for one, why in gate.unmet(results, claimed(name), accepted(name))] == []
    assert not gate.has_failed(results)


@pytest.mark.parametrize("name", available(CONFIGS))
def test_the_gate_is_closed_by_every_real_fault(name: str) -> None:
    faults, report = faults_of(name), healthy(name)
    if not faults:
        pytest.skip(f"{name}: {NOT_SEEDED[name]}")
    assert name not in NOT_SEEDED
    asked = {one.id for one in musts(claimed(name))}
    closing = {id_: asked.intersection(turned) for id_, turned in faults.items() if turned is not None}
    if not closing:
        pytest.skip(f"{name}: the lab has not tried its faults yet ({', '.join(faults)})")
    assert any(closing.values()), "a fault that turns a MUST of the claimed profiles"
    waived = {one["id"] for one in report["requirements"] if one["verdict"] == "non-conformant"} if report else set()
    not_judged = (
        {one["id"] for one in report["requirements"] if one["verdict"] == "not judged"} & asked if report else set()
    )
    for id_, turned in closing.items():
        if not turned:  # a SHOULD, or a MUST of a profile that is judged on request
            continue
        seeded = [Case(f"{id_}-{one}", (one,), [Phase("call", "failed", f"expected, got {id_}")]) for one in turned]
        results = verdicts.fold([*seeded, *(cases_of(report) if report is not None else ())])
        unmet = {one.id: why for one, why in gate.unmet(results, claimed(name))}
        assert {one for one, why in unmet.items() if why.startswith("non-conformant: ")} == turned | waived, id_
        assert report is None or set(unmet) == turned | waived | (not_judged - turned), id_
        assert gate.has_failed(results)


@pytest.mark.parametrize("id_", ["API-09", "RTR-07"])
def test_what_is_waived_of_a_router_is_what_it_refuses_itself(id_: str) -> None:
    """Without cases they were about every answer through a router, and a run with a fault of one ended with 0."""
    waiver = accepted("two-engines")[id_]
    refused = (
        "test_an_error_of_the_router_is_an_error_object"
        if id_ == "RTR-07"
        else "test_the_router_refuses_as_the_engine_does"
    )
    covered = {one.name for one in BAD_REQUESTS if waiver.covers(f"suite/x.py::{refused}[two-engines-{one.name}]")}
    assert covered == {*REFUSED_AS_TEXT, "unknown-model"}
    assert waiver.covers("suite/x.py::test_without_an_engine_the_router_answers_with_an_error_object[two-engines]") == (
        id_ == "RTR-07"
    )
    for other in (
        "test_a_stream_that_breaks_off_says_so[two-engines]",
        "test_the_router_answers_as_the_engine_does[two-engines-chat-streamed]",
        "test_the_router_passes_a_stream_on_as_it_comes[two-engines-chat]",
    ):
        assert not waiver.covers(f"suite/x.py::{other}")


@pytest.mark.parametrize("name", DEFECTIVE)
def test_the_gate_is_closed_by_what_a_real_run_found(name: str) -> None:
    report = json.loads(DEFECTIVE[name].read_text(encoding="utf-8"))
    assert [subject["config"] for subject in report["subjects"]] == [name]
    results = verdicts.fold(cases_of(report))
    defects = {entry["id"] for entry in report["requirements"] if entry["verdict"] == "non-conformant"}
    unmet = {one.id: why for one, why in gate.unmet(results, claimed(name))}
    assert {one for one, why in unmet.items() if why.startswith("non-conformant: ")} == defects & {
        one.id for one in musts(claimed(name))
    }
    assert gate.has_failed(results)
