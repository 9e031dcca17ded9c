"""The options and the life of a stack under pytest, in sessions of their own, with stand-ins for engine and cache server.

Sessions that end by a signal, or that have workers, are real processes; the others run in this one, which is faster.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import types
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pynvml
import pytest

from fixtures.core.processes import ProcessRef, runs
from fixtures.core.progress import Progress
from fixtures.core.record import StackRecord
from fixtures.core.waiting import poll
from fixtures.plugin import session, signals
from fixtures.plugin.locks import machine
from fixtures.plugin.option_table import TABLE
from fixtures.plugin.run import RUN_KEY
from fixtures.provide import process_provider
from fixtures.provide.process import launch, teardown
from fixtures.provide.provider import TearDown
from tests import fakes
from tests.apart import ADDOPTS, Started, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest_plugins = ("pytester",)

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


def ini(project: Project, **values: object) -> None:
    project.pytester.makeini(
        f"[pytest]\ntestpaths = suite\naddopts = {ADDOPTS}\n"
        + "".join(f"{name} = {value}\n" for name, value in values.items())
    )


# --- collection is pure -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args", ["--help", "--markers", "--collect-only", "--setup-plan", "--fixtures", "--collect-only -n2", "--version"]
)
def test_looking_starts_nothing(project: Project, monkeypatch: pytest.MonkeyPatch, args: str) -> None:
    def touched(*_: object, **__: object) -> None:
        raise AssertionError("collection touched the world")

    for where, name in ((subprocess, "Popen"), (os, "fork"), (socket.socket, "connect"), (pynvml, "nvmlInit")):
        monkeypatch.setattr(where, name, touched)
    result = project.run(*args.split(), *project.subject)
    assert result.ret == 0
    assert "touched the world" not in result.stdout.str() + result.stderr.str()
    for name in ("runs", "reports", "cache"):
        assert not (project.path / name).exists()
    assert project.running() == []


def test_every_option_has_a_help_text_and_an_ini_twin(project: Project) -> None:
    text = project.run("--help").stdout.str()
    options, _, twins = text.partition("[pytest] configuration options")
    for option in TABLE:
        about = re.search(rf"^  --{option.name}(?![\w-]).*?(?=^  --|\n\n)", options, re.MULTILINE | re.DOTALL)
        assert about, f"--{option.name} is not in --help"
        assert len(about[0]) > len(option.name) + 40, f"--{option.name} has no help text"
        assert re.search(rf"\bini:\s+{option.ini}\b", about[0]), f"--{option.name} does not name its ini setting"
        assert re.search(rf"^  {option.ini} \(", twins, re.MULTILINE), f"{option.ini} is no ini option"


# --- bad input --------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[str, str]] = {
    # what is wrong: (arguments, what is said); {p} is the project's folder
    "unknown configuration": ("--config nope", "no configuration 'nope': .*cpu-offload, .*embedded"),
    "misspelt configuration": ("--config embeded", "did you mean embedded"),
    "empty values": ("--config {p}/empty.yaml", "empty.yaml is empty; write"),
    "values not YAML": ("--config {p}/torn.yaml", r"torn.yaml, line \d, column \d+: .*correct"),
    "unknown key": ("--config {p}/key.yaml", "key.yaml: .*modelURl.*modelURL"),
    "wrong type": ("--config {p}/type.yaml", "type.yaml: .*modelSpec"),
    "two models": ("--config {p}/two", "lists 2 models; .*remove the others"),
    "model without tokenizer": ("--config {p}/untold", "has no tokenizer .*copy the tokenizer of the model into it"),
    "one configuration twice": ("--config {p}/one --config {p}/other/one", "two configurations have the name one"),
    "nothing to compare with": ("--compare embedded", "--compare embedded: name at least two configurations"),
    "compared with another one": ("--compare embedded,two-engines --config embedded", "omit --config"),
    "compared at once": ("--compare embedded,two-engines -n 2", "no two may run at once; omit -n"),
    "compared with none": ("--compare embedded,nope", "no configuration 'nope'"),
    "configuration for a GPU": ("--config cpu-offload", "needs a GPU: add --gpu, or choose another one"),
    "unknown stack": ("--stack cloud", "--stack cloud: choose one of process, chart, attach"),
    "record without attach": ("--record {p}/x.json", "--record requires --stack attach"),
    "attach without record": ("--stack attach", "needs one of: --record FILE"),
    "no such record": ("--stack attach --record {p}/x.json", "no stack record at .*x.json; give --record"),
    "not a record": ("--stack attach --record {p}/empty.yaml", "is not a stack record of this version"),
    "attach to a configuration": ("--stack attach --record x --config embedded", "omit --config, --gpu and --keep-stack"),
    "attach and keep": ("--stack attach --record x --keep-stack", "omit --config, --gpu and --keep-stack"),
    "seed no number": ("--seed many", "--seed many is not an integer"),
    "no such interpreter": ("--engine-python {p}/python", "python does not exist: set --engine-python"),
    "interpreter is a folder": ("--engine-python {p}", "is a folder: set --engine-python to the interpreter in it"),
    "interpreter without vLLM": (f"--engine-python={sys.executable}", "has no vllm package: install it there"),
    "interpreter for CUDA": ("--engine-python {p}/cuda/bin/python", "is built for cuda, but this run is on cpu: add --gpu"),
    "two environments": ("--engine-python x --engine-env y", "exclude each other; give one"),
    "environment is a file": ("--engine-env {p}/empty.yaml", "is not an engine environment: name an empty"),
    "environment is a full folder": ("--engine-env {p}/one", "is not an engine environment: name an empty"),
    "run folder is a file": ("--run-dir {p}/empty.yaml/runs", "empty.yaml is not a writable folder"),
    "no such dashboard": ("--dashboard {p}/x.json", "--dashboard .*x.json: .*No such file"),
    "not a dashboard": ("--dashboard {p}/empty.yaml", "--dashboard .*empty.yaml: it is not the JSON of a Grafana dashboard"),
    "unknown profile": ("--profile lattency", "unknown profile 'lattency'.*latency"),
    "unknown gate": ("--gate=cor", "--gate: unknown profile 'cor'.*core"),
    "GPU without its environment": ("--gpu --stack process --config {p}/one", "set --engine-python to the .*for CUDA"),
    "no GPU": (
        "--gpu --stack process --config {p}/any.yaml --engine-python {p}/cuda/bin/python",
        "--gpu: no NVIDIA GPU can be used on this host .*omit --gpu",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_at_once(project: Project, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    monkeypatch.setattr(launch, "stand_up", lambda *_, **__: pytest.fail("something was started"))
    good = (project.config / "values.yaml").read_text()
    for name, text in {
        "empty.yaml": "",
        "torn.yaml": "servingEngineSpec:\n  modelSpec: [\n",
        "key.yaml": good.replace("modelURL", "modelURl"),
        "type.yaml": "servingEngineSpec: {modelSpec: 3}\n",
        "any.yaml": good,
    }.items():
        (project.path / name).write_text(text)
    if case == "two models":
        fakes.make_config(project.path / "two", models=2)
    elif case == "model without tokenizer":
        (fakes.make_config(project.path / "untold") / "model" / "tokenizer.json").unlink()
    elif case == "one configuration twice":
        shutil.copytree(project.config, project.path / "other" / "one")
    elif "cuda" in BAD[case][0]:
        fakes.make(project.path / "cuda", device="cuda")
    args, says = BAD[case]
    result = project.run(*args.format(p=project.path).split())
    said = result.stderr.str() + result.stdout.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert re.search(says, said), said
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said
    errors = [line for line in said.splitlines() if re.search(r"^ERROR: |: error: ", line)]
    assert len(errors) == 1
    assert not (project.path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("gpu", "true", "there is no kubeconfig|--gpu"),
        ("stack", "cloud", "--stack cloud: choose one of process, chart, attach"),
        ("config", "nope", "no configuration 'nope'"),
        ("record", "x.json", "--record requires --stack attach"),
        ("engine_env", "tox.ini", "--engine-env .*tox.ini is not an engine environment"),
        ("engine_python", "nowhere/python", "nowhere/python does not exist"),
        ("run_dir", "tox.ini", "--run-dir .*tox.ini is not a writable folder"),
        ("seed", "many", "--seed many is not an integer"),
        ("profile", "nope", "unknown profile 'nope'"),
        ("gate", "nope", "unknown profile 'nope'"),
    ],
)
def test_ini_twins_are_read_and_checked(project: Project, name: str, value: str, says: str) -> None:
    ini(project, **{name: value})
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert re.search(says, result.stderr.str() + result.stdout.str())


# --- one run after another --------------------------------------------------------------------------------------------


@pytest.mark.long
def test_ini_twins_keep_attach_and_stop(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    ini(
        project,
        stack="process",
        config="one",  # a path in the ini file, as on the command line, may be relative
        engine_python="env/bin/python",
        run_dir="elsewhere",
        seed="77",
        keep_stack="true",
    )
    capfd.readouterr()
    assert project.run().ret == 0
    [record] = project.records("elsewhere")
    path = record.folder / "record.json"
    assert (record.keep, record.seeds, record.config) == (True, [77], "one")
    assert [note["seed"] for note in project.notes()] == [77]
    assert len(project.running()) == 3
    assert project.registered() == [record.id]
    said = capfd.readouterr().err
    assert f"stack {record.id} is kept: {record.engines[0].url}" in said
    assert f"pytest --stack attach --record {path}" in said
    assert f"python -m fixtures stop {path}" in said

    ini(project)
    attach = ("--stack=attach", f"--record={path}")
    result = project.run(*attach, "--seed=77")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*has seen the prompts of seed 77 already*leave --seed out*"])
    assert project.run(*attach, "--seed=78").ret == 0
    assert project.run(*attach, "-n2", apart=True).ret == 0
    assert [note["pids"] for note in project.notes()] == [project.notes()[0]["pids"]] * 3
    seeds = StackRecord.load(path).seeds
    assert seeds == [77, 78, project.notes()[2]["seed"]], "also a run with workers notes what the stack has seen"
    ini(project, stack="attach", record=path.relative_to(project.path))
    assert project.run("--seed=79").ret == 0
    ini(project)
    assert len(project.running()) == 3, "attaching stops nothing"

    stop = ("fixtures", "stop")
    for _ in range(2):
        done = run(project.path, *stop, str(path))
        assert done.ret == 0
        assert re.fullmatch(rf"{record.id} is stopped: \d+ MiB freed in [\d.]+ s", done.stdout.str())
    assert project.running() == []
    assert project.registered() == []
    for wrong in ([], ["--help"], [str(project.path / "none.json")]):
        done = run(project.path, *stop, *wrong)
        assert done.ret == 2
        said = done.stderr.str()
        assert "python -m fixtures stop RECORD" in said or "no stack record at" in said

    result = project.run(*attach)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*fake-0, fake-0-tier of stack * no longer run; start a new one with --keep-stack*"])


def test_the_panels_that_a_stack_leaves_blank_are_in_the_report(project: Project) -> None:
    """They are named before the stack is torn down, also where a test judges that."""
    queries = ("vllm:num_requests_running", "vllm:gone", "lmcache_mp_l1_memory_usage_bytes")
    found = [{"title": f"panel of {query}", "targets": [{"expr": query}]} for query in queries]
    (project.path / "d.json").write_text(json.dumps({"panels": found}))
    project.suite(
        PASSES
        + """
        @pytest.mark.run_last
        @requirement("MEM-06")
        def test_ended(teardown_report):
            assert not teardown_report.left_running
        """.replace("\n        ", "\n")
    )
    result = project.run(*project.subject, "--dashboard=d.json")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["dashboard d.json (one): 3 panels with queries, 1 blank, 0 partly blank"])
    (subject,) = project.report()["subjects"]
    assert subject["dashboards"]["d.json"]["blank"] == [
        {"title": "panel of vllm:gone", "missing": ["vllm:gone is not exposed"]}
    ]
    page = (project.path / "reports" / "conformance.md").read_text()
    assert "- **d.json**: 3 panels with queries, 1 blank, 0 partly blank\n" in page
    assert "  - blank: panel of vllm:gone: vllm:gone is not exposed\n" in page


@pytest.mark.long
def test_configurations_run_one_after_the_other(project: Project) -> None:
    fakes.make_config(project.path / "second")
    project.suite(
        """
        import psutil
        @requirement("CFG-01")
        def test_a(stack, note):
            for line in (HERE / "notes.jsonl").read_text().splitlines() if note["config"] == "second" else ():
                assert not any(map(psutil.pid_exists, json.loads(line)["pids"])), "the first stack still runs"
        @requirement("CFG-02")
        @pytest.mark.run_last
        def test_c(stack, note):
            pass
        @requirement("CFG-03")
        def test_b(stack, note):
            pass
        def test_without():
            pass
        """
    )
    result = project.run(*project.subject, f"--config={project.path / 'second'}")
    assert result.ret == 0
    expected = [f"test_{name}[{config}]" for config in ("one", "second") for name in "abc"]
    assert [note["test"] for note in project.notes()] == expected
    assert len({tuple(note["pids"]) for note in project.notes()}) == 2
    assert project.running() == []
    assert project.registered() == []


ENDS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "a test fails": ("assert False, 'expected 1, got 0'", (), 1),
    "a test fails, -x": ("assert False, 'expected 1, got 0'", ("-x",), 1),
    "a test errs": ("raise ValueError('of the suite')", (), 1),
    "a fixture errs": ("request.getfixturevalue('broken')", (), 1),
    "pytest.exit": ("pytest.exit('enough')", (), 2),
}


@pytest.mark.parametrize(
    "how",
    [how if how == "a fixture errs" else pytest.param(how, marks=pytest.mark.long) for how in ENDS],
)
def test_nothing_runs_after_a_run_however_it_ends(project: Project, how: str) -> None:
    code, args, status = ENDS[how]
    project.suite(
        f"""
        @pytest.fixture
        def broken(stack):
            raise StackError("broken")
        @requirement("CFG-01")
        def test_request(request, stack, note):
            {code}
        @requirement("CFG-02")
        def test_two(stack):
            pass
        """
    )
    assert project.run(*project.subject, *args).ret == status
    assert project.running() == []
    assert project.registered() == []
    [record] = project.records()
    assert record.ready_after_s is not None
    assert not any(server.tmp is not None and server.tmp.exists() for server in record.servers)
    report = project.report()
    assert report["run"]["exit_status"] == status
    assert {entry["id"] for entry in report["requirements"]} >= {"CFG-01", "CFG-02"}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_a_stack_that_does_not_come_up_is_an_error_of_the_run(project: Project, workers: int) -> None:
    project.fake.behave(engine="dies")
    project.suite(PASSES + PASSES.replace("test_request", "test_two").replace("CFG-01", "CFG-02"))
    result = project.run(*project.subject, *(["-n2"] if workers else []), apart=bool(workers))
    assert result.ret == 1
    said = result.stdout.str()
    assert "fake-0 ended while it was starting: ValueError: no weights here" in said
    assert "Traceback" not in said
    assert "fixtures/plugin" not in said, "an error of the stack is a message, not a place in the suite"
    reasons = {entry["id"]: entry["reason"] for entry in project.report()["requirements"]}
    told = sorted(reasons.values())
    assert told[0].startswith("error: StackError: "), "once"
    assert "did not start; the error of the first test gives the reason" in told[1]
    assert said.count("ValueError: no weights here") <= 3, "the error, the summary, and pytest's own last line"
    assert len(project.records()) == 1, "started once, not once per test or worker"
    assert project.running() == []
    assert project.registered() == []


@pytest.mark.long
def test_a_tear_down_that_fails_does_not_cost_the_report(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real = teardown.tear_down

    def fails(record: StackRecord, registry: Path) -> TearDown:
        real(record, registry)
        return TearDown(1, 1, 0.0, (), (4711,), ())

    monkeypatch.setattr(process_provider, "tear_down", fails)
    assert project.run(*project.subject).ret == 1
    assert "left pids 4711 running; end them with kill -9" in capfd.readouterr().err
    assert project.report()["run"]["exit_status"] == 1


# --- signals ----------------------------------------------------------------------------------------------------------

WAITS = """
@requirement("CFG-01")
def test_request(stack, request):
    (request.config.stash[RUN_KEY].context.folder / "waits").touch()
    time.sleep(250)

