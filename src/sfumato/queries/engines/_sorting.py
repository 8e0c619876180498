"""Bounded sums of rows that fit into memory, by sorting: what tables of hashes do, in half the time.

Rows are dealt into buckets by unit, so that each fits into a processor's cache. There a row is one number:
unit, hash of the cell, cell. Sorted, a unit's rows of one cell stand together, and its cells in the order in
which they are chosen: one that counts has none of the same unit k places before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sfumato.queries.bounded import Bounded, Measure
from sfumato.queries.engines._hash import BITS, PRIME, keys_of, of_cell, of_unit

Ints = NDArray[np.int64]
Column = NDArray[Any]

#: Rows of a bucket on average, and of a piece at least: both stay in a processor's cache.
ROWS = 1 << 16
MOST_BUCKETS = 1 << 16
#: Below so many times the rows, units' numbers need no dictionary.
SPARSE = 4
#: What a row takes in memory, in bytes, beside its measures' columns of 16.
BYTES = 40
#: Bits of a cell: with those of a hash, they leave 12 for units.
MOST_BITS = 20
#: Stands for a missing number.
MISSING = -(1 << 63)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a unit, a hash and a cell become one number.

    Args:
        cell: bits of a cell. choice: of hash and cell. low: of a unit within its bucket.
        buckets: how many there are.
    """

    cell: int
    choice: int
    low: int
    buckets: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows by bucket: measures' columns, numbers ("" among them), and where each bucket begins."""

    columns: dict[str, Column]
    begins: Ints


