"""Expressions: their text comes back, and means the same to a database as to the oracle."""

import math
import random
import sys
from datetime import date, datetime
from fractions import Fraction
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import exact
import questions

from sfumato.core.errors import InvalidRequest
from sfumato.queries import kinds
from sfumato.queries.kinds import Typed
from sfumato.queries.model import (
    Aggregate,
    Binned,
    Call,
    Column,
    Constant,
    Join,
    Key,
    Order,
    Part,
    Query,
    Truncated,
)
from sfumato.queries.show import number, show
from sfumato.queries.sql import parse, render

pytest.importorskip("sqlglot", reason="needs sqlglot: pip install 'sfumato[queries]'")

FLOW = questions.SHAPES["flow"]


class Random:
    """Expressions by chance, of a kind, over the columns of `flow`."""

    def __init__(self, seed):
        self.chance = random.Random(seed)

    def of(self, kind, depth=3):
        makers = {
            "boolean": self.condition,
            "integer": self.integer,
            "number": self.number,
            "text": self.text,
            "timestamp": self.moment,
        }
        return makers[kind](depth)

    def one(self, *choices):
        return self.chance.choice(choices)()

    def condition(self, depth):
        if depth == 0:
            return self.one(lambda: Column("toll"), lambda: Constant(self.chance.random() < 0.5))
        below = depth - 1
        kind = self.chance.choice(["integer", "number", "text", "timestamp"])
        op = self.chance.choice(["=", "<>", "<", "<=", ">", ">="])
        many = self.chance.randint(2, 3)
        return self.one(
            lambda: Call(op, (self.of(kind, below), self.of(kind, below))),
            lambda: Call(
                self.chance.choice(["and", "or"]), tuple(self.condition(below) for _ in range(many))
            ),
            lambda: Call("not", (self.condition(below),)),
            lambda: Call("is null", (self.of(kind, below),)),
            lambda: Call("in", (self.of(kind, below), *(self.constant(kind) for _ in range(many)))),
            lambda: Call(
                "like", (self.text(below), Constant(self.chance.choice(["%a%", "B%", "_us", "c_r%"])))
            ),
        )

    def constant(self, kind):
        value = {
            "integer": lambda: self.chance.randint(-30, 30),
            "number": lambda: round(self.chance.uniform(-60, 130), 1),
            "text": lambda: self.chance.choice(["car", "bus", "Bridge", "it's", ""]),
            "timestamp": lambda: datetime(2026, self.chance.randint(1, 3), 5, self.chance.randint(0, 23)),
        }[kind]()
        return Constant(value)

    def case(self, kind, depth):
        args = [self.condition(depth), self.of(kind, depth)] * self.chance.randint(1, 2)
        return Call("case", tuple([*args, self.of(kind, depth)][: self.chance.choice([None, -1])]))

    def integer(self, depth):
        if depth == 0:
            return self.one(lambda: Column("hour"), lambda: self.constant("integer"))
        below = depth - 1
        parts = ["year", "quarter", "month", "week", "day", "hour", "minute", "weekday", "yearday"]
        width = self.chance.choice([Fraction(10), Fraction(1, 4), Fraction(5, 2)])
        return self.one(
            lambda: Part(self.chance.choice(parts), self.moment(below)),
            lambda: Binned(self.number(below), Fraction(-5), width, self.chance.randint(1, 9)),
            lambda: Call(self.chance.choice("+-*"), (self.integer(below), self.integer(below))),
            lambda: Call("abs", (self.integer(below),)),
            lambda: Call("negative", (self.integer(below),)),
            lambda: Call("clamp", (self.integer(below), Constant(-3), Constant(20))),
            lambda: self.case("integer", below),
        )

    def number(self, depth):
        if depth == 0:
            return self.one(lambda: Column("speed"), lambda: self.constant("number"))
        below = depth - 1
        kind = self.chance.choice(["integer", "number"])
        return self.one(
            lambda: Call(self.chance.choice("+-*"), (self.of(kind, below), self.number(below))),
            lambda: Call("abs", (self.number(below),)),
            lambda: Call("negative", (self.number(below),)),
            lambda: Call("clamp", (self.number(below), Constant(-3.5), Constant(99.5))),
            lambda: Call("coalesce", (self.number(below), self.number(below))),
            lambda: self.case("number", below),
        )

    def text(self, depth):
        if depth == 0:
            return self.one(lambda: Column("junction"), lambda: Column("kind"), lambda: self.constant("text"))
        below = depth - 1
        return self.one(
            lambda: Call(self.chance.choice(["lower", "upper"]), (self.text(below),)),
            lambda: Call("coalesce", (self.text(below), self.text(below))),
            lambda: self.case("text", below),
        )

    def moment(self, depth):
        if depth == 0:
            return self.one(lambda: Column("passed"), lambda: self.constant("timestamp"))
        units = ["year", "quarter", "month", "week", "day", "hour", "minute"]
        return self.one(
            lambda: Truncated(self.chance.choice(units), self.moment(depth - 1)),
            lambda: self.case("timestamp", depth - 1),
        )


def _canonical(expression):
    return kinds.typed(expression, lambda column: Typed(column, kinds.as_kind(FLOW.columns[column.name])))


