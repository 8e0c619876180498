"""Lines, boxes and words of a picture, as SVG that needs no style sheet."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

INK, MUTED, GRID, GOOD, BAD, PALE = "#1c2530", "#56606e", "#d9dde3", "#0b5c6b", "#a3261a", "#e4f0f2"
#: One colour for each line of a picture; told apart without red and green, too.
COLOURS = ("#0b5c6b", "#c26a1b", "#6a4c93", "#2f7d32", "#a3261a", "#4a6fa5")
#: Width of a letter, on average, at 11 points.
LETTER = 6.1


class Canvas:
    """A picture that is drawn piece by piece.

    Args:
        width: of the picture; its height is that of what was drawn.
        label: what it shows, for who cannot see it.
    """

    def __init__(self, width: float, label: str) -> None:
        self.width, self.height, self._label = width, 0.0, label
        self._parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.0) -> None:
        """Draw a line."""
        self._add(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width:g}"/>',
            max(y1, y2),
        )

    def rect(self, x: float, y: float, width: float, height: float, colour: str, tip: str = "") -> None:
        """Draw a box; a tip is shown when the pointer rests on it."""
        inner = f"<title>{html.escape(tip)}</title>" if tip else ""
        size = f'width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}"'
        self._add(f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{colour}">{inner}</rect>', y + height)

    def dot(self, x: float, y: float, colour: str, radius: float = 3.5, tip: str = "") -> None:
        """Draw a dot."""
        inner = f"<title>{html.escape(tip)}</title>" if tip else ""
        self._add(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{colour}">{inner}</circle>', y + radius
        )

    def text(self, words: str, x: float, y: float, anchor: str = "start", colour: str = INK) -> None:
        """Write words; `y` is their base line, `anchor` is start, middle or end."""
        self._add(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">'
            f"{html.escape(words)}</text>",
            y + 4,
        )

    def path(self, points: Sequence[tuple[float, float]], colour: str, *, fill: bool = False) -> None:
        """Draw a line through points, or fill what it encloses."""
        if not points:
            return
        steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        look = (
            f'd="M{steps}Z" fill="{colour}" fill-opacity="0.18"'
            if fill
            else f'd="M{steps}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"'
        )
        self._add(f"<path {look}/>", max(y for _, y in points))

    def whisker(self, low: float, high: float, y: float, colour: str = INK) -> None:
        """Draw an interval lying down."""
        self.line(low, y, high, y, colour)
        for end in (low, high):
            self.line(end, y - 4, end, y + 4, colour)

    def svg(self) -> str:
        """Return the document."""
        height = self.height + 8
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:.0f} {height:.0f}" role="img" '
            f'font-family="sans-serif" font-size="11" aria-label="{html.escape(self._label)}">'
            f'<rect width="{self.width:.0f}" height="{height:.0f}" fill="#ffffff"/>'
            f"{''.join(self._parts)}</svg>\n"
        )

    def _add(self, part: str, bottom: float) -> None:
        self._parts.append(part)
        self.height = max(self.height, bottom)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers that span a range, at most `most` within it.

    >>> ticks(0, 97)
    [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return [low]
    step = 10.0 ** (math.floor(math.log10(span)) - 1)
    factors = (2.0, 2.5, 2.0)
    at = 0
    while span / step > most - 1 + 1e-9:
        step *= factors[at % 3]
        at += 1
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def brief(value: float) -> str:
    """Return a tick's number in few letters.

    >>> brief(0.25), brief(12000.0), brief(3e6)
    ('0.25', '12,000', '3M')
    """
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def clipped(words: str, most: int) -> str:
    """Return words cut to a length."""
    return words if len(words) <= most else words[: most - 1] + "…"


def mixed(pale: str, dark: str, part: float) -> str:
    """Return a colour between two."""
    part = min(max(part, 0.0), 1.0)
    ends = [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in (pale, dark)]
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(*ends, strict=True))
