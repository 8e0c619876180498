"""Expressions of a query in Ibis: no value of any row makes them fail, and all engines give the same.

Numbers are missing where they are NaN, and clamped before anything else. Whole numbers are 64 bits, others
doubles. Bounds are carried along, so that what could overflow is refused before any row is read; what is
multiplied or divided is zero where it is below `TINY`, because PostgreSQL fails on underflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any

from sfumato.core.errors import InvalidRequest
from sfumato.queries.engines._sql import long
from sfumato.queries.model import Binned, Call, Column, Constant, Expr, Part, Truncated, Value

#: kind of a column -> Ibis type.
TYPES = {
    "boolean": "boolean",
    "integer": "int64",
    "number": "float64",
    "text": "string",
    "date": "date",
    "timestamp": "timestamp",
}
NUMERIC = ("integer", "number")
TINY = 1e-150
#: Doubles are exact for whole numbers up to this.
EXACT = 1 << 53
#: How long an expression may get as SQL, in which parts of it come several times.
HEAVIEST = 10_000
LARGEST = {"integer": Fraction(1 << 62), "number": Fraction(10**150)}
PARTS = {
    "year": (1, 9999),
    "quarter": (1, 4),
    "month": (1, 12),
    "week": (1, 53),
    "day": (1, 31),
    "hour": (0, 23),
    "minute": (0, 59),
    "weekday": (1, 7),
    "yearday": (1, 366),
}
CUTS = {"year": "Y", "quarter": "Q", "month": "M", "week": "W", "day": "D", "hour": "h", "minute": "m"}


def _letters() -> tuple[str, str]:
    """Return Latin, Greek and Cyrillic capitals and their small letters, one for one."""
    small = [chr(code) for code in range(0x61, 0x530) if len(chr(code).upper()) == 1]
    pairs = [(s.upper(), s) for s in small if s.upper() != s and s.upper().lower() == s]
    return "".join(large for large, _ in pairs), "".join(s for _, s in pairs)


#: Engines differ in what a small letter is (PostgreSQL by its locale), so the letters are ours.
CAPITALS, SMALL = _letters()


@dataclass(frozen=True, slots=True)
class Typed:
    """An Ibis value, what it is, and between what numbers it lies (None: nobody knows)."""

    value: Any
    kind: str
    low: Fraction | None = None
    high: Fraction | None = None

    @property
    def constant(self) -> Fraction | None:
        """The number that it always is."""
        return self.low if self.low is not None and self.low == self.high else None


def constant(value: Value) -> Typed:
    """Return a public value."""
    import ibis

    match value:
        case bool():
            return Typed(ibis.literal(value), "boolean")
        case int():
            if not -(1 << 62) <= value <= 1 << 62:
                raise InvalidRequest(f"{value} is too large for a whole number: use one below 2^62")
            return Typed(long(value), "integer", Fraction(value), Fraction(value))
        case float():
            if not math.isfinite(value):
                raise InvalidRequest(f"{value} is no number to compare with")
            # By its text: engines read a bare 0.1 as a decimal, and not all round it alike.
            return Typed(
                ibis.literal(repr(value)).cast("float64"), "number", Fraction(value), Fraction(value)
            )
        case str():
            return Typed(ibis.literal(value), "text")
        case datetime():
            moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
            return Typed(ibis.literal(moment.isoformat(sep=" ")).cast("timestamp"), "timestamp")
        case date():
            return Typed(ibis.literal(value.isoformat()).cast("date"), "date")


def cleaned(value: Any, kind: str, clamp: tuple[Fraction, Fraction] | None) -> Typed:
    """Return a column as expressions see it: NaN is missing, and clamps come first."""
    import ibis

    if kind == "number":
        value = value.isnan().ifelse(ibis.null("float64"), value)
    if clamp is None or kind not in NUMERIC:
        return Typed(value, kind)
    low, high = clamp
    if kind == "integer":
        low, high = Fraction(math.ceil(low)), Fraction(math.floor(high))
    return clamped(Typed(value, kind), low, high)


def clamped(of: Typed, low: Fraction, high: Fraction) -> Typed:
    """Return a number clamped into low..high; of infinite ones, the bound."""
    import ibis

    if low > high:
        raise InvalidRequest(f"cannot clamp into {low}..{high}: nothing lies between")
    whole = of.kind == "integer" and low.denominator == high.denominator == 1
    of = of if whole else as_double(of)
    _fits(of.kind, low, high)
    if of.low is not None and of.high is not None and low <= of.low and of.high <= high:
        return of
    least, most = (constant(int(end) if whole else float(end)).value for end in (low, high))
    value = of.value.isnull().ifelse(of.value, ibis.greatest(least, ibis.least(most, of.value)))
    return Typed(value, of.kind, low, high)


def settled(of: Typed) -> Any:
    """Return a number that can be multiplied or divided: zero where it is tiny."""
    if of.kind == "integer":
        return as_double(of).value
    return (of.value.abs() < constant(TINY).value).ifelse(constant(0.0).value, of.value)


def as_double(of: Typed) -> Typed:
    """Return a number as a double."""
    if of.kind == "number":
        return of
    return Typed(of.value.cast("float64"), "number", of.low, of.high)


def whole(of: Typed, low: int, high: int, step: Fraction) -> Any:
    """Return floor(clamp(of, low * step, high * step) / step + 1/2), a whole number in low..high."""
    import ibis

    if of.kind == "boolean":
        one, zero = long(1), long(0)
        of = Typed(ibis.cases((of.value, one), (~of.value, zero)), "integer", Fraction(0), Fraction(1))
    _numeric("a sum", of)
    of = clamped(of, low * step, high * step)
    if step == 1 and of.kind == "integer":
        return of.value
    value = as_double(of).value if step == 1 else settled(of)
    if step.denominator != 1:
        value = value * constant(float(step.denominator)).value
    if step.numerator != 1:
        value = value / constant(float(step.numerator)).value
    return _floored(value + constant(0.5).value, low, high)


def _floored(value: Any, low: int, high: int) -> Any:
    """Return the whole number below a double, in low..high; it is clamped before it is one.

    Engines fail on doubles beyond 64 bits, and where bounds are far from 0 and close together, what is lost
    to rounding may be that large.
    """
    if max(-low, high) > EXACT:
        raise InvalidRequest(f"whole numbers up to {max(-low, high):.3g} are not exact: take a coarser step")
    return clamped(Typed(value, "number"), Fraction(low), Fraction(high)).value.floor().cast("int64")


class Translator:
    """Turns expressions into Ibis expressions.

    Args:
        column: gives a column by its name.
    """

    def __init__(self, column: Callable[[Column], Typed]) -> None:
        self._column = column

    def __call__(self, expression: Expr) -> Typed:
        """Return an expression as an Ibis value.

        Raises:
            InvalidRequest: kinds that do not go together, numbers that could overflow, or too much of it.
        """
        if weight(expression) > HEAVIEST:
            raise InvalidRequest("the expression is too deep: ask for its parts by themselves")
        return self._translated(expression)

    def _translated(self, expression: Expr) -> Typed:
        match expression:
            case Column():
                return self._column(expression)
            case Constant(value):
                return constant(value)
            case Part(part, of):
                return _part(part, self._translated(of))
            case Truncated(unit, of):
                return _truncated(unit, self._translated(of))
            case Binned():
                return self._binned(expression)
            case Call(op, args):
                return self._call(op, args)

    def condition(self, expression: Expr) -> Any:
        """Return a condition.

        Raises:
            InvalidRequest: it is not one.
        """
        found = self(expression)
        if found.kind != "boolean":
            raise InvalidRequest(
                f"a condition is true or false, got a {found.kind}: compare it with something"
            )
        return found.value

    def _binned(self, of: Binned) -> Typed:
        if of.count < 1 or of.width <= 0:
            raise InvalidRequest(
                f"bins need a width above 0 and a count of at least 1, got {of.width} and {of.count}"
            )
        inner = self._translated(of.of)
        _numeric("a bin", inner)
        scale = math.lcm(of.low.denominator, of.width.denominator)
        if max(Fraction(scale), abs(of.low * scale), of.width * scale * of.count) > LARGEST["number"]:
            raise InvalidRequest(
                "these bins are too thin, or too far from 0: take wider ones, by shorter numbers"
            )
        value = settled(clamped(inner, of.low, of.low + of.width * of.count))
        value = value * constant(float(scale)).value if scale != 1 else value
        value = settled(Typed(value - constant(float(of.low * scale)).value, "number"))
        value = value / constant(float(of.width * scale)).value
        return Typed(_floored(value, 0, of.count - 1), "integer", Fraction(0), Fraction(of.count - 1))

    def _call(self, op: str, args: tuple[Expr, ...]) -> Typed:
        import ibis

        match op:
            case "and" | "or" | "not":
                return Typed(_logic(op, [self.condition(arg) for arg in args]), "boolean")
            case "=" | "<>" | "<" | "<=" | ">" | ">=":
                left, right = _alike([self._translated(arg) for arg in args])
                return Typed(_compare(op, left.value, right.value), "boolean")
            case "in":
                first, *others = _alike([self._translated(arg) for arg in args])
                return Typed(first.value.isin([other.value for other in others]), "boolean")
            case "is null":
                return Typed(self._translated(args[0]).value.isnull(), "boolean")
            case "like":
                return self._like(*args)
            case "clamp":
                return self._clamp(*args)
            case "lower" | "upper":
                text = self._translated(args[0])
                _is(op, text, "text")
                letters = (CAPITALS, SMALL) if op == "lower" else (SMALL, CAPITALS)
                return Typed(text.value.translate(*letters), "text")
            case "coalesce":
                parts = _alike([self._translated(arg) for arg in args])
                return _either(parts, ibis.coalesce(*(part.value for part in parts)))
            case "case":
                return self._case(args)
            case _:
                return _arithmetic(op, [self._translated(arg) for arg in args])

    def _like(self, of: Expr, pattern: Expr) -> Typed:
        text = self._translated(of)
        _is("like", text, "text")
        if not (isinstance(pattern, Constant) and isinstance(pattern.value, str)):
            raise InvalidRequest("like takes a pattern in quotes, such as 'A%'")
        if "\\" in pattern.value:
            raise InvalidRequest(f"like knows only % and _, and no backslash, got {pattern.value!r}")
        return Typed(text.value.like(pattern.value), "boolean")

    def _clamp(self, of: Expr, low: Expr, high: Expr) -> Typed:
        inner, ends = self._translated(of), (self._translated(low).constant, self._translated(high).constant)
        _numeric("clamp", inner)
        if ends[0] is None or ends[1] is None:
            raise InvalidRequest("clamp takes two numbers as bounds, as in clamp(speed, 0, 200)")
        return clamped(inner, ends[0], ends[1])

    def _case(self, args: tuple[Expr, ...]) -> Typed:
        import ibis

        pairs, rest = args[: len(args) // 2 * 2], args[len(args) // 2 * 2 :]
        conditions = [self.condition(arg) for arg in pairs[::2]]
        results = _alike([self._translated(arg) for arg in (*pairs[1::2], *rest)])
        branches = zip(conditions, (result.value for result in results), strict=False)
        otherwise = results[-1].value if rest else ibis.null(TYPES[results[0].kind])
        return _either(results, ibis.cases(*branches, else_=otherwise))


def _part(part: str, of: Typed) -> Typed:
    if of.kind not in ("date", "timestamp"):
        raise InvalidRequest(f"{part} is a part of a date or time, got a {of.kind}")
    value = of.value.cast("timestamp")
    match part:
        case "week":
            value = value.week_of_year()
        case "weekday":
            value = value.day_of_week.index() + 1
        case "yearday":
            value = value.day_of_year()
        case _:
            value = getattr(value, part)()
    low, high = PARTS[part]
    return Typed(value.cast("int64"), "integer", Fraction(low), Fraction(high))


def _truncated(unit: str, of: Typed) -> Typed:
    if of.kind not in ("date", "timestamp"):
        raise InvalidRequest(f"only a date or time is cut to its {unit}, got a {of.kind}")
    value = of.value.cast("timestamp").truncate(CUTS[unit])
    if of.kind == "date" and unit not in ("hour", "minute"):
        return Typed(value.cast("date"), "date")
    return Typed(value, "timestamp")


def _logic(op: str, parts: list[Any]) -> Any:
    if op == "not":
        return ~parts[0]
    found = parts[0]
    for part in parts[1:]:
        found = found & part if op == "and" else found | part
    return found


def _compare(op: str, left: Any, right: Any) -> Any:
    match op:
        case "=":
            return left == right
        case "<>":
            return left != right
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case _:
            return left >= right


def _arithmetic(op: str, parts: list[Typed]) -> Typed:
    for part in parts:
        _numeric(repr(op), part)
        if part.low is None or part.high is None:
            raise InvalidRequest(
                f"{op!r} on a number without bounds could overflow: declare the bounds of its column in the "
                "policy, or write clamp(column, low, high)"
            )
    kind = "number" if any(part.kind == "number" for part in parts) else "integer"
    ends = [(part.low or Fraction(0), part.high or Fraction(0)) for part in parts]
    if kind == "integer":
        values = [part.value for part in parts]
    else:
        values = [settled(part) if op == "*" else as_double(part).value for part in parts]
    low, high, value = _result(op, ends, values)
    _fits(kind, low, high)
    if kind == "integer" and all(part.constant is not None for part in parts):
        return constant(int(low))  # engines read a small whole number as one of 32 bits
    return Typed(value, kind, low, high)


def _result(
    op: str, ends: list[tuple[Fraction, Fraction]], values: list[Any]
) -> tuple[Fraction, Fraction, Any]:
    (low, high), first = ends[0], values[0]
    match op:
        case "negative":
            return -high, -low, -first
        case "abs":
            return max(low, -high, Fraction(0)), max(-low, high), first.abs()
        case "+":
            return low + ends[1][0], high + ends[1][1], first + values[1]
        case "-":
            return low - ends[1][1], high - ends[1][0], first - values[1]
        case _:
            corners = [one * other for one in ends[0] for other in ends[1]]
            return min(corners), max(corners), first * values[1]


def _alike(parts: list[Typed]) -> list[Typed]:
    """Return values of one kind: whole numbers become doubles beside doubles, text a date beside dates."""
    kinds = {part.kind for part in parts}
    if len(kinds) == 1:
        return parts
    if kinds <= set(NUMERIC):
        return [as_double(part) for part in parts]
    if kinds <= {"date", "timestamp", "text"} and kinds != {"text"}:
        kind = "timestamp" if "timestamp" in kinds else "date"
        return [_moment(part, kind) for part in parts]
    raise InvalidRequest(f"cannot compare or mix {' and '.join(sorted(kinds))}: bring them to one kind")


def _moment(part: Typed, kind: str) -> Typed:
    if part.kind == "text":
        written = getattr(part.value.op(), "value", None)
        try:
            moment = datetime.fromisoformat(str(written))
        except ValueError:
            raise InvalidRequest(
                f"a {kind} is compared with a {kind} such as '2026-01-31', got {written or 'a text column'}"
            ) from None
        if kind == "date" and (moment.hour or moment.minute or moment.second or moment.microsecond):
            raise InvalidRequest(f"a date is compared with a date such as '2026-01-31', got {written!r}")
        return constant(moment.date() if kind == "date" else moment)
    if part.kind == "date" and kind == "timestamp":
        return Typed(part.value.cast("timestamp"), kind)
    return part


def _either(parts: list[Typed], value: Any) -> Typed:
    """Return a value that is one of the parts."""
    lows, highs = [part.low for part in parts], [part.high for part in parts]
    known = [low for low in lows if low is not None], [high for high in highs if high is not None]
    if len(known[0]) < len(parts) or len(known[1]) < len(parts):
        return Typed(value, parts[0].kind)
    return Typed(value, parts[0].kind, min(known[0]), max(known[1]))


def _numeric(what: str, of: Typed) -> None:
    if of.kind not in NUMERIC:
        raise InvalidRequest(f"{what} needs a number, got a {of.kind}")


def _is(what: str, of: Typed, kind: str) -> None:
    if of.kind != kind:
        raise InvalidRequest(f"{what} needs a {kind}, got a {of.kind}")


def weight(expression: Expr) -> int:
    """Return how many columns and constants an expression has, counting those that SQL says several times.

    >>> weight(Call("*", (Column("a"), Constant(2))))
    4
    """
    match expression:
        case Part(of=of) | Truncated(of=of):
            return weight(of)
        case Binned(of=of):
            return 16 * weight(of)
        case Call(op, args):
            return {"*": 2, "clamp": 2, "lower": 20, "upper": 20}.get(op, 1) * sum(
                weight(arg) for arg in args
            )
        case _:
            return 1


def _fits(kind: str, low: Fraction, high: Fraction) -> None:
    if max(abs(low), abs(high)) > LARGEST[kind]:
        raise InvalidRequest(
            f"a result beyond {float(LARGEST[kind]):.3g} could overflow: clamp the columns to what is of "
            "interest"
        )
