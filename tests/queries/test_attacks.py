"""What an analyst may try to learn of one person. Each attack fails, and works on exact answers."""

from __future__ import annotations

import math
import random
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow: pip install sfumato[queries]")
pytest.importorskip("sqlglot", reason="needs sqlglot: pip install sfumato[queries]")
sys.path.insert(0, str(Path(__file__).parent))
import query_worlds as worlds
from query_bounds import Faults, bounded
from query_people import People, person

from sfumato.core.entropy import SeededEntropy
from sfumato.core.errors import (
    BudgetSpent,
    EngineFailed,
    InvalidRequest,
    PolicyRefused,
    SfumatoError,
    UnknownName,
)
from sfumato.core.gate import Gate, Permit, Plan
from sfumato.queries import run
from sfumato.queries.answer import Answer
from sfumato.queries.bounded import Cells
from sfumato.queries.model import Aggregate, Call, Column, Constant, Join, Key, Query, Terms
from sfumato.queries.plan import Planned

COUNT = "SELECT COUNT(*) AS n FROM visits"


@pytest.fixture
def people(tmp_path: Path) -> People:
    return People(tmp_path / "p", [person(who) for who in range(60)])


def permit(seed: int) -> Permit:
    plan = Plan(action="query", mechanism="m", guarantee="heuristic", statement="a test")
    return Gate(entropy=SeededEntropy(seed)).open(plan)


def answer(plan: Planned, tables: Any, seed: int) -> Answer:
    return run._released(plan, bounded(worlds.asked(plan, tables)), permit(seed))


def most(epsilon: float) -> float:
    """Return how much better than chance anyone can tell two neighbours apart: hits less false alarms."""
    return math.tanh(epsilon / 2)


# Differencing, and extreme values: one person in or out


def advantage(figures: Any, other: Any) -> float:
    """Return hits less false alarms of the best threshold."""
    cuts = np.unique([*figures, *other])
    return float(max(abs((figures >= cut).mean() - (other >= cut).mean()) for cut in cuts))


def two_answers(
    query: Query, victim: dict[str, Any], epsilon: Fraction, **terms: Any
) -> tuple[Any, Any, Any, Any]:
    """Return a figure of all but one, drawn many times with and without the victim; and the exact ones."""
    crowd = [{"who": who, "place": "A", "hour": 1, "speed": 50.0} for who in range(50)]
    given = Terms(epsilon=epsilon, groups=1, share="filter", **({"rows": 1} | terms))
    plan = worlds.planned(query, given)
    cells = [
        bounded(worlds.asked(plan, {"flow": worlds.arrow("flow", [*crowd, *more])}))
        for more in ([victim], [])
    ]
    exact = [int(each.values[0][0]) for each in cells]
    # Many questions at once: a cell for each, since noise is drawn for each by itself.
    wide = replace(
        plan,
        keys=(Key("k", Column("hour"), tuple(range(4000))),),
        query=replace(plan.query, keys=(Key("k", Column("hour")),)),
    )
    drawn = [
        run._released(wide, Cells((np.full(4000, one),)), permit(place))
        .table.column("x")
        .to_numpy()
        .astype(float)
        for place, one in enumerate(exact)
    ]
    return drawn[0], drawn[1], exact[0], exact[1]


@pytest.mark.parametrize("kind", ["count", "sum"])
def test_the_difference_of_two_answers_tells_no_more_than_was_paid(kind: Any) -> None:
    """All, less all but the one of whom the attacker knows: the second answer is of her or of nobody."""
    one = Aggregate(kind, "x", of=Column("speed") if kind == "sum" else None)
    victim = {"who": 99, "place": "A", "hour": 1, "speed": 1e300}
    ours, theirs, exact_with, exact_without = two_answers(
        Query(table="flow", aggregates=(one,)), victim, Fraction(1, 2)
    )
    assert advantage(ours, theirs) <= most(0.5) + 0.04
    assert exact_with != exact_without
    # Noise of a tenth would be found out: the attack is one.
    near = advantage(exact_with + (ours - exact_with) / 10, exact_without + (theirs - exact_without) / 10)
    assert near > most(0.5) + 0.04


