"""Bounded sums of rows that fit into memory, by sorting: what tables of hashes do, in half the time.

Rows are dealt into buckets by unit, so that each fits into a processor's cache. There a row is one number:
unit, hash of the cell, cell. Sorted, a unit's rows of one cell stand together, and its cells in the order in
which they are chosen: one that counts has none of the same unit k places before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sfumato.queries.bounded import Bounded, Measure
from sfumato.queries.engines._bounding import reach
from sfumato.queries.engines._hash import BITS, keys_of, of_cell, of_unit
from sfumato.queries.engines._places import Places, UnknownValueError
from sfumato.queries.model import Binned

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
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
#: Each thread has so many sums of each measure, at most.
MOST_SUMS = 1 << 22
#: Below this stay all sums of a unit's rows, scaled, and of a cell.
FAR = 1 << 62
#: Fewer rows at once than 2^30, of half a value's bits each: their sums are exact in floats of 64 bits.
MOST_ROWS = 1 << 30
HALF = 22
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


def layout(asked: Bounded, units: int, rows: int) -> Layout | None:
    """Return how rows are dealt; None where there are too many units for so many cells."""
    cell = (asked.cells - 1).bit_length()
    hashed = asked.groups < asked.cells or any(few(measure, asked.rows) for measure in asked.measures)
    choice = cell + (BITS if hashed else 0)
    low = min((units - 1).bit_length() - (rows // ROWS).bit_length(), 63 - choice)
    low = max(low, 0)
    buckets = ((units - 1) >> low) + 1
    return Layout(cell, choice, low, buckets) if choice + low <= 63 and buckets <= MOST_BUCKETS else None


def shape(asked: Bounded, measure: Measure) -> tuple[int, ...]:
    """Return in what shape a measure's sums come: by cell, or by cell and bin."""
    if measure.kind == "bins" and isinstance(measure.of, Binned):
        return asked.cells, measure.of.count
    return (asked.cells,)


def size(asked: Bounded, measure: Measure) -> int:
    """Return how many sums a measure has."""
    return math.prod(shape(asked, measure))


def few(measure: Measure, rows: int) -> bool:
    """Return whether of a unit's bins in a cell not all may count."""
    return measure.kind == "bins" and isinstance(measure.of, Binned) and rows < measure.of.count


def far(asked: Bounded) -> int:
    """Return the most that a unit adds to a sum of a cell."""
    kinds = ("sum", "squares")
    ends = [reach(measure, asked.rows) for measure in asked.measures if measure.kind in kinds]
    return max((max(-low, high) for low, high in ends), default=0)


def sortable(asked: Bounded) -> bool:
    """Return whether a cell, its hash and a few units may go into one number, and a cell's bins too."""
    bins = [measure for measure in asked.measures if measure.kind == "bins"]
    fit = all(isinstance(measure.of, Binned) and size(asked, measure) <= MOST_SUMS for measure in bins)
    return fit and not asked.private and (asked.cells - 1).bit_length() <= MOST_BITS


def tally(
    asked: Bounded, table: pa.Table, *, threads: int, names: pa.Table | None = None
) -> list[Ints] | None:
    """Return sums by cell (and bin) of each measure; None where numbers could be too large.

    Guarantee: the same whole numbers as by SQL.

    Args:
        table: "unit" and "cell", whole numbers, where null is no cell; and "v0", "v1", ... of measures in
            which not every row counts the same: truth values, or whole numbers, null where it does not count.
        names: of all units "name", as in the table's "unit", and "hash"; None: they are numbers as they are.
    """
    wanted = [
        (measure, f"v{place}" if f"v{place}" in table.column_names else None)
        for place, measure in enumerate(asked.measures)
    ]
    if table.column("cell").null_count:
        table = table.filter(table.column("cell").is_valid())
    rows = table.num_rows
    if rows * far(asked) >= FAR:
        return None
    if not rows:
        return [np.zeros(size(asked, measure), np.int64) for measure in asked.measures]
    table, units = _numbered(asked, table, names)
    plan = layout(asked, len(units.hashes), rows)
    if plan is None:
        return None
    sorting = _Sorting(asked, plan, units, wanted)
    length, tasks = max(ROWS, plan.buckets << 8), min(plan.buckets, 4 * threads)
    with ThreadPoolExecutor(threads) as pool:
        begins = range(0, rows, length)
        try:
            pieces = list(pool.map(lambda begin: sorting.dealt(table.slice(begin, length)), begins))
            parts = pool.map(
                lambda first: sorting.added(pieces, range(first, plan.buckets, tasks)), range(tasks)
            )
            return [np.sum(one, axis=0) for one in zip(*parts, strict=True)]
        except (_TooManyError, UnknownValueError):
            return None


class _TooManyError(Exception):
    """Numbers do not fit into 63 bits."""


@dataclass(frozen=True, slots=True)
class Units:
    """How units become numbers from 0.

    Args:
        hashes: of each number. first: unit, that becomes 0. places: of units that have no order.
    """

    hashes: NDArray[np.int32]
    first: int = 0
    places: Places | None = None

    def numbers(self, column: Ints) -> Ints:
        """Return the numbers of some rows' units."""
        if self.places is not None:
            return self.places.of(column)
        return column.astype(np.int64) - self.first


def _numbered(asked: Bounded, table: pa.Table, names: pa.Table | None) -> tuple[pa.Table, Units]:
    """Return how units become numbers, and the rows, with places in a dictionary where they need one."""
    import pyarrow.compute as compute

    if names is not None:
        hashes = names.column("hash").to_numpy().astype(np.int32)
        return table, Units(hashes, places=Places(names.column("name").to_numpy()))
    least, most = compute.min_max(table.column("unit")).as_py().values()
    keys = keys_of(asked.salt)
    if most - least < SPARSE * table.num_rows + ROWS:
        count = most - least + 1
        return table, Units(_hashes(count, lambda some: of_unit(some + least, keys)), least)
    found = table.column("unit").dictionary_encode()
    values = found.chunk(0).dictionary.to_numpy()
    places = pa.chunked_array([chunk.indices for chunk in found.chunks])
    table = table.set_column(table.column_names.index("unit"), "unit", places)
    return table, Units(_hashes(len(values), lambda some: of_unit(values[some], keys)))


