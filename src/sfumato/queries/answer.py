"""A noisy answer: a table with errors and intervals, what it cost, and what it is worth."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfumato.core.errors import InvalidRequest, MissingExtra
from sfumato.core.files import write_whole
from sfumato.core.numbers import text
from sfumato.queries import tabular

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

FORMAT = "sfumato-answer/1"
#: Beside each figure NAME: its standard error, and the ends of its 95 % interval.
BESIDE = ("error", "low", "high")
AMOUNTS = ("epsilon", "delta", "rho")
_TYPES = {
    str(kind): kind for kind in (pa.bool_(), pa.int32(), pa.int64(), pa.float64(), pa.string(), pa.date32())
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What was charged for an answer.

    Args:
        epsilon, delta: of the whole statement.
        rho: of Gaussian noise, in zero-concentrated differential privacy.
        population, share: who paid.
    """

    epsilon: Fraction
    delta: Fraction = Fraction(0)
    rho: Fraction = Fraction(0)
    population: str = ""
    share: str = ""

    def __str__(self) -> str:
        said = f"epsilon {text(self.epsilon)}"
        return f"{said}, delta {float(self.delta):.3g}" if self.delta else said


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """A noisy answer. Printed, it is a table; `to_pandas()`, `to_polars()`, `to_arrow()` hand it on.

    >>> print(Answer(pa.table({"n": [12], "n_error": [2.8], "n_low": [6], "n_high": [18]}), (), ("n",)))
     n  95 % interval
    12        6 .. 18
    epsilon 0

    Guarantee: what it holds was computed from noisy numbers and public facts; copies of it cost nothing.

    Args:
        table: a row per group: the keys, and for each figure NAME also NAME_error (standard error), NAME_low
            and NAME_high (95 % interval). Null is missing: too few rows to tell, or, in a key, the total over
            it.
        keys, figures: names of columns.
        notes: what readers have to know about how figures were finished.
        guarantee: what is promised to whom, in a sentence or two.
        receipt: where the receipt lies.
        replayed: the same question had been answered before: no new noise, and no new charge.
    """

    table: pa.Table
    keys: tuple[str, ...]
    figures: tuple[str, ...]
    notes: tuple[str, ...] = ()
    cost: Cost = field(default=Cost(Fraction(0)))
    guarantee: str = ""
    receipt: str = ""
    replayed: bool = False

    def __post_init__(self) -> None:
        wanted = columns(self.keys, self.figures)
        if tuple(self.table.column_names) != wanted:
            raise InvalidRequest(
                f"an answer's table has the columns {', '.join(wanted)}, got "
                f"{', '.join(self.table.column_names)}"
            )

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.table.to_pylist())

    def __str__(self) -> str:
        return "\n".join([*tabular.text(self.table, self.keys, self.figures), *self._below()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        below = "".join(f"<br>{html.escape(line)}" for line in self._below())
        return f"{tabular.markup(self.table, self.keys, self.figures)}<p><small>{below[4:]}</small></p>"

    def _below(self) -> list[str]:
        paid = "replayed at no cost; first answered for" if self.replayed else ""
        lines = [f"{paid} {self.cost}".strip() + (f" of {self.cost.share}" if self.cost.share else "")]
        if self.receipt:
            lines[0] += f"; receipt {self.receipt}"
        return [*lines, *(f"note: {note}" for note in self.notes)]

    def to_arrow(self) -> pa.Table:
        """Return the Arrow table."""
        return self.table

    def to_pandas(self) -> pd.DataFrame:
        """Return a pandas frame; what is missing is NaN.

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            import pandas  # noqa: F401
        except ImportError as error:
            raise MissingExtra("an answer as a pandas frame", ("pandas",), "queries") from error
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    def to_polars(self) -> pl.DataFrame:
        """Return a polars frame; what is missing is null.

        Raises:
            MissingExtra: polars is not installed.
        """
        try:
            import polars as pl
        except ImportError as error:
            raise MissingExtra("an answer as a polars frame", ("polars",), "queries") from error
        frame = pl.from_arrow(self.table)
        return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()

    def to_csv(self, path: str | Path) -> None:
        """Write the table as CSV with a header; the file appears whole, and what is missing is empty."""
        from pyarrow import csv

        sink = pa.BufferOutputStream()
        csv.write_csv(self.table, sink)
        write_whole(Path(path), sink.getvalue().to_pybytes())

    def to_json(self) -> str:
        """Return JSON that `from_json` reads back exactly: rows as objects, and everything beside them."""
        return json.dumps(self.to_data(), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, document: str) -> Answer:
        """Read what `to_json` wrote.

        Raises:
            InvalidRequest: not an answer.
        """
        try:
            return cls.from_data(json.loads(document))
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"this is no stored answer of format {FORMAT}: {error}") from error

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        cost = {
            name: text(value) if isinstance(value, Fraction) else value
            for name, value in asdict(self.cost).items()
        }
        return {
            "format": FORMAT,
            "keys": list(self.keys),
            "figures": list(self.figures),
            "columns": {item.name: str(item.type) for item in self.table.schema},
            "rows": [{name: _plain(value) for name, value in row.items()} for row in self],
            "notes": list(self.notes),
            "cost": cost,
            "guarantee": self.guarantee,
            "receipt": self.receipt,
            "replayed": self.replayed,
        }

    @classmethod
    def from_data(cls, data: Any) -> Answer:
        """Read what `to_data` gave.

        Raises:
            InvalidRequest: not an answer.
        """
        try:
            if data["format"] != FORMAT:
                raise ValueError(f"format {data['format']!r}")
            schema = pa.schema([(name, _type(kind)) for name, kind in data["columns"].items()])
            read = {item.name: _reader(item.type) for item in schema}
            rows = [{name: read[name](value) for name, value in row.items()} for row in data["rows"]]
            cost = {**data["cost"], **{name: Fraction(data["cost"][name]) for name in AMOUNTS}}
            return cls(
                table=pa.Table.from_pylist(rows, schema=schema),
                keys=tuple(data["keys"]),
                figures=tuple(data["figures"]),
                notes=tuple(data["notes"]),
                cost=Cost(**cost),
                guarantee=data["guarantee"],
                receipt=data["receipt"],
                replayed=data["replayed"],
            )
        except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
            raise InvalidRequest(f"this is no stored answer of format {FORMAT}: {error}") from error


def columns(keys: tuple[str, ...], figures: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of an answer's columns.

    >>> columns(("hour",), ("n",))
    ('hour', 'n', 'n_error', 'n_low', 'n_high')

    Raises:
        InvalidRequest: two of them would have the same name.
    """
    names = [
        *keys,
        *(name for figure in figures for name in (figure, *(f"{figure}_{end}" for end in BESIDE))),
    ]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(
                f"two columns of the answer would be called {name!r} (each figure NAME also has "
                f"{', '.join(f'NAME_{end}' for end in BESIDE)}): give one of them another name"
            )
    return tuple(names)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, (date, datetime)) else value


def _type(kind: str) -> pa.DataType:
    if kind in _TYPES:
        return _TYPES[kind]
    if match := re.fullmatch(r"timestamp\[(s|ms|us|ns)(?:, tz=([\w/+:-]+))?\]", kind):
        return pa.timestamp(match[1], match[2])
    raise ValueError(f"a column of type {kind!r}")


def _reader(kind: pa.DataType) -> Callable[[Any], Any]:
    if pa.types.is_date(kind):
        return lambda value: None if value is None else date.fromisoformat(value)
    if pa.types.is_timestamp(kind):
        return lambda value: None if value is None else datetime.fromisoformat(value)
    return lambda value: value
