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
    from collections.abc import Iterator, Sequence
    from pathlib import Path

REDIS = shutil.which("redis-server")


@contextlib.contextmanager
def redis_server(folder: Path, *words: str, tls: Sequence[str] = ()) -> Iterator[int]:
    """The port of a store that keeps nothing on disk, with more ``words`` on its command line; with ``tls`` it speaks that."""
    if REDIS is None:
        pytest.skip("redis-server is not on PATH")
    port = free_port()
    ports = ["--tls-port", str(port), "--port", "0", *tls] if tls else ["--port", str(port)]
    argv = [REDIS, *ports, "--bind", HOST, "--save", "", "--dir", str(folder), *words]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        assert poll(StoreClient(HOST, port, tls={"ssl_cert_reqs": "none"} if tls else None).serves, bool, 10.0)
        yield port
    finally:
        process.kill()
        process.wait()
