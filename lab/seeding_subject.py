"""What faults are seeded into, and the error of a lab that could not seed one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.provide.values.config import load_config

if TYPE_CHECKING:
    from fixtures.provide.values.config import Config

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Subject:
    """What faults are seeded into."""

    config: str = "embedded"
    """Name of a configuration, or the path of one."""
    device: str = "cpu"
    weights: str | None = None
    """Geometry of random weights, as ``--random-weights``."""

    def load(self) -> Config:
        """Its configuration.

        Raises:
            ConfigurationError: there is none of that name.
        """
        config = load_config(self.config, ROOT / "configs")
        return config.with_random_weights(self.weights) if self.weights else config


class LabError(Exception):
    """The lab itself went wrong: a fault did not take, a stack did not start, the suite did not report."""
