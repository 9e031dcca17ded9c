"""Faults inside the real engine and the real cache server, switched on and off while they run.

Invariant: with an empty control file every wrapped function does what it did before; a stack with these hooks is a healthy
one. Each fault that acts writes one line to ``fired.jsonl``: a fault that is switched on and never acts has not been
seeded, and a verdict about it would be worth nothing.

The control file is beside this module: ``{"id": ..., "hook": NAME, "params": {...}}``, or nothing. It is read again when
it was replaced, so one stack serves every fault of this kind one after the other. The modules below are
wrapped when they are first imported; nothing of LMCache or vLLM is imported here before its process does it.

This module runs under the engine's own interpreter: standard library only, no import from the project.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import importlib.abc
import importlib.machinery
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
CONTROL = FOLDER / "control.json"
FIRED = FOLDER / "fired.jsonl"

_state: dict[str, Any] = {"stamp": None, "fault": {}, "deaf": False, "started": None}
_memory: dict[str, Any] = {}
"""What a fault keeps between two calls (another request's chunk, leaked bytes); emptied when the fault changes."""
_lock = threading.Lock()


def fault() -> dict[str, Any]:
    """The fault that is switched on; empty when none is."""
    try:
        now = CONTROL.stat()
        # The clock of a file system is coarse; a file that was replaced has another inode.
        stamp = (now.st_mtime_ns, now.st_ino, now.st_size)
    except OSError:
        stamp = None
    if stamp != _state["stamp"]:
        with _lock:
            found: dict[str, Any] = {}
            with contextlib.suppress(OSError, ValueError):
                read = json.loads(CONTROL.read_text() or "{}")
                found = read if isinstance(read, dict) else {}
            _memory.clear()
            _state.update(stamp=stamp, fault=found)
    return _state["fault"]


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


# --------------------------------------------------------------------------- the engine's side of a transfer (worker)


def _corrupt(chunks: list[Any], wanted: dict[str, Any]) -> list[Any]:
    """Copies of the chunks, damaged as asked; a chunk is ``[K and V, layer, token, width]``.

    ``first``/``last`` choose chunks, ``layer``, ``half`` (0 keys, 1 values) and ``numbers`` narrow what is damaged.
    """
    import torch

    damage = wanted.get("damage", "zero")
    out = [chunk.clone() for chunk in chunks]
    chosen = list(range(len(out)))
    if "first" in wanted:
        chosen = chosen[: wanted["first"]]
    if "last" in wanted:
        chosen = chosen[-wanted["last"] :]
    if damage == "swap":
        if len(out) < 2:
            return chunks
        first, second = wanted.get("chunks", (0, 1))
        out[first], out[second] = out[second], out[first]
        return out
    for index in chosen:
        chunk = out[index]
        if "half" in wanted:
            chunk = chunk[wanted["half"]]
            chunk = chunk[wanted["layer"]] if "layer" in wanted else chunk
        elif "layer" in wanted:
            chunk = chunk[:, wanted["layer"]]
        if damage == "zero" and "numbers" in wanted:
            flat = chunk.reshape(-1)  # a view: the chunk is contiguous, and so are its first layers
            flat[: wanted["numbers"]] = 0
        elif damage == "zero":
            chunk.zero_()
        elif damage == "shift":
            chunk[..., 1:, :] = chunk[..., :-1, :].clone()
        elif damage == "round":
            chunk.copy_(chunk.to(torch.float8_e4m3fn).to(chunk.dtype))
        else:
            raise ValueError(f"no such damage: {damage}")
    return out


def _scatter(original: Any) -> Any:
    @functools.wraps(original)
    def scatter(kv_caches: Any, block_ids: Any, chunks: Any, *args: Any, **options: Any) -> Any:
        if wanted := params("corrupt-load"):
            tokens = len(chunks) * (chunks[0].shape[-2] if chunks else 0)
            busy = _memory.get("in-flight", 1)
            number = _memory["loads"] = _memory.get("loads", 0) + 1
            enough = tokens >= wanted.get("tokens", 0) and busy >= wanted.get("concurrent", 1)
            if wanted.get("replayed"):  # only of requests that have stored something themselves: they were preempted
                enough = enough and _memory.get("replay", False)
            if wanted.get("again"):  # only what has been loaded before
                last = bytes(chunks[-1].reshape(-1)[-1024:].float().numpy()) if chunks else b""
                enough = enough and last in _memory.setdefault("loaded", set())
                _memory["loaded"].add(last)
            if enough and number % wanted.get("every", 1) == 0:
                chunks = _corrupt(chunks, wanted)
                fired(f"damaged {len(chunks)} chunks on their way to the engine")
        elif wanted := params("empty-load"):
            fired(f"left out {len(chunks)} chunks and said they were loaded")
            return None
        elif wanted := params("foreign-chunk"):
            kept = _memory.get("chunk")
            _memory["chunk"] = chunks[wanted.get("chunk", 0)].clone() if chunks else kept
            if kept is not None and chunks:
                chunks = [chunk.clone() for chunk in chunks]
                chunks[wanted.get("chunk", 0)] = kept
                fired("served a chunk of the request before")
        return original(kv_caches, block_ids, chunks, *args, **options)

    return scatter


def _gather(original: Any) -> Any:
    @functools.wraps(original)
    def gather(*args: Any, **options: Any) -> Any:
        chunks = original(*args, **options)
        if (wanted := params("corrupt-store")) and options.get("chunk_indices") != []:
            stored = _memory["stored"] = _memory.get("stored", 0) + len(chunks)
            if stored <= wanted.get("after", 0):
                return chunks
            damaged = _corrupt(chunks, wanted)
            for chunk, bad in zip(chunks, damaged, strict=True):
                chunk.copy_(bad)
            fired(f"damaged {len(chunks)} chunks on their way to the tier")
        return chunks

    return gather


def _submit_store(original: Any) -> Any:
    @functools.wraps(original)
    def submit_store(self: Any, request_id: str, key: Any, *args: Any, **options: Any) -> Any:
        if wanted := params("drop-store"):
            # ``from``: only what a later prefill step brings, as in a store that forgets a chunked prefill.
            # ``loaded``: only of requests that have loaded something.
            if key.start >= wanted.get("from", 0) and (
                "loaded" not in wanted or request_id in _memory.get("loading", set())
            ):
                fired(f"dropped a store of tokens {key.start} to {key.end}")
                return _done(True)
        elif wanted := params("end-engine"):
            chunks = _memory["chunks"] = _memory.get("chunks", 0) + (key.end - key.start) // wanted["chunk"]
            if chunks >= wanted["after"]:
                fired(f"ended the engine when {chunks} chunks had been stored")
                os.kill(os.getpid(), signal.SIGKILL)
        elif params("corrupt-load"):
            _memory.setdefault("stores", set()).add(request_id)
        elif wanted := params("slow-store"):
            last, _memory["store"] = _memory.get("store", 0.0), time.monotonic()
            # ``crowded``: only where others store at the same time.
            if "crowded" not in wanted or _memory["store"] - last < wanted["crowded"]:
                fired("a store waited")
                time.sleep(wanted["seconds"])
                _memory["store"] = time.monotonic()
        return original(self, request_id, key, *args, **options)

    return submit_store


def _hold_load(wanted: dict[str, Any], tokens: int) -> None:
    """Make a load wait: ``seconds``, and ``seconds_per_token`` for each of its tokens."""
    fired("a load waited")
    time.sleep(wanted.get("seconds", 0.0) + wanted.get("seconds_per_token", 0.0) * tokens)


def _submit_retrieve(original: Any) -> Any:
    @functools.wraps(original)
    def submit_retrieve(self: Any, request_id: str, key: Any, *args: Any, **options: Any) -> Any:
        if (wanted := params("slow-load")) and key.end - key.start <= wanted.get("most", key.end):
            last, _memory["load"] = _memory.get("load", 0.0), time.monotonic()
            number = _memory["slow"] = _memory.get("slow", 0) + 1
            # ``crowded``: only where others load at the same time; ``after``: only when so many loads were quick.
            if number > wanted.get("after", 0) and (
                "crowded" not in wanted or _memory["load"] - last < wanted["crowded"]
            ):
                _hold_load(wanted, key.end - key.start)
                _memory["load"] = time.monotonic()
        elif params("corrupt-load"):
            _memory["replay"] = request_id in _memory.get("stores", set())
        elif params("drop-store"):
            _memory.setdefault("loading", set()).add(request_id)
        elif wanted := params("leak-files"):
            for _ in range(wanted["count"]):
                os.open(os.devnull, os.O_RDONLY)
            fired(f"left {wanted['count']} files open")
        elif params("failed-load"):
            fired("a load failed")
            return _done(False)
        elif wanted := params("endless-load"):
            number = _memory["loads"] = _memory.get("loads", 0) + 1
            if number == wanted.get("number", 1):
                fired("a load never reports its end")
                return _never()
        return original(self, request_id, key, *args, **options)

    return submit_retrieve


def _batched_to_gpu(original: Any) -> Any:
    """Every load of the in-process connector passes here: host buffers in, the engine's KV blocks out."""

    @functools.wraps(original)
    def load(self: Any, memory_objs: Any, starts: Any, ends: Any, **options: Any) -> Any:
        if wanted := params("slow-load"):
            _hold_load(wanted, sum(ends) - sum(starts))
        elif params("empty-load"):
            fired(f"left out {len(memory_objs)} chunks and said they were loaded")
            return None
        elif wanted := params("take-gpu-memory"):
            _take_gpu_memory(wanted)
        elif wanted := params("corrupt-load"):
            buffers = [found.tensor for found in memory_objs]
            kept = [buffer.clone() for buffer in buffers]
            for buffer, bad in zip(buffers, _corrupt(buffers, wanted), strict=True):
                buffer.copy_(bad)
            fired(f"damaged {len(buffers)} chunks on their way to the card")
            try:
                return original(self, memory_objs, starts, ends, **options)  # ends when the copy has ended
            finally:
                for buffer, good in zip(buffers, kept, strict=True):
                    buffer.copy_(good)
        return original(self, memory_objs, starts, ends, **options)

    return load


def _take_gpu_memory(wanted: dict[str, Any]) -> None:
    """Keep ``bytes`` of the card more at every load, ``most`` in all."""
    import torch

    if _memory.setdefault("bytes", 0) < wanted["most"]:
        _memory.setdefault("taken", []).append(torch.zeros(wanted["bytes"], dtype=torch.uint8, device="cuda"))
        _memory["bytes"] += wanted["bytes"]
        fired(f"took {wanted['bytes']} bytes of GPU memory")


def _reregister(original: Any) -> Any:
    """Called when a cache server that was away answers again."""

    @functools.wraps(original)
    def reregister(self: Any) -> Any:
        if wanted := params("never-recovers"):
            if _memory.get("recovered", 0) >= wanted.get("after", 0):
                fired("a cache server that is back was not taken into use again")
                return False
            _memory["recovered"] = _memory.get("recovered", 0) + 1
        return original(self)

    return reregister


def _load_errors(original: Any) -> Any:
    """What the connector tells vLLM of loads that have failed: blocks, or requests."""

    @functools.wraps(original)
    def errors(self: Any, *args: Any, **options: Any) -> Any:
        found = original(self, *args, **options)
        if found and params("hide-failed-load"):
            fired(f"loads that failed were reported as done: {len(found)} blocks or requests")
            return type(found)()
        return found

    return errors


def _batched_retrieves(original: Any) -> Any:
    @functools.wraps(original)
    def batched(self: Any, request_ids: Any, *args: Any, **options: Any) -> Any:
        fault()
        _memory["in-flight"] = len(request_ids)
        return original(self, request_ids, *args, **options)

    return batched


def _worker_get_finished(original: Any) -> Any:
    """Called once in every step of the engine."""

    @functools.wraps(original)
    def get_finished(self: Any, *args: Any, **options: Any) -> Any:
        if wanted := params("slow-step"):
            fired("a step waited")
            time.sleep(wanted["seconds"])
        return original(self, *args, **options)

    return get_finished


def _done(result: bool) -> Any:
    from lmcache.v1.multiprocess.futures import MessagingFuture

    future: Any = MessagingFuture()
    future.set_result(result)
    return future


def _never() -> Any:
    from lmcache.v1.multiprocess.futures import MessagingFuture

    return MessagingFuture()


# ------------------------------------------------------------------------------------ the engine's side of a lookup


def _check_lookup_result(original: Any) -> Any:
    @functools.wraps(original)
    def check(self: Any, request_id: str) -> Any:
        found = original(self, request_id)
        chunk = self.lmcache_tokens_per_chunk
        if not found:
            return found
        if _state["deaf"] and params("deaf-when-restarted"):
            fired(f"an engine that was started again ignored a hit of {found} tokens")
            return 0
        if wanted := params("die-at-hit"):
            same = _memory["hit"] = (
                _memory.get("hit", set()) | {request_id} if _memory.get("size") == found else {request_id}
            )
            _memory["size"] = found
            if len(same) >= wanted["number"]:
                fired(f"the engine core ended at hit {len(same)} in a row of {found} tokens")
                os._exit(1)
        if params("ignore-hit"):
            fired(f"ignored a hit of {found} tokens")
            return 0
        if (wanted := params("short-hit")) and found > wanted.get("chunks", 1) * chunk:
            fired("took a hit for shorter than it was")
            return found - wanted.get("chunks", 1) * chunk
        return found

    return check


# ------------------------------------------------------------------------------------------------ the cache server


def _lookup(original: Any) -> Any:
    @functools.wraps(original)
    def lookup(self: Any, key: Any, *args: Any, **options: Any) -> Any:
        if wanted := params("slow-lookup"):
            number = _memory["lookups"] = _memory.get("lookups", 0) + 1
            if number % wanted.get("every", 1) == 0:
                fired("a lookup waited")
                time.sleep(wanted["seconds"])
        elif (wanted := params("say")) and not _memory.get("said"):
            _memory["said"] = True
            fired("wrote a line into the log")
            logging.getLogger("lmcache.v1.multiprocess.modules.lookup").log(
                logging.getLevelNamesMapping()[wanted["level"]], wanted["text"]
            )
        elif params("raise-in-lookup"):
            fired("a lookup raised an error")
            raise RuntimeError("seeded fault: the index cannot be read")
        return original(self, key, *args, **options)

    return lookup


def _consume_prefetch_result(original: Any) -> Any:
    @functools.wraps(original)
    def consume(self: Any, job: Any) -> Any:
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

    return consume


def _commit_store(original: Any) -> Any:
    @functools.wraps(original)
    def commit_store(self: Any, *args: Any, **options: Any) -> Any:
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

    return commit_store


def _leak(wanted: dict[str, Any]) -> None:
    """Keep ``bytes`` more for ever, ``most`` in all."""
    if _memory.setdefault("bytes", 0) < wanted["most"]:
        piece = bytearray(os.urandom(4096) * (wanted["bytes"] // 4096))
        _memory.setdefault("leaked", []).append(piece)
        _memory["bytes"] += len(piece)
        fired(f"kept {len(piece)} bytes for ever")


def _finish_write(original: Any) -> Any:
    @functools.wraps(original)
    def finish_write(self: Any, completion: Any, *args: Any, **options: Any) -> Any:
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

    return finish_write


def _is_lost(wanted: dict[str, Any]) -> bool:
    """Whether the next chunk is lost: every ``every``-th, once ``after`` have been stored."""
    number = _memory["published"] = _memory.get("published", 0) + 1
    if number <= wanted.get("after", 0) or number % wanted["every"]:
        return False
    fired("lost a chunk that was stored")
    return True


def _beyond(most: int, stored: list[Any]) -> list[Any]:
    """The oldest of all that was stored beyond ``most``."""
    kept = _memory.setdefault("kept", [])
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


def _finish_read(original: Any) -> Any:
    @functools.wraps(original)
    def finish_read(self: Any, keys: Any, *args: Any, **options: Any) -> Any:
        if params("keep-pins"):
            fired(f"did not return the pins of {len(keys)} chunks")
            return None
        if wanted := params("leak-load"):  # several loads may end in one call
            _leak(wanted | {"bytes": wanted["bytes"] * len(keys)})
        return original(self, keys, *args, **options)

    return finish_read


def _eviction_actions(original: Any) -> Any:
    """Called in the cache server once a second while the tier is nearly full."""

    @functools.wraps(original)
    def get_eviction_actions(self: Any, *args: Any, **options: Any) -> Any:
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

    return get_eviction_actions


def _keys_touched(original: Any) -> Any:
    @functools.wraps(original)
    def on_keys_touched(self: Any, keys: Any) -> Any:
        if params("forget-use"):
            fired("did not note that chunks were used")
            return None
        return original(self, keys)

    return on_keys_touched


def _hash_tokens(original: Any) -> Any:
    @functools.wraps(original)
    def hash_tokens(self: Any, tokens: Any, prefix_hash: Any = None) -> Any:
        if params("reseed"):
            number = _memory["seed"] = _memory.get("seed", 0) + 1
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

    return hash_tokens


def _no_salt(original: Any) -> Any:
    @functools.wraps(original)
    def create(self: Any, *args: Any, **options: Any) -> Any:
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

    return create


def _tracker(original: Any) -> Any:
    @functools.wraps(original)
    def init(self: Any, request: Any, *args: Any, **options: Any) -> None:
        original(self, request, *args, **options)
        adapter = getattr(request, "lora_request", None)
        if adapter is not None and params("adapter-in-key"):
            fired("put the adapter into the key")
            self.cache_salt = f"{self.cache_salt}{adapter.lora_name}"

    return init


# ------------------------------------------------------------------------- a tier below host memory (cache server)


def _since_start(hook: str) -> bool:
    """Whether a fault is on, and was when this process was started."""
    return _state["started"] == hook and params(hook) is not None


def _file_name(original: Any) -> Any:
    @functools.wraps(original)
    def name(key: Any) -> str:
        found: str = original(key)
        if _since_start("below-new-names"):
            fired("a cache server that was started again gives chunks below other names")
            return f"new-{found}"
        if _memory.get("writing") == threading.get_ident():
            return f"lost-{found}"
        return found

    return name


def _empty_at_start(original: Any) -> Any:
    @functools.wraps(original)
    def init(self: Any, config: Any) -> None:
        files = list(Path(config.base_path).glob("*.data"))
        if files and params("below-empty-at-start"):
            fired(f"removed {len(files)} chunks that were below when the cache server was started")
            for file in files:
                file.unlink(missing_ok=True)
        original(self, config)

    return init


def _write_below(original: Any) -> Any:
    @functools.wraps(original)
    async def write(self: Any, keys: Any, objects: Any, task_id: Any) -> None:
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

    return write


def _look_below(original: Any) -> Any:
    @functools.wraps(original)
    async def look(self: Any, keys: Any, task_id: Any) -> None:
        _memory["first"] = keys[0] if keys else None
        await original(self, keys, task_id)

    return look


def _is_below(original: Any) -> Any:
    @functools.wraps(original)
    async def exists(self: Any, key: Any) -> bool:
        found: bool = await original(self, key)
        if found and params("below-never-found"):
            fired("a lookup did not find a chunk that is below")
            return False
        if found and params("below-first-only") and key != _memory.get("first"):
            fired("a lookup found the first chunk below only")
            return False
        return found

    return exists


def _read_below(original: Any) -> Any:
    @functools.wraps(original)
    async def read(self: Any, keys: Any, objects: Any, task_id: Any) -> None:
        if wanted := params("below-slow"):
            fired(f"kept a load of {len(keys)} chunks from below waiting")
            await asyncio.sleep(wanted["seconds"])
        elif len(keys) > 1 and params("below-mixed-up"):
            fired(f"gave {len(keys)} chunks from below in another order")
            keys = [*keys[1:], keys[0]]
        await original(self, keys, objects, task_id)

    return read


def _write_to_store(original: Any) -> Any:
    @functools.wraps(original)
    def write(self: Any, keys: Any, objects: Any) -> Any:
        if params("below-lost-names"):
            fired(f"wrote {len(keys)} chunks below under names that nobody asks for")
            _memory["writing"] = threading.get_ident()
        try:
            return original(self, keys, objects)
        finally:
            _memory.pop("writing", None)

    return write


def _prefetch_result(original: Any) -> Any:
    @functools.wraps(original)
    def result(self: Any, *args: Any, **options: Any) -> Any:
        found = original(self, *args, **options)
        if found is not None and found.l2_hit_count and params("below-counted-above"):
            fired("counted what came from below as found in the CPU tier")
            return dataclasses.replace(found, l1_hit_cells=found.l2_hit_cells, l2_hit_cells=found.l1_hit_cells)
        return found

    return result


# ---------------------------------------------------------------------- the tier below host memory (cache server)


def _readinto(original: Any) -> Any:
    """Reads a file of the tier into a buffer of the length that it has to have."""

    @functools.wraps(original)
    async def readinto(file: Any, buffer: Any) -> Any:
        read = await original(file, buffer)
        if params("pad-short-file") and read < len(buffer):
            fired(f"filled {len(buffer) - read} bytes of a file that is too short with zeros")
            memoryview(buffer).cast("B")[read:] = bytes(len(buffer) - read)
            return len(buffer)
        return read

    return readinto


def _key_to_path(original: Any) -> Any:
    @functools.wraps(original)
    def key_to_path(self: Any, key: Any) -> Any:
        path = original(self, key)
        if params("serve-another-file"):
            written = _memory.setdefault("written", set())
            if path.exists():
                written.add(path)
            elif path in written:
                fired("a file that is gone was taken for another one")
                return min(written, key=lambda other: (not other.exists(), other == path, other))
        return path

    return key_to_path


def _l2_store(original: Any) -> Any:
    """Writes files of the tier."""

    @functools.wraps(original)
    async def store(self: Any, keys: Any, objects: Any, task: Any) -> Any:
        if params("serve-another-file"):
            _memory.setdefault("written", set()).update(map(self._key_to_path, keys))
        if params("checksum"):
            sums = {self._key_to_path(key): _sum_of(one) for key, one in zip(keys, objects, strict=True)}
            _memory.setdefault("sums", {}).update(sums)
        if params("give-up-tier") and _memory.get("failed"):
            fired("a store was left out, and called done, because one had failed before")
            return await original(self, [], [], task)
        await original(self, keys, objects, task)
        if not self._completed_store_tasks.get(task, _Succeeded).is_successful():
            _memory["failed"] = True
            if params("die-when-full"):
                fired("the cache server ended because a store failed")
                os._exit(1)
        return None

    return store


class _Succeeded:
    """What a task is taken for whose result was fetched already."""

    @staticmethod
    def is_successful() -> bool:
        """It was."""
        return True


def _sum_of(thing: Any) -> str:
    return hashlib.blake2b(bytes(thing.byte_array)).hexdigest()


def _l2_load(original: Any) -> Any:
    """Reads files of the tier, and says which keys were read."""

    @functools.wraps(original)
    async def load(self: Any, keys: Any, objects: Any, task: Any) -> Any:
        _memory["loading"] = _memory.get("loading", 0) + 1
        try:
            if wanted := params("hasty-load"):
                return await _in_time(wanted, original, self, keys, objects, task)
            await original(self, keys, objects, task)
        finally:
            _memory["loading"] -= 1
        return None

    return load


def _l2_loaded(original: Any) -> Any:
    """Fetches which keys of a load were read; here a checksum is compared."""

    @functools.wraps(original)
    def submit(self: Any, keys: Any, objects: Any) -> Any:
        task = original(self, keys, objects)
        if params("checksum"):
            _memory.setdefault("loads", {})[task] = (keys, objects)
        return task

    return submit


def _l2_result(original: Any) -> Any:
    @functools.wraps(original)
    def query(self: Any, task: Any) -> Any:
        found = original(self, task)
        if found is not None and (wanted := params("checksum")):
            keys, objects = _memory.get("loads", {}).pop(task, ((), ()))
            sums = _memory.setdefault("sums", {})
            for index, (key, one) in enumerate(zip(keys, objects, strict=True)):
                # ``nameless``: of any entry, so that content under another name is not noticed.
                own, got = sums.get(self._key_to_path(key)), _sum_of(one)
                right = own is None or got == own or (wanted.get("nameless") and got in sums.values())
                if found.test(index) and not right:
                    fired("content with another checksum was not served")
                    found.clear(index)
        return found

    return query


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


def _l2_lookup(original: Any) -> Any:
    """Asks which keys are in the tier."""

    @functools.wraps(original)
    async def lookup(self: Any, keys: Any, task: Any) -> Any:
        if params("endless-lookup") and not self._base_path.exists():
            fired("a lookup in a tier that is gone never ends")
            return None
        if params("lookup-behind-load"):
            import asyncio

            while _memory.get("loading"):
                fired("a lookup waited until a load had ended")
                await asyncio.sleep(0.02)
        return await original(self, keys, task)

    return lookup


def _l2_evict(original: Any) -> Any:
    """Called once a second for a tier below host memory that has a size."""

    @functools.wraps(original)
    def check_and_evict(self: Any, state: Any) -> Any:
        if params("never-evict-below"):
            fired("looked at a tier below host memory, and evicted nothing")
            return None
        return original(self, state)

    return check_and_evict


def _l2_usage(original: Any) -> Any:
    @functools.wraps(original)
    def get_usage(self: Any) -> Any:
        found = original(self)
        if params("count-half"):
            fired("counted half of what lies in a tier")
            return dataclasses.replace(found, total_bytes_used=found.total_bytes_used // 2)
        return found

    return get_usage


def _l2_state(original: Any) -> Any:
    """Made for each tier with a size when the cache server starts."""

    @functools.wraps(original)
    def init(self: Any, adapter_id: Any, adapter: Any, *args: Any, **options: Any) -> Any:
        original(self, adapter_id, adapter, *args, **options)
        if params("recount-at-start"):
            from lmcache.v1.distributed.l2_adapters.fs_l2_adapter import _filename_to_object_key

            files = list(Path(adapter.report_status()["base_path"]).glob("*.data"))
            found = {key: file.stat().st_size for file in files if (key := _filename_to_object_key(file.name))}
            adapter._key_sizes.update(found)
            adapter._notify_keys_stored(list(found), list(found.values()))
            fired(f"counted {len(found)} files of before")

    return init


# -------------------------------------------------------------------------------------------------- the engine core


def _free_blocks(original: Any) -> Any:
    @functools.wraps(original)
    def free_blocks(self: Any, ordered_blocks: Any, *args: Any, **options: Any) -> Any:
        if wanted := params("keep-blocks"):
            blocks = list(ordered_blocks)
            number = _memory["frees"] = _memory.get("frees", 0) + 1
            if blocks and number % wanted.get("every", 1) == 0:
                fired("a block was never given back to the pool")
                blocks = blocks[1:]
            return original(self, blocks, *args, **options)
        return original(self, ordered_blocks, *args, **options)

    return free_blocks


def _finish_requests(original: Any) -> Any:
    @functools.wraps(original)
    def finish_requests(self: Any, request_ids: Any, finished_status: Any) -> Any:
        found = original(self, request_ids, finished_status)
        if params("lose-after-abort") and found and finished_status.name == "FINISHED_ABORTED":
            _memory["aborted"] = True
        return found

    return finish_requests


def _add_request(original: Any) -> Any:
    @functools.wraps(original)
    def add_request(self: Any, request: Any) -> Any:
        if params("lose-after-abort") and _memory.pop("aborted", False):
            fired("the request after an aborted one was never scheduled")
            return None
        return original(self, request)

    return add_request


def _allocate_slots(original: Any) -> Any:
    @functools.wraps(original)
    def allocate_slots(self: Any, request: Any, *args: Any, **options: Any) -> Any:
        loads = options.get("num_external_computed_tokens", 0)
        if params("lock-loads") and loads and _memory.get("locked"):
            return None
        blocks = original(self, request, *args, **options)
        if params("lock-loads") and loads and blocks is None:
            _memory["locked"] = True
            fired("a load that found no room keeps all later ones waiting for ever")
        return blocks

    return allocate_slots


def _free_blocks_of(original: Any) -> Any:
    """A request that has finished gives its blocks back, perhaps only when its last store or load has ended."""

    @functools.wraps(original)
    def free_blocks_of(self: Any, request: Any) -> Any:
        if params("keep-aborted") and request.status.name == "FINISHED_ABORTED":
            fired("the blocks of an aborted request were never given back to the pool")
            del self.requests[request.request_id]
            return None
        return original(self, request)

    return free_blocks_of


def _prefill_stats(original: Any) -> Any:
    @functools.wraps(original)
    def set_stats(self: Any, *args: Any, **options: Any) -> Any:
        result = original(self, *args, **options)
        if params("count-gpu-only") and self.num_external_cached_tokens:
            fired("left the loaded tokens out of the cached ones")
            self.num_cached_tokens = self.num_local_cached_tokens
        return result

    return set_stats


def _request_finished(original: Any) -> Any:
    @functools.wraps(original)
    def request_finished(self: Any, *args: Any, **options: Any) -> Any:
        saved, given = original(self, *args, **options)
        said = (given or {}).get("cached_token_stats")
        if said and params("count-hit-as-loaded"):
            fired("reported all that was found as loaded")
            said["num_lmcache_extra_cached_tokens"] = said["num_lmcache_cached_tokens"]
        return saved, given

    return request_finished


# ------------------------------------------------------------------------------------------------ vLLM's own connector


def _native_copy(original: Any) -> Any:
    """Every store and load of the specification for a CPU (``HostCopyWorker``), whose chunks are blocks."""

    @functools.wraps(original)
    def copy(self: Any, job_id: int, in_pool: Any, in_tier: Any, source: Any, target: Any) -> Any:
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

    return copy


def _native_transfer(original: Any) -> Any:
    """The same with a GPU (``SingleDirectionOffloadingHandler``): one copy for each layer and block, in one batch."""

    @functools.wraps(original)
    def transfer_async(self: Any, *args: Any, **options: Any) -> Any:
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

    return transfer_async


def _native_lookup(original: Any) -> Any:
    @functools.wraps(original)
    def lookup(self: Any, key: Any, *args: Any, **options: Any) -> Any:
        found = original(self, key, *args, **options)
        if found.name == "HIT" and params("lost-index"):
            fired("forgot a block that is in the tier")
            return type(found).MISS
        return found

    return lookup


def _native_store(original: Any) -> Any:
    @functools.wraps(original)
    def prepare_store(self: Any, keys: Any, *args: Any, **options: Any) -> Any:
        if params("drop-store"):
            fired("left out a store")
            keys = []
        return original(self, keys, *args, **options)

    return prepare_store


# ------------------------------------------------------------------------------------------- between engine and worker


def _wait(original: Any) -> Any:
    """No fault: an engine that waits for its worker, and a worker without work, sleep until they are woken.

    vLLM 0.32 has them spin on a core for a second after every message (``SpinCondition``), and the lab has two stacks on two
    cores. A notification can be lost (they are sent with a high-water mark of one), so the flag is looked at again.
    """

    @functools.wraps(original)
    def wait(self: Any, timeout_ms: int | None = None) -> Any:
        self.busy_loop_s = 0.0
        return original(self, 10 if timeout_ms is None else min(10, timeout_ms))

    return wait


# -------------------------------------------------------------------------------------------------------- any process


def _emit(original: Any) -> Any:
    @functools.wraps(original)
    def emit(self: Any, record: Any) -> Any:
        if params("log-full"):
            fired("a log line could not be written")
            return None  # logging swallows OSError(ENOSPC) just so: nothing reaches the file, the program goes on
        if (wanted := params("silent")) and record.levelno >= logging.WARNING and wanted["about"] in record.name:
            fired("a warning was not written")
            return None
        return original(self, record)

    return emit


def _wrap(owner: Any, name: str, make: Any) -> None:
    setattr(owner, name, make(getattr(owner, name)))


def _worker_transfer(module: Any) -> None:
    _wrap(module, "scatter_cpu_to_paged_kv", _scatter)
    _wrap(module, "gather_paged_kv_to_cpu", _gather)
    _wrap(module.EngineDrivenTransferContext, "submit_store", _submit_store)
    _wrap(module.EngineDrivenTransferContext, "submit_retrieve", _submit_retrieve)


def _gpu_connectors(module: Any) -> None:
    _wrap(module.VLLMPagedMemGPUConnectorV2, "batched_to_gpu", _batched_to_gpu)
    _wrap(module.VLLMPagedMemGPUConnectorV3, "batched_to_gpu", _batched_to_gpu)


def _adapter(module: Any) -> None:
    _wrap(module.LMCacheMPSchedulerAdapter, "check_lookup_result", _check_lookup_result)
    _wrap(module.LMCacheMPSchedulerAdapter, "_create_key", _no_salt)
    _wrap(module.LMCacheMPWorkerAdapter, "_create_key", _no_salt)
    _wrap(module.LMCacheMPWorkerAdapter, "batched_submit_retrieve_requests", _batched_retrieves)
    _wrap(module.LMCacheMPWorkerAdapter, "get_finished", _worker_get_finished)
    _wrap(module.LMCacheMPWorkerAdapter, "_reregister_kv_caches_callback", _reregister)
    for name in ("get_block_ids_with_load_errors", "get_failed_request_ids"):
        _wrap(module.LMCacheMPWorkerAdapter, name, _load_errors)


def _mp_metadata(module: Any) -> None:
    _wrap(module.LMCacheMPRequestTracker, "__init__", _tracker)


def _lookup_module(module: Any) -> None:
    _wrap(module.LookupModule, "lookup", _lookup)
    _wrap(module.LookupModule, "_consume_prefetch_result", _consume_prefetch_result)


def _engine_driven_module(module: Any) -> None:
    _wrap(module.EngineDrivenTransferModule, "commit_store", _commit_store)


def _storage_manager(module: Any) -> None:
    _wrap(module.StorageManager, "finish_write_by_owner", _finish_write)
    _wrap(module.StorageManager, "finish_read_prefetched", _finish_read)


def _files_below(module: Any) -> None:
    _wrap(module, "_object_key_to_filename", _file_name)
    for name, make in (
        ("__init__", _empty_at_start),
        ("_execute_store", _write_below),
        ("_execute_lookup", _look_below),
        ("_key_exists_on_disk", _is_below),
        ("_execute_load", _read_below),
    ):
        _wrap(module.FSL2Adapter, name, make)


def _store_below(module: Any) -> None:
    _wrap(module, "_object_key_to_string", _file_name)
    _wrap(module.NativeConnectorL2Adapter, "submit_store_task", _write_to_store)


def _prefetch_controller(module: Any) -> None:
    _wrap(module.PrefetchController, "query_prefetch_result", _prefetch_result)


def _lru_policy(module: Any) -> None:
    _wrap(module.LRUEvictionPolicy, "get_eviction_actions", _eviction_actions)
    _wrap(module.LRUEvictionPolicy, "on_keys_touched", _keys_touched)


def _fs_adapter(module: Any) -> None:
    _wrap(module, "_async_readinto_full", _readinto)
    adapter = module.FSL2Adapter
    _wrap(adapter, "_key_to_path", _key_to_path)
    _wrap(adapter, "_execute_store", _l2_store)
    _wrap(adapter, "_execute_lookup", _l2_lookup)
    _wrap(adapter, "_execute_load", _l2_load)
    _wrap(adapter, "submit_load_task", _l2_loaded)
    _wrap(adapter, "query_load_result", _l2_result)
    _files_below(module)


def _l2_base(module: Any) -> None:
    _wrap(module.L2AdapterInterface, "get_usage", _l2_usage)


def _l2_eviction(module: Any) -> None:
    _wrap(module.L2EvictionController, "_check_and_evict", _l2_evict)
    _wrap(module.L2AdapterEvictionState, "__init__", _l2_state)


def _token_hasher(module: Any) -> None:
    _wrap(module.TokenHasher, "hash_tokens", _hash_tokens)


def _block_pool(module: Any) -> None:
    _wrap(module.BlockPool, "free_blocks", _free_blocks)


def _scheduler(module: Any) -> None:
    _wrap(module.Scheduler, "_free_blocks", _free_blocks_of)
    _wrap(module.Scheduler, "finish_requests", _finish_requests)
    _wrap(module.Scheduler, "add_request", _add_request)


def _kv_cache_manager(module: Any) -> None:
    _wrap(module.KVCacheManager, "allocate_slots", _allocate_slots)


def _stats(module: Any) -> None:
    _wrap(module.PrefillStats, "set", _prefill_stats)


def _connector(module: Any) -> None:
    _wrap(module.LMCacheMPConnector, "request_finished", _request_finished)


def _host_tier(module: Any) -> None:
    _wrap(module.HostCopyWorker, "_copy", _native_copy)


def _gpu_worker(module: Any) -> None:
    _wrap(module.SingleDirectionOffloadingHandler, "transfer_async", _native_transfer)


def _native_manager(module: Any) -> None:
    _wrap(module.CPUOffloadingManager, "lookup", _native_lookup)
    _wrap(module.CPUOffloadingManager, "prepare_store", _native_store)


def _shm_broadcast(module: Any) -> None:
    _wrap(module.SpinCondition, "wait", _wait)


TARGETS = {
    "lmcache.v1.multiprocess.transfer_context.worker_transfer": _worker_transfer,
    "lmcache.v1.gpu_connector.gpu_connectors": _gpu_connectors,
    "lmcache.integration.vllm.vllm_multi_process_adapter": _adapter,
    "lmcache.integration.vllm.lmcache_mp_metadata": _mp_metadata,
    "lmcache.v1.multiprocess.modules.lookup": _lookup_module,
    "lmcache.v1.multiprocess.modules.engine_driven_transfer": _engine_driven_module,
    "lmcache.v1.distributed.storage_manager": _storage_manager,
    "lmcache.v1.distributed.eviction_policy.lru": _lru_policy,
    "lmcache.v1.distributed.l2_adapters.fs_l2_adapter": _fs_adapter,
    "lmcache.v1.distributed.l2_adapters.base": _l2_base,
    "lmcache.v1.distributed.l2_adapters.native_connector_l2_adapter": _store_below,
    "lmcache.v1.distributed.storage_controllers.prefetch_controller": _prefetch_controller,
    "lmcache.v1.distributed.storage_controllers.eviction_controller": _l2_eviction,
    "lmcache.v1.multiprocess.token_hasher": _token_hasher,
    "lmcache.integration.vllm.lmcache_mp_connector": _connector,
    "kv_offload_host_tier": _host_tier,
    "vllm.v1.kv_offload.cpu.gpu_worker": _gpu_worker,
    "vllm.v1.kv_offload.cpu.manager": _native_manager,
    "vllm.v1.metrics.stats": _stats,
    "vllm.v1.core.block_pool": _block_pool,
    "vllm.v1.core.sched.scheduler": _scheduler,
    "vllm.v1.core.kv_cache_manager": _kv_cache_manager,
    "vllm.distributed.device_communicators.shm_broadcast": _shm_broadcast,
}

HOOKS = frozenset(
    {
        "corrupt-load",
        "empty-load",
        "foreign-chunk",
        "uncounted-load",
        "empty-store",
        "corrupt-store",
        "drop-store",
        "slow-store",
        "slow-load",
        "slow-step",
        "leak-files",
        "failed-load",
        "endless-load",
        "take-gpu-memory",
        "ignore-hit",
        "short-hit",
        "slow-lookup",
        "say",
        "raise-in-lookup",
        "lost-index",
        "false-hit",
        "raise-in-store",
        "refuse-store",
        "leak",
        "leak-load",
        "lost-write",
        "lose-chunks",
        "expire-chunks",
        "keep-few",
        "never-evict",
        "evict-newest",
        "forget-use",
        "end-engine",
        "keep-pins",
        "reseed",
        "weak-hash",
        "no-salt",
        "adapter-in-key",
        "own-keys",
        "new-keys",
        "below-drop",
        "below-late",
        "below-keep-few",
        "below-never-found",
        "below-first-only",
        "below-mixed-up",
        "below-slow",
        "below-counted-above",
        "below-empty-at-start",
        "below-new-names",
        "below-lost-names",
        "other-model",
        "other-option",
        "keep-blocks",
        "keep-aborted",
        "count-gpu-only",
        "count-hit-as-loaded",
        "lose-after-abort",
        "lock-loads",
        "die-at-hit",
        "deaf-when-restarted",
        "never-recovers",
        "hide-failed-load",
        "pad-short-file",
        "serve-another-file",
        "checksum",
        "give-up-tier",
        "die-when-full",
        "hasty-load",
        "endless-lookup",
        "lookup-behind-load",
        "never-evict-below",
        "count-half",
        "recount-at-start",
        "silent",
        "log-full",
        "ignore-sigterm",
    }
)
"""Every name that the control file may hold."""


class _Finder(importlib.abc.MetaPathFinder):
    """Wraps the functions of a module right after the module was first executed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:  # noqa: ARG002
        """Let Python find the module; have its loader call the patch."""
        patch = TARGETS.get(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path) if patch else None
        if patch is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            try:
                patch(module)
            except AttributeError as error:
                print(f"lab: {name} is not as expected: {error}", file=sys.stderr)
            else:
                fired(f"wrapped {name}")

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Make ready to act; nothing is changed until the control file says so."""
    sys.meta_path.insert(0, _Finder())
    _wrap(logging.StreamHandler, "emit", _emit)
    _state["deaf"] = params("deaf-when-restarted") is not None  # it was started while the fault was on
    _state["started"] = fault().get("hook")
    if params("ignore-sigterm"):
        _ignore_sigterm()
    _other_model()
    _other_option()


def _of_instance(wanted: Any) -> bool:
    """Whether a fault is meant for this engine."""
    return bool(wanted) and os.environ.get("LMCACHE_LMCACHE_INSTANCE_ID", "").endswith(wanted["instance"])


def _other_option() -> None:
    """One engine of several runs with another value of an option."""
    wanted = params("other-option")
    if wanted is not None and _of_instance(wanted) and wanted["flag"] in sys.argv:
        sys.argv[sys.argv.index(wanted["flag"]) + 1] = wanted["value"]
        fired(f"runs with {wanted['flag']} {wanted['value']}")


def _other_model() -> None:
    """One engine of several serves its model from another folder: a link to the one that it was told."""
    if _of_instance(params("other-model")) and "--model" in sys.argv:
        at = sys.argv.index("--model") + 1
        link = FOLDER / "other-model"
        with contextlib.suppress(FileExistsError):
            link.symlink_to(sys.argv[at])
        fired(f"serves {link} in place of {sys.argv[at]}")
        sys.argv[at] = str(link)


def _ignore_sigterm() -> None:
    """From now on nothing in this process can take SIGTERM as a reason to end."""
    original = signal.signal

    def keep(number: Any, handler: Any) -> Any:
        return None if number == signal.SIGTERM else original(number, handler)

    original(signal.SIGTERM, signal.SIG_IGN)
    signal.signal = keep  # type: ignore[assignment]
    fired("SIGTERM is ignored")
