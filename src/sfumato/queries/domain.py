"""What is publicly known of an expression: its range as a number, and its values as a group key.

Everything follows from the query and the policy. A bound is of the whole expression as it is asked, never of
a column that it once was.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from fractions import Fraction

from sfumato.core.errors import InvalidRequest
from sfumato.queries.model import Binned, Call, Column, Constant, DateUnit, Expr, Part, Truncated, Value, walk
from sfumato.queries.outcomes import outcomes
from sfumato.queries.tables import Table

#: More groups than this are no answer, and their noise takes long.
MOST_CELLS = 10_000_000
LARGEST = Fraction(10) ** 30

_PARTS: Mapping[str, tuple[int, int]] = {
    "quarter": (1, 4),
    "month": (1, 12),
    "week": (1, 53),
    "day": (1, 31),
    "hour": (0, 23),
    "minute": (0, 59),
    "weekday": (1, 7),
    "yearday": (1, 366),
}
Range = tuple[Fraction, Fraction]


class Domain:
    """What the tables of one query, by alias, say about its expressions."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self._tables = tables

    def range_of(self, expression: Expr) -> Range:
        """Return the least and the largest value of a number, by the declared bounds of its columns.

        Raises:
            InvalidRequest: there is none: a column without bounds, or no number.
        """
        match expression:
            case Constant(value=value) if isinstance(value, (int, float)):
                return Fraction(value), Fraction(value)
            case Column(name=name):
                return self._bounds(expression, name)
            case Part(part=part):
                span = self._span(expression.of) if part == "year" else None
                low, high = (span[0].year, span[1].year) if span else _PARTS.get(part, (0, 9999))
                return Fraction(low), Fraction(high)
            case Binned(count=count):
                return Fraction(0), Fraction(count - 1)
            case Call(op=op, args=args):
                return self._call(op, args)
            case _:
                raise InvalidRequest("a sum or mean needs a number")

    def _bounds(self, column: Column, name: str) -> Range:
        table = self._table(column)
        kind = table.kinds.get(name)
        if kind == "boolean":
            return Fraction(0), Fraction(1)
        declared = table.columns.get(name)
        if declared is None or declared.clamps is None:
            raise InvalidRequest(
                f"the column {name!r} has no bounds, so one {table.unit} could change the answer by any "
                "amount. "
                f"Give some that are not taken from the data: CLAMP({name}, low, high) in the query, or for "
                f"all queries bounds = [low, high] under [datasets.{table.name}.columns.{name}]"
            )
        return declared.clamps

    def _call(self, op: str, args: tuple[Expr, ...]) -> Range:
        if op in ("and", "or", "not", "=", "<>", "<", "<=", ">", ">=", "in", "is null", "like"):
            return Fraction(0), Fraction(1)
        if op == "clamp":
            if isinstance(args[0], Call):
                self.range_of(args[0])  # what is clamped must be bounded itself, or an engine could overflow
            low, high = (self.range_of(one)[0] for one in args[1:])
            if low >= high:
                raise InvalidRequest(f"CLAMP takes the lowest, then the highest value, got {low} and {high}")
            return low, high
        if op == "case":
            outcomes = [*args[1::2], *(args[-1:] if len(args) % 2 else ())]
            return _around([self.range_of(one) for one in outcomes])
        if op == "coalesce":
            return _around([self.range_of(one) for one in args])
        ranges = [self.range_of(one) for one in args]
        match op:
            case "+":
                return ranges[0][0] + ranges[1][0], ranges[0][1] + ranges[1][1]
            case "-":
                return ranges[0][0] - ranges[1][1], ranges[0][1] - ranges[1][0]
            case "*":
                corners = [a * b for a in ranges[0] for b in ranges[1]]
                return min(corners), max(corners)
            case "negative":
                return -ranges[0][1], -ranges[0][0]
            case "abs":
                low, high = ranges[0]
                least = Fraction(0) if low <= 0 <= high else min(abs(low), abs(high))
                return least, max(abs(low), abs(high))
            case _:
                raise InvalidRequest(f"a sum or mean needs a number, and {op!r} gives none")

    def step_of(self, expression: Expr) -> Fraction | None:
        """Return the declared step of a column's values, where there is one."""
        if not isinstance(expression, Column):
            return None
        declared = self._table(expression).columns.get(expression.name)
        return declared.step if declared is not None else None

    def whole(self, expression: Expr) -> bool:
        """Whether an expression's values are whole numbers, as far as its columns' kinds say so."""
        match expression:
            case Constant(value=value):
                return isinstance(value, int)
            case Column(name=name):
                return self._table(expression).kinds.get(name) in ("integer", "boolean")
            case Part() | Binned():
                return True
            case Call(op="clamp", args=args):
                return self.whole(args[0])
            case Call(op="case", args=args):
                return all(self.whole(one) for one in (*args[1::2], *(args[-1:] if len(args) % 2 else ())))
            case Call(op=op, args=args):
                numbers = op in ("+", "-", "*", "negative", "abs", "coalesce")
                return numbers and all(self.whole(one) for one in args)
            case _:
                return False

    def check(self, expression: Expr | None) -> None:
        """Refuse arithmetic that some row could make fail in some engine: all of it must be bounded.

        Raises:
            InvalidRequest: a column in it has no bounds, or the numbers are too large.
        """
        for one in walk(expression):
            if isinstance(one, Call) and one.op in ("+", "-", "*", "negative", "abs"):
                low, high = self.range_of(one)
                if max(-low, high) > LARGEST:
                    raise InvalidRequest(
                        f"numbers of {float(max(-low, high)):.0e} are too large to compute with: clamp the "
                        "columns further, or take another unit"
                    )

    def values_of(self, expression: Expr) -> tuple[Value, ...] | None:
        """Return all values that a group key can have, in order; None where they are not public."""
        match expression:
            case Constant(value=value):
                return (value,)
            case Column(name=name):
                table = self._table(expression)
                if name in table.columns and (found := table.columns[name].public_values()) is not None:
                    return found
                if table.kinds.get(name) == "date" and (span := self._span(expression)) is not None:
                    return _days(*span)
                return (False, True) if table.kinds.get(name) == "boolean" else None
            case Part(part="year", of=inner):
                span = self._span(inner)
                return tuple(range(span[0].year, span[1].year + 1)) if span is not None else None
            case Part(part=part):
                low, high = _PARTS[part]
                return tuple(range(low, high + 1))
            case Truncated(unit=unit, of=inner):
                span = self._span(inner)
                return _steps(span[0], span[1], unit) if span is not None else None
            case Binned(count=count):
                return tuple(range(count))
            case Call(op=op, args=args):
                found = outcomes(expression, self.values_of)
                return self._call_values(op, args) if found is None else found

    def _call_values(self, op: str, args: tuple[Expr, ...]) -> tuple[Value, ...] | None:
        if op in ("and", "or", "not", "=", "<>", "<", "<=", ">", ">=", "in", "is null", "like"):
            return (False, True)
        if op in ("lower", "upper"):
            inner = self.values_of(args[0])
            if inner is None:
                return None
            return _once([getattr(str(one), op)() for one in inner])
        if op in ("case", "coalesce"):
            outcomes = args
            if op == "case":
                outcomes = (*args[1::2], *(args[-1:] if len(args) % 2 else ()))
            found: list[Value] = []
            for one in outcomes:
                values = self.values_of(one)
                if values is None:
                    return None
                found += values
            return _once(found)
        return None

    def _span(self, expression: Expr) -> tuple[date, date] | None:
        if isinstance(expression, Truncated):
            return self._span(expression.of)
        if not isinstance(expression, Column):
            return None
        declared = self._table(expression).columns.get(expression.name)
        if declared is None or declared.bounds is None or not isinstance(declared.bounds[0], date):
            return None
        low, high = declared.bounds
        if self._table(expression).kinds.get(expression.name) == "timestamp" and type(low) is date:
            return datetime.combine(low, time.min), datetime.combine(high, time.max)
        return low, high

    def _table(self, column: Column) -> Table:
        if column.table in self._tables:
            return self._tables[column.table]
        if not column.table and len(self._tables) == 1:
            return next(iter(self._tables.values()))
        raise InvalidRequest(f"the query has no table {column.table!r}")


