"""A machine to simulate: what its measurements scatter by, drawn from recorded samples.

Invariant: no scatter is assumed. Every sample is a recorded one, divided by the median of its recording (or less it, where a
time may be negative), and moved a little (a smoothed bootstrap: Silverman 1986, 6.4), so that few recordings give no ties. What
was measured together is drawn together.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

from fixtures.instruments.growth import slope_per_cycle
from fixtures.instruments.trials import Trial

if TYPE_CHECKING:
    from lab.power.samples import Samples

SMOOTHING: Final = 0.3
"""Standard deviations by which a recorded sample is moved. It makes the scatter 4 % wider than the recorded one."""
JUMP_BYTES: Final = 64 * 1024**2
"""In every second run memory grows once, at any cycle, by up to so much: a buffer that is taken late is not a leak."""


@dataclass(frozen=True)
class World:
    """The recordings of one machine."""

    name: str
    recordings: tuple[Samples, ...]

    def has(self, *kinds: str) -> bool:
        """Whether all of these were recorded."""
        return all(any(getattr(one, kind) for one in self.recordings) for kind in kinds)

    def median(self, kind: str) -> float:
        """Of all that was recorded."""
        return statistics.median(chain.from_iterable(self._of(kind)))

    def multiples(self, rng: random.Random, count: int, *kinds: str) -> tuple[float, ...]:
        """So many samples of a true median of 1, with the scatter of the first of ``kinds`` that was recorded."""
        kind = next(kind for kind in kinds if self.has(kind))
        pool = _pooled((one / statistics.median(it) for one in it) for it in self._of(kind))
        return tuple(_moved(rng, pool, rng.choice(pool)) for _ in range(count))

    def added(self, rng: random.Random, count: int, kind: str) -> tuple[float, ...]:
        """The same of a true median of 0, in the unit of the recording."""
        pool = _pooled((one - statistics.median(it) for one in it) for it in self._of(kind))
        spread = _spread(pool)
        return tuple(rng.choice(pool) + rng.gauss(0, SMOOTHING * spread) for _ in range(count))

    def pair(self, rng: random.Random, cold_s: float, reload_s: float, fixed_s: float) -> Trial:
        """A pair of requests with these true medians, in seconds."""
        recording = rng.choice([one for one in self.recordings if one.pairs])
        middles = [statistics.median(one[at] for one in recording.pairs) for at in range(3)]
        drawn = rng.choice(recording.pairs)
        found = [
            median * _moved(rng, [one[at] / middles[at] for one in recording.pairs], drawn[at] / middles[at])
            for at, median in enumerate((cold_s, reload_s, fixed_s))
        ]
        return Trial(*found)

    @property
    def on_cpu(self) -> bool:
        """Whether the engine computes on a CPU."""
        return self.name.startswith("a CPU")

    @property
    def reload_over_cold(self) -> float:
        """Median of the recorded pairs."""
        return statistics.median(reload / cold for one in self.recordings for cold, reload, _ in one.pairs)

    @property
    def late_s(self) -> float:
        """The recorded difference of two prompts of one token that 95 of 100 pairs do not exceed, in seconds."""
        fixed = [pair[2] for one in self.recordings for pair in one.pairs]
        apart = sorted(first - second for first in fixed for second in fixed)
        return apart[int(0.95 * len(apart))]

    @property
    def together_ratio(self) -> float:
        """The same of eight at once."""
        return statistics.median(reload / cold for one in self.recordings for cold, reload in one.together)

    def together(self, rng: random.Random, ratio: float) -> tuple[float, float]:
        """Median TTFT of a cold round and of its reload, in seconds, of a true ratio."""
        drawn = [reload / cold for one in self.recordings for cold, reload in one.together]
        pool = [one / self.together_ratio for one in drawn]
        return 1.0, ratio * _moved(rng, pool, rng.choice(pool))

    def difference(self, rng: random.Random) -> float:
        """Between two recorded TTFT of a prompt of one token, in seconds: the scatter of RTR-05."""
        fixed = [pair[2] for pair in rng.choice([one for one in self.recordings if one.pairs]).pairs]
        return rng.choice(fixed) - rng.choice(fixed) + rng.gauss(0, SMOOTHING * _spread(fixed))

    def drift(self, rng: random.Random) -> float:
        """How many times longer the machine takes now than in the measurement without a connector: at most as recorded."""
        seen = [
            abs(math.log(statistics.median(one.unstored_s) / statistics.median(one.unstored_without_s)))
            for one in self.recordings
            if one.unstored_s and one.unstored_without_s
        ]
        return math.exp(rng.uniform(-1, 1) * max(seen, default=0.0))

    def memory(self, rng: random.Random, slope_bytes: float, *, jump: bool = True) -> Callable[[], int]:
        """Gives the host memory after each further cycle, in bytes: the recorded scatter around a line of this slope."""
        series = rng.choice([one.host_bytes for one in self.recordings if one.host_bytes])
        jumps = JUMP_BYTES * rng.random() if jump and rng.random() < 0.5 else 0.0
        return _around(rng, [float(one) for one in series], slope_bytes, jumps)

    def count(self, rng: random.Random, slope: float) -> Callable[[], int]:
        """The same of something that MEM-07 counts."""
        recorded = [values for one in self.recordings for values in one.counts.values()]
        return _around(rng, [float(one) for one in rng.choice(recorded)], slope, 0.0)

    def _of(self, kind: str) -> list[Sequence[float]]:
        return [getattr(one, kind) for one in self.recordings if getattr(one, kind)]


def worlds(recordings: Iterable[Samples]) -> list[World]:
    """The recordings by machine: what is before the first colon of ``where``."""
    by_name: dict[str, list[Samples]] = {}
    for one in recordings:
        by_name.setdefault(one.where.partition(":")[0], []).append(one)
    return [World(name, tuple(found)) for name, found in by_name.items()]


def _pooled(sets: Iterable[Iterable[float]]) -> list[float]:
    return list(chain.from_iterable(sets))


def _spread(values: Sequence[float]) -> float:
    """Standard deviation; `statistics` takes twenty times as long for exact fractions."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((one - mean) ** 2 for one in values) / (len(values) - 1))


def _moved(rng: random.Random, pool: Sequence[float], drawn: float) -> float:
    """A multiple, moved by a share of the scatter of its logarithms; never to a time below zero."""
    return drawn * math.exp(rng.gauss(0, SMOOTHING * _spread([math.log(one) for one in pool])))


def _around(rng: random.Random, series: Sequence[float], slope: float, jump: float) -> Callable[[], int]:
    """The residuals of a recorded series in their order, from any place on and in either direction, around another line."""
    own = slope_per_cycle(series).median
    level = statistics.median(one - own * at for at, one in enumerate(series))
    residuals = [one - own * at - level for at, one in enumerate(series)]
    start, step, jumps_at = rng.randrange(len(series)), rng.choice((-1, 1)), rng.randrange(2 * len(series))
    numbers = iter(range(10**6))

    def after_another_cycle() -> int:
        at = next(numbers)
        residual = residuals[(start + step * at) % len(residuals)]
        return max(0, round(level + slope * at + residual + (jump if at >= jumps_at else 0.0)))

    return after_another_cycle
