"""What kind of value an expression has: wrong mixtures are refused before any row is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from fractions import Fraction
from typing import Final, Literal, cast

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.queries.model import Binned, Call, Column, Constant, Expr, Part, Truncated, Value
from sfumato.queries.show import show

Kind = Literal["boolean", "integer", "number", "text", "date", "timestamp"]

NUMERIC: Final = ("integer", "number")
DATED: Final = ("date", "timestamp")
_TIMED: Final = ("hour", "minute")
_WORDS: dict[str, str] = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "text": "text",
    "date": "a date",
    "timestamp": "a date with a time",
}
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?")
#: Beyond these, engines disagree about whole numbers.
_MOST_WHOLE: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class TableShape:
    """What may be asked of a table.

    Args:
        unit: its column that names the privacy unit.
        columns: name -> kind ("boolean", "integer", "number", "text", "date", "timestamp").
        bounds: of numeric columns, the declared bounds, where there are any.
    """

    unit: str
    columns: Mapping[str, str]
    bounds: Mapping[str, tuple[Fraction, Fraction]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Typed:
    """An expression and the kind of its values."""

    of: Expr
    kind: Kind


def shape_of(table: str, tables: Mapping[str, TableShape]) -> TableShape:
    """Return the shape of a dataset, or of the dataset of a version ("flow@3").

    Raises:
        UnknownName: where there is no such dataset.
    """
    for name in (table, table.partition("@")[0]):
        if name in tables:
            return tables[name]
    raise UnknownName("dataset", table, tables)


def typed(expression: Expr, column: Callable[[Column], Typed]) -> Typed:
    """Return an expression in its canonical form, with its kind.

    >>> late = Call(">=", (Column("day"), Constant("2026-01-31")))
    >>> typed(late, lambda column: Typed(column, "date")).of.args[1]
    Constant(value=datetime.date(2026, 1, 31))

    Args:
        column: says what a column is.

    Raises:
        InvalidRequest: where kinds do not fit, with the expression and its kind.
    """
    match expression:
        case Column():
            return column(expression)
        case Constant(value=value):
            return constant(value)
        case Part(part=part, of=of):
            return part_of(part, typed(of, column))
        case Truncated(unit=unit, of=of):
            return truncated(unit, typed(of, column))
        case Binned(of=of, low=low, width=width, count=count):
            return binned(typed(of, column), low, width, count)
        case Call(op=op, args=args):
            return call(op, *(typed(each, column) for each in args))


def as_kind(kind: str) -> Kind:
    """Return a declared kind, checked."""
    if kind not in _WORDS:
        raise UnknownName("kind of column", kind, _WORDS)
    return cast(Kind, kind)


def constant(value: Value) -> Typed:
    """Return a public value with its kind.

    Raises:
        InvalidRequest: for numbers that are not finite or too large, and dates with a time zone.
    """
    match value:
        case bool():
            return Typed(Constant(value), "boolean")
        case int():
            if abs(value) > _MOST_WHOLE:
                raise InvalidRequest(
                    f"the whole number {str(value)[:30]} is too large; at most {_MOST_WHOLE}"
                )
            return Typed(Constant(value), "integer")
        case float():
            if value != value or abs(value) == float("inf"):
                raise InvalidRequest(f"{value!r} is no number that can be asked about; give a finite one")
            return Typed(Constant(value), "number")
        case str():
            if "\x00" in value:
                raise InvalidRequest("text with a zero byte cannot be asked about; leave it out")
            return Typed(Constant(value), "text")
        case datetime():
            if value.tzinfo is not None:
                raise InvalidRequest(
                    f"{value.isoformat()} has a time zone; write it without, as the table has it"
                )
            return Typed(Constant(value), "timestamp")
        case date():
            return Typed(Constant(value), "date")
    raise InvalidRequest(
        f"{value!r} is no value that can be asked about; give a number, text, date or true or false"
    )


def part_of(part: str, of: Typed) -> Typed:
    """Return a part of a date."""
    _must(of, DATED, f"{part.upper()} is of dates")
    if of.kind == "date" and part in _TIMED:
        raise InvalidRequest(f"{_show(of)} is a date without a time: it has no {part}")
    return Typed(Part(part, of.of), "integer")  # type: ignore[arg-type]


def truncated(unit: str, of: Typed) -> Typed:
    """Return a date cut to the beginning of its unit."""
    _must(of, DATED, "DATE_TRUNC is of dates")
    if of.kind == "date" and unit in _TIMED:
        raise InvalidRequest(f"{_show(of)} is a date without a time: it has no {unit}")
    return Typed(Truncated(unit, of.of), of.kind)  # type: ignore[arg-type]


def binned(of: Typed, low: Fraction, width: Fraction, count: int) -> Typed:
    """Return the bin of a number."""
    _must(of, NUMERIC, "bins are of numbers")
    if width <= 0 or not 1 <= count <= 10_000:
        raise InvalidRequest(f"{count} bins of width {width} cannot be: give 1 to 10000 bins wider than 0")
    return Typed(Binned(of.of, low, width, count), "integer")


def call(op: str, *args: Typed) -> Typed:
    """Return an operation in its canonical form, with its kind.

    Raises:
        InvalidRequest: where the kinds of its arguments do not fit.
    """
    match op:
        case "and" | "or":
            return _connected(op, args)
        case "not":
            _must(args[0], ("boolean",), "NOT is of conditions")
            return Typed(Call("not", (args[0].of,)), "boolean")
        case "is null":
            return Typed(Call("is null", (args[0].of,)), "boolean")
        case "=" | "<>" | "<" | "<=" | ">" | ">=":
            return _compared(op, args)
        case "in":
            return _listed(args)
        case "like":
            return _like(args)
        case "+" | "-" | "*" | "negative" | "abs":
            return _arithmetic(op, args)
        case "clamp":
            return _clamped(args)
        case "lower" | "upper":
            _must(args[0], ("text",), f"{op.upper()} is of text")
            return Typed(Call(op, (args[0].of,)), "text")
        case "coalesce":
            same, kind = unified(args, "taken for each other")
            return Typed(Call(op, tuple(each.of for each in same)), kind)
        case "case":
            return _case(args)
    raise InvalidRequest(
        f"{op!r} is no operation; there are comparisons, AND, OR, NOT, IN, LIKE, + - * and CASE"
    )


def _connected(op: str, args: tuple[Typed, ...]) -> Typed:
    flat: list[Expr] = []
    for each in args:
        _must(each, ("boolean",), f"{op.upper()} is of conditions")
        flat += each.of.args if isinstance(each.of, Call) and each.of.op == op else (each.of,)
    return Typed(flat[0] if len(flat) == 1 else Call(op, tuple(flat)), "boolean")


def _compared(op: str, args: tuple[Typed, ...]) -> Typed:
    (left, right), kind = unified(args, "compared")
    if kind == "boolean" and op not in ("=", "<>"):
        raise InvalidRequest(f"{_show(left)} is true or false: compare it with = or <>")
    return Typed(Call(op, (left.of, right.of)), "boolean")


def _listed(args: tuple[Typed, ...]) -> Typed:
    same, _ = unified(args, "compared")
    for each in same[1:]:
        if not isinstance(each.of, Constant):
            raise InvalidRequest(f"IN takes constants; {_show(each)} is none: compare with = and OR")
    return Typed(Call("in", tuple(each.of for each in same)), "boolean")


def _like(args: tuple[Typed, ...]) -> Typed:
    _must(args[0], ("text",), "LIKE is of text")
    pattern = args[1].of
    if not (isinstance(pattern, Constant) and isinstance(pattern.value, str)):
        raise InvalidRequest(f"LIKE takes a pattern in quotes, as in LIKE 'north%'; {_show(args[1])} is none")
    if "\\" in pattern.value:
        raise InvalidRequest(
            "a backslash in a LIKE pattern means different things to databases; leave it out"
        )
    return Typed(Call("like", (args[0].of, pattern)), "boolean")


def _arithmetic(op: str, args: tuple[Typed, ...]) -> Typed:
    for each in args:
        if each.kind in DATED:
            raise InvalidRequest(
                f"{_show(each)} is {_WORDS[each.kind]}: arithmetic on dates is not understood; "
                "compare it with a date, or cut it with DATE_TRUNC"
            )
        _must(each, NUMERIC, "arithmetic is of numbers")
    kind: Kind = "integer" if all(each.kind == "integer" for each in args) else "number"
    first = args[0].of
    if op == "negative" and isinstance(first, Constant):
        return Typed(Constant(-cast(float, first.value)), kind)
    return Typed(Call(op, tuple(each.of for each in args)), kind)


def _clamped(args: tuple[Typed, ...]) -> Typed:
    for each in args:
        _must(each, NUMERIC, "CLAMP is of numbers")
    low, high = (bound_of(each) for each in args[1:])
    if low > high:
        raise InvalidRequest(f"CLAMP from {low} to {high} holds no number; give the lower bound first")
    return Typed(Call("clamp", tuple(each.of for each in args)), _widest(args))


def _case(args: tuple[Typed, ...]) -> Typed:
    whens, thens = args[: len(args) // 2 * 2 : 2], args[1::2]
    last = args[-1:] if len(args) % 2 else ()
    for each in whens:
        _must(each, ("boolean",), "WHEN is of conditions")
    same, kind = unified((*thens, *last), "results of one CASE")
    parts: list[Expr] = []
    for when, then in zip(whens, same, strict=False):
        parts += [when.of, then.of]
    return Typed(Call("case", (*parts, *(each.of for each in same[len(whens) :]))), kind)


def bound_of(value: Typed) -> Fraction:
    """Return a constant number exactly.

    Raises:
        InvalidRequest: where it is none.
    """
    if not (isinstance(value.of, Constant) and value.kind in NUMERIC):
        raise InvalidRequest(f"bounds are constant numbers; {_show(value)} is none")
    return exact(cast(float, value.of.value))


def exact(value: float | Fraction) -> Fraction:
    """Return a number as its decimal text says it: 0.1 is a tenth."""
    return Fraction(value) if isinstance(value, int | Fraction) else Fraction(repr(float(value)))


def unified(args: tuple[Typed, ...], why: str) -> tuple[list[Typed], Kind]:
    """Return expressions as one kind: whole numbers beside numbers, and dates written as text beside dates.

    Raises:
        InvalidRequest: where they are of several kinds.
    """
    target = next((each for each in args if not isinstance(each.of, Constant)), None)
    target = target or next((each for each in args if each.kind in DATED), args[0])
    what = _show(target)
    same = [beside(each, target.kind, what) for each in args]
    for each in same:
        if each.kind != target.kind and not (each.kind in NUMERIC and target.kind in NUMERIC):
            raise InvalidRequest(
                f"{what} is {_WORDS[target.kind]} and {_show(each)} is {_WORDS[each.kind]}: "
                f"they cannot be {why}" + _way(target, each)
            )
    return same, _widest(tuple(same)) if target.kind in NUMERIC else target.kind


def _widest(args: tuple[Typed, ...]) -> Kind:
    return "number" if any(each.kind == "number" for each in args) else "integer"


def beside(each: Typed, kind: Kind, what: str) -> Typed:
    """Read a date that is written as text, and take days for moments, beside dates; `what` they stand beside.

    Raises:
        InvalidRequest: for text that is no date.
    """
    if kind not in DATED or not isinstance(each.of, Constant) or each.kind == kind:
        return each
    value = each.of.value
    if isinstance(value, str):
        value = moment(value)
    if not isinstance(value, date):
        return each
    if kind == "timestamp":
        whole = value if isinstance(value, datetime) else datetime.combine(value, time())
        return Typed(Constant(whole), "timestamp")
    if isinstance(value, datetime):
        if value.time() != time():
            raise InvalidRequest(f"{what} is a date without a time: {value.isoformat(' ')!r} has one")
        value = value.date()
    return Typed(Constant(value), "date")


def moment(text: str) -> date | datetime:
    """Read a date, or a date and a time.

    >>> moment("2026-01-31 07:30")
    datetime.datetime(2026, 1, 31, 7, 30)

    Raises:
        InvalidRequest: where it is none.
    """
    try:
        if _DAY.fullmatch(text):
            return date.fromisoformat(text)
        if _MOMENT.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise InvalidRequest(
        f"{text[:40]!r} is no date; write it as '2026-01-31' or '2026-01-31 07:30:00', without a zone"
    )


def _way(target: Typed, each: Typed) -> str:
    kinds, values = (
        {target.kind, each.kind},
        [one.of for one in (target, each) if isinstance(one.of, Constant)],
    )
    if kinds & set(NUMERIC) and "text" in kinds and values:
        return "; numbers are written without quotes, text with them"
    if "boolean" in kinds and kinds & set(NUMERIC):
        return "; write TRUE or FALSE"
    return ""


def _must(each: Typed, kinds: tuple[str, ...], what: str) -> None:
    if each.kind not in kinds:
        raise InvalidRequest(f"{what}; {_show(each)} is {_WORDS[each.kind]}")


def _show(each: Typed) -> str:
    text = show(each.of)
    return text if len(text) <= 60 else text[:57] + "..."


def told(each: Typed) -> str:
    """Return what an expression is, for a message."""
    return f"{_show(each)} is {_WORDS[each.kind]}"
