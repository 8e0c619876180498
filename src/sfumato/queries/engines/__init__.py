"""Engines: where bounded sums are computed. One file each, and the same whole numbers whichever is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sfumato.core.errors import InvalidRequest
from sfumato.core.plugins import Catalogue

if TYPE_CHECKING:
    from sfumato.queries.bounded import Engine, TableRef

CATALOGUE = Catalogue("query engine", "sfumato.queries.engines", "sfumato.query_engines")
SCHEMES = {"postgresql:": "postgres", "postgres:": "postgres", "spark:": "spark"}


def engine_name(tables: Sequence[TableRef]) -> str:
    """Return the engine that the tables' places ask for: "duckdb" for Arrow tables and files.

    >>> from sfumato.queries.bounded import TableRef
    >>> engine_name([TableRef("flow", "vehicle", "flow.parquet", {}, {})])
    'duckdb'

    Raises:
        InvalidRequest: they lie in places that no one engine reads.
    """
    names = set()
    for table in tables:
        place = table.place if isinstance(table.place, str) else ""
        names.add(next((name for start, name in SCHEMES.items() if place.startswith(start)), "duckdb"))
    if len(names) != 1:
        raise InvalidRequest(
            f"tables of one question lie with different engines ({', '.join(sorted(names)) or 'none'}): "
            "bring them to one place"
        )
    return names.pop()


def engine_for(tables: Sequence[TableRef], name: str | None = None, **settings: Any) -> Engine:
    """Build the engine for the tables of a question; close it after use.

    Args:
        name: "duckdb", "postgres" or "spark"; None: by the places of the tables.

    Raises:
        UnknownName, MissingExtra, InvalidRequest: there is no such engine, or it cannot work here.
    """
    engine: Engine = CATALOGUE.build(name or engine_name(tables), **settings)
    return engine
