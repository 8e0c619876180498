"""PostgreSQL: tables stay where they are; only bounded sums come over the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfumato.core.book_postgres import LOCAL, public_url
from sfumato.core.errors import InvalidRequest, SfumatoError
from sfumato.core.plugins import need
from sfumato.queries.bounded import Bounded, Cells, TableRef
from sfumato.queries.engines._bounding import check
from sfumato.queries.engines._cells import arrow_schema, gathered
from sfumato.queries.engines._relations import Shown, shown
from sfumato.queries.engines._sql import Stages, quoted, written

if TYPE_CHECKING:
    import psycopg

SUMMARY = "PostgreSQL: tables stay where they are"
NEEDS = ("psycopg", "ibis", "sqlglot", "pyarrow")
EXTRA = "queries,postgres"

CONNECT_SECONDS = 10
#: All statements of one question see the same rows, and change none. Times are in UTC.
BEGIN = (
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL TIME ZONE 'UTC'; "
    "SET LOCAL extra_float_digits = 1"
)
WHOLE = ("int2", "int4", "int8")
TYPES = {
    "boolean": ("bool",),
    "integer": (*WHOLE, "numeric", "float4", "float8"),
    "number": (*WHOLE, "numeric", "float4", "float8"),
    "date": ("date", "timestamp", "timestamptz"),
    "timestamp": ("date", "timestamp", "timestamptz"),
}


def build() -> Postgres:
    """Return an engine; it connects when it is asked."""
    need("the engine 'postgres'", NEEDS, EXTRA)
    return Postgres()


class Postgres:
    """See `Engine`. A role that may only SELECT is enough."""

    def __init__(self) -> None:
        self._url, self._connection = "", None  # type: str, psycopg.Connection[Any] | None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def bounded(self, asked: Bounded) -> Cells:
        """Return the exact bounded sums.

        Raises:
            InvalidRequest: a column or table is not there, or numbers could overflow.
            SfumatoError: the server does not answer, or stopped the statement.
        """
        import psycopg

        check(asked)
        tables = shown(asked)
        places = [_place(table.table) for table in tables]
        if len({url for url, _ in places}) != 1:
            raise InvalidRequest("tables of one question lie in different databases: bring them to one")
        connection = self._connect(places[0][0])
        try:
            connection.execute(BEGIN.encode())
            types = [
                _types(connection, table.table, name) for table, (_, name) in zip(tables, places, strict=True)
            ]
            whole = all(_whole(table, kinds) for table, kinds in zip(tables, types, strict=True))
            sources = {
                table.name: _cleaned(table, name, kinds, whole)
                for table, (_, name), kinds in zip(tables, places, types, strict=True)
            }

            def run(expression: Any, stages: Stages) -> pa.Table:
                rows = connection.execute(
                    written(expression, "postgres", sources, stages).encode()
                ).fetchall()
                schema = arrow_schema(expression)
                columns = zip(*rows, strict=True) if rows else [()] * len(schema)
                return pa.table(
                    [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)],
                    schema,
                )

            return gathered(asked, tables, "integer" if whole else "text", run)
        except psycopg.Error as error:
            # What the server says may quote a row.
            raise SfumatoError(
                f"the database {public_url(self._url)} did not answer the question ({type(error).__name__}); "
                "nothing was released"
            ) from None
        finally:
            if not connection.closed:
                connection.rollback()
                connection.execute(b"ROLLBACK")

    def _connect(self, url: str) -> psycopg.Connection[Any]:
        import psycopg

        if self._connection is not None and self._url == url and not self._connection.closed:
            return self._connection
        self.close()
        try:
            connection: psycopg.Connection[Any] = psycopg.connect(
                url, autocommit=True, connect_timeout=CONNECT_SECONDS, client_encoding="utf8"
            )
        except psycopg.Error as error:
            raise InvalidRequest(f"the database {public_url(url)} does not answer: {error}") from None
        if not (
            connection.pgconn.ssl_in_use or LOCAL.fullmatch(connection.info.host or "") or "sslmode" in url
        ):
            connection.close()
            raise InvalidRequest(
                f"the server of {public_url(url)} is another machine and speaks without TLS: turn TLS on and "
                "put sslmode=verify-full in the URL; sslmode=disable says that the network is trusted"
            )
        self._url, self._connection = url, connection
        return connection


def _place(table: TableRef) -> tuple[str, str]:
    """Return a table's database, and its name there as SQL writes it."""
    place = table.place if isinstance(table.place, str) else ""
    url, mark, name = place.rpartition("#")
    if not mark or not name:
        raise InvalidRequest(
            f"the table {table.alias!r} lies in no database: write its place as postgresql://server/database#table"
        )
    return url, ".".join(quoted(part) for part in name.split("."))


def _types(connection: psycopg.Connection[Any], table: TableRef, name: str) -> dict[str, str]:
    rows = connection.execute(
        "SELECT attname, typname FROM pg_attribute JOIN pg_type ON atttypid = pg_type.oid "
        "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
        (name,),
    ).fetchall()
    types = {str(column): str(kind) for column, kind in rows}
    for column in (table.unit, *table.columns):
        if column not in types:
            known = ", ".join(types) or "none: there is no such table, or it may not be read"
            raise InvalidRequest(f"the table {table.alias!r} has no column {column!r}. Known: {known}")
    return types


def _whole(table: Shown, types: dict[str, str]) -> bool:
    declared = table.table.columns.get(table.table.unit, "integer")
    return declared == "integer" and types[table.table.unit] in WHOLE


def _cleaned(table: Shown, name: str, types: dict[str, str], whole: bool) -> str:
    """Return SQL for a table's columns as plain types; what does not fit into them is missing."""
    unit = quoted(table.table.unit)
    columns = [f'{unit}::bigint AS "unit"' if whole else f'{unit}::text COLLATE "C" AS "unit"']
    for own, kind, new in table.columns:
        if types[own] not in TYPES.get(kind, (types[own],)):
            raise InvalidRequest(
                f"the column {own!r} of {table.table.alias!r} is {types[own]} in the database and cannot be "
                f"read as {kind!r}: declare what it is"
            )
        columns.append(f"{_cast(quoted(own), kind, types[own])} AS {quoted(new)}")
    return f"SELECT {', '.join(columns)} FROM {name}"


def _cast(column: str, kind: str, type_: str) -> str:
    match kind:
        case "integer" if type_ not in WHOLE:
            fits = f"{column} BETWEEN -9e18 AND 9e18 AND {column} = floor({column})"
            return f"CASE WHEN {fits} THEN {column}::bigint END"
        case "integer":
            return f"{column}::bigint"
        case "number" if type_ == "numeric":  # what no double holds would fail
            near = f"GREATEST(LEAST(round({column}, 150), 1e300), -1e300)"
            return f"CASE WHEN {column} <> 'NaN' THEN {near}::float8 END"
        case "number":
            return f"{column}::float8"
        case "date" | "timestamp":
            moment = f"({column} AT TIME ZONE 'UTC')" if type_ == "timestamptz" else column
            last = "'9999-12-31'" if type_ == "date" else "'9999-12-31 23:59:59.999999'"
            return f"CASE WHEN {moment} BETWEEN '0001-01-01' AND {last} THEN {moment}::{kind} END"
        case "text":
            return f'{column}::text COLLATE "C"'
        case _:
            return column