def test_an_outlier_made_by_the_question_is_charged_for() -> None:
    """CASE WHEN she THEN 1,000,000 ELSE 0 END: the bound is that of the expression, and so is the noise."""
    far = Call("case", (Call("=", (Column("hour"), Constant(5))), Constant(1_000_000), Constant(0)))
    query = Query(table="flow", aggregates=(Aggregate("sum", "x", of=far),))
    ours, theirs, here, there = two_answers(query, {"who": 99, "hour": 5}, Fraction(1, 2))
    assert abs(here - there) > 5000
    assert advantage(ours, theirs) <= most(0.5) + 0.04


def test_many_rows_of_one_weigh_no_more_than_the_bound() -> None:
    query = Query(table="flow", aggregates=(Aggregate("sum", "x", of=Column("speed")),))
    plan = worlds.planned(query, Terms(epsilon=Fraction(1), groups=1, rows=2, share="filter"))
    many = {"flow": worlds.arrow("flow", [{"who": 1, "speed": 1e308}] * 500)}
    assert bounded(worlds.asked(plan, many)).values[0][0] == 2 * 260
    assert bounded(worlds.asked(plan, many), Faults(rows=False)).values[0][0] == 500 * 260


# Averaging of repeats


def test_the_same_question_has_one_answer_and_one_charge(people: People) -> None:
    first = people.ask(COUNT, epsilon=0.1)
    texts = [
        COUNT,
        "select count(*) as n from visits",
        " SELECT COUNT( * )\n AS n FROM visits -- again",
        COUNT + ";",
    ]
    repeats = [
        people.ask(text, epsilon=epsilon) for text in texts for epsilon in (0.1, "1/10", Fraction(1, 10))
    ]
    assert all(one.replayed and one.table.equals(first.table) for one in repeats)
    assert people.rows == 1
    assert people.spent == pytest.approx(0.1, rel=0.3)
    assert len(people.engine.asked) == 1


def test_another_question_is_charged_and_drawn_anew(people: People) -> None:
    """Control: what is not the same is paid for, so that averages cost what they are worth."""
    seen = {
        people.ask(COUNT.replace(" n ", f" n{place} "), epsilon=0.1).table.column(0)[0].as_py()
        for place in range(8)
    }
    assert len(seen) > 3
    assert people.rows == 8
    assert people.spent > 0.5


# Reconstruction


def rebuilt(answers: list[tuple[Any, float]], count: int) -> Any:
    """Return the bits that fit the answers best (Dinur and Nissim 2003, by a linear program)."""
    from scipy.optimize import linprog

    queries = np.array([chosen for chosen, _ in answers], float)
    values = np.array([value for _, value in answers])
    rows = len(values)
    cost = np.concatenate([np.zeros(count), np.ones(rows)])
    slack = np.eye(rows)
    limits = np.block([[queries, -slack], [-queries, -slack]])
    found = linprog(
        cost,
        A_ub=limits,
        b_ub=np.concatenate([values, -values]),
        bounds=[(0, 1)] * count + [(0, None)] * rows,
    )
    return found.x[:count] > 0.5


def test_many_counts_do_not_rebuild_the_table(tmp_path: Path) -> None:
    rng, count = random.Random(4), 48
    secret = np.array([rng.random() < 0.5 for _ in range(count)])
    rows = [person(who, ill=bool(secret[who])) for who in range(count)]
    people = People(tmp_path / "p", rows, "epsilon = 1\ndelta = 1e-6")
    noisy, exact, spent = [], [], False
    while not spent:
        chosen = np.array([rng.random() < 0.5 for _ in range(count)])
        codes = ", ".join(str(code) for code in np.flatnonzero(chosen))
        question = f"SELECT COUNT(*) AS n FROM visits WHERE ill AND code IN ({codes})"
        try:
            got = people.ask(question, epsilon="1/40")
        except BudgetSpent:
            spent = True
        else:
            noisy.append((chosen, float(got.table.column("n")[0].as_py())))
            exact.append((chosen, float((chosen & secret).sum())))
    assert len(noisy) >= 60
    assert (rebuilt(exact, count) == secret).mean() == 1
    chance = max(secret.mean(), 1 - secret.mean())
    # Pure epsilon 1 for one bit: e / (1 + e) at most, and three deviations of the mean of all.
    assert (rebuilt(noisy, count) == secret).mean() <= max(
        chance, math.e / (1 + math.e)
    ) + 3 * 0.45 / count**0.5


# Precision


