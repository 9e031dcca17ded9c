"""The suite on several pairs of versions, one after the other: ``python -m lab.matrix``, ``tox -e matrix``.

Every pair is judged by a run of its own, with its own report; what each needs on disk is said before the first is installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.core.errors import ConfigurationError
from fixtures.core.files import cache_dir
from fixtures.core.places import ROOT
from fixtures.provide.process.completeness import incompleteness
from fixtures.provide.process.pairs import MATRIX, parse_pair
from fixtures.report import report as reporting
from fixtures.report.verdicts import VERDICTS
from lab.versions import FOLDER_VARIABLE

if TYPE_CHECKING:
    from fixtures.provide.process.environment import Pair

PROFILES = ("core", "api")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when every pair could be judged, whatever its verdicts are; 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m lab.matrix", description=__doc__)
    parser.add_argument(
        "--pair", action="append", metavar="VERSIONS", help="as pytest's --pair; repeatable; else all pairs"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("reports/matrix"), help="of the reports, one below it per pair"
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FOLDER",
        help="keep an example of each metric and line that the servers wrote, one folder per pair, for python -m lab.versions",
    )
    parser.add_argument("--remove", action="store_true", help="remove each environment that was not there before")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be run, and what it needs on disk")
    parser.add_argument("arguments", nargs="*", help="of pytest, after --, instead of --profiles core,api")
    options = parser.parse_args(arguments)
    try:
        pairs = [parse_pair(one) for one in options.pair] if options.pair else list(MATRIX)
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    absent = [pair for pair in pairs if incompleteness(cache_dir() / pair.folder, pair) is not None]
    at_once = 1 if options.remove else len(absent)
    need = sum(sorted((pair.size for pair in absent), reverse=True)[:at_once])
    cache_dir().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache_dir()).free
    print(f"{len(pairs)} pairs, {len(absent)} to install: {need / 1e9:.0f} GB at most, {free / 1e9:.0f} GB free")
    if need > free:
        print("error: free some space, name fewer pairs (--pair), or add --remove", file=sys.stderr)
        return 2
    if options.dry_run:
        return 0
    rows = [
        _judge(pair, options.folder, options.arguments, record=options.record, remove=options.remove and pair in absent)
        for pair in pairs
    ]
    print("\n".join(rows))
    return 0 if all(" not judged: " not in row for row in rows) else 1


def _judge(pair: Pair, folder: Path, arguments: Sequence[str], *, record: Path | None, remove: bool) -> str:
    """One run; one line on what came of it."""
    own = folder / pair.name
    versions = f"vllm={pair.vllm},lmcache={pair.lmcache}"
    print(f"== {versions}", flush=True)
    words = [*(arguments or [f"--profiles={','.join(PROFILES)}"]), f"--pair={versions}", f"--report-dir={own}"]
    environment = dict(os.environ)
    if record is not None:
        words += ["-p", "lab.versions"]
        environment[FOLDER_VARIABLE] = str((record / f"vllm-{pair.vllm}-lmcache-{pair.lmcache}").absolute())
    shutil.rmtree(own, ignore_errors=True)
    code = subprocess.run([sys.executable, "-m", "pytest", "suite", *words], cwd=ROOT, env=environment).returncode
    if remove:
        subprocess.run([sys.executable, "-m", "fixtures", "env", "remove", pair.folder], cwd=ROOT)
    try:
        totals = reporting.load(own / "conformance.json")["totals"]
    except (OSError, ValueError):
        return f"{versions}: not judged: no report, exit code {code}"
    if totals.get("errored"):
        return f"{versions}: not judged: {totals['errored']} requirements with an error of the run, see {own}"
    return f"{versions}: " + ", ".join(f"{totals[one]} {one}" for one in VERDICTS if totals.get(one))


if __name__ == "__main__":
    sys.exit(main())
