"""What is switched on, and the note of what acted; every other module of this package asks it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import threading
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1]
CONTROL = FOLDER / "control.json"
FIRED = FOLDER / "fired.jsonl"
STATE: dict[str, Any] = {"stamp": None, "fault": {}, "deaf": False, "started": None}
MEMORY: dict[str, Any] = {}
"""What a fault keeps between two calls (another request's chunk, leaked bytes); emptied when the fault changes."""
_lock = threading.Lock()


def fault() -> dict[str, Any]:
    """The fault that is switched on; empty if none is."""
    try:
        now = CONTROL.stat()
        # The clock of a file system is coarse; a file that was replaced has another inode.
        stamp = (now.st_mtime_ns, now.st_ino, now.st_size)
    except OSError:
        stamp = None
    if stamp != STATE["stamp"]:
        with _lock:
            found: dict[str, Any] = {}
            with contextlib.suppress(OSError, ValueError):
                read = json.loads(CONTROL.read_text() or "{}")
                found = read if isinstance(read, dict) else {}
            MEMORY.clear()
            STATE.update(stamp=stamp, fault=found)
    return STATE["fault"]


def params(*hooks: str) -> dict[str, Any] | None:
    """The parameters of the fault that is switched on, if it is one of ``hooks``; else None."""
    now = fault()
    wanted = {"hook": now.get("hook"), **now.get("params", {})}
    here = wanted.get("tmpdir") in (None, os.environ.get("TMPDIR"))  # one engine of several
    return wanted if wanted["hook"] in hooks and here else None


def fired(what: str) -> None:
    """Note that the fault acted, and where."""
    line = json.dumps({"id": fault().get("id"), "pid": os.getpid(), "what": what}) + "\n"
    descriptor = os.open(FIRED, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def wrapper(replacement: Any) -> Any:
    """Make what `wrap` takes of a function that is called in place of another one, which is its first argument.

    A coroutine function stays one: its callers ask.
    """

    def make(original: Any) -> Any:
        @functools.wraps(original)
        def call(*args: Any, **options: Any) -> Any:
            return replacement(original, *args, **options)

        @functools.wraps(original)
        async def call_and_wait(*args: Any, **options: Any) -> Any:
            return await replacement(original, *args, **options)

        return call_and_wait if inspect.iscoroutinefunction(replacement) else call

    return make


def wrap(owner: Any, name: str, make: Any) -> None:
    setattr(owner, name, make(getattr(owner, name)))
