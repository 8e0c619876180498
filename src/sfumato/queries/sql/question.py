"""A whole question: its clauses, in the order in which they mean something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from sqlglot import exp

from sfumato.core.errors import InvalidRequest
from sfumato.queries import kinds
from sfumato.queries.kinds import TableShape, Typed
from sfumato.queries.model import (
    Aggregate,
    Binned,
    Column,
    Constant,
    Expr,
    Join,
    Key,
    Order,
    Part,
    Query,
    Truncated,
    Value,
    walk,
)
from sfumato.queries.show import listed, show
from sfumato.queries.sql.expressions import Reader
from sfumato.queries.sql.figures import condition, default_name, figure
from sfumato.queries.sql.scope import Scope, same
from sfumato.queries.sql.tables import Tables
from sfumato.queries.sql.text import Text

_CLAUSES: Final = (
    "expressions",
    "from_",
    "where",
    "group",
    "having",
    "order",
    "limit",
    "joins",
    "with_",
    "distinct",
)
_FLIPPED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "<>": "<>"}
_COMPARED: Final[dict[type[exp.Expr], str]] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_MOST_NODES: Final = 20_000
_ROWS: Final = (
    "rows are about people; ask for figures, as in SELECT junction, COUNT(*) FROM flow GROUP BY junction"
)


@dataclass(slots=True)
class _Chosen:
    """What SELECT names: a figure, or a key."""

    node: exp.Expr
    alias: str
    name: str
    figure: Aggregate | None = None
    key: Key | None = None


def question(text: Text, tree: exp.Expr, shapes: Mapping[str, TableShape]) -> Query:
    """Return what a statement asks.

    Raises:
        InvalidRequest: for what is not understood.
    """
    tree = tree.unnest() if isinstance(tree, exp.Subquery) and not tree.args.get("alias") else tree
    if isinstance(tree, exp.SetOperation):
        word = type(tree).__name__.upper()
        raise text.refuse(
            tree, f"{word} is not understood; ask the questions one by one, or GROUP BY what differs"
        )
    if not isinstance(tree, exp.Select):
        raise text.refuse(tree, "questions alone can be asked; write SELECT ... FROM ...")
    return _Question(text, tree, shapes).read()


class _Question:
    """Reads the clauses of one SELECT."""

    def __init__(self, text: Text, tree: exp.Expr, shapes: Mapping[str, TableShape]) -> None:
        self.text, self.tree = text, tree
        self._refuse_clauses()
        self.tables = Tables(text, shapes, self._named())
        self.scope, self.brought = self.tables.read(tree)
        self.reader = Reader(text, self.scope)
        self.chosen: list[_Chosen] = []

    def read(self) -> Query:
        self.chosen = [self._choose(each) for each in self.tree.expressions]
        keys, rollup = self._keys()
        aggregates = tuple(each.figure for each in self.chosen if each.figure is not None)
        if not aggregates:
            raise self.text.refuse(self.tree, _ROWS)
        first, *others = self.scope.sources
        query = Query(
            table=first.table,
            aggregates=aggregates,
            alias=first.name if others else "",
            joins=tuple(
                Join(each.table, each.name, "left" if each.kind == "left" else "inner") for each in others
            ),
            where=self._where(),
            keys=keys,
            rollup=rollup,
            having=self._having(aggregates),
            order=self._order(keys, aggregates),
            limit=self._limit(),
        )
        return self._sized(query)

    def _refuse_clauses(self) -> None:
        ways = {
            "qualify": "window functions give every row a figure; use HAVING on figures",
            "offset": "OFFSET is not understood; ask for more by LIMIT",
            "windows": "window functions give every row a figure, and rows are about people; use GROUP BY",
            "into": "INTO writes a table; questions alone can be asked",
            "sample": "samples are not understood; the noise depends on a bound, not on a sample",
        }
        for name, said in self.tree.args.items():
            if said and name not in _CLAUSES:
                word = name.strip("_").upper()
                raise self.text.refuse(
                    said if isinstance(said, exp.Expr) else self.tree,
                    ways.get(
                        name,
                        f"{word} is not understood; there are WHERE, GROUP BY, HAVING, ORDER BY and LIMIT",
                    ),
                )
        if self.tree.args.get("distinct"):
            raise self.text.refuse(self.tree, f"SELECT DISTINCT shows what occurs: {_ROWS}")

    def _named(self) -> dict[str, exp.Expr]:
        given = self.tree.args.get("with_")
        if given is None:
            return {}
        self_reader = Reader(self.text, Scope())
        self_reader.only(given, "expressions")
        if len(given.expressions) > 10:
            raise self.text.refuse(
                given, f"WITH names {len(given.expressions)} subqueries; at most 10 are read"
            )
        named: dict[str, exp.Expr] = {}
        for each in given.expressions:
            self_reader.only(each, "this", "alias")
            if not each.alias or same(each.alias, named) or (each.args["alias"].args.get("columns")):
                raise self.text.refuse(each, "WITH gives each subquery one name: WITH fast AS (SELECT ...)")
            named[each.alias] = each.this
        return named

    # -- SELECT and GROUP BY ------------------------------------------------------------------------------------------

    def _choose(self, node: exp.Expr) -> _Chosen:
        alias = node.alias if isinstance(node, exp.Alias) else ""
        if isinstance(node, exp.Aliases):
            raise self.text.refuse(node, "a column has one name; write AS name")
        if alias and (len(alias) > 128 or not alias.isprintable()):
            raise self.text.refuse(node, "a name has at most 128 printable letters; choose another one")
        inner = node.this if isinstance(node, exp.Alias) else node
        inner = inner.unnest()
        if isinstance(inner, exp.Star) or (
            isinstance(inner, exp.Column) and isinstance(inner.this, exp.Star)
        ):
            raise self.text.refuse(node, f"* shows rows: {_ROWS}")
        found = figure(self.reader, inner)
        if found is not None:
            name = self._free(node, alias, default_name(found))
            made = _Chosen(inner, alias, name, figure=replace(found, name=name))
        else:
            of, values = self._key(inner)
            name = self._free(node, alias, _key_name(of))
            made = _Chosen(inner, alias, name, key=Key(name, of, values))
        self.chosen.append(made)
        return made

    def _free(self, node: exp.Expr, alias: str, default: str) -> str:
        taken = {each.name.lower() for each in self.chosen}
        if alias:
            if alias.lower() in taken:
                raise self.text.refuse(node, f"two columns are called {alias}; give one another name")
            return alias
        name, count = default, 1
        while name.lower() in taken:
            count += 1
            name = f"{default}_{count}"
        return name

    def _key(self, node: exp.Expr) -> tuple[Expr, tuple[Value, ...] | None]:
        """Return what is grouped by, and the values that AMONG names."""
        node = node.unnest()
        if isinstance(node, exp.Anonymous) and self.text.word(node) == "AMONG":
            self.reader.only(node, "this", "expressions")
            if len(node.expressions) < 2:
                raise self.text.refuse(node, "AMONG takes a column and its values: AMONG(junction, 'A', 'B')")
            of = self._grouped(node.expressions[0])
            return of.of, among(of, [self.reader.expression(each) for each in node.expressions[1:]])
        return self._grouped(node).of, None

    def _grouped(self, node: exp.Expr) -> Typed:
        node = node.unnest()
        if isinstance(node, exp.Column) and not isinstance(node.this, exp.Star):
            with self.reader.at(node):
                if self.scope.unit(node.name, node.text("table")) is not None:
                    raise InvalidRequest(
                        f"{node.name} is the privacy unit: that is one group per person; group by what they share"
                    )
        found = self.reader.expression(node)
        if isinstance(found.of, Constant):
            raise self.text.refuse(node, f"{show(found.of)} is the same for everybody; group by a column")
        return found

    def _keys(self) -> tuple[tuple[Key, ...], bool]:
        group = self.tree.args.get("group")
        if group is None:
            for each in self.chosen:
                if each.key is not None:
                    raise self.text.refuse(each.node, self._ungrouped(each))
            return (), False
        self.reader.only(group, "expressions", "all", "rollup")
        if group.args.get("all") and not group.expressions:
            return tuple(each.key for each in self.chosen if each.key is not None), False
        nodes, rollup = self._rolled(group)
        keys: list[Key] = []
        for node in nodes:
            key = self._group_key(node)
            if key.of not in [each.of for each in keys]:
                keys.append(key)
        for each in self.chosen:
            if each.key is not None and each.key.of not in [key.of for key in keys]:
                raise self.text.refuse(each.node, self._ungrouped(each))
        return tuple(self._distinct(keys)), rollup

    def _ungrouped(self, each: _Chosen) -> str:
        assert each.key is not None
        if not any(one.figure is not None for one in self.chosen):
            return _ROWS
        return f"{show(each.key.of)[:60]} is neither a figure nor grouped by; add it to GROUP BY"

    def _distinct(self, keys: list[Key]) -> list[Key]:
        """Name keys that SELECT leaves out, so that no two columns of the answer are called alike."""
        named: list[Key] = []
        taken = {each.name.lower() for each in self.chosen}
        for key in keys:
            own = next(
                (each.key for each in self.chosen if each.key is not None and each.key.of == key.of), None
            )
            name, count = key.name, 1
            while own is None and name.lower() in taken:
                count += 1
                name = f"{key.name}_{count}"
            taken.add(name.lower())
            named.append(replace(key, name=name))
        return named

    def _rolled(self, group: exp.Expr) -> tuple[list[exp.Expr], bool]:
        """Return what is grouped by, and whether it is rolled up."""
        way = "totals are over all keys: GROUP BY ROLLUP (a, b)"
        nodes = list(group.expressions)
        for rolled in group.args.get("rollup") or []:
            if rolled.expressions or not nodes:
                nodes.append(rolled)
            else:
                return nodes, True
        if any(isinstance(each, exp.Cube | exp.GroupingSets) for each in nodes):
            raise self.text.refuse(group, f"CUBE and GROUPING SETS are not understood; {way}")
        if not any(isinstance(each, exp.Rollup) for each in nodes):
            return nodes, False
        if len(nodes) != 1 or not nodes[0].expressions:
            raise self.text.refuse(group, way)
        return list(nodes[0].expressions), True

    def _group_key(self, node: exp.Expr) -> Key:
        inner = node.unnest()
        if isinstance(inner, exp.Literal) and not inner.args.get("is_string"):
            made = self._at_place(inner)
            if made.key is None:
                raise self.text.refuse(
                    inner, f"column {inner.name} is a figure; group by keys, order by figures"
                )
            return made.key
        if isinstance(inner, exp.Column) and not inner.text("table"):
            called = self._called(inner.name)
            known = self._is_column(inner)
            if called is not None and called.key is not None and called.alias:
                if known and self.reader.expression(inner).of != called.key.of:
                    raise self.text.refuse(
                        inner,
                        f"{inner.name} is a column and the name of {show(called.key.of)}; write GROUP BY its place",
                    )
                return called.key
        of, values = self._key(inner)
        own = next((each.key for each in self.chosen if each.key is not None and each.key.of == of), None)
        if own is not None:
            return own if values is None else replace(own, values=values)
        return Key(_key_name(of), of, values)

    def _is_column(self, node: exp.Expr) -> bool:
        return any(same(node.name, source.columns) for source in self.scope.sources)

    def _called(self, name: str) -> _Chosen | None:
        own = same(name, [each.name for each in self.chosen])
        return next((each for each in self.chosen if each.name == own), None)

    def _at_place(self, node: exp.Expr) -> _Chosen:
        written = str(node.this)
        if not (written.isdigit() and len(written) < 5 and 1 <= int(written) <= len(self.chosen)):
            raise self.text.refuse(
                node, f"there is no column {written[:20]}; SELECT has 1 to {len(self.chosen)}"
            )
        return self.chosen[int(written) - 1]

    # -- WHERE, HAVING, ORDER BY, LIMIT -------------------------------------------------------------------------------

    def _where(self) -> Expr | None:
        where = list(self.brought)
        given = self.tree.args.get("where")
        if given is not None:
            for each in given.this.walk():
                if isinstance(each, exp.AggFunc):
                    raise self.text.refuse(each, "WHERE chooses rows; conditions on figures stand in HAVING")
            where.append(condition(self.reader, given.this))
        if not where:
            return None
        return kinds.call("and", *(Typed(each, "boolean") for each in where)).of

    def _having(self, figures: tuple[Aggregate, ...]) -> tuple[tuple[str, str, float], ...]:
        given = self.tree.args.get("having")
        if given is None:
            return ()
        waiting, found = [given.this], []
        while waiting:
            each = waiting.pop().unnest()
            if isinstance(each, exp.And):
                waiting += [each.expression, each.this]
            elif isinstance(each, exp.Between):
                self.reader.only(each, "this", "low", "high")
                name = self._figure_name(each.this, figures, "HAVING")
                found += [(name, ">=", self._having_number(each.args["low"]))]
                found += [(name, "<=", self._having_number(each.args["high"]))]
            elif type(each) in _COMPARED:
                found.append(self._compared(each, figures))
            else:
                raise self.text.refuse(
                    each,
                    "HAVING compares figures of SELECT with numbers, joined by AND, as in HAVING COUNT(*) > 100",
                )
        return tuple(found)

    def _compared(self, node: exp.Expr, figures: tuple[Aggregate, ...]) -> tuple[str, str, float]:
        op, left, right = _COMPARED[type(node)], node.this, node.expression
        if isinstance(left.unnest(), exp.Literal | exp.Neg):
            op, left, right = _FLIPPED[op], right, left
        return self._figure_name(left, figures, "HAVING"), op, self._having_number(right)

    def _having_number(self, node: exp.Expr) -> float:
        return float(self.reader.number(node))

    def _figure_name(self, node: exp.Expr, figures: tuple[Aggregate, ...], clause: str) -> str:
        """Return the name of a figure, which is written again or called by its name."""
        node = node.unnest()
        if isinstance(node, exp.Column) and not node.text("table"):
            called = self._called(node.name)
            if called is not None and called.figure is not None:
                return called.name
            raise self.text.refuse(
                node,
                f"{clause} is on figures of SELECT: {listed(each.name for each in figures)}; "
                f"conditions on columns stand in WHERE",
            )
        found = figure(self.reader, node)
        for each in figures:
            if found is not None and replace(each, name="") == found:
                return each.name
        raise self.text.refuse(
            node, f"{clause} is on figures of SELECT, since nothing else leaves: add this one to SELECT"
        )

    def _order(self, keys: tuple[Key, ...], figures: tuple[Aggregate, ...]) -> tuple[Order, ...]:
        given = self.tree.args.get("order")
        if given is None:
            return ()
        self.reader.only(given, "expressions")
        found: list[Order] = []
        for each in given.expressions:
            if not isinstance(each, exp.Ordered):
                raise self.text.refuse(each, "ORDER BY is by figures and keys, as in ORDER BY 2 DESC")
            self.reader.only(each, "this", "desc")
            found.append(Order(self._ordered(each.this.unnest(), keys, figures), bool(each.args.get("desc"))))
        return tuple(found)

    def _ordered(self, node: exp.Expr, keys: tuple[Key, ...], figures: tuple[Aggregate, ...]) -> str:
        if isinstance(node, exp.Literal) and not node.args.get("is_string"):
            made = self._at_place(node)
            return next(
                (key.name for key in keys if made.key is not None and key.of == made.key.of), made.name
            )
        if isinstance(node, exp.Column) and not node.text("table") and self._called(node.name) is not None:
            return self._ordered_name(self._called(node.name), keys)
        found = figure(self.reader, node)
        if found is not None:
            return self._figure_name(node, figures, "ORDER BY")
        of = self._grouped(node).of
        for key in keys:
            if key.of == of:
                return key.name
        raise self.text.refuse(node, "ORDER BY is by figures and keys of the answer; add this to GROUP BY")

    def _ordered_name(self, made: _Chosen | None, keys: tuple[Key, ...]) -> str:
        assert made is not None
        return next((key.name for key in keys if made.key is not None and key.of == made.key.of), made.name)

    def _limit(self) -> int | None:
        given = self.tree.args.get("limit")
        if given is None:
            return None
        options = given.args.get("limit_options")
        if options is not None and (options.args.get("percent") or options.args.get("with_ties")):
            raise self.text.refuse(given, "LIMIT takes a whole number, as in LIMIT 10")
        self.reader.only(given, "expression", "count", "limit_options", "direction")
        written = given.args.get("expression") or given.args.get("count")
        found = self.reader.number(written) if written is not None else kinds.Fraction(1)
        if found.denominator != 1 or not 1 <= found <= 1_000_000:
            raise self.text.refuse(given, "LIMIT takes a whole number from 1, as in LIMIT 10")
        return int(found)

    def _sized(self, query: Query) -> Query:
        parts = [query.where, *(key.of for key in query.keys)]
        parts += [each for one in query.aggregates for each in (one.of, one.where)]
        for part in parts:
            if next(islice(walk(part), _MOST_NODES, None), None) is not None:
                raise self.text.refuse(
                    self.tree, f"the question has more than {_MOST_NODES} terms; ask it in parts"
                )
        return query


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


def _key_name(of: Expr) -> str:
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
