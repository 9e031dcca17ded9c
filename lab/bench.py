"""A stack to seed faults into, and how it is made healthy again after each.

Invariant: a fault starts on a stack that has just stored a prompt, loaded it again and answered the same, and whose logs
hold nothing but its start: else the verdicts of one fault would be those of the fault before it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import yaml

from fixtures.core.errors import NotJudged, SubjectFault
from fixtures.core.processes import process_tree
from fixtures.core.record import StackRecord
from fixtures.core.waiting import poll
from fixtures.experiments.aborts import abort_requests
from fixtures.instruments.client import Client
from fixtures.instruments.prompts import Prompts
from fixtures.plugin.locks import FINISHED
from fixtures.provide.process import launch
from fixtures.provide.values.config import Config, Model, load_config
from fixtures.subject.engine import authorization
from fixtures.subject.stack import Stack
from lab import forked, selection
from lab.catalogue import KEPT_S
from lab.proxy import FAULTS as PROXY_FAULTS
from lab.proxy import Proxy as FaultProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.process import BaseProcess

    from fixtures.core.progress import Progress
    from fixtures.provide.process.environment import EngineEnv
    from lab.catalogue import Hook, Process, Proxy, Values

ROOT = Path(__file__).parents[1]
HOOKS = Path(__file__).parent / "hooks"
RUN_DEADLINE_S = 1200.0
"""One run of the suite; what takes longer hangs. The embedded suite takes 2 min, and 10 where bfloat16 is emulated."""
FIRST_TEST_DEADLINE_S = 120.0
TEST_DEADLINE_S = 200
"""One test under a fault: above the client's own deadline of 120 s."""


@dataclass(frozen=True)
class Subject:
    """What faults are seeded into."""

    config: str = "embedded"
    """Name of a configuration, or the path of one."""
    device: str = "cpu"
    weights: str | None = None
    """Geometry of random weights, as ``--random-weights``."""

    def load(self) -> Config:
        """Its configuration.

        Raises:
            ConfigurationError: there is none of that name.
        """
        config = load_config(self.config, ROOT / "configs")
        return config.with_random_weights(self.weights) if self.weights else config


class LabError(Exception):
    """The lab itself went wrong: a fault did not take, a stack did not start, the suite did not report."""


@dataclass(frozen=True)
class Verdicts:
    """What one run of the suite said."""

    fired: dict[str, str]
    """Requirement id to its reason: non-conformant or advisory."""
    judged: frozenset[str]
    not_judged: frozenset[str]
    errors: dict[str, str]
    """Requirement id to the error of the run: a fault of the suite, whatever was seeded."""


