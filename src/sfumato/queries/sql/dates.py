"""Dates: their parts, and times cut to whole units."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sqlglot import exp

from sfumato.core.errors import nearest
from sfumato.queries import kinds
from sfumato.queries.kinds import Typed
from sfumato.queries.sql.refusals import NODES
from sfumato.queries.sql.words import PARTS, SUNDAY_FIRST, UNITS

if TYPE_CHECKING:
    from sfumato.queries.sql.expressions import Reader

_INTERVAL: Final = re.compile(r"\s*1\s+([a-zA-Z]+)\s*")


def extract(reader: Reader, node: exp.Expr) -> Typed:
    """Read EXTRACT(part FROM x)."""
    reader.only(node, "this", "expression")
    return part(reader, node, node.name, node.expression)


def part(reader: Reader, node: exp.Expr, name: str, of: exp.Expr | None) -> Typed:
    """Return a part of a date; DOW counts from Sunday, which is 0."""
    name = name.upper().rstrip("S") if name.upper() not in PARTS else name.upper()
    if name in SUNDAY_FIRST:
        weekday = kinds.part_of("weekday", reader.expression(of))
        sunday = kinds.call("=", weekday, kinds.constant(7))
        return kinds.call("case", sunday, kinds.constant(0), weekday)
    if name not in PARTS:
        near = nearest(name, PARTS) or "HOUR"
        raise reader.text.refuse(
            node,
            f"{name[:30]!r} is no part of a date that is understood; did you mean {near}? "
            f"Parts: {', '.join(PARTS)}",
        )
    return kinds.part_of(PARTS[name], reader.expression(of))


def named_part(reader: Reader, node: exp.Expr) -> Typed:
    """Read HOUR(x) and the like."""
    reader.only(node, "this")
    names: dict[type[exp.Expr], str] = {
        exp.DayOfWeek: "DOW",
        exp.DayOfWeekIso: "ISODOW",
        exp.DayOfMonth: "DAY",
        exp.DayOfYear: "DAYOFYEAR",
        exp.WeekOfYear: "WEEK",
    }
    return part(reader, node, names.get(type(node), type(node).__name__), node.this)


def truncated(reader: Reader, node: exp.Expr) -> Typed:
    """Read DATE_TRUNC('day', x)."""
    reader.only(node, "this", "unit")
    return _cut(reader, node, node.text("unit"), node.this)


def _cut(reader: Reader, node: exp.Expr, unit: str, of: exp.Expr | None) -> Typed:
    if unit.lower() not in UNITS:
        raise reader.text.refuse(
            node,
            f"times are cut to whole units; {unit[:30]!r} is none: "
            "year, quarter, month, week, day, hour, minute",
        )
    return kinds.truncated(UNITS[unit.lower()], reader.expression(of))


def time_bucket(reader: Reader, node: exp.Expr) -> Typed:
    """Read TIME_BUCKET(INTERVAL '1 hour', x)."""
    reader.only(node, "this", "expression")
    width = node.this
    if isinstance(width, exp.Interval):
        reader.only(width, "this", "unit")
        written = f"{width.this.name if width.this else ''} {width.text('unit')}"
    else:
        written = width.name if isinstance(width, exp.Literal) else ""
    found = _INTERVAL.fullmatch(written)
    if found is None:
        raise reader.text.refuse(
            node,
            f"times are cut to one whole unit, not to {written.strip()[:30]!r}; write DATE_TRUNC('hour', x)",
        )
    return _cut(reader, node, found.group(1), node.expression)


def cast(reader: Reader, node: exp.Expr) -> Typed:
    """Read DATE '2026-01-31', TIMESTAMP '...', and the day of a time."""
    reader.only(node, "this", "to")
    inner, to = node.this.unnest(), node.args["to"].this
    day = to in (exp.DType.DATE, exp.DType.DATE32)
    if to not in (
        exp.DType.DATE,
        exp.DType.DATE32,
        exp.DType.TIMESTAMP,
        exp.DType.TIMESTAMPNTZ,
        exp.DType.DATETIME,
    ):
        raise reader.text.refuse(node, NODES[exp.Cast])
    return _dated(reader, node, inner, day)


def day(reader: Reader, node: exp.Expr) -> Typed:
    """Read DATE(x): the day of a time."""
    reader.only(node, "this")
    return _dated(reader, node, node.this, True)


def _dated(reader: Reader, node: exp.Expr, inner: exp.Expr | None, day: bool) -> Typed:
    if isinstance(inner, exp.Literal) and inner.args.get("is_string"):
        kind: kinds.Kind = "date" if day else "timestamp"
        return kinds.beside(kinds.constant(str(inner.this)), kind, "this")
    if day and inner is not None:
        of = reader.expression(inner)
        if of.kind == "timestamp":
            return kinds.truncated("day", of)
        if of.kind == "date":
            return of
    raise reader.text.refuse(node, NODES[exp.Cast])
