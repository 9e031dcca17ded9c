"""A driver with as many cards as a test wants, in the shape of ``pynvml``: what it answers was read on an H100."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

H100_BYTES = 85_520_809_984
"""``nvmlDeviceGetMemoryInfo(...).total`` of an H100 80GB HBM3."""


@dataclass
class FakeCard:
    """One card; ``users`` are (pid, bytes or None if the driver does not say)."""

    used: int = 500 * 1024**2
    users: list[tuple[int, int | None]] = field(default_factory=list)
    total: int = H100_BYTES
    mig: int = 0
    lost: bool = False


@dataclass
class FakeNvml:
    """Takes the place of the ``pynvml`` module."""

    cards: list[FakeCard]
    NVMLError: type[Exception] = pynvml.NVMLError

    def nvmlInit(self) -> None:  # noqa: N802
        """Nothing to do."""

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Nothing to do."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """How many cards there are."""
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeCard:  # noqa: N802
        """The card itself."""
        return self.cards[index]

    def nvmlDeviceGetName(self, _: FakeCard) -> str:  # noqa: N802
        """As an H100."""
        return "NVIDIA H100 80GB HBM3"

    def nvmlDeviceGetUUID(self, card: FakeCard) -> str:  # noqa: N802
        """A different one for each."""
        return next(f"GPU-{number}" for number, one in enumerate(self.cards) if one is card)

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        """As read."""
        return "580.95.05"

    def nvmlDeviceGetMigMode(self, card: FakeCard) -> list[int]:  # noqa: N802
        """(current, pending)."""
        return [card.mig, card.mig]

    def nvmlDeviceGetMaxPcieLinkGeneration(self, _: FakeCard) -> int:  # noqa: N802
        """PCIe 5."""
        return 5

    def nvmlDeviceGetMaxPcieLinkWidth(self, _: FakeCard) -> int:  # noqa: N802
        """Sixteen lanes."""
        return 16

    def nvmlDeviceGetMemoryInfo(self, card: FakeCard) -> Any:  # noqa: N802
        """Total and used; an error when the card has fallen off the bus."""
        if card.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return SimpleNamespace(total=card.total, used=card.used)

    def nvmlDeviceGetComputeRunningProcesses(self, card: FakeCard) -> list[Any]:  # noqa: N802
        """Who uses it."""
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in card.users]