@requirement("CFG-02")
def test_two(stack):
    pass
"""


SIGNALS = {
    "plain": {"ctrl-c": signal.SIGINT, "sigterm": signal.SIGTERM, "sighup": signal.SIGHUP},
    "workers": {"workers": signal.SIGTERM, "loading": signal.SIGTERM},
}


@pytest.mark.parametrize("which", ["plain", pytest.param("workers", marks=pytest.mark.long)])
def test_signals_end_a_run_in_good_order(project: Project, which: str) -> None:
    """Runs at once, each with a stack of its own, each ended in its own way; "loading" while a worker stands it up."""
    project.suite(WAITS)
    bad = fakes.make(project.path / "bad")
    bad.behave(engine="hangs")
    sent = SIGNALS[which]
    started = {
        name: project.start(
            name,
            f"--engine-python={bad.python if name == 'loading' else project.fake.python}",
            f"--config={project.config}",
            *(["-n2"] if which == "workers" else []),
        )
        for name in sent
    }

    def ready(name: str) -> bool:
        mark = "*/one/fake-0.log" if name == "loading" else "*/waits"
        return any(path.stat().st_size or name != "loading" for path in project.path.glob(f"{name}/runs/{mark}"))

    until(lambda: all(ready(name) for name in sent), WITHIN_S)
    records = {name: project.records(f"{name}/runs")[0] for name in sent}
    pids = [server.process.pid for record in records.values() for server in record.servers if server.process]
    assert len(set(pids)) == 2 * len(sent), "every run has a stack of its own"
    for name, number in sent.items():
        started[name].send_signal(number)
    for name in sent:
        assert started[name].wait(WITHIN_S) == pytest.ExitCode.INTERRUPTED, project.out(name)
    assert project.running() == []
    assert project.registered() == []
    for name, number in sent.items():
        assert not any(server.tmp is not None and server.tmp.exists() for server in records[name].servers)
        assert f"KeyboardInterrupt{'' if number == signal.SIGINT else f': {number.name}'}" in project.out(name)
        if name == "loading":
            continue  # its workers have not told the controller of any test yet: there is nothing to report
        report = project.report(f"{name}/reports")
        assert report["run"]["interrupted"]
        verdicts = {entry["verdict"] for entry in report["requirements"]}
        # A worker may have begun a test that the controller has not heard of yet.
        assert "not judged" in verdicts or which == "workers"
        assert not verdicts & {"non-conformant", "advisory"}


@pytest.mark.long
def test_what_a_killed_run_left_is_removed_by_the_next(project: Project) -> None:
    project.suite(WAITS)
    killed = [project.start("killed", *project.subject), project.start("with-workers", *project.subject, "-n2")]
    until(lambda: len(list(project.path.glob("*/runs/*/waits"))) == 2, WITHIN_S)
    owners = {record.owner for name in ("killed", "with-workers") for record in project.records(f"{name}/runs")}
    assert owners == {ProcessRef.of(one.pid) for one in killed}
    for one in killed:
        one.kill()
        one.wait(WITHIN_S)
    left = project.running()
    assert len(left) == 6
    assert len(project.registered()) == 2
    project.suite(PASSES)
    assert project.start("next", *project.subject).wait(WITHIN_S) == 0
    for one in killed:
        said = rf"removing stack one-\w+, left by a run that was killed \(pytest pid {one.pid}\)"
        assert re.search(said, project.out("next"))
    assert project.running() == []
    assert project.registered() == []


# --- workers ----------------------------------------------------------------------------------------------------------

SHARED = """
@requirement("MEM-06")
@pytest.mark.run_last
def test_last(teardown_report, note):
    assert teardown_report.left_running == () and teardown_report.resident_before_bytes > 0

