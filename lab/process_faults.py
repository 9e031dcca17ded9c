"""Faults outside the engine's own code: processes that end or stop, clients that disconnect or crowd, a busy machine.

Each proves that it happened, or raises `LabError`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from fixtures.core.errors import NotJudged, SubjectFault
from fixtures.core.processes import process_tree
from fixtures.core.waiting import poll
from fixtures.evidence.named import named_by_cache_server
from fixtures.experiments.aborts import abort_requests
from fixtures.instruments.client import Client
from fixtures.instruments.prompts import Prompts
from fixtures.subject.engine import authorization
from fixtures.subject.stack import Stack
from lab.seeding_subject import LabError

if TYPE_CHECKING:
    from fixtures.core.processes import ProcessRef
    from lab.bench import Bench
    from lab.catalogue.model import Process


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
        return _freeze(server.process, "the cache server", what.seconds)
    if what.action == "freeze-engine":
        return _freeze(engine.process, "the engine", what.seconds)
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


def _freeze(reference: ProcessRef, name: str, seconds: float) -> str:
    """Stop every process of a server with SIGSTOP, for so many seconds or (0) for good; returns the proof."""
    tree = process_tree(reference)
    for one in tree:
        one.suspend()
    stopped = poll(lambda: {one.status() for one in tree}, lambda found: found == {psutil.STATUS_STOPPED}, 5.0)
    if seconds:
        threading.Timer(seconds, functools.partial(_resume, tree)).start()
    if stopped != {psutil.STATUS_STOPPED}:
        raise LabError(f"{name} could not be stopped: its processes are {', '.join(sorted(stopped))}")
    return f"{name} was stopped {f'for {seconds:.0f} s' if seconds else 'for good'}"


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


def disconnect(bench: Bench, clients: int = 40) -> str:
    """Clients that abort their requests, some at once and some within the answer; returns the proof."""
    stack = Stack(bench.record)
    source = Prompts(
        random.SystemRandom().randrange(2**31), "disconnects", stack.chunk_tokens, stack.max_model_len - 300
    )
    aborted = 0
    for _ in range(clients // 10):
        aborted += abort_requests(stack, [source.unique(chunks=4) for _ in range(10)])
    stack.traffic.wait_until_idle()
    if not aborted:
        raise LabError("no client disconnected before its answer")
    return f"{aborted} of {clients} clients disconnected"


def kill_store(bench: Bench) -> None:
    """End the first store below the cache server, and note it as one that others run: what a stack runs itself has to run.

    Raises:
        LabError: it still runs.
    """
    store = bench.record.stores[0]
    assert store.process is not None
    for one in process_tree(store.process):
        one.kill()
    _gone(store.process, "the store")
    store.process = None
    bench.record.save(bench.registry)


@contextlib.contextmanager
def without_folder(bench: Bench) -> Iterator[None]:
    """The folder of the first disk tier is moved elsewhere.

    Raises:
        LabError: there is none.
    """
    folder = _folder(bench)
    elsewhere = folder.rename(folder.with_name(f"{folder.name}-gone"))
    try:
        yield
        if folder.exists():
            raise LabError(f"{folder} was there again")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        elsewhere.rename(folder)


@contextlib.contextmanager
def write_protected(bench: Bench) -> Iterator[None]:
    """Nothing can be written to the folder of the first disk tier; for root by an attribute, which ext4, XFS and btrfs have.

    Raises:
        LabError: something can.
    """
    folder, attribute = _folder(bench), os.geteuid() == 0
    try:
        if attribute:
            subprocess.run(["chattr", "+i", folder], check=True, capture_output=True)
        else:
            folder.chmod(0o555)
        with contextlib.suppress(OSError):
            (folder / "x").touch()
            raise LabError(f"{folder} can be written to")
        yield
    except subprocess.SubprocessError as error:
        raise LabError(f"{folder} cannot be write-protected: {error}") from None
    finally:
        if attribute:
            subprocess.run(["chattr", "-i", folder], check=False, capture_output=True)
        else:
            folder.chmod(0o755)


@contextlib.contextmanager
def on_a_small_disk(bench: Bench, size_mib: int = 64) -> Iterator[None]:
    """The folder of the first disk tier is on a file system (tmpfs) of so many MiB.

    Raises:
        LabError: it cannot be mounted: that takes root.
    """
    folder = _folder(bench)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise LabError(f"a tmpfs cannot be mounted on {folder}, which takes root: {error}") from None
    try:
        yield
        if shutil.disk_usage(folder).free > size_mib << 19:
            raise LabError(f"more than half of the {size_mib} MiB are free")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False, capture_output=True)


def _folder(bench: Bench) -> Path:
    named = [one for server in bench.record.cache_servers for one in named_by_cache_server(server.argv, server.env)]
    folders = [Path(one.place) for one in named if one.kind == "folder"]
    if not folders:
        raise LabError("no cache server of the stack has a disk tier")
    return folders[0]


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
