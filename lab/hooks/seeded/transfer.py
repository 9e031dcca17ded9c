"""Faults on the engine's side of a transfer: loads and stores of a worker."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from .control import MEMORY, fault, fired, params, wrapper


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


@wrapper
def scatter(original: Any, kv_caches: Any, block_ids: Any, chunks: Any, *args: Any, **options: Any) -> Any:
    if wanted := params("corrupt-load"):
        tokens = len(chunks) * (chunks[0].shape[-2] if chunks else 0)
        busy = MEMORY.get("in-flight", 1)
        number = MEMORY["loads"] = MEMORY.get("loads", 0) + 1
        enough = tokens >= wanted.get("tokens", 0) and busy >= wanted.get("concurrent", 1)
        if wanted.get("replayed"):  # only of requests that have stored something themselves: they were preempted
            enough = enough and MEMORY.get("replay", False)
        if wanted.get("again"):  # only what has been loaded before
            last = bytes(chunks[-1].reshape(-1)[-1024:].float().numpy()) if chunks else b""
            enough = enough and last in MEMORY.setdefault("loaded", set())
            MEMORY["loaded"].add(last)
        if enough and number % wanted.get("every", 1) == 0:
            chunks = _corrupt(chunks, wanted)
            fired(f"damaged {len(chunks)} chunks on their way to the engine")
    elif wanted := params("empty-load"):
        fired(f"left out {len(chunks)} chunks and said they were loaded")
        return None
    elif wanted := params("foreign-chunk"):
        kept = MEMORY.get("chunk")
        MEMORY["chunk"] = chunks[wanted.get("chunk", 0)].clone() if chunks else kept
        if kept is not None and chunks:
            chunks = [chunk.clone() for chunk in chunks]
            chunks[wanted.get("chunk", 0)] = kept
            fired("served a chunk of the request before")
    return original(kv_caches, block_ids, chunks, *args, **options)


@wrapper
def gather(original: Any, *args: Any, **options: Any) -> Any:
    chunks = original(*args, **options)
    if (wanted := params("corrupt-store")) and options.get("chunk_indices") != []:
        stored = MEMORY["stored"] = MEMORY.get("stored", 0) + len(chunks)
        if stored <= wanted.get("after", 0):
            return chunks
        damaged = _corrupt(chunks, wanted)
        for chunk, bad in zip(chunks, damaged, strict=True):
            chunk.copy_(bad)
        fired(f"damaged {len(chunks)} chunks on their way to the tier")
    return chunks


@wrapper
def submit_store(original: Any, self: Any, request_id: str, key: Any, *args: Any, **options: Any) -> Any:
    if wanted := params("drop-store"):
        # ``from``: only what a later prefill step brings, as in a store that forgets a chunked prefill.
        # ``loaded``: only of requests that have loaded something.
        if key.start >= wanted.get("from", 0) and (
            "loaded" not in wanted or request_id in MEMORY.get("loading", set())
        ):
            fired(f"dropped a store of tokens {key.start} to {key.end}")
            return _done(True)
    elif wanted := params("end-engine"):
        chunks = MEMORY["chunks"] = MEMORY.get("chunks", 0) + (key.end - key.start) // wanted["chunk"]
        if chunks >= wanted["after"]:
            fired(f"ended the engine when {chunks} chunks had been stored")
            os.kill(os.getpid(), signal.SIGKILL)
    elif params("corrupt-load"):
        MEMORY.setdefault("stores", set()).add(request_id)
    elif wanted := params("slow-store"):
        last, MEMORY["store"] = MEMORY.get("store", 0.0), time.monotonic()
        # ``crowded``: only where others store at the same time.
        if "crowded" not in wanted or MEMORY["store"] - last < wanted["crowded"]:
            fired("a store waited")
            time.sleep(wanted["seconds"])
            MEMORY["store"] = time.monotonic()
    return original(self, request_id, key, *args, **options)


def _hold_load(wanted: dict[str, Any], tokens: int) -> None:
    """Make a load wait: ``seconds``, and ``seconds_per_token`` for each of its tokens."""
    fired("a load waited")
    time.sleep(wanted.get("seconds", 0.0) + wanted.get("seconds_per_token", 0.0) * tokens)


@wrapper
def submit_retrieve(original: Any, self: Any, request_id: str, key: Any, *args: Any, **options: Any) -> Any:
    if (wanted := params("slow-load")) and key.end - key.start <= wanted.get("most", key.end):
        last, MEMORY["load"] = MEMORY.get("load", 0.0), time.monotonic()
        number = MEMORY["slow"] = MEMORY.get("slow", 0) + 1
        # ``crowded``: only where others load at the same time; ``after``: only when so many loads were quick.
        if number > wanted.get("after", 0) and ("crowded" not in wanted or MEMORY["load"] - last < wanted["crowded"]):
            _hold_load(wanted, key.end - key.start)
            MEMORY["load"] = time.monotonic()
    elif params("corrupt-load"):
        MEMORY["replay"] = request_id in MEMORY.get("stores", set())
    elif params("drop-store"):
        MEMORY.setdefault("loading", set()).add(request_id)
    elif wanted := params("leak-files"):
        for _ in range(wanted["count"]):
            os.open(os.devnull, os.O_RDONLY)
        fired(f"left {wanted['count']} files open")
    elif params("failed-load"):
        fired("a load failed")
        return _done(False)
    elif wanted := params("endless-load"):
        number = MEMORY["loads"] = MEMORY.get("loads", 0) + 1
        if number == wanted.get("number", 1):
            fired("a load never reports its end")
            return _never()
    return original(self, request_id, key, *args, **options)


@wrapper
def batched_to_gpu(original: Any, self: Any, memory_objs: Any, starts: Any, ends: Any, **options: Any) -> Any:
    """Every load of the in-process connector passes here: host buffers in, the engine's KV blocks out."""
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


