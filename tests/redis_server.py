"""A real ``redis-server`` for tests; where there is none on PATH, they are skipped."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from fixtures.core.ports import HOST, free_port
from fixtures.core.waiting import poll
from fixtures.instruments.store import StoreClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REDIS = shutil.which("redis-server")


@contextlib.contextmanager
def redis_server(folder: Path, *words: str) -> Iterator[int]:
    """The port of a store that keeps nothing on disk, with more ``words`` on its command line."""
    if REDIS is None:
        pytest.skip("redis-server is not on PATH")
    port = free_port()
    argv = [REDIS, "--port", str(port), "--bind", HOST, "--save", "", "--dir", str(folder), *words]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        assert poll(StoreClient(HOST, port).serves, bool, 10.0)
        yield port
    finally:
        process.kill()
        process.wait()