def layout(cells: int, groups: int, units: int, rows: int) -> Layout | None:
    """Return how rows are dealt; None where there are too many units for so many cells.

    >>> layout(cells=1200, groups=5, units=10**6, rows=10**7)
    Layout(cell=11, choice=42, low=12, buckets=245)
    >>> layout(cells=1 << 30, groups=5, units=10**7, rows=10**8)
    """
    cell = (cells - 1).bit_length()
    choice = cell + (BITS if groups < cells else 0)
    low = min((units - 1).bit_length() - (rows // ROWS).bit_length(), 63 - choice)
    low = max(low, 0)
    buckets = ((units - 1) >> low) + 1
    return Layout(cell, choice, low, buckets) if choice + low <= 63 and buckets <= MOST_BUCKETS else None


def sortable(asked: Bounded) -> bool:
    """Return whether a cell, its hash and a few units may go into one number."""
    return not asked.private and (asked.cells - 1).bit_length() <= MOST_BITS


def tally(asked: Bounded, table: pa.Table, *, packed: bool, threads: int) -> list[Ints] | None:
    """Return sums by cell of each measure but bins; None where there are too many units for so many cells.

    Guarantee: the same whole numbers as by SQL.

    Args:
        table: "unit" and "cell", whole numbers, where null is no cell; and "v0", "v1", ... of measures in
            which not every row counts the same: truth values, or whole numbers (null where it does not count).
        packed: units are numbers from 0 times 2^31, plus their hash.
    """
    wanted = [
        (measure, f"v{place}" if f"v{place}" in table.column_names else None)
        for place, measure in enumerate(one for one in asked.measures if one.kind != "bins")
    ]
    if table.column("cell").null_count:
        table = table.filter(table.column("cell").is_valid())
    rows = table.num_rows
    if not rows:
        return [np.zeros(asked.cells, np.int64) for _ in wanted]
    table, units = _numbered(asked, table, packed)
    plan = layout(asked.cells, asked.groups, units.count, rows)
    if plan is None:
        return None
    sorting = _Sorting(asked, plan, units, wanted)
    size, tasks = max(ROWS, plan.buckets << 8), min(plan.buckets, 4 * threads)
    with ThreadPoolExecutor(threads) as pool:
        pieces = list(pool.map(lambda begin: sorting.dealt(table.slice(begin, size)), range(0, rows, size)))
        parts = pool.map(lambda first: sorting.added(pieces, range(first, plan.buckets, tasks)), range(tasks))
        return [np.sum(one, axis=0) for one in zip(*parts, strict=True)]


@dataclass(frozen=True, slots=True)
class Units:
    """How units become numbers from 0.

    Args:
        count: of numbers. first: that becomes 0. hashes: of each number; None where units are packed.
    """

    count: int
    first: int = 0
    hashes: NDArray[np.int32] | None = None

    def numbers(self, column: Ints) -> Ints:
        """Return the numbers of some rows' units."""
        return column >> BITS if self.hashes is None else column.astype(np.int64) - self.first


def _numbered(asked: Bounded, table: pa.Table, packed: bool) -> tuple[pa.Table, Units]:
    """Return how units become numbers, and the rows, with places in a dictionary where they need one."""
    import pyarrow.compute as compute

    least, most = compute.min_max(table.column("unit")).as_py().values()
    if packed:
        return table, Units((most >> BITS) + 1)
    keys = keys_of(asked.salt)
    if most - least < SPARSE * table.num_rows + ROWS:
        count = most - least + 1
        return table, Units(count, least, of_unit(np.arange(count) + least, keys).astype(np.int32))
    found = table.column("unit").dictionary_encode()
    values = found.chunk(0).dictionary.to_numpy()
    places = pa.chunked_array([chunk.indices for chunk in found.chunks])
    table = table.set_column(table.column_names.index("unit"), "unit", places)
    return table, Units(len(values), 0, of_unit(values, keys).astype(np.int32))


def _array(column: pa.ChunkedArray) -> Column:
    if column.null_count:
        column = column.fill_null(MISSING)
    found: Column = column.to_numpy()
    return found


@dataclass(frozen=True, slots=True)
class _Sorting:
    """What is asked of rows.

    Args:
        wanted: measures, and which column each is of, if any.
    """

    asked: Bounded
    plan: Layout
    units: Units
    wanted: Sequence[tuple[Measure, str | None]]

    def dealt(self, table: pa.Table) -> Piece:
        """Return some rows as numbers, by bucket."""
        plan, hashes, found = self.plan, self.units.hashes, table.column("unit").to_numpy()
        unit, cell = self.units.numbers(found), table.column("cell").to_numpy().astype(np.int64)
        number = (unit & ((1 << plan.low) - 1)) << plan.choice
        if plan.choice > plan.cell:
            hashed = found & PRIME if hashes is None else hashes[unit].astype(np.int64)
            number |= of_cell(hashed, cell, keys_of(self.asked.salt).cell) << plan.cell
        number |= cell
        # Of 8 and 16 bits, numpy sorts by counting.
        bucket = (unit >> plan.low).astype(np.uint8 if plan.buckets <= 256 else np.uint16)
        order = bucket.argsort(kind="stable")
        begins = np.zeros(plan.buckets + 1, np.int64)
        np.cumsum(np.bincount(bucket, minlength=plan.buckets), out=begins[1:])
        columns = {name: _array(table.column(name))[order] for _, name in self.wanted if name}
        return Piece(columns | {"": number[order]}, begins)

    def added(self, pieces: Sequence[Piece], buckets: Sequence[int]) -> list[Ints]:
        """Return the sums of some buckets by cell."""
        found = [self._bucket(pieces, bucket) for bucket in buckets]
        cells, size = np.concatenate([cells for cells, _ in found]), self.asked.cells
        sums: list[Ints] = []
        for place in range(len(self.wanted)):
            values = [some for _, every in found if (some := every[place]) is not None]
            # Exact: below 2^53, as long as fewer than 2^31 rows add less than 2^22 each.
            weights = np.concatenate(values) if values else None
            sums.append(np.bincount(cells, weights, minlength=size).astype(np.int64))
        return sums

    def _bucket(self, pieces: Sequence[Piece], bucket: int) -> tuple[Ints, list[Ints | None]]:
        """Return, of each unit and cell that was chosen, the cell, and what it adds to each measure."""
        columns = {
            name: np.concatenate(
                [piece.columns[name][piece.begins[bucket] : piece.begins[bucket + 1]] for piece in pieces]
            )
            for name in pieces[0].columns
        }
        numbers: Ints = columns.pop("")
        # By 16 bits numpy sorts by counting, and what is nearly in order it sorts in a few steps a row.
        high = numbers >> max(self.plan.choice + self.plan.low - 16, 0)
        order = high.astype(np.uint16).argsort(kind="stable")
        numbers = numbers[order]
        if columns:
            last = numbers.argsort(kind="stable")
            numbers, order = numbers[last], order[last]
            columns = {name: column[order] for name, column in columns.items()}
        else:
            numbers.sort(kind="stable")
        new = np.ones(len(numbers), np.bool_)
        np.not_equal(numbers[1:], numbers[:-1], out=new[1:])
        pairs = numbers[new]
        chosen = np.ones(len(pairs), np.bool_)
        if self.plan.choice > self.plan.cell:
            unit, k = pairs >> self.plan.choice, self.asked.groups
            np.not_equal(unit[k:], unit[:-k], out=chosen[k:])
        cells = pairs[chosen] & ((1 << self.plan.cell) - 1)
        begins: Ints = (
            np.flatnonzero(new).astype(np.int64, copy=False) if columns or self.asked.rows > 1 else pairs
        )
        values = [
            self._values(measure, begins, columns.get(name or ""), len(numbers))
            for measure, name in self.wanted
        ]
        return cells, [None if value is None else value[chosen] for value in values]

    def _values(self, measure: Measure, begins: Ints, column: Column | None, rows: int) -> Ints | None:
        """Return what each run of rows adds to a measure; None where it is 1."""
        most = 1 if measure.kind == "units" else self.asked.rows
        if column is None:
            return None if most == 1 else np.minimum(np.diff(begins, append=rows), most)
        if not rows:
            return begins
        there = column if column.dtype == np.bool_ else column != MISSING
        count: Ints = np.add.reduceat(there, begins, dtype=np.int64)
        if measure.kind in ("units", "rows"):
            return np.minimum(count, most)
        total: Ints = np.add.reduceat(np.where(there, column, 0), begins)
        scaled: Ints = np.sign(total) * (np.abs(total) * most // np.maximum(count, most))
        return scaled
