"""Random expressions of extreme constants over extreme rows: whether an engine fails never hangs on a row."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import date, datetime
from fractions import Fraction
from typing import Any

import pytest

pytest.importorskip("ibis", reason="needs ibis: pip install sfumato[queries]")
pytest.importorskip("duckdb", reason="needs DuckDB: pip install sfumato[queries]")
import pyarrow as pa

from sfumato.core.errors import InvalidRequest, SfumatoError
from sfumato.queries.bounded import Bounded, Measure, TableRef
from sfumato.queries.engines import duckdb
from sfumato.queries.measures import needs
from sfumato.queries.model import Aggregate, Binned, Call, Column, Constant, Expr, Key, Part, Truncated

NUMBERS = [0, 1, -1, 7, 100_000, 2**31 - 1, -(2**31), 2**40, 2**61, -(2**62), 0.0, -0.0, 0.1]
NUMBERS += [1e-150, 1e-200, 5e-324, 1e20, -1e75, 1e149, 1.7e308, 3.5]
ROWS = pa.table(
    {
        "u": range(15),
        "x": [
            math.inf,
            -math.inf,
            math.nan,
            0.0,
            -0.0,
            1e308,
            -1e308,
            5e-324,
            1e-160,
            1.5,
            -2.5,
            9.3e18,
            -9.3e18,
            2.0**53,
            None,
        ],
        "y": [2**63 - 1, -(2**63), 0, 1, -1, 2**31, 2**62, None, 7, 5, 3, 2, 9, 11, 12],
        "s": [
            "",
            "a",
            "A%",
            "\\",
            "'",
            "é",
            "ß",
            "İ",
            "ǅ",
            "\n",
            "x" * 200,
            None,
            "2026-01-01",
            "NaN",
            "\U0001f600",
        ],
        "d": [date(1, 1, 1), date(9999, 12, 31), date(1970, 1, 1), date(2026, 2, 28), None] * 3,
        "t": [
            datetime(1, 1, 1),
            datetime(9999, 12, 31, 23, 59, 59, 999999),
            datetime(1969, 12, 31),
            datetime(2026, 3, 29, 2, 30),
            None,
        ]
        * 3,
        "b": [True, False, None] * 5,
    }
)
KINDS: Any = {
    "u": "integer",
    "x": "number",
    "y": "integer",
    "s": "text",
    "d": "date",
    "t": "timestamp",
    "b": "boolean",
}
CLAMPS = {"x": (Fraction(-(10**20)), Fraction(10**20)), "y": (Fraction(-(2**40)), Fraction(2**40))}
UNITS: Any = ["year", "quarter", "month", "week", "day", "hour", "minute"]


class _Maker:
    """Makes expressions."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def constant(self) -> Constant:
        return Constant(self.rng.choice(NUMBERS))

    def moment(self) -> Expr:
        column = Column(self.rng.choice("dt"))
        return self.rng.choice([column, Truncated(self.rng.choice(UNITS), column)])

    def number(self, depth: int = 2) -> Expr:
        rng = self.rng
        if not depth or rng.random() < 0.4:
            part: Any = rng.choice([*UNITS, "weekday", "yearday"])
            return rng.choice([Column("x"), Column("y"), self.constant(), Part(part, self.moment())])
        inner = self.number(depth - 1)
        match rng.choice(["bin", "clamp", "case", "coalesce", "negative", "abs", "+", "-", "*"]):
            case "bin":
                width = Fraction(rng.choice([1, 10**10, 10**40]), rng.choice([1, 3, 10**20]))
                return Binned(inner, Fraction(rng.choice(NUMBERS)), width, rng.choice([1, 2, 1000, 2**31]))
            case "clamp":
                low, high = sorted([rng.choice(NUMBERS), rng.choice(NUMBERS)])
                return Call("clamp", (inner, Constant(low), Constant(high)))
            case "case":
                return Call("case", (self.condition(depth - 1), inner, self.number(depth - 1)))
            case ("negative" | "abs") as op:
                return Call(op, (inner,))
            case op:
                return Call(op, (inner, self.number(depth - 1)))

    def condition(self, depth: int = 1) -> Expr:
        rng = self.rng
        text = rng.choice([Column("s"), Call("lower", (Column("s"),)), Call("upper", (Column("s"),))])
        simple = [
            Call("like", (text, Constant(rng.choice(["%", "_", "a%", "%_%", "%'%"])))),
            Call("is null", (self.number(0),)),
            Call("in", (self.number(0), self.constant(), self.constant())),
            Call(rng.choice(["=", "<", ">="]), (self.moment(), Constant(datetime(2026, 1, 1)))),
            Column("b"),
            Call(rng.choice(["=", "<", ">"]), (self.number(depth), self.number(depth))),
        ]
        if depth and rng.random() < 0.3:
            return Call(rng.choice(["and", "or"]), (rng.choice(simple), rng.choice(simple)))
        return rng.choice(simple)

    def measures(self) -> tuple[Measure, ...]:
        rng = self.rng
        kind = rng.choice(["count", "units", "sum", "mean", "variance", "quantile"])
        low = Fraction(rng.choice(NUMBERS))
        bounds = (low, low + Fraction(rng.choice([1, 100, 10**18]), rng.choice([1, 3, 10**12])))
        of = None if kind == "units" else self.number()
        where = self.condition() if rng.random() < 0.4 else None
        return needs(
            Aggregate(kind, "a", of=of, where=where, quantile=Fraction(1, 2)),
            bounds,
            whole=rng.random() < 0.3,
        )

    def key(self, name: str) -> Key:
        rng = self.rng
        values = rng.choice([(0, 1, 2), (-5, -4, -3), (2**61, 0), (7, 5, 99)])
        return rng.choice(
            [
                Key(name, self.number(), values),
                Key(name, self.condition(), (True, False)),
                Key(name, Column("s"), ("a", "", "é")),
            ]
        )

    def question(self) -> Bounded:
        rng = self.rng
        return Bounded(
            tables=(TableRef("t", "u", ROWS, KINDS, CLAMPS if rng.random() < 0.7 else {}),),
            joins=(),
            where=self.condition() if rng.random() < 0.5 else None,
            keys=tuple(self.key(f"k{place}") for place in range(rng.choice([0, 1, 2]))),
            groups=rng.choice([1, 2, 3]),
            rows=rng.choice([1, 3, 10**6]),
            measures=self.measures(),
            salt=rng.randbytes(16),
        )


