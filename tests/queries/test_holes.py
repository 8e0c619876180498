"""Ways round the guarantee that were once open: by files, policies, plans and kept answers."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("sqlglot", reason="needs sqlglot: pip install sfumato[queries]")
sys.path.insert(0, str(Path(__file__).parent))
import query_worlds as worlds
from query_people import SCHEMA, People, person

from sfumato.core.consent import Evidence
from sfumato.core.errors import IntegrityError, InvalidRequest, PolicyRefused
from sfumato.core.project import Project
from sfumato.queries.api import Questions
from sfumato.queries.bounded import Bounded, TableRef
from sfumato.queries.model import Aggregate, Column, Join, Key, Query, Terms
from sfumato.queries.plan import plan_query
from sfumato.queries.run import question_digest
from sfumato.queries.tables import evidence

COUNT = "SELECT COUNT(*) AS n FROM visits"


@pytest.fixture
def people(tmp_path: Path) -> People:
    return People(tmp_path / "p", [person(who) for who in range(12)])


# Which file is read


def engine() -> Any:
    pytest.importorskip("duckdb", reason="needs DuckDB: pip install 'sfumato[queries]'")
    pytest.importorskip("ibis", reason="needs ibis: pip install 'sfumato[queries]'")
    from sfumato.queries.engines import duckdb

    return duckdb.build(threads=1)


def counted(place: Any, rows: int = 1000) -> int:
    """Return how many rows an engine counts in a place."""
    kinds = {"person": "integer", "place": "text"}
    plan = worlds.planned(
        Query(table="flow", aggregates=(Aggregate("count", "n"),)),
        Terms(epsilon=Fraction(1), rows=rows, share="filter"),
    )
    asked = replace(worlds.asked(plan, {"flow": None}), tables=(TableRef("v", "person", place, kinds, {}),))  # type: ignore[dict-item]
    opened = engine()
    try:
        return int(opened.bounded(asked).values[0][0])
    finally:
        opened.close()


def test_the_file_that_is_hashed_is_the_file_that_is_read(tmp_path: Path) -> None:
    """DuckDB reads visits[1].parquet as a pattern: another file than the one whose hash was recorded."""
    for name, count in (("visits[1].parquet", 3), ("visits1.parquet", 7), ("v*.parquet", 5)):
        pq.write_table(pa.table({"person": range(count), "place": ["A"] * count}), tmp_path / name)
    assert counted((str(tmp_path / "visits[1].parquet"),)) == 3
    assert counted((str(tmp_path / "v*.parquet"),)) == 5
    assert counted(str(tmp_path / "visits[1].parquet")) == 7  # a text is a pattern


def test_rows_of_one_do_not_decide_how_a_csv_file_is_read(tmp_path: Path) -> None:
    """A guess at separators or columns goes by the first rows, and so would everybody's answer."""
    header, crowd = "person,place\n", "".join(f"{who},A\n" for who in range(100))
    odd = ["9999,x;y;z;w\n" * 300, "9999|8|7|6\n" * 300, "9999,a,b,c,d\n" * 30_000, "#9999\n" * 300]
    for place, rows in enumerate(odd):
        path = tmp_path / f"{place}.csv"
        path.write_text(header + rows + crowd)
        assert counted((str(path),), rows=1) in (100, 101), rows[:20]


