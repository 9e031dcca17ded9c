"""The curves of the simulated verdicts as one SVG: what the suite says by the size of an effect, one panel for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from lab.power.simulate import Curve

COLUMNS: Final = 3
WIDTH, HEIGHT = 300, 150
LEFT, TOP, RIGHT, BOTTOM = 34, 30, 10, 24
LINES: Final = (("failed", "#d55e00", ""), ("not judged", "#57606a", "2 2"), ("passed", "#0072b2", "6 3"))
"""The palette of Okabe and Ito, and never colour alone."""


def svg(curves: Sequence[Curve]) -> str:
    """All of them, in rows of `COLUMNS`."""
    rows = -(-len(curves) // COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, (name, colour, dash) in enumerate(LINES):
        x = 10 + 110 * number
        parts.append(f'<path d="M{x} 12h26" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}" fill="none"/>')
        parts.append(f'<text x="{x + 32}" y="16" fill="#24292f">{name}</text>')
    parts.append(f'<text x="{width - 10}" y="16" text-anchor="end" fill="#57606a">x: distance, the gate is at 1</text>')
    for number, one in enumerate(curves):
        x, y = number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT + 20
        parts.append(f'<g transform="translate({x} {y})">{_panel(one)}</g>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(one: Curve) -> str:
    most = one.distances[-1]

    def x(distance: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * distance / most, 1)

    def y(share: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - share), 1)

    parts = [
        f'<text x="{LEFT}" y="14" fill="#24292f">{escape(one.verdict)}</text>',
        f'<text x="{LEFT}" y="26" fill="#57606a" font-size="9">{escape(one.world[:52])}</text>',
        f'<path d="M{x(1)} {TOP}V{y(0)}" stroke="#d8dee4"/>',
    ]
    for share in (0.0, 0.5, 1.0):
        parts.append(f'<path d="M{LEFT} {y(share)}H{WIDTH - RIGHT}" stroke="#d8dee4"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y(share) + 4}" text-anchor="end" fill="#57606a">{share:.0%}</text>')
    for distance in range(int(most) + 1):
        parts.append(f'<text x="{x(distance)}" y="{HEIGHT - 10}" text-anchor="middle" fill="#57606a">{distance}</text>')
    for name, colour, dash in LINES:
        counts = {
            "failed": one.failed,
            "passed": one.passed,
            "not judged": [one.undecided(at) for at in range(len(one.distances))],
        }[name]
        points = " ".join(
            f"{x(distance)},{y(count / one.runs)}" for distance, count in zip(one.distances, counts, strict=True)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
    return "".join(parts)
