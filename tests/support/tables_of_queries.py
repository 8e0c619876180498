"""Tables for the tests of engines: everything that a row can hold, at random."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from fractions import Fraction

import pyarrow as pa

from sfumato.queries.bounded import TableRef

WORDS = ("Straße", "a", "A", "É", "é%", "_x", "日本", "", "Z", "z", "I", "i", "İ", "o'b\"c")
NUMBERS = (float("nan"), float("inf"), -float("inf"), 1e-310, -0.0, 1e300, 5e-324, 0.3)
WHOLES = (2**63 - 1, -(2**63), 0)
BOUNDS = {"x": (Fraction(-100), Fraction(100)), "i": (Fraction(-40), Fraction(41, 2))}


def everything(
    seed: int, rows: int = 400, units: int = 40, *, text: bool = False, nulls: float = 0.08
) -> TableRef:
    """Return a table "t" of people "u" with columns of every kind; few rows are ordinary."""
    choice = random.Random(seed)

    def column(type_: pa.DataType, value) -> pa.Array:
        return pa.array([None if choice.random() < nulls else value() for _ in range(rows)], type_)

    def unit() -> int | str:
        number = choice.randrange(units)
        return f"p{number}é" if text else number + choice.choice((0, 0, 0, -(2**63), 2**40, 2**62))

    def moment() -> datetime:
        start = datetime(choice.choice((1, 1969, 2024, 9999)), choice.randint(1, 12), choice.randint(1, 28))
        return start + timedelta(microseconds=choice.randrange(86_400_000_000))

    place = pa.table(
        {
            "u": column(pa.string() if text else pa.int64(), unit),
            "x": column(pa.float64(), lambda: choice.choice((choice.gauss(0, 50), choice.choice(NUMBERS)))),
            "i": column(pa.int64(), lambda: choice.choice((choice.randint(-50, 50), choice.choice(WHOLES)))),
            "s": column(pa.string(), lambda: choice.choice(WORDS)),
            "b": column(pa.bool_(), lambda: choice.random() < 0.5),
            "d": column(pa.date32(), lambda: date(1, 1, 1) + timedelta(choice.choice((0, 3652058, 735000)))),
            "t": column(pa.timestamp("us"), moment),
        }
    )
    kinds = {"u": "text" if text else "integer", "x": "number", "i": "integer", "s": "text", "b": "boolean"}
    return TableRef("t", "u", place, kinds | {"d": "date", "t": "timestamp"}, BOUNDS)


def others(of: TableRef, seed: int) -> TableRef:
    """Return another table "o" of some of the same people, with whole numbers "w"."""
    choice = random.Random(seed)
    units = of.place["u"].to_pylist()
    who = pa.array([*choice.sample(units, len(units) // 3), None], of.place["u"].type)
    place = pa.table({"who": who, "w": pa.array([choice.randrange(5) for _ in who], pa.int32())})
    return TableRef("o", "who", place, {"w": "integer"}, {"w": (Fraction(0), Fraction(4))})
