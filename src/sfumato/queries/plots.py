"""Pictures of an answer that show how far each figure may be off, and of the error that an epsilon buys."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from datetime import date
from typing import Any

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.queries import heat
from sfumato.queries.answer import Answer
from sfumato.queries.svg import (
    BAD,
    COLOURS,
    GOOD,
    GRID,
    INK,
    LETTER,
    MUTED,
    Canvas,
    brief,
    clipped,
    ticks,
)
from sfumato.queries.tabular import MISSING, number

WIDTH, RIGHT, ROW, HEIGHT = 640.0, 20.0, 24.0, 240.0
#: Of bars: pale enough that the interval shows on them.
BAR = "#6fa9b4"
#: Bars at most; lines at most in one picture; a key with more values than this is no set of lines.
BARS, LINES = 40, len(COLOURS)
Row = dict[str, Any]


def draw(answer: Answer, figure: str = "") -> str:
    """Return an SVG document of one figure: bars, a line over time or numbers, or a map of two keys.

    >>> import pyarrow as pa
    >>> table = pa.table({"n": [12], "n_error": [2.8], "n_low": [6], "n_high": [18]})
    >>> draw(Answer(table, (), ("n",))).startswith("<svg")
    True

    Totals of a rollup are left out.

    Args:
        figure: its name; empty: the first.

    Raises:
        UnknownName: the answer has no such figure.
        InvalidRequest: it has no row, or more than two keys.
    """
    name = figure or answer.figures[0]
    if name not in answer.figures:
        raise UnknownName("figure of this answer", name, answer.figures)
    if len(answer.keys) > 2:
        raise InvalidRequest(
            f"a picture shows one or two keys, and this answer has {len(answer.keys)}: ask for fewer of "
            f"{', '.join(answer.keys)}, or for a CSV"
        )
    rows = [row for row in answer if all(row[key] is not None for key in answer.keys)]
    if not rows:
        raise InvalidRequest(
            "this answer has no row to draw: nothing passed HAVING, or no group was large enough"
        )
    if len(answer.keys) == 2:
        values = [list(dict.fromkeys(row[key] for row in rows)) for key in answer.keys]
        few = [at for at in (0, 1) if len(values[at]) <= LINES]
        if few and _ordered(values[1 - few[0]]):
            return _lines(rows, answer.keys[1 - few[0]], name, answer.keys[few[0]])
        return heat.draw(rows, answer.keys, name)
    if answer.keys and _ordered([row[answer.keys[0]] for row in rows]):
        return _lines(rows, answer.keys[0], name, "")
    return _bars(rows, answer.keys, name)


def curve(lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], at: float | None = None) -> str:
    """Return an SVG document: half the width of 95 % intervals against epsilon, both in powers of ten.

    >>> curve([("n", [(0.1, 300.0), (1.0, 30.0)])], at=0.5).count("<path")
    1

    Args:
        lines: name of a figure, and (epsilon, half width) in rising order.
        at: the epsilon that is planned.

    Raises:
        InvalidRequest: nothing to draw, or a number that is not above 0.
    """
    points = [point for _, line in lines for point in line]
    if not points or any(not (x > 0 and y > 0 and math.isfinite(x * y)) for x, y in points):
        raise InvalidRequest("a curve of errors needs epsilons and errors above 0")
    left, right, top, floor = 64.0, WIDTH - RIGHT, 28.0, 28.0 + HEIGHT
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = min(y for _, y in points) / 1.3, max(y for _, y in points) * 1.3

    def x(epsilon: float) -> float:
        return left + (right - left) * _log_part(epsilon, x_low, x_high)

    def y(error: float) -> float:
        return floor - (floor - top) * _log_part(error, y_low, y_high)

    canvas = Canvas(
        WIDTH, "error against epsilon: " + "; ".join(_said(name, line, at) for name, line in lines)
    )
    for tick in _powers(y_low, y_high):
        canvas.line(left, y(tick), right, y(tick), GRID)
        canvas.text(brief(tick), left - 6, y(tick) + 4, "end", MUTED)
    for tick in _powers(x_low, x_high):
        canvas.line(x(tick), floor, x(tick), floor + 4, MUTED)
        canvas.text(brief(tick), x(tick), floor + 17, "middle", MUTED)
    canvas.text("± half of the 95 % interval", left, 14, colour=MUTED)
    canvas.text("epsilon", (left + right) / 2, floor + 34, "middle", MUTED)
    if at is not None and x_low <= at <= x_high:
        canvas.line(x(at), top, x(at), floor, BAD)
        anchor = "end" if x(at) > (left + right) / 2 else "start"
        canvas.text(f"planned: {at:.3g}", x(at) + (-5 if anchor == "end" else 5), top + 10, anchor, BAD)
    for index, (_, line) in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        canvas.path([(x(a), y(b)) for a, b in line], colour)
        if at is not None and (error := _between(line, at)) is not None:
            canvas.dot(x(at), y(error), colour, tip=f"{error:.3g}")
    names = [
        name if (error := _between(line, at)) is None else f"{name} ± {error:.3g}" for name, line in lines
    ]
    _legend(canvas, names, left, floor + 54)
    return canvas.svg()


def _bars(rows: Sequence[Row], keys: Sequence[str], name: str) -> str:
    """Draw a bar for each row where the figure counts something, and a dot where it does not."""
    drawn = rows[:BARS]
    labels = [clipped(str(row[keys[0]]), 26) if keys else name for row in drawn]
    said = [_value(row, name) for row in drawn]
    left = max(len(label) for label in labels) * LETTER + 18
    right = WIDTH - RIGHT - max(len(word) for word in said) * LETTER - 12
    counts = any(isinstance(row[name], int) for row in drawn)
    low, high = _range(drawn, name, zero=counts)
    top, base = 30.0, 30.0 + ROW * len(drawn)

    def x(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    canvas = Canvas(WIDTH, f"{name}: " + "; ".join(f"{a} {b}" for a, b in zip(labels, said, strict=True)))
    canvas.text(_title(name, keys, len(drawn), len(rows)), left, 14, colour=MUTED)
    for tick in ticks(low, high):
        canvas.line(x(tick), top, x(tick), base, GRID)
        canvas.text(brief(tick), x(tick), base + 15, "middle", MUTED)
    for index, (row, label, word) in enumerate(zip(drawn, labels, said, strict=True)):
        y = top + ROW * (index + 0.5)
        ends = [x(min(max(float(row[f"{name}_{end}"]), low), high)) for end in ("low", "high")]
        canvas.text(label, left - 8, y + 4, "end")
        if row[name] is None:
            canvas.whisker(ends[0], ends[1], y, GRID)
        elif counts:
            start, stop = sorted((x(max(low, 0.0)), x(float(row[name]))))
            canvas.rect(start, y - 7, stop - start, 14, BAR, f"{label}: {word}")
            canvas.whisker(ends[0], ends[1], y)
        else:
            canvas.whisker(ends[0], ends[1], y)
            canvas.dot(x(float(row[name])), y, GOOD, tip=f"{label}: {word}")
        canvas.text(word, right + 12, y + 4, colour=MUTED if row[name] is None else INK)
    return canvas.svg()


def _lines(rows: Sequence[Row], along: str, name: str, by: str) -> str:
    """Draw a line, with its band of intervals, for each value of `by`."""
    values = sorted(dict.fromkeys(row[along] for row in rows))
    groups = list(dict.fromkeys(row[by] for row in rows)) if by else [None]
    low, high = _range(rows, name, zero=any(isinstance(row[name], int) for row in rows))
    left, right, top, floor = 64.0, WIDTH - RIGHT, 28.0, 28.0 + HEIGHT
    place = {value: index for index, value in enumerate(values)}

    def x(value: Any) -> float:
        return left + (right - left) * place[value] / max(1, len(values) - 1)

    def y(value: float) -> float:
        return floor - (floor - top) * (min(max(float(value), low), high) - low) / (high - low)

    canvas = Canvas(WIDTH, f"{name} by {along}" + (f" and {by}" if by else ""))
    canvas.text(_title(name, (along, by) if by else (along,), 0, 0), left, 14, colour=MUTED)
    for tick in ticks(low, high):
        canvas.line(left, y(tick), right, y(tick), GRID)
        canvas.text(brief(tick), left - 6, y(tick) + 4, "end", MUTED)
    widest = max(len(str(value)) for value in values) * LETTER + 14
    stride = max(1, math.ceil(len(values) * widest / (right - left)))
    for value in values[::stride]:
        canvas.line(x(value), floor, x(value), floor + 4, MUTED)
        if x(value) + widest / 2 <= WIDTH:
            canvas.text(str(value), x(value), floor + 17, "middle", MUTED)
    for index, group in enumerate(groups):
        colour = COLOURS[index % len(COLOURS)]
        mine = sorted((row for row in rows if not by or row[by] == group), key=lambda row: place[row[along]])
        for run in _runs(mine, name, place, along):
            upper = [(x(row[along]), y(row[f"{name}_high"])) for row in run]
            lower = [(x(row[along]), y(row[f"{name}_low"])) for row in reversed(run)]
            canvas.path([*upper, *lower], colour, fill=True)
            canvas.path([(x(row[along]), y(row[name])) for row in run], colour)
            if len(values) <= 60 or len(run) == 1:
                for row in run:
                    tip = f"{row[along]}: {_value(row, name)}"
                    canvas.dot(x(row[along]), y(row[name]), colour, 2.5, tip)
    canvas.text(along, (left + right) / 2, floor + 34, "middle", MUTED)
    if by:
        _legend(canvas, [str(group) for group in groups], left, floor + 54)
    return canvas.svg()


def _runs(rows: Sequence[Row], name: str, place: dict[Any, int], along: str) -> list[list[Row]]:
    """Return stretches of rows that follow each other: a line must not span what is missing."""
    runs: list[list[Row]] = []
    last = -2
    for row in rows:
        if row[name] is None:
            continue
        if place[row[along]] != last + 1:
            runs.append([])
        runs[-1].append(row)
        last = place[row[along]]
    return runs


def _legend(canvas: Canvas, names: Sequence[str], x: float, y: float) -> None:
    start = x
    for index, name in enumerate(names):
        width = len(name) * LETTER + 42
        if x + width > canvas.width and x > start:
            x, y = start, y + 18
        canvas.rect(x, y - 8, 14, 8, COLOURS[index % len(COLOURS)])
        canvas.text(name, x + 20, y)
        x += width


def _title(name: str, keys: Sequence[str], drawn: int, count: int) -> str:
    by = f" by {' and '.join(keys)}" if keys else ""
    some = f"; {drawn} of {count} rows" if drawn < count else ""
    return f"{name}{by}, with 95 % intervals{some}"


def _value(row: Row, name: str) -> str:
    error = row[f"{name}_error"]
    if row[name] is None:
        return f"{MISSING} too few to tell"
    low, high = (number(row[f"{name}_{end}"], error) for end in ("low", "high"))
    return f"{number(row[name], error)} ({low} .. {high})"


def _range(rows: Sequence[Row], name: str, *, zero: bool) -> tuple[float, float]:
    """Return the ends of the axis: of what is known, with some air, and with 0 where bars begin there."""
    known = [row for row in rows if row[name] is not None] or list(rows)
    low = min(float(row[f"{name}_low"]) for row in known)
    high = max(float(row[f"{name}_high"]) for row in known)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    air = (high - low) * 0.04
    return (low if zero and low == 0 else low - air), (high if zero and high == 0 else high + air)


def _ordered(values: Sequence[Any]) -> bool:
    """Return whether a line between values means something: numbers or times, three of them or more."""
    return len(values) > 2 and all(
        isinstance(value, (int, float, date)) and not isinstance(value, bool) for value in values
    )


def _log_part(value: float, low: float, high: float) -> float:
    return math.log(value / low) / math.log(high / low) if high > low else 0.5


def _powers(low: float, high: float) -> list[float]:
    """Return 1, 2, 5 times powers of ten within a range, or the powers alone where it is wide."""
    factors = (1, 2, 5) if high / low < 1000 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]


def _between(line: Sequence[tuple[float, float]], at: float | None) -> float | None:
    """Return the error at an epsilon, between the points of a line."""
    if at is None:
        return None
    for (x1, y1), (x2, y2) in itertools.pairwise(line):
        if x1 <= at <= x2:
            part = _log_part(at, x1, x2)
            return y1 * math.pow(y2 / y1, part)
    return None


def _said(name: str, line: Sequence[tuple[float, float]], at: float | None) -> str:
    error = _between(line, at)
    if error is not None:
        return f"{name} ± {error:.3g} at epsilon {at:.3g}"
    return (
        f"{name} ± {line[0][1]:.3g} at epsilon {line[0][0]:.3g} to ± {line[-1][1]:.3g} at {line[-1][0]:.3g}"
    )
