"""Every fault against the suite: seed it, run the suite, compare what fired with what should have.

Stacks are used again wherever the fault allows: hooks and proxies are switched on and off around one stack, so a fault
costs what its run of the suite costs. Results are kept by fault, suite and engine version; only what changed runs again.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.core.errors import StackError
from fixtures.core.files import cache_dir
from fixtures.core.progress import Progress
from fixtures.core.record import StackRecord
from fixtures.instruments import cards
from fixtures.plugin.locks import machine
from fixtures.plugin.option_table import ENGINE_ENV_VARIABLE, ENGINE_PYTHON_VARIABLE
from fixtures.provide.process import baseline_engine, install, probe, teardown
from lab import bench as benches
from lab import history, selection
from lab.bench import ROOT, Bench, LabError, Subject, Verdicts, judge
from lab.catalogue import KEPT_S, Fault, Healthy, Hook, Process, Proxy, Values, ids

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fixtures.core.record import Baseline
    from fixtures.provide.process.environment import EngineEnv

Entry = Fault | Healthy


@dataclass(frozen=True)
class Result:
    """What became of one fault or healthy variant."""

    id: str
    fired: dict[str, str] = field(default_factory=dict)
    """Requirement id to its reason."""
    missed: tuple[str, ...] = ()
    """Expected and silent."""
    unrelated: tuple[str, ...] = ()
    """Fired and neither expected nor allowed."""
    errors: dict[str, str] = field(default_factory=dict)
    """Errors of the suite: under no fault may there be any."""
    unproven: str = ""
    """Why the injection is not proven; then nothing else counts."""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether everything is as it should be."""
        return not (self.missed or self.unrelated or self.errors or self.unproven)

    def __str__(self) -> str:
        if self.unproven:
            return f"NOT SEEDED: {self.unproven}"
        parts = [
            f"{name} {', '.join(found)}"
            for name, found in (("missed", self.missed), ("unrelated", self.unrelated))
            if found
        ]
        parts += [f"error in {id_}: {reason}" for id_, reason in self.errors.items()]
        fired = ", ".join(sorted(self.fired)) or "nothing"
        return f"{'ok' if self.good else 'BAD'}: {fired} fired" + (f"; {'; '.join(parts)}" if parts else "")


def compare(entry: Entry, found: Verdicts, seconds: float = 0.0) -> Result:
    """What a run of the suite means for a fault."""
    if isinstance(entry, Healthy):
        return Result(entry.id, found.fired, (), tuple(sorted(found.fired)), found.errors, seconds=seconds)
    fired = frozenset(found.fired)
    missed = entry.expected - fired | (entry.not_judged - found.not_judged)
    unrelated = fired - entry.expected - entry.allowed
    return Result(entry.id, found.fired, tuple(sorted(missed)), tuple(sorted(unrelated)), found.errors, seconds=seconds)


LANES = ("a", "b")


