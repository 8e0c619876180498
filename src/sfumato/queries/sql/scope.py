"""What names mean: the columns of the tables of a question, and its privacy unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from sfumato.core.errors import InvalidRequest, nearest
from sfumato.queries.kinds import TableShape, Typed, as_kind
from sfumato.queries.model import Column, Expr
from sfumato.queries.show import listed
from sfumato.queries.sql.words import UNIT


@dataclass(frozen=True, slots=True)
class Source:
    """A table of a question, or what a subquery makes of one.

    Args:
        name: as other columns call it; table: the dataset.
        shape: that of the dataset.
        columns: name -> expression over the columns of the dataset.
        unit: what the privacy unit is called.
        where: rows that count.
        kind: how it is joined to those before it.
    """

    name: str
    table: str
    shape: TableShape
    columns: Mapping[str, Typed]
    unit: str
    where: tuple[Expr, ...] = ()
    kind: Literal["first", "inner", "left"] = "first"


@dataclass(frozen=True, slots=True)
class Scope:
    """The tables of a question."""

    sources: tuple[Source, ...] = field(default=())

    def unit(self, name: str, qualifier: str) -> Source | None:
        """Return the table whose privacy unit this is, or None where it is a column."""
        sources = self.called(qualifier)
        found = [source for source in sources if same(name, (source.unit,))]
        if not found and name.lower() == UNIT and not any(same(name, each.columns) for each in sources):
            return sources[0]
        return found[0] if found else None

    def column(self, name: str, qualifier: str) -> Typed:
        """Return what a column is.

        Raises:
            InvalidRequest: for the privacy unit, and for names that are unknown or of several tables.
        """
        sources = self.called(qualifier)
        if self.unit(name, qualifier) is not None:
            raise InvalidRequest(
                f"{name} is the privacy unit: it can be counted, by COUNT(DISTINCT {name}), and joined on; "
                "nothing else may depend on who somebody is"
            )
        found = [source.columns[own] for source in sources if (own := same(name, source.columns)) is not None]
        if len(found) == 1:
            return found[0]
        if found:
            ways = " or ".join(f"{each.name}.{name}" for each in sources if same(name, each.columns))
            raise InvalidRequest(f"{name} is a column of several tables; write {ways}")
        known = [own for source in sources for own in source.columns]
        near = nearest(name, known)
        where = qualifier or ", ".join(source.table for source in sources)
        raise InvalidRequest(
            f"there is no column {name!r} in {where}{f'; did you mean {near!r}?' if near else '.'} "
            f"Columns: {listed(known)}"
        )

    def names(self) -> list[str]:
        """Return the names of all columns, and of the privacy units."""
        return [name for each in self.sources for name in (each.unit, *each.columns)]

    def spelt(self, name: str) -> str:
        """Return a column's name as its table spells it."""
        return next((own for each in self.sources if (own := same(name, each.columns)) is not None), name)

    def bounds(self, of: Typed) -> tuple[Fraction, Fraction] | None:
        """Return the declared bounds of a column; None where it is none, or has none."""
        if not isinstance(of.of, Column):
            return None
        return self.called(of.of.table)[0].shape.bounds.get(of.of.name)

    def called(self, qualifier: str) -> tuple[Source, ...]:
        """Return the tables that a qualifier means; all, without one."""
        if not qualifier:
            return self.sources
        name = same(qualifier, [source.name for source in self.sources])
        found = [source for source in self.sources if source.name == name]
        if not found:
            found = [source for source in self.sources if same(qualifier, (source.table,))]
        if len(found) != 1:
            raise InvalidRequest(
                f"{qualifier!r} is no table of this question; there are "
                f"{listed(source.name for source in self.sources)}"
            )
        return (found[0],)


def named(name: str, shapes: Mapping[str, TableShape]) -> tuple[str, TableShape]:
    """Return a dataset as it is declared, with the version that was said ("flow@3"), and its shape.

    Raises:
        InvalidRequest: where there is no such dataset; the nearest one is suggested.
    """
    base, at, version = name.partition("@")
    if at and not version:
        raise InvalidRequest(
            f"{name[:60]!r} names no version; write {base[:60]}, or {base[:60]}@3 for version 3"
        )
    if name in shapes:
        return name, shapes[name]
    own = same(base, shapes)
    if own is not None:
        whole = own + at + version
        return whole, shapes[whole] if whole in shapes else shapes[own]
    near = nearest(base, shapes)
    raise InvalidRequest(
        f"there is no dataset {base[:60]!r}{f'; did you mean {near!r}?' if near else '.'} "
        f"Datasets: {listed(shapes) or 'none'}"
    )


def table(name: str, shape: TableShape, alias: str = "") -> Source:
    """Return a table as it is; `alias` is what its columns carry, empty where it stands alone."""
    columns = {
        own: Typed(Column(own, alias), as_kind(kind))
        for own, kind in shape.columns.items()
        if own != shape.unit
    }
    return Source(alias or name, name, shape, columns, shape.unit)


def same(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is written so; without regard to capitals where that is clear."""
    names = list(known)
    if name in names:
        return name
    alike = [each for each in names if each.lower() == name.lower()]
    return alike[0] if len(alike) == 1 else None
