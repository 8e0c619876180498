"""GROUP BY: names, places, aliases, expressions and totals."""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from sfumato.queries.model import Key
from sfumato.queries.pieces import free, key_name
from sfumato.queries.show import show
from sfumato.queries.sql.columns import ROWS, Chosen, Columns
from sfumato.queries.sql.scope import same


def keys_of(columns: Columns, tree: exp.Expr) -> tuple[tuple[Key, ...], bool]:
    """Return what is grouped by, and whether it is rolled up.

    Raises:
        InvalidRequest: for what SELECT names beside figures and is not grouped by, and for single people.
    """
    group = tree.args.get("group")
    if group is None:
        for each in columns.chosen:
            if each.key is not None:
                raise columns.reader.text.refuse(each.node, _ungrouped(columns, each))
        return (), False
    columns.reader.only(group, "expressions", "all", "rollup")
    if group.args.get("all") and not group.expressions:
        return columns.keys, False
    nodes, rollup = _rolled(columns, group)
    keys: list[Key] = []
    for node in nodes:
        key = _group_key(columns, node)
        if key.of not in [each.of for each in keys]:
            keys.append(key)
    for each in columns.chosen:
        if each.key is not None and each.key.of not in [key.of for key in keys]:
            raise columns.reader.text.refuse(each.node, _ungrouped(columns, each))
    return tuple(_distinct(columns, keys)), rollup


def _ungrouped(columns: Columns, each: Chosen) -> str:
    assert each.key is not None
    if not columns.figures:
        return ROWS
    return f"{show(each.key.of)[:60]} is neither a figure nor grouped by; add it to GROUP BY"


def _distinct(columns: Columns, keys: list[Key]) -> list[Key]:
    """Name keys that SELECT leaves out, so that no two columns of the answer are called alike."""
    named: list[Key] = []
    taken = {each.name.lower() for each in columns.chosen}
    for key in keys:
        own = columns.key_of(key.of)
        name = key.name if own is not None else free("", key.name, taken)
        named.append(replace(key, name=name))
    return named


def _rolled(columns: Columns, group: exp.Expr) -> tuple[list[exp.Expr], bool]:
    """Return what is grouped by, and whether it is rolled up."""
    way = "totals are over all keys: GROUP BY ROLLUP (a, b)"
    nodes = list(group.expressions)
    for rolled in group.args.get("rollup") or []:
        if rolled.expressions or not nodes:
            nodes.append(rolled)
        else:
            return nodes, True
    if any(isinstance(each, exp.Cube | exp.GroupingSets) for each in nodes):
        raise columns.reader.text.refuse(group, f"CUBE and GROUPING SETS are not understood; {way}")
    if not any(isinstance(each, exp.Rollup) for each in nodes):
        return nodes, False
    if len(nodes) != 1 or not nodes[0].expressions:
        raise columns.reader.text.refuse(group, way)
    return list(nodes[0].expressions), True


def _group_key(columns: Columns, node: exp.Expr) -> Key:
    inner = node.unnest()
    if isinstance(inner, exp.Literal) and not inner.args.get("is_string"):
        made = columns.at_place(inner)
        if made.key is None:
            raise columns.reader.text.refuse(
                inner, f"column {inner.name} is a figure; group by keys, order by figures"
            )
        return made.key
    if isinstance(inner, exp.Column) and not inner.text("table"):
        called = columns.called(inner.name)
        known = _is_column(columns, inner)
        if called is not None and called.key is not None and called.alias:
            if known and columns.reader.expression(inner).of != called.key.of:
                raise columns.reader.text.refuse(
                    inner,
                    f"{inner.name} is a column and the name of {show(called.key.of)}; "
                    "write GROUP BY its place",
                )
            return called.key
    of, values = columns.key(inner)
    own = columns.key_of(of)
    if own is not None:
        return own if values is None else replace(own, values=values)
    return Key(key_name(of), of, values)


def _is_column(columns: Columns, node: exp.Expr) -> bool:
    return any(same(node.name, source.columns) for source in columns.reader.scope.sources)