def _around(ranges: list[Range]) -> Range:
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _once(values: list[Value]) -> tuple[Value, ...]:
    found: dict[tuple[bool, Value], Value] = {}
    for one in values:
        found.setdefault((isinstance(one, bool), one), one)
    return tuple(found.values())


def _days(first: date, last: date) -> tuple[date, ...]:
    count = (last - first).days + 1
    _few(count)
    return tuple(first + timedelta(days=day) for day in range(count))


def _steps(first: date, last: date, unit: DateUnit) -> tuple[Value, ...]:
    """Return all beginnings of a unit of time, from the one of `first` to the one of `last`."""
    if not isinstance(first, datetime) and unit in ("hour", "minute"):
        raise InvalidRequest(f"a date has no {unit}: ask for days or longer")
    at, found = floor_of(first, unit), []
    while at <= last:
        found.append(at)
        _few(len(found))
        at = _next(at, unit)
    return tuple(found)


def _few(count: int) -> None:
    if count > MOST_CELLS:
        raise InvalidRequest(f"more than {MOST_CELLS} groups: take a coarser unit of time")


def floor_of(at: date, unit: DateUnit) -> date:
    """Return the beginning of the unit of time that holds `at`, as the same type.

    >>> floor_of(date(2026, 11, 28), "week")
    datetime.date(2026, 11, 23)
    """
    if isinstance(at, datetime):
        at = at.replace(second=0, microsecond=0)
        if unit == "minute":
            return at
        at = at.replace(minute=0)
        if unit == "hour":
            return at
        at = at.replace(hour=0)
    match unit:
        case "week":
            return at - timedelta(days=at.weekday())
        case "month":
            return at.replace(day=1)
        case "quarter":
            return at.replace(month=at.month - (at.month - 1) % 3, day=1)
        case "year":
            return at.replace(month=1, day=1)
        case _:
            return at


def _next(at: date, unit: DateUnit) -> date:
    match unit:
        case "minute" | "hour" | "day" | "week":
            step = {"minute": 60, "hour": 3600, "day": 86400, "week": 604800}[unit]
            return at + timedelta(seconds=step)
        case "month" | "quarter":
            months = at.month - 1 + (1 if unit == "month" else 3)
            return at.replace(year=at.year + months // 12, month=months % 12 + 1)
        case _:
            return at.replace(year=at.year + 1)
