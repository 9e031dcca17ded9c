"""``python -m MODULE`` in a process of its own, in a tenth of the time (``lab.forked``)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from lab import forked

if TYPE_CHECKING:
    from pathlib import Path


ADDOPTS = "-p no:hypothesispytest -p no:anyio -p no:pytest_httpserver"
"""For the ini file of a session inside a test: plugins that none of them needs and every worker would import."""


class Started:
    """A module that runs beside this process, with the names of ``subprocess.Popen``."""

    def __init__(self, module: str, arguments: list[str], folder: Path, out: Path, err: Path | None = None) -> None:
        self.args = [module, *arguments]
        self._run = forked.start(module, arguments, folder, out, err)
        assert self._run.pid is not None
        self.pid: int = self._run.pid

    @property
    def returncode(self) -> int | None:
        return self._run.exitcode

    def poll(self) -> int | None:
        return self._run.exitcode

    def wait(self, timeout: float) -> int:
        self._run.join(timeout)
        if self._run.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self._run.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._run.kill()


def run(folder: Path, module: str, *arguments: str, timeout: float = 240) -> pytest.RunResult:
    """Run a module in ``folder`` to its end, for what ``pytester.runpytest_subprocess`` gives."""
    out, err = folder / "stdout", folder / "stderr"
    begin = time.monotonic()
    started = Started(module, [*arguments], folder, out, err)
    try:
        code = started.wait(timeout)
    finally:
        started.kill()
        texts = out.read_text(), err.read_text()
        sys.stdout.write(texts[0])  # pytest shows it when a test fails
        sys.stderr.write(texts[1])
    out_lines, err_lines = (text.splitlines() for text in texts)
    return pytest.RunResult(code, out_lines, err_lines, time.monotonic() - begin)