def _take_gpu_memory(wanted: dict[str, Any]) -> None:
    """Keep ``bytes`` of the card more at every load, ``most`` in all."""
    import torch

    if MEMORY.setdefault("bytes", 0) < wanted["most"]:
        MEMORY.setdefault("taken", []).append(torch.zeros(wanted["bytes"], dtype=torch.uint8, device="cuda"))
        MEMORY["bytes"] += wanted["bytes"]
        fired(f"took {wanted['bytes']} bytes of GPU memory")


@wrapper
def reregister(original: Any, self: Any) -> Any:
    """Called when a cache server that was away answers again."""
    if wanted := params("never-recovers"):
        if MEMORY.get("recovered", 0) >= wanted.get("after", 0):
            fired("a cache server that is back was not taken into use again")
            return False
        MEMORY["recovered"] = MEMORY.get("recovered", 0) + 1
    return original(self)


@wrapper
def load_errors(original: Any, self: Any, *args: Any, **options: Any) -> Any:
    """What the connector tells vLLM of loads that have failed: blocks, or requests."""
    found = original(self, *args, **options)
    if found and params("hide-failed-load"):
        fired(f"loads that failed were reported as done: {len(found)} blocks or requests")
        return type(found)()
    return found


@wrapper
def batched_retrieves(original: Any, self: Any, request_ids: Any, *args: Any, **options: Any) -> Any:
    fault()
    MEMORY["in-flight"] = len(request_ids)
    return original(self, request_ids, *args, **options)


@wrapper
def worker_get_finished(original: Any, self: Any, *args: Any, **options: Any) -> Any:
    """Called once in every step of the engine."""
    if wanted := params("slow-step"):
        fired("a step waited")
        time.sleep(wanted["seconds"])
    return original(self, *args, **options)


def _done(result: bool) -> Any:
    from lmcache.v1.multiprocess.futures import MessagingFuture

    future: Any = MessagingFuture()
    future.set_result(result)
    return future


def _never() -> Any:
    from lmcache.v1.multiprocess.futures import MessagingFuture

    return MessagingFuture()
