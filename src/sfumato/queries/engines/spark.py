"""Spark, for tables that outgrow one machine: the same bounded sums, and nothing else reaches the driver."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfumato.core.errors import InvalidRequest, SfumatoError
from sfumato.core.plugins import need
from sfumato.queries.bounded import Bounded, Cells, TableRef
from sfumato.queries.engines._bounding import check
from sfumato.queries.engines._cells import arrow_schema, gathered
from sfumato.queries.engines._relations import Shown, shown
from sfumato.queries.engines._sql import Stages, quoted, written

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SUMMARY = "Spark, for tables that outgrow one machine"
NEEDS = ("pyspark", "ibis", "sqlglot", "pyarrow", "pandas")
EXTRA = "queries,spark"

DELIMITED = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
WHOLE = ("tinyint", "smallint", "int", "bigint")
#: Errors of single rows would be answers; times are in UTC.
SETTINGS = {"spark.sql.session.timeZone": "UTC", "spark.sql.ansi.enabled": "false"}


def build(session: SparkSession | None = None, master: str | None = None) -> Spark:
    """Return an engine.

    Args:
        session: an own session; None: the one that runs here already, or a new one.
        master: of the new one, such as "local[2]"; None: as Spark is configured.
    """
    need("the engine 'spark'", NEEDS, EXTRA)
    from pyspark.sql import SparkSession

    if session is None:
        # Its web page shows statements and plans to whoever asks.
        builder = SparkSession.builder.appName("sfumato").config("spark.ui.enabled", "false")
        session = (builder.master(master) if master else builder).getOrCreate()
    return Spark(session)


class Spark:
    """See `Engine`. The session given keeps its settings, and is not stopped."""

    def __init__(self, session: SparkSession) -> None:
        self._session = session.newSession()
        for name, value in SETTINGS.items():
            self._session.conf.set(name, value)

    def close(self) -> None:
        """Do nothing: the session belongs to the caller."""

    def bounded(self, asked: Bounded) -> Cells:
        """Return the exact bounded sums.

        Raises:
            InvalidRequest: a column or table is not there, or numbers could overflow.
            SfumatoError: Spark gave up.
        """
        from pyspark.errors import PySparkException

        check(asked)
        tables = shown(asked)
        names = [f"sfumato_source{place}" for place in range(len(tables))]
        try:
            types = [self._open(table.table, name) for table, name in zip(tables, names, strict=True)]
            whole = all(_whole(table, kinds) for table, kinds in zip(tables, types, strict=True))
            sources = {
                table.name: _cleaned(table, name, kinds, whole)
                for table, name, kinds in zip(tables, names, types, strict=True)
            }

            def run(expression: Any, stages: Stages) -> pa.Table:
                schema = arrow_schema(expression)
                answer = self._session.sql(written(expression, "spark", sources, stages)).toArrow()
                return answer.rename_columns(schema.names).cast(schema)

            return gathered(asked, tables, "integer" if whole else "text", run)
        except PySparkException as error:
            # What Spark says may quote a row.
            raise SfumatoError(
                f"Spark did not answer the question ({type(error).__name__}); nothing was released"
            ) from None
        finally:
            for name in names:
                self._session.catalog.dropTempView(name)

    def _open(self, table: TableRef, name: str) -> dict[str, str]:
        """Give a table a name; return its columns' types."""
        from pyspark.errors import AnalysisException

        try:
            frame = self._frame(table)
        except AnalysisException as error:
            raise InvalidRequest(f"the table {table.place!r} does not read: {error.getCondition()}") from None
        frame.createOrReplaceTempView(name)
        types = dict(frame.dtypes)
        for column in (table.unit, *table.columns):
            if column not in types:
                raise InvalidRequest(
                    f"the table {table.alias!r} has no column {column!r}: {', '.join(types)}"
                )
        return types

    def _frame(self, table: TableRef) -> DataFrame:
        if isinstance(table.place, tuple):
            # Hadoop reads patterns, too: these files are meant as they are called.
            files = [re.sub(r"([*?{}\[\]\\])", r"\\\1", path) for path in table.place]
            if files[0].lower().endswith(DELIMITED):
                return self._session.read.csv(files, header=True, mode="DROPMALFORMED")
            return self._session.read.option("mergeSchema", "true").parquet(*files)
        if not isinstance(table.place, str):
            return self._session.createDataFrame(table.place)
        place = table.place.removeprefix("spark:")
        if place.lower().endswith(DELIMITED):
            return self._session.read.csv(place, header=True, mode="DROPMALFORMED")
        if "/" in place or place.lower().endswith(".parquet"):
            return self._session.read.option("mergeSchema", "true").parquet(place)
        return self._session.table(place)


def _whole(table: Shown, types: dict[str, str]) -> bool:
    declared = table.table.columns.get(table.table.unit, "integer")
    return declared == "integer" and types[table.table.unit] in WHOLE


def _cleaned(table: Shown, name: str, types: dict[str, str], whole: bool) -> str:
    """Return SQL for a table's columns as plain types; what does not fit into them is missing."""
    unit = quoted(table.table.unit, "`")
    columns = [f"CAST({unit} AS {'BIGINT' if whole else 'STRING'}) AS `unit`"]
    columns += [f"{_cast(quoted(own, '`'), kind, types[own])} AS `{new}`" for own, kind, new in table.columns]
    return f"SELECT {', '.join(columns)} FROM {name}"


def _cast(column: str, kind: str, type_: str) -> str:
    match kind:
        case "boolean":
            return f"TRY_CAST({column} AS BOOLEAN)"
        case "integer" if type_ in WHOLE or type_ == "string":
            return f"TRY_CAST({column} AS BIGINT)"
        case "integer":
            number = f"TRY_CAST({column} AS DOUBLE)"
            fits = f"{number} BETWEEN -9e18 AND 9e18 AND {number} = FLOOR({number})"
            return f"CASE WHEN {fits} THEN TRY_CAST({number} AS BIGINT) END"
        case "number":
            return f"TRY_CAST({column} AS DOUBLE)"
        case "date":
            day = f"TRY_CAST({column} AS DATE)"
            return f"CASE WHEN {day} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31' THEN {day} END"
        case "timestamp":
            moment = f"TRY_CAST({column} AS TIMESTAMP)"
            last = "TIMESTAMP '9999-12-31 23:59:59.999999'"
            return f"CASE WHEN {moment} BETWEEN TIMESTAMP '0001-01-01' AND {last} THEN {moment} END"
        case _:
            return f"CAST({column} AS STRING)"