def test_answers_lie_on_the_public_grid() -> None:
    query = Query(
        table="flow",
        aggregates=(Aggregate("count", "n"), Aggregate("sum", "s", of=Column("speed"))),
        keys=(Key("place", Column("place")),),
    )
    plan = worlds.planned(query, Terms(epsilon=Fraction(1, 3), groups=1, rows=1, share="filter"))
    rows = [{"who": who, "place": "ABCD"[who % 4], "speed": 0.1 + who / 7} for who in range(40)]
    for seed in range(20):
        got = answer(plan, {"flow": worlds.arrow("flow", rows)}, seed).table
        assert all(isinstance(n, int) for n in got.column("n").to_pylist())
        assert all((2 * s).is_integer() for s in got.column("s").to_pylist())
    # Control: sums as floats give themselves away, whatever noise is added.
    plain = sum(row["speed"] for row in rows)
    assert not (2 * (plain + np.random.default_rng(1).laplace(0, 100))).is_integer()


# Refusals: never from the data


FAR = (Fraction(10**25), Fraction(10**25 + 1))
REFUSED: list[tuple[Any, dict[str, Any], type[Exception]]] = [
    (COUNT, {"epsilon": 1000}, BudgetSpent),
    (COUNT, {"epsilon": 0}, InvalidRequest),
    (COUNT, {"epsilon": -1}, InvalidRequest),
    (COUNT, {"epsilon": math.nan}, InvalidRequest),
    (COUNT, {"epsilon": 1, "rows": 2.5}, InvalidRequest),
    (COUNT, {"epsilon": 1, "rows": True}, InvalidRequest),
    (COUNT, {"epsilon": 1, "delta": 1, "mechanism": "gaussian"}, InvalidRequest),
    (COUNT, {"epsilon": 1, "share": "mine"}, UnknownName),
    (COUNT, {"epsilon": 1, "population": "others"}, UnknownName),
    (COUNT, {"epsilon": 1, "mechanism": "none"}, UnknownName),
    ("SELECT place, COUNT(*) AS n FROM visits GROUP BY 1", {"epsilon": 1, "groups": 2.5}, InvalidRequest),
    ("SELECT code, COUNT(*) AS n FROM visits GROUP BY 1", {"epsilon": 1}, InvalidRequest),
    (
        "SELECT code, COUNT(*) AS n FROM visits GROUP BY 1",
        {"epsilon": 1, "private_keys": True},
        PolicyRefused,
    ),
    ("SELECT COUNT(*) AS n FROM visits WHERE person = 7", {"epsilon": 1}, InvalidRequest),
    ("SELECT person, COUNT(*) AS n FROM visits GROUP BY 1", {"epsilon": 1}, InvalidRequest),
    ("SELECT MAX(cost) AS n FROM visits", {"epsilon": 1}, InvalidRequest),
    ("SELECT SUM(1 / cost) AS n FROM visits", {"epsilon": 1}, InvalidRequest),
    ("SELECT SUM(cost / (cost - 7)) AS n FROM visits", {"epsilon": 1}, InvalidRequest),
    ("SELECT SUM(CAST(place AS INTEGER)) AS n FROM visits", {"epsilon": 1}, InvalidRequest),
    ("SELECT * FROM visits", {"epsilon": 1}, InvalidRequest),
    ("SELECT cost FROM visits", {"epsilon": 1}, InvalidRequest),
    ("SELECT COUNT(*) AS n FROM visits; DROP TABLE visits", {"epsilon": 1}, InvalidRequest),
    ("SELECT COUNT(*) AS n FROM read_csv('/etc/passwd')", {"epsilon": 1}, SfumatoError),
    ("SELECT COUNT(*) AS n FROM ledger", {"epsilon": 1}, SfumatoError),
    (
        Query(table="visits", aggregates=(Aggregate("count", "n"),), keys=(Key("c", Column("code"), ()),)),
        {"epsilon": 1},
        InvalidRequest,
    ),
    (
        Query(
            table="visits", aggregates=(Aggregate("count", "n"),), keys=(Key("c", Column("code"), (1, 1.0)),)
        ),
        {"epsilon": 1},
        InvalidRequest,
    ),
    (
        Query(
            table="visits", aggregates=(Aggregate("count", "n"),), keys=(Key("c", Column("code"), (1, "1")),)
        ),
        {"epsilon": 1},
        InvalidRequest,
    ),
    (
        Query(
            table="visits",
            aggregates=(Aggregate("count", "n"),),
            keys=(Key("c", Column("cost"), (math.nan,)),),
        ),
        {"epsilon": 1},
        InvalidRequest,
    ),
    (
        Query(table="visits", alias="v", aggregates=(Aggregate("count", "n"),), joins=(Join("visits", "v"),)),
        {"epsilon": 1},
        InvalidRequest,
    ),
    (
        Query(
            table="visits",
            aggregates=(Aggregate("sum", "n", of=Column("cost"), bounds=(Fraction(0), math.inf)),),
        ),
        {"epsilon": 1},
        InvalidRequest,
    ),  # type: ignore[arg-type]
    (
        Query(table="visits", aggregates=(Aggregate("mean", "n", of=Column("cost"), bounds=FAR),)),
        {"epsilon": 1},
        InvalidRequest,
    ),
]


