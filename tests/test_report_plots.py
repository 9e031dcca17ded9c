"""The pictures of a report: what they say, that it is all inside, and that none of it changes unseen.

Each picture in tests/data/pictures shows a case that `PICTURES` draws; whoever changes how they look draws them
anew and looks at them: ``python -m tests.test_report_plots``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fixtures.report import badge, plots
from fixtures.report.plots import Bar, Length, Point, Sources
from tests.pictures import texts, within

if TYPE_CHECKING:
    from collections.abc import Callable

DRAWN: Final = Path(__file__).parent / "data" / "pictures"


def point(value: float) -> Point:
    return Point(value, value * 0.9, value * 1.1)


def lengths(floor: float | None = 8.0, hit: float | None = None) -> list[Length]:
    return [Length(n, point(n / 10), point(10 + n / 100), floor, hit) for n in (4097, 513, 2049)]


def growing(count: int) -> list[tuple[float, dict[str, int]]]:
    names = ("mistral-engine-with-a-long-name-0", "cache-server-1", "three", "four", "five", "six")
    return [
        (at / 4, {name: 2**31 - which * 2**28 + at * 2**23 for which, name in enumerate(names)}) for at in range(count)
    ]


PICTURES: Final[dict[str, Callable[[], str]]] = {
    "ttft": lambda: plots.ttft(lengths()),
    "ttft-with-hits": lambda: plots.ttft(lengths(hit=9.0)),
    "ttft-without-floor": lambda: plots.ttft(lengths(floor=None)),
    "ttft-under-a-high-floor": lambda: plots.ttft(lengths(floor=700.0)),
    "ttft-under-load": lambda: plots.ttft_under_load(
        [("offload: 2.15 requests/s", [0.5, 0.1, 0.2]), ("without", [0.3, 0.71, 0.4, 0.6, 0.9])]
    ),
    "ttft-under-much-load": lambda: plots.ttft_under_load([("offload", [at / 1000 for at in range(1, 1000)])]),
    "memory": lambda: plots.memory(
        growing(9), [(0.0, "filling <the> tier"), (0.6, "full"), (1.5, "after"), (9.0, "-")]
    ),
    "memory-for-long": lambda: plots.memory(growing(1000), []),
    "memory-of-nothing": lambda: plots.memory([(0.0, {"a": 0}), (0.0, {"a": 0})], []),
    "sources": lambda: plots.token_sources([Sources("cold", 2049, 0, 0), Sources("repeat", 1, 512, 1536)]),
    "sources-from-below": lambda: plots.token_sources([Sources("cold", 9, 0, 0), Sources("repeat", 1, 0, 2048, 1024)]),
    "sources-of-nothing": lambda: plots.token_sources([Sources("nothing", 0, 0, 0)]),
    "sources-of-many": lambda: plots.token_sources([Sources(f"{at}", at, 2 * at, 3 * at) for at in range(1, 27)]),
    "intervals": lambda: plots.intervals(
        "LAT-01 TTFT cold, ms", [Bar("disk", 12.3456, 11.0, 14.5), Bar("remote", 3.0), Bar("none", -1.0)], "lower"
    ),
    "badge": lambda: badge.svg("KV offload core", "2 of 31 failed", "#b42318"),
    "intervals-without-direction": lambda: plots.intervals("ACC-02 loaded", [Bar("disk", 1.0), Bar("tape", 0.5)], None),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_as_it_was_looked_at(name: str) -> None:
    svg = PICTURES[name]()
    within(svg)
    assert svg == (DRAWN / f"{name}.svg").read_text()


@pytest.mark.parametrize(
    ("most", "ticks"),
    [
        (0.0, [0, 1]),
        (1.0, [0, 0.25, 0.5, 0.75, 1]),
        (7.0, [0, 2, 4, 6, 8]),
        (4.1, [0, 2, 4, 6]),
        (30.0, [0, 10, 20, 30]),
        (400.0, [0, 100, 200, 300, 400]),
    ],
)
def test_ticks_are_round_and_reach_the_most(most: float, ticks: list[float]) -> None:
    assert plots._ticks(most) == ticks


def test_tokens_from_below_the_cpu_tier_are_a_source_of_their_own_where_there_is_one() -> None:
    plain = plots.token_sources([Sources("TTFT 12 ms", 1, 0, 2048)])
    below = plots.token_sources([Sources("TTFT 12 ms", 1, 0, 2048, 1024), Sources("TTFT 9 ms", 1, 0, 2048, 0)])
    within(below)
    assert not any("below" in text for text in texts(plain))
    assert "1 computed + 1024 loaded + 1024 from below the CPU tier" in texts(below)
    assert "1 computed + 2048 loaded" in texts(below)
    assert "from below the CPU tier" in texts(below)


def test_the_curve_of_ttft() -> None:
    svg = plots.ttft([Length(n, point(n / 10), point(10 + n / 100), 8.0) for n in (4097, 513)])
    within(svg)
    assert {"cold", "reload", "floor", "prompt, tokens", "TTFT, ms"} <= set(texts(svg))
    assert "at 4097 tokens: cold 410 ms, reload 51 ms, floor 8 ms" in texts(svg)
    assert svg.count('font-weight="bold"') == 1, "its heading alone"
    within(plots.ttft([Length(257, point(3), point(2), 1.0)]))
    assert "GPU hit" not in texts(svg)
    with_hits = plots.ttft([Length(n, point(n / 10), point(10 + n / 100), 8.0, 9.0) for n in (4097, 513)])
    within(with_hits)
    assert "GPU hit" in texts(with_hits)


def test_ttft_under_load_has_a_line_for_each_load() -> None:
    svg = plots.ttft_under_load([("offload: 2.15 requests/s", [0.5, 0.1, 0.2]), ("without", [1.0] * 1000)])
    within(svg)
    assert {"offload: 2.15 requests/s", "without", "TTFT, s"} <= set(texts(svg))
    assert len(svg) < 40_000


def test_memory_over_time_has_its_phases() -> None:
    samples = [(number / 4, {"mistral-0": 2**31 + number, "tier": number * 2**20}) for number in range(1, 5000)]
    svg = plots.memory(samples, [(0.0, "filling <the> tier"), (600.0, "full")])
    within(svg)
    assert "1: from 0.0 s, filling <the> tier" in texts(svg)
    assert {"mistral-0", "tier", "1", "2"} <= set(texts(svg))
    assert len(svg) < 40_000, "a line has no more points than can be seen"
    within(plots.memory([(0.0, {"a": 0}), (0.0, {"a": 0})], []))


def test_token_sources_are_told_apart() -> None:
    svg = plots.token_sources([Sources("TTFT 12 ms", 1, 512, 1536), Sources("TTFT 99 ms", 2049, 0, 0)])
    within(svg)
    assert "1 computed + 512 GPU hit + 1536 loaded" in texts(svg)
    assert "2049 computed" in texts(svg)
    many = plots.token_sources([Sources("x", 1, 0, 0)] * 60)
    within(many)
    assert "Token sources per exchange (the last 24 of 60)" in texts(many)
    within(plots.token_sources([Sources("nothing", 0, 0, 0)]))


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        sys.stdout.write(f"{DRAWN / name}.svg\n")
        (DRAWN / f"{name}.svg").write_text(draw())
