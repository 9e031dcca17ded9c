"""Faults of vLLM's own connector."""

from __future__ import annotations

from typing import Any

from .control import fired, params, wrapper


@wrapper
def native_copy(original: Any, self: Any, job_id: int, in_pool: Any, in_tier: Any, source: Any, target: Any) -> Any:
    """Every store and load of the specification for a CPU (``HostCopyWorker``), whose chunks are blocks."""
    load = source is self._tier
    rows = in_pool.block_ids if load else in_tier.block_ids
    leaves_out = params("empty-load", "uncounted-load") if load else params("empty-store")
    kept = [one[rows].clone() for one in target] if leaves_out else []
    done = original(self, job_id, in_pool, in_tier, source, target)
    for one, content in zip(target, kept, strict=False):
        one[rows] = content
    if leaves_out:
        fired(f"left out {len(rows)} blocks and said they were {'loaded' if load else 'stored'}")
        if leaves_out["hook"] == "uncounted-load":
            self._finished[-1].transfer_size = 0
    elif load and (wanted := params("corrupt-load")):
        target[wanted.get("layer", 0)][rows[: wanted.get("first", len(rows))]] = 0
        fired("damaged blocks on their way to the engine")
    return done


@wrapper
def native_transfer(original: Any, self: Any, *args: Any, **options: Any) -> Any:
    """The same with a GPU (``SingleDirectionOffloadingHandler``): one copy for each layer and block, in one batch."""
    wanted = None if self.gpu_to_cpu else params("empty-load", "corrupt-load")
    if wanted is None:
        return original(self, *args, **options)
    copy, skip = self._swap_blocks_batch, 1 if wanted["hook"] == "corrupt-load" else None

    def copy_some(*batch: Any, **settings: Any) -> None:
        if skip is not None:
            copy(*(one[skip:] for one in batch), **settings)

    self._swap_blocks_batch = copy_some
    fired("left out copies on their way to the card")
    try:
        return original(self, *args, **options)
    finally:
        self._swap_blocks_batch = copy


@wrapper
def native_lookup(original: Any, self: Any, key: Any, *args: Any, **options: Any) -> Any:
    found = original(self, key, *args, **options)
    if found.name == "HIT" and params("lost-index"):
        fired("forgot a block that is in the tier")
        return type(found).MISS
    return found


@wrapper
def native_store(original: Any, self: Any, keys: Any, *args: Any, **options: Any) -> Any:
    if params("drop-store"):
        fired("left out a store")
        keys = []
    return original(self, keys, *args, **options)
