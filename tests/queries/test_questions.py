"""Forty realistic questions from text to answer: thirty are answered, ten refused before anything is read."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

pytest.importorskip("ibis", reason="needs ibis: pip install sfumato[queries]")
pytest.importorskip("sqlglot", reason="needs sqlglot: pip install sfumato[queries]")
sys.path.insert(0, str(Path(__file__).parent))
import exact
import pyarrow.parquet as pq
import questions

from sfumato.core.errors import InvalidRequest
from sfumato.core.project import Project
from sfumato.queries.api import Questions
from sfumato.queries.plan import Planned

#: So much that next to no noise is left; all thirty together stay below what a ledger can hold.
EPSILON = 30_000
POLICY = """
[project]
name = "forty"
[populations.drivers]
unit = "vehicle"
epsilon = 1000000
[populations.patients]
unit = "patient"
epsilon = 1000000
[populations.pictures]
unit = "image"
epsilon = 1000000
"""


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Questions]:
    root = tmp_path_factory.mktemp("forty") / "project"
    Project.init(root, name="forty").close()
    (root / "sfumato.toml").write_text(POLICY + questions.POLICY)
    for name, table in questions.tables().items():
        pq.write_table(table, root / f"{name}.parquet")
    project = Project(root)
    yield Questions(project)
    project.close()


def clamped(asking: Questions) -> dict[str, pa.Table]:
    """Return the tables with values clamped as the policy says, which the oracle does not know."""
    found = {}
    for name, table in questions.tables().items():
        bounds = {key: one.clamps for key, one in asking.project.policy.datasets[name].columns.items()}
        rows = [
            {key: each(value, bounds.get(key)) for key, value in row.items()} for row in table.to_pylist()
        ]
        found[name] = pa.Table.from_pylist(rows, schema=table.schema)
    return found


def each(value: Any, bounds: Any) -> Any:
    if bounds is None or value is None:
        return value
    if math.isnan(value):
        return None
    return type(value)(min(max(value, float(bounds[0])), float(bounds[1])))


@pytest.mark.parametrize("asked", questions.ANSWERED, ids=lambda asked: " ".join(asked.sql.split())[:60])
def test_a_question_is_answered(asking: Questions, asked: Any) -> None:
    planned = asking.plan(asked.sql, epsilon=EPSILON, groups=1000, rows=200)
    answer = asking.run(planned)
    query = replace(planned.query, keys=planned.keys, having=(), order=(), limit=None)
    truth = {
        tuple(row[key.name] for key in query.keys): row
        for row in exact.answer(query, clamped(asking), questions.UNITS)
    }
    assert truth
    seen = few = 0
    for row in answer:
        known = truth.get(tuple(row[key] for key in answer.keys))
        seen += known is not None
        for one in query.aggregates:
            wanted = None if known is None else known[one.name]
            if wanted is None:
                assert row[one.name] is None or abs(row[one.name]) <= 10 * row[f"{one.name}_error"] + 1
                continue
            if row[one.name] is None:
                few += 1
                continue
            slack = room(planned, one.name, one.kind) + 6 * (row[f"{one.name}_error"] or 0)
            assert abs(float(row[one.name]) - float(wanted)) <= slack, (one.name, row, known)
    assert few <= seen / 10
    assert seen
    if not query.rollup and not planned.query.having:
        assert len(answer) == min(planned.cells, planned.query.limit or math.inf)
    assert asking.run(asked.sql, epsilon=EPSILON, groups=1000, rows=200).replayed


def room(planned: Planned, name: str, kind: str) -> float:
    """Return what the grid may take: quantiles lie in bins, sums and means on steps."""
    measures = dict(zip((one.name for one in planned.query.aggregates), planned.needed, strict=True))[name]
    if kind == "quantile":
        low, high = planned.bounds[name]
        return float(high - low) / 20
    return {"count": 1.0, "units": 1.0}.get(kind, 400 * float(max(one.step for one in measures)))


@pytest.mark.parametrize("asked", questions.REFUSED, ids=lambda asked: asked.sql[:60])
def test_a_question_is_refused_for_the_right_reason(asking: Questions, asked: Any) -> None:
    rows = len(list(asking.project.ledger.entries()))
    with pytest.raises(InvalidRequest) as refused:
        asking.run(asked.sql, epsilon=1)
    assert asked.refused in str(refused.value)
    # A table that is looked up is recorded; nothing else is.
    assert {row.kind for row in list(asking.project.ledger.entries())[rows:]} <= {"version"}


def test_thirty_are_answered_and_ten_refused() -> None:
    assert (len(questions.ANSWERED), len(questions.REFUSED)) == (30, 10)
    assert Fraction(EPSILON) * len(questions.ANSWERED) < 1_000_000