@pytest.mark.parametrize(
    ("question", "terms", "error"), REFUSED, ids=[str(place) for place in range(len(REFUSED))]
)
def test_a_refusal_never_reaches_the_engine(people: People, question: Any, terms: Any, error: Any) -> None:
    """So its time and its words cannot depend on the data. The control is any answered question."""
    with pytest.raises(error):
        people.ask(question, **terms)
    assert not people.engine.asked
    assert people.rows == 0
    people.ask(COUNT, epsilon=0.1)
    assert len(people.engine.asked) == 1


def test_an_engine_that_fails_is_paid_for_and_quotes_nothing(people: People) -> None:
    people.engine.fails = RuntimeError("overflow in row (77, 'secret')")
    with pytest.raises(EngineFailed) as failed:
        people.ask(COUNT, epsilon=0.1)
    assert "secret" not in str(failed.value)
    assert failed.value.__suppress_context__
    assert people.spent == pytest.approx(0.1, rel=0.3)
    # Control: what was refused for public reasons costs nothing.
    people.engine.fails = InvalidRequest("no such column")
    with pytest.raises(InvalidRequest):
        people.ask(COUNT, epsilon=0.3)
    assert people.spent == pytest.approx(0.1, rel=0.3)


# What is shown besides figures


def shape(got: Answer) -> Any:
    """Return all of an answer but its figures, and the note on which are missing, which is of noisy ones."""
    keys = [tuple(row[key] for key in got.keys) for row in got]
    return (
        keys,
        got.table.schema,
        got.figures,
        got.cost,
        got.guarantee,
        [n for n in got.notes if "too few" not in n],
    )


def test_neighbours_have_the_same_groups_notes_and_errors() -> None:
    rng, seen, absent = random.Random(11), 0, 0
    while seen < 40:
        query, terms = worlds.question(rng)
        try:
            plan = worlds.planned(query, terms)
        except SfumatoError:
            continue
        if plan.cells > 300:
            continue
        seen += 1
        world = worlds.world(rng)
        ours, theirs = (answer(plan, each, seed) for seed, each in enumerate((world.tables, world.neighbour)))
        assert shape(ours) == shape(theirs), query
        absent += sum(bool((one == 0).all()) for one in bounded(worlds.asked(plan, world.neighbour)).values)
    # Control: figures without rows are among them, which a plain GROUP BY would leave out.
    assert absent > 5


def test_a_group_of_one_is_not_shown_where_groups_are_private() -> None:
    pytest.importorskip("duckdb", reason="needs DuckDB: pip install 'sfumato[queries]'")
    pytest.importorskip("ibis", reason="needs ibis: pip install 'sfumato[queries]'")
    from sfumato.queries.engines import duckdb

    crowd = [{"who": who, "place": "ABC"[who % 3], "hour": 0} for who in range(600)]
    query = Query(table="flow", aggregates=(Aggregate("count", "n"),), keys=(Key("place", Column("place")),))
    terms = Terms(
        epsilon=Fraction(1), delta=Fraction(1, 10**6), groups=2, rows=1, share="sum", private_keys=True
    )
    plan = worlds.planned(query, terms)
    victim = [{"who": 999, "place": f"secret {place}", "hour": 0} for place in range(9)]
    engine = duckdb.build(threads=1)
    ours, theirs = (
        engine.bounded(worlds.asked(plan, {"flow": worlds.arrow("flow", rows)}))
        for rows in ([*crowd, *victim], crowd)
    )
    engine.close()
    assert (
        ours.keys.num_rows - theirs.keys.num_rows == 2
    )  # the exact answer tells of her, of as many groups as bound
    for seed in range(50):
        shown = run._released(plan, ours, permit(seed))
        assert [row["place"] for row in shown] == ["A", "B", "C"]
