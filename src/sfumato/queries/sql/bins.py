"""Bounds and bins of numbers."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING

from sqlglot import exp

from sfumato.queries import kinds
from sfumato.queries.kinds import Typed
from sfumato.queries.show import number, show
from sfumato.queries.sql.refusals import NODES

if TYPE_CHECKING:
    from sfumato.queries.sql.expressions import Reader


def clamp(reader: Reader, node: exp.Expr) -> Typed:
    """Read CLAMP(x, low, high)."""
    args = reader.arguments(node, 3, "CLAMP(x, 0, 10)")
    for each in args[1:]:
        reader.number(each)
    return kinds.call("clamp", *map(reader.expression, args))


def least_greatest(reader: Reader, node: exp.Expr) -> Typed:
    """Read LEAST(GREATEST(x, low), high), either way round, as bounds; NULL stays NULL."""
    way = "bounds are written CLAMP(x, low, high) or LEAST(GREATEST(x, low), high)"
    sides = [each for each in (node.this, *node.expressions) if each is not None]
    inner = [side for side in sides if isinstance(side.unnest(), exp.Least | exp.Greatest)]
    outer = [side for side in sides if not isinstance(side.unnest(), exp.Least | exp.Greatest)]
    if len(sides) != 2 or len(inner) != 1 or type(inner[0].unnest()) is type(node):
        raise reader.text.refuse(node, way)
    within = inner[0].unnest()
    values = [each for each in (within.this, *within.expressions) if each is not None]
    subject = [value for value in values if not isinstance(value.unnest(), exp.Literal | exp.Neg)]
    if len(values) != 2 or len(subject) != 1:
        raise reader.text.refuse(node, way)
    other = next(value for value in values if value is not subject[0])
    low, high = (other, outer[0]) if isinstance(node, exp.Least) else (outer[0], other)
    for each in (low, high):
        reader.number(each)
    return kinds.call("clamp", *map(reader.expression, (subject[0], low, high)))


def floor_of(reader: Reader, node: exp.Expr) -> Typed:
    """Read FLOOR(x / width)."""
    reader.only(node, "this")
    inner = None if node.this is None else node.this.unnest()
    if isinstance(inner, exp.Div):
        return _stairs(reader, node, inner.this, reader.number(inner.expression))
    return _stairs(reader, node, node.this, Fraction(1))


def whole_quotient(reader: Reader, node: exp.Expr) -> Typed:
    """Read x // width, which is rounded down where x is not negative."""
    reader.only(node, "this", "expression")
    return _stairs(reader, node, node.this, reader.number(node.expression), least=0)


def _stairs(reader: Reader, node: exp.Expr, of: exp.Expr, width: Fraction, least: int | None = None) -> Typed:
    """Return floor(x / width), which is a bin, since x has declared bounds."""
    inner = reader.expression(of)
    bounds = reader.scope.bounds(inner)
    if bounds is None or width <= 0:
        raise reader.text.refuse(
            node,
            f"bins need the bounds of {show(inner.of)}; write BIN_OF({show(inner.of)}, low, width, count)",
        )
    low, high = (floor(bound / width) for bound in bounds)
    if least is not None and low < least:
        raise reader.text.refuse(node, NODES[exp.IntDiv])
    step = kinds.binned(inner, low * width, width, high - low + 1)
    return kinds.call("+", step, kinds.constant(low)) if low else step


def width_bucket(reader: Reader, node: exp.Expr) -> Typed:
    """Return bins with one more at each end: 0 is below, count + 1 from the upper bound on."""
    reader.only(node, "this", "min_value", "max_value", "num_buckets")
    low, high = reader.number(node.args.get("min_value")), reader.number(node.args.get("max_value"))
    count = _whole(reader, node, node.args.get("num_buckets"))
    if high <= low:
        raise reader.text.refuse(
            node, f"bins from {number(low)} to {number(high)} hold nothing; lower bound first"
        )
    width = (high - low) / count
    return kinds.binned(reader.expression(node.this), low - width, width, count + 2)


def bin_of(reader: Reader, node: exp.Expr) -> Typed:
    """Read BIN_OF(x, low, width, count): 0..count-1."""
    of, low, width, count = reader.arguments(node, 4, "BIN_OF(x, low, width, count)")
    return kinds.binned(
        reader.expression(of), reader.number(low), reader.number(width), _whole(reader, node, count)
    )


def _whole(reader: Reader, node: exp.Expr, of: exp.Expr | None) -> int:
    found = reader.number(of)
    if found.denominator != 1 or not 1 <= found <= 10_000:
        raise reader.text.refuse(
            node, f"{number(found)[:30]} bins cannot be; give a whole number from 1 to 10000"
        )
    return int(found)