@requirement("LAT-01")
@pytest.mark.exclusive_host
@pytest.mark.parametrize("k", range(2))
def test_alone(stack, note, k):
    time.sleep(0.2)
    assert k == 0, "a lock is released when a test fails"

@requirement("ACC-01")
@pytest.mark.parametrize("k", range(4))
def test_counts(stack, note, prompts, k):
    tokens = stack.complete(prompts.unique(chunks=1)).tokens
    time.sleep(0.1)
    assert tokens.computed == 257

@requirement("API-01")
@pytest.mark.shared_stack
@pytest.mark.parametrize("k", range(6))
def test_together(stack, note, k):
    time.sleep(0.3)

def test_without_stack():
    pass
"""


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one is not other and one["begin"] < other["end"] and other["begin"] < one["end"]


def test_workers_share_one_stack_and_take_turns(project: Project) -> None:
    project.suite(SHARED)
    result = project.run(*project.subject, "-n2", apart=True)
    result.assert_outcomes(passed=13, failed=1)
    notes = project.notes()
    assert len(notes) == 13
    assert {note["worker"] for note in notes} == {"gw0", "gw1"}
    assert len({tuple(note["pids"]) for note in notes}) == 1
    assert len({note["seed"] for note in notes}) == 1
    assert len(project.records()) == 1
    kinds = {kind: [note for note in notes if note["test"].startswith(f"test_{kind}")] for kind in ("alone", "counts")}
    for note in kinds["alone"]:
        assert not [other["test"] for other in notes if overlap(note, other)]
    for note in kinds["counts"]:
        assert not [other["test"] for other in notes if overlap(note, other)]
    together = [note for note in notes if note["test"].startswith("test_together")]
    assert any(overlap(one, other) for one in together for other in together)
    last = notes[-1]
    assert last["test"] == "test_last[one]"
    assert all(note["end"] <= last["end"] for note in notes)
    verdicts = {entry["id"]: entry["verdict"] for entry in project.report()["requirements"]}
    assert verdicts["MEM-06"] == verdicts["ACC-01"] == verdicts["API-01"] == "conformant"
    assert verdicts["LAT-01"] == "non-conformant"
    assert project.running() == []
    assert project.registered() == []


@pytest.mark.long
def test_a_kept_stack_is_not_judged_by_its_tear_down(project: Project) -> None:
    project.suite(SHARED)
    result = project.run(*project.subject, "--keep-stack", "-k", "last or together")
    result.assert_outcomes(passed=6, skipped=0)
    reasons = {entry["id"]: entry["reason"] for entry in project.report()["requirements"]}
    assert reasons["MEM-06"] == "the stack is kept (--keep-stack); omit that option to judge the tear-down"
    [record] = project.records()
    assert len(project.running()) == 3
    assert record.owner is not None
    assert teardown.tear_down(record, project.path / "cache" / "stacks").left_running == ()


@pytest.mark.long
def test_two_runs_take_turns_where_a_test_needs_the_machine(project: Project) -> None:
    project.suite(
        """
        @requirement("LAT-01")
        @pytest.mark.exclusive_host
        def test_alone(stack, note):
            time.sleep(0.5)
        """
    )
    both = [project.start(name, *project.subject) for name in ("left", "right")]
    assert [one.wait(WITHIN_S) for one in both] == [0, 0]
    first, second = project.notes()
    assert first["pids"] != second["pids"]
    assert not overlap(first, second)
    assert project.running() == []
    assert project.registered() == []


def test_who_waits_to_be_alone_is_not_overtaken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One uses the machine, one waits to be alone, one comes later: in this order, however often others come."""
    monkeypatch.setenv("KV_OFFLOAD_CACHE", str(tmp_path))
    progress, order = Progress(io.StringIO(), live=False), []
    first_may_go = threading.Event()

    def use(name: str, how: int, until: threading.Event | None = None) -> None:
        with machine(how, progress):
            order.append(name)
            if until is not None:
                until.wait(WITHIN_S)

    def is_held(path: Path) -> bool:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    first = threading.Thread(target=use, args=("first", fcntl.LOCK_SH, first_may_go))
    alone = threading.Thread(target=use, args=("alone", fcntl.LOCK_EX))
    later = threading.Thread(target=use, args=("later", fcntl.LOCK_SH))
    first.start()
    poll(lambda: list(order), bool, WITHIN_S)
    alone.start()
    assert poll(lambda: is_held(tmp_path / "machine-entry.lock"), bool, WITHIN_S), "the door is shut while it waits"
    later.start()
    later.join(0.2)
    assert order == ["first"]
    first_may_go.set()
    for thread in (first, alone, later):
        thread.join(WITHIN_S)
    assert order == ["first", "alone", "later"]