def _expressions(count, seed):
    kinds_of = ["boolean", "integer", "number", "text", "timestamp"]
    for step in range(count):
        yield _canonical(Random(seed + step).of(kinds_of[step % 5]))


def test_what_is_canonical_stays_as_it_is():
    for made in _expressions(500, seed=1):
        assert _canonical(made.of) == made


def test_a_query_of_any_expressions_comes_back_from_its_text():
    for seed in range(120):
        chance = Random(seed)
        key, where, when = (_canonical(chance.of(kind)).of for kind in ("integer", "boolean", "boolean"))
        figures = [Aggregate("count", "n", where=when), Aggregate("units", "who", where=when)]
        of = _canonical(chance.of("number")).of
        if not isinstance(of, Constant):
            bare = of.args[0] if isinstance(of, Call) and of.op == "clamp" else of
            bounded = not isinstance(bare, Constant) and not (isinstance(bare, Call) and bare.op == "clamp")
            if bounded:
                bounds = (Fraction(-1, 3), Fraction(7, 2))
                figures.append(Aggregate("quantile", "q", of=bare, quantile=Fraction(2, 7), bounds=bounds))
        keys = (
            ()
            if isinstance(key, Constant)
            else (Key("a key", key), Key("j", Column("junction"), ("A", "B'")))
        )
        query = Query(
            table="flow",
            aggregates=tuple(figures),
            where=where,
            keys=keys,
            rollup=bool(keys) and seed % 2 == 0,
            having=(("n", "<>", -2.5), ("who", "<", 1e30)),
            order=(Order("n", descending=True), Order("who")),
            limit=seed + 1,
        )
        assert parse(render(query), questions.SHAPES) == query, render(query)
        assert parse(render(query, questions.SHAPES), questions.SHAPES) == query


def test_joins_come_back_from_their_text():
    query = Query(
        table="admissions@2",
        alias="a",
        joins=(Join("labs", "l", "left"), Join("labs@1", "other labs")),
        aggregates=(Aggregate("units", "n"), Aggregate("sum", "s", of=Column("value", "other labs"))),
        where=Call("=", (Column("ward", "a"), Constant("x"))),
    )
    assert parse(render(query), questions.SHAPES) == query
    assert parse(render(query, questions.SHAPES), questions.SHAPES) == query


def test_a_database_finds_the_values_that_the_oracle_finds():
    duckdb = pytest.importorskip("duckdb", reason="needs DuckDB: pip install 'sfumato[queries]'")
    table = questions.tables(people=6, seed=3)["flow"]
    rows = [{("", name): each for name, each in row.items()} for row in table.to_pylist()]
    made = list(_expressions(400, seed=10_000))
    with duckdb.connect() as database:
        for macro in questions.MACROS:
            database.execute(macro)
        database.register("flow", table)
        for start in range(0, len(made), 20):
            some = made[start : start + 20]
            theirs = database.execute(
                f"SELECT {', '.join(show(each.of) for each in some)} FROM flow"
            ).fetchall()
            for place, each in enumerate(some):
                for row, found in zip(rows, theirs, strict=True):
                    assert _same(exact.value(each.of, row), found[place]), show(each.of)


def _same(ours, theirs):
    if isinstance(ours, float) or isinstance(theirs, float):
        return (
            ours is not None and theirs is not None and math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-9)
        )
    if isinstance(theirs, date) and not isinstance(theirs, datetime):
        theirs = datetime(theirs.year, theirs.month, theirs.day)
    return ours == theirs


def test_numbers_are_written_exactly():
    for value in (Fraction(1, 8), Fraction(-7, 3), Fraction(0), Fraction(10**20), Fraction(1, 10**20)):
        assert Fraction(number(value)) == value


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        (Column("speeed"), "unknown column"),
        (Constant(float("inf")), "finite"),
        (Constant(datetime.fromisoformat("2026-01-01T00:00+01:00")), "time zone"),
        (Constant(None), "no value"),
        (Part("hour", Column("hour")), "HOUR is of dates"),
        (Truncated("day", Column("kind")), "DATE_TRUNC is of dates"),
        (Binned(Column("kind"), Fraction(0), Fraction(1), 3), "bins are of numbers"),
        (Binned(Column("speed"), Fraction(0), Fraction(0), 3), "wider than 0"),
        (Call("and", (Column("speed"),)), "AND is of conditions"),
        (Call("lower", (Column("speed"),)), "LOWER is of text"),
        (Call("<", (Column("toll"), Constant(True))), "= or <>"),
        (Call("case", (Column("toll"), Constant(1), Constant("a"))), "results of one CASE"),
        (Call("coalesce", (Column("kind"), Constant(1))), "taken for each other"),
        (Call("clamp", (Column("speed"), Column("hour"), Constant(1))), "constant numbers"),
        (Call("+", (Column("passed"), Constant(1))), "arithmetic on dates"),
    ],
)
def test_kinds_that_do_not_fit_are_refused_with_what_they_are(of, reason):
    def column(each):
        if each.name not in FLOW.columns:
            raise InvalidRequest(f"unknown column {each.name!r}")
        return Typed(each, kinds.as_kind(FLOW.columns[each.name]))

    with pytest.raises(InvalidRequest, match=reason):
        kinds.typed(of, column)
