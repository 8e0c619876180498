"""DuckDB, in this process: Arrow tables, Parquet and CSV files."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest, SfumatoError
from sfumato.core.plugins import need
from sfumato.queries.bounded import Bounded, Cells, TableRef
from sfumato.queries.engines._bounding import check, rows
from sfumato.queries.engines._cells import gathered
from sfumato.queries.engines._hash import BITS, PRIME, keys_of
from sfumato.queries.engines._relations import Shown, shown
from sfumato.queries.engines._sorting import BYTES, FAR, MOST_ROWS, shape, sortable, tally
from sfumato.queries.engines._sql import WRITTEN, Stages, quoted, written

SUMMARY = "DuckDB, in this process: Arrow tables, Parquet and CSV files"
NEEDS = ("duckdb", "ibis", "sqlglot", "pyarrow")
EXTRA = "queries"

#: What texts stand between.
MARK = "'"
DELIMITED = (".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz")
#: Nothing is fetched or installed, order is of no interest, and times are in UTC.
SETTINGS = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET enable_progress_bar = false",
    "SET preserve_insertion_order = false",
    "SET TimeZone = 'UTC'",
)
WHOLE = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
)
#: Rows that come from DuckDB at once.
BATCH = 1 << 16
#: In so many parts, one after another, a table is read that is too large for the memory.
MOST_PARTS = 64
#: Dates that all engines and Python know.
FIRST, LAST = "0001-01-01", "9999-12-31"


def build(threads: int | None = None, memory: str | None = None) -> DuckDB:
    """Open an engine of its own, in memory.

    Args:
        threads: how many it uses; None: all cores.
        memory: the most it takes, as in "4GB"; None: most of the machine's.
    """
    need("the engine 'duckdb'", NEEDS, EXTRA)
    return DuckDB(threads, memory)


class DuckDB:
    """See `Engine`. What does not fit into memory goes to a temporary folder."""

    def __init__(self, threads: int | None = None, memory: str | None = None) -> None:
        import duckdb

        config: dict[str, Any] = {} if threads is None else {"threads": threads}
        config |= {} if memory is None else {"memory_limit": memory}
        self._connection = duckdb.connect(":memory:", config=config)
        for setting in SETTINGS:
            self._connection.execute(setting)
        told = "SELECT current_setting('threads'), current_setting('memory_limit')"
        ((self._threads, limit),) = self._connection.execute(told).fetchall()
        self._memory = _bytes(limit)

    def close(self) -> None:
        """Give the memory back."""
        self._connection.close()

    def bounded(self, asked: Bounded) -> Cells:
        """Return the exact bounded sums.

        Raises:
            InvalidRequest: a column or a file is not there, or numbers could overflow.
            SfumatoError: there is not enough memory, or a file is damaged.
        """
        import duckdb

        check(asked)
        tables = shown(asked)
        names = [f"source{place}" for place in range(len(tables))]
        try:
            types = [self._open(table.table, name) for table, name in zip(tables, names, strict=True)]
            whole = all(_whole(table, kinds) for table, kinds in zip(tables, types, strict=True))
            if sortable(asked):
                found = self._sorted(asked, tables, names, types, whole)
                if found is not None:
                    shapes = zip(asked.measures, found, strict=True)
                    return Cells(tuple(one.reshape(shape(asked, measure)) for measure, one in shapes))
            if not whole:
                self._units(tables[0].table, names[0], asked.salt)
            unit = "integer" if whole else "packed"
            sources = _cleaned(tables, names, types, unit)

            def run(expression: Any, stages: Stages) -> pa.Table:
                return self._connection.sql(written(expression, "duckdb", sources, stages)).to_arrow_table()

            return gathered(asked, tables, unit, run, speed="packed")
        except duckdb.Error as error:
            # What DuckDB says may quote a row.
            raise SfumatoError(
                f"DuckDB did not answer the question ({type(error).__name__}); nothing was released"
            ) from None
        finally:
            for name in names:
                self._connection.execute(f"DROP VIEW IF EXISTS {name}")
                self._connection.unregister(name)
            self._connection.execute("DROP TABLE IF EXISTS units")

    def _sorted(
        self,
        asked: Bounded,
        tables: Sequence[Shown],
        names: Sequence[str],
        types: Sequence[Mapping[str, str]],
        whole: bool,
    ) -> list[NDArray[np.int64]] | None:
        """Return all measures by sorting; None where that cannot be.

        What is too large for half of the memory is read in parts, by unit: their sums are added up.
        """
        many, parts, unit = self._rows(asked), 1, "integer" if whole else "named"
        most = min(self._memory // 2 // (BYTES + 16 * len(asked.measures)), MOST_ROWS)
        known = None if whole else self._names(tables, names, asked.salt)
        if not whole and (known is None or 2 * len(known) > most):
            return None
        sources = _cleaned(tables, names, types, unit)
        while many is not None and many > most * parts:
            parts *= 2
        while parts <= MOST_PARTS:
            total: list[NDArray[np.int64]] | None = None
            for part in range(parts):
                stages = Stages()
                expression = rows(asked, tables, unit, stages, part, parts)
                answer = self._connection.sql(written(expression, "duckdb", sources, stages))
                table = _within(answer, None if many is not None and parts == 1 else most)
                if table is None:
                    break
                try:
                    found = tally(asked, table, threads=self._threads, names=known)
                except MemoryError:
                    found = None
                if found is None:
                    return None
                total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
                if max(int(np.abs(sums).max()) for sums in total) >= FAR:
                    return None
                del table
            else:
                return total
            parts *= 2
        return None

    def _rows(self, asked: Bounded) -> int | None:
        """Return how many rows are read, where that is quickly known and no join makes more of them."""
        place = asked.tables[0].place
        if len(asked.tables) > 1 or (not isinstance(place, pa.Table) and _delimited(place)):
            return None
        ((rows,),) = self._connection.execute("SELECT count(*) FROM source0").fetchall()
        return int(rows)

    def _open(self, table: TableRef, name: str) -> dict[str, str]:
        """Give a table a name; return its columns' types."""
        import duckdb

        if isinstance(table.place, (str, tuple)):
            try:
                self._connection.execute(f"CREATE VIEW {name} AS SELECT * FROM {_reading(table.place)}")
            except (duckdb.Error, OSError, csv.Error, UnicodeDecodeError) as error:
                # Its own words may quote a row.
                raise InvalidRequest(
                    f"the table {table.alias!r} does not read ({type(error).__name__}): its files must be "
                    "Parquet, or CSV with one header, commas between values and quotes around what has commas"
                ) from None
        else:
            self._connection.register(name, table.place)
        found = self._connection.execute(f"DESCRIBE {name}").fetchall()
        types = {str(row[0]): str(row[1]) for row in found}
        for column in (table.unit, *table.columns):
            if column not in types:
                raise InvalidRequest(
                    f"the table {table.alias!r} has no column {column!r}: {', '.join(types)}"
                )
        return types

    def _units(self, table: TableRef, name: str, salt: bytes) -> None:
        """Give every unit of the first table a number, with its hash in the last 31 bits."""
        self._connection.execute(
            f"CREATE TEMP TABLE units AS {_mixed({name: table}, salt)} SELECT unit, "
            f"row_number() OVER () * {1 << BITS} + hash AS packed FROM mixed"
        )

    def _names(self, tables: Sequence[Shown], names: Sequence[str], salt: bytes) -> pa.Table | None:
        """Return a number for every unit, "name", with its "hash"; None where two have the same."""
        places = {name: table.table for name, table in zip(names, tables, strict=True)}
        sql = f"{_mixed(places, salt)} SELECT {_named('unit')} AS name, hash FROM mixed"
        known = self._connection.sql(sql).to_arrow_table().combine_chunks()
        found = np.sort(known.column("name").to_numpy())
        return None if (found[1:] == found[:-1]).any() else known


