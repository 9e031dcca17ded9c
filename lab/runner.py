"""Every fault against the suite: seed it, run the suite, compare what fired with what should have.

Stacks are used again wherever the fault allows: hooks and proxies are switched on and off around one stack, so a fault
costs what its run of the suite costs. Results are kept by fault, suite and engine version; only what changed runs again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.core.files import cache_dir
from fixtures.core.progress import Progress
from fixtures.provide.process import baseline_engine, launch
from lab import history
from lab.engine_env import engine_env, processor
from lab.grouping import compared, in_groups, in_queues, runs_alone
from lab.lane import Lane
from lab.result import Result
from lab.seeding_subject import ROOT

if TYPE_CHECKING:
    from fixtures.core.baseline_record import Baseline
    from fixtures.provide.process.environment import EngineEnv
    from lab.result import Entry
    from lab.seeding_subject import Subject


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
                    if self._stopped and not result.good:
                        return  # it was ended with the lab: that is not a try
                    history.keep(self.tries, history.Try.of(result, self.versions, self.sources))
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
    @functools.cached_property
    def env(self) -> EngineEnv:
        """The environment of the engines; made where there is none."""
        return engine_env(self.progress)

    @property
    def versions(self) -> dict[str, str]:
        """Of the engine and the cache that the faults were seeded into, and what they ran on."""
        env = self.env
        return {"vllm": env.vllm, "lmcache": env.lmcache, "on": processor(self.subject.device)}

    @functools.cached_property
    def compared_with(self) -> Baseline | None:
        """The engine without its connector, of the values as they are: it is the same for every fault."""
        config = self.subject.load()
        made = functools.partial(
            launch.stand_up,
            config,
            self.env,
            folder=self.folder / "without-connector",
            cache=self.cache,
            progress=self.progress,
            device=self.subject.device,
        )
        seed = random.SystemRandom().randrange(2**31)
        return baseline_engine.measure(config.name, made, self.cache / "stacks", self.progress, seed, self.compared)

    # --- what is known already --------------------------------------------------------------------------------------
    @functools.cached_property
    def sources(self) -> str:
        """Digest of the sources when the run began: they are read once, not twice for every entry."""
        return sources_digest(self.subject.load().folder)

    def _key(self, entry: Entry) -> Path:
        env = self.env
        text = json.dumps(
            [
                dataclasses.asdict(entry),
                type(entry).__name__,
                dataclasses.asdict(self.subject),
                self.sources,
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
        found |= {name: tuple(found[name]) for name in ("missed", "undecided", "unrelated")}
        return Result(**found)

    def _keep(self, entry: Entry, result: Result) -> None:
        path = self._key(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(result), indent=2))

    def close(self, *, keep_logs: bool) -> None:
        """Remove what the runs left, unless they are to be inspected."""
        if keep_logs:
            print(f"logs and reports: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


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
        if path.parent.name != "catalogue" and path.name not in {"report.py", "__main__.py"} and path.is_file()
    ]
    digest = hashlib.sha256()
    for path in files:
        digest.update("/".join(path.parts[-2:]).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
