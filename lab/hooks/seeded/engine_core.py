"""Faults of the engine core: blocks, scheduling, counters, and the way from there to the worker."""

from __future__ import annotations

from typing import Any

from .control import MEMORY, fired, params, wrapper


@wrapper
def free_blocks(original: Any, self: Any, ordered_blocks: Any, *args: Any, **options: Any) -> Any:
    if wanted := params("keep-blocks"):
        blocks = list(ordered_blocks)
        number = MEMORY["frees"] = MEMORY.get("frees", 0) + 1
        if blocks and number % wanted.get("every", 1) == 0:
            fired("a block was never given back to the pool")
            blocks = blocks[1:]
        return original(self, blocks, *args, **options)
    return original(self, ordered_blocks, *args, **options)


@wrapper
def finish_requests(original: Any, self: Any, request_ids: Any, finished_status: Any) -> Any:
    found = original(self, request_ids, finished_status)
    if params("lose-after-abort") and found and finished_status.name == "FINISHED_ABORTED":
        MEMORY["aborted"] = True
    return found


@wrapper
def add_request(original: Any, self: Any, request: Any) -> Any:
    if params("lose-after-abort") and MEMORY.pop("aborted", False):
        fired("the request after an aborted one was never scheduled")
        return None
    return original(self, request)


@wrapper
def allocate_slots(original: Any, self: Any, request: Any, *args: Any, **options: Any) -> Any:
    loads = options.get("num_external_computed_tokens", 0)
    if params("lock-loads") and loads and MEMORY.get("locked"):
        return None
    blocks = original(self, request, *args, **options)
    if params("lock-loads") and loads and blocks is None:
        MEMORY["locked"] = True
        fired("a load that found no room keeps all later ones waiting for ever")
    return blocks


@wrapper
def free_blocks_of(original: Any, self: Any, request: Any) -> Any:
    """A request that has finished gives its blocks back, perhaps only when its last store or load has ended."""
    if params("keep-aborted") and request.status.name == "FINISHED_ABORTED":
        fired("the blocks of an aborted request were never given back to the pool")
        del self.requests[request.request_id]
        return None
    return original(self, request)


@wrapper
def prefill_stats(original: Any, self: Any, *args: Any, **options: Any) -> Any:
    result = original(self, *args, **options)
    if params("count-gpu-only") and self.num_external_cached_tokens:
        fired("left the loaded tokens out of the cached ones")
        self.num_cached_tokens = self.num_local_cached_tokens
    return result


@wrapper
def request_finished(original: Any, self: Any, *args: Any, **options: Any) -> Any:
    saved, given = original(self, *args, **options)
    said = (given or {}).get("cached_token_stats")
    if said and params("count-hit-as-loaded"):
        fired("reported all that was found as loaded")
        said["num_lmcache_extra_cached_tokens"] = said["num_lmcache_cached_tokens"]
    return saved, given


@wrapper
def wait(original: Any, self: Any, timeout_ms: int | None = None) -> Any:
    """No fault: an engine that waits for its worker, and a worker without work, sleep until they are woken.

    vLLM 0.32 has them spin on a core for a second after every message (``SpinCondition``), and the lab has two stacks on two
    cores. A notification can be lost (they are sent with a high-water mark of one), so the flag is looked at again.
    """
    self.busy_loop_s = 0.0
    return original(self, 10 if timeout_ms is None else min(10, timeout_ms))
