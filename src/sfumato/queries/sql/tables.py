"""FROM, JOIN and WITH: which datasets a question is about, and how they are joined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Literal

from sqlglot import exp

from sfumato.core.errors import InvalidRequest
from sfumato.queries.kinds import TableShape, Typed
from sfumato.queries.model import Expr, walk
from sfumato.queries.show import listed
from sfumato.queries.sql.expressions import Reader
from sfumato.queries.sql.figures import condition
from sfumato.queries.sql.scope import Scope, Source, named, same, table
from sfumato.queries.sql.text import Text
from sfumato.queries.sql.words import REFUSED

_MOST_PARTS: Final = 10
_MOST_NODES: Final = 500


@dataclass(slots=True)
class Tables:
    """Reads what a question is about."""

    text: Text
    shapes: Mapping[str, TableShape]
    named: dict[str, exp.Expr]
    alone: bool = True

    def read(self, tree: exp.Expr) -> tuple[Scope, list[Expr]]:
        """Return the tables of a question, and the conditions that they bring along.

        Raises:
            InvalidRequest: for joins that are not on the privacy unit.
        """
        start = tree.args.get("from_")
        if start is None:
            raise self.text.refuse(tree, "there is no FROM; write SELECT COUNT(*) FROM a dataset")
        self._only(start, "this")
        joins = tree.args.get("joins") or []
        self.alone = not joins
        sources: tuple[Source, ...] = (self.source(start.this),)
        where = list(sources[0].where)
        if len(joins) >= _MOST_PARTS:
            raise self.text.refuse(
                joins[0], f"there are {len(joins)} joins; fewer than {_MOST_PARTS} are read"
            )
        for join in joins:
            sources, more = self._joined(sources, join)
            where += more
        return Scope(sources), where

    def _only(self, node: exp.Expr, *known: str) -> None:
        Reader(self.text, Scope()).only(node, *known)

    def source(self, node: exp.Expr, alias: str = "") -> Source:
        """Return one table, or what a simple subquery makes of one; `alias` is that of an outer one."""
        if isinstance(node, exp.Subquery):
            self._only(node, "this", "alias")
            name = alias or self._alias(node) or "subquery"
            return self._derived(node.this, name)
        if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier):
            inner = node.this if isinstance(node, exp.Table) else node
            name = self.text.word(inner) if isinstance(inner, exp.Expr) else "this"
            if name in REFUSED:
                raise self.text.refuse(node, f"{name} {REFUSED[name]}")
            raise self.text.refuse(
                node, f"{name} is no dataset; ask about one: {listed(self.shapes) or 'there is none'}"
            )
        if node.args.get("db"):
            raise self.text.refuse(node, f"datasets stand in no schema; write {node.name}")
        self._only(node, "this", "alias")
        alias = alias or self._alias(node)
        part = same(node.name, self.named)
        if part is not None:
            inside = Tables(
                self.text, self.shapes, dict(islice(self.named.items(), list(self.named).index(part)))
            )
            inside.alone = self.alone
            return inside._derived(self.named[part], alias or part)
        with Reader(self.text, Scope()).at(node):
            own, shape = named(node.name, self.shapes)
        name = alias or own.partition("@")[0]
        return replace(table(own, shape, "" if self.alone else name), name=name)

    def _alias(self, node: exp.Expr) -> str:
        alias = node.args.get("alias")
        if alias is None:
            return ""
        self._only(alias, "this")
        if not isinstance(alias.this, exp.Identifier):
            raise self.text.refuse(node, "a table is called by a name, as in FROM flow AS f")
        return str(alias.name)

    def _derived(self, tree: exp.Expr, name: str) -> Source:
        """Return a subquery that renames, computes and filters columns of one table."""
        way = "a subquery may choose columns and filter rows of one table; write the rest outside"
        if not isinstance(tree, exp.Select):
            raise self.text.refuse(tree, way)
        for clause, said in tree.args.items():
            if said and clause not in ("expressions", "from_", "where"):
                raise self.text.refuse(
                    tree, f"{clause.strip('_').upper()} in a subquery is not understood: {way}"
                )
        start = tree.args.get("from_")
        if start is None:
            raise self.text.refuse(tree, way)
        inner = self.source(start.this, name)
        reader = Reader(self.text, Scope((replace(inner, name=self._alias(start.this) or inner.name),)))
        columns: dict[str, Typed] = {}
        unit = inner.unit
        for each in tree.expressions:
            of = each.unalias()
            if isinstance(of, exp.Star):
                reader.only(of)
                columns.update(inner.columns)
            elif isinstance(of, exp.Column) and reader.scope.unit(of.name, of.text("table")):
                unit = each.alias or unit
            else:
                columns[each.alias or each.output_name or "expression"] = self._small(
                    each, reader.expression(of)
                )
        where = list(inner.where)
        if tree.args.get("where"):
            where.append(condition(reader, tree.args["where"].this))
        return replace(inner, name=name, columns=columns, unit=unit, where=tuple(where))

    def _small(self, node: exp.Expr, made: Typed) -> Typed:
        """Refuse what grows from subquery to subquery."""
        if next(islice(walk(made.of), _MOST_NODES, None), None) is not None:
            raise self.text.refuse(
                node, f"this column stands for more than {_MOST_NODES} terms; ask for it in parts"
            )
        return made

    def _joined(self, sources: tuple[Source, ...], join: exp.Expr) -> tuple[tuple[Source, ...], list[Expr]]:
        kind = self._kind(join)
        made = replace(self.source(join.this), kind=kind)
        if same(made.name, [each.name for each in sources]):
            raise self.text.refuse(
                join, f"two tables are called {made.name}; name one, as in JOIN {made.table} AS other"
            )
        if kind == "left" and made.where:
            raise self.text.refuse(
                join, "a subquery after LEFT JOIN may not filter; write the condition into FILTER"
            )
        using = join.args.get("using")
        if using:
            self._using(join, using, sources, made)
            return (*sources, made), list(made.where)
        extra = self._on(join, sources, made)
        if kind == "left" and extra:
            raise self.text.refuse(
                join, f"LEFT JOIN is on the privacy unit alone: {self._form(sources, made)}"
            )
        reader = Reader(self.text, Scope((*sources, made)))
        return (*sources, made), [*made.where, *(condition(reader, each) for each in extra)]

    def _kind(self, join: exp.Expr) -> Literal["inner", "left"]:
        self._only(join, "this", "side", "kind", "on", "using", "method")
        side, kind, method = (join.text(name).upper() for name in ("side", "kind", "method"))
        if method or side not in ("", "LEFT") or kind not in ("", "INNER", "OUTER"):
            word = " ".join(each for each in (method, side, kind) if each)
            raise self.text.refuse(
                join, f"{word} JOIN is not understood; write JOIN or LEFT JOIN, on the privacy unit"
            )
        return "left" if side == "LEFT" else "inner"

    def _form(self, sources: tuple[Source, ...], made: Source) -> str:
        first = sources[0]
        return f"write JOIN {made.table} ON {first.name}.{first.unit} = {made.name}.{made.unit}"

    def _using(
        self, join: exp.Expr, using: list[exp.Expr], sources: tuple[Source, ...], made: Source
    ) -> None:
        scope = Scope((sources[0], made))
        names = [each.name for each in using]
        if len(names) != 1 or not all(scope.unit(names[0], each.name) for each in scope.sources):
            raise self.text.refuse(
                join, f"joins are on the privacy unit, which bounds what one has: {self._form(sources, made)}"
            )

    def _on(self, join: exp.Expr, sources: tuple[Source, ...], made: Source) -> list[exp.Expr]:
        """Return what a join asks for beside equal units."""
        on = join.args.get("on")
        waiting, parts = [on] if on is not None else [], []
        while waiting:
            each = waiting.pop().unnest()
            if isinstance(each, exp.And):
                waiting += [each.expression, each.this]
            else:
                parts.append(each)
        scope = Scope((*sources, made))
        units = [each for each in parts if self._equal_units(scope, each, made)]
        if len(units) != 1:
            raise self.text.refuse(
                join, f"joins are on the privacy unit, which bounds what one has: {self._form(sources, made)}"
            )
        return [each for each in parts if each is not units[0]]

    def _equal_units(self, scope: Scope, node: exp.Expr, made: Source) -> bool:
        if not isinstance(node, exp.EQ):
            return False
        sides = [node.this.unnest(), node.expression.unnest()]
        if not all(isinstance(side, exp.Column) and side.text("table") for side in sides):
            return False
        try:
            found = [scope.unit(side.name, side.text("table")) for side in sides]
        except InvalidRequest as wrong:
            raise self.text.refuse(node, str(wrong)) from None
        others = [each for each in found if each is not None and each is not made]
        return made in found and len(others) == 1 and others[0].kind != "left"
