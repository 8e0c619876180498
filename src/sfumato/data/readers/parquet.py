"""Parquet: columns of plain values; the file's own metadata stays outside."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.core.errors import InvalidRequest
from sfumato.data.readers import TableSource

if TYPE_CHECKING:
    import pyarrow as pa

SUMMARY = "a Parquet file"
NEEDS = ("pyarrow",)
EXTRA = "data"


def reads(path: Path) -> bool:
    """Return whether the path is named like Parquet."""
    return path.is_file() and path.suffix.lower() in (".parquet", ".pq")


def build() -> Parquet:
    """Build the reader."""
    return Parquet()


class Parquet:
    """Reads Parquet files."""

    def open(self, path: Path) -> TableSource:
        """Read the schema.

        Raises:
            InvalidRequest: not Parquet, or two columns of one name.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            names = tuple(pq.read_schema(path).names)
        except (pa.ArrowException, OSError) as error:
            raise InvalidRequest(f"{path} does not read as Parquet ({type(error).__name__})") from error
        if len(set(names)) < len(names) or not names:
            raise InvalidRequest(f"{path} has no columns, or two of one name")
        return ParquetSource(path, names)


class ParquetSource:
    """One Parquet file."""

    left_out: tuple[tuple[str, str], ...] = ()

    def __init__(self, path: Path, fields: tuple[str, ...]) -> None:
        self.path, self.fields = path, fields

    def load(self, columns: Sequence[str], as_text: Collection[str]) -> pa.Table:
        """Read these columns only."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as file:
                table = file.read(columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise InvalidRequest(f"{self.path} does not read as Parquet ({type(error).__name__})") from None
        result = {}
        for name in columns:
            column = table[name]
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            if pa.types.is_nested(column.type):
                raise InvalidRequest(
                    f"the column {name!r} holds lists or records ({column.type}); flatten it, or take it off "
                    "the keep list"
                )
            result[name] = _text(column, name) if name in as_text else column
        return pa.table(result)


def _text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    import pyarrow as pa

    try:
        return column.cast(pa.string())
    except pa.ArrowException:
        # The library's message may quote a value.
        raise InvalidRequest(
            f"the column {name!r} ({column.type}) cannot be read as text, which its use needs"
        ) from None
