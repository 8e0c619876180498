from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.column_policy import ColumnSection, Kind
from sfumato.core.errors import InvalidRequest
from sfumato.queries.domain import Domain, floor_of
from sfumato.queries.model import Binned, Call, Column, Constant, Expr, Part, Truncated
from sfumato.queries.tables import Table

KINDS: Mapping[str, Kind] = {
    "v": "integer",
    "x": "number",
    "y": "number",
    "free": "number",
    "day": "date",
    "at": "timestamp",
    "name": "text",
    "flag": "boolean",
}
COLUMNS: dict[str, dict[str, Any]] = {
    "x": {"bounds": (-2, 5)},
    "y": {"bounds": (0, 10), "step": 1},
    "day": {"bounds": (date(2026, 1, 30), date(2026, 2, 2))},
    "at": {"bounds": (date(2026, 1, 1), date(2026, 1, 1))} | {"bounds": (date(2026, 1, 1), date(2026, 1, 2))},
    "name": {"values": ("b", "A")},
}
TABLE = Table(
    name="t",
    version="t@1",
    unit="v",
    kinds=KINDS,
    columns={name: ColumnSection(**one) for name, one in COLUMNS.items()},
    groups=1,
    rows=1,
    datasets=(),
    populations=(),
)
DOMAIN = Domain({"t": TABLE})
X, Y, FREE = Column("x"), Column("y"), Column("free")


def test_ranges_are_of_the_expression_that_is_asked() -> None:
    assert DOMAIN.range_of(X) == (-2, 5)
    assert DOMAIN.range_of(Call("-", (X, Y))) == (-12, 5)
    assert DOMAIN.range_of(Call("*", (X, X))) == (-10, 25)
    assert DOMAIN.range_of(Call("abs", (X,))) == (0, 5)
    assert DOMAIN.range_of(Call("clamp", (FREE, Constant(1), Constant(3)))) == (1, 3)
    assert DOMAIN.range_of(Call("case", (Column("flag"), X, Constant(9)))) == (-2, 9)
    assert DOMAIN.range_of(Part("hour", Column("at"))) == (0, 23)


def test_what_has_no_bounds_cannot_be_summed() -> None:
    for expression in (
        FREE,
        Call("+", (X, FREE)),
        Call("clamp", (Call("*", (FREE, X)), Constant(0), Constant(1))),
    ):
        with pytest.raises(InvalidRequest, match="no bounds"):
            DOMAIN.range_of(expression)
    with pytest.raises(InvalidRequest, match="no bounds"):
        DOMAIN.check(Call(">", (Call("+", (FREE, X)), Constant(1))))
    DOMAIN.check(Call(">", (FREE, Constant(1))))  # no arithmetic: nothing can overflow


def test_numbers_that_grow_too_large_are_refused() -> None:
    product: Expr = Call("clamp", (FREE, Constant(0), Constant(10**20)))
    with pytest.raises(InvalidRequest, match="too large"):
        DOMAIN.check(Call("*", (product, product)))


numbers = st.one_of(st.just(X), st.just(Y), st.integers(-9, 9).map(Constant))
expressions = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["+", "-", "*"]), inner, inner).map(lambda t: Call(t[0], (t[1], t[2]))),
        st.tuples(st.sampled_from(["negative", "abs"]), inner).map(lambda t: Call(t[0], (t[1],))),
        inner.map(lambda one: Call("clamp", (one, Constant(-3), Constant(4)))),
    ),
    max_leaves=8,
)


def value_of(expression: Expr, x: Fraction, y: Fraction) -> Fraction:
    match expression:
        case Column(name="x"):
            return x
        case Column():
            return y
        case Constant(value=value):
            return Fraction(value)  # type: ignore[arg-type]
        case Call(op=op, args=args):
            found = [value_of(one, x, y) for one in args]
            match op:
                case "+":
                    return found[0] + found[1]
                case "-":
                    return found[0] - found[1]
                case "*":
                    return found[0] * found[1]
                case "negative":
                    return -found[0]
                case "abs":
                    return abs(found[0])
                case _:
                    return min(max(found[0], found[1]), found[2])
    raise AssertionError(expression)


@given(expressions, st.fractions(-2, 5), st.fractions(0, 10))
def test_no_value_lies_outside_its_range(expression: Expr, x: Fraction, y: Fraction) -> None:
    low, high = DOMAIN.range_of(expression)
    assert low <= value_of(expression, x, y) <= high


def test_public_values() -> None:
    assert DOMAIN.values_of(Column("name")) == ("b", "A")
    assert DOMAIN.values_of(Call("lower", (Column("name"),))) == ("b", "a")
    assert DOMAIN.values_of(Column("flag")) == (False, True)
    assert DOMAIN.values_of(Call(">", (FREE, Constant(1)))) == (False, True)
    assert DOMAIN.values_of(Part("weekday", Column("at"))) == tuple(range(1, 8))
    assert DOMAIN.values_of(Part("month", Column("day"))) == tuple(range(1, 13))
    assert DOMAIN.values_of(Part("year", Column("day"))) == (2026,)
    assert DOMAIN.values_of(Binned(X, Fraction(0), Fraction(1), 3)) == (0, 1, 2)
    assert DOMAIN.values_of(FREE) is None
    assert DOMAIN.values_of(Call("coalesce", (Column("name"), Constant("?")))) == ("b", "A", "?")


def test_units_of_time_come_from_the_bounds() -> None:
    days = DOMAIN.values_of(Truncated("day", Column("day")))
    assert days == (date(2026, 1, 30), date(2026, 1, 31), date(2026, 2, 1), date(2026, 2, 2))
    assert DOMAIN.values_of(Truncated("month", Column("day"))) == (date(2026, 1, 1), date(2026, 2, 1))
    hours = DOMAIN.values_of(Truncated("hour", Column("at")))
    assert hours is not None
    assert len(hours) == 48
    assert hours[-1] == datetime(2026, 1, 2, 23)
    with pytest.raises(InvalidRequest, match="date has no hour"):
        DOMAIN.values_of(Truncated("hour", Column("day")))


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)))
def test_a_unit_of_time_begins_at_or_before(at: datetime) -> None:
    for unit in ("year", "quarter", "month", "week", "day", "hour", "minute"):
        start = floor_of(at, unit)  # type: ignore[arg-type]
        assert start <= at
        assert floor_of(start, unit) == start  # type: ignore[arg-type]
