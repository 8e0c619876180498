"""An audit as a picture, in SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

WIDTH, LEFT, RIGHT, ROW = 560.0, 150.0, 16.0, 26.0
INK, MUTED, GRID, GOOD, BAD, PALE = "#1c2530", "#56606e", "#d9dde3", "#0b5c6b", "#a3261a", "#e4f0f2"


def draw(
    claim: float, bounds: Sequence[tuple[str, float, float]], tests: Sequence[tuple[str, float, bool]]
) -> str:
    """Return an SVG document.

    >>> draw(1.0, [("one run", 0.4, 7.0)], []).startswith("<svg")
    True

    Args:
        claim: epsilon that is claimed.
        bounds: method, lower bound, ceiling.
        tests: name, p, whether it is broken.
    """
    top, right = 28.0, WIDTH - RIGHT
    most = 1.05 * max([claim, *(ceiling for _, _, ceiling in bounds)], default=1.0) or 1.0

    def x(epsilon: float) -> float:
        return LEFT + (right - LEFT) * min(epsilon, most) / most

    parts = []
    base = top + ROW * len(bounds)
    for tick in _ticks(most):
        parts.append(_line(x(tick), top, x(tick), base, GRID))
        parts.append(_text(f"{tick:g}", x(tick), base + 14, "middle", MUTED))
    for index, (method, lower, ceiling) in enumerate(bounds):
        y = top + ROW * index + ROW / 2
        colour = BAD if lower > claim else GOOD
        parts.append(_text(method, LEFT - 10, y + 4, "end", INK))
        parts.append(_rect(LEFT, y - 7, x(ceiling) - LEFT, 14, PALE))
        parts.append(_rect(LEFT, y - 7, x(lower) - LEFT, 14, colour))
        parts.append(_text(f"{lower:.2g}", x(lower) + 4, y + 4, "start", INK))
    parts.append(_line(x(claim), top - 6, x(claim), base, BAD))
    anchor = "end" if x(claim) > (LEFT + right) / 2 else "start"
    parts.append(_text(f"claim {claim:.3g}", x(claim), top - 12, anchor, BAD))
    parts.append(_text("epsilon: lower bound, and in pale the ceiling", LEFT, base + 30, "start", MUTED))
    y = base + 54
    for name, p, broken in tests:
        colour = BAD if broken else GOOD
        # p on a logarithmic axis, down to 1e-12: a full bar cannot be chance
        part = min(1.0, -math.log10(max(p, 1e-12)) / 12)
        parts.append(_text(name, LEFT - 10, y + 4, "end", INK))
        parts.append(_rect(LEFT, y - 5, right - LEFT, 10, PALE))
        parts.append(_rect(LEFT, y - 5, max(1.0, (right - LEFT) * part), 10, colour))
        y += 18
    if tests:
        parts.append(
            _text(
                "direct tests: how improbable in correct code, up to 1 in 10^12", LEFT, y + 8, "start", MUTED
            )
        )
        y += 18
    label = "; ".join(f"{method}: epsilon at least {lower:.3g}" for method, lower, _ in bounds)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {y:.0f}" role="img" '
        f'font-family="sans-serif" font-size="11" aria-label="{html.escape(f"claim {claim:.3g}; {label}")}">'
        f'<rect width="{WIDTH:.0f}" height="{y:.0f}" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _ticks(most: float) -> list[float]:
    step = 10 ** math.floor(math.log10(most))
    while most / step < 4:
        step /= 2
    return [index * step for index in range(int(most / step) + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}" fill="{colour}"/>'
    )


def _text(words: str, x: float, y: float, anchor: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{html.escape(words)}</text>'
