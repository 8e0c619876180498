"""The bounded exact aggregate as one Ibis expression: of every unit at most so many cells, rows and bins.

A unit's rows of a cell become one row of bounded whole numbers; of those rows the ones with the smallest hash
are kept; what is kept is added up by cell. The hash is keyed and knows only the unit and the cell, so nobody
else's rows have a say in which cells of a person count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sfumato.core.errors import InvalidRequest
from sfumato.queries.bounded import Bounded, Measure
from sfumato.queries.engines._expressions import Typed
from sfumato.queries.engines._hash import BITS, PRIME, Keys, keys_of, of_cell, of_unit
from sfumato.queries.engines._relations import Rows, Shown, rows_of
from sfumato.queries.engines._sql import Stages, functions, long
from sfumato.queries.model import Binned

#: What one unit may add to a cell; noise of more would not be drawn in 64 bits.
MOST = 10**18
#: What one unit adds to a cell, up to which sums stay in 64 bits: no table has 2^40 rows of one unit in one
#: cell, nor as many units.
NARROW = 1 << 22
LARGEST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Part:
    """One measure on its way: columns of rows, aggregates of a unit's rows in a cell, and what that counts.

    Args:
        low, high: between what `value` lies; wide: sums of it need more than 64 bits.
    """

    columns: dict[str, Any]
    grouped: Callable[[Any], dict[str, Any]]
    value: Callable[[Any], Any]
    low: int
    high: int
    wide: bool = False


def check(asked: Bounded) -> None:
    """Refuse what could overflow, or makes no sense.

    Raises:
        InvalidRequest: says which bound is too large.
    """
    if asked.groups < 1 or asked.rows < 1:
        raise InvalidRequest(
            f"a unit counts in at least 1 cell and 1 row, got {asked.groups} and {asked.rows}"
        )
    if len(asked.joins) != len(asked.tables) - 1:
        raise InvalidRequest(
            f"{len(asked.tables)} tables need {len(asked.tables) - 1} joins, got {len(asked.joins)}"
        )
    for measure in asked.measures:
        low, high = reach(measure, asked.rows)
        if max(-low, high, asked.rows) > MOST:
            raise InvalidRequest(
                f"a {measure.kind} in which one unit weighs up to {max(-low, high):.3g} could overflow: use "
                "tighter bounds, fewer rows per cell, or a coarser step"
            )


def reach(measure: Measure, rows: int) -> tuple[int, int]:
    """Return the least and the most that one unit adds to one cell.

    >>> reach(Measure("sum", low=-2, high=5), rows=3)
    (-6, 15)
    """
    low, high = measure.low - measure.centre, measure.high - measure.centre
    match measure.kind:
        case "units" | "bins":
            return 0, 1
        case "rows":
            return 0, rows
        case "sum":
            return min(low, 0) * rows, max(high, 0) * rows
        case _:
            return 0, max(low * low, high * high) * rows


Speed = Literal["ranked", "packed"]


def sums(
    asked: Bounded,
    tables: Sequence[Shown],
    unit: str,
    stages: Stages,
    *,
    speed: Speed = "ranked",
) -> Any:
    """Return the expression of all measures but bins: one row per cell that occurs, "cell", "m0", "m1", ...

    Args:
        unit: how units come: see `UNIT_TYPES`. stages: takes the steps before.
        speed: how to choose; the result is the same. "ranked" works everywhere; "packed", where a row's
            numbers fit into one word, needs DuckDB's `min` of several.
    """
    wanted = measures(asked)
    rows = rows_of(asked, wanted, tables, unit, stages)
    parts = [_part(rows, measure, place, asked.rows) for place, measure in enumerate(wanted)]
    keys = {"cell": _zero() if rows.cell is None else rows.cell} if not asked.private else _named(rows.keys)
    chosen = {"unit": rows.relation.unit, **keys}
    for part in parts:
        chosen |= part.columns
    table = rows.relation.filter(*rows.inside) if rows.inside else rows.relation
    table = table.select(**chosen)
    grouped: dict[str, Any] = {}
    for part in parts:
        grouped |= part.grouped(table)
    table = _grouped(table, ["unit", *keys], grouped)
    table = table.select(
        "unit", *keys, **{f"v{place}": part.value(table) for place, part in enumerate(parts)}
    )
    if asked.private or asked.groups < asked.cells:
        table = _choose(asked, table, parts, list(keys), rows, stages, speed)
    totals = {f"m{place}": _total(table, f"v{place}", part) for place, part in enumerate(parts)}
    return table.group_by(list(keys)).agg(**totals)


def rows(
    asked: Bounded, tables: Sequence[Shown], unit: str, stages: Stages, part: int = 0, parts: int = 1
) -> Any:
    """Return the expression of all rows in cells, and of some in none: what `tally` takes, of DuckDB.

    Args:
        part, parts: of so many parts of units, by hash, one; a power of two.
    """
    rows = rows_of(asked, asked.measures, tables, unit, stages, loose=True)
    values: dict[str, Any] = {}
    for place, measure in enumerate(asked.measures):
        numbers = measure.kind not in ("units", "rows")
        value = rows.value(place, measure) if numbers else rows.flag(place)
        values |= {} if value is None else {f"v{place}": value}
    inside, units = list(rows.inside), rows.relation.unit
    if parts > 1:
        hashed = units if unit == "named" else of_unit(units, keys_of(asked.salt))
        inside.append(hashed & (parts - 1) == part)
    table = rows.relation.filter(*inside) if inside else rows.relation
    cell = _zero() if rows.cell is None else rows.cell
    return table.select(unit=units, cell=cell.try_cast("int32"), **values)


def bins(asked: Bounded, tables: Sequence[Shown], unit: str, measure: Measure, stages: Stages) -> Any:
    """Return the expression of one measure of bins: "cell", "bin" and "m0", how many units count there."""
    import ibis

    if asked.private:
        raise InvalidRequest("bins need public keys: name their values, or declare them in the policy")
    if not isinstance(measure.of, Binned):
        raise InvalidRequest("bins are of a number that is put into bins")
    rows, keys = rows_of(asked, [measure], tables, unit, stages), keys_of(asked.salt)
    cell = _zero() if rows.cell is None else rows.cell
    table = rows.relation.filter(*rows.inside) if rows.inside else rows.relation
    table = table.select(unit=rows.relation.unit, cell=cell, bin=rows.value(0, measure)).distinct()
    table = _hashed(table, unit, keys, stages)
    table = stages.add(table.mutate(word=word(table.hash, table.cell, keys.cell, asked.cells)), kept=True)
    if asked.groups < asked.cells:
        place = ibis.dense_rank().over(group_by=table.unit, order_by=table.word)
        table = table.mutate(place=place)
        table = table.filter(table.place < asked.groups)
    table = table.filter(table.bin.notnull())
    if asked.rows < measure.of.count:
        shift = _bits(asked.cells)
        order = word(table.word >> shift, table.bin, keys.bin, measure.of.count)
        table = table.mutate(place2=ibis.row_number().over(group_by=[table.unit, table.cell], order_by=order))
        table = table.filter(table.place2 < asked.rows)
    return table.group_by(["cell", "bin"]).agg(m0=table.count())


def measures(asked: Bounded) -> list[Measure]:
    """Return all measures but bins."""
    return [measure for measure in asked.measures if measure.kind != "bins"]


def word(unit: Any, cell: Any, keys: tuple[int, ...], cells: int) -> Any:
    """Return what cells (or bins) of a unit are chosen by: the hash, then the cell itself, as one number."""
    return of_cell(unit, cell, keys) * (1 << _bits(cells)) + cell


def _bits(cells: int) -> int:
    return (cells - 1).bit_length()


def _zero() -> Any:
    return long(0)


def _named(keys: Sequence[Typed]) -> dict[str, Any]:
    for key in keys:
        if key.kind == "number":
            raise InvalidRequest(
                "keys that are chosen privately are whole numbers, text, dates or times: bin numbers"
            )
    return {f"k{place}": key.value for place, key in enumerate(keys)}


def _grouped(table: Any, by: list[str], aggregates: dict[str, Any]) -> Any:
    return table.group_by(by).agg(**aggregates) if aggregates else table.select(*by).distinct()


def _part(rows: Rows, measure: Measure, place: int, most: int) -> Part:
    low, high = reach(measure, most)
    flag, value, count, total = f"f{place}", f"x{place}", f"n{place}", f"s{place}"
    if measure.kind in ("sum", "squares"):
        wide = max(-low, high) >= NARROW
        return Part(
            {value: rows.value(place, measure)},
            lambda table: {count: table[value].count(), total: _sum(table[value], wide)},
            lambda table: _scaled(table[total], table[count], most, wide),
            low,
            high,
            wide,
        )
    condition = rows.flag(place)
    most = 1 if measure.kind == "units" else most
    if condition is None and most == 1:
        return Part({}, lambda table: {}, lambda table: _zero() + 1, 1, 1)
    if most == 1:
        return Part(
            {flag: condition},
            lambda table: {count: table[flag].any()},
            lambda table: table[count].ifelse(long(1), long(0)),
            0,
            1,
        )

    def few(table: Any) -> Any:
        return (table[count] > most).ifelse(long(most), table[count].cast("int64"))

    if condition is None:
        return Part({}, lambda table: {count: table.count()}, few, 0, most, most >= NARROW)
    number = condition.ifelse(long(1), long(0))
    return Part({flag: number}, lambda table: {count: _sum(table[flag], False)}, few, 0, most, most >= NARROW)


def _sum(value: Any, wide: bool) -> Any:
    ours = functions()
    return ours["wide"](value).sum() if wide else ours["int"](value.sum())


def _scaled(total: Any, count: Any, most: int, wide: bool) -> Any:
    """Return a sum scaled down to so many rows, towards zero; 0 where there are none."""
    import ibis

    ours = functions()
    nothing = ours["wide"](_zero()) if wide else _zero()
    total = ibis.coalesce(total, nothing)
    below = (count > most).ifelse(count, long(most))
    divisor = ours["wide"](below) if wide else below
    times = ours["wide"](long(most)) if wide else long(most)
    size = ours["wide_div" if wide else "div"](total.abs() * times, divisor)
    scaled = (total < nothing).ifelse(-size, size)
    return ours["int"](scaled)


def _total(table: Any, name: str, part: Part) -> Any:

    value, ours = table[name], functions()
    if part.low == part.high == 1:
        return table.count()
    if not part.wide:
        return ours["int"](value.sum())
    total, most = ours["wide"](value).sum(), ours["wide"](long(LARGEST))
    return ours["int"]((total > most).ifelse(most, (total < -most).ifelse(-most, total)))


def _hashed(table: Any, kind: str, keys: Keys, stages: Stages) -> Any:
    """Return a table with "hash", that of its unit."""
    match kind:
        case "packed":
            table = table.mutate(hash=table.unit & PRIME)
        case "text":
            table = stages.add(table.mutate(number=functions()["digest"](table.unit)), kept=True)
            table = table.mutate(hash=of_unit(table.number, keys)).drop("number")
        case _:
            table = table.mutate(hash=of_unit(table.unit, keys))
    return stages.add(table, kept=True)


def _choose(
    asked: Bounded,
    table: Any,
    parts: Sequence[Part],
    by: list[str],
    rows: Rows,
    stages: Stages,
    speed: Speed,
) -> Any:
    """Return the rows of each unit that have the smallest hashes, at most `groups` of them."""
    import ibis

    keys = keys_of(asked.salt)
    table = _hashed(table, rows.unit, keys, stages)
    if asked.private:
        table = _private_hash(table, rows.keys, keys, stages)
        order = [table.hash, *(table[name] for name in by)]
    else:
        widths = [(part.high - part.low).bit_length() for part in parts]
        first = word(table.hash, table.cell, keys.cell, asked.cells)
        if speed != "ranked" and BITS + _bits(asked.cells) + sum(widths) <= 62:
            return _packed(asked, table, parts, widths, first)
        order = [first]
    table = table.mutate(place=ibis.row_number().over(group_by=table.unit, order_by=order))
    return table.filter(table.place < asked.groups)


def _packed(asked: Bounded, table: Any, parts: Sequence[Part], widths: Sequence[int], first: Any) -> Any:
    """Choose by the smallest words per unit: hash, cell and all numbers in 62 bits."""
    packed, shift = first * (1 << sum(widths)), 0
    for place, (part, width) in enumerate(zip(parts, widths, strict=True)):
        packed = packed + (table[f"v{place}"] - part.low) * (1 << shift) if width else packed
        shift += width
    words = table.select("unit", packed=packed)
    words = words.group_by("unit").agg(kept=functions()["smallest"](words.packed, asked.groups))
    words = words.select(one=words.kept.unnest())
    columns, shift = {"cell": (words.one >> sum(widths)) & ((1 << _bits(asked.cells)) - 1)}, 0
    for place, (part, width) in enumerate(zip(parts, widths, strict=True)):
        field = ((words.one >> shift) & ((1 << width) - 1)) + part.low if width else _zero() + part.low
        columns[f"v{place}"] = field
        shift += width
    return words.select(**columns)


def _private_hash(table: Any, kinds: Sequence[Typed], keys: Keys, stages: Stages) -> Any:
    """Return a table with "hash" of each cell, which only the values of its keys name."""
    for place, kind in enumerate(kinds):
        value = table[f"k{place}"]
        match kind.kind:
            case "text":
                number = functions()["digest"](value)
            case "boolean":
                number = value.ifelse(long(1), long(0))
            case "date" | "timestamp":
                number = value.cast("timestamp").epoch_seconds().cast("int64")
            case _:
                number = value
        table = stages.add(table.mutate(number=number), kept=True)
        for shift, mask in ((0, PRIME), (BITS, PRIME), (2 * BITS, 3)):
            part = (table.number >> shift) & mask
            table = stages.add(table.mutate(hash=of_cell(table.hash, part, keys.cell)), kept=True)
        table = table.drop("number")
    return table