def _mixed(tables: Mapping[str, TableRef], salt: bytes) -> str:
    """Return SQL for "mixed": every unit of some tables that is known by text, and its hash."""
    digest = WRITTEN["sfumato_digest"]["duckdb"].format("unit")
    a, b, _, d = keys_of(salt).unit
    mixed = f"((digest & {PRIME}) * {a} + (digest >> {BITS}) * {b} + {d}) % {PRIME}"
    units = [
        f"SELECT DISTINCT {_text(quoted(table.unit))} AS unit FROM {name}" for name, table in tables.items()
    ]
    return (
        f"WITH a AS ({' UNION '.join(units)}), "
        f"b AS (SELECT unit, {digest} AS digest FROM a WHERE unit IS NOT NULL), "
        f"c AS (SELECT unit, {mixed} AS mixed FROM b), "
        "mixed AS (SELECT unit, xor(mixed, mixed >> 15) AS hash FROM c)"
    )


def _named(text: str) -> str:
    """Return SQL for a number below 2^63 of a text, where it is no null."""
    return f"CAST(hash({text}) >> 1 AS BIGINT)"


def _within(answer: Any, most: int | None) -> pa.Table | None:
    """Return an answer; None where it has too many rows. Without a bound, all threads write it."""
    if most is None:
        return answer.to_arrow_table(BATCH)
    reader, batches, rows = answer.to_arrow_reader(BATCH), [], 0
    for batch in reader:
        batches.append(batch)
        rows += batch.num_rows
        if rows > most:
            return None
    return pa.Table.from_batches(batches, reader.schema)


def _bytes(size: str) -> int:
    """Return how many bytes DuckDB means.

    >>> _bytes("1.5 GiB"), _bytes("512 bytes")
    (1610612736, 512)
    """
    number, unit = size.split()
    return int(float(number) * 1024 ** (" KMGTP".find(unit[0]) if unit.endswith("iB") else 0))


