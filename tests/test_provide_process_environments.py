"""Environments that other runs use."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fixtures.core.errors import StackError
from fixtures.provide.process.environment_install import ensure
from tests import small_wheels
from tests.small_wheels import PAIR

if TYPE_CHECKING:
    from pathlib import Path

locks = small_wheels.locks
offline = small_wheels.offline
wheels = small_wheels.wheels


def test_an_environment_in_use_is_not_removed(offline: Path) -> None:
    folder = offline / PAIR.folder
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    with subprocess.Popen([folder / "bin" / "python", "-c", "import time; time.sleep(60)"]) as process:
        try:
            with pytest.raises(StackError, match=f"while process {process.pid} runs from it: end that process"):
                ensure(None, report=print, pair=PAIR)
        finally:
            process.kill()
