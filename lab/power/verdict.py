"""What a statistical verdict is to the simulation, and the engine without a connector that some are compared with."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

from fixtures.core.baseline_record import Baseline
from fixtures.experiments import store_cost

if TYPE_CHECKING:
    from lab.power.world import World


@dataclass(frozen=True)
class Verdict:
    """One statistical verdict under one kind of effect."""

    name: str
    """Requirement, and which effect where there are several."""
    effect: str
    """What is changed, with its size at distances 0 and 1."""
    needs: tuple[str, ...]
    """What has to have been recorded on a machine."""
    judge: Callable[[World, random.Random, float], None]
    """Judge once, with an effect at a distance; raises AssertionError or NotJudged."""


def between(distance: float, reference: float, gate: float) -> float:
    """The size of an effect at a distance."""
    return reference + distance * (gate - reference)


def compared_with(world: World, rng: random.Random, **figures: Any) -> Baseline:
    """An engine without its connector, with these figures."""
    unstored = world.multiples(rng, store_cost.UNSTORED_TRIALS, "unstored_without_s")
    return Baseline(pool_tokens=100_000, prompt_tokens=4097, unstored_s=unstored, **figures)


@contextlib.contextmanager
def speed_known(world: World, rng: random.Random, drift: float) -> Iterator[None]:
    """The machine takes ``drift`` times as long now, also for what is stored nowhere."""

    def unstored(*_: Any) -> tuple[float, ...]:
        found = world.multiples(rng, store_cost.UNSTORED_TRIALS, "unstored_s", "unstored_without_s")
        return tuple(one * drift for one in found)

    with mock.patch.object(store_cost, "measure_unstored", unstored):
        yield
