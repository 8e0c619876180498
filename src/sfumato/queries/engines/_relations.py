"""The rows that count, with the unit and the cell of each, as one Ibis relation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sfumato.core.errors import InvalidRequest
from sfumato.queries.bounded import Bounded, Measure, TableRef
from sfumato.queries.engines._expressions import TYPES, Translator, Typed, cleaned, whole
from sfumato.queries.engines._keys import MOST_CELLS, position
from sfumato.queries.engines._sql import Stages, long
from sfumato.queries.model import Column, Expr, walk

#: How a unit comes from an engine: a whole number, text, or "packed": a whole number that names it, times
#: 2^31, plus its hash; or "named": a whole number below 2^63 that names it.
UNIT_TYPES = {"integer": "int64", "text": "string", "packed": "int64", "named": "int64"}


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
        relation: with "unit", and what `inside`, `cell`, `keys`, `of` and `where` are made of.
        inside: conditions of a row being in a cell at all. cell: which one; None where there is only one.
        of, where: those of each measure; None where it has none.
    """

    relation: Any
    unit: str
    keys: tuple[Typed, ...]
    inside: tuple[Any, ...]
    cell: Any | None
    of: tuple[Typed | None, ...]
    where: tuple[Any | None, ...]

    def flag(self, place: int) -> Any | None:
        """Return whether a row counts for a measure; None where every row does."""
        flag, of = self.where[place], self.of[place]
        if of is not None:
            flag = of.value.notnull() if flag is None else flag & of.value.notnull()
        return None if flag is None else flag.fill_null(False)

    def value(self, place: int, measure: Measure) -> Any:
        """Return what a row adds to a sum, or its bin; null where it does not count."""
        import ibis

        of, where = self.of[place], self.where[place]
        if of is None:
            raise InvalidRequest(f"a measure of {measure.kind!r} needs something to add up")
        if measure.kind == "bins":
            value = of.value
        else:
            value = whole(of, measure.low, measure.high, measure.step)
            value = value - long(measure.centre) if measure.centre else value
            value = value * value if measure.kind == "squares" else value
        return value if where is None else where.ifelse(value, ibis.null("int64"))


def rows_of(
    asked: Bounded,
    wanted: Sequence[Measure],
    tables: Sequence[Shown],
    unit: str,
    stages: Stages,
    *,
    loose: bool = False,
) -> Rows:
    """Return the rows that count for some measures, joined and filtered, each in a public cell.

    Args:
        loose: rows that are in none may be among them, with null for a cell; of DuckDB alone.
    """
    relation, columns = _joined(asked, tables, unit, stages)
    if asked.where is not None:
        relation = relation.filter(Translator(columns(relation)).condition(asked.where))
    translate = Translator(columns(relation))
    keys = [translate(key.of) for key in asked.keys]
    ofs = [None if measure.of is None else translate(measure.of) for measure in wanted]
    wheres = [None if measure.where is None else translate.condition(measure.where) for measure in wanted]
    chosen = {f"k{place}": key.value for place, key in enumerate(keys)}
    chosen |= {f"o{place}": of.value for place, of in enumerate(ofs) if of is not None}
    chosen |= {f"w{place}": where for place, where in enumerate(wheres) if where is not None}
    relation = stages.add(relation.select(unit=relation.unit, **chosen))
    keys = [replace(key, value=relation[f"k{place}"]) for place, key in enumerate(keys)]
    inside, cell = _cell(asked, keys, loose)
    return Rows(
        relation,
        unit,
        tuple(keys),
        tuple(inside),
        cell,
        tuple(of and replace(of, value=relation[f"o{place}"]) for place, of in enumerate(ofs)),
        tuple(None if where is None else relation[f"w{place}"] for place, where in enumerate(wheres)),
    )


def _cell(asked: Bounded, keys: Sequence[Typed], loose: bool) -> tuple[list[Any], Any | None]:
    if asked.private:
        return [key.value.notnull() for key in keys], None
    if asked.cells > MOST_CELLS:
        raise InvalidRequest(f"{asked.cells} cells are too many: at most {MOST_CELLS}")
    inside: list[Any] = []
    cell: Any | None = None
    for typed, key in zip(keys, asked.keys, strict=True):
        there, place = position(typed, key, loose=loose)
        inside += [] if there is None else [there]
        cell = place if cell is None else cell * len(key.values or ()) + place
    return inside, cell


def _joined(
    asked: Bounded, tables: Sequence[Shown], unit: str, stages: Stages
) -> tuple[Any, Callable[[Any], Callable[[Column], Typed]]]:
    """Return the joined rows, and what gives their columns."""
    kinds: dict[str, Typed] = {}
    relations = []
    for table in tables:
        found = table.relation(unit).filter(lambda one: one.unit.notnull())
        for own, kind, name in table.columns:
            kinds[name] = cleaned(found[name], kind, table.table.clamps.get(own))
        unit_name = "unit" if table is tables[0] else f"{table.name}_unit"
        values = {name: kinds[name].value for *_, name in table.columns}
        relations.append(stages.add(found.select(**{unit_name: found.unit}, **values)))
    relation, *others = relations
    for table, other, how in zip(tables[1:], others, asked.joins, strict=True):
        relation = relation.join(other, relation.unit == other[f"{table.name}_unit"], how=how)

    def columns(relation: Any) -> Callable[[Column], Typed]:
        def column(wanted: Column) -> Typed:
            home = tables[_home([table.table for table in tables], wanted)]
            name = next(name for own, _, name in home.columns if own == wanted.name)
            return replace(kinds[name], value=relation[name])

        return column

    return relation, columns
