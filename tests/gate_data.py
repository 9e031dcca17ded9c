"""``python -m tests.gate_data REPORT...``: keep of the report of a healthy run what tests/test_real_gates.py judges a gate by.

Of each ``conformance.json`` it writes ``tests/data/gates/CONFIGURATION.json``: the verdicts and cases of the requirements that
were run, and what ran. The rest of a report (figures, options, the machine) would change with every run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixtures.report import report as reporting
from tests.shipped import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = ROOT / "tests" / "data" / "gates"
CASES = ("judged", "total", "nodeids", "unjudged", "not_applicable")


def cut(report: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a report that decides about a gate."""
    return {
        "started": report["run"]["started"],
        "subjects": [{key: subject[key] for key in ("config", "versions")} for subject in report["subjects"]],
        "gate": report["gate"],
        "requirements": [
            {key: entry[key] for key in ("id", "verdict", "reason", "waived")}
            | {"cases": {key: entry["cases"][key] for key in CASES}}
            for entry in report["requirements"]
        ],
        "reproduce": {"failing": report["reproduce"]["failing"]},
    }


def write(path: Path, folder: Path = FOLDER) -> Path:
    """Write the part of a report that is kept, and return its path.

    Raises:
        OSError: the report cannot be read.
        ValueError: it is no report, it was interrupted, or it is not the report of one configuration.
    """
    report = reporting.load(path)
    if report["run"]["interrupted"]:
        raise ValueError("the run was interrupted; keep the report of one that ended by itself")
    if len(report["subjects"]) != 1 or not (name := report["subjects"][0]["config"]):
        raise ValueError("expected the report of one configuration; run pytest with one --config")
    kept = folder / f"{name}.json"
    kept.write_text(json.dumps(cut(report), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return kept


def main(arguments: Sequence[str] | None = None) -> None:
    """Write what is kept of every report; exit with 2 if one cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m tests.gate_data", description="Write what is kept of a report.")
    parser.add_argument("reports", type=Path, nargs="+", metavar="REPORT", help="the conformance.json of a healthy run")
    for path in parser.parse_args(arguments).reports:
        try:
            print(f"wrote {write(path)}")
        except (OSError, ValueError) as error:
            parser.error(f"{path}: {error}")


if __name__ == "__main__":
    main()
