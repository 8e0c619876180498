"""HAVING, ORDER BY and LIMIT: all on figures that have their noise."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Final

from sqlglot import exp

from sfumato.queries.model import Key, Order
from sfumato.queries.show import listed
from sfumato.queries.sql.columns import Columns
from sfumato.queries.sql.expressions import COMPARISONS
from sfumato.queries.sql.figures import figure

_FLIPPED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "<>": "<>"}


def having(columns: Columns, tree: exp.Expr) -> tuple[tuple[str, str, float], ...]:
    """Return conditions on figures.

    Raises:
        InvalidRequest: for what is not understood.
    """
    given = tree.args.get("having")
    if given is None:
        return ()
    waiting, found = [given.this], []
    while waiting:
        each = waiting.pop().unnest()
        if isinstance(each, exp.And):
            waiting += [each.expression, each.this]
        elif isinstance(each, exp.Between):
            columns.reader.only(each, "this", "low", "high")
            name = _figure_name(columns, each.this, "HAVING")
            found += [(name, ">=", _number(columns, each.args.get("low")))]
            found += [(name, "<=", _number(columns, each.args.get("high")))]
        elif type(each) in COMPARISONS:
            found.append(_compared(columns, each))
        else:
            raise columns.reader.text.refuse(
                each,
                "HAVING compares figures of SELECT with numbers, joined by AND, as in HAVING COUNT(*) > 100",
            )
    return tuple(found)


def _compared(columns: Columns, node: exp.Expr) -> tuple[str, str, float]:
    op, left, right = COMPARISONS[type(node)], node.this, node.expression
    if isinstance(left.unnest(), exp.Literal | exp.Neg):
        op, left, right = _FLIPPED[op], right, left
    return _figure_name(columns, left, "HAVING"), op, _number(columns, right)


def _number(columns: Columns, node: exp.Expr | None) -> float:
    return float(columns.reader.number(node))


def _figure_name(columns: Columns, node: exp.Expr, clause: str) -> str:
    """Return the name of a figure, which is written again or called by its name."""
    node = node.unnest()
    if isinstance(node, exp.Column) and not node.text("table"):
        called = columns.called(node.name)
        if called is not None and called.figure is not None:
            return called.name
        raise columns.reader.text.refuse(
            node,
            f"{clause} is on figures of SELECT: {listed(each.name for each in columns.figures)}; "
            f"conditions on columns stand in WHERE",
        )
    found = figure(columns.reader, node)
    for each in columns.figures:
        if found is not None and replace(each, name="") == found:
            return each.name
    raise columns.reader.text.refuse(
        node, f"{clause} is on figures of SELECT, since nothing else leaves: add this one to SELECT"
    )


def order(columns: Columns, tree: exp.Expr, keys: tuple[Key, ...]) -> tuple[Order, ...]:
    """Return what the answer is sorted by.

    Raises:
        InvalidRequest: for what is not understood.
    """
    given = tree.args.get("order")
    if given is None:
        return ()
    columns.reader.only(given, "expressions")
    found: list[Order] = []
    for each in given.expressions:
        if not isinstance(each, exp.Ordered):
            raise columns.reader.text.refuse(each, "ORDER BY is by figures and keys, as in ORDER BY 2 DESC")
        columns.reader.only(each, "this", "desc")
        found.append(Order(_ordered(columns, each.this.unnest(), keys), bool(each.args.get("desc"))))
    return tuple(found)


def _ordered(columns: Columns, node: exp.Expr, keys: tuple[Key, ...]) -> str:
    made = None
    if isinstance(node, exp.Literal) and not node.args.get("is_string"):
        made = columns.at_place(node)
    elif isinstance(node, exp.Column) and not node.text("table"):
        made = columns.called(node.name)
    if made is None and figure(columns.reader, node) is not None:
        return _figure_name(columns, node, "ORDER BY")
    if made is not None and made.key is None:
        return made.name
    of = made.key.of if made is not None and made.key is not None else columns.grouped(node).of
    for key in keys:
        if key.of == of:
            return key.name
    raise columns.reader.text.refuse(
        node, "ORDER BY is by figures and keys of the answer; add this to GROUP BY"
    )


def limit(columns: Columns, tree: exp.Expr) -> int | None:
    """Return how many rows are wanted.

    Raises:
        InvalidRequest: for what is not understood.
    """
    given = tree.args.get("limit")
    if given is None:
        return None
    options = given.args.get("limit_options")
    if options is not None and (options.args.get("percent") or options.args.get("with_ties")):
        raise columns.reader.text.refuse(given, "LIMIT takes a whole number, as in LIMIT 10")
    columns.reader.only(given, "expression", "count", "limit_options", "direction")
    written = given.args.get("expression") or given.args.get("count")
    found = columns.reader.number(written) if written is not None else Fraction(1)
    if found.denominator != 1 or not 1 <= found <= 1_000_000:
        raise columns.reader.text.refuse(given, "LIMIT takes a whole number from 1, as in LIMIT 10")
    return int(found)
