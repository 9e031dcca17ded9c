"""One stack at a time, and the faults that are seeded into it."""

from __future__ import annotations

import fcntl
import functools
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from fixtures.core.errors import StackError
from fixtures.core.record import StackRecord
from fixtures.plugin.locks import machine
from fixtures.provide.process import teardown
from lab import bench as benches
from lab import process_faults, selection
from lab.catalogue.model import KEPT_S, Fault, Healthy, Hook, Process, Proxy
from lab.changed_values import check_values
from lab.grouping import comparable, needs_of
from lab.other_load import OtherLoad
from lab.result import Result, compare
from lab.subject import LabError
from lab.suite_run import judge

if TYPE_CHECKING:
    from pathlib import Path

    from lab.bench import Bench
    from lab.catalogue.model import Values
    from lab.result import Entry
    from lab.runner import Runner
    from lab.suite_run import Verdicts

SOAK = "90s"
"""How long a fault that only a soak shows is soaked."""


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
        begin, load = time.monotonic(), OtherLoad()
        try:
            found = self._judge(entry)
        except (LabError, StackError) as error:
            return Result(entry.id, unproven=" ".join(str(error).split())[:400], seconds=time.monotonic() - begin)
        return compare(entry, found, time.monotonic() - begin, others=load.cores())

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
                    during.enter_context(process_faults.cpu_load(injection.count))
                elif isinstance(injection, Process) and injection.action == "other-clients":
                    during.enter_context(process_faults.other_clients(bench))
                elif isinstance(injection, Process) and injection.action == "kill-store":
                    process_faults.kill_store(bench)
                elif isinstance(injection, Process) and injection.action == "remove-folder":
                    during.enter_context(process_faults.without_folder(bench))
                elif isinstance(injection, Process) and injection.action == "write-protect-folder":
                    during.enter_context(process_faults.write_protected(bench))
                elif isinstance(injection, Process) and injection.action == "hang-ups":
                    process_faults.hang_up(bench)
                elif isinstance(injection, Process):
                    meanwhile = functools.partial(process_faults.act, bench, injection)
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
            bench.record.baseline = compared_with if comparable(values) else None
            bench.record.save(bench.registry)
            if values is not None:
                check_values(self._bench.record, values)
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


def _attach(record: Path) -> list[str]:
    return ["--stack=attach", f"--record={record}"]
