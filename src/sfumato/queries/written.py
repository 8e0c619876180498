"""What is written in Python: SQL text and expressions, figures and groups, to parts of a question."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sfumato.core.errors import InvalidRequest
from sfumato.queries import kinds
from sfumato.queries.kinds import Typed
from sfumato.queries.model import Aggregate, AggregateKind, Constant, Expr, Value
from sfumato.queries.pieces import both, counted, valued
from sfumato.queries.show import show
from sfumato.queries.sql import needed
from sfumato.queries.sql.scope import Scope

Written = str | Expr
Number = float | Fraction


@dataclass(frozen=True, slots=True)
class Group:
    """What was said to group by."""

    of: Written
    name: str = ""
    values: tuple[Value, ...] | None = None
    bins: tuple[int, tuple[Number, Number] | None] | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """What was said to ask for."""

    kind: AggregateKind
    of: Written | None = None
    name: str = ""
    where: Written | None = None
    bounds: tuple[Number, Number] | None = None
    quantile: Number | None = None


def exactly(value: Any, what: str) -> Fraction:
    """Return a number exactly, as its decimal text says it."""
    if isinstance(value, Fraction):
        return value
    if isinstance(value, str):
        try:
            value = float(value) if "/" not in value else Fraction(value)
        except (ValueError, ZeroDivisionError):
            raise InvalidRequest(f"{what} {value[:40]!r} is no number; give one, as in 0.5") from None
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        raise InvalidRequest(f"{what} {value!r} is no number; give one, as in 0.5")
    if value != value or value in (float("inf"), float("-inf")):
        raise InvalidRequest(f"{what} {value!r} is not finite; give a number such as 0.5")
    return kinds.exact(value)


def typed(scope: Scope, written: Written) -> Typed:
    """Read SQL text, or an expression of the model."""
    if isinstance(written, str):
        needed()
        from sfumato.queries.sql.expressions import Reader
        from sfumato.queries.sql.text import read_expression

        text, tree = read_expression(written)
        return Reader(text, scope).expression(tree)
    return kinds.typed(written, lambda column: scope.column(column.name, column.table))


def condition(scope: Scope, written: Written) -> Expr:
    """Return a condition.

    Raises:
        InvalidRequest: where it is none.
    """
    found = typed(scope, written)
    if found.kind != "boolean":
        raise InvalidRequest(f"{kinds.told(found)}, and no condition; compare it, as in speed > 50")
    return found.of


def figure(scope: Scope, said: Figure) -> Aggregate:
    """Return a figure, without a name.

    Raises:
        InvalidRequest: where it is none.
    """
    where = None if said.where is None else condition(scope, said.where)
    if said.kind == "count" and said.of is not None:
        return both(counted(typed(scope, said.of)), where)
    if said.of is None:
        return Aggregate(said.kind, "", where=where)
    quantile = None if said.quantile is None else exactly(said.quantile, "the quantile")
    if quantile is not None and not 0 <= quantile <= 1:
        raise InvalidRequest(f"{said.quantile!r} is no quantile; give a number from 0 to 1")
    bounds = None if said.bounds is None else bounds_of(said.bounds)
    return both(valued(said.kind, typed(scope, said.of), quantile, bounds), where)


def bounds_of(bounds: tuple[Number, Number]) -> tuple[Fraction, Fraction]:
    """Return bounds exactly.

    Raises:
        InvalidRequest: where it is none.
    """
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise InvalidRequest(f"bounds={bounds!r} are no bounds; give two numbers, as in bounds=(0, 100)")
    low, high = (exactly(each, "the bound") for each in bounds)
    if low > high:
        raise InvalidRequest(f"bounds from {low} to {high} hold no number; give the lower bound first")
    return low, high


def grouped(scope: Scope, group: Group) -> Typed:
    """Return what is grouped by.

    Raises:
        InvalidRequest: where it is none.
    """
    if isinstance(group.of, str) and scope.unit(group.of, ""):
        raise InvalidRequest(
            f"{group.of} is the privacy unit: that is one group per person; group by what they share"
        )
    found = typed(scope, group.of)
    if isinstance(found.of, Constant):
        raise InvalidRequest(f"{show(found.of)} is the same for everybody; group by a column")
    if group.bins is None:
        return found
    count, bounds = group.bins
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 10_000:
        raise InvalidRequest(f"bins={count!r} is no number of bins; give a whole number from 1 to 10000")
    limits = scope.bounds(found) if bounds is None else bounds_of(bounds)
    if limits is None or limits[0] == limits[1]:
        raise InvalidRequest(f"bins of {show(found.of)} need two different bounds; write bounds=(0, 100)")
    low, high = limits
    return kinds.binned(found, low, (high - low) / count, count)
