"""What an analyst may make an engine do: fail on one row, overflow, or read text as SQL. None of it works."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ibis", reason="needs ibis: pip install sfumato[queries]")
pytest.importorskip("duckdb", reason="needs DuckDB: pip install sfumato[queries]")
import pyarrow as pa
import query_worlds as worlds
from query_bounds import bounded

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.queries.bounded import Bounded, Measure, TableRef
from sfumato.queries.engines import duckdb
from sfumato.queries.kinds import TableShape
from sfumato.queries.model import Aggregate, Binned, Call, Column, Constant, Key, Query, Terms, walk
from sfumato.queries.sql import parse


def test_nothing_overflows() -> None:
    far = [2**63 - 1, -(2**63), 2**62, 0, None, -3]
    rows = [
        {"who": who % 50, "hour": far[who % 6], "speed": [math.inf, -math.inf, math.nan, 1e308][who % 4]}
        for who in range(900)
    ]
    hour, speed = Column("hour"), Column("speed")
    query = Query(
        table="flow",
        keys=(Key("k", hour, tuple(range(-5, 6))),),
        aggregates=(
            Aggregate("sum", "a", of=hour, bounds=(Fraction(-(2**50)), Fraction(2**50))),
            Aggregate("variance", "b", of=speed),
            Aggregate("sum", "c", of=Call("*", (speed, speed))),
            Aggregate("count", "d", where=Call(">", (Call("abs", (speed,)), Constant(1e18)))),
        ),
    )
    plan = worlds.planned(query, Terms(epsilon=Fraction(1), groups=11, rows=20, share="filter"))
    asked = worlds.asked(plan, {"flow": worlds.arrow("flow", rows)})
    engine = duckdb.build(threads=1)
    ours, theirs = engine.bounded(asked), bounded(asked)
    engine.close()
    for one, other in zip(ours.values, theirs.values, strict=True):
        np.testing.assert_array_equal(one, other)


def far(large: int) -> Call:
    return Call("case", (Column("toll"), Constant(large), Constant(1)))


TRAPS = {
    "product": Query(
        table="flow", aggregates=(Aggregate("sum", "n", of=Call("*", (far(100_000), far(100_000)))),)
    ),
    "sum": Query(
        table="flow",
        aggregates=(
            Aggregate(
                "count", "n", where=Call(">", (Call("+", (far(2**31 - 1), far(2**31 - 1))), Constant(5)))
            ),
        ),
    ),
    "square": Query(table="flow", aggregates=(Aggregate("variance", "n", of=far(99_999)),)),
    "booleans": Query(
        table="flow",
        aggregates=(Aggregate("count", "n"),),
        keys=(Key("a", Column("toll")), Key("b", Column("toll")), Key("c", Column("toll"))),
    ),
    "cases": Query(
        table="flow", aggregates=(Aggregate("count", "n"),), keys=(Key("a", far(900), tuple(range(1000))),)
    ),
}


@pytest.mark.parametrize("trap", TRAPS.values(), ids=list(TRAPS))
def test_no_row_makes_an_engine_fail(trap: Query) -> None:
    """A failure that one row decides is an exact answer. Engines take a bare 3 for a number of 32 bits."""
    plan = worlds.planned(trap, Terms(epsilon=Fraction(1), groups=2, rows=1, share="filter"))
    rows = [{"who": who, "toll": True} for who in range(20)]
    engine = duckdb.build(threads=1)
    for salt in (bytes(16), b"another salt yet"):
        asked = worlds.asked(plan, {"flow": worlds.arrow("flow", rows)}, salt)
        for one, other in zip(engine.bounded(asked).values, bounded(asked).values, strict=True):
            np.testing.assert_array_equal(one, other)
    engine.close()


THIN = [
    (-(10**25), Fraction(1, 10**32)),
    (10**33, Fraction(1, 3 * 10**22)),
    (7 * 10**30, Fraction(1, 7)),
    (0, Fraction(1, 10**9)),
]


@pytest.mark.parametrize(("low", "width"), THIN)
def test_no_row_falls_out_of_thin_bins(low: int, width: Fraction) -> None:
    """What is lost to rounding far from 0 is many thin bins: more than 64 bits can count."""
    rows = pa.table({"who": range(6), "x": [math.inf, -math.inf, float(low), 0.0, math.nan, None]})
    there = Call(">=", (Binned(Column("x"), low + Fraction(1, 3), width, 10), Constant(0)))
    asked = Bounded(
        tables=(TableRef("t", "who", rows, {"who": "integer", "x": "number"}, {}),),
        joins=(),
        where=there,
        keys=(),
        groups=1,
        rows=1,
        measures=(Measure("rows"),),
        salt=bytes(16),
    )
    engine = duckdb.build(threads=1)
    assert engine.bounded(asked).values[0].tolist() == [4]
    engine.close()


# Text that is SQL


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_question_of_the_model_or_is_refused(text: str) -> None:
    shapes = {
        "visits": TableShape(
            "person",
            {"person": "integer", "place": "text", "cost": "number"},
            {"cost": (Fraction(0), Fraction(100))},
        )
    }
    for sql in (
        text,
        f"SELECT COUNT(*) AS n FROM visits WHERE place = '{text}'",
        f'SELECT COUNT(*) AS "{text}" FROM visits',
    ):
        try:
            query = parse(sql, shapes)
        except (InvalidRequest, UnknownName):
            continue
        assert query.table == "visits"
        named = [one.name for one in walk(query.where) if isinstance(one, Column)]
        assert set(named) <= {"place", "cost"}


def test_a_constant_stays_a_constant_in_the_engine() -> None:
    odd = [
        "A' OR '1'='1",
        "'; DROP TABLE t0; --",
        'x" OR 1=1 --',
        "\\' OR 1=1",
        "A%",
        "é\u0000"[:1],
        "A",
        "\n\t;",
    ]
    rows = [{"who": who, "place": place} for who, place in enumerate(odd)]
    query = Query(
        table="flow", aggregates=(Aggregate("count", "n"),), keys=(Key("place", Column("place"), tuple(odd)),)
    )
    plan = worlds.planned(query, Terms(epsilon=Fraction(1), groups=1, rows=1, share="filter"))
    engine = duckdb.build(threads=1)
    assert engine.bounded(worlds.asked(plan, {"flow": worlds.arrow("flow", rows)})).values[0].tolist() == [
        1
    ] * len(odd)
    engine.close()
