"""What is asked, as plain frozen data: the same for SQL, Python and every engine.

An expression is total: no value that a row can hold makes it fail, because an error that depends on the data
would be an answer without noise. So there is no division and no cast, and arithmetic is on clamped columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from typing import Literal

from sfumato.core.errors import InvalidRequest

Value = bool | int | float | str | date | datetime
DateUnit = Literal["year", "quarter", "month", "week", "day", "hour", "minute"]
DatePart = Literal["year", "quarter", "month", "week", "day", "hour", "minute", "weekday", "yearday"]

#: op -> how many arguments it takes (least, most). Booleans, comparisons, numbers, text, choices.
OPS: dict[str, tuple[int, int]] = {
    "and": (1, 1000),
    "or": (1, 1000),
    "not": (1, 1),
    "=": (2, 2),
    "<>": (2, 2),
    "<": (2, 2),
    "<=": (2, 2),
    ">": (2, 2),
    ">=": (2, 2),
    "in": (2, 10_001),
    "is null": (1, 1),
    "like": (2, 2),
    "+": (2, 2),
    "-": (2, 2),
    "*": (2, 2),
    "negative": (1, 1),
    "abs": (1, 1),
    "clamp": (3, 3),
    "lower": (1, 1),
    "upper": (1, 1),
    "coalesce": (2, 100),
    "case": (2, 1001),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `table` is the alias of its table, empty where the query has one table."""

    name: str
    table: str = ""


@dataclass(frozen=True, slots=True)
class Constant:
    """A public value."""

    value: Value


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a date or time, as a whole number: hour 0..23, weekday 1..7 (Monday is 1), month 1..12."""

    part: DatePart
    of: Expr


@dataclass(frozen=True, slots=True)
class Truncated:
    """A date or time cut to the beginning of its unit (weeks begin on Monday)."""

    unit: DateUnit
    of: Expr


@dataclass(frozen=True, slots=True)
class Binned:
    """The bin of a number, 0..count-1, of one width from `low`; what lies outside goes to the end bins."""

    of: Expr
    low: Fraction
    width: Fraction
    count: int


@dataclass(frozen=True, slots=True)
class Call:
    """An operation of `OPS` on expressions. `case` takes when, then, when, then, ..., and an else or none."""

    op: str
    args: tuple[Expr, ...]

    def __post_init__(self) -> None:
        least, most = OPS.get(self.op, (1, 0))
        if not least <= len(self.args) <= most:
            raise InvalidRequest(f"{self.op!r} is no operation on {len(self.args)} arguments")


Expr = Column | Constant | Part | Truncated | Binned | Call


@dataclass(frozen=True, slots=True)
class Key:
    """One thing to group by.

    Args:
        values: its public values; None: as the policy declares them, or as the expression itself has them
            (hours are 0..23); where neither knows any, they are chosen privately, if that was asked for.
    """

    name: str
    of: Expr
    values: tuple[Value, ...] | None = None


AggregateKind = Literal["count", "units", "sum", "mean", "variance", "stddev", "quantile"]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One figure per group.

    Args:
        kind: count of rows (of those whose `of` is not null, if given), number of different privacy units,
            sum, mean, variance (of the population, not n - 1), its root, or a quantile.
        name: of the column in the answer.
        of: what is summed; None for `units` and a plain `count`.
        where: only rows for which it is true.
        quantile: in 0..1, for `quantile`.
        bounds: values are clamped into them; None: by the declared bounds of the columns.
    """

    kind: AggregateKind
    name: str
    of: Expr | None = None
    where: Expr | None = None
    quantile: Fraction | None = None
    bounds: tuple[Fraction, Fraction] | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """Another table of the same people, joined on the privacy unit, which needs no condition."""

    table: str
    alias: str
    kind: Literal["inner", "left"] = "inner"


@dataclass(frozen=True, slots=True)
class Order:
    """What the answer is sorted by, after the noise."""

    by: str
    descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question, without what it may cost.

    Args:
        table: dataset, as in "flow" or "flow@3"; alias: as columns call it.
        where: rows that count.
        rollup: also the totals over the last keys, one by one, to the grand total.
        having: after the noise: (name of a figure, one of < <= > >= = <>, number).
        order, limit: after the noise, too.
    """

    table: str
    aggregates: tuple[Aggregate, ...]
    alias: str = ""
    joins: tuple[Join, ...] = ()
    where: Expr | None = None
    keys: tuple[Key, ...] = ()
    rollup: bool = False
    having: tuple[tuple[str, str, float], ...] = ()
    order: tuple[Order, ...] = ()
    limit: int | None = None


Mechanism = Literal["auto", "laplace", "gaussian"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a statement may cost, and how it is bounded and finished.

    Args:
        epsilon: for the whole statement; or `target_error`, which asks for the least epsilon that reaches it.
        target_error: half the width of the 95 % interval of the figure that is worst off, by noise.
        delta: that (epsilon, delta) is told at, for Gaussian noise and private keys; None: the share's.
        mechanism: which noise; "auto": the one with the smaller error.
        groups: how many groups one privacy unit may count in; rows: how many of its rows in each. None: as
            the table declares.
        private_keys: choose groups privately where no public values are known.
        non_negative, integers: finish counts so. consistent: make totals of `rollup` add up.
        purpose, population, share: who allows and who pays; empty: the only one there is.
    """

    epsilon: Fraction | None = None
    target_error: float | None = None
    delta: Fraction | None = None
    mechanism: Mechanism = "auto"
    groups: int | None = None
    rows: int | None = None
    private_keys: bool = False
    non_negative: bool = False
    integers: bool = True
    consistent: bool = True
    purpose: str = ""
    population: str = ""
    share: str = ""


def walk(expression: Expr | None) -> Iterator[Expr]:
    """Yield an expression and all inside it."""
    if expression is None:
        return
    yield expression
    match expression:
        case Part(of=inner) | Truncated(of=inner) | Binned(of=inner):
            yield from walk(inner)
        case Call(args=args):
            for inner in args:
                yield from walk(inner)
        case _:
            return
