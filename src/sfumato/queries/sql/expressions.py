"""Expressions: from the syntax tree to the model, one kind of node after the other; all else is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from sqlglot import exp

from sfumato.core.errors import InvalidRequest, nearest
from sfumato.queries import kinds
from sfumato.queries.kinds import Typed
from sfumato.queries.model import Constant, Value
from sfumato.queries.show import show
from sfumato.queries.sql import bins, dates
from sfumato.queries.sql.refusals import NODES
from sfumato.queries.sql.scope import Scope, same
from sfumato.queries.sql.text import DEEPEST, Text
from sfumato.queries.sql.words import FUNCTIONS, PARTS, REFUSED, SUNDAY_FIRST

_NUMBER: Final = re.compile(r"(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,3})?")
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

COMPARISONS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_ARITHMETIC: dict[type[exp.Expr], str] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*"}


@dataclass(slots=True)
class Reader:
    """Reads expressions of one question."""

    text: Text
    scope: Scope
    _depth: int = field(default=0, init=False)

    def expression(self, node: exp.Expr | None) -> Typed:
        """Return what a node means.

        Raises:
            InvalidRequest: for what is not understood, with its place.
        """
        if node is None:
            raise InvalidRequest("an argument is missing; write the function in full, as in FLOOR(x / 10)")
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
        if kind in NODES and kind not in (exp.Cast, exp.IntDiv):
            raise self.text.refuse(node, NODES[kind])
        if kind in COMPARISONS:
            return self._compared(node, COMPARISONS[kind])
        if kind in _ARITHMETIC:
            self.only(node, "this", "expression")
            return kinds.call(_ARITHMETIC[kind], *self.each(node, "this", "expression"))
        handler = _HANDLERS.get(kind)
        if handler is not None:
            return handler(self, node)
        return self._function(node)

    def each(self, node: exp.Expr, *names: str) -> list[Typed]:
        """Return what several parts of a node mean."""
        return [self.expression(node.args.get(name)) for name in names]

    def constant(self, node: exp.Expr) -> Value:
        """Return a constant.

        Raises:
            InvalidRequest: where it is none.
        """
        found = self.expression(node)
        if not isinstance(found.of, Constant):
            raise self.text.refuse(node, f"a constant must stand here; {show(found.of)} is none")
        return found.of.value

    def number(self, node: exp.Expr | None) -> Fraction:
        """Return a constant number exactly; quotients of numbers are numbers here.

        Raises:
            InvalidRequest: where it is none.
        """
        if node is None:
            raise InvalidRequest("a number is missing; write one, as in 0 or 12.5")
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

    def _column(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "table")
        if isinstance(node.this, exp.Star):
            raise self.text.refuse(node, NODES[exp.Star])
        try:
            return self.scope.column(node.name, node.text("table"))
        except InvalidRequest as wrong:
            if not node.this.args.get("quoted") or same(node.name, self.scope.names()):
                raise
            raise InvalidRequest(f"{wrong}. Text is written in single quotes: '{node.name[:40]}'") from None

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
        return kinds.call(op, *self.each(node, "this", "expression"))

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
            raise self.text.refuse(node, NODES[exp.Subquery])
        self.only(node, "this", "expressions")
        if not node.expressions:
            raise self.text.refuse(node, "IN takes constants, as in x IN (1, 2)")
        return kinds.call("in", self.expression(node.this), *map(self.expression, node.expressions))

    def _between(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "low", "high")
        inner, low, high = self.each(node, "this", "low", "high")
        return kinds.call("and", kinds.call(">=", inner, low), kinds.call("<=", inner, high))

    def _like(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "expression", "negate")
        inner, pattern = self.each(node, "this", "expression")
        if isinstance(node, exp.ILike):
            inner = kinds.call("lower", inner)
            if isinstance(pattern.of, Constant) and isinstance(pattern.of.value, str):
                pattern = kinds.constant(pattern.of.value.lower())
        found = kinds.call("like", inner, pattern)
        return kinds.call("not", found) if node.args.get("negate") else found

    def _case(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "ifs", "default")
        subject = self.expression(node.this) if node.this is not None else None
        parts: list[Typed] = []
        for branch in node.args.get("ifs") or ():
            when = self.expression(branch.this)
            parts += [
                when if subject is None else kinds.call("=", subject, when),
                self.expression(branch.args.get("true")),
            ]
        return self._chosen(node, parts, node.args.get("default"))

    def _if(self, node: exp.Expr) -> Typed:
        self.only(node, "this", "true", "false")
        return self._chosen(node, self.each(node, "this", "true"), node.args.get("false"))

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
        inner, other = self.each(node, "this", "expression")
        if not isinstance(other.of, Constant):
            raise self.text.refuse(node, "NULLIF takes a constant, as in NULLIF(x, 0)")
        return kinds.call("case", kinds.call("<>", inner, other), inner)

    def _one(self, node: exp.Expr) -> Typed:
        self.only(node, "this")
        op = "abs" if isinstance(node, exp.Abs) else "lower" if isinstance(node, exp.Lower) else "upper"
        return kinds.call(op, self.expression(node.this))

    def arguments(self, node: exp.Expr, count: int, form: str) -> list[exp.Expr]:
        """Return the arguments of a function, which are so many."""
        self.only(node, "this", "expressions")
        if len(node.expressions) != count:
            raise self.text.refuse(node, f"{self.text.word(node)} takes {count} arguments: {form}")
        return list(node.expressions)

    def _function(self, node: exp.Expr) -> Typed:
        name = self.text.word(node)
        if isinstance(node, exp.Anonymous):
            if name in ("CLAMP", "BIN_OF"):
                return bins.clamp(self, node) if name == "CLAMP" else bins.bin_of(self, node)
            if name in ("DATE_PART", "DATEPART"):
                part, of = self.arguments(node, 2, "DATE_PART('hour', x)")
                return dates.part(self, node, part.name, of)
            if name in PARTS or name in SUNDAY_FIRST:
                return dates.part(self, node, name, self.arguments(node, 1, f"{name}(x)")[0])
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
    exp.Least: bins.least_greatest,
    exp.Greatest: bins.least_greatest,
    exp.Cast: dates.cast,
    exp.Date: dates.day,
    exp.Extract: dates.extract,
    exp.Year: dates.named_part,
    exp.Quarter: dates.named_part,
    exp.Month: dates.named_part,
    exp.Week: dates.named_part,
    exp.WeekOfYear: dates.named_part,
    exp.Day: dates.named_part,
    exp.DayOfMonth: dates.named_part,
    exp.Hour: dates.named_part,
    exp.Minute: dates.named_part,
    exp.DayOfWeek: dates.named_part,
    exp.DayOfWeekIso: dates.named_part,
    exp.DayOfYear: dates.named_part,
    exp.TimestampTrunc: dates.truncated,
    exp.DateTrunc: dates.truncated,
    exp.DateBin: dates.time_bucket,
    exp.Floor: bins.floor_of,
    exp.IntDiv: bins.whole_quotient,
    exp.WidthBucket: bins.width_bucket,
}
