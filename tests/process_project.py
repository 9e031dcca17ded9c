"""A project with a stack of stand-in processes, for pytest sessions inside of tests."""

from __future__ import annotations

import json
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from fixtures.core.processes import runs
from fixtures.core.record import StackRecord
from tests import fakes
from tests.apart import ADDOPTS, Started, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


ROOT = Path(__file__).resolve().parents[1]


WITHIN_S = 120
"""A run of stand-ins takes 2 s; on a machine that does other things too, much longer."""


HEAD = '''
import contextlib, json, os, time
import pytest
from pathlib import Path
from fixtures.core.errors import NotJudged, StackError
from fixtures.plugin.run import RUN_KEY
from fixtures.plugin.markers import requirement

HERE = Path(__file__).parents[1]

@pytest.fixture
def note(request, stack):
    """What the test saw, and when it ran, as one line of notes.jsonl."""
    begin = time.time()
    seen = {"test": request.node.name, "begin": begin, "seed": request.config.stash[RUN_KEY].context.seed,
            "worker": os.environ.get("PYTEST_XDIST_WORKER"), "config": stack.record.config,
            "record": str(stack.record.folder / "record.json"),
            "pids": [server.process.pid for server in stack.record.servers]}
    yield seen
    with (HERE / "notes.jsonl").open("a") as file:
        file.write(json.dumps(seen | {"end": time.time()}) + "\\n")
'''


PASSES = """
@requirement("CFG-01")
def test_request(stack, note):
    assert stack.engine.counters().running == 0
"""


class Project:
    """A project with a suite, the plugins, one configuration and an engine environment of stand-ins."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.fake = fakes.make(self.path / "env")
        self.config = fakes.make_config(self.path / "one")
        self.started: list[Started] = []

    @property
    def subject(self) -> tuple[str, ...]:
        return (f"--engine-python={self.fake.python}", f"--config={self.config}")

    def suite(self, source: str) -> None:
        (self.path / "suite").mkdir(exist_ok=True)
        (self.path / "suite" / "test_suite.py").write_text(HEAD + textwrap.dedent(source))

    def run(self, *args: str, apart: bool = False) -> pytest.RunResult:
        arguments = ("-p", "no:cacheprovider", *args)
        if apart:
            return run(self.path, "pytest", *arguments)
        return self.pytester.runpytest_inprocess(*arguments)

    def start(self, name: str, *args: str) -> Started:
        """Run pytest beside this process; its output is in ``<name>.out``, its report in ``<name>/reports``."""
        arguments = ["-p", "no:cacheprovider", f"--run-dir={name}/runs", f"--report-dir={name}/reports", *args]
        started = Started("pytest", arguments, self.path, self.path / f"{name}.out")
        self.started.append(started)
        return started

    def out(self, name: str) -> str:
        return (self.path / f"{name}.out").read_text()

    def notes(self) -> list[dict[str, Any]]:
        path = self.path / "notes.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def records(self, folder: str = "runs") -> list[StackRecord]:
        return [StackRecord.load(path) for path in sorted(self.path.glob(f"{folder}/*/*/record.json"))]

    def report(self, folder: str = "reports") -> dict[str, Any]:
        return json.loads((self.path / folder / "conformance.json").read_text())

    def running(self) -> list[psutil.Process]:
        """Every stand-in that runs."""
        found = []
        for one in psutil.process_iter():
            try:
                if runs(one) and any(str(self.path / env) in " ".join(one.cmdline()) for env in ("env", "bad")):
                    found.append(one)
            except psutil.Error:
                continue
        return [one for one in found if "pytest" not in one.cmdline()]

    def registered(self) -> list[str]:
        return sorted(path.stem for path in (self.path / "cache" / "stacks").glob("*.json"))


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    for variable in ("PYTEST_ADDOPTS", "KV_OFFLOAD_HOOKS", "KV_OFFLOAD_ENGINE_ENV", "KV_OFFLOAD_ENGINE_PYTHON"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("KV_OFFLOAD_CACHE", str(pytester.path / "cache"))
    pytester.syspathinsert(ROOT)
    pytester.makeconftest('pytest_plugins = ("fixtures.plugin",)')
    pytester.makeini(f"[pytest]\ntestpaths = suite\naddopts = {ADDOPTS}\n")
    project = Project(pytester)
    project.suite(PASSES)
    yield project
    for started in project.started:
        started.kill()
        started.wait(WITHIN_S)
    left = project.running()
    for one in left:
        one.kill()
    fakes.clear_shared_memory(pytester.path)
    assert not left, f"the test left {left}"


def until(what: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
