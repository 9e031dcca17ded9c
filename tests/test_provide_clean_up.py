"""What a run leaves that is ended at some point by some signal, and what removes it; the table of ``docs/clean-up.md``.

A sample runs always, all points with ``tox -e tests-long``. ``KV_OFFLOAD_TEST_SIGNALS=FILE`` adds a row of JSON to FILE
for each; ``python -m tests.test_provide_clean_up FILE`` writes the page.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.progress import Progress
from fixtures.core.waiting import poll
from fixtures.provide.orphans import remove_orphans, remove_release
from tests import process_project as of_processes
from tests import release_project as of_a_release
from tests.apart import Started

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fixtures.core.record import StackRecord

pytest.importorskip("kubernetes")
pytest_plugins = ("pytester",)

chart_project, process_project = of_a_release.project, of_processes.project

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/clean-up.md"
ROWS = os.environ.get("KV_OFFLOAD_TEST_SIGNALS")
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL")
CHART = {
    # point: the first words of it in the output
    "options are read": "kv-offload: stack chart",
    "tests are collected": "collected 1 item",
    "preflight is over": "checks passed",
    "server-side dry run": "dry run ...",
    "helm install begins": "helm install vllm into",
    "release is installed": "pods are made ...",
    "images and volumes": "images and volumes ...",
    "engines start": "start-up ...",
    "first completion": "service ...",
    "stack is ready": "ready after",
    "a test runs": "A-TEST-RUNS",
    "uninstalling begins": "THE-LAST-TEST-ENDS",
}
PROCESS = {
    "options are read": "kv-offload: stack process",
    "tests are collected": "collected 1 item",
    "cache server starts": "starting ...",
    "engine starts": "fake-0: starting ...",
    "engine is healthy": "fake-0: starting: ",
    "stack is ready": "ready after",
    "a test runs": "A-TEST-RUNS",
    "tear-down begins": "THE-LAST-TEST-ENDS",
}
SAMPLE = {
    ("chart", "helm install begins", "SIGKILL"),
    ("chart", "uninstalling begins", "SIGTERM"),
    ("process", "engine starts", "SIGHUP"),
}
SUITE = """
    import pathlib, time
    from fixtures.plugin.markers import requirement

    @requirement("CFG-01")
    def test_engine(stack):
        pathlib.Path("marks.txt").write_text("A-TEST-RUNS")
        time.sleep(1.0)
        pathlib.Path("marks.txt").write_text("A-TEST-RUNS THE-LAST-TEST-ENDS")
