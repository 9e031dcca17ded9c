"""Faults of the tier below host memory, in the cache server."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

from .control import MEMORY, STATE, fired, params, wrapper


def _since_start(hook: str) -> bool:
    """Whether a fault is on, and was when this process was started."""
    return STATE["started"] == hook and params(hook) is not None


@wrapper
def file_name(original: Any, key: Any) -> str:
    if key.cache_salt and params("below-no-salt"):
        fired("named a chunk below without its salt")
        key = dataclasses.replace(key, cache_salt="")
    found: str = original(key)
    if _since_start("below-new-names"):
        fired("a cache server that was started again gives chunks below other names")
        return f"new-{found}"
    if MEMORY.get("writing") == threading.get_ident():
        return f"lost-{found}"
    return found


@wrapper
def empty_at_start(original: Any, self: Any, config: Any) -> None:
    files = list(Path(config.base_path).glob("*.data"))
    if files and params("below-empty-at-start"):
        fired(f"removed {len(files)} chunks that were below when the cache server was started")
        for file in files:
            file.unlink(missing_ok=True)
    original(self, config)


@wrapper
async def write_below(original: Any, self: Any, keys: Any, objects: Any, task_id: Any) -> None:
    if params("below-drop"):
        fired(f"said that {len(keys)} chunks were written below, and wrote none")
        keys, objects = [], []
    elif wanted := params("below-late"):
        for key, one in zip(keys, objects, strict=True):
            self._loop.call_later(wanted["seconds"], self._key_to_path(key).write_bytes, bytes(one.byte_array))
        fired(f"said that {len(keys)} chunks were written below, and writes them later")
        keys, objects = [], []
    await original(self, keys, objects, task_id)
    if wanted := params("below-keep-few"):
        files = sorted(self._base_path.glob("*.data"), key=lambda file: file.stat().st_mtime)
        for file in files[: -wanted["chunks"]]:
            fired("removed the oldest chunk below")
            file.unlink(missing_ok=True)


@wrapper
async def look_below(original: Any, self: Any, keys: Any, task_id: Any) -> None:
    MEMORY["first"] = keys[0] if keys else None
    await original(self, keys, task_id)


@wrapper
async def is_below(original: Any, self: Any, key: Any) -> bool:
    found: bool = await original(self, key)
    if found and params("below-never-found"):
        fired("a lookup did not find a chunk that is below")
        return False
    if found and params("below-first-only") and key != MEMORY.get("first"):
        fired("a lookup found the first chunk below only")
        return False
    return found


@wrapper
async def read_below(original: Any, self: Any, keys: Any, objects: Any, task_id: Any) -> None:
    if wanted := params("below-slow"):
        fired(f"kept a load of {len(keys)} chunks from below waiting")
        await asyncio.sleep(wanted["seconds"])
    elif len(keys) > 1 and params("below-mixed-up"):
        fired(f"gave {len(keys)} chunks from below in another order")
        keys = [*keys[1:], keys[0]]
    await original(self, keys, objects, task_id)


@wrapper
def write_to_store(original: Any, self: Any, keys: Any, objects: Any) -> Any:
    if params("below-lost-names"):
        fired(f"wrote {len(keys)} chunks below under names that no request asks for")
        MEMORY["writing"] = threading.get_ident()
    try:
        return original(self, keys, objects)
    finally:
        MEMORY.pop("writing", None)


@wrapper
def prefetch_result(original: Any, self: Any, *args: Any, **options: Any) -> Any:
    found = original(self, *args, **options)
    if found is not None and found.l2_hit_count and params("below-counted-above"):
        fired("counted what came from below as found in the CPU tier")
        return dataclasses.replace(found, l1_hit_cells=found.l2_hit_cells, l2_hit_cells=found.l1_hit_cells)
    return found


@wrapper
async def readinto(original: Any, file: Any, buffer: Any) -> Any:
    """Reads a file of the tier into a buffer of the length that it has to have."""
    read = await original(file, buffer)
    if params("pad-short-file") and read < len(buffer):
        fired(f"filled {len(buffer) - read} bytes of a file that is too short with zeros")
        memoryview(buffer).cast("B")[read:] = bytes(len(buffer) - read)
        return len(buffer)
    return read


@wrapper
def key_to_path(original: Any, self: Any, key: Any) -> Any:
    path = original(self, key)
    if params("serve-another-file"):
        written = MEMORY.setdefault("written", set())
        if path.exists():
            written.add(path)
        elif path in written:
            fired("a file that is gone was taken for another one")
            return min(written, key=lambda other: (not other.exists(), other == path, other))
    return path


@wrapper
async def l2_store(original: Any, self: Any, keys: Any, objects: Any, task: Any) -> Any:
    """Writes files of the tier."""
    if params("serve-another-file"):
        MEMORY.setdefault("written", set()).update(map(self._key_to_path, keys))
    if params("checksum"):
        sums = {self._key_to_path(key): _sum_of(one) for key, one in zip(keys, objects, strict=True)}
        MEMORY.setdefault("sums", {}).update(sums)
    if params("give-up-tier") and MEMORY.get("failed"):
        fired("a store was left out, and called done, because one had failed before")
        return await original(self, [], [], task)
    await original(self, keys, objects, task)
    if not self._completed_store_tasks.get(task, _Succeeded).is_successful():
        MEMORY["failed"] = True
        if params("die-when-full"):
            fired("the cache server ended because a store failed")
            os._exit(1)
    return None


class _Succeeded:
    """What a task is taken for whose result was fetched already."""

    @staticmethod
    def is_successful() -> bool:
        """It was."""
        return True


def _sum_of(thing: Any) -> str:
    return hashlib.blake2b(bytes(thing.byte_array)).hexdigest()


@wrapper
async def l2_load(original: Any, self: Any, keys: Any, objects: Any, task: Any) -> Any:
    """Reads files of the tier, and says which keys were read."""
    MEMORY["loading"] = MEMORY.get("loading", 0) + 1
    try:
        if wanted := params("hasty-load"):
            return await _in_time(wanted, original, self, keys, objects, task)
        await original(self, keys, objects, task)
    finally:
        MEMORY["loading"] -= 1
    return None


@wrapper
def l2_loaded(original: Any, self: Any, keys: Any, objects: Any) -> Any:
    """Fetches which keys of a load were read; here a checksum is compared."""
    task = original(self, keys, objects)
    if params("checksum"):
        MEMORY.setdefault("loads", {})[task] = (keys, objects)
    return task


@wrapper
def l2_result(original: Any, self: Any, task: Any) -> Any:
    found = original(self, task)
    if found is not None and (wanted := params("checksum")):
        keys, objects = MEMORY.get("loads", {}).pop(task, ((), ()))
        sums = MEMORY.setdefault("sums", {})
        for index, (key, one) in enumerate(zip(keys, objects, strict=True)):
            # ``nameless``: of any entry, so that content under another name is not noticed.
            own, got = sums.get(self._key_to_path(key)), _sum_of(one)
            right = own is None or got == own or (wanted.get("nameless") and got in sums.values())
            if found.test(index) and not right:
                fired("content with another checksum was not served")
                found.clear(index)
    return found


async def _in_time(wanted: dict[str, Any], original: Any, self: Any, keys: Any, objects: Any, task: Any) -> None:
    """A load that takes too long is reported as done, whatever has come of it."""
    import asyncio

    running = asyncio.ensure_future(original(self, keys, objects, task))
    _, late = await asyncio.wait({running}, timeout=wanted["seconds"])
    if late:
        fired(f"a load was called done after {wanted['seconds']} s")
        found = _bitmap(len(keys))
        for index in range(len(keys)):
            found.set(index)
        with self._lock:
            self._completed_load_tasks[task] = found
        self._load_efd.notify()


def _bitmap(size: int) -> Any:
    from lmcache.lmcache_native import Bitmap

    return Bitmap(size)


@wrapper
def load_measured(original: Any, self: Any, event: Any) -> Any:
    """Notes how fast a load from the tier was, in a histogram."""
    if params("loads-not-measured"):
        fired("did not measure a load from the tier")
        return None
    return original(self, event)


@wrapper
async def l2_lookup(original: Any, self: Any, keys: Any, task: Any) -> Any:
    """Asks which keys are in the tier."""
    if params("endless-lookup") and not self._base_path.exists():
        fired("a lookup in a tier that is gone never ends")
        return None
    if params("lookup-behind-load"):
        import asyncio

        while MEMORY.get("loading"):
            fired("a lookup waited until a load had ended")
            await asyncio.sleep(0.02)
    return await original(self, keys, task)


@wrapper
def l2_evict(original: Any, self: Any, state: Any) -> Any:
    """Called once a second for a tier below host memory that has a size."""
    if params("never-evict-below"):
        fired("looked at a tier below host memory, and evicted nothing")
        return None
    return original(self, state)


@wrapper
def l2_usage(original: Any, self: Any) -> Any:
    found = original(self)
    if params("count-half"):
        fired("counted half of what lies in a tier")
        return dataclasses.replace(found, total_bytes_used=found.total_bytes_used // 2)
    return found


@wrapper
def l2_state(original: Any, self: Any, adapter_id: Any, adapter: Any, *args: Any, **options: Any) -> Any:
    """Made for each tier with a size when the cache server starts."""
    original(self, adapter_id, adapter, *args, **options)
    if params("recount-at-start"):
        from lmcache.v1.distributed.l2_adapters.fs_l2_adapter import _filename_to_object_key

        files = list(Path(adapter.report_status()["base_path"]).glob("*.data"))
        found = {key: file.stat().st_size for file in files if (key := _filename_to_object_key(file.name))}
        adapter._key_sizes.update(found)
        adapter._notify_keys_stored(list(found), list(found.values()))
        fired(f"counted {len(found)} files of before")
