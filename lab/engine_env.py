"""The engines' environment of a run of the lab."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.instruments import cards
from fixtures.plugin.option_table import VARIABLES
from fixtures.provide.process import environment_install, probe
from lab import history

if TYPE_CHECKING:
    from fixtures.core.progress import Progress
    from fixtures.provide.process.environment import EngineEnv


def engine_env(progress: Progress) -> EngineEnv:
    """The environment that a variable names, otherwise the suite's own, made where there is none."""
    python, folder = os.environ.get(VARIABLES["engine-python"]), os.environ.get(VARIABLES["engine-env"])
    if python:
        return probe.adopt(Path(python))
    return environment_install.ensure(Path(folder) if folder else None, report=progress.line)


def processor(device: str) -> str:
    """What the engines compute on here: a CPU, or the name of the first GPU."""
    return history.CPU if device == "cpu" else cards.cards()[0].name
