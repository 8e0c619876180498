"""The columns of an answer: what SELECT names, and what GROUP BY makes groups of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from sqlglot import exp

from sfumato.core.errors import InvalidRequest
from sfumato.queries.kinds import Typed
from sfumato.queries.model import Aggregate, Constant, Expr, Key, Value
from sfumato.queries.pieces import among, default_name, free, key_name
from sfumato.queries.show import show
from sfumato.queries.sql.expressions import Reader
from sfumato.queries.sql.figures import figure
from sfumato.queries.sql.scope import same
from sfumato.queries.sql.words import REFUSED

ROWS: Final = (
    "rows are about people; ask for figures, as in SELECT junction, COUNT(*) FROM flow GROUP BY junction"
)


@dataclass(slots=True)
class Chosen:
    """What SELECT names: a figure, or a key."""

    node: exp.Expr
    alias: str
    name: str
    figure: Aggregate | None = None
    key: Key | None = None


@dataclass(slots=True)
class Columns:
    """Reads what SELECT names, one after the other."""

    reader: Reader
    chosen: list[Chosen] = field(default_factory=list)

    @property
    def figures(self) -> tuple[Aggregate, ...]:
        """The figures."""
        return tuple(each.figure for each in self.chosen if each.figure is not None)

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys that are named."""
        return tuple(each.key for each in self.chosen if each.key is not None)

    def choose(self, node: exp.Expr) -> None:
        """Read one more column.

        Raises:
            InvalidRequest: for rows, and for two of the same name.
        """
        alias = node.alias if isinstance(node, exp.Alias) else ""
        if isinstance(node, exp.Aliases):
            raise self.reader.text.refuse(node, "a column has one name; write AS name")
        inner = node.this if isinstance(node, exp.Alias) else node
        inner = inner.unnest()
        if isinstance(inner, exp.Star) or (
            isinstance(inner, exp.Column) and isinstance(inner.this, exp.Star)
        ):
            raise self.reader.text.refuse(node, f"* shows rows: {ROWS}")
        found = figure(self.reader, inner)
        if found is not None:
            name = self._free(node, alias, default_name(found))
            self.chosen.append(Chosen(inner, alias, name, figure=replace(found, name=name)))
        else:
            self._refuse_arithmetic(inner)
            of, values = self.key(inner)
            default = self.reader.scope.spelt(inner.name) if isinstance(inner, exp.Column) else key_name(of)
            name = self._free(node, alias, default)
            self.chosen.append(Chosen(inner, alias, name, key=Key(name, of, values)))

    def _refuse_arithmetic(self, node: exp.Expr) -> None:
        """Refuse what computes with figures: that is for the answer, which has its noise already."""
        if (
            isinstance(node, exp.AggFunc | exp.Window | exp.IgnoreNulls)
            or self.reader.text.word(node) in REFUSED
        ):
            return
        if any(isinstance(each, exp.AggFunc) for each in node.walk()):
            raise self.reader.text.refuse(
                node,
                "figures stand alone: compute with those of the answer; for SUM(x) / COUNT(*) write AVG(x)",
            )

    def _free(self, node: exp.Expr, alias: str, default: str) -> str:
        with self.reader.at(node):
            return free(alias, default, {each.name.lower() for each in self.chosen})

    def key(self, node: exp.Expr) -> tuple[Expr, tuple[Value, ...] | None]:
        """Return what is grouped by, and the values that AMONG names."""
        node = node.unnest()
        if isinstance(node, exp.Anonymous) and self.reader.text.word(node) == "AMONG":
            self.reader.only(node, "this", "expressions")
            if len(node.expressions) < 2:
                raise self.reader.text.refuse(
                    node, "AMONG takes a column and its values: AMONG(junction, 'A', 'B')"
                )
            of = self.grouped(node.expressions[0])
            return of.of, among(of, [self.reader.expression(each) for each in node.expressions[1:]])
        return self.grouped(node).of, None

    def grouped(self, node: exp.Expr) -> Typed:
        """Return what is grouped by.

        Raises:
            InvalidRequest: for the privacy unit, and for constants.
        """
        node = node.unnest()
        if isinstance(node, exp.Column) and not isinstance(node.this, exp.Star):
            with self.reader.at(node):
                if self.reader.scope.unit(node.name, node.text("table")) is not None:
                    raise InvalidRequest(
                        f"{node.name} is the privacy unit: that is one group per person; "
                        "group by what they share"
                    )
        found = self.reader.expression(node)
        if isinstance(found.of, Constant):
            raise self.reader.text.refuse(
                node, f"{show(found.of)} is the same for everybody; group by a column"
            )
        return found

    def key_of(self, of: Expr) -> Key | None:
        """Return the key that is an expression, where there is one."""
        return next((key for key in self.keys if key.of == of), None)

    def called(self, name: str) -> Chosen | None:
        """Return the column of a name, where there is one."""
        own = same(name, [each.name for each in self.chosen])
        return next((each for each in self.chosen if each.name == own), None)

    def at_place(self, node: exp.Expr) -> Chosen:
        """Return the column at a place, which counts from 1.

        Raises:
            InvalidRequest: where there is none.
        """
        written = str(node.this)
        if not (written.isdigit() and len(written) < 5 and 1 <= int(written) <= len(self.chosen)):
            raise self.reader.text.refuse(
                node, f"there is no column {written[:20]}; SELECT has 1 to {len(self.chosen)}"
            )
        return self.chosen[int(written) - 1]
