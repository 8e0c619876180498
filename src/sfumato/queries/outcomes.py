"""The values that an expression can have, where those of what it is made of are public."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from typing import Any, Final

from sfumato.queries.kinds import exact
from sfumato.queries.model import Call, Constant, Expr, Value

#: More combinations than this are not tried.
MOST: Final = 20_000


def outcomes(
    expression: Expr, values_of: Callable[[Expr], Sequence[Value] | None]
) -> tuple[Value, ...] | None:
    """Return all values that an operation can have; None where they are not public, or too many to try.

    >>> from sfumato.queries.model import Column
    >>> tens = Call("*", (Column("decade"), Constant(10)))
    >>> outcomes(tens, lambda part: (0, 1, 2))
    (0, 10, 20)

    Guarantee:
        - Every value that it has in some row whose parts have public values, or are missing, is there; so may
          be some that no row has. Data are never read.

    Args:
        values_of: the public values of a part that is no operation itself, or None.
    """
    parts = list(dict.fromkeys(_parts(expression)))
    choices: list[list[Any]] = []
    count = 1
    for part in parts:
        values = values_of(part)
        if values is None:
            return None
        choices.append([*values, None])
        count *= len(values) + 1
        if count > MOST:
            return None
    found: dict[tuple[bool, Any], Any] = {}
    for chosen in product(*choices):
        value = _value(expression, dict(zip(parts, chosen, strict=True)))
        if value is not None:
            found.setdefault((isinstance(value, bool), value), value)
    plain = [_plain(value) for value in found.values()]
    if any(value is None for value in plain):
        return None
    numbers = all(isinstance(value, int | float) for value in plain)
    return tuple(sorted(plain)) if numbers else tuple(plain)


def _parts(expression: Expr) -> list[Expr]:
    if isinstance(expression, Constant):
        return []
    if not isinstance(expression, Call):
        return [expression]
    return [part for each in expression.args for part in _parts(each)]


def _plain(value: Any) -> Any:
    """Return a number as engines have it; None where they could have its neighbour."""
    if not isinstance(value, Fraction):
        return value
    if value.denominator == 1:
        return int(value)
    return float(value) if Fraction(float(value)) == value else None


def _value(of: Expr, row: dict[Expr, Any]) -> Any:
    if isinstance(of, Constant):
        return _number(of.value)
    if not isinstance(of, Call):
        return _number(row[of])
    if of.op == "case":
        for when, then in zip(of.args[::2], of.args[1::2], strict=False):
            if _value(when, row) is True:
                return _value(then, row)
        return _value(of.args[-1], row) if len(of.args) % 2 else None
    return _operation(of.op, [_value(each, row) for each in of.args])


def _number(value: Any) -> Any:
    return exact(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _operation(op: str, values: list[Any]) -> Any:
    match op:
        case "coalesce":
            return next((each for each in values if each is not None), None)
        case "is null":
            return values[0] is None
        case "and" | "or":
            decides = op == "or"
            return decides if decides in values else None if None in values else not decides
    if None in values:
        return None
    first = values[0]
    match op:
        case "in":
            return first in values[1:]
        case "not":
            return not first
        case "lower":
            return first.lower()
        case "upper":
            return first.upper()
        case "negative":
            return -first
        case "abs":
            return abs(first)
        case "clamp":
            return min(max(first, values[1]), values[2])
        case "like":
            return _like(first, values[1])
    return _two(op, first, values[1])


def _two(op: str, left: Any, right: Any) -> Any:
    match op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
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
    return left >= right


def _like(text: str, pattern: str) -> bool:
    """Match % and _, without regular expressions: some of their patterns take for ever."""
    reached = {0}
    for letter in pattern:
        if letter == "%":
            reached = set(range(min(reached), len(text) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(text) and letter in ("_", text[at])}
    return len(text) in reached
