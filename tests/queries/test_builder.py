"""Questions in Python: the same queries as in SQL, checked at every step."""

import sys
from fractions import Fraction
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import questions

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.queries.builder import Builder
from sfumato.queries.model import Aggregate, Binned, Call, Column, Constant, Key, Part
from sfumato.queries.sql import parse

pytest.importorskip("sqlglot", reason="needs sqlglot: pip install 'sfumato[queries]'")


def _of(table):
    return Builder(questions.SHAPES, lambda what, query, terms: (what, query, terms), table)


@pytest.fixture
def flow():
    return _of("flow")


#: What is built, and the SQL that means the same.
SAME = [
    (
        lambda: _of("flow").where("speed > 50").count().by("junction", "hour"),
        "SELECT junction, hour, COUNT(*) FROM flow WHERE speed > 50 GROUP BY 1, 2",
    ),
    (
        lambda: _of("flow").units(name="n").by(day="DATE_TRUNC('day', passed)").top(3),
        "SELECT DATE_TRUNC('day', passed) AS day, COUNT(DISTINCT vehicle) AS n FROM flow GROUP BY 1"
        " ORDER BY n DESC LIMIT 3",
    ),
    (
        lambda: _of("flow").sum("speed", bounds=(0, 100)).mean("speed").variance("speed").stddev("speed"),
        "SELECT SUM(CLAMP(speed, 0, 100)), AVG(speed), VAR_POP(speed), STDDEV_POP(speed) FROM flow",
    ),
    (
        lambda: _of("flow").quantile("speed", 0.9, name="q").median("CLAMP(speed, 0, 99.5)", where="toll"),
        "SELECT QUANTILE_CONT(speed, 0.9) AS q, MEDIAN(CLAMP(speed, 0, 99.5)) FILTER (WHERE toll) FROM flow",
    ),
    (
        lambda: _of("flow").histogram("speed", bins=13),
        "SELECT BIN_OF(speed, 0, 10, 13) AS speed_bin, COUNT(*) FROM flow GROUP BY 1",
    ),
    (
        lambda: _of("flow").histogram("speed", bins=3, bounds=(0, 1), name="b").by("kind").rollup(),
        "SELECT BIN_OF(speed, 0, 1/3, 3) AS b, kind, COUNT(*) FROM flow GROUP BY ROLLUP (b, kind)",
    ),
    (
        lambda: (
            _of("admissions")
            .join("labs", kind="left")
            .where("value > 3", "age >= 18")
            .units()
            .by("ward")
            .having("UNITS", ">=", 10)
            .sort("ward")
        ),
        "SELECT ward, COUNT(DISTINCT patient) FROM admissions LEFT JOIN labs USING (patient)"
        " WHERE value > 3 AND age >= 18 GROUP BY ward HAVING units >= 10 ORDER BY ward",
    ),
    (
        lambda: _of("flow@3").count("speed", where="hour < 6").sum("CASE WHEN toll THEN 1 ELSE 0 END"),
        "SELECT COUNT(speed) FILTER (WHERE hour < 6), SUM(CASE WHEN toll THEN 1 ELSE 0 END) FROM flow@3",
    ),
    (
        lambda: _of("flow").count().by("kind", values={"kind": ["car", "bus"]}),
        "SELECT AMONG(kind, 'car', 'bus') AS kind, COUNT(*) FROM flow GROUP BY 1",
    ),
    (
        lambda: (
            _of("flow").count().by("kind", "hour", values={"KIND".lower(): ["car"]}).where("toll", "hour > 3")
        ),
        "SELECT AMONG(kind, 'car') AS kind, hour, COUNT(*) FROM flow WHERE toll AND hour > 3 GROUP BY 1, 2",
    ),
]


@pytest.mark.parametrize(("build", "sql"), SAME, ids=[sql[:60] for _, sql in SAME])
def test_python_and_sql_ask_the_same(build, sql):
    asked = build()
    assert asked.query == parse(sql, questions.SHAPES)
    assert parse(asked.to_sql(), questions.SHAPES) == asked.query


def test_expressions_of_the_model_are_checked_and_made_canonical(flow):
    late = Call(
        "and", (Call("and", (Call(">=", (Column("passed"), Constant("2026-01-31"))),)), Column("toll"))
    )
    asked = flow.where(late).count().by(Part("hour", Column("passed")))
    assert asked.query == parse(
        "SELECT HOUR(passed), COUNT(*) FROM flow WHERE passed >= '2026-01-31' AND toll GROUP BY 1",
        questions.SHAPES,
    )
    joined = (
        _of("admissions").join("labs", alias="l").where(Call(">", (Column("value"), Constant(3)))).count()
    )
    assert joined.query.where == Call(">", (Column("value", "l"), Constant(3)))


def test_a_step_leaves_the_question_before_it_as_it_is(flow):
    before = flow.count()
    after = before.by("junction").where("toll")
    assert before.query.keys == ()
    assert before.query.where is None
    assert [key.name for key in after.query.keys] == ["junction"]