def _reading(place: str | tuple[str, ...]) -> str:
    """Return SQL that reads files."""
    paths = [place] if isinstance(place, str) else [_literal(path) for path in place]
    listed = f"[{', '.join(quoted(path, MARK) for path in paths)}]"
    if not _delimited(place):
        return f"read_parquet({listed}, union_by_name = true, hive_partitioning = false)"
    delimiter = "\t" if ".tsv" in paths[0].lower()[-8:] else ","
    files = sorted(glob(place, recursive=True)) or [place] if isinstance(place, str) else place  # noqa: PTH207
    told = ", ".join(f"{quoted(name, MARK)}: 'VARCHAR'" for name in _header(files, delimiter))
    # Said, never guessed: a guess goes by the first rows, and so by the people in them.
    return (
        f"read_csv({listed}, auto_detect = false, header = true, delim = '{delimiter}', quote = '\"', "
        f"escape = '\"', columns = {{{told}}}, ignore_errors = true)"
    )


def _delimited(place: str | tuple[str, ...]) -> bool:
    return (place if isinstance(place, str) else place[0]).lower().endswith(DELIMITED)


def _header(paths: Sequence[str], delimiter: str) -> list[str]:
    """Return the columns of CSV files, which all have the same."""
    found: list[str] | None = None
    for path in paths:
        with _opened(path) as file:
            header = next(csv.reader(file, delimiter=delimiter), [])
        if found is not None and header != found:
            raise InvalidRequest(f"CSV files of one table need the same columns, and {path} has others")
        if not header or "" in header or len({name.lower() for name in header}) < len(header):
            raise InvalidRequest(f"the first line of {path} must name each column once: give it a header")
        found = header
    return found or []


def _opened(path: str) -> IO[str]:
    kind = path.lower().rpartition(".")[2]
    if kind == "zst":
        raise InvalidRequest(f"{path}: of compressed CSV files, .gz is read; or write Parquet")
    if kind == "gz":
        return gzip.open(path, "rt", newline="", encoding="utf-8-sig")
    return Path(path).open(newline="", encoding="utf-8-sig")


def _literal(path: str) -> str:
    """Return a pattern that this path alone fits."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)


def _whole(table: Shown, types: dict[str, str]) -> bool:
    """Return whether units are whole numbers, as stored and as declared."""
    declared = table.table.columns.get(table.table.unit, "integer")
    return declared == "integer" and types[table.table.unit] in WHOLE


def _cleaned(
    tables: Sequence[Shown], names: Sequence[str], types: Sequence[Mapping[str, str]], unit: str
) -> dict[str, str]:
    """Return SQL for each table's columns as plain types; what does not fit into them is missing.

    Args:
        unit: "integer", "packed" by the table "units", or "named" by `_named`.
    """
    found = {}
    for table, name, kinds in zip(tables, names, types, strict=True):
        own = quoted(table.table.unit)
        text = _text(f"{name}.{own}")
        first = {
            "integer": f"TRY_CAST({own} AS BIGINT)",
            "packed": "units.packed",
            "named": f"CASE WHEN {text} IS NOT NULL THEN {_named(text)} END",
        }[unit]
        columns = [
            f"{_cast(quoted(column), kind, kinds[column])} AS {quoted(new)}"
            for column, kind, new in table.columns
        ]
        source = f"{name} JOIN units ON {text} = units.unit" if unit == "packed" else name
        found[table.name] = f"SELECT {', '.join([f'{first} AS unit', *columns])} FROM {source}"
    return found


def _text(column: str) -> str:
    return f"TRY_CAST({column} AS VARCHAR)"


def _cast(column: str, kind: str, type_: str) -> str:
    match kind:
        case "boolean":
            return f"TRY_CAST({column} AS BOOLEAN)"
        case "integer" if type_ in WHOLE or type_ == "VARCHAR":
            return f"TRY_CAST({column} AS BIGINT)"
        case "integer":
            number = f"TRY_CAST({column} AS DOUBLE)"
            return f"CASE WHEN {number} = floor({number}) THEN TRY_CAST({number} AS BIGINT) END"
        case "number":
            return f"TRY_CAST({column} AS DOUBLE)"
        case "date":
            day = f"TRY_CAST({column} AS DATE)"
            return f"CASE WHEN {day} BETWEEN DATE '{FIRST}' AND DATE '{LAST}' THEN {day} END"
        case "timestamp":
            moment = f"TRY_CAST({column} AS TIMESTAMP)"
            end = f"TIMESTAMP '{LAST} 23:59:59.999999'"
            return f"CASE WHEN {moment} BETWEEN TIMESTAMP '{FIRST}' AND {end} THEN {moment} END"
        case _:
            return _text(column)
