"""A machine with stand-ins for engine and cache server."""

from __future__ import annotations

import io
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from fixtures.core.deadlines import Deadlines
from fixtures.core.ports import HOST
from fixtures.core.processes import runs
from fixtures.core.progress import Progress
from fixtures.provide.process import probe
from fixtures.provide.process.launch import stand_up
from fixtures.provide.values.config import load_config
from tests import fakes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.core.record import StackRecord
    from fixtures.provide.process.environment import EngineEnv


SHM = Path("/dev/shm")


class Place:
    """A folder of its own for everything that one test starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fake = fakes.make(folder / "env")
        self.config = fakes.make_config(folder / "fakes")
        self.registry = folder / "cache" / "stacks"
        self.said = io.StringIO()
        self.env: EngineEnv = probe.adopt(self.fake.python)
        self.deadlines = Deadlines()

    def up(self, name: str = "run", router_python: Path | None = None) -> StackRecord:
        return stand_up(
            load_config(str(self.config), self.folder),
            self.env,
            folder=self.folder / name,
            cache=self.folder / "cache",
            progress=Progress(self.said, live=False),
            device="cpu",
            deadlines=self.deadlines,
            router_python=router_python,
        )

    def running(self) -> list[psutil.Process]:
        """Every process of the stand-ins of this place."""
        found = []
        for one in psutil.process_iter():
            try:
                if runs(one) and str(self.fake.folder) in " ".join(one.cmdline()):
                    found.append(one)
            except psutil.Error:
                continue
        return found

    def left(self) -> dict[str, object]:
        """What must be empty if nothing is left."""
        return {
            "processes": self.running(),
            "registry": sorted(self.registry.glob("*")) if self.registry.exists() else [],
            "temporary folders": sorted((self.folder / "tmp").iterdir()),
        }


NOTHING: dict[str, list[Any]] = {"processes": [], "registry": [], "temporary folders": []}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("KV_OFFLOAD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    place = Place(tmp_path)
    yield place
    left = place.running()
    for one in left:
        one.kill()
    fakes.clear_shared_memory(tmp_path)
    assert not left, f"the test left {left}"


def shared_memory_of(record: StackRecord) -> list[Path]:
    return [SHM / f"kvoc-fake-{server.process.pid}" for server in record.servers if server.process is not None]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is in use."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield bound.getsockname()[1]