@dataclass
class Bench:
    """One stack under faults."""

    folder: Path
    record: StackRecord
    registry: Path
    start_of_logs: dict[Path, bytes] = field(default_factory=dict)
    others: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """Processes that a fault started in place of those of the stack."""

    @property
    def hooks(self) -> Path:
        """Where its processes look for faults."""
        return self.folder / "hooks"

    @property
    def record_path(self) -> Path:
        """Record of the stack, for ``--stack attach``."""
        return self.record.folder / "record.json"

    # --- seeding ----------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def hooked(self, id_: str, hook: Hook) -> Iterator[None]:
        """Switch a fault on for a while.

        Raises:
            LabError: it never acted.
        """
        control, log = self.hooks / "control.json", self.hooks / "fired.jsonl"
        log.unlink(missing_ok=True)
        write_control(self.hooks, id_, self.addressed(hook))
        try:
            yield
        finally:
            _replace(control, "")
        if not acted(self.hooks, id_):
            raise LabError(f"the hook {hook.name} never acted: the fault was not seeded")

    def addressed(self, hook: Hook) -> Hook:
        """The hook in the terms of this stack.

        One that is meant for one engine names it by what its processes know: their temporary folder. A time in prefills is
        one in seconds for each token, by the engine without its connector.
        """
        params = dict(hook.params)
        if "engine" in params:
            params["tmpdir"] = str(self.record.engines[params["engine"]].tmp)
        if "prefills" in params:
            baseline = self.record.baseline
            assert baseline is not None
            params["seconds_per_token"] = (
                params["prefills"] * statistics.median(baseline.cold_s) / baseline.prompt_tokens
            )
        return dataclasses.replace(hook, params=params)

    @contextlib.contextmanager
    def proxied(self, proxy: Proxy) -> Iterator[Path]:
        """Put a proxy in front of the router, or of the first engine, for a while; yields the record that leads through it.

        Raises:
            LabError: its fault never acted.
        """
        front = (*self.record.routers, *self.record.engines)[0]
        fault = PROXY_FAULTS[proxy.name](**proxy.params)
        fault.engines = tuple(engine.url for engine in self.record.engines)
        with FaultProxy(front.url, fault) as running:
            folder = self.folder / "proxied"
            folder.mkdir(exist_ok=True)
            record = self.record.model_copy(deep=True, update={"id": f"{self.record.id}-proxied", "folder": folder})
            (*record.routers, *record.engines)[0].url = running.url
            path = record.save(folder)
            try:
                yield path
            finally:
                # The suite may have started a server again, in a process that only the record of the proxy knows.
                for own, one in zip(self.record.everything, StackRecord.load(path).everything, strict=True):
                    own.process = one.process
                self.record.save(self.registry)
                (self.registry / f"{record.id}.json").unlink(missing_ok=True)
            if not running.fired:
                raise LabError(f"the proxy fault {proxy.name} never acted: the fault was not seeded")

    # --- healthy again ----------------------------------------------------------------------------------------------
    def restore(self) -> bool:
        """Drop what a fault left in the tier and in the logs; False when the stack is not healthy any more."""
        _replace(self.hooks / "control.json", "")
        try:
            stack = Stack(self.record)
            rest = poll(
                stack.engine.counters, lambda now: not now.running and not now.waiting and not now.kv_usage, 20.0
            )
            if rest.running or rest.waiting or rest.kv_usage:
                return False
            for server in self.record.cache_servers:
                cleared = Client(server.url, deadline_s=20.0).post("/cache/clear", {"tier": "l1", "force": True})
                if cleared.status != 200:
                    return False
            for engine in stack.engines:
                stack.clear_prefix_cache(engine=engine)
                prompt = Prompts(random.SystemRandom().randrange(2**31), "restore", stack.chunk_tokens, 4096).unique(3)
                first = stack.complete(prompt, engine=engine)
                stack.clear_prefix_cache(engine=engine)
                again = stack.complete(prompt, engine=engine)
                if first.sources.computed != prompt.tokens or again.sources.loaded != prompt.whole_chunk_tokens:
                    return False
                # On a GPU a cold run and a reload use different kernels: only the latter two have to agree.
                stack.clear_prefix_cache(engine=engine)
                same = first if self.record.device == "cpu" else stack.complete(prompt, engine=engine)
                if same.text != again.text:
                    return False
        except (SubjectFault, NotJudged):
            return False
        self.forget_logs()
        return True

    def forget_logs(self) -> None:
        """Cut every log back to what it said when the stack was ready; its processes append, so they go on behind it."""
        for path, text in self.start_of_logs.items():
            with path.open("r+b") as file:
                file.truncate(0)
                file.write(text)


def stand_up(
    name: str,
    subject: Subject,
    values: Values | None,
    env: EngineEnv,
    folder: Path,
    cache: Path,
    progress: Progress,
) -> Bench:
    """A stack of the subject's configuration with other values, ready for faults."""
    folder.mkdir(parents=True, exist_ok=True)
    hooks = copy_hooks(folder / "hooks")
    config = changed_config(name, subject, values, folder / "config")
    registry = cache / "stacks"
    record = launch.stand_up(
        config,
        env,
        folder=folder / "stack",
        cache=cache,
        registry=registry,
        progress=progress,
        device=subject.device,
        hooks=(hooks,),
    )
    bench = Bench(folder, record, registry)
    time.sleep(0.5)  # the last lines of the start
    bench.start_of_logs = {
        server.log: server.log.read_bytes() for server in record.everything if server.log is not None
    }
    return bench


