"""What a run leaves that is ended at some point by some signal, and what removes it; the table of ``docs/clean-up.md``.

A sample runs always, all points with ``tox -e tests-long``. ``tox -e clean-up`` runs all of them, keeps a row of JSON for each
(``docs/evidence/clean-up.jsonl``) and writes the page; with ``-k WORDS`` only these, beside the rows that are kept.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.progress import Progress
from fixtures.core.record import StackRecord
from fixtures.core.waiting import poll
from fixtures.provide.orphans import remove_orphans, remove_release
from fixtures.provide.process import process_teardown
from tests import process_project as of_processes
from tests import release_project as of_a_release
from tests.apart import Started

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

pytest.importorskip("kubernetes")
pytest_plugins = ("pytester",)

chart_project, process_project = of_a_release.project, of_processes.project

ROOT = Path(__file__).resolve().parents[1]
PAGE, KEPT = ROOT / "docs/clean-up.md", ROOT / "docs/evidence/clean-up.jsonl"
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
ATTACH = {
    "options are read": "kv-offload: stack attach",
    "tests are collected": "collected 1 item",
    "a test runs": "A-TEST-RUNS",
    "the last test ends": "THE-LAST-TEST-ENDS",
}
POINTS = {"chart": CHART, "process": PROCESS, "attach": ATTACH}
SAMPLE = {
    ("attach", "a test runs", "SIGTERM"),
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


@pytest.mark.parametrize(("point", "name"), cases("attach", ATTACH))
def test_an_attached_run_that_is_ended(point: str, name: str, process_project: Any) -> None:
    """It has made nothing, and the stack of others runs on as it did."""
    project, registry = process_project, process_project.path / "cache/stacks"
    assert project.run(*project.subject, "--keep-stack").ret == 0
    (record,) = registry.glob("*.json")
    running = {one.pid for one in project.running()}
    try:
        (project.path / "suite/test_suite.py").write_text(textwrap.dedent(SUITE))
        options = ["--stack=attach", f"--record={record}", "-p", "no:cacheprovider"]
        code = ended(options, project.path, ATTACH[point], getattr(signal, name))
        assert {one.pid for one in project.running()} == running
        assert [record] == list(registry.glob("*.json"))
        assert swept(registry, release=False) == ""
        assert {one.pid for one in project.running()} == running
    finally:
        process_teardown.tear_down(StackRecord.load(record), registry)
    note({"run": "attach", "point": point, "signal": name, "exit": code, "left": [], "by": "nothing was created"})


def note(row: dict[str, Any]) -> None:
    """Keep a row, where the page is to be written."""
    if ROWS:
        with Path(ROWS).open("a") as file:
            file.write(json.dumps(row) + "\n")


def check(kind: str, point: str, name: str, project: Any) -> None:
    """End a run, see what it left, let the next one remove that, and note the row."""
    words = POINTS[kind][point]
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
    nothing = "nothing was created" if name == "SIGKILL" else "the run itself"
    by = "the next run" if said else nothing
    note({"run": kind, "point": point, "signal": name, "exit": code, "left": before, "by": by})


def kept() -> list[dict[str, Any]]:
    """The rows that the page shows."""
    return [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []


def test_the_page_has_every_provider_point_and_signal() -> None:
    assert PAGE.read_text() == page(kept()), "tox -e clean-up writes it anew"
    wanted = {(kind, point, name) for kind, points in POINTS.items() for point in points for name in SIGNALS}
    assert {(row["run"], row["point"], row["signal"]) for row in kept()} == wanted


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
one point. After the removal, nothing was left in any of them. An attached run creates nothing, and the attached stack kept
running. `tox -e clean-up` runs all combinations and writes this page from `evidence/clean-up.jsonl`.

| run | point | signal | exit code | left when it had ended | removed by |
|---|---|---|---|---|---|"""


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The page with the table."""
    lines = [HEAD]
    unique = {(row["run"], row["point"], row["signal"]): row for row in rows}
    order = [(kind, point, name) for kind, points in POINTS.items() for point in points for name in SIGNALS]
    for key in order:
        if (row := unique.get(key)) is not None:
            left = ", ".join(row["left"]) or "nothing"
            lines.append(f"| {row['run']} | {row['point']} | {row['signal']} | {row['exit']} | {left} | {row['by']} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """End runs at every point, keep the rows, write the page; ``arguments`` as of pytest."""
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as new:
        command = [sys.executable, "-m", "pytest", __file__, "-m", "long or not long", "-q", *arguments]
        command += [
            "--deselect",
            f"{Path(__file__).relative_to(ROOT)}::test_the_page_has_every_provider_point_and_signal",
        ]
        code = subprocess.run(command, cwd=ROOT, env=os.environ | {"KV_OFFLOAD_TEST_SIGNALS": new.name}).returncode
        rows = {(row["run"], row["point"], row["signal"]): row for row in [*kept(), *map(json.loads, new)]}
    KEPT.write_text("".join(f"{json.dumps(row)}\n" for _, row in sorted(rows.items())))
    PAGE.write_text(page(list(rows.values())))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
