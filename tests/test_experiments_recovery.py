"""Recovery: what counts as soon enough."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fixtures.experiments import recovery

if TYPE_CHECKING:
    import pytest


def test_no_attempt_begins_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "BETWEEN_S", 0.1)
    begun: list[float] = []

    def fails() -> bool:
        begun.append(time.monotonic())
        time.sleep(0.12)
        return False

    start = time.monotonic()
    assert recovery.first_success(fails, 0.3) is None
    assert begun[-1] - start <= 0.3
