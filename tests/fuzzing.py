"""What the tests that read arbitrary input have in common."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

INPUTS = int(os.environ.get("KV_OFFLOAD_FUZZ") or 500)
"""Of each kind of what is read; ``tox -e tests-long`` makes 10 000, and a million are made before a release."""
FEW = INPUTS if os.environ.get("KV_OFFLOAD_FUZZ") else 100
"""The same, of a kind that takes ten times as long to read."""
BATCH = 100
"""Inputs that one seed makes."""


def for_seeds(examples: int, check: Callable[[int], None]) -> None:
    """Call ``check`` with so many seeds; a failure names its seed, which is not made smaller: a seed has no smaller one."""

    @given(st.integers(0, 2**64))
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    def run(seed: int) -> None:
        check(seed)

    run()
