"""Tables with everything in them that a row can hold, and the three engines to ask about them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from city import city  # noqa: F401  a fixture

from sfumato.queries.bounded import Bounded, Cells, TableRef

_spec = importlib.util.spec_from_file_location(
    "ledger_conftest", Path(__file__).parents[1] / "core" / "conftest.py"
)
_core = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_core)
postgres = _core.postgres

DATABASE = {
    "text": "text",
    "integer": "bigint",
    "number": "float8",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp",
}
Ask = Callable[[Bounded], Cells]


@pytest.fixture(scope="session")
def duckdb() -> Iterator[Ask]:
    """DuckDB, with one thread."""
    pytest.importorskip("duckdb", reason="needs duckdb: pip install 'sfumato[queries]'")
    pytest.importorskip("ibis", reason="needs ibis: pip install 'sfumato[queries]'")
    from sfumato.queries.engines.duckdb import build

    engine = build(threads=1)
    yield engine.bounded
    engine.close()


@pytest.fixture(scope="session")
def in_postgres(postgres, duckdb) -> Iterator[Ask]:
    """PostgreSQL: Arrow tables of a question are brought there first."""
    import psycopg

    from sfumato.queries.engines.postgres import build

    engine, url, made = build(), postgres.url(), []

    def stored(table: TableRef) -> TableRef:
        name = f"table{len(made)}"
        made.append(name)
        kinds = {column: DATABASE[kind] for column, kind in table.columns.items()}
        kinds.setdefault(
            table.unit, "bigint" if pa.types.is_integer(table.place.schema.field(table.unit).type) else "text"
        )
        with psycopg.connect(url) as connection:
            columns = ", ".join(f'"{column}" {kind}' for column, kind in kinds.items())
            connection.execute(f"CREATE TABLE {name} ({columns})")
            with connection.cursor().copy(f"COPY {name} FROM STDIN") as copy:
                for row in table.place.to_pylist():
                    copy.write_row([row[column] for column in kinds])
        return replace(table, place=f"{url}#{name}")

    def ask(asked: Bounded) -> Cells:
        return engine.bounded(replace(asked, tables=tuple(stored(table) for table in asked.tables)))

    yield ask
    engine.close()


@pytest.fixture(scope="session")
def in_spark(duckdb) -> Iterator[Ask]:
    """Spark, local, with one core."""
    pyspark = pytest.importorskip("pyspark", reason="needs pyspark: pip install 'sfumato[spark]'")
    import shutil
    import warnings

    if shutil.which("java") is None:
        pytest.skip("needs Java: apt-get install openjdk-17-jre-headless")
    from sfumato.queries.engines.spark import Spark

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Spark, about pandas 3, whose parts are not used
        builder = pyspark.sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
        builder = builder.config("spark.sql.shuffle.partitions", 2).config(
            "spark.ui.showConsoleProgress", "false"
        )
        session = builder.getOrCreate()
    yield Spark(session).bounded
    session.stop()
