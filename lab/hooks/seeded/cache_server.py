"""Faults of the cache server: lookups, stores, locks, eviction and keys."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from .control import MEMORY, fired, params, wrapper
from .lower_tier import _since_start


@wrapper
def lookup(original: Any, self: Any, key: Any, *args: Any, **options: Any) -> Any:
    if wanted := params("slow-lookup"):
        number = MEMORY["lookups"] = MEMORY.get("lookups", 0) + 1
        if number % wanted.get("every", 1) == 0:
            fired("a lookup waited")
            time.sleep(wanted["seconds"])
    elif (wanted := params("say")) and not MEMORY.get("said"):
        MEMORY["said"] = True
        fired("wrote a line into the log")
        logging.getLogger("lmcache.v1.multiprocess.modules.lookup").log(
            logging.getLevelNamesMapping()[wanted["level"]], wanted["text"]
        )
    elif params("raise-in-lookup"):
        fired("a lookup raised an error")
        raise RuntimeError("seeded fault: the index cannot be read")
    return original(self, key, *args, **options)


@wrapper
def consume_prefetch_result(original: Any, self: Any, job: Any) -> Any:
    found = original(self, job)
    if found is None or not job.requested_tokens:
        return found
    if params("lost-index") and found:
        fired(f"forgot {found} chunks that are in the tier")
        return 0
    if params("false-hit") and found == 0:
        asked = job.requested_tokens // self._ctx.chunk_size
        if asked > 1:
            fired(f"answered a hit of {asked} chunks with nothing behind it")
            return asked
    return found


@wrapper
def commit_store(original: Any, self: Any, *args: Any, **options: Any) -> Any:
    if params("raise-in-store"):
        fired("a store raised an error in the cache server")
        raise RuntimeError("seeded fault: the store path raised an error")
    if params("refuse-store"):
        fired("a store was refused")
        original(self, *args, **options)
        return False
    if wanted := params("leak"):
        _leak(wanted)
    return original(self, *args, **options)


def _leak(wanted: dict[str, Any]) -> None:
    """Keep ``bytes`` more for ever, ``most`` in all."""
    if MEMORY.setdefault("bytes", 0) < wanted["most"]:
        piece = bytearray(os.urandom(4096) * (wanted["bytes"] // 4096))
        MEMORY.setdefault("leaked", []).append(piece)
        MEMORY["bytes"] += len(piece)
        fired(f"kept {len(piece)} bytes for ever")


@wrapper
def finish_write(original: Any, self: Any, completion: Any, *args: Any, **options: Any) -> Any:
    if params("lost-write"):
        # Reserved, written, acknowledged, and never made visible to a reader.
        fired(f"never published {sum(len(owned) for _, owned in completion)} chunks")
        return None
    result = original(self, completion, *args, **options)
    if wanted := params("lose-chunks"):
        self.delete_l1_keys([key for _, keys in completion for key in keys if _is_lost(wanted)])
    elif wanted := params("expire-chunks"):
        expired = [key for _, keys in completion for key in keys]
        timer = threading.Timer(wanted["seconds"], _expire, (self, expired))
        timer.daemon = True
        timer.start()
    elif wanted := params("keep-few"):
        self.delete_l1_keys(_beyond(wanted["chunks"], [key for _, keys in completion for key in keys]))
    return result


def _is_lost(wanted: dict[str, Any]) -> bool:
    """Whether the next chunk is lost: every ``every``-th, once ``after`` have been stored."""
    number = MEMORY["published"] = MEMORY.get("published", 0) + 1
    if number <= wanted.get("after", 0) or number % wanted["every"]:
        return False
    fired("lost a chunk that was stored")
    return True


def _beyond(most: int, stored: list[Any]) -> list[Any]:
    """The oldest of all that was stored beyond ``most``."""
    kept = MEMORY.setdefault("kept", [])
    kept += stored
    lost = [kept.pop(0) for _ in range(len(kept) - most)]
    if lost:
        fired(f"kept {most} chunks, whatever the size of the tier")
    return lost


def _expire(manager: Any, keys: list[Any]) -> None:
    """Delete what was stored some time ago, if the fault is still on."""
    if params("expire-chunks"):
        manager.delete_l1_keys(keys)
        fired(f"{len(keys)} chunks expired")


@wrapper
def finish_read(original: Any, self: Any, keys: Any, *args: Any, **options: Any) -> Any:
    if params("keep-pins"):
        fired(f"did not return the pins of {len(keys)} chunks")
        return None
    if wanted := params("leak-load"):  # several loads may end in one call
        _leak(wanted | {"bytes": wanted["bytes"] * len(keys)})
    return original(self, keys, *args, **options)


@wrapper
def eviction_actions(original: Any, self: Any, *args: Any, **options: Any) -> Any:
    """Called in the cache server once a second while the tier is nearly full."""
    if params("never-evict"):
        fired("evicted nothing from a full tier")
        return []
    actions = original(self, *args, **options)
    if params("evict-newest"):
        newest = self.get_eviction_candidates(self.get_num_tracked_keys())[::-1]
        for action in actions:
            action.keys[:] = newest[: len(action.keys)]
            fired(f"evicted the {len(action.keys)} chunks that were used last")
    return actions


@wrapper
def keys_touched(original: Any, self: Any, keys: Any) -> Any:
    if params("forget-use"):
        fired("did not note that chunks were used")
        return None
    return original(self, keys)


@wrapper
def hash_tokens(original: Any, self: Any, tokens: Any, prefix_hash: Any = None) -> Any:
    if params("reseed"):
        number = MEMORY["seed"] = MEMORY.get("seed", 0) + 1
        fired("hashed with another seed than before")
        return original(self, [*tokens, number], prefix_hash)
    if wanted := params("weak-hash"):
        fired("hashed a part of the prompt only")
        if wanted["ignores"] == "last-token-of-a-chunk":
            tokens = [*tokens[:-1], 0]
        elif wanted["ignores"] == "content":
            tokens = [0] * len(tokens)
        elif wanted["ignores"] == "prefix":
            prefix_hash = None
    return original(self, tokens, prefix_hash)


@wrapper
def no_salt(original: Any, self: Any, *args: Any, **options: Any) -> Any:
    if params("no-salt") and options.get("cache_salt"):
        fired("left the cache salt out of the key")
        options["cache_salt"] = ""
    elif params("own-keys"):
        fired("made keys that no other engine has")
        options["cache_salt"] = f"{options.get('cache_salt') or ''}own"
    elif _since_start("new-keys"):
        fired("an engine that was started again makes other keys than before")
        options["cache_salt"] = f"{options.get('cache_salt') or ''}new"
    return original(self, *args, **options)


@wrapper
def tracker(original: Any, self: Any, request: Any, *args: Any, **options: Any) -> None:
    original(self, request, *args, **options)
    adapter = getattr(request, "lora_request", None)
    if adapter is not None and params("adapter-in-key"):
        fired("put the adapter into the key")
        self.cache_salt = f"{self.cache_salt}{adapter.lora_name}"
