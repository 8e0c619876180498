"""SQL as analysts write it, to a `Query` and back.

The text reaches no engine: only the `Query` does. Whatever is not understood is refused, with its place
and the nearest form that is.
"""

from __future__ import annotations

from collections.abc import Mapping

from sfumato.core.errors import MissingExtra
from sfumato.queries.kinds import TableShape
from sfumato.queries.model import Query
from sfumato.queries.sql.render import render

__all__ = ["TableShape", "parse", "render"]


def parse(sql: str, tables: Mapping[str, TableShape]) -> Query:
    """Return what an SQL statement asks.

    >>> flow = TableShape("vehicle", {"junction": "text", "hour": "integer"})
    >>> parse("SELECT junction, hour, COUNT(*) FROM flow GROUP BY 1, 2", {"flow": flow}).aggregates
    (Aggregate(kind='count', name='count', of=None, where=None, quantile=None, bounds=None),)

    Guarantee:
        - Any text gives a query or `InvalidRequest`, and `parse(render(query), tables)` is the same query.

    Args:
        sql: one SELECT; at most 10,000 characters, nested at most 25 deep.
        tables: dataset -> its privacy unit and columns. "flow@3" in the text is version 3 of "flow".

    Raises:
        InvalidRequest: for what is not understood, with line, column and the nearest form that is.
        MissingExtra: without sqlglot.
    """
    needed()
    from sfumato.queries.sql.question import question
    from sfumato.queries.sql.text import read

    text, tree = read(sql)
    return question(text, tree, tables)


def needed() -> None:
    """Make sure that there is a parser, which is heavy and therefore loaded late.

    Raises:
        MissingExtra: without sqlglot.
    """
    try:
        import sqlglot  # noqa: F401
    except ImportError:
        raise MissingExtra("reading SQL", ("sqlglot",), "queries") from None