def test_a_table_that_does_not_read_quotes_no_row(tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    path.write_bytes(b"PAR1 secret 4711" * 9)
    with pytest.raises(InvalidRequest) as refused:
        counted((str(path),))
    assert "secret" not in str(refused.value)


def test_a_table_that_changed_meanwhile_is_not_answered(people: People) -> None:
    planned = people.questions.plan(COUNT, epsilon=0.1)
    honest = people.engine.bounded

    def swapped(asked: Bounded) -> Any:
        found = honest(asked)
        people.write([person(who) for who in range(99)])
        return found

    people.engine.bounded = swapped  # type: ignore[method-assign]
    with pytest.raises(InvalidRequest, match="changed while it was read"):
        people.ask(COUNT, epsilon=0.1)
    assert people.spent == 0
    with pytest.raises(InvalidRequest, match="changed since this was planned"):
        people.questions.run(planned)
    assert question_digest(people.questions.plan(COUNT, epsilon=0.1)) != question_digest(planned)


# Plans and policies


def test_a_plan_of_another_policy_is_not_run(people: People) -> None:
    """A plan with wider bounds would be charged the same, and draw noise for narrower ones."""
    stale = people.questions.plan("SELECT SUM(cost) AS c FROM visits", epsilon=0.1)
    policy = people.root / "sfumato.toml"
    policy.write_text(policy.read_text().replace("bounds = [0, 100]", "bounds = [0, 10000]"))
    people.project.close()
    fresh = Questions(Project(people.root))
    with pytest.raises(InvalidRequest, match="plan it again"):
        fresh.run(stale)
    forged = replace(stale, draws=tuple(replace(draw, scale=Fraction(1, 1000)) for draw in stale.draws))
    people.project = Project(people.root)
    with pytest.raises(InvalidRequest, match="plan it again"):
        people.questions.run(forged)
    fresh.project.close()


def test_bounds_are_whole_numbers(people: People) -> None:
    """An engine keeps 3 groups for a bound of 2.5, and the plan would charge for 2.5."""
    question = "SELECT place, COUNT(*) AS n FROM visits GROUP BY place"
    for wrong in (2.5, True, "2", 0, -1, Fraction(3, 2)):
        with pytest.raises(InvalidRequest, match="whole number"):
            people.questions.plan(question, epsilon=0.1, groups=wrong)
        with pytest.raises(InvalidRequest, match="whole number"):
            people.questions.plan(question, epsilon=0.1, rows=wrong)


def test_amounts_in_terms_are_exact(people: People) -> None:
    query = people.questions.parse(COUNT)
    loose, exact = (people.questions.plan(query, Terms(epsilon=one)) for one in (0.1, Fraction(1, 10)))  # type: ignore[arg-type]
    assert question_digest(loose) == question_digest(exact)


def test_a_left_join_of_two_populations_is_refused() -> None:
    """Who leaves one of them stays in the other's rows, and moves from her group to that of the absent."""
    found = worlds.policy()
    flow, labs = worlds.table(found, "flow"), replace(worlds.table(found, "labs"), populations=("others",))
    for how, refused in (("left", True), ("inner", False)):
        query = Query(
            table="flow", alias="f", joins=(Join("labs", "l", how),), aggregates=(Aggregate("count", "n"),)
        )  # type: ignore[arg-type]
        terms = Terms(epsilon=Fraction(1), groups=1, rows=1, share="filter")
        if refused:
            with pytest.raises(PolicyRefused, match="LEFT JOIN"):
                plan_query(query, terms, {"f": flow, "l": labs}, found, "not declared")
        else:
            assert plan_query(query, terms, {"f": flow, "l": labs}, found, "not declared").plan.also


def test_consent_is_asked_of_every_table() -> None:
    """Evidence of one table would let a join with another pass whose people were never asked."""
    found = worlds.policy()
    asked = replace(worlds.table(found, "flow"), consent=Evidence("register", "study", 7))
    older = replace(worlds.table(found, "flow"), consent=Evidence("register", "study", 5))
    assert evidence([asked, older]) == older.consent
    assert evidence([asked, worlds.table(found, "labs")]) is None


# Kept answers


def test_questions_that_differ_have_digests_that_differ(people: People) -> None:
    def plan(values: tuple[Any, ...], **terms: Any) -> Any:
        key = Key("code", Column("code"), values)
        query = Query(table="visits", aggregates=(Aggregate("count", "n"),), keys=(key,))
        return question_digest(people.questions.plan(query, epsilon=Fraction(1, 10), **terms))

    many = tuple(range(3000))
    digests = [
        plan(many),
        plan((*many[:-1], 4000)),  # the last of many
        plan((*many[:-2], many[-1], many[-2])),  # their order is that of the answer
        plan(tuple(float(one) for one in many)),
        plan(many, groups=2),
        plan(many, rows=2),
        plan(many, mechanism="gaussian"),
        plan(many, non_negative=True),
        plan(many, integers=False),
    ]
    assert len(set(digests)) == len(digests)
    assert plan(many) == digests[0]


def test_values_of_the_policy_are_part_of_the_question(people: People) -> None:
    question = "SELECT place, COUNT(*) AS n FROM visits GROUP BY place"
    before = question_digest(people.questions.plan(question, epsilon=0.1))
    policy = people.root / "sfumato.toml"
    policy.write_text(policy.read_text().replace('["A", "B", "C"]', '["A", "B", "D"]'))
    people.project.close()
    after = Questions(Project(people.root))
    assert question_digest(after.plan(question, epsilon=0.1)) != before
    after.project.close()


def test_an_edited_answer_is_refused(people: People) -> None:
    people.ask(COUNT, epsilon=0.1)
    (kept,) = (people.root / ".sfumato" / "answers").glob("[0-9a-f]*.json")
    data = json.loads(kept.read_text())
    data["body"]["answer"] = data["body"]["answer"].replace('"n":', '"n" :')
    kept.write_text(json.dumps(data))
    with pytest.raises(IntegrityError, match="was changed"):
        people.ask(COUNT, epsilon=0.1)
    kept.unlink()
    people.ask(COUNT, epsilon=0.1)
    assert people.rows == 2  # drawn anew, and so paid anew


# Tables of every shape


@pytest.mark.parametrize(
    "rows",
    [[], [person(1) | {"person": None}], [person(1) | {"place": None}]],
    ids=["none", "nobody", "nowhere"],
)
def test_empty_tables_look_like_any_other(people: People, rows: list[dict[str, Any]]) -> None:
    question = "SELECT place, COUNT(*) AS n, AVG(cost) AS c FROM visits WHERE cost > 99 GROUP BY place"
    full = people.ask(question, epsilon=0.1)
    people.write(rows)
    empty = people.ask(question, epsilon=0.1)
    assert [row["place"] for row in full] == [row["place"] for row in empty] == ["A", "B", "C"]
    assert full.table.schema == empty.table.schema


def test_one_unit_spelled_in_two_ways_is_two_units_and_no_third(tmp_path: Path) -> None:
    """Text is compared by its bytes: neither case nor accents make units or groups fall together or apart."""
    names = ["eva", "Eva", "e\u0301va", "\u00e9va", "eva ", "", None, "eva"]
    path = tmp_path / "v.parquet"
    pq.write_table(pa.table({"person": names, "place": ["A"] * len(names)}), path)
    kinds = {"person": "text", "place": "text"}
    plan = worlds.planned(
        Query(table="flow", aggregates=(Aggregate("units", "n"),)), Terms(epsilon=Fraction(1), share="filter")
    )
    asked = replace(
        worlds.asked(plan, {"flow": None}), tables=(TableRef("v", "person", (str(path),), kinds, {}),)
    )  # type: ignore[dict-item]
    opened = engine()
    assert int(opened.bounded(asked).values[0][0]) == len({name for name in names if name is not None})
    opened.close()


def test_a_file_behind_a_link_is_the_one_that_is_hashed(people: People) -> None:
    table = people.root / "visits.parquet"
    first, other = people.root / "first.parquet", people.root / "other.parquet"
    table.rename(first)
    pq.write_table(pa.Table.from_pylist([person(1)], schema=SCHEMA), other)
    table.symlink_to(first)
    before = people.ask(COUNT, epsilon=0.1)
    table.unlink()
    table.symlink_to(other)
    after = people.ask(COUNT, epsilon=0.1)
    assert not after.replayed
    assert people.rows == 2
    assert before.cost == after.cost


def test_salts_are_never_used_twice(people: People) -> None:
    """A salt that comes again would choose the same groups of everybody again: fresh ones average out."""
    for place in range(4):
        people.ask(COUNT.replace(" n ", f" n{place} "), epsilon="1/100")
    salts = {asked.salt for asked in people.engine.asked}
    assert len(salts) == 4
    assert all(len(salt) == 16 and len(np.unique(list(salt))) > 4 for salt in salts)
