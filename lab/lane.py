"""One stack at a time, and the faults that are seeded into it."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.core.errors import StackError
from fixtures.plugin.locks import machine
from lab import bench as benches
from lab.catalogue.model import KEPT_S, Fault, Healthy, Hook
from lab.grouping import comparable, needs_of
from lab.other_load import OtherLoad
from lab.result import Result, compare
from lab.seeding import hooks_of_its_own, seeded
from lab.seeding_subject import LabError
from lab.suite_run import judge

if TYPE_CHECKING:
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
        if needs.own:
            assert isinstance(injection, Hook)
            return self._judge_own(entry.id, injection, folder, tests)
        bench = self.bench_with(needs.values)
        try:
            with seeded(bench, entry.id, injection) as (record, meanwhile):
                options = [*attach(record), *([f"--soak={SOAK}"] if "RES-09" in tests else [])]
                return judge(
                    folder, options, cases=cases, tests=tests, without=entry.without, meanwhile=meanwhile, kept_s=kept_s
                )
        finally:
            if needs.harms or not bench.restore():
                self.drop()

    def _judge_own(self, id_: str, hook: Hook, folder: Path, tests: tuple[str, ...]) -> Verdicts:
        """On a stack that the suite itself starts and tears down."""
        self.drop()
        named = [f"--config={hook.values.configuration}"] if hook.values is not None else []
        with hooks_of_its_own(self.runner.folder / f"{id_}-hooks", id_, hook) as hooks:
            return judge(folder, named, cases="fast", tests=tests, environment={"KV_OFFLOAD_HOOKS": str(hooks)})

    def bench_with(self, values: Values | None) -> Bench:
        """The stack with these values: the running one, or a new one."""
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
                    runner.env,
                    runner.folder / name,
                    runner.cache,
                    runner.progress,
                )
            self._bench = bench
            bench.record.baseline = compared_with if comparable(values) else None
            bench.record.save(bench.registry)
            if values is not None:
                bench.check_values(values)
            elif not self._bench.restore():
                self.drop()
                raise LabError("a fresh stack does not load what it has stored: there is nothing to seed faults into")
        return self._bench

    def drop(self) -> None:
        """End the stack of this lane."""
        if self._bench is not None:
            self._bench.tear_down()
            self._bench = None


def attach(record: Path) -> list[str]:
    """What tells pytest its subject."""
    return ["--stack=attach", f"--record={record}"]
