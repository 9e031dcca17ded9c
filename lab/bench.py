"""A stack to seed faults into, and how it is made healthy again after each.

Invariant: a fault starts on a stack that has just stored a prompt, loaded it again and answered the same, and whose logs
hold nothing but its start: else the verdicts of one fault would be those of the fault before it.
"""

from __future__ import annotations

import random
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.core.errors import NotJudged, SubjectFault
from fixtures.core.record import StackRecord
from fixtures.core.waiting import poll
from fixtures.instruments.client import Client
from fixtures.instruments.prompts import Prompts
from fixtures.provide.process import launch, process_teardown
from fixtures.subject.stack import Stack
from lab import hook_control
from lab.changed_values import changed_config, check_values, own_router

if TYPE_CHECKING:
    from fixtures.core.progress import Progress
    from fixtures.provide.process.environment import EngineEnv
    from lab.catalogue.model import Values
    from lab.seeding_subject import Subject


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

    def restore(self) -> bool:
        """Drop what a fault left in the tier and in the logs; False if the stack is not healthy any more."""
        hook_control.switch_off(self.hooks)
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

    def check_values(self, values: Values) -> None:
        """Whether the stack has the other values that it was stood up with.

        Raises:
            LabError: it does not show them.
        """
        check_values(self.record, values)

    def forget_logs(self) -> None:
        """Cut every log back to what it said when the stack was ready; its processes append, so they go on behind it."""
        for path, text in self.start_of_logs.items():
            with path.open("r+b") as file:
                file.truncate(0)
                file.write(text)

    def tear_down(self) -> None:
        """End every process of the stack, and those that faults started."""
        for other in self.others:
            other.kill()
            other.wait()
        # The suite may have started a server again, in a process that only the saved record knows.
        process_teardown.tear_down(StackRecord.load(self.record_path), self.registry)


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
    hooks = hook_control.copy_hooks(folder / "hooks")
    config = changed_config(name, subject, values, folder / "config")
    record = launch.stand_up(
        config,
        env,
        folder=folder / "stack",
        cache=cache,
        progress=progress,
        device=subject.device,
        hooks=(hooks,),
        router_python=own_router() if values is not None and values.own_router else None,
    )
    bench = Bench(folder, record, cache / "stacks")
    time.sleep(0.5)  # the last lines of the start
    bench.start_of_logs = {
        server.log: server.log.read_bytes() for server in record.everything if server.log is not None
    }
    return bench
