"""Bounded sums in plain Python, by the words of `bounded.py`: what every engine is compared with.

It reads rows one by one and shares nothing with the engines but the keyed hash.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from sfumato.queries.bounded import Bounded, Cells, Measure
from sfumato.queries.engines._hash import PRIME, keys_of, of_cell, of_unit
from sfumato.queries.model import Binned, Call, Column, Constant, Expr, Part, Truncated

Row = Mapping[str, Any]
MONDAY = date(1, 1, 1)


def oracle(asked: Bounded, *rows: Sequence[Row] | pa.Table) -> Cells:
    """Return what an engine has to answer; `rows` of each table, first those of the first one."""
    tables = [table.to_pylist() if isinstance(table, pa.Table) else list(table) for table in rows]
    units: dict[Any, dict[tuple, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for row in _joined(asked, tables):
        if asked.where is not None and value(asked.where, row, asked) is not True:
            continue
        cell = tuple(value(key.of, row, asked) for key in asked.keys)
        places = _places(asked, cell)
        if places is not None:
            units[row["unit"]][places].append(row)
    kept = {unit: _kept(asked, unit, cells) for unit, cells in units.items()}
    if not asked.private:
        return Cells(tuple(_summed(asked, measure, kept, _index(asked)) for measure in asked.measures))
    order = sorted({cell for cells in kept.values() for cell in cells}, key=_orders)
    index = {cell: place for place, cell in enumerate(order)}
    columns = {key.name: [cell[place] for cell in order] for place, key in enumerate(asked.keys)}
    return Cells(tuple(_summed(asked, measure, kept, index) for measure in asked.measures), pa.table(columns))


def chosen(unit: int | str, cells: Sequence[int], groups: int, salt: bytes) -> list[int]:
    """Return the cells (by number) in which a unit counts."""
    hashed = unit_hash(unit, salt)
    return sorted(cells, key=lambda cell: (of_cell(hashed, cell, keys_of(salt).cell), cell))[:groups]


def digest(text: str) -> int:
    return int(hashlib.md5(text.encode()).hexdigest()[:15], 16)


def unit_hash(unit: int | str, salt: bytes) -> int:
    return of_unit(digest(unit) if isinstance(unit, str) else unit, keys_of(salt))


def _joined(asked: Bounded, tables: list[list[dict]]) -> list[dict]:
    whole = all(
        isinstance(row[table.unit], int | None)
        for table, rows in zip(asked.tables, tables, strict=True)
        for row in rows
    ) and all(table.columns.get(table.unit, "integer") == "integer" for table in asked.tables)
    sides = []
    for table, rows in zip(asked.tables, tables, strict=True):
        side = defaultdict(list)
        for row in rows:
            if (unit := row[table.unit]) is not None:
                clean = {
                    (table.alias, name): _clean(row[name], kind, table.clamps.get(name))
                    for name, kind in table.columns.items()
                }
                side[unit if whole else str(unit)].append(clean)
        sides.append(side)
    found = []
    for unit, firsts in sides[0].items():
        others = []
        for table, side, how in zip(asked.tables[1:], sides[1:], asked.joins, strict=True):
            nothing = [{(table.alias, name): None for name in table.columns}] if how == "left" else []
            others.append(side.get(unit, nothing))
        for parts in itertools.product(firsts, *others):
            row: dict = {"unit": unit}
            for part in parts:
                row |= part
            found.append(row)
    return found


def _clean(found: Any, kind: str, clamp: tuple[Fraction, Fraction] | None) -> Any:
    if found is None:
        return None
    if kind == "integer" and isinstance(found, float):
        found = int(found) if math.isfinite(found) and found == math.floor(found) else None
    if kind == "number":
        found = None if math.isnan(found) else float(found)
    if kind == "timestamp" and not isinstance(found, datetime):
        found = datetime(found.year, found.month, found.day)
    if kind == "timestamp" and found.tzinfo:
        found = found.astimezone(UTC).replace(tzinfo=None)
    if found is None or clamp is None or kind not in ("integer", "number"):
        return found
    if kind == "integer":
        return min(max(found, math.ceil(clamp[0])), math.floor(clamp[1]))
    return min(max(found, float(clamp[0])), float(clamp[1]))


def _settled(found: float) -> float:
    return 0.0 if abs(found) < 1e-150 else found


def _places(asked: Bounded, cell: tuple) -> tuple | None:
    """Return which public values a row has (or its private ones), or None."""
    if asked.private:
        return None if any(part is None for part in cell) else cell
    places = []
    for part, key in zip(cell, asked.keys, strict=True):
        equal = [place for place, known in enumerate(key.values) if _same(part, known)]
        if not equal:
            return None
        places += equal
    return tuple(places)


def _same(found: Any, known: Any) -> bool:
    if found is None or isinstance(found, bool) != isinstance(known, bool):
        return False
    if isinstance(found, datetime) and isinstance(known, date) and not isinstance(known, datetime):
        known = datetime(known.year, known.month, known.day)
    return found == known


def _index(asked: Bounded) -> dict[tuple, int]:
    sizes = [range(len(key.values)) for key in asked.keys]
    return {cell: place for place, cell in enumerate(itertools.product(*sizes))}


def _kept(asked: Bounded, unit: Any, cells: dict[tuple, list[dict]]) -> dict[tuple, list[dict]]:
    hashed, keys = unit_hash(unit, asked.salt), keys_of(asked.salt)
    if asked.private:
        words = {cell: (_private_hash(hashed, cell, keys.cell), _orders(cell)) for cell in cells}
    else:
        index = _index(asked)
        words = {cell: (of_cell(hashed, index[cell], keys.cell), index[cell]) for cell in cells}
    return {cell: cells[cell] for cell in sorted(cells, key=words.__getitem__)[: asked.groups]}


def _orders(cell: tuple) -> tuple:
    return tuple(part.encode() if isinstance(part, str) else part for part in cell)


def _private_hash(hashed: int, cell: tuple, keys: tuple[int, ...]) -> int:
    for part in cell:
        if isinstance(part, str):
            number = digest(part)
        elif isinstance(part, datetime):
            number = (part - datetime(1970, 1, 1)) // timedelta(seconds=1)
        elif isinstance(part, date):
            number = (part - date(1970, 1, 1)).days * 86400
        else:
            number = int(part)
        for piece in (number & PRIME, (number >> 31) & PRIME, (number >> 62) & 3):
            hashed = of_cell(hashed, piece, keys)
    return hashed


def _summed(asked: Bounded, measure: Measure, kept: Mapping, index: Mapping[tuple, int]) -> np.ndarray:
    bins = measure.of.count if measure.kind == "bins" and isinstance(measure.of, Binned) else 1
    every = [[0] * bins for _ in index]
    for unit, cells in kept.items():
        for cell, rows in cells.items():
            for place, amount in _of_unit(asked, measure, unit, index[cell], rows):
                every[index[cell]][place] += amount
    top = (1 << 63) - 1
    found = np.array([[min(max(total, -top), top) for total in line] for line in every], dtype=np.int64)
    return found.reshape(len(every), bins) if measure.kind == "bins" else found.reshape(len(every))


def _of_unit(
    asked: Bounded, measure: Measure, unit: Any, cell: int, rows: list[dict]
) -> list[tuple[int, int]]:
    """Return what one unit adds to one cell: (bin, amount)."""
    rows = [row for row in rows if measure.where is None or value(measure.where, row, asked) is True]
    found = [None if measure.of is None else value(measure.of, row, asked) for row in rows]
    if measure.of is not None:
        found = [one for one in found if one is not None]
    if measure.kind == "units":
        return [(0, int(len(found) > 0))]
    if measure.kind == "rows":
        return [(0, min(len(found), asked.rows))]
    if measure.kind == "bins":
        keys = keys_of(asked.salt)
        hashed = of_cell(unit_hash(unit, asked.salt), cell, keys.cell)
        order = sorted(set(found), key=lambda bin_: (of_cell(hashed, bin_, keys.bin), bin_))
        return [(bin_, 1) for bin_ in order[: asked.rows]]
    numbers = [_whole(one, measure) - measure.centre for one in found]
    total = sum(number**2 if measure.kind == "squares" else number for number in numbers)
    if len(numbers) > asked.rows:
        size = abs(total) * asked.rows // len(numbers)
        total = size if total > 0 else -size
    return [(0, total)]


def _whole(found: Any, measure: Measure) -> int:
    low, high, step = measure.low, measure.high, measure.step
    if isinstance(found, bool):
        found = int(found)
    if isinstance(found, int) and step == 1:
        return min(max(found, low), high)
    scaled = float(found)
    scaled = min(max(scaled, float(low * step)), float(high * step))
    if step != 1:
        scaled = _settled(scaled) * float(step.denominator) / float(step.numerator)
    return min(max(math.floor(scaled + 0.5), low), high)


def value(expression: Expr, row: Row, asked: Bounded) -> Any:
    """Return an expression's value for one row; None is SQL's NULL."""
    match expression:
        case Column(name, table):
            (found,) = [row[key] for key in row if key != "unit" and key[1] == name and table in ("", key[0])]
            return found
        case Constant(constant):
            return constant
        case Part(part, of):
            return _part(part, value(of, row, asked))
        case Truncated(unit, of):
            return _truncated(unit, value(of, row, asked))
        case Binned(of, low, width, count):
            found = value(of, row, asked)
            if found is None:
                return None
            scale = math.lcm(low.denominator, width.denominator)
            found = _settled(min(max(float(found), float(low)), float(low + width * count)))
            place = math.floor(_settled(found * scale - float(low * scale)) / float(width * scale))
            return min(max(place, 0), count - 1)
        case Call(op, args):
            return _call(op, args, row, asked)


def _call(op: str, args: tuple[Expr, ...], row: Row, asked: Bounded) -> Any:
    found = [value(arg, row, asked) for arg in args]
    match op:
        case "and":
            return False if False in found else None if None in found else True
        case "or":
            return True if True in found else None if None in found else False
        case "not":
            return None if found[0] is None else not found[0]
        case "is null":
            return found[0] is None
        case "in":
            if found[0] is None:
                return None
            equal = [_compare("=", found[0], other) for other in found[1:]]
            return True if True in equal else None if None in equal else False
        case "=" | "<>" | "<" | "<=" | ">" | ">=":
            return _compare(op, *found)
        case "coalesce":
            return next((one for one in found if one is not None), None)
        case "case":
            pairs = list(zip(found[0::2], found[1::2], strict=False))
            otherwise = found[-1] if len(found) % 2 else None
            return next((result for condition, result in pairs if condition is True), otherwise)
    if None in found:
        return None
    match op:
        case "like":
            pattern = "".join({"%": ".*", "_": "."}.get(mark, re.escape(mark)) for mark in found[1])
            return re.fullmatch(pattern, found[0], re.DOTALL) is not None
        case "lower" | "upper":
            return "".join(_letter(letter, op) for letter in found[0])
        case "clamp":
            if all(isinstance(one, int) for one in found):
                return min(max(found[0], found[1]), found[2])
            return min(max(float(found[0]), float(found[1])), float(found[2]))
        case "negative":
            result = -found[0]
        case "abs":
            result = abs(found[0])
        case "+":
            result = found[0] + found[1]
        case "-":
            result = found[0] - found[1]
        case _:
            if float in map(type, found):
                return _settled(found[0]) * _settled(found[1])
            result = found[0] * found[1]
    return result


def _letter(letter: str, op: str) -> str:
    other = letter.lower() if op == "lower" else letter.upper()
    back = other.upper() if op == "lower" else other.lower()
    small = letter if op == "upper" else other
    return other if len(other) == 1 and back == letter and "a" <= small < "\u0530" else letter


def _compare(op: str, left: Any, right: Any) -> bool | None:
    if left is None or right is None:
        return None
    if isinstance(left, date) and isinstance(right, str):
        right = datetime.fromisoformat(right)
    if isinstance(left, str):
        left, right = left.encode(), right.encode()
    elif isinstance(left, float) or isinstance(right, float):
        left, right = float(left), float(right)
    elif isinstance(left, datetime) != isinstance(right, datetime):
        left, right = (
            one if isinstance(one, datetime) else datetime(one.year, one.month, one.day)
            for one in (left, right)
        )
    return {
        "=": left == right,
        "<>": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }[op]


def _part(part: str, of: Any) -> int | None:
    if of is None:
        return None
    match part:
        case "quarter":
            return (of.month + 2) // 3
        case "week":
            return of.isocalendar().week
        case "weekday":
            return of.isoweekday()
        case "yearday":
            return of.timetuple().tm_yday
        case "hour" | "minute":
            return getattr(of, part, 0)
        case _:
            return getattr(of, part)


def _truncated(unit: str, of: Any) -> Any:
    if of is None:
        return None
    day = of.date() if isinstance(of, datetime) else of
    match unit:
        case "year":
            day = day.replace(month=1, day=1)
        case "quarter":
            day = day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
        case "month":
            day = day.replace(day=1)
        case "week":
            day = day - timedelta(days=day.weekday())
    if not isinstance(of, datetime):
        return datetime(day.year, day.month, day.day) if unit in ("hour", "minute") else day
    start = datetime(day.year, day.month, day.day)
    if unit == "hour":
        start = start.replace(hour=of.hour)
    if unit == "minute":
        start = start.replace(hour=of.hour, minute=of.minute)
    return start
