"""A table of people for attackers, in a project of its own, and an engine that counts its calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from query_bounds import bounded

from sfumato.core.project import Project
from sfumato.queries.answer import Answer
from sfumato.queries.api import Questions
from sfumato.queries.bounded import Bounded, Cells, TableRef
from sfumato.queries.run import run_query
from sfumato.queries.store import Store

POLICY = """
[project]
name = "people"
[purposes.study]
lawful_basis = "public task"
actions = ["query"]
[populations.people]
unit = "person"
{budget}
[datasets.visits]
population = "people"
unit = "person"
purposes = ["study"]
keep = ["code", "place", "ill", "cost"]
table = "visits.parquet"
max_groups = 1
max_rows = 1
[datasets.visits.columns.code]
bounds = [0, 1000000]
[datasets.visits.columns.place]
values = ["A", "B", "C"]
[datasets.visits.columns.cost]
bounds = [0, 100]
step = 1
"""
SCHEMA = pa.schema(
    [
        ("person", pa.int64()),
        ("code", pa.int64()),
        ("place", pa.string()),
        ("ill", pa.bool_()),
        ("cost", pa.float64()),
    ]
)


@dataclass
class Plain:
    """An engine in plain Python. `asked` keeps what it was asked; `fails` is raised instead of an answer."""

    asked: list[Bounded]
    fails: Exception | None = None

    def __call__(self, tables: Sequence[TableRef]) -> Plain:
        return self

    def bounded(self, question: Bounded) -> Cells:
        self.asked.append(question)
        if self.fails is not None:
            raise self.fails
        read = (
            replace(table, place=pa.concat_tables(map(pq.read_table, table.place)))
            for table in question.tables
        )
        return bounded(replace(question, tables=tuple(read)))

    def close(self) -> None:
        pass


class People:
    """A project with one table, and questions to it."""

    def __init__(
        self, root: Path, rows: list[dict[str, Any]], budget: str = "epsilon = 5\ndelta = 1e-6"
    ) -> None:
        self.root = root
        if not (root / "sfumato.toml").exists():
            Project.init(root, name="people").close()
        (root / "sfumato.toml").write_text(POLICY.format(budget=budget))
        self.write(rows)
        self.project = Project(root)
        self.questions = Questions(self.project)
        self.engine = Plain([])

    def write(self, rows: list[dict[str, Any]]) -> None:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), self.root / "visits.parquet")

    def ask(self, question: Any, *, store: str = "answers", **terms: Any) -> Answer:
        planned = self.questions.plan(question, **terms)
        return run_query(planned, self.questions.gate, Store(self.root / ".sfumato" / store), self.engine)

    @property
    def spent(self) -> float:
        return float(sum(balance.spent_epsilon for balance in self.project.ledger.balances()))

    @property
    def rows(self) -> int:
        return sum(row.kind == "reserve" for row in self.project.ledger.entries())


def person(who: int, **more: Any) -> dict[str, Any]:
    return {"person": who, "code": who, "place": "ABC"[who % 3], "ill": False, "cost": 10.0} | more