def ask(question: Bounded) -> str:
    """Return how an engine ends with a question."""
    engine = duckdb.build(threads=1)
    try:
        engine.bounded(question)
    except InvalidRequest:
        return "refused"
    except Exception as error:
        return f"failed: {error}"
    finally:
        engine.close()
    return "answered"


def run(count: int, seed: int) -> None:
    make, answered = _Maker(random.Random(seed)), 0
    while answered < count:
        try:
            question = make.question()
        except SfumatoError:
            continue
        ended = ask(question)
        answered += ended == "answered"
        assert not ended.startswith("failed"), (ended, question)


def test_no_row_makes_a_random_question_fail() -> None:
    run(6, 1)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_no_row_makes_hundreds_of_random_questions_fail() -> None:
    run(400, 2)


def test_a_row_that_makes_an_engine_fail_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: with clamps after the cast, rows far out fail where no rows do not."""
    from sfumato.queries.engines import _expressions

    monkeypatch.setattr(_expressions, "_floored", lambda value, low, high: value.floor().cast("int64"))
    far = Binned(Column("x"), Fraction(10**33) + Fraction(1, 3), Fraction(1, 3 * 10**22), 10)
    question = replace(
        _Maker(random.Random(1)).question(),
        tables=(TableRef("t", "u", ROWS, KINDS, {}),),
        where=Call(">=", (far, Constant(0))),
        keys=(),
        measures=(Measure("rows"),),
    )
    nobody = replace(question, tables=(replace(question.tables[0], place=ROWS.slice(0, 0)),))
    assert ask(question).startswith("failed")
    assert ask(nobody) == "answered"