# --- what ends or hangs during a run ------------------------------------------------------------------------------------

MEETS_IT = """
@requirement("ACC-02")
def test_many(stack, prompts):
    for _ in range(12):
        stack.complete(prompts.unique(chunks=2))

@requirement("COR-03")
def test_after(stack, prompts):
    stack.complete(prompts.unique(chunks=2))

@requirement("API-06")
def test_api(api, text_requests):
    api.answer(text_requests.request("completions"))

@requirement("CFG-01")
def test_needs_no_answer(stack):
    pass

@requirement("ACT-04")
@pytest.mark.run_late
def test_log(stack):
    gone = stack.health.gone()
    assert not gone, "; ".join(gone.values())
"""


@pytest.mark.parametrize(
    ("does", "first", "then", "owns"),
    [
        (
            "dies-after-6",
            "engine fake-0 ended during the run: ",
            "engine fake-0 ended during the run: ",
            "expected every process to run until the end of the run, got engine fake-0 ended during the run",
        ),
        (
            "stalls-after-6",
            "a request never ended, so the test is not judged: POST http",
            "engine fake-0 has been hanging since a request that never ended",
            "expected every request to end, got POST http",
        ),
    ],
    ids=["dies", "hangs"],
)
def test_an_end_costs_no_other_claim_its_verdict(project: Project, does: str, first: str, then: str, owns: str) -> None:
    project.fake.behave(engine=does)
    project.suite(MEETS_IT)
    result = project.run(*project.subject, "--deadline=answer=1", "--deadline=probe=0.3")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    entries = {entry["id"]: entry for entry in project.report()["requirements"]}
    assert [entries[id_]["verdict"] for id_ in ("ACC-02", "COR-03", "API-06", "CFG-01", "ACT-04")] == [
        *["not judged"] * 3,
        "conformant",
        "non-conformant",
    ]
    assert entries["ACC-02"]["reason"].startswith(first)
    assert entries["COR-03"]["reason"].startswith(then)
    assert entries["API-06"]["reason"].startswith(then)
    assert entries["ACT-04"]["reason"].startswith(owns)


