"""What is in effect against what the values ask for, and what of it can be judged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fixtures.core.record import EngineServer, RequestedConfig, StackRecord
from fixtures.subject.stack import Stack

if TYPE_CHECKING:
    from pathlib import Path


V1 = {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}


SERVE = ("vllm", "serve", "m")


LINE = "[2026-11-25 04:25:21,672] LMCache INFO: Creating LMCacheEngine with config: {settings} (cache_engine.py:1:x)\n"


def stack_of(
    folder: Path,
    asked: RequestedConfig,
    *,
    said: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    env: dict[str, str] | None = None,
    argv: tuple[str, ...] = (),
) -> Stack:
    log = folder / "engine-0.log"
    log.write_text("" if said is None else LINE.format(settings=said))
    config = V1 if config is None else config
    engine = EngineServer(
        name="engine-0",
        url="http://127.0.0.1:9",
        log=log,
        env=env or {},
        argv=(*SERVE, "--kv-transfer-config", json.dumps(config), *argv),
    )
    return Stack(
        StackRecord(id="x", kind="process", config="c", folder=folder, model="m", engines=[engine], requested=asked)
    )
