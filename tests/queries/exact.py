"""A plain oracle: what a `Query` asks, row by row in Python, without noise and without bounds on people.

It knows nothing of SQL text and of engines, so that each can be held against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from fractions import Fraction
from math import floor, sqrt
from typing import Any

import pyarrow as pa

from sfumato.queries.model import Aggregate, Binned, Call, Column, Constant, Expr, Part, Query, Truncated

Row = dict[tuple[str, str], Any]


def answer(query: Query, tables: Mapping[str, pa.Table], units: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the rows of the exact answer: of groups that occur, and of all rows where there are no keys."""
    rows = [
        row for row in _rows(query, tables, units) if query.where is None or value(query.where, row) is True
    ]
    groups: dict[tuple[Any, ...], list[Row]] = {} if query.keys else {(): []}
    for row in rows:
        key = tuple(value(each.of, row) for each in query.keys)
        allowed = zip(key, query.keys, strict=True)
        if any(each.values is not None and part not in each.values for part, each in allowed):
            continue
        for kept in range(len(key), -1, -1) if query.rollup else [len(key)]:
            groups.setdefault(key[:kept] + (None,) * (len(key) - kept), []).append(row)
    answers = []
    for key, members in groups.items():
        made = dict(zip((each.name for each in query.keys), key, strict=True))
        made |= {each.name: figure(each, members) for each in query.aggregates}
        if all(_holds(made[name], op, number) for name, op, number in query.having):
            answers.append(made)
    for order in reversed(query.order):
        answers.sort(key=lambda made, by=order.by: (made[by] is None, made[by]), reverse=order.descending)
    return answers[: query.limit]


def _rows(query: Query, tables: Mapping[str, pa.Table], units: Mapping[str, str]) -> Iterator[Row]:
    first = query.table.partition("@")[0]
    rows = [_row(each, query.alias, units[first]) for each in tables[first].to_pylist()]
    for join in query.joins:
        name = join.table.partition("@")[0]
        others: dict[Any, list[Row]] = {}
        nothing: Row = {(join.alias, column): None for column in tables[name].column_names}
        for each in tables[name].to_pylist():
            made = _row(each, join.alias, units[name])
            others.setdefault(made.pop(("", "unit")), []).append(made)
        missing = [nothing] if join.kind == "left" else []
        rows = [row | other for row in rows for other in others.get(row[("", "unit")], missing)]
    yield from rows


def _row(values: Mapping[str, Any], alias: str, unit: str) -> Row:
    row: Row = {(alias, name): each for name, each in values.items()}
    row["", "unit"] = values[unit]
    return row


def figure(asked: Aggregate, rows: list[Row]) -> Any:
    """Return one figure of some rows."""
    rows = [row for row in rows if asked.where is None or value(asked.where, row) is True]
    if asked.kind == "units":
        return len({row["", "unit"] for row in rows})
    if asked.of is None:
        return len(rows)
    values = [each for row in rows if (each := value(asked.of, row)) is not None]
    if asked.kind == "count":
        return len(values)
    if asked.bounds is not None:
        values = [min(max(each, asked.bounds[0]), asked.bounds[1]) for each in values]
    if not values:
        return None
    mean = sum(values) / len(values)
    variance = sum((each - mean) ** 2 for each in values) / len(values)
    match asked.kind:
        case "sum":
            return sum(values)
        case "mean":
            return mean
        case "variance":
            return variance
        case "stddev":
            return sqrt(variance)
    assert asked.quantile is not None
    place = float(asked.quantile) * (len(values) - 1)
    values.sort()
    low, high = values[floor(place)], values[min(floor(place) + 1, len(values) - 1)]
    return low + (high - low) * (place - floor(place))


def _holds(left: Any, op: str, right: Any) -> bool:
    if left is None or right is None:
        return False
    return {
        "=": left == right,
        "<>": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }[op]


def value(of: Expr, row: Row) -> Any:
    """Return what an expression is in a row; None is NULL."""
    match of:
        case Constant(value=constant):
            return constant
        case Column(name=name, table=table):
            return row[table, name]
        case Part(part=part, of=inner):
            return _part(part, value(inner, row))
        case Truncated(unit=unit, of=inner):
            return _cut(unit, value(inner, row))
        case Binned(of=inner, low=low, width=width, count=count):
            number = value(inner, row)
            if number is None:
                return None
            return min(max(floor((Fraction(number) - low) / width), 0), count - 1)
        case Call(op=op, args=args):
            return _call(op, [lambda each=each: value(each, row) for each in args])  # type: ignore[misc]


def _call(op: str, args: list[Any]) -> Any:
    if op == "case":
        for when, then in zip(args[::2], args[1::2], strict=False):
            if when() is True:
                return then()
        return args[-1]() if len(args) % 2 else None
    values = [each() for each in args]
    if op == "coalesce":
        return next((each for each in values if each is not None), None)
    if op == "is null":
        return values[0] is None
    if op in ("and", "or"):
        decides = op == "or"
        return decides if decides in values else None if None in values else not decides
    if op == "in":
        return None if values[0] is None else values[0] in values[1:]
    if None in values:
        return None
    return _plain(op, values)


def _plain(op: str, values: list[Any]) -> Any:
    first = values[0]
    match op:
        case "not":
            return not first
        case "like":
            pattern = re.escape(values[1]).replace("%", ".*").replace("_", ".")
            return re.fullmatch(pattern, first, re.DOTALL) is not None
        case "+":
            return first + values[1]
        case "-":
            return first - values[1]
        case "*":
            return first * values[1]
        case "negative":
            return -first
        case "abs":
            return abs(first)
        case "clamp":
            return min(max(first, values[1]), values[2])
        case "lower":
            return first.lower()
        case "upper":
            return first.upper()
    return _holds(first, op, values[1])


def _part(part: str, moment: Any) -> Any:
    if moment is None:
        return None
    parts = {
        "quarter": lambda: (moment.month + 2) // 3,
        "week": lambda: moment.isocalendar().week,
        "weekday": lambda: moment.isoweekday(),
        "yearday": lambda: moment.timetuple().tm_yday,
    }
    return parts[part]() if part in parts else getattr(moment, part)


def _cut(unit: str, moment: Any) -> Any:
    if moment is None:
        return None
    whole = moment if isinstance(moment, datetime) else datetime.combine(moment, time())
    day = datetime(whole.year, whole.month, whole.day)
    made = {
        "year": day.replace(month=1, day=1),
        "quarter": day.replace(month=(whole.month + 2) // 3 * 3 - 2, day=1),
        "month": day.replace(day=1),
        "week": day - timedelta(days=day.weekday()),
        "day": day,
        "hour": whole.replace(minute=0, second=0, microsecond=0),
        "minute": whole.replace(second=0, microsecond=0),
    }[unit]
    return made if isinstance(moment, datetime) else date(made.year, made.month, made.day)
