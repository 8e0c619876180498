"""An answer's table, for people: in a terminal and in a notebook."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

#: Rows shown; of more, the first and the last.
SHOWN = 20
MISSING, TOTAL = "–", "total"


def text(table: pa.Table, keys: Sequence[str], figures: Sequence[str]) -> list[str]:
    """Return lines of a table for a terminal."""
    head, body, gap = _cells(table, keys, figures)
    widths = [max(len(row[at]) for row in [head, *body]) for at in range(len(head))]
    lines = [_line(head, widths, len(keys)), *(_line(row, widths, len(keys)) for row in body)]
    if gap:
        lines.insert(1 + SHOWN // 2, f"... {gap:,} more ...")
    return [line.rstrip() for line in lines]


def markup(table: pa.Table, keys: Sequence[str], figures: Sequence[str]) -> str:
    """Return an HTML table for a notebook."""
    head, body, gap = _cells(table, keys, figures)

    def row(cells: Sequence[str], tag: str) -> str:
        parts = []
        for at, cell in enumerate(cells):
            side = "left" if at < len(keys) else "right"
            pale = " color: #56606e;" if at >= len(keys) and (at - len(keys)) % 2 and tag == "td" else ""
            parts.append(f'<{tag} style="text-align: {side};{pale}">{html.escape(cell)}</{tag}>')
        return f"<tr>{''.join(parts)}</tr>"

    rows = [row(cells, "td") for cells in body]
    if gap:
        rows.insert(SHOWN // 2, f'<tr><td colspan="{len(head)}">… {gap:,} more …</td></tr>')
    return f"<table><thead>{row(head, 'th')}</thead><tbody>{''.join(rows)}</tbody></table>"


def number(value: Any, error: float | None = None) -> str:
    """Return a number as people read it: no more digits than its error leaves.

    >>> number(1234), number(0.123456, 0.01), number(None)
    ('1,234', '0.123', '–')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, int):
        return f"{value:,}"
    if error and math.isfinite(error):
        places = 1 - math.floor(math.log10(abs(error)))
    else:
        places = 3 - (math.floor(math.log10(abs(value))) if value else 0)
    said = f"{value:,.{min(max(places, 0), 12)}f}"
    return said.lstrip("-") if not said.strip("-0.,") else said


def _cells(
    table: pa.Table, keys: Sequence[str], figures: Sequence[str]
) -> tuple[list[str], list[list[str]], int]:
    """Return headings, rows of words, and how many rows were left out in the middle."""
    head = [*keys, *(word for name in figures for word in (name, "95 % interval"))]
    count = table.num_rows
    gap = count - SHOWN if count > SHOWN else 0
    half = SHOWN // 2
    shown = pa.concat_tables([table.slice(0, half), table.slice(count - half)]) if gap else table
    body = []
    for row in shown.to_pylist():
        words = [TOTAL if row[key] is None else str(row[key]) for key in keys]
        for name in figures:
            error = row[f"{name}_error"]
            low, high = (number(row[f"{name}_{end}"], error) for end in ("low", "high"))
            words += [number(row[name], error), f"{low} .. {high}"]
        body.append(words)
    return head, body, gap


def _line(cells: Sequence[str], widths: Sequence[int], keys: int) -> str:
    parts = [
        cell.ljust(width) if at < keys else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(parts)
