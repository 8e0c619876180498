"""The columns of an answer: what SELECT names, and what GROUP BY makes groups of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from sqlglot import exp

from sfumato.core.errors import InvalidRequest
from sfumato.queries import kinds
from sfumato.queries.kinds import Typed
from sfumato.queries.model import Aggregate, Binned, Column, Constant, Expr, Key, Part, Truncated, Value, walk
from sfumato.queries.show import show
from sfumato.queries.sql.expressions import Reader
from sfumato.queries.sql.figures import default_name, figure
from sfumato.queries.sql.scope import same

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
        if alias and (len(alias) > 128 or not alias.isprintable()):
            raise self.reader.text.refuse(
                node, "a name has at most 128 printable letters; choose another one"
            )
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
            of, values = self.key(inner)
            name = self._free(node, alias, key_name(of))
            self.chosen.append(Chosen(inner, alias, name, key=Key(name, of, values)))

    def _free(self, node: exp.Expr, alias: str, default: str) -> str:
        taken = {each.name.lower() for each in self.chosen}
        if alias:
            if alias.lower() in taken:
                raise self.reader.text.refuse(node, f"two columns are called {alias}; give one another name")
            return alias
        name, count = default, 1
        while name.lower() in taken:
            count += 1
            name = f"{default}_{count}"
        return name

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


def among(of: Typed, values: list[Typed]) -> tuple[Value, ...]:
    """Return the values that a key may have, as constants of its kind.

    Raises:
        InvalidRequest: where one is none, is of another kind, or comes twice.
    """
    same_kind, _ = kinds.unified((of, *values), "compared")
    found: list[Value] = []
    for each in same_kind[1:]:
        if not isinstance(each.of, Constant):
            raise InvalidRequest(f"AMONG takes constants; {show(each.of)} is none")
        if each.of.value in found:
            raise InvalidRequest(f"AMONG names {show(each.of)} twice; name every value once")
        found.append(each.of.value)
    return tuple(found)


def key_name(of: Expr) -> str:
    """Return what a key is called where nothing was said."""
    match of:
        case Column(name=name):
            return name
        case Part(part=part):
            return part
        case Truncated(unit=unit):
            return unit
        case Binned(of=Column(name=name)):
            return f"{name}_bin"
    inside = [each for each in walk(of) if not isinstance(each, Constant)]
    parts = {each.part for each in inside if isinstance(each, Part)}
    if parts:
        return parts.pop() if len(parts) == 1 else "key"
    names = {each.name for each in inside if isinstance(each, Column)}
    bins = any(isinstance(each, Binned) for each in inside)
    return names.pop() + ("_bin" if bins else "") if len(names) == 1 else "key"