"""


def cases(kind: str, points: Iterable[str]) -> list[Any]:
    """Every signal at every point."""
    return [
        pytest.param(point, name, marks=() if (kind, point, name) in SAMPLE else pytest.mark.long)
        for point in points
        for name in SIGNALS
    ]


def ended(options: list[str], folder: Path, words: str, number: int) -> int:
    """Run pytest and send it a signal as soon as its output has the words; returns its exit code."""
    out, marks = folder / "ended.txt", folder / "marks.txt"
    marks.write_text("")
    run = Started("pytest", options, folder, out)
    deadline = time.monotonic() + 120
    while words not in out.read_text() + marks.read_text() and run.poll() is None:
        assert time.monotonic() < deadline, out.read_text()
        time.sleep(0.01)
    assert words in out.read_text() + marks.read_text(), out.read_text()
    run.send_signal(number)
    code = run.wait(120)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else pytest.ExitCode.INTERRUPTED), out.read_text()
    assert "Traceback (most recent call last)" not in out.read_text(), out.read_text()
    return code


def swept(registry: Path, *, release: bool) -> str:
    """What the next run that can reach it says of what is left."""
    said = io.StringIO()
    progress = Progress(said, live=False)

    def uninstall(record: StackRecord) -> None:
        remove_release(record, registry, progress)

    remove_orphans(registry, progress, uninstall=uninstall if release else None)
    return said.getvalue()


@pytest.mark.parametrize(("point", "name"), cases("chart", CHART))
def test_a_chart_run_that_is_ended(point: str, name: str, chart_project: Any) -> None:
    check("chart", point, name, chart_project)


@pytest.mark.parametrize(("point", "name"), cases("process", PROCESS))
def test_a_process_run_that_is_ended(point: str, name: str, process_project: Any) -> None:
    check("process", point, name, process_project)


def check(kind: str, point: str, name: str, project: Any) -> None:
    """End a run, see what it left, let the next one remove that, and note the row."""
    words = (CHART if kind == "chart" else PROCESS)[point]
    registry = project.path / "cache/stacks"
    if kind == "chart":
        project.suite(SUITE)
        options = project.options
    else:
        (project.path / "suite").mkdir(exist_ok=True)
        (project.path / "suite/test_suite.py").write_text(textwrap.dedent(SUITE))
        options = [*project.subject, "-p", "no:cacheprovider"]
        project.fake.behave(engine="slow")

    def left() -> list[str]:
        if kind == "process":
            return ["processes"] if project.running() else []
        crds = project.cluster.find("apis/apiextensions.k8s.io/v1/customresourcedefinitions")
        found = [("namespace", project.namespaces()), ("pods", project.cluster.pods()), ("CRD", crds)]
        return [what for what, there in found if there]

    code = ended(options, project.path, words, getattr(signal, name))
    before = left()
    records = list(registry.glob("*.json"))
    if before and not records:  # what asks an environment for its versions ends by itself
        before = poll(left, lambda now: not now, 10.0)
    if before:
        assert records, f"what is left is recorded: {before}"
    if name != "SIGKILL":
        assert not before
        assert not records
    said = swept(registry, release=kind == "chart") if records else ""
    assert left() == []
    assert not list(registry.glob("*.json"))
    if ROWS:
        nothing = "nothing was made" if name == "SIGKILL" else "the run itself"
        by = "the next run" if said else nothing
        row = {"run": kind, "point": point, "signal": name, "exit": code, "left": before, "by": by}
        with Path(ROWS).open("a") as file:
            file.write(json.dumps(row) + "\n")


HEAD = """\
# Clean-up

Everything that a run creates (namespace, release, CustomResourceDefinition, kind cluster, local processes) is recorded
before it is created, with host, boot, user, pid, and the uid of the cluster. The records of a user are in the cache
folder (`stacks/*.json`, `clusters/*.json`). A run removes what it created, on every signal that a process can handle;
after `kill -9` or a crash, the next run that can reach the objects removes them:

- the next `--stack chart` run of the same user and host removes what is left on a cluster; other runs print the
  command `python -m fixtures stop RECORD`. If the cluster does not answer, or if the context now points to another
  cluster, the run reports it and keeps the record
- the next `--stack process` run stops local processes
- what another host, user or container created is not removed; after six hours, runs print the command
- a CustomResourceDefinition that a run created has a label, and is removed with the last stack of this suite, if
  it has no objects and the cluster has no other release of the chart; an existing one is never changed
- `python -m fixtures cleanup` lists everything on a cluster that has the suite's label; `--remove` removes what
  ended runs of this user and host left, `--everyone` also the rest

A second signal does not interrupt the removal; the run reports this.

## Test results

Each row is a run against a fake API server with a real Helm, or a run with fake processes, that was ended by a signal at
one point. After the removal, nothing was left in any of them. To run all combinations:
`KV_OFFLOAD_TEST_SIGNALS=FILE pytest tests/test_provide_clean_up.py -m "long or not long"`, then `python -m
tests.test_provide_clean_up FILE` writes this page.

| run | point | signal | exit code | left when it had ended | removed by |
|---|---|---|---|---|---|"""


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The page with the table."""
    lines = [HEAD]
    unique = {(row["run"], row["point"], row["signal"]): row for row in rows}
    order = [(k, p, s) for k, points in (("chart", CHART), ("process", PROCESS)) for p in points for s in SIGNALS]
    for key in order:
        if (row := unique.get(key)) is not None:
            left = ", ".join(row["left"]) or "nothing"
            lines.append(f"| {row['run']} | {row['point']} | {row['signal']} | {row['exit']} | {left} | {row['by']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page([json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]))
