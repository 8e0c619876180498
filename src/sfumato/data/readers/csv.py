"""CSV: UTF-8, with a header; types are told from the values, and leading zeros make a column text."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.core.errors import InvalidRequest
from sfumato.data.readers import TableSource

if TYPE_CHECKING:
    import pyarrow as pa

SUMMARY = "a CSV file with a header (UTF-8)"
NEEDS = ("pyarrow",)
EXTRA = "data"

INTEGER = r"^-?(0|[1-9][0-9]{0,17})$"
NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"


def reads(path: Path) -> bool:
    """Return whether the path is named like CSV."""
    return path.is_file() and path.suffix.lower() == ".csv"


def build() -> Csv:
    """Build the reader."""
    return Csv()


class Csv:
    """Reads CSV files."""

    def open(self, path: Path) -> TableSource:
        """Read the header.

        Raises:
            InvalidRequest: no header, a column without a name or two of one name, or not UTF-8.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                header = next(csv.reader(file), [])
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InvalidRequest(f"{path} does not read as CSV in UTF-8 ({type(error).__name__})") from error
        if not header:
            raise InvalidRequest(f"{path} is empty: a header with the names of the columns is needed")
        twice = [name for name in header if header.count(name) > 1]
        if twice or not all(name.strip() for name in header):
            what = f"two columns are named {twice[0]!r}" if twice else "a column has no name"
            raise InvalidRequest(f"{path}: {what}; every column needs a name of its own in the header")
        return CsvSource(path, tuple(header))


class CsvSource:
    """One CSV file."""

    left_out: tuple[tuple[str, str], ...] = ()

    def __init__(self, path: Path, fields: tuple[str, ...]) -> None:
        self.path, self.fields = path, fields

    def load(self, columns: Sequence[str], as_text: Collection[str]) -> pa.Table:
        """Read these columns only; the others are not kept in memory either."""
        import pyarrow as pa
        from pyarrow import csv as arrow

        convert = arrow.ConvertOptions(
            column_types={name: pa.string() for name in columns},
            include_columns=list(columns),
            strings_can_be_null=True,
            null_values=[""],
            quoted_strings_can_be_null=True,
        )
        try:
            table = arrow.read_csv(
                self.path,
                read_options=arrow.ReadOptions(block_size=8 << 20),
                parse_options=arrow.ParseOptions(newlines_in_values=True),
                convert_options=convert,
            )
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            # The library's message quotes the row, which is somebody's.
            raise InvalidRequest(
                f"{self.path} does not read as CSV ({type(error).__name__}): a row has more or fewer fields "
                f"than the header's {len(self.fields)}, or it is not UTF-8"
            ) from None
        _refuse_torn(self.path, len(self.fields), len(table))
        typed = [table[name] if name in as_text else _typed(table[name]) for name in columns]
        return pa.table(dict(zip(columns, typed, strict=True)))


def _refuse_torn(path: Path, width: int, count: int) -> None:
    """Refuse a file with a stray quote: it would take whole rows, dropped columns and all, for one value.

    Raises:
        InvalidRequest: says which line; holds no value.
    """
    line = rows = 0
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row and len(row) != width:
                    raise csv.Error(f"it has {len(row)} fields, and the header has {width}")
                rows, line = rows + bool(row), reader.line_num
    except (OSError, csv.Error) as error:
        raise InvalidRequest(
            f"{path}: the row that begins at line {line + 1} does not read: {error}. Look for a quotation "
            "mark that is not closed or not doubled: it would swallow the columns and rows after it."
        ) from None
    if rows != count + 1:
        raise InvalidRequest(f"{path} can be read as {rows - 1} rows, or as {count}: quote its fields")


def _typed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return text as whole numbers or numbers where every value is written as one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count == len(column):
        return column
    for pattern, kind in ((INTEGER, pa.int64()), (NUMBER, pa.float64())):
        if pc.all(pc.match_substring_regex(column, pattern)).as_py():
            return column.cast(kind)
    return column
