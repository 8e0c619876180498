"""What both fronts make questions of: figures, keys, and what they are called where nothing was said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from sfumato.core.errors import InvalidRequest
from sfumato.queries import kinds
from sfumato.queries.kinds import Typed
from sfumato.queries.model import (
    Aggregate,
    AggregateKind,
    Binned,
    Call,
    Column,
    Constant,
    Expr,
    Part,
    Truncated,
    Value,
    walk,
)
from sfumato.queries.show import number, show


def counted(found: Typed) -> Aggregate:
    """Return the count of rows where something is not null, without a name.

    >>> counted(kinds.constant(1))
    Aggregate(kind='count', name='', of=None, where=None, quantile=None, bounds=None)
    """
    match found.of:
        case Constant():
            return Aggregate("count", "")
        case Call(op="case", args=(when, Constant())):
            return Aggregate("count", "", where=when)
    return Aggregate("count", "", of=found.of)


def valued(
    kind: AggregateKind,
    found: Typed,
    quantile: Fraction | None = None,
    bounds: tuple[Fraction, Fraction] | None = None,
) -> Aggregate:
    """Return a figure of numbers, without a name; the outer CLAMP gives its bounds; sums of ones are counts.

    Raises:
        InvalidRequest: where they are no numbers.
    """
    if kind == "sum" and bounds is None and (when := _ones(found)) is not None:
        return Aggregate("count", "", where=None if when == Constant(True) else when)
    if found.kind not in kinds.NUMERIC:
        way = (
            "count with COUNT(*) FILTER (WHERE ...)"
            if found.kind == "boolean"
            else "count it, or group by it"
        )
        raise InvalidRequest(f"{kind} is of numbers; {kinds.told(found)}; {way}")
    of = found.of
    if isinstance(of, Call) and of.op == "clamp" and bounds is None:
        low, high = (kinds.bound_of(Typed(each, "number")) for each in of.args[1:])
        of, bounds = of.args[0], (low, high)
    if bounds is not None and bounds[0] > bounds[1]:
        raise InvalidRequest(
            f"bounds from {number(bounds[0])} to {number(bounds[1])} hold no number; "
            "give the lower bound first"
        )
    if isinstance(of, Constant):
        raise InvalidRequest(f"{show(of)} is the same for everybody; ask for COUNT(*)")
    return Aggregate(kind, "", of=of, quantile=quantile, bounds=bounds)


def _ones(found: Typed) -> Expr | None:
    """Return when a summand is one, where it is one or nothing."""
    if found.kind == "boolean":
        return found.of
    match found.of:
        case Constant(value=1):
            return Constant(True)
        case Call(op="case", args=(when, Constant(value=1))):
            return when
        case Call(op="case", args=(when, Constant(value=1), Constant(value=0))):
            return when
    return None


def both(figure: Aggregate, where: Expr | None) -> Aggregate:
    """Return a figure of rows that fulfil one more condition."""
    if where is None:
        return figure
    if figure.where is not None:
        where = kinds.call("and", Typed(figure.where, "boolean"), Typed(where, "boolean")).of
    return replace(figure, where=where)


def default_name(asked: Aggregate) -> str:
    """Return what a figure is called where nothing was said."""
    kind = {"quantile": "median" if asked.quantile == Fraction(1, 2) else "quantile"}.get(
        asked.kind, asked.kind
    )
    return f"{kind}_{asked.of.name}" if isinstance(asked.of, Column) else kind


def among(of: Typed, values: Iterable[Typed]) -> tuple[Value, ...]:
    """Return the values that a key may have, as constants of its kind.

    Raises:
        InvalidRequest: where one is none, is of another kind, or comes twice.
    """
    same_kind, _ = kinds.unified((of, *values), "compared")
    found: list[Value] = []
    for each in same_kind[1:]:
        if not isinstance(each.of, Constant):
            raise InvalidRequest(f"groups are named by constants; {show(each.of)} is none")
        if each.of.value in found:
            raise InvalidRequest(f"the group {show(each.of)} is named twice; name every one once")
        found.append(each.of.value)
    if not found:
        raise InvalidRequest(f"{show(of.of)} has no groups; name at least one")
    return tuple(found)


def values_of(of: Typed, values: Iterable[Value]) -> tuple[Value, ...]:
    """Return the values that a key may have.

    Raises:
        InvalidRequest: as for `among`.
    """
    return among(of, [kinds.constant(each) for each in values])


def free(name: str, default: str, taken: set[str]) -> str:
    """Return a name for a column of the answer, and take it; names differ by more than capitals.

    >>> free("", "count", {"count"})
    'count_2'

    Raises:
        InvalidRequest: where the name that was said is taken, too long, or not printable.
    """
    if name and name.lower() in taken:
        raise InvalidRequest(f"two columns are called {name}; give one another name")
    if name and (len(name) > 128 or not name.isprintable()):
        raise InvalidRequest("a name has at most 128 printable letters; choose another one")
    found, count = name or default, 1
    while found.lower() in taken:
        count += 1
        found = f"{default}_{count}"
    taken.add(found.lower())
    return found


def key_name(of: Expr) -> str:
    """Return what a key is called where nothing was said."""
    match of:
        case Column(name=name):
            return name
        case Part(part=part):
            return part
        case Truncated(unit=unit):
            return unit
        case Binned(of=Column(name=name)):
            return f"{name}_bin"
    inside = [each for each in walk(of) if not isinstance(each, Constant)]
    parts = {each.part for each in inside if isinstance(each, Part)}
    if parts:
        return parts.pop() if len(parts) == 1 else "key"
    names = {each.name for each in inside if isinstance(each, Column)}
    bins = any(isinstance(each, Binned) for each in inside)
    return names.pop() + ("_bin" if bins else "") if len(names) == 1 else "key"
