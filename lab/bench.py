"""A stack to seed faults into, and how it is made healthy again after each.

Invariant: a fault starts on a stack that has just stored a prompt, loaded it again and answered the same, and whose logs
hold nothing but its start: else the verdicts of one fault would be those of the fault before it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import shutil
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.core.errors import NotJudged, SubjectFault
from fixtures.core.record import StackRecord
from fixtures.core.waiting import poll
from fixtures.instruments.client import Client
from fixtures.instruments.prompts import Prompts
from fixtures.provide.process import launch
from fixtures.subject.stack import Stack
from lab.changed_values import changed_config
from lab.proxy.faults import FAULTS as PROXY_FAULTS
from lab.proxy.server import Proxy as FaultProxy
from lab.subject import LabError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from fixtures.core.progress import Progress
    from fixtures.provide.process.environment import EngineEnv
    from lab.catalogue.model import Hook, Proxy, Values
    from lab.subject import Subject

HOOKS = Path(__file__).parent / "hooks"


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
