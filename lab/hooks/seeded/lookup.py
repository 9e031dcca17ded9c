"""Faults on the engine's side of a lookup."""

from __future__ import annotations

import os
from typing import Any

from .control import MEMORY, STATE, fired, params, wrapper


@wrapper
def check_lookup_result(original: Any, self: Any, request_id: str) -> Any:
    found = original(self, request_id)
    chunk = self.lmcache_tokens_per_chunk
    if not found:
        return found
    if STATE["deaf"] and params("deaf-when-restarted"):
        fired(f"an engine that was started again ignored a hit of {found} tokens")
        return 0
    if wanted := params("die-at-hit"):
        same = MEMORY["hit"] = MEMORY.get("hit", set()) | {request_id} if MEMORY.get("size") == found else {request_id}
        MEMORY["size"] = found
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
