"""A whole question: its clauses, in the order in which they mean something."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final

from sqlglot import exp

from sfumato.queries import kinds
from sfumato.queries.kinds import TableShape, Typed
from sfumato.queries.model import Expr, Join, Query, walk
from sfumato.queries.sql.after import having, limit, order
from sfumato.queries.sql.columns import ROWS, Columns
from sfumato.queries.sql.expressions import Reader
from sfumato.queries.sql.figures import condition
from sfumato.queries.sql.groups import keys_of
from sfumato.queries.sql.scope import Scope, same
from sfumato.queries.sql.tables import Tables
from sfumato.queries.sql.text import Text

_CLAUSES: Final = (
    "expressions",
    "from_",
    "where",
    "group",
    "having",
    "order",
    "limit",
    "joins",
    "with_",
    "distinct",
)
_MOST_NODES: Final = 20_000


def question(text: Text, tree: exp.Expr, shapes: Mapping[str, TableShape]) -> Query:
    """Return what a statement asks.

    Raises:
        InvalidRequest: for what is not understood.
    """
    tree = tree.unnest() if isinstance(tree, exp.Subquery) and not tree.args.get("alias") else tree
    if isinstance(tree, exp.SetOperation):
        word = type(tree).__name__.upper()
        raise text.refuse(
            tree, f"{word} is not understood; ask the questions one by one, or GROUP BY what differs"
        )
    if not isinstance(tree, exp.Select):
        raise text.refuse(tree, "questions alone can be asked; write SELECT ... FROM ...")
    return _Question(text, tree, shapes).read()


class _Question:
    """Reads the clauses of one SELECT."""

    def __init__(self, text: Text, tree: exp.Expr, shapes: Mapping[str, TableShape]) -> None:
        self.text, self.tree = text, tree
        self._refuse_clauses()
        self.tables = Tables(text, shapes, self._named())
        self.scope, self.brought = self.tables.read(tree)
        self.reader = Reader(text, self.scope)

    def read(self) -> Query:
        columns = Columns(self.reader)
        for each in self.tree.expressions:
            columns.choose(each)
        keys, rollup = keys_of(columns, self.tree)
        if not columns.figures:
            raise self.text.refuse(self.tree, ROWS)
        first, *others = self.scope.sources
        query = Query(
            table=first.table,
            aggregates=columns.figures,
            alias=first.name if others else "",
            joins=tuple(
                Join(each.table, each.name, "left" if each.kind == "left" else "inner") for each in others
            ),
            where=self._where(),
            keys=keys,
            rollup=rollup,
            having=having(columns, self.tree),
            order=order(columns, self.tree, keys),
            limit=limit(columns, self.tree),
        )
        return self._sized(query)

    def _refuse_clauses(self) -> None:
        ways = {
            "qualify": "window functions give every row a figure; use HAVING on figures",
            "offset": "OFFSET is not understood; ask for more by LIMIT",
            "windows": "window functions give every row a figure, and rows are about people; use GROUP BY",
            "into": "INTO writes a table; questions alone can be asked",
            "sample": "samples are not understood; the noise depends on a bound, not on a sample",
        }
        for name, said in self.tree.args.items():
            if said and name not in _CLAUSES:
                word = name.strip("_").upper()
                raise self.text.refuse(
                    said if isinstance(said, exp.Expr) else self.tree,
                    ways.get(
                        name,
                        f"{word} is not understood; there are WHERE, GROUP BY, HAVING, ORDER BY and LIMIT",
                    ),
                )
        if self.tree.args.get("distinct"):
            raise self.text.refuse(self.tree, f"SELECT DISTINCT shows what occurs: {ROWS}")

    def _named(self) -> dict[str, exp.Expr]:
        given = self.tree.args.get("with_")
        if given is None:
            return {}
        only = Reader(self.text, Scope()).only
        only(given, "expressions")
        if len(given.expressions) > 10:
            raise self.text.refuse(
                given, f"WITH names {len(given.expressions)} subqueries; at most 10 are read"
            )
        named: dict[str, exp.Expr] = {}
        for each in given.expressions:
            only(each, "this", "alias")
            if not each.alias or same(each.alias, named) or (each.args["alias"].args.get("columns")):
                raise self.text.refuse(each, "WITH gives each subquery one name: WITH fast AS (SELECT ...)")
            named[each.alias] = each.this
        return named

    def _where(self) -> Expr | None:
        where = list(self.brought)
        given = self.tree.args.get("where")
        if given is not None:
            for each in given.this.walk():
                if isinstance(each, exp.AggFunc):
                    raise self.text.refuse(each, "WHERE chooses rows; conditions on figures stand in HAVING")
            where.append(condition(self.reader, given.this))
        if not where:
            return None
        return kinds.call("and", *(Typed(each, "boolean") for each in where)).of

    def _sized(self, query: Query) -> Query:
        parts = [query.where, *(key.of for key in query.keys)]
        parts += [each for one in query.aggregates for each in (one.of, one.where)]
        for part in parts:
            if next(islice(walk(part), _MOST_NODES, None), None) is not None:
                raise self.text.refuse(
                    self.tree, f"the question has more than {_MOST_NODES} terms; ask it in parts"
                )
        return query
