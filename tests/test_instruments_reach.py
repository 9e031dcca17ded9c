"""Whether an address is listened at and a path can be written to: on this machine, with real sockets and folders."""

from __future__ import annotations

import inspect
import json
import os
import socket
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from fixtures.instruments import reach

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one.getsockname()[1]


def fault(*target: object) -> str | None:
    (found,) = reach.probe([[str(word) for word in target]])
    said: str | None = found["fault"]
    return said


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "*"])
def test_a_port_that_is_listened_at_is_served(port: int, host: str) -> None:
    assert fault("address", host, port) is None


def test_an_address_of_version_six_is_served() -> None:
    try:
        one = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with one:
        assert fault("address", "::1", one.getsockname()[1]) is None


def test_what_is_wrong_with_an_address_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        closed = one.getsockname()[1]
    assert fault("address", "127.0.0.1", closed) == "has no listener (connection refused)"
    assert "does not resolve" in str(fault("address", "kv-server.invalid", 1))
    assert fault("address", "127.0.0.1", "") == "names no port"
    assert fault("address", "127.0.0.1", 0) == "names no port"
    assert fault("address", "$(NOBODY_SETS_THIS)", 1) == "?"


def test_a_variable_is_filled_in_by_the_environment(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KV_HOST", "127.0.0.1")
    assert fault("address", "$(KV_HOST)", port) is None
    assert fault("address", "${KV_HOST}", port) is None
    assert fault("address", "$KV_HOST", port) is None


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert fault("folder", tmp_path, "") is None
    assert list(tmp_path.iterdir()) == [tmp_path / "file"], "nothing stays"
    assert fault("folder", tmp_path / "none", "") == "does not exist"
    assert fault("folder", tmp_path / "file" / "below", "") == "does not exist: a part of it is a file"
    assert fault("folder", tmp_path / "file", "") == "is not a folder"
    assert fault("file", tmp_path / "file", "") is None
    assert fault("file", tmp_path / "none", "") == "does not exist"
    assert fault("folder", "$(NOBODY_SETS_THIS)/x", "") == "?"


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    folder = "/proc/self/fdinfo" if os.geteuid() == 0 else str(tmp_path)
    tmp_path.chmod(0o555)
    try:
        assert "is read-only for the server" in str(fault("folder", folder, ""))
    finally:
        tmp_path.chmod(0o755)


def test_a_full_file_system_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert "has no space for another file" in str(fault("folder", tmp_path, ""))


def test_sockets(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        assert "has no listener" in str(fault("socket", path, ""))
        one.listen()
        assert fault("socket", path, "") is None
    assert fault("socket", tmp_path / "none", "") == "does not exist"
    assert fault("socket", tmp_path, "") == "is not a socket"


def test_a_mount_is_recognised(tmp_path: Path) -> None:
    shared, root = (reach.probe([["folder", where, ""]])[0]["mounted"] for where in ("/proc/self", "/"))
    assert (shared, root) == (True, False)


def test_the_source_runs_by_itself(port: int) -> None:
    targets = json.dumps([["address", "127.0.0.1", str(port)], ["folder", "/none", ""]])
    command = [sys.executable, "-I", "-S", "-c", inspect.getsource(reach), targets]
    out = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout
    assert [one["fault"] for one in json.loads(out)] == [None, "does not exist"]
