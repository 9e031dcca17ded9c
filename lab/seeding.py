"""A fault is seeded into a stack for a while, and has to prove that it acted."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.core.record import StackRecord
from lab import process_faults
from lab.catalogue.model import Hook, Process, Proxy
from lab.hook_control import acted, copy_hooks, switch_off, write_control
from lab.proxy.faults import FAULTS as PROXY_FAULTS
from lab.proxy.server import Proxy as FaultProxy
from lab.seeding_subject import LabError

if TYPE_CHECKING:
    from lab.bench import Bench
    from lab.catalogue.model import Injection

DURING: dict[str, Callable[[Bench, Process], contextlib.AbstractContextManager[None]]] = {
    "cpu-load": lambda _, what: process_faults.cpu_load(what.count),
    "other-clients": lambda bench, _: process_faults.other_clients(bench),
    "remove-folder": lambda bench, _: process_faults.without_folder(bench),
    "write-protect-folder": lambda bench, _: process_faults.write_protected(bench),
    "small-folder": lambda bench, _: process_faults.on_a_small_disk(bench),
}
"""What lasts as long as the suite runs, by action."""
BEFORE: dict[str, Callable[[Bench], object]] = {
    "kill-store": process_faults.kill_store,
    "disconnects": process_faults.disconnect,
}
"""What happens before the suite runs. Every other action happens once the first test is over."""


@contextlib.contextmanager
def seeded(bench: Bench, id_: str, injection: Injection | None) -> Iterator[tuple[Path, Callable[[], object] | None]]:
    """Seed a fault for a while; yields the record to attach to, and what to do once the first test has ended.

    Raises:
        LabError: it never acted.
    """
    record, meanwhile = bench.record_path, None
    with contextlib.ExitStack() as during:
        if isinstance(injection, Hook):
            during.enter_context(hooked(bench, id_, injection))
        elif isinstance(injection, Proxy):
            record = during.enter_context(proxied(bench, injection))
        elif isinstance(injection, Process) and injection.action in DURING:
            during.enter_context(DURING[injection.action](bench, injection))
        elif isinstance(injection, Process) and injection.action in BEFORE:
            BEFORE[injection.action](bench)
        elif isinstance(injection, Process):
            meanwhile = functools.partial(process_faults.act, bench, injection)
        yield record, meanwhile


@contextlib.contextmanager
def hooked(bench: Bench, id_: str, hook: Hook) -> Iterator[None]:
    """Switch a fault on for a while.

    Raises:
        LabError: it never acted.
    """
    (bench.hooks / "fired.jsonl").unlink(missing_ok=True)
    write_control(bench.hooks, id_, addressed(bench, hook))
    try:
        yield
    finally:
        switch_off(bench.hooks)
    _check_acted(bench.hooks, id_, hook)


@contextlib.contextmanager
def hooks_of_its_own(folder: Path, id_: str, hook: Hook) -> Iterator[Path]:
    """Hooks for a stack that the suite itself starts and tears down, with the fault switched on.

    Raises:
        LabError: it never acted.
    """
    hooks = copy_hooks(folder)
    write_control(hooks, id_, hook)
    yield hooks
    _check_acted(hooks, id_, hook)


def _check_acted(hooks: Path, id_: str, hook: Hook) -> None:
    if not acted(hooks, id_):
        raise LabError(f"the hook {hook.name} never acted: the fault was not seeded")


def addressed(bench: Bench, hook: Hook) -> Hook:
    """The hook in the terms of this stack.

    One that is meant for one engine names it by what its processes know: their temporary folder. A time in prefills is
    one in seconds for each token, by the engine without its connector.
    """
    params = dict(hook.params)
    if "engine" in params:
        params["tmpdir"] = str(bench.record.engines[params["engine"]].tmp)
    if "prefills" in params:
        baseline = bench.record.baseline
        assert baseline is not None
        params["seconds_per_token"] = params["prefills"] * statistics.median(baseline.cold_s) / baseline.prompt_tokens
    return dataclasses.replace(hook, params=params)


@contextlib.contextmanager
def proxied(bench: Bench, proxy: Proxy) -> Iterator[Path]:
    """Put a proxy in front of the router, or of the first engine, for a while; yields a record with the proxy's URL.

    Raises:
        LabError: its fault never acted.
    """
    front = (*bench.record.routers, *bench.record.engines)[0]
    fault = PROXY_FAULTS[proxy.name](**proxy.params)
    fault.engines = tuple(engine.url for engine in bench.record.engines)
    with FaultProxy(front.url, fault) as running:
        folder = bench.folder / "proxied"
        folder.mkdir(exist_ok=True)
        record = bench.record.model_copy(deep=True, update={"id": f"{bench.record.id}-proxied", "folder": folder})
        (*record.routers, *record.engines)[0].url = running.url
        path = record.save(folder)
        try:
            yield path
        finally:
            # The suite may have started a server again, in a process that only the record of the proxy knows.
            for own, one in zip(bench.record.everything, StackRecord.load(path).everything, strict=True):
                own.process = one.process
            bench.record.save(bench.registry)
            (bench.registry / f"{record.id}.json").unlink(missing_ok=True)
        if not running.fired:
            raise LabError(f"the proxy fault {proxy.name} never acted: the fault was not seeded")
