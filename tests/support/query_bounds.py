"""Bounded sums row by row in plain Python: what `Bounded` asks, held against engines and against plans.

The choice of cells is that of the engines (the same keyed hash), so that whole numbers are equal to the unit.
`Faults` plants bugs in it, which tests of tests have to find.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.queries.bounded import Bounded, Cells, Measure, TableRef
from sfumato.queries.engines._hash import BITS, PRIME, keys_of, of_cell, of_unit
from sfumato.queries.model import Binned

sys.path.insert(0, str(Path(__file__).parents[1] / "queries"))  # the oracle of expressions lies there
import exact

Row = dict[tuple[str, str], Any]


@dataclass(frozen=True)
class Faults:
    """Bugs that an engine might have.

    Args:
        groups: added to how many cells of a unit are kept; None: all are. rows: unbounded, if False.
        clamps: values are clamped, unless False. everybody: a unit's choice of cells depends on others'.
    """

    groups: int | None = 0
    rows: bool = True
    clamps: bool = True
    everybody: bool = False


def bounded(asked: Bounded, faults: Faults = Faults()) -> Cells:
    """Return the exact bounded sums of a question with public keys over Arrow tables."""
    assert not asked.private
    units: dict[Any, dict[int, list[Row]]] = {}
    for row in _rows(asked):
        unit = row["", "unit"]
        if asked.where is not None and exact.value(asked.where, row) is not True:
            continue
        cell = _cell(asked, row)
        if cell is not None:
            units.setdefault(unit, {}).setdefault(cell, []).append(row)
    totals = [np.zeros(_shape(asked, measure), object) for measure in asked.measures]
    for unit, cells in units.items():
        for cell in _kept(asked, unit, cells, faults, len(units)):
            for total, measure in zip(totals, asked.measures, strict=True):
                _add(asked, total, measure, cells[cell], (unit, cell), faults)
    return Cells(tuple(total.astype(np.int64) for total in totals))


def _shape(asked: Bounded, measure: Measure) -> tuple[int, ...]:
    if isinstance(measure.of, Binned) and measure.kind == "bins":
        return asked.cells, measure.of.count
    return (asked.cells,)


def _rows(asked: Bounded) -> Iterator[Row]:
    rows = list(_own(asked.tables[0]))
    for table, how in zip(asked.tables[1:], asked.joins, strict=True):
        others: dict[Any, list[Row]] = {}
        for row in _own(table):
            others.setdefault(row.pop(("", "unit")), []).append(row)
        nothing = [_both(table, dict.fromkeys(table.columns))] if how == "left" else []
        rows = [row | other for row in rows for other in others.get(row["", "unit"], nothing)]
    yield from rows


def _own(table: TableRef) -> Iterator[Row]:
    for given in table.place.to_pylist():  # type: ignore[union-attr]
        if given[table.unit] is None:
            continue
        values = {name: _cleaned(table, name, given.get(name)) for name in table.columns}
        yield {**_both(table, values), ("", "unit"): given[table.unit]}


def _both(table: TableRef, values: Mapping[str, Any]) -> Row:
    return {(alias, name): value for name, value in values.items() for alias in ("", table.alias)}


def _cleaned(table: TableRef, name: str, value: Any) -> Any:
    kind = table.columns[name]
    if value is None or kind not in ("integer", "number"):
        return value
    if kind == "number" and math.isnan(value):
        return None
    clamp = table.clamps.get(name)
    if clamp is None:
        return value
    low, high = (math.ceil(clamp[0]), math.floor(clamp[1])) if kind == "integer" else map(float, clamp)
    return min(max(value, low), high)


def _cell(asked: Bounded, row: Row) -> int | None:
    cell = 0
    for key in asked.keys:
        value, values = exact.value(key.of, row), key.values or ()
        if value is None:
            return None
        if isinstance(value, bool):
            places = [at for at, one in enumerate(values) if one is value]
        else:
            places = [at for at, one in enumerate(values) if one == value]
        if not places:
            return None
        cell = cell * len(values) + places[0]
    return cell


def number_of(unit: Any) -> int:
    """Return the number that stands for a unit in the hash."""
    if isinstance(unit, int):
        return unit
    return int(hashlib.md5(str(unit).encode(), usedforsecurity=False).hexdigest()[:15], 16)


def _word(unit: int, cell: int, keys: tuple[int, ...]) -> tuple[int, int]:
    return of_cell(unit, cell, keys), cell


def _hash(asked: Bounded, unit: Any) -> int:
    keys = keys_of(asked.salt)
    if isinstance(unit, int):
        return int(of_unit(unit, keys))
    a, b, _, d = keys.unit
    number = number_of(unit)
    mixed = ((number & PRIME) * a + (number >> BITS) * b + d) % PRIME
    return mixed ^ (mixed >> 15)


def _kept(asked: Bounded, unit: Any, cells: Mapping[int, Any], faults: Faults, crowd: int) -> list[int]:
    if faults.groups is None:
        return list(cells)
    keys, hashed = keys_of(asked.salt), _hash(asked, unit)
    if faults.everybody:
        hashed = (hashed + crowd * 7919) % PRIME
    return sorted(cells, key=lambda cell: _word(hashed, cell, keys.cell))[: asked.groups + faults.groups]


def _add(
    asked: Bounded, total: Any, measure: Measure, rows: list[Row], who: tuple[Any, int], faults: Faults
) -> None:
    unit, cell = who
    most = asked.rows if faults.rows else 10**6
    flagged = [row for row in rows if measure.where is None or exact.value(measure.where, row) is True]
    if measure.kind == "bins":
        assert isinstance(measure.of, Binned)
        found = {place for row in flagged if (place := exact.value(measure.of, row)) is not None}
        keys = keys_of(asked.salt)
        first = of_cell(_hash(asked, unit), cell, keys.cell)
        for place in sorted(found, key=lambda place: _word(first, place, keys.bin))[:most]:
            total[cell, place] += 1
        return
    if measure.kind in ("units", "rows"):
        count = sum(measure.of is None or exact.value(measure.of, row) is not None for row in flagged)
        total[cell] += min(count, 1 if measure.kind == "units" else most)
        return
    values = [
        _steps(measure, value, faults)
        for row in flagged
        if (value := exact.value(measure.of, row)) is not None
    ]
    if measure.kind == "squares":
        values = [value**2 for value in values]
    size = sum(values)
    scaled = abs(size) * most // max(most, len(values)) if values else 0
    total[cell] += -scaled if size < 0 else scaled


def _steps(measure: Measure, value: Any, faults: Faults) -> int:
    low, high, step = measure.low, measure.high, measure.step
    if isinstance(value, bool):
        value = int(value)
    if not faults.clamps:
        return math.floor(float(value) / float(step) + 0.5) - measure.centre
    if isinstance(value, int) and step == 1:
        return min(max(value, low), high) - measure.centre
    number = min(max(float(value), float(low * step)), float(high * step))
    number = number * float(step.denominator) / float(step.numerator)
    return min(max(math.floor(number + 0.5), low), high) - measure.centre
