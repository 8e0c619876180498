"""The rows that count, with the unit and the cell of each, as one Ibis relation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sfumato.core.errors import InvalidRequest
from sfumato.queries.bounded import Bounded, Measure, TableRef
from sfumato.queries.engines._expressions import TYPES, Translator, Typed, cleaned, whole
from sfumato.queries.engines._keys import MOST_CELLS, position
from sfumato.queries.model import Binned, Column, Expr, walk

#: How a unit comes from an engine: a whole number, text, or "packed": a whole number that names it, times
#: 2^31, plus its hash.
UNIT_TYPES = {"integer": "int64", "text": "string", "packed": "int64"}


@dataclass(frozen=True, slots=True)
class Shown:
    """One table as an engine shows it to Ibis.

    Args:
        name: of the relation. columns: (name in the table, kind, name in the relation), those that are asked.
    """

    table: TableRef
    name: str
    columns: tuple[tuple[str, str, str], ...]

    def relation(self, unit: str) -> Any:
        """Return the relation that the engine's SQL promises to give."""
        import ibis

        schema = {"unit": UNIT_TYPES[unit]} | {name: TYPES[kind] for _, kind, name in self.columns}
        return ibis.table(schema, name=self.name)


def shown(asked: Bounded) -> tuple[Shown, ...]:
    """Return the tables with the columns that the question names.

    Raises:
        InvalidRequest: a column that no table has, or more than one.
    """
    used = {
        column
        for expression in expressions(asked)
        for column in walk(expression)
        if isinstance(column, Column)
    }
    wanted: list[set[str]] = [set() for _ in asked.tables]
    for column in used:
        wanted[_home(asked.tables, column)].add(column.name)
    return tuple(
        Shown(
            table,
            f"t{place}",
            tuple(
                (name, table.columns[name], f"t{place}_{at}") for at, name in enumerate(sorted(wanted[place]))
            ),
        )
        for place, table in enumerate(asked.tables)
    )


def expressions(asked: Bounded) -> Iterator[Expr | None]:
    """Yield all that is asked."""
    yield asked.where
    yield from (key.of for key in asked.keys)
    for measure in asked.measures:
        yield measure.of
        yield measure.where


def _home(tables: Sequence[TableRef], column: Column) -> int:
    homes = [
        place
        for place, table in enumerate(tables)
        if column.name in table.columns and column.table in ("", table.alias)
    ]
    if len(homes) != 1:
        called = f"{column.table}.{column.name}" if column.table else column.name
        known = ", ".join(sorted(f"{table.alias}.{name}" for table in tables for name in table.columns))
        if homes:
            raise InvalidRequest(f"more than one table has a column {called!r}: say which, as in {known}")
        raise InvalidRequest(f"no column {called!r}. Known: {known}")
    return homes[0]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that count.

    Args:
        relation: with "unit" and the columns of all tables.
        translate: expressions over its columns.
        cell: of a row; None where there is one cell. keys: the keys themselves.
        inside: conditions of a row being in a cell at all.
    """

    relation: Any
    translate: Translator
    unit: str
    cell: Any | None
    keys: tuple[Typed, ...]
    inside: tuple[Any, ...]

    def flag(self, measure: Measure) -> Any | None:
        """Return whether a row counts for a measure; None where every row does."""
        flag = None if measure.where is None else self.translate.condition(measure.where)
        if measure.of is not None:
            there = self.translate(measure.of).value.notnull()
            flag = there if flag is None else flag & there
        return None if flag is None else flag.fill_null(False)

    def value(self, measure: Measure) -> Any:
        """Return what a row adds to a sum; null where it does not count."""
        import ibis

        assert measure.of is not None
        value = whole(self.translate(measure.of), measure.low, measure.high, measure.step)
        if measure.centre:
            value = value - ibis.literal(measure.centre, "int64")
        if measure.kind == "squares":
            value = value * value
        if measure.where is not None:
            value = self.translate.condition(measure.where).ifelse(value, ibis.null("int64"))
        return value

    def bin(self, measure: Measure) -> Any:
        """Return the bin of a row; null where it does not count."""
        import ibis

        assert isinstance(measure.of, Binned)
        value = self.translate(measure.of).value
        if measure.where is not None:
            value = self.translate.condition(measure.where).ifelse(value, ibis.null("int64"))
        return value


def rows_of(asked: Bounded, tables: Sequence[Shown], unit: str) -> Rows:
    """Return the rows that count, joined and filtered, each in a public cell."""
    relation = _joined(asked, tables, unit)
    translate = Translator(_columns(tables, relation))
    if asked.where is not None:
        relation = relation.filter(translate.condition(asked.where))
        translate = Translator(_columns(tables, relation))
    keys = tuple(translate(key.of) for key in asked.keys)
    if asked.private:
        return Rows(relation, translate, unit, None, keys, tuple(key.value.notnull() for key in keys))
    if asked.cells > MOST_CELLS:
        raise InvalidRequest(f"{asked.cells} cells are too many: at most {MOST_CELLS}")
    inside: list[Any] = []
    cell: Any | None = None
    for typed, key in zip(keys, asked.keys, strict=True):
        there, place = position(typed, key)
        inside.append(there)
        cell = place if cell is None else cell * len(key.values or ()) + place
    return Rows(relation, translate, unit, cell, keys, tuple(inside))


def _joined(asked: Bounded, tables: Sequence[Shown], unit: str) -> Any:
    first, *others = tables
    relation = first.relation(unit).filter(lambda table: table.unit.notnull())
    for other, how in zip(others, asked.joins, strict=True):
        right = other.relation(unit)
        right = right.select(
            **{f"{other.name}_unit": right.unit}, **{name: right[name] for *_, name in other.columns}
        )
        relation = relation.join(right, relation.unit == right[f"{other.name}_unit"], how=how)
    return relation


def _columns(tables: Sequence[Shown], relation: Any) -> Callable[[Column], Typed]:
    def column(wanted: Column) -> Typed:
        home = tables[_home([shown.table for shown in tables], wanted)]
        kind, name = next((kind, name) for own, kind, name in home.columns if own == wanted.name)
        return cleaned(relation[name], kind, home.table.clamps.get(wanted.name))

    return column