def test_what_is_asked_and_on_which_terms_reaches_who_answers(flow):
    asked = flow.count().bound(groups=3).bound(rows=2)
    what, query, terms = asked.run(epsilon=0.1, purpose="planning", delta="1e-6", mechanism="gaussian")
    assert (what, query) == ("run", asked.query)
    assert (terms.epsilon, terms.delta) == (Fraction(1, 10), Fraction(1, 10**6))
    assert (terms.groups, terms.rows, terms.purpose, terms.mechanism) == (3, 2, "planning", "gaussian")
    assert asked.plan(target_error=20)[0] == "plan"
    assert asked.explain(0.5)[0] == "explain"
    assert asked.run(epsilon=Fraction(1, 3))[2].epsilon == Fraction(1, 3)


def test_names_of_one_answer_never_meet(flow):
    asked = flow.count().count(where="toll").mean("speed").mean("speed").by("hour", "HOUR(passed)")
    names = [each.name for each in (*asked.query.keys, *asked.query.aggregates)]
    assert names == ["hour", "hour_2", "count", "count_2", "mean_speed", "mean_speed_2"]


REFUSALS = [
    (lambda: _of("flaw"), "did you mean 'flow'"),
    (lambda: _of("flow").where("speed >"), "column"),
    (lambda: _of("flow").where("speed + 1"), "no condition"),
    (lambda: _of("flow").where("junction > 5"), "numbers are written without quotes"),
    (lambda: _of("flow").where("toll) OR (toll"), "cannot stand here"),
    (lambda: _of("flow").where("toll FROM labs"), "more than one expression"),
    (lambda: _of("flow").where("toll, toll"), "more than one expression"),
    (lambda: _of("flow").where("vehicle = 3"), "privacy unit"),
    (lambda: _of("flow").where(Call("=", (Column("vehicle"), Constant(3)))), "privacy unit"),
    (lambda: _of("flow").where(Call("like", (Column("speed"), Constant("a")))), "LIKE is of text"),
    (lambda: _of("flow").where(""), "no expression"),
    (lambda: _of("flow").count().by("vehicle"), "one group per person"),
    (lambda: _of("flow").count().by("1"), "same for everybody"),
    (lambda: _of("flow").count().by("hour", "hour"), "grouped by twice"),
    (lambda: _of("flow").count().by("hour", values={"our": [1]}), "did you mean 'hour'"),
    (
        lambda: _of("flow").count().by("hour", values={"hour": ["x"]}).query,
        "numbers are written without quotes",
    ),
    (lambda: _of("flow").count().by("hour", values={"hour": [1, 1]}).query, "named twice"),
    (lambda: _of("flow").count().by("hour", values={"hour": []}).query, "name at least one"),
    (lambda: _of("flow").sum("junction"), "junction is text"),
    (lambda: _of("flow").mean("speed", bounds=(9, 1)), "give the lower bound first"),
    (lambda: _of("flow").mean("speed", bounds=(0, float("nan"))), "not finite"),
    (lambda: _of("flow").mean("speed", bounds=3), "two numbers"),
    (lambda: _of("flow").quantile("speed", 1.5), "from 0 to 1"),
    (lambda: _of("flow").count(name="n").count(name="N"), "two columns are called"),
    (lambda: _of("flow").histogram("speed", bins=0), "whole number"),
    (lambda: _of("flow").histogram("speed * 2"), "bounds=(0, 100)"),
    (lambda: _of("flow").histogram("junction", bounds=(0, 1)), "bins are of numbers"),
    (lambda: _of("flow").top(3), "add .count() first"),
    (lambda: _of("flow").count().top(0), "whole number from 1"),
    (lambda: _of("flow").count().sort("speed"), "unknown column of the answer"),
    (lambda: _of("flow").count().having("count", "==", 3), "unknown comparison"),
    (lambda: _of("flow").count().having("count", ">", "x"), "no number"),
    (lambda: _of("flow").rollup().count().query, "there are none"),
    (lambda: _of("flow").count().bound(groups=0), "whole number from 1"),
    (lambda: _of("flow").by("hour").query, "nothing is asked for"),
    (lambda: _of("flow").count().run(epsilon="much"), "no number"),
    (lambda: _of("flow").count().run(epsilon=True), "no number"),
    (lambda: _of("flow").count().run(epsilom=1), "did you mean 'epsilon'"),
    (lambda: _of("flow").count().join("flow"), "two tables are called"),
    (lambda: _of("flow").join("labs", kind="outer"), "unknown kind of join"),
]


@pytest.mark.parametrize(("build", "reason"), REFUSALS, ids=[reason for _, reason in REFUSALS])
def test_a_step_that_cannot_be_is_refused_at_once(build, reason):
    with pytest.raises(InvalidRequest) as refused:
        build()
    assert reason in str(refused.value)


def test_what_may_be_wrong_in_a_list_is_named_by_nearest(flow):
    with pytest.raises(UnknownName):
        flow.count().having("cound", ">", 3)


def test_bounds_given_in_python_hold_even_for_ones(flow):
    """A sum of ones is a count; with bounds of its own it stays a sum."""
    assert flow.sum("CASE WHEN toll THEN 1 ELSE 0 END", bounds=(0, 0.5)).query.aggregates == (
        Aggregate(
            "sum",
            "sum",
            of=Call("case", (Column("toll"), Constant(1), Constant(0))),
            bounds=(Fraction(0), Fraction(1, 2)),
        ),
    )


def test_bins_of_a_histogram_are_exact(flow):
    assert flow.histogram("speed", bins=3).query.keys == (
        Key("speed_bin", Binned(Column("speed"), Fraction(0), Fraction(130, 3), 3)),
    )