def copy_hooks(target: Path) -> Path:
    """The hooks in a folder of their own: the control file is beside them."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(HOOKS, target, ignore=shutil.ignore_patterns("__pycache__", "*.json", "*.jsonl"))
    return target


def write_control(hooks: Path, id_: str, hook: Hook) -> None:
    """Switch a fault on."""
    _replace(hooks / "control.json", json.dumps({"id": id_, "hook": hook.name, "params": hook.params}))


def acted(hooks: Path, id_: str) -> bool:
    """Whether a fault has acted, by its own word."""
    log = hooks / "fired.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return any(line["id"] == id_ and not line["what"].startswith("wrapped ") for line in lines)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)


def changed_config(name: str, subject: Subject, values: Values | None, folder: Path) -> Config:
    """The subject's configuration with other values, written in the chart's own format."""
    if values is not None and values.configuration:
        subject = dataclasses.replace(subject, config=values.configuration)
    original = subject.load()
    folder = (folder / name).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    body: dict[str, Any] = copy.deepcopy(original.values.data)
    model = body["servingEngineSpec"]["modelSpec"][0]
    if values is not None:
        for path, value in values.changes.items():
            *parents, last = path.split(".")
            node = model
            for parent in parents:
                node = node.setdefault(parent, {})
            if value is None:
                node.pop(last, None)
            else:
                node[last] = value
        model["env"] += [{"name": key, "value": value.replace("{folder}", str(folder))} for key, value in values.env]
        model["vllmConfig"]["extraArgs"] += list(values.extra_args)
    if values is not None and values.router:
        body["routerSpec"] |= values.router
    for file, text in values.files.items() if values is not None else ():
        (folder / file).write_text(text)
    (folder / "values.yaml").write_text(yaml.safe_dump(body, sort_keys=False))
    changed = load_config(str(folder / "values.yaml"), ROOT / "configs")
    expect = original.expect
    if values is not None and values.recipe is not None:
        expect = expect.model_copy(update={"model": Model(recipe=values.recipe)})
    return dataclasses.replace(changed, expect=expect)


def check_values(record: StackRecord, values: Values) -> None:
    """Raises LabError when the running stack does not show the change that the values were to bring."""
    import re

    if not values.shows:
        return
    servers = list(record.everything)
    text = {
        "command": "\n".join(" ".join(_cmdline(server.process)) for server in (*record.engines, *record.routers)),
        "environment": "\n".join(f"{name}={value}" for server in servers for name, value in _environ(server.process)),
        "log": "\n".join(server.log.read_text(errors="replace") for server in servers if server.log),
        "record": record.model_dump_json(indent=2),
    }[values.where]
    if (re.search(values.shows, text) is None) != values.absent:
        raise LabError(f"the {values.where} of the stack does not show the fault ({values.shows!r})")


def _cmdline(reference: Any) -> list[str]:
    running = reference.process() if reference else None
    return running.cmdline() if running else []


def _environ(reference: Any) -> list[tuple[str, str]]:
    running = reference.process() if reference else None
    return list(running.environ().items()) if running else []


# --------------------------------------------------------------------------------------------------- running the suite
def judge(
    folder: Path,
    options: list[str],
    *,
    cases: str,
    tests: tuple[str, ...] = (),
    meanwhile: Any = None,
    environment: dict[str, str] | None = None,
    kept_s: float = KEPT_S,
) -> Verdicts:
    """Run the suite and read its report.

    Args:
        folder: for the report and the run's own files.
        options: what tells pytest its subject.
        cases: ``fast``, ``slow`` (fast and the timing tests) or ``full``.
        tests: requirement ids, to run only their tests.
        meanwhile: called once, as soon as the first test is over.
        environment: further variables.
        kept_s: how long a prompt that was stored early has to be kept.

    Raises:
        LabError: there is no report, the run did not end, or it was over before ``meanwhile`` could be called.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    arguments = [
        *("suite", "-p", "lab.selection", "-q", "-p", "no:cacheprovider", "--tb=short"),
        *("-p", "no:hypothesispytest"),  # seconds to import, and no test of the suite uses it
        *(f"--report-dir={folder}", f"--run-dir={folder / 'runs'}", f"--timeout={TEST_DEADLINE_S}"),
        *(f"--deadline=kept={kept_s:g}", *options),
    ]
    variables = os.environ | {selection.ENV_CASES: cases, selection.ENV_TESTS: " ".join(tests)} | (environment or {})
    if cases == "full" or tests:
        arguments.append("--profiles=all")  # of these only the tests that are named, or everything
    log = folder / "pytest.log"
    run = forked.start("pytest", arguments, ROOT, log, variables=variables)
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
        not_judged=frozenset(e["id"] for e in entries if e["verdict"] in {"not judged", "partly judged"}),
        errors={e["id"]: e["reason"] for e in entries if e["errored"]},
    )


def wait_for_first_test(folder: Path, run: BaseProcess, log: Path) -> None:
    """Return as soon as one test of a run is over.

    Raises:
        LabError: the run ended, or none was over in time.
    """
    if not poll(lambda: not run.is_alive() or any(folder.glob(f"runs/*/{FINISHED}")), bool, FIRST_TEST_DEADLINE_S):
        raise LabError(f"no test was over within {FIRST_TEST_DEADLINE_S:.0f} s (log: {log})")
    if not run.is_alive():
        raise LabError(f"the suite was over before anything happened to the processes (log: {log})")


