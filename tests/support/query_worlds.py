"""Random questions over random tables, and neighbours as an adversary makes them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import pyarrow as pa

from sfumato.core.policy import Policy
from sfumato.queries.model import (
    Aggregate,
    Binned,
    Call,
    Column,
    Constant,
    Expr,
    Join,
    Key,
    Part,
    Query,
    Terms,
    Truncated,
)
from sfumato.queries.plan import Planned, plan_query
from sfumato.queries.run import _asked
from sfumato.queries.tables import Table

POLICY = """
[project]
name = "fuzz"
[populations.people]
unit = "person"
relation = "{relation}"
epsilon = 1000
delta = 1e-3
[populations.people.shares.filter]
kind = "filter"
epsilon = 400
delta = 1e-6
[populations.people.shares.sum]
kind = "sum"
epsilon = 400
delta = 1e-4
[datasets.flow]
population = "people"
unit = "who"
table = "flow.parquet"
max_groups = 2
max_rows = 2
[datasets.flow.columns.place]
values = ["A", "B", "C", "D"]
[datasets.flow.columns.hour]
bounds = [0, 5]
values = [0, 1, 2, 3, 4, 5]
[datasets.flow.columns.speed]
bounds = [-20, 130]
step = 0.5
[datasets.flow.columns.day]
bounds = [2026-01-01, 2026-01-10]
[datasets.labs]
population = "people"
unit = "who"
table = "labs.parquet"
max_groups = 3
max_rows = 1
[datasets.labs.columns.test]
values = ["CRP", "LDL"]
[datasets.labs.columns.amount]
bounds = [0, 300]
"""
KINDS: Mapping[str, Mapping[str, Any]] = {
    "flow": {
        "who": "integer",
        "place": "text",
        "hour": "integer",
        "speed": "number",
        "toll": "boolean",
        "day": "date",
    },
    "labs": {"who": "integer", "test": "text", "amount": "number"},
}
ARROW = {
    "integer": pa.int64(),
    "text": pa.string(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
}
SALT = bytes(range(16))
Rows = list[dict[str, Any]]


@dataclass
class World:
    """Tables, and the tables of a neighbour: one unit is gone, or another in its place."""

    tables: Mapping[str, pa.Table]
    neighbour: Mapping[str, pa.Table]


def policy(relation: str = "add-or-remove-one") -> Policy:
    return Policy.parse(POLICY.format(relation=relation))


def table(found: Policy, name: str) -> Table:
    section = found.datasets[name]
    return Table(
        name=name,
        version=f"{name}@1",
        unit="who",
        kinds=KINDS[name],
        columns=section.columns,
        groups=section.max_groups,
        rows=section.max_rows,
        datasets=((name, "0" * 64),),
        populations=("people",),
    )


def planned(query: Query, terms: Terms, relation: str = "add-or-remove-one") -> Planned:
    found = policy(relation)
    tables = {query.alias or query.table: table(found, query.table)}
    for join in query.joins:
        tables[join.alias] = table(found, join.table)
    return plan_query(query, terms, tables, found, "not declared")


def asked(plan: Planned, tables: Mapping[str, pa.Table], salt: bytes = SALT) -> Any:
    """Return what an engine is asked, with tables in memory."""
    bounded = _asked(plan)
    names = [one.name for one in plan.tables.values()]
    refs = tuple(replace(ref, place=tables[name]) for ref, name in zip(bounded.tables, names, strict=True))
    return replace(bounded, tables=refs, salt=salt)


def arrow(name: str, rows: Rows) -> pa.Table:
    schema = pa.schema([(column, ARROW[kind]) for column, kind in KINDS[name].items()])
    return pa.Table.from_pylist(rows, schema=schema)


def world(rng: random.Random, relation: str = "add-or-remove-one", most: int = 40) -> World:
    """Return a small table and its neighbour, whose odd one out does what it can to be seen."""
    crowd = {
        name: [row for who in range(4) for row in _rows(rng, name, who, rng.randrange(6))] for name in KINDS
    }
    victim = {name: _rows(rng, name, 77, rng.choice([0, 1, 3, most]), wild=True) for name in KINDS}
    other: dict[str, Rows] = {name: [] for name in KINDS}
    if relation == "replace-one":
        other = {name: _rows(rng, name, 78, rng.choice([1, 3, most]), wild=True) for name in KINDS}
    return World(
        {name: arrow(name, crowd[name] + victim[name]) for name in KINDS},
        {name: arrow(name, crowd[name] + other[name]) for name in KINDS},
    )


def _rows(rng: random.Random, name: str, who: int, count: int, wild: bool = False) -> Rows:
    if wild and rng.random() < 0.5:  # all of one kind, far out
        one = _row(rng, name, who, True)
        return [one | ({"place": rng.choice("ABCD")} if name == "flow" else {}) for _ in range(count)]
    return [_row(rng, name, who, wild) for _ in range(count)]


def _row(rng: random.Random, name: str, who: int, wild: bool) -> dict[str, Any]:
    far = [1e300, -1e300, float("inf"), float("-inf"), float("nan"), 130.0, -20.0, 0.0, 300.0]

    def or_null(value: Any) -> Any:
        return None if rng.random() < 0.1 else value

    def number(low: float, high: float) -> float:
        return rng.choice(far) if wild and rng.random() < 0.7 else round(rng.uniform(low, high), 2)

    if name == "labs":
        return {
            "who": who,
            "test": or_null(rng.choice(["CRP", "LDL", "odd"])),
            "amount": or_null(number(0, 300)),
        }
    return {
        "who": who,
        "place": or_null(rng.choice("ABCDE")),
        "hour": or_null(rng.choice([2**62, -(2**62)]) if wild and rng.random() < 0.2 else rng.randrange(6)),
        "speed": or_null(number(-30, 140)),
        "toll": or_null(rng.random() < 0.5),
        "day": or_null(date(2026, 1, 1) + timedelta(days=rng.randrange(-1, 11))),
    }


def question(rng: random.Random) -> tuple[Query, Terms]:
    """Return a question and its terms; many are refused, as they should be."""
    joined = rng.random() < 0.3
    alias = "f" if joined else ""
    joins: tuple[Join, ...] = ()
    if joined:
        joins = (Join(rng.choice(["labs", "flow"]), "l", rng.choice(["inner", "left"])),)
    make = _Maker(rng, alias, joins[0].table if joins else "")
    keys = tuple(make.key(f"k{place}") for place in range(rng.choice([0, 1, 1, 2, 2, 3])))
    query = Query(
        table="flow",
        alias=alias,
        joins=joins,
        where=make.condition() if rng.random() < 0.4 else None,
        keys=keys,
        rollup=bool(keys) and rng.random() < 0.35,
        aggregates=tuple(make.aggregate(f"a{place}") for place in range(rng.choice([1, 1, 2, 3]))),
    )
    share = rng.choice(["filter", "sum"])
    terms = Terms(
        epsilon=Fraction(rng.choice([1, 3, 10, 25]), rng.choice([10, 7, 3])),
        delta=Fraction(1, 10 ** rng.choice([6, 7])) if share == "sum" and rng.random() < 0.7 else None,
        mechanism=rng.choice(["auto", "laplace", "gaussian"]),
        groups=rng.choice([None, 1, 2, 3, 5]),
        rows=rng.choice([None, 1, 2, 4]),
        share=share,
    )
    return query, terms


class _Maker:
    """Makes expressions over the columns of a question's tables."""

    def __init__(self, rng: random.Random, alias: str, other: str) -> None:
        self.rng, self.alias, self.other = rng, alias, other

    def column(self, name: str) -> Column:
        return Column(name, self.alias)

    def number(self, depth: int = 2) -> Expr:
        rng = self.rng
        if depth and rng.random() < 0.45:
            op = rng.choice(["+", "-", "*", "negative", "abs", "clamp", "coalesce", "case"])
            inner = self.number(depth - 1)
            match op:
                case "negative" | "abs":
                    return Call(op, (inner,))
                case "clamp":
                    return Call(op, (inner, Constant(rng.randrange(-5, 3)), Constant(rng.randrange(4, 50))))
                case "coalesce":
                    return Call(op, (inner, Constant(rng.choice([0, 40, -3.5]))))
                case "case":
                    return Call(op, (self.condition(1), inner, Constant(rng.choice([0, 99]))))
                case _:
                    return Call(op, (inner, self.number(depth - 1)))
        choices: list[Expr] = [self.column("speed"), self.column("hour"), Part("weekday", self.column("day"))]
        choices += [Constant(rng.choice([1, 2, -7, 0.25]))]
        if depth < 2 and rng.random() < 0.2:
            choices += [Call("case", (self.condition(0), Constant(2**20), Constant(3)))] * 2
        if self.other == "labs":
            choices += [Column("amount", "l")] * 2
        return rng.choice(choices)

    def condition(self, depth: int = 2) -> Expr:
        rng = self.rng
        if depth and rng.random() < 0.3:
            return Call(rng.choice(["and", "or"]), (self.condition(depth - 1), self.condition(depth - 1)))
        simple: list[Expr] = [
            Call(
                rng.choice(["<", ">", "<=", ">=", "=", "<>"]),
                (self.number(1), Constant(rng.randrange(-5, 60))),
            ),
            Call("in", (self.column("place"), Constant("A"), Constant("D"), Constant("E"))),
            Call("is null", (self.column(rng.choice(["place", "speed", "day"])),)),
            Call("not", (self.column("toll"),)),
            self.column("toll"),
        ]
        if self.other == "labs":
            simple.append(Call("is null", (Column("amount", "l"),)))
        return rng.choice(simple)

    def key(self, name: str) -> Key:
        rng = self.rng
        choices: list[Key] = [
            Key(name, self.column("place")),
            Key(name, self.column("place"), ("D", "nowhere", "A")),
            Key(name, Call("coalesce", (self.column("place"), Constant("A")))),
            Key(name, Call("lower", (self.column("place"),))),
            Key(name, self.column("hour")),
            Key(name, self.column("hour"), (5, 2, 3)),
            Key(name, self.column("toll")),
            Key(name, Part("weekday", self.column("day"))),
            Key(name, Truncated("week", self.column("day"))),
            Key(name, Binned(self.number(1), Fraction(-5), Fraction(20), 4)),
            Key(name, Call("case", (self.condition(1), Constant("yes"), Constant("no")))),
            Key(name, self.condition(1)),
            # Redefined: a bound on groups of the column would say nothing of groups of this (OpenDP #2949).
            Key(name, Call("*", (self.column("hour"), Constant(0))), (0,)),
        ]
        if self.other == "labs":
            choices += [
                Key(name, Call("coalesce", (Column("test", "l"), Constant("CRP")))),
                Key(name, Column("test", "l")),
            ]
        return rng.choice(choices)

    def aggregate(self, name: str) -> Aggregate:
        rng = self.rng
        kind = rng.choice(["count", "count", "units", "sum", "sum", "mean", "variance", "stddev", "quantile"])
        where = self.condition(1) if rng.random() < 0.35 else None
        if kind == "units" or (kind == "count" and rng.random() < 0.5):
            return Aggregate(kind, name, where=where)
        bounds = None
        if kind != "count" and rng.random() < 0.35:
            low = Fraction(rng.randrange(-40, 20))
            bounds = (low, low + Fraction(rng.randrange(1, 400), rng.choice([1, 4])))
        of = self.number()
        if kind == "count" and rng.random() < 0.4:
            of = self.column(rng.choice(["place", "toll", "day"]))
        quantile = Fraction(rng.choice([0, 1, 2, 3, 4]), 4) if kind == "quantile" else None
        return Aggregate(kind, name, of=of, where=where, bounds=bounds, quantile=quantile)


def levels(plan: Planned, values: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return every draw with the exact numbers that it makes noisy."""
    from sfumato.queries.run import _levels

    return [pair for place, one in enumerate(values) for pair in _levels(plan, place, one)]