def _hashes(count: int, hashed: Callable[[Ints], Ints]) -> NDArray[np.int32]:
    """Return the hashes of units 0, 1, ...; some at a time, which takes no memory worth the name."""
    found = np.empty(count, np.int32)
    for begin in range(0, count, 1 << 16):
        found[begin : begin + (1 << 16)] = hashed(np.arange(begin, min(begin + (1 << 16), count)))
    return found


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
        plan, unit = self.plan, self.units.numbers(table.column("unit").to_numpy())
        cell = table.column("cell").to_numpy().astype(np.int64)
        number = (unit & ((1 << plan.low) - 1)) << plan.choice
        if plan.choice > plan.cell:
            hashed = self.units.hashes[unit].astype(np.int64)
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
        """Return the sums of some buckets by cell, or by cell and bin."""
        parts = [self._bucket(pieces, bucket) for bucket in buckets]
        cells = np.concatenate([cells for cells, _ in parts])
        sums: list[Ints] = []
        for place, (measure, _) in enumerate(self.wanted):
            values = [some for _, every in parts if (some := every[place]) is not None]
            added = np.concatenate(values) if values else None
            if measure.kind == "bins":
                found = np.bincount(
                    cells[:0] if added is None else added, minlength=size(self.asked, measure)
                )
            else:
                found = _summed(cells, added, self.asked.cells)
            sums.append(found.astype(np.int64, copy=False))
        return sums

    def _bucket(self, pieces: Sequence[Piece], bucket: int) -> tuple[Ints, list[Ints | None]]:
        """Return, of each unit and cell that was chosen, the cell, and what it adds to each measure.

        Of bins, the cell times their number plus the bin, for each that counts.
        """
        plan = self.plan
        columns = {
            name: np.concatenate(
                [piece.columns[name][piece.begins[bucket] : piece.begins[bucket + 1]] for piece in pieces]
            )
            for name in pieces[0].columns
        }
        numbers, order = _in_order(columns.pop(""), plan.choice + plan.low, bool(columns))
        columns = {name: column[order] for name, column in columns.items()}
        new = _unlike(numbers, 1)
        pairs = numbers[new]
        chosen = _unlike(pairs >> plan.choice, self.asked.groups)
        cells = pairs & ((1 << plan.cell) - 1)
        begins = np.flatnonzero(new) if columns or self.asked.rows > 1 else pairs
        values: list[Ints | None] = []
        for measure, name in self.wanted:
            column = columns.get(name or "")
            if isinstance(measure.of, Binned) and measure.kind == "bins" and column is not None:
                runs = np.cumsum(new) - 1
                there = chosen[runs] & (column != MISSING)
                values.append(self._bins(pairs, runs[there], column[there], measure.of.count))
            else:
                value = self._values(measure, begins, column, len(numbers))
                values.append(None if value is None else value[chosen])
        return cells[chosen], values

    def _bins(self, pairs: Ints, runs: Ints, bins: Ints, count: int) -> Ints:
        """Return the cell and bin of each bin that counts.

        Args:
            pairs: of unit and cell. runs: of each row, which of them it has. bins: of each row.
        """
        bits, cells = (count - 1).bit_length(), pairs & ((1 << self.plan.cell) - 1)
        low = bits
        if self.asked.rows < count:
            low += BITS
            hashed = (pairs >> self.plan.cell & ((1 << BITS) - 1))[runs]
            bins = bins | of_cell(hashed, bins, keys_of(self.asked.salt).bin) << bits
        if low + len(pairs).bit_length() > 63:
            raise _TooManyError
        numbers, _ = _in_order(runs << low | bins, low + len(pairs).bit_length(), False)
        numbers = numbers[_unlike(numbers, 1)]
        runs = numbers >> low
        if self.asked.rows < count:
            kept = _unlike(runs, self.asked.rows)
            numbers, runs = numbers[kept], runs[kept]
        return cells[runs] * count + (numbers & ((1 << bits) - 1))

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


def _summed(cells: Ints, values: Ints | None, size: int) -> Ints:
    """Return exact sums by cell of values, or of 1: of floats, each half of a value's bits by itself."""
    if values is None:
        return np.bincount(cells, minlength=size)
    low, high = values & ((1 << HALF) - 1), values >> HALF
    found = np.bincount(cells, low, minlength=size).astype(np.int64)
    if high.any():
        found += np.bincount(cells, high, minlength=size).astype(np.int64) << HALF
    return found


def _in_order(numbers: Ints, bits: int, wanted: bool) -> tuple[Ints, Ints]:
    """Return numbers of so many bits from the least, and, where that is wanted, the place of each before.

    By 16 bits numpy sorts by counting, and what is nearly in order it sorts in a few steps a row.
    """
    order = (numbers >> max(bits - 16, 0)).astype(np.uint16).argsort(kind="stable")
    numbers = numbers[order]
    if not wanted:
        numbers.sort(kind="stable")
        return numbers, order
    last = numbers.argsort(kind="stable")
    return numbers[last], order[last]


def _unlike(numbers: Ints, places: int) -> Flags:
    """Return of which numbers the one so many places before is another, or not there."""
    found = np.ones(len(numbers), np.bool_)
    np.not_equal(numbers[places:], numbers[:-places], out=found[places:])
    return found
