"""A map of two keys: the darker, the more; what noise may have made is marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from typing import Any

from sfumato.queries.svg import GRID, INK, LETTER, MUTED, Canvas, brief, clipped, mixed, ticks
from sfumato.queries.tabular import number

WIDTH, RIGHT = 640.0, 20.0
PALE, DARK = "#eef6f7", "#063d48"
#: Values of a key at most.
MOST = 100


def draw(rows: Sequence[dict[str, Any]], keys: Sequence[str], name: str) -> str:
    """Return an SVG document.

    Args:
        rows: of an answer, without totals; keys: two; name: of the figure.
    """
    down, across = ([*dict.fromkeys(row[key] for row in rows)] for key in keys)
    down, across = (_sorted(values)[:MOST] for values in (down, across))
    labels = [clipped(str(value), 24) for value in down]
    left = max(len(label) for label in labels) * LETTER + 18
    width = min((WIDTH - RIGHT - left) / len(across), 48.0)
    height = min(max(width, 14.0), 22.0)
    known = [row for row in rows if row[name] is not None]
    low, high = _range(known, name)
    canvas = Canvas(WIDTH, f"{name} by {keys[0]} and {keys[1]}, from {low:.6g} to {high:.6g}")
    canvas.text(f"{name} by {keys[0]} (down) and {keys[1]} (across)", left, 14, colour=MUTED)
    top = 24.0
    at = (
        {value: index for index, value in enumerate(down)},
        {value: index for index, value in enumerate(across)},
    )
    for row in rows:
        if row[keys[0]] in at[0] and row[keys[1]] in at[1]:
            x, y = left + width * at[1][row[keys[1]]], top + height * at[0][row[keys[0]]]
            _cell(canvas, row, name, (x, y, width, height), (low, high), f"{row[keys[0]]}, {row[keys[1]]}")
    for index, label in enumerate(labels):
        canvas.text(label, left - 8, top + height * (index + 0.5) + 4, "end")
    base = top + height * len(down)
    stride = max(1, math.ceil((max(len(str(value)) for value in across) * LETTER + 8) / width))
    for index, value in list(enumerate(across))[::stride]:
        canvas.text(str(value), left + width * (index + 0.5), base + 15, "middle", MUTED)
    _scale(canvas, known, name, (low, high), (left, base + 38), len(known) < len(rows))
    return canvas.svg()


def _cell(
    canvas: Canvas,
    row: dict[str, Any],
    name: str,
    box: tuple[float, float, float, float],
    span: tuple[float, float],
    label: str,
) -> None:
    x, y, width, height = box
    error = row[f"{name}_error"]
    ends = " .. ".join(number(row[f"{name}_{end}"], error) for end in ("low", "high"))
    tip = f"{label}: {number(row[name], error)} ({ends})"
    gap = 1.0 if width > 5 else 0.0
    if row[name] is None:
        canvas.rect(x, y, width - gap, height - gap, "#ffffff", tip)
        canvas.line(x + 2, y + height - gap - 2, x + width - gap - 2, y + 2, GRID)
        return
    part = (float(row[name]) - span[0]) / (span[1] - span[0])
    canvas.rect(x, y, width - gap, height - gap, mixed(PALE, DARK, part), tip)
    if row[f"{name}_low"] <= 0 <= row[f"{name}_high"] and width > 5:
        canvas.dot(x + (width - gap) / 2, y + (height - gap) / 2, MUTED if part < 0.5 else "#ffffff", 1.5)


def _scale(
    canvas: Canvas,
    known: Sequence[dict[str, Any]],
    name: str,
    span: tuple[float, float],
    at: tuple[float, float],
    missing: bool,
) -> None:
    """Draw what the colours mean, and how much of their range the noise takes."""
    (low, high), (x, y), length = span, at, 220.0
    for step in range(44):
        canvas.rect(x + step * 5, y, 5.2, 10, mixed(PALE, DARK, step / 43))
    for tick in ticks(low, high, 5):
        place = x + length * (tick - low) / (high - low)
        canvas.line(place, y + 10, place, y + 14, MUTED)
        canvas.text(brief(tick), place, y + 25, "middle", MUTED)
    widths = sorted(float(row[f"{name}_high"]) - float(row[f"{name}_low"]) for row in known)
    if widths:
        reach = min(length, length * widths[len(widths) // 2] / (high - low))
        canvas.whisker(x + length + 24, x + length + 24 + reach, y + 5, INK)
        canvas.text("a 95 % interval, on this scale", x + length + 32 + reach, y + 9, colour=MUTED)
    marks = {
        "a dot: may be 0": any(row[f"{name}_low"] <= 0 <= row[f"{name}_high"] for row in known),
        "struck out: too few to tell": missing,
    }
    canvas.text(
        "; ".join(word for word, used in marks.items() if used), x + length + 24, y + 25, colour=MUTED
    )


def _range(known: Sequence[dict[str, Any]], name: str) -> tuple[float, float]:
    values = [float(row[name]) for row in known] or [0.0]
    low, high = min(values), max(values)
    if all(isinstance(row[name], int) for row in known):
        low = min(low, 0.0)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _sorted(values: Sequence[Any]) -> list[Any]:
    return sorted(values) if _time(values) else list(values)


def _time(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float, date)) and not isinstance(value, bool) for value in values)
