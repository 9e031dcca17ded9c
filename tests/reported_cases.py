"""The cases of a real run, from its report."""

from __future__ import annotations

import shlex
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fixtures.catalogue.requirements import REQUIREMENTS
from fixtures.report.cases import Case, Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fixtures.report.cases import Outcome
    from fixtures.report.waivers import Waiver


def cases_of(report: dict[str, Any], waivers: Mapping[str, Waiver] = MappingProxyType({})) -> list[Case]:
    """Every case of a ``conformance.json``, with its outcome and the requirements that it judges.

    Of a requirement that is not met the cases that failed are those that the report has run again, or (more than a command
    holds) all that were judged, or, of one that was waived, those that its waiver names: others would not have been waived.
    """
    again = {word for word in shlex.split(report["reproduce"]["failing"]) if "::" in word}
    found: dict[str, Case] = {}
    for entry in report["requirements"]:
        if entry["id"] not in REQUIREMENTS:  # of an earlier catalogue
            continue
        nodeids = entry["cases"]["nodeids"]
        waiver = waivers.get(entry["id"]) if entry.get("waived") else None
        failed = set(nodeids) & again or {one for one in nodeids if waiver is None or waiver.covers(one)}
        for nodeid in nodeids:
            outcome, reason = _outcome(entry, nodeid, nodeid in failed)
            ids = found[nodeid].ids if nodeid in found else ()
            found[nodeid] = Case(nodeid, (*ids, entry["id"]), [Phase("call", outcome, reason)])
    return list(found.values())


def _outcome(entry: dict[str, Any], nodeid: str, failed: bool) -> tuple[Outcome, str]:
    cases = entry["cases"]
    outcomes: tuple[tuple[Outcome, Any], ...] = (
        ("not judged", cases["unjudged"]),
        ("not applicable", cases["not_applicable"]),
    )
    for outcome, told in outcomes:
        for one in told:
            if one["case"] == nodeid:
                return outcome, one["reason"]
    if failed and entry["verdict"] in {"non-conformant", "advisory"}:
        return "failed", entry["reason"]
    return "passed", ""
