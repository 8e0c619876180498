"""Expressions: from the syntax tree to the model, one kind of node after the other; all else is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor
from typing import Final

from sqlglot import exp

from sfumato.core.errors import InvalidRequest, nearest
from sfumato.queries import kinds
from sfumato.queries.kinds import Typed
from sfumato.queries.model import Column, Constant, Value
from sfumato.queries.show import number, show
from sfumato.queries.sql.scope import Scope
from sfumato.queries.sql.text import DEEPEST, Text
from sfumato.queries.sql.words import FUNCTIONS, PARTS, REFUSED, SUNDAY_FIRST, UNITS

_NUMBER: Final = re.compile(r"(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,3})?")
_INTERVAL: Final = re.compile(r"\s*1\s+([a-zA-Z]+)\s*")
#: What the parser adds, and what no answer depends on.
_IDLE: Final = {
    "big_int",
    "safe",
    "typed",
    "ignore_nulls",
    "nulls_first",
    "quoted",
    "is_string",
    "coalesce",
    "_type",
}

_COMPARISONS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_ARITHMETIC: dict[type[exp.Expr], str] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*"}
_REFUSED_NODES: dict[type[exp.Expr], str] = {
    exp.Div: "division can fail, and an error that depends on the data is an answer without noise; write AVG for a "
    "mean, x * 0.1 for x / 10, FLOOR(x / 10) for bins",
    exp.IntDiv: "division can fail; for bins write FLOOR(x / 10) * 10",
    exp.Mod: "remainders are not understood; for bins write FLOOR(x / 10) * 10, for dates HOUR(x) or ISODOW(x)",
    exp.Pow: "powers have no bound; write x * x, or ask for VAR_POP(x)",
    exp.Window: "window functions give every row a figure, and rows are about people; use GROUP BY",
    exp.Subquery: "a question inside an expression is not understood; join the table on the privacy unit",
    exp.Select: "a question inside an expression is not understood; join the table on the privacy unit",
    exp.Exists: "a question inside an expression is not understood; join the table on the privacy unit",
    exp.Any: "a question inside an expression is not understood; join the table on the privacy unit",
    exp.Star: "* shows rows, and rows are about people; ask for COUNT(*)",
    exp.Null: "NULL is no value to compare or compute with; write x IS NULL",
    exp.Cast: "casts can fail, and an error that depends on the data is an answer without noise; compare the column as "
    "it is, cut times with DATE_TRUNC('day', x)",
    exp.TryCast: "casts are not understood; compare the column as it is, cut times with DATE_TRUNC('day', x)",
    exp.DPipe: "joining text is not understood; group by both columns",
    exp.Concat: "joining text is not understood; group by both columns",
    exp.Interval: "arithmetic on dates is not understood; compare with a date, as in DATE '2026-01-31'",
    exp.RegexpLike: "regular expressions are not understood; write LIKE 'north%'",
    exp.RegexpILike: "regular expressions are not understood; write LIKE 'north%'",
    exp.SimilarTo: "regular expressions are not understood; write LIKE 'north%'",
    exp.Glob: "GLOB is not understood; write LIKE 'north%'",
    exp.NullSafeEQ: "IS NOT DISTINCT FROM is not understood; write x = y OR (x IS NULL AND y IS NULL)",
    exp.NullSafeNEQ: "IS DISTINCT FROM is not understood; write x <> y OR x IS NULL",
    exp.Escape: "ESCAPE is not understood; leave it out",
    exp.Tuple: "lists of columns are not understood; write a = 1 AND b = 2",
    exp.Alias: "a name cannot be given here; leave AS out",
}


@dataclass(slots=True)
class Reader:
    """Reads expressions of one question."""

    text: Text
    scope: Scope
    _depth: int = field(default=0, init=False)

    def expression(self, node: exp.Expr) -> Typed:
        """Return what a node means.

        Raises:
            InvalidRequest: for what is not understood, with its place.
        """
        self._depth += 1
        try:
            if self._depth > 2 * DEEPEST:
                raise self.text.refuse(node, "the question is nested too deeply; ask it in parts")
            with self.at(node):
                return self._read(node)
        finally:
            self._depth -= 1

    @contextmanager
    def at(self, node: exp.Expr) -> Iterator[None]:
        """Give refusals from inside the place of the node, unless they have one."""
        try:
            yield
        except InvalidRequest as wrong:
            if str(wrong).startswith(("line ", "in ")):
                raise
            raise self.text.refuse(node, str(wrong)) from None

    def only(self, node: exp.Expr, *known: str) -> None:
        """Refuse a node that says more than is understood."""
        for name, value in node.args.items():
            if value and name not in known and name not in _IDLE:
                word = name.rstrip("_").replace("_", " ").upper()
                raise self.text.refuse(
                    node, f"{self._called(node)} with {word} is not understood; leave it out"
                )

    def _called(self, node: exp.Expr) -> str:
        return self.text.word(node) if isinstance(node, exp.Func) else type(node).__name__.upper()

    def _read(self, node: exp.Expr) -> Typed:
        kind = type(node)
        if kind in _REFUSED_NODES and not (kind in (exp.Cast, exp.IntDiv)):
            raise self.text.refuse(node, _REFUSED_NODES[kind])
        if kind in _COMPARISONS:
            return self._compared(node, _COMPARISONS[kind])
        if kind in _ARITHMETIC:
            self.only(node, "this", "expression")
            return kinds.call(_ARITHMETIC[kind], *self._each(node, "this", "expression"))
        handler = _HANDLERS.get(kind)
        if handler is not None:
            return handler(self, node)
        return self._function(node)

    def _each(self, node: exp.Expr, *names: str) -> list[Typed]:
        return [self.expression(node.args[name]) for name in names]

    def constant(self, node: exp.Expr) -> Value:
        """Return a constant.

        Raises:
            InvalidRequest: where it is none.
        """
        found = self.expression(node)
        if not isinstance(found.of, Constant):
            raise self.text.refuse(node, f"a constant must stand here; {show(found.of)} is none")
        return found.of.value

    def number(self, node: exp.Expr) -> Fraction:
        """Return a constant number exactly; quotients of numbers are numbers here.

        Raises:
            InvalidRequest: where it is none.
        """
        inner = node.unnest()
        if isinstance(inner, exp.Neg):
            return -self.number(inner.this)
        if isinstance(inner, exp.Div):
            under = self.number(inner.expression)
            if under == 0:
                raise self.text.refuse(node, "a constant number must stand here; nothing is divided by 0")
            return self.number(inner.this) / under
        if isinstance(inner, exp.Literal) and not inner.is_string and _NUMBER.fullmatch(inner.this):
            self.expression(inner)
            return Fraction(inner.this)
        raise self.text.refuse(node, "a constant number must stand here, as in 0 or 12.5")

    # -- kinds of nodes, by name --------------------------------------------------------------------------------------

    def _column(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "table")
        if isinstance(node.this, exp.Star):
            raise self.text.refuse(node, _REFUSED_NODES[exp.Star])
        return self.scope.column(node.name, node.text("table"))

    def _literal(self, node: exp.Expr) -> Typed:
        written = str(node.this)
        if node.args.get("is_string"):
            return kinds.constant(written)
        if not _NUMBER.fullmatch(written):
            raise self.text.refuse(
                node, f"{written[:40]!r} is no number that is understood; write 1200 or 0.5"
            )
        return kinds.constant(int(written) if written.isdigit() else float(written))

    def _boolean(self, node: exp.Expr) -> Typed:
        return kinds.constant(bool(node.this))

    def _paren(self, node: exp.Expr) -> Typed:
        self.only(node, "this")
        return self.expression(node.this)

    def _connected(self, node: exp.Expr) -> Typed:
        """Take chains of the same connective as one, without a call for each."""
        waiting, parts = [node], []
        while waiting:
            each = waiting.pop()
            if type(each) is type(node):
                self.only(each, "this", "expression")
                waiting += [each.expression, each.this]
            else:
                parts.append(self.expression(each))
        return kinds.call("and" if isinstance(node, exp.And) else "or", *parts)

    def _not(self, node: exp.Expr) -> Typed:
        self.only(node, "this")
        return kinds.call("not", self.expression(node.this))

    def _negative(self, node: exp.Expr) -> Typed:
        self.only(node, "this")
        return kinds.call("negative", self.expression(node.this))

    def _compared(self, node: exp.Expr, op: str) -> Typed:
        self.only(node, "this", "expression")
        if any(isinstance(side.unnest(), exp.Null) for side in (node.this, node.expression)):
            raise self.text.refuse(
                node, "a comparison with NULL is never true; write x IS NULL or x IS NOT NULL"
            )
        return kinds.call(op, *self._each(node, "this", "expression"))

    def _is(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "expression")
        wanted = node.expression
        if isinstance(wanted, exp.Null):
            return kinds.call("is null", self.expression(node.this))
        if isinstance(wanted, exp.Boolean):
            inner = self.expression(node.this)
            inner = inner if wanted.this else kinds.call("not", inner)
            return kinds.call("coalesce", inner, kinds.constant(False))
        raise self.text.refuse(node, "IS takes NULL, TRUE or FALSE; write = for other values")

    def _in(self, node: exp.Expr) -> Typed:
        if node.args.get("query"):
            raise self.text.refuse(node, _REFUSED_NODES[exp.Subquery])
        self.only(node, "this", "expressions")
        if not node.expressions:
            raise self.text.refuse(node, "IN takes constants, as in x IN (1, 2)")
        return kinds.call("in", self.expression(node.this), *map(self.expression, node.expressions))

    def _between(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "low", "high")
        inner, low, high = self._each(node, "this", "low", "high")
        return kinds.call("and", kinds.call(">=", inner, low), kinds.call("<=", inner, high))

    def _like(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "expression")
        inner, pattern = self._each(node, "this", "expression")
        if isinstance(node, exp.ILike):
            inner = kinds.call("lower", inner)
            if isinstance(pattern.of, Constant) and isinstance(pattern.of.value, str):
                pattern = kinds.constant(pattern.of.value.lower())
        return kinds.call("like", inner, pattern)

    def _case(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "ifs", "default")
        subject = self.expression(node.this) if node.this is not None else None
        parts: list[Typed] = []
        for branch in node.args.get("ifs") or ():
            when = self.expression(branch.this)
            parts += [
                when if subject is None else kinds.call("=", subject, when),
                self.expression(branch.args["true"]),
            ]
        return self._chosen(node, parts, node.args.get("default"))

    def _if(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "true", "false")
        return self._chosen(node, self._each(node, "this", "true"), node.args.get("false"))

    def _chosen(self, node: exp.Expr, parts: list[Typed], last: exp.Expr | None) -> Typed:
        if not parts:
            raise self.text.refuse(node, "CASE takes WHEN condition THEN value")
        if last is not None and not isinstance(last.unnest(), exp.Null):
            parts.append(self.expression(last))
        return kinds.call("case", *parts)

    def _coalesce(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "expressions")
        args = [self.expression(node.this), *map(self.expression, node.expressions)]
        return kinds.call("coalesce", *args) if len(args) > 1 else args[0]

    def _nullif(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "expression")
        inner, other = self._each(node, "this", "expression")
        if not isinstance(other.of, Constant):
            raise self.text.refuse(node, "NULLIF takes a constant, as in NULLIF(x, 0)")
        return kinds.call("case", kinds.call("<>", inner, other), inner)

    def _one(self, node: exp.Expr) -> Typed:
        self.only(node, "this")
        return kinds.call(
            {exp.Abs: "abs", exp.Lower: "lower"}.get(type(node), "upper"), self.expression(node.this)
        )

    def _clamp(self, node: exp.Expr) -> Typed:
        args = self._arguments(node, 3, "CLAMP(x, 0, 10)")
        for each in args[1:]:
            self.number(each)
        return kinds.call("clamp", *map(self.expression, args))

    def _least(self, node: exp.Expr) -> Typed:
        """Read LEAST(GREATEST(x, low), high), either way round, as bounds."""
        way = "bounds are written CLAMP(x, low, high) or LEAST(GREATEST(x, low), high)"
        sides = [node.this, *node.expressions]
        inner = [side for side in sides if isinstance(side.unnest(), exp.Least | exp.Greatest)]
        outer = [side for side in sides if not isinstance(side.unnest(), exp.Least | exp.Greatest)]
        if len(sides) != 2 or len(inner) != 1 or type(inner[0].unnest()) is type(node):
            raise self.text.refuse(node, way)
        within = inner[0].unnest()
        values = [within.this, *within.expressions]
        subject = [value for value in values if not isinstance(value.unnest(), exp.Literal | exp.Neg)]
        if len(values) != 2 or len(subject) != 1:
            raise self.text.refuse(node, way)
        other = next(value for value in values if value is not subject[0])
        low, high = (other, outer[0]) if isinstance(node, exp.Least) else (outer[0], other)
        for each in (low, high):
            self.number(each)
        return kinds.call("clamp", *map(self.expression, (subject[0], low, high)))

    def _cast(self, node: exp.Expr) -> Typed:
        """Read DATE '2026-01-31', TIMESTAMP '...', and the day of a time."""
        self.only(node, "this", "to")
        inner, to = node.this.unnest(), node.args["to"].this
        day = to in (exp.DType.DATE, exp.DType.DATE32)
        if to not in (
            exp.DType.DATE,
            exp.DType.DATE32,
            exp.DType.TIMESTAMP,
            exp.DType.TIMESTAMPNTZ,
            exp.DType.DATETIME,
        ):
            raise self.text.refuse(node, _REFUSED_NODES[exp.Cast])
        return self._dated(node, inner, day)

    def _date(self, node: exp.Expr) -> Typed:
        self.only(node, "this")
        return self._dated(node, node.this, True)

    def _dated(self, node: exp.Expr, inner: exp.Expr | None, day: bool) -> Typed:
        if isinstance(inner, exp.Literal) and inner.args.get("is_string"):
            kind: kinds.Kind = "date" if day else "timestamp"
            return kinds.beside(kinds.constant(str(inner.this)), kind, "this")
        if day and inner is not None:
            of = self.expression(inner)
            if of.kind == "timestamp":
                return kinds.truncated("day", of)
            if of.kind == "date":
                return of
        raise self.text.refuse(node, _REFUSED_NODES[exp.Cast])

    # -- parts of dates, and bins -------------------------------------------------------------------------------------

    def _extract(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "expression")
        return self._part(node, node.name, node.expression)

    def _part(self, node: exp.Expr, name: str, of: exp.Expr) -> Typed:
        """Return a part of a date; DOW counts from Sunday, which is 0."""
        name = name.upper().rstrip("S") if name.upper() not in PARTS else name.upper()
        if name in SUNDAY_FIRST:
            weekday = kinds.part_of("weekday", self.expression(of))
            sunday = kinds.call("=", weekday, kinds.constant(7))
            return kinds.call("case", sunday, kinds.constant(0), weekday)
        if name not in PARTS:
            near = nearest(name, PARTS) or "HOUR"
            raise self.text.refuse(
                node,
                f"{name[:30]!r} is no part of a date that is understood; did you mean {near}? Parts: {', '.join(PARTS)}",
            )
        return kinds.part_of(PARTS[name], self.expression(of))

    def _named_part(self, node: exp.Expr) -> Typed:
        self.only(node, "this")
        names = {
            exp.DayOfWeek: "DOW",
            exp.DayOfWeekIso: "ISODOW",
            exp.DayOfMonth: "DAY",
            exp.DayOfYear: "DAYOFYEAR",
            exp.WeekOfYear: "WEEK",
        }
        return self._part(node, names.get(type(node), type(node).__name__), node.this)

    def _truncated(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "unit")
        return self._cut(node, str(node.args["unit"].name), node.this)

    def _cut(self, node: exp.Expr, unit: str, of: exp.Expr) -> Typed:
        if unit.lower() not in UNITS:
            raise self.text.refuse(
                node,
                f"times are cut to whole units; {unit[:30]!r} is none: year, quarter, month, week, day, hour, minute",
            )
        return kinds.truncated(UNITS[unit.lower()], self.expression(of))

    def _time_bucket(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "expression")
        width = node.this
        if isinstance(width, exp.Interval):
            self.only(width, "this", "unit")
            written = f"{width.this.name if width.this else ''} {width.text('unit')}"
        else:
            written = width.name if isinstance(width, exp.Literal) else ""
        found = _INTERVAL.fullmatch(written)
        if found is None:
            raise self.text.refuse(
                node,
                f"times are cut to one whole unit, not to {written.strip()[:30]!r}; write DATE_TRUNC('hour', x)",
            )
        return self._cut(node, found.group(1), node.expression)

    def _floor(self, node: exp.Expr) -> Typed:
        self.only(node, "this")
        inner = node.this.unnest()
        if isinstance(inner, exp.Div):
            return self._stairs(node, inner.this, self.number(inner.expression))
        return self._stairs(node, node.this, Fraction(1))

    def _whole_quotient(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "expression")
        return self._stairs(node, node.this, self.number(node.expression), least=0)

    def _stairs(self, node: exp.Expr, of: exp.Expr, width: Fraction, least: int | None = None) -> Typed:
        """Return floor(x / width), which is a bin, since x has declared bounds."""
        inner = self.expression(of)
        bounds = self._bounds(inner)
        if bounds is None or width <= 0:
            raise self.text.refuse(
                node,
                f"bins need the bounds of {show(inner.of)}; write BIN_OF({show(inner.of)}, low, width, count)",
            )
        low, high = (floor(bound / width) for bound in bounds)
        if least is not None and low < least:
            raise self.text.refuse(node, _REFUSED_NODES[exp.IntDiv])
        step = kinds.binned(inner, low * width, width, high - low + 1)
        return kinds.call("+", step, kinds.constant(low)) if low else step

    def _bounds(self, inner: Typed) -> tuple[Fraction, Fraction] | None:
        if not isinstance(inner.of, Column):
            return None
        source = self.scope.called(inner.of.table)[0]
        return source.shape.bounds.get(inner.of.name)

    def _width_bucket(self, node: exp.Expr) -> Typed:
        """Return bins with one more at each end: 0 is below, count + 1 from the upper bound on."""
        self.only(node, "this", "min_value", "max_value", "num_buckets")
        low, high = self.number(node.args["min_value"]), self.number(node.args["max_value"])
        count = self._whole(node.args["num_buckets"])
        if high <= low:
            raise self.text.refuse(
                node, f"bins from {number(low)} to {number(high)} hold nothing; lower bound first"
            )
        width = (high - low) / count
        return kinds.binned(self.expression(node.this), low - width, width, count + 2)

    def _bin_of(self, node: exp.Expr) -> Typed:
        of, low, width, count = self._arguments(node, 4, "BIN_OF(x, low, width, count)")
        return kinds.binned(self.expression(of), self.number(low), self.number(width), self._whole(count))

    def _whole(self, node: exp.Expr) -> int:
        found = self.number(node)
        if found.denominator != 1 or not 1 <= found <= 10_000:
            raise self.text.refuse(
                node, f"{number(found)[:30]} bins cannot be; give a whole number from 1 to 10000"
            )
        return int(found)

    # -- functions that are known by name alone -----------------------------------------------------------------------

    def _arguments(self, node: exp.Expr, count: int, form: str) -> list[exp.Expr]:
        self.only(node, "this", "expressions")
        if len(node.expressions) != count:
            raise self.text.refuse(node, f"{self.text.word(node)} takes {count} arguments: {form}")
        return list(node.expressions)

    def _function(self, node: exp.Expr) -> Typed:
        name = self.text.word(node)
        if isinstance(node, exp.Anonymous):
            if name in ("CLAMP", "BIN_OF"):
                return self._clamp(node) if name == "CLAMP" else self._bin_of(node)
            if name in ("DATE_PART", "DATEPART"):
                part, of = self._arguments(node, 2, "DATE_PART('hour', x)")
                return self._part(node, part.name, of)
            if name in PARTS or name in SUNDAY_FIRST:
                return self._part(node, name, self._arguments(node, 1, f"{name}(x)")[0])
        raise self.text.refuse(node, self.why_not(name, isinstance(node, exp.Func)))

    def why_not(self, name: str, function: bool = True) -> str:
        """Return why a function is refused."""
        if name in REFUSED:
            return f"{name} {REFUSED[name]}"
        if name == "AMONG":
            return "AMONG names the groups there may be; it stands alone in SELECT or GROUP BY"
        if not function:
            return f"{name} is not understood; there are comparisons, AND, OR, NOT, IN, LIKE, + - * and CASE"
        near = nearest(name, FUNCTIONS)
        if near == name:
            return f"{name} cannot stand here; figures stand alone in SELECT, HAVING and ORDER BY"
        return f"{name[:40]} is no function that is understood{f'; did you mean {near}?' if near else '.'}"


_HANDLERS: dict[type[exp.Expr], Callable[[Reader, exp.Expr], Typed]] = {
    exp.Column: Reader._column,
    exp.Literal: Reader._literal,
    exp.Boolean: Reader._boolean,
    exp.Paren: Reader._paren,
    exp.And: Reader._connected,
    exp.Or: Reader._connected,
    exp.Not: Reader._not,
    exp.Neg: Reader._negative,
    exp.Is: Reader._is,
    exp.In: Reader._in,
    exp.Between: Reader._between,
    exp.Like: Reader._like,
    exp.ILike: Reader._like,
    exp.Case: Reader._case,
    exp.If: Reader._if,
    exp.Coalesce: Reader._coalesce,
    exp.Nullif: Reader._nullif,
    exp.Abs: Reader._one,
    exp.Lower: Reader._one,
    exp.Upper: Reader._one,
    exp.Least: Reader._least,
    exp.Greatest: Reader._least,
    exp.Cast: Reader._cast,
    exp.Date: Reader._date,
    exp.Extract: Reader._extract,
    exp.Year: Reader._named_part,
    exp.Quarter: Reader._named_part,
    exp.Month: Reader._named_part,
    exp.Week: Reader._named_part,
    exp.WeekOfYear: Reader._named_part,
    exp.Day: Reader._named_part,
    exp.DayOfMonth: Reader._named_part,
    exp.Hour: Reader._named_part,
    exp.Minute: Reader._named_part,
    exp.DayOfWeek: Reader._named_part,
    exp.DayOfWeekIso: Reader._named_part,
    exp.DayOfYear: Reader._named_part,
    exp.TimestampTrunc: Reader._truncated,
    exp.DateTrunc: Reader._truncated,
    exp.DateBin: Reader._time_bucket,
    exp.Floor: Reader._floor,
    exp.IntDiv: Reader._whole_quotient,
    exp.WidthBucket: Reader._width_bucket,
}
