"""Figures: COUNT, SUM, AVG and the others, from the syntax tree to the model."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from sqlglot import exp

from sfumato.queries.model import Aggregate, AggregateKind, Expr
from sfumato.queries.pieces import both, counted, valued
from sfumato.queries.show import show
from sfumato.queries.sql.expressions import Reader

_MOMENTS: Final[dict[type[exp.Expr], AggregateKind]] = {
    exp.Sum: "sum",
    exp.Avg: "mean",
    exp.Variance: "variance",
    exp.VariancePop: "variance",
    exp.Stddev: "stddev",
    exp.StddevPop: "stddev",
}
_BY_NAME: Final[dict[str, AggregateKind]] = {"MEAN": "mean", "STD": "stddev", "VARIANCE_POP": "variance"}
_QUANTILES: Final = (exp.PercentileCont, exp.Quantile, exp.ApproxQuantile)


def figure(reader: Reader, node: exp.Expr) -> Aggregate | None:
    """Return the figure that a node is, still without a name; None where it is none.

    Raises:
        InvalidRequest: for figures that are not offered.
    """
    node = node.unnest()
    with reader.at(node):
        if isinstance(node, exp.Filter):
            return _filtered(reader, node)
        if isinstance(node, exp.WithinGroup):
            return _within_group(reader, node)
        if isinstance(node, exp.Count):
            return _count(reader, node)
        if isinstance(node, exp.CountIf):
            reader.only(node, "this")
            return Aggregate("count", "", where=condition(reader, node.this))
        return _moment(reader, node)


def condition(reader: Reader, node: exp.Expr) -> Expr:
    """Return a condition.

    Raises:
        InvalidRequest: where it is a value.
    """
    found = reader.expression(node)
    if found.kind != "boolean":
        raise reader.text.refuse(node, f"{show(found.of)} is no condition; compare it, as in x > 50")
    return found.of


def _filtered(reader: Reader, node: exp.Expr) -> Aggregate:
    reader.only(node, "this", "expression")
    inner = figure(reader, node.this)
    if inner is None:
        raise reader.text.refuse(
            node, "FILTER (WHERE ...) follows a figure, as in COUNT(*) FILTER (WHERE x > 50)"
        )
    return both(inner, condition(reader, node.expression.this))


def _count(reader: Reader, node: exp.Expr) -> Aggregate:
    reader.only(node, "this")
    of = node.this.unnest() if node.this is not None else None
    if of is None or isinstance(of, exp.Star):
        return Aggregate("count", "")
    if isinstance(of, exp.Distinct):
        return _units(reader, of)
    if isinstance(of, exp.Column) and _unit(reader, of):
        return Aggregate("count", "")
    return counted(reader.expression(of))


def _unit(reader: Reader, node: exp.Expr) -> bool:
    """Return whether a column is the privacy unit, as far as every row has one."""
    if isinstance(node.this, exp.Star):
        return False
    source = reader.scope.unit(node.name, node.text("table"))
    if source is not None and source.kind == "left":
        raise reader.text.refuse(
            node,
            f"{source.name} is joined by LEFT JOIN, so not all have it; count the unit of the first table",
        )
    return source is not None


def _units(reader: Reader, node: exp.Expr) -> Aggregate:
    reader.only(node, "expressions")
    of = node.expressions[0].unnest() if len(node.expressions) == 1 else None
    if isinstance(of, exp.Column) and _unit(reader, of):
        return Aggregate("units", "")
    if (
        isinstance(of, exp.Case)
        and len(of.args.get("ifs") or ()) == 1
        and not (of.this or of.args.get("default"))
    ):
        branch = of.args["ifs"][0]
        chosen = (branch.args.get("true") or branch).unnest()
        if isinstance(chosen, exp.Column) and _unit(reader, chosen):
            return Aggregate("units", "", where=condition(reader, branch.this))
    unit = reader.scope.sources[0].unit
    raise reader.text.refuse(
        node,
        f"COUNT(DISTINCT ...) counts people alone: write COUNT(DISTINCT {unit}); "
        "for other columns, GROUP BY them",
    )


def _within_group(reader: Reader, node: exp.Expr) -> Aggregate:
    inner, order = node.this, node.expression
    reader.only(node, "this", "expression")
    if not isinstance(inner, exp.PercentileCont) or inner.args.get("expression"):
        raise reader.text.refuse(node, reader.why_not(reader.text.word(inner)))
    reader.only(inner, "this")
    by = order.expressions if isinstance(order, exp.Order) else []
    if len(by) != 1:
        raise reader.text.refuse(node, "WITHIN GROUP takes one ORDER BY, as in WITHIN GROUP (ORDER BY x)")
    reader.only(by[0], "this", "desc")
    quantile = _quantile(reader, inner.this)
    return _valued(reader, node, "quantile", by[0].this, 1 - quantile if by[0].args.get("desc") else quantile)


def _quantile(reader: Reader, node: exp.Expr) -> Fraction:
    found = reader.number(node)
    if not 0 <= found <= 1:
        raise reader.text.refuse(node, "a quantile is a number from 0 to 1, as in QUANTILE_CONT(x, 0.9)")
    return found


def _moment(reader: Reader, node: exp.Expr) -> Aggregate | None:
    kind = _MOMENTS.get(type(node))
    name = reader.text.word(node)
    if kind is not None:
        if name in ("VAR_SAMP", "STDDEV_SAMP"):
            raise reader.text.refuse(node, reader.why_not(name))
        reader.only(node, "this")
        return _valued(reader, node, kind, node.this)
    if isinstance(node, exp.Median):
        reader.only(node, "this")
        return _valued(reader, node, "quantile", node.this, Fraction(1, 2))
    if isinstance(node, _QUANTILES):
        where = "expression" if isinstance(node, exp.PercentileCont) else "quantile"
        reader.only(node, "this", where)
        if node.args.get(where) is None:
            raise reader.text.refuse(node, f"{name} takes a column and a number: {name}(x, 0.9)")
        return _valued(reader, node, "quantile", node.this, _quantile(reader, node.args[where]))
    if isinstance(node, exp.Anonymous) and name in _BY_NAME:
        if len(node.expressions) != 1:
            raise reader.text.refuse(node, f"{name} takes one argument: {name}(x)")
        return _valued(reader, node, _BY_NAME[name], node.expressions[0])
    return None


def _valued(
    reader: Reader, node: exp.Expr, kind: AggregateKind, of: exp.Expr | None, quantile: Fraction | None = None
) -> Aggregate:
    """Return a figure of numbers; sums of ones are counts."""
    name = reader.text.word(node)
    if of is None or isinstance(of, exp.Distinct | exp.Star):
        what = (
            "with DISTINCT is not offered: leave it out" if isinstance(of, exp.Distinct) else "takes a column"
        )
        raise reader.text.refuse(node, f"{name} {what}, as in {name}(x)")
    inner = of.unnest()
    if isinstance(inner, exp.Anonymous) and reader.text.word(inner) == "CLAMP":
        value, low, high = reader.arguments(inner, 3, "CLAMP(x, 0, 10)")
        return valued(kind, reader.expression(value), quantile, (reader.number(low), reader.number(high)))
    return valued(kind, reader.expression(of), quantile)
