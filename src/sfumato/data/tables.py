"""Tables on their way in: pseudonyms, generalisation, checks; and as bytes in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sfumato.core.dataset_policy import DatasetSection, Rule
from sfumato.core.errors import IntegrityError, InvalidRequest
from sfumato.data.disclosure import Disclosure, disclosure
from sfumato.data.generalise import generalised
from sfumato.data.readers import TableSource
from sfumato.data.unit import refuse_without


def read_minimised(
    source: TableSource, rules: DatasetSection, kept: tuple[str, ...], pseudonym: Callable[[str], str]
) -> pa.Table:
    """Read the unit and what is kept, with pseudonyms for people and coarse values.

    Args:
        pseudonym: from what identifies a person to their pseudonym.

    Returns:
        A table whose first column is the unit, as pseudonyms.

    Raises:
        InvalidRequest: no rows, rows without a unit, or values that a rule does not fit.
    """
    text = {rules.unit} | {name for name, rule in rules.generalise.items() if rule.kind == "prefix"}
    table = source.load([rules.unit, *kept], text)
    if not len(table):
        raise InvalidRequest("the table has no rows: nothing was added")
    columns = {rules.unit: _people(table[rules.unit], rules.unit, pseudonym)}
    for name in kept:
        rule = rules.generalise.get(name)
        columns[name] = _coarse(table[name], rule, name) if rule is not None else table[name]
    return pa.table(columns).replace_schema_metadata(None)


def tested(table: pa.Table, rules: DatasetSection) -> Disclosure | None:
    """Return the disclosure checks that the rules ask for; None where they name no quasi-identifier."""
    quasi = [name for name in rules.quasi_identifiers if name != rules.unit]
    sensitive = [name for name in rules.sensitive if name != rules.unit]
    return disclosure(table, quasi, sensitive, rules.unit) if quasi else None


def to_bytes(table: pa.Table) -> bytes:
    """Return a table as Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def from_bytes(data: bytes) -> pa.Table:
    """Read a table back.

    Raises:
        IntegrityError: it is not Parquet.
    """
    try:
        # In this thread alone: another may outlive the read, and abort the exit (apache/arrow#34314).
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            return file.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(f"a stored table does not read ({type(error).__name__})") from error


def empty_table(columns: Sequence[tuple[str, str]]) -> pa.Table:
    """Return a table of no rows, by the names and types that a version states."""
    fields = []
    for name, kind in columns:
        try:
            fields.append(pa.field(name, pa.type_for_alias(kind)))
        except ValueError:  # a type with settings, such as a time zone
            fields.append(pa.field(name, pa.null()))
    return pa.schema(fields).empty_table()


def by_subject(table: pa.Table, unit: str) -> Iterator[tuple[str, pa.Table]]:
    """Yield each person's rows, in the order of their pseudonyms."""
    order = pc.sort_indices(table, sort_keys=[(unit, "ascending")])
    ordered = table.take(order).combine_chunks()
    names, starts = np.unique(ordered[unit].to_numpy(zero_copy_only=False), return_index=True)
    ends = [*starts[1:], len(ordered)]
    for name, start, end in zip(names, starts, ends, strict=True):
        yield str(name), ordered.slice(int(start), int(end - start))


def _people(column: pa.ChunkedArray, unit: str, pseudonym: Callable[[str], str]) -> pa.ChunkedArray:
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    bad = pc.fill_null(pc.equal(text, ""), True)
    if missing := int(pc.sum(bad).as_py() or 0):
        first = np.flatnonzero(bad.to_numpy())[:5] + 1
        refuse_without(missing, len(column), [f"row {row}" for row in first], unit, "rows")
    return _mapped(text, lambda values: [pseudonym(value) for value in values])


def _coarse(column: pa.ChunkedArray, rule: Rule, name: str) -> pa.ChunkedArray:
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)  # not a number is a missing one
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)  # Python knows no nanoseconds
    return _mapped(column, lambda values: generalised(values, rule, name))


def _mapped(column: pa.ChunkedArray, change: Callable[[list[Any]], list[Any]]) -> pa.ChunkedArray:
    """Change every value, once per different value."""
    encoded = pc.dictionary_encode(column).combine_chunks()
    array = encoded if isinstance(encoded, pa.DictionaryArray) else encoded.chunk(0)
    changed = pa.array(change(array.dictionary.to_pylist()))
    return pa.chunked_array([changed.take(array.indices)])