def test_a_wrong_deadline_is_a_usage_error(project: Project) -> None:
    project.suite(PASSES)
    result = project.run(*project.subject, "--deadline=anser=5")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--deadline anser=5: give NAME=SECONDS (did you mean answer?)*"])


def test_a_signal_at_an_instruction_without_a_line_ends_with_the_summary_too() -> None:
    """Python 3.11 counts no line for what closes a ``with``; a signal that comes there has such a frame."""

    def interrupted() -> types.FrameType:
        with contextlib.nullcontext():
            return sys._getframe()

    frame = interrupted()
    bare = next(start for start, _, line in frame.f_code.co_lines() if line is None)
    traceback = types.TracebackType(None, frame, bare, -1)
    whole = types.TracebackType(traceback, sys._getframe(), 0, 1)
    excinfo = pytest.ExceptionInfo.from_exception(KeyboardInterrupt("SIGTERM").with_traceback(whole))
    with pytest.raises(TypeError):
        excinfo.getrepr(funcargs=True)
    signals.pytest_keyboard_interrupt(excinfo)
    assert "SIGTERM" in str(excinfo.getrepr(funcargs=True))


@pytest.mark.parametrize("how", ["__del__", "finalize", "weak set"])
def test_a_signal_in_a_finaliser_acts_right_after_it(how: str) -> None:
    """Python drops what is raised there: the run went on as if no signal had come."""
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    end = signals.OrderlyEnd()
    ends: list[float] = []

    def gone() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        ends.append(time.monotonic())

    class Held:
        def __del__(self) -> None:
            if how == "__del__":
                gone()

    class Data(set[object]):
        def discard(self, _: object) -> None:
            gone()

    def let_go() -> None:
        held = Held()
        weak = weakref.WeakSet[object]()
        if how == "weak set":
            weak.data = Data()  # type: ignore[attr-defined]
            weak.add(held)
        if how == "finalize":
            weakref.finalize(held, gone)
        del held
        time.sleep(5)

    signal.signal(signal.SIGTERM, end.handle)
    try:
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            let_go()
        assert time.monotonic() - ends[0] < 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_of_the_ordinary_tests_those_of_the_configuration_come_first() -> None:
    def item(id_: str, *marks: str) -> types.SimpleNamespace:
        judged = pytest.mark.requirement(id_).mark
        return types.SimpleNamespace(
            name=id_,
            get_closest_marker=lambda name: name if name in marks else None,
            iter_markers=lambda name: [judged] if name == "requirement" else [],
        )

    items = [
        item("ACC-01"),
        item("RES-01", "run_disruptive"),
        item("MEM-06", "exclusive_host", "run_last"),
        item("MEM-01", "exclusive_host"),
        item("ACT-01"),
        item("CFG-01"),
        item("CFG-02", "run_late"),
    ]
    config = types.SimpleNamespace(stash={RUN_KEY: types.SimpleNamespace(provider=types.SimpleNamespace(names=[]))})
    session.pytest_collection_modifyitems(config, items)  # type: ignore[arg-type]
    assert [one.name for one in items] == ["CFG-01", "ACC-01", "ACT-01", "MEM-01", "CFG-02", "RES-01", "MEM-06"]