class Runner:
    """Runs faults on two stacks at a time, each kept for all faults that can share it.

    One lane begins with what needs no values of its own and stays on one stack, the other with what does; who is done first
    helps the other. No test waits for the machine (``selection``); healthy variants that measure everything run alone.
    """

    def __init__(self, subject: Subject, *, fresh: bool = False) -> None:
        self.subject = subject
        self.cache = cache_dir()
        self.progress = Progress(sys.stderr, live=False)
        self.fresh = fresh
        self.folder = Path(tempfile.mkdtemp(prefix="kv-lab-"))
        self.begin = time.monotonic()
        self._env: EngineEnv | None = None
        self.compared: frozenset[str] = frozenset()
        """Requirements of all that is run that need ``compared_with``."""
        self._stopped = False
        self._lock = threading.Lock()

    # --- the whole catalogue ----------------------------------------------------------------------------------------
    def run(self, entries: Iterable[Entry]) -> list[Result]:
        """Every entry, those that share a stack in a row."""
        ordered = in_groups(entries)
        self.compared = frozenset().union(*map(compared, ordered))
        results: list[Result] = []
        left: list[Entry] = []
        for entry in ordered:
            known = None if self.fresh else self._known(entry)
            if known is not None:
                self._tell(results, known, len(ordered), "known")
            else:
                left.append(entry)

        def work(lane: Lane, *queues: deque[list[Entry]]) -> None:
            while not self._stopped and (queue := next((one for one in queues if one), None)) is not None:
                try:
                    group = queue.popleft()
                except IndexError:  # the other lane was faster
                    continue
                for entry in group:
                    if self._stopped:
                        return
                    result = lane.run(entry)
                    history.keep(self.tries, history.Try.of(result, self.versions, self._sources))
                    if result.good:  # what was not is run again next time
                        self._keep(entry, result)
                    self._tell(results, result, len(ordered), f"{result.seconds:.0f} s")

        with ExitStack() as stack:
            lanes = [Lane(self, name) for name in (LANES if self.subject.device == "cpu" else LANES[:1])]
            for lane in lanes:
                stack.callback(lane.drop)
            alone = [entry for entry in left if runs_alone(entry)]
            work(lanes[0], deque([alone]))
            plain, other = in_queues(entry for entry in left if entry not in alone)
            if self.compared and (plain or other):
                _ = self.compared_with  # before there are two stacks
            with ThreadPoolExecutor(len(lanes)) as pool:
                try:
                    orders = ((plain, other), (other, plain))
                    for done in [pool.submit(work, lane, *order) for lane, order in zip(lanes, orders, strict=False)]:
                        done.result()
                finally:
                    self._stopped = True  # whatever comes, no lane begins another one
        return results

    def _tell(self, results: list[Result], result: Result, total: int, how: str) -> None:
        with self._lock:
            results.append(result)
            minutes = (time.monotonic() - self.begin) / 60
            print(f"[{minutes:5.1f} min] {len(results):2}/{total} {result.id} ({how}): {result}", flush=True)

    @property
    def tries(self) -> Path:
        """Where every try is kept on this machine, good or not."""
        return self.cache / "lab" / "tries.jsonl"

    # --- stacks -----------------------------------------------------------------------------------------------------
    def engine_env(self) -> EngineEnv:
        """The environment of the engines; made where there is none."""
        if self._env is None:
            python, folder = os.environ.get(ENGINE_PYTHON_VARIABLE), os.environ.get(ENGINE_ENV_VARIABLE)
            if python:
                self._env = probe.adopt(Path(python))
            else:
                self._env = install.ensure(Path(folder) if folder else None, report=self.progress.line)
        return self._env

    @property
    def versions(self) -> dict[str, str]:
        """Of the engine and the cache that the faults were seeded into, and what they ran on."""
        env = self.engine_env()
        on = history.CPU if self.subject.device == "cpu" else cards.cards()[0].name
        return {"vllm": env.vllm, "lmcache": env.lmcache, "on": on}

    @functools.cached_property
    def compared_with(self) -> Baseline | None:
        """The engine without its connector, of the values as they are: it is the same for every fault."""
        return baseline_engine.measure(
            self.subject.load(),
            self.engine_env(),
            folder=self.folder / "without-connector",
            cache=self.cache,
            registry=self.cache / "stacks",
            progress=self.progress,
            device=self.subject.device,
            seed=random.SystemRandom().randrange(2**31),
            compared=self.compared,
        )

    # --- what is known already --------------------------------------------------------------------------------------
    @functools.cached_property
    def _sources(self) -> str:
        """Digest of the sources when the run began: they are read once, not twice for every entry."""
        return sources_digest(self.subject.load().folder)

    def _key(self, entry: Entry) -> Path:
        env = self.engine_env()
        text = json.dumps(
            [
                benches.as_data(entry),
                type(entry).__name__,
                benches.as_data(self.subject),
                self._sources,
                env.vllm,
                env.lmcache,
            ],
            sort_keys=True,
            default=sorted,
        )
        return self.cache / "lab" / f"{entry.id}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"

    def _known(self, entry: Entry) -> Result | None:
        try:
            found = json.loads(self._key(entry).read_text())
        except (OSError, ValueError):
            return None
        found |= {name: tuple(found[name]) for name in ("missed", "unrelated")}
        return Result(**found)

    def _keep(self, entry: Entry, result: Result) -> None:
        path = self._key(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(benches.as_data(result), indent=2))

    def close(self, *, keep_logs: bool) -> None:
        """Remove what the runs left, unless they are to be inspected."""
        if keep_logs:
            print(f"logs and reports: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


class Lane:
    """One stack at a time, and the faults that are seeded into it."""

    def __init__(self, runner: Runner, name: str) -> None:
        self.runner = runner
        self.name = name
        self._bench: Bench | None = None
        self._values: Values | None = None
        self._count = 0

    def run(self, entry: Entry) -> Result:
        """Seed it, run the suite, compare."""
        begin = time.monotonic()
        try:
            found = self._judge(entry)
        except (LabError, StackError) as error:
            return Result(entry.id, unproven=" ".join(str(error).split())[:400], seconds=time.monotonic() - begin)
        return compare(entry, found, time.monotonic() - begin)

    def _judge(self, entry: Entry) -> Verdicts:
        folder, needs = self.runner.folder / entry.id, needs_of(entry)
        cases, tests = "fast", entry.scope if isinstance(entry, Fault) else entry.tests
        kept_s = entry.kept_s if isinstance(entry, Fault) else KEPT_S
        if isinstance(entry, Healthy):
            cases = "full" if entry.setting is None else "slow" if entry.slow else "fast"
        elif entry.slow:
            cases = "slow"
        injection = entry.injection if isinstance(entry, Fault) else entry.setting
        without = {selection.ENV_WITHOUT: " ".join(entry.without)}
        if needs.own:
            assert isinstance(injection, Hook)
            return self._judge_own(entry.id, injection, folder, tests)
        bench = self._bench_with(needs.values)
        record, meanwhile = bench.record_path, None
        try:
            with ExitStack() as during:
                if isinstance(injection, Hook):
                    during.enter_context(bench.hooked(entry.id, injection))
                elif isinstance(injection, Proxy):
                    record = during.enter_context(bench.proxied(injection))
                elif isinstance(injection, Process) and injection.action == "cpu-load":
                    during.enter_context(benches.cpu_load(injection.count))
                elif isinstance(injection, Process) and injection.action == "other-clients":
                    during.enter_context(benches.other_clients(bench))
                elif isinstance(injection, Process) and injection.action == "hang-ups":
                    benches.hang_up(bench)
                elif isinstance(injection, Process):
                    meanwhile = functools.partial(benches.act, bench, injection)
                return judge(
                    folder,
                    [*_attach(record), *([f"--soak={SOAK}"] if "RES-09" in tests else [])],
                    cases=cases,
                    tests=tests,
                    meanwhile=meanwhile,
                    environment=without,
                    kept_s=kept_s,
                )
        finally:
            if needs.harms or not bench.restore():
                self.drop()

    def _judge_own(self, id_: str, hook: Hook, folder: Path, tests: tuple[str, ...]) -> Verdicts:
        """On a stack that the suite itself stands up and tears down."""
        self.drop()
        hooks = benches.copy_hooks(self.runner.folder / f"{id_}-hooks")
        benches.write_control(hooks, id_, hook)
        named = [f"--config={hook.values.configuration}"] if hook.values is not None else []
        found = judge(folder, named, cases="fast", tests=tests, environment={"KV_OFFLOAD_HOOKS": str(hooks)})
        if not benches.acted(hooks, id_):
            raise LabError(f"the hook {hook.name} never acted: the fault was not seeded")
        return found

    def _bench_with(self, values: Values | None) -> Bench:
        """The stack with these values: the one that stands, or a new one."""
        if self._bench is None or self._values != values:
            self.drop()
            self._count += 1
            runner, name = self.runner, f"stack-{self.name}{self._count}"
            self._values = values
            compared_with = runner.compared_with if runner.compared else None  # first: one card holds one engine
            # A start-up takes every core: it waits while a test has the machine to itself.
            with machine(fcntl.LOCK_SH, runner.progress):
                bench = benches.stand_up(
                    name,
                    runner.subject,
                    values,
                    runner.engine_env(),
                    runner.folder / name,
                    runner.cache,
                    runner.progress,
                )
            self._bench = bench
            bench.record.baseline = compared_with
            bench.record.save(bench.registry)
            if values is not None:
                benches.check_values(self._bench.record, values)
            elif not self._bench.restore():
                self.drop()
                raise LabError("a fresh stack does not load what it has stored: there is nothing to seed faults into")
        return self._bench

    def drop(self) -> None:
        """End the stack of this lane."""
        if self._bench is not None:
            for other in self._bench.others:
                other.kill()
                other.wait()
            # The suite may have started a server again, in a process that only the saved record knows.
            teardown.tear_down(StackRecord.load(self._bench.record_path), self.runner.cache / "stacks")
            self._bench = None


@dataclass(frozen=True)
class Needs:
    """What stack an entry is seeded into."""

    values: Values | None
    """Other values than the embedded configuration's."""
    harms: bool
    """The stack cannot be used again."""
    own: bool
    """The suite has to stand it up and tear it down itself."""


def needs_of(entry: Entry) -> Needs:
    """What stack an entry is seeded into."""
    injection = entry.injection if isinstance(entry, Fault) else entry.setting
    if isinstance(injection, Values):
        return Needs(injection, harms=isinstance(entry, Fault), own=False)
    if isinstance(injection, Hook):
        return Needs(injection.values, harms=False, own=injection.at_start)
    if isinstance(injection, Process):
        return Needs(injection.values, harms=isinstance(entry, Fault), own=False)
    if isinstance(injection, Proxy):
        return Needs(injection.values, harms=False, own=False)
    return Needs(None, harms=False, own=False)


SOAK = "90s"
"""How long a fault that only a soak shows is soaked."""
COMPARED = ids("LAT-04 LAT-07 LAT-09 MEM-05 THR-01 THR-03")
"""What is held against the engine without its connector."""


def compared(entry: Entry) -> frozenset[str]:
    """Requirements that an entry needs the engine without its connector for; LAT-04 also for the fault's own pace."""
    if isinstance(entry, Healthy) and not entry.tests:
        return COMPARED - set(entry.without)
    in_prefills = (
        isinstance(entry, Fault) and isinstance(entry.injection, Hook) and "prefills" in entry.injection.params
    )
    asked = set(entry.tests if isinstance(entry, Healthy) else entry.scope)
    return frozenset(
        id_ for id_ in COMPARED if asked & {id_, id_.partition("-")[0]} or (in_prefills and id_ == "LAT-04")
    )


def in_groups(entries: Iterable[Entry]) -> list[Entry]:
    """Entries that share a stack together, those that harm it last."""
    needs = [(needs_of(entry), entry) for entry in entries]
    groups: list[tuple[Values | None, bool]] = [(None, False)]
    for need, _ in needs:
        if (need.values, need.own) not in groups:
            groups.append((need.values, need.own))
    needs.sort(key=lambda one: (groups.index((one[0].values, one[0].own)), one[0].harms))
    return [entry for _, entry in needs]


def in_queues(ordered: Iterable[Entry]) -> tuple[deque[list[Entry]], deque[list[Entry]]]:
    """Entries for the stack as it is, one by one, and the others in groups that share a stack with other values."""
    plain: deque[list[Entry]] = deque()
    other: deque[list[Entry]] = deque()
    for entry in ordered:
        needs = needs_of(entry)
        if needs.values is None and not needs.own:
            plain.append([entry])
        elif other and needs.values is not None and needs_of(other[-1][-1]).values == needs.values:
            other[-1].append(entry)
        else:
            other.append([entry])
    return plain, other


def runs_alone(entry: Entry) -> bool:
    """Whether it measures everything: beside another stack its times would be those of both."""
    return isinstance(entry, Healthy) and (entry.setting is None or entry.slow)


def _attach(record: Path) -> list[str]:
    return ["--stack=attach", f"--record={record}"]


def sources_digest(config: Path) -> str:
    """Digest of everything that a verdict depends on besides the fault itself: suite, fixtures, ``config``, lab."""
    files = [
        path
        for folder, pattern in (
            (ROOT / "suite", "*.py"),
            (ROOT / "fixtures", "**/*.py"),
            (config, "*.yaml"),
            (ROOT / "lab", "**/*.py"),
        )
        for path in sorted(folder.glob(pattern))
        if path.name not in {"catalogue.py", "report.py", "__main__.py"} and path.is_file()
    ]
    digest = hashlib.sha256()
    for path in files:
        digest.update("/".join(path.parts[-2:]).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