# ------------------------------------------------------------------------------------------- what happens to processes
def act(bench: Bench, what: Process) -> str:
    """Do something to a process of the stack; returns the proof, in words.

    Raises:
        LabError: it did not happen.
    """
    server = bench.record.cache_servers[0]
    engine = bench.record.engines[0]
    assert server.process is not None
    assert engine.process is not None
    if what.action == "kill-cache-server":
        for one in process_tree(server.process):
            one.kill()
        return _gone(server.process, "the cache server")
    if what.action == "restart-cache-server":
        running = server.process.process()
        assert running is not None
        assert server.log is not None
        command, environment, cwd = running.cmdline(), running.environ(), running.cwd()
        for one in process_tree(server.process):
            one.kill()
        _gone(server.process, "the cache server")
        with server.log.open("ab") as log:
            again = subprocess.Popen(command, env=environment, cwd=cwd, stdout=log, stderr=log, start_new_session=True)
        bench.others.append(again)
        client = Client(server.url, deadline_s=5.0)
        if not poll(lambda: _answers(client), bool, 60.0):
            raise LabError("the cache server did not come back")
        return "the cache server was killed and is back"
    if what.action == "freeze-cache-server":
        tree = process_tree(server.process)
        for one in tree:
            one.suspend()
        stopped = poll(lambda: {one.status() for one in tree}, lambda found: found == {psutil.STATUS_STOPPED}, 5.0)
        threading.Timer(what.seconds, functools.partial(_resume, tree)).start()
        if stopped != {psutil.STATUS_STOPPED}:
            raise LabError(f"the cache server could not be stopped: its processes are {', '.join(sorted(stopped))}")
        return f"the cache server was stopped for {what.seconds:.0f} s"
    if what.action == "kill-engine":
        cores = [one for one in process_tree(engine.process) if one.pid != engine.process.pid]
        for one in cores:
            with contextlib.suppress(psutil.Error):
                one.kill()
        _, left = psutil.wait_procs(cores, timeout=5.0)
        if left or not cores:
            raise LabError("the engine core could not be killed")
        return f"{len(cores)} processes of the engine were killed"
    raise LabError(f"no such action: {what.action}")


def _resume(tree: list[psutil.Process]) -> None:
    for one in tree:
        if one.is_running():
            one.resume()


def _answers(client: Client) -> bool:
    with contextlib.suppress(SubjectFault, NotJudged, OSError):
        return client.get("/healthcheck").status == 200
    return False


def _gone(reference: Any, name: str) -> str:
    if not poll(lambda: reference.alive, lambda alive: not alive, 5.0):
        return f"{name} was killed"
    raise LabError(f"{name} still runs")


def hang_up(bench: Bench, clients: int = 40) -> str:
    """Clients that ask and hang up, some at once and some within the answer; returns the proof."""
    stack = Stack(bench.record)
    source = Prompts(random.SystemRandom().randrange(2**31), "hang-ups", stack.chunk_tokens, stack.max_model_len - 300)
    abandoned = 0
    for _ in range(clients // 10):
        abandoned += abort_requests(stack, [source.unique(chunks=4) for _ in range(10)])
    stack.traffic.wait_until_idle()
    if not abandoned:
        raise LabError("no client hung up before its answer")
    return f"{abandoned} of {clients} clients hung up"


@contextlib.contextmanager
def cpu_load(count: int = 1) -> Iterator[None]:
    """Other programs compute at normal priority."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(10000))"]) for _ in range(count)]
    try:
        yield
        if any(program.poll() is not None for program in programs):
            raise LabError("a program that was to load the machine ended early")
    finally:
        for program in programs:
            program.kill()
        for program in programs:
            program.wait()


@contextlib.contextmanager
def other_clients(bench: Bench, every_s: float = 1.0) -> Iterator[None]:
    """Another client asks the first engine once a second: 50 tokens of prompt, 16 of answer.

    Raises:
        LabError: it was never answered.
    """
    stack = Stack(bench.record)
    source = Prompts(random.SystemRandom().randrange(2**31), "others", stack.chunk_tokens, 4096)
    stop, answers = threading.Event(), ["nothing was sent"]

    def ask() -> None:
        engine = bench.record.engines[0]
        client = Client(engine.url, headers=authorization(engine))
        while not stop.wait(every_s):
            try:
                payload = {"model": stack.model, "prompt": list(source.of_length(50).ids), "max_tokens": 16}
                answers.append(f"HTTP {client.post('/v1/completions', payload).status}")
            except Exception as problem:  # whatever it is, it is why the fault was not seeded
                answers.append(f"{type(problem).__name__}: {problem}")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    if "HTTP 200" not in answers:
        raise LabError(f"the other client was never answered: {answers[-1]}")


def as_data(value: Any) -> Any:
    """A dataclass as data whose JSON is the same every time."""
    return dataclasses.asdict(value)
