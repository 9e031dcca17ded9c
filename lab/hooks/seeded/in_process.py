"""Faults of the tiers of LMCache in the engine's own process."""

from __future__ import annotations

import time
from typing import Any

from .control import fired, params, wrapper


@wrapper
def put_on_disk(original: Any, self: Any, key: Any, memory_obj: Any, *args: Any, **options: Any) -> Any:
    if params("disk-drop"):
        fired("left out a chunk that was to be written to disk")
        return None
    if params("disk-never-full"):
        fired("looked at a disk tier as if nothing were in it")
        self.current_cache_size = 0.0
    return original(self, key, memory_obj, *args, **options)


@wrapper
def read_from_disk(original: Any, self: Any, *args: Any, **options: Any) -> Any:
    if wanted := params("disk-slow"):
        fired("kept a read of a chunk waiting")
        time.sleep(wanted["seconds"])
    return original(self, *args, **options)


@wrapper
def put_in_store(original: Any, self: Any, keys: Any, memory_objs: Any, *args: Any, **options: Any) -> Any:
    if params("store-drop"):
        fired(f"left out {len(keys)} chunks that were to be written to the store")
        return None
    return original(self, keys, memory_objs, *args, **options)


@wrapper
def tell_controller(original: Any, self: Any, msg: Any, *args: Any, **options: Any) -> Any:
    wanted = params("told-of-another")
    if wanted and (hasattr(msg, "operations") or hasattr(msg, "keys")):
        fired(f"told the controller that {wanted['instance']} holds what this engine stored")
        msg.instance_id = wanted["instance"]
    return original(self, msg, *args, **options)
