"""Kinds of syntax that are refused, and why: what to write instead."""

from __future__ import annotations

from sqlglot import exp

NODES: dict[type[exp.Expr], str] = {
    exp.Div: "division can fail, and an error that depends on the data is an answer without noise; "
    "write AVG for a mean, x * 0.1 for x / 10, FLOOR(x / 10) for bins",
    exp.IntDiv: "division can fail; for bins write FLOOR(x / 10) * 10",
    exp.Mod: "remainders are not understood; for bins write FLOOR(x / 10) * 10, "
    "for dates HOUR(x) or ISODOW(x)",
    exp.Pow: "powers have no bound; write x * x, or ask for VAR_POP(x)",
    exp.Window: "window functions give every row a figure, and rows are about people; use GROUP BY",
    exp.Subquery: "a question inside an expression is not understood; join the table on the privacy unit",
    exp.Select: "a question inside an expression is not understood; join the table on the privacy unit",
    exp.Exists: "a question inside an expression is not understood; join the table on the privacy unit",
    exp.Any: "a question inside an expression is not understood; join the table on the privacy unit",
    exp.Star: "* shows rows, and rows are about people; ask for COUNT(*)",
    exp.Null: "NULL is no value to compare or compute with; write x IS NULL",
    exp.Cast: "casts can fail, and an error that depends on the data is an answer without noise; "
    "compare the column as it is, cut times with DATE_TRUNC('day', x)",
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
