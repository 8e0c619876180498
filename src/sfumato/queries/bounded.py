"""What an engine is asked, and what it gives back: exact sums over people whose share in them is bounded.

Nothing here is noisy, and nothing here leaves the process: `run.py` adds noise, after the charge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sfumato.queries.model import Expr, Key

MeasureKind = Literal["units", "rows", "sum", "squares", "bins"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One whole number per cell. Of a unit with n rows of a cell (after `where`, without nulls of `of`):

    - units: 1 where n > 0
    - rows: min(n, r)
    - sum: the sum s of v = floor(clamp(of, low * step, high * step) / step + 1/2) over its rows; where n > r,
      scaled to r rows: sign(s) * (|s| * r div n)
    - squares: the same with (v - centre)^2; mean and variance take sums of v - centre as well: see `centred`
    - bins: one number per bin of `of` (a Binned expression: one more dimension, innermost): of the unit's
      different bins in the cell at most r are kept, those with the smallest hash, and each counts 1

    Args:
        low, high: whole numbers of steps that values are clamped into.
        step: width of a step of the public grid, in units of the values.
        centred: take (low + high) div 2 from v.
    """

    kind: MeasureKind
    of: Expr | None = None
    where: Expr | None = None
    low: int = 0
    high: int = 0
    step: Fraction = Fraction(1)
    centred: bool = False

    @property
    def centre(self) -> int:
        """What is taken from every value, in steps."""
        return (self.low + self.high) // 2 if self.centred else 0


@dataclass(frozen=True, slots=True)
class TableRef:
    """A table that an engine can read.

    Args:
        alias: as columns call it.
        unit: its column that names the privacy unit; rows without one are left out.
        place: an Arrow table, files (Parquet or CSV; a text may be a pattern, a tuple is taken literally), or
            a database URL with "#table".
        columns: name -> kind ("boolean", "integer", "number", "text", "date", "timestamp").
        clamps: of numeric columns, the declared bounds: arithmetic sees them clamped, and NaN as missing.
    """

    alias: str
    unit: str
    place: pa.Table | str | tuple[str, ...]
    columns: Mapping[str, str]
    clamps: Mapping[str, tuple[Fraction, Fraction]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounded:
    """A question to an engine. All of it is public but the salt.

    Args:
        tables: the first, and those joined to it on the privacy unit ("inner" or "left", in `joins`).
        where: rows that count.
        keys: with public values each, or all None where keys are chosen privately (`private`).
        groups: in how many cells one unit counts; of more, those with the smallest hash are kept.
        rows: how many rows of a unit count in a cell.
        salt: 16 bytes that no asker knows: the choice of cells is a keyed hash of (salt, unit, cell).
    """

    tables: tuple[TableRef, ...]
    joins: tuple[Literal["inner", "left"], ...]
    where: Expr | None
    keys: tuple[Key, ...]
    groups: int
    rows: int
    measures: tuple[Measure, ...]
    salt: bytes
    private: bool = False

    @property
    def cells(self) -> int:
        """How many cells there are, where keys are public."""
        count = 1
        for key in self.keys:
            count *= len(key.values or ())
        return count


@dataclass(frozen=True, slots=True)
class Cells:
    """The exact answer of an engine.

    Args:
        values: per measure, int64 (cells,), or (cells, bins) for `bins`. With public keys all cells are
            there, in the order of the product of the keys' values, the last key fastest; with private keys in
            that of `keys`. Without keys there is one cell.
        keys: where keys are private: one row per cell that occurs; else None.
    """

    values: tuple[NDArray[np.int64], ...]
    keys: pa.Table | None = None


class Engine(Protocol):
    """Where bounded sums are computed: one file each under `engines/`: SUMMARY, NEEDS, EXTRA and build."""

    def bounded(self, asked: Bounded) -> Cells:
        """Return the exact bounded sums."""
        ...

    def close(self) -> None:
        """Give back what is held open."""
        ...
