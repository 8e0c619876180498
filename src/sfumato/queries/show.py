"""Expressions as SQL text, for messages and for `render`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime
from fractions import Fraction

from sfumato.core.errors import InvalidRequest
from sfumato.queries.model import Binned, Call, Column, Constant, Expr, Part, Truncated, Value

#: Names that have to be quoted as columns.
_QUOTED = """
ALL ALTER AMONG ANALYSE ANALYZE AND ANTI ANY ARRAY AS ASC ASOF ATTACH BEGIN BETWEEN BIN_OF BOTH BY CACHE
CASE CAST CHECK CLAMP COLLATE COLUMN COLUMNS COMMENT COMMIT CONNECT CONNECT_BY_ROOT CONSTRAINT COPY CREATE
CROSS CUBE CURRENT_CATALOG CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER DATE DEFAULT
DEFERRABLE DELETE DESC DESCRIBE DETACH DISTINCT DISTRIBUTE DO DROP ELSE END EXCEPT EXCLUDE EXECUTE EXISTS
EXPLAIN FALSE FETCH FILTER FINAL FOR FORCE FOREIGN FORMAT FROM FULL FUNCTION GLOB GRANT GROUP GROUPING
HAVING IF ILIKE IN INITIALLY INNER INSERT INSTALL INTERSECT INTERVAL INTO IS ISNULL JOIN KILL LAMBDA
LATERAL LEADING LEFT LIKE LIMIT LOAD LOCALTIME LOCALTIMESTAMP LOCK MAP MERGE NATURAL NEXT NOT NOTNULL NULL
OFFSET ON ONLY OR ORDER OUTER OVER OVERLAPS PARTITION PERCENT PIVOT PIVOT_LONGER PIVOT_WIDER PLACING
POSITIONAL PRAGMA PRIMARY PRIOR PRIVACY_UNIT QUALIFY RECURSIVE REFERENCES REGEXP RETURNING REVOKE RIGHT
RLIKE ROLLBACK ROLLUP ROW ROWS SAMPLE SELECT SEMI SESSION_USER SET SETS SHOW SIMILAR SOME STRUCT SUMMARIZE
SYMMETRIC SYSTEM_USER TABLE TABLESAMPLE THEN TIME TIMESTAMP TIMESTAMPTZ TO TOP TRAILING TRUE TRUNCATE
TRY_CAST UNCACHE UNION UNIQUE UNNEST UNPIVOT UPDATE USE USING VALUES VARIADIC WHEN WHERE WINDOW WITH
WITHIN XOR
"""
RESERVED = frozenset(_QUOTED.split())

#: How tightly an operation binds: what stands inside a tighter one gets parentheses.
_LEVELS = {"or": 1, "and": 2, "not": 3, "+": 5, "-": 5, "*": 6, "negative": 7}
_COMPARISON = 4
_ATOM = 8
_COMPARISONS = {"=", "<>", "<", "<=", ">", ">="}

_PARTS = {
    "year": "YEAR",
    "quarter": "QUARTER",
    "month": "MONTH",
    "week": "WEEK",
    "day": "DAY",
    "hour": "HOUR",
    "minute": "MINUTE",
    "weekday": "ISODOW",
    "yearday": "DAYOFYEAR",
}


def show(expression: Expr) -> str:
    """Return an expression as SQL.

    >>> show(Call(">", (Column("speed"), Constant(50))))
    'speed > 50'
    """
    return _show(expression)[0]


def _show(expression: Expr) -> tuple[str, int]:
    match expression:
        case Column(name=name, table=table):
            return (f"{identifier(table)}." if table else "") + identifier(name), _ATOM
        case Constant(value=value):
            text = constant(value)
            return text, _LEVELS["negative"] if text.startswith("-") else _ATOM
        case Part(part=part, of=of):
            return f"{_PARTS[part]}({show(of)})", _ATOM
        case Truncated(unit=unit, of=of):
            return f"DATE_TRUNC('{unit}', {show(of)})", _ATOM
        case Binned(of=of, low=low, width=width, count=count):
            return f"BIN_OF({show(of)}, {number(low)}, {number(width)}, {count})", _ATOM
        case Call(op=op, args=args):
            return _call(op, args)


def _call(op: str, args: tuple[Expr, ...]) -> tuple[str, int]:
    if op in ("and", "or"):
        level = _LEVELS[op]
        return f" {op.upper()} ".join(_inside(each, level + 1) for each in args), level
    if op == "not" and isinstance(args[0], Call) and args[0].op in ("in", "like", "is null"):
        return _denied(args[0]), _COMPARISON
    if op == "not":
        return f"NOT {_inside(args[0], _COMPARISON)}", _LEVELS["not"]
    if op in _COMPARISONS or op == "like":
        return f"{_inside(args[0], 5)} {op.upper()} {_inside(args[1], 5)}", _COMPARISON
    if op in ("+", "-", "*"):
        level = _LEVELS[op]
        return f"{_inside(args[0], level)} {op} {_inside(args[1], level + 1)}", level
    if op == "negative":
        return f"-{_inside(args[0], _ATOM)}", _LEVELS["negative"]
    if op == "in":
        return f"{_inside(args[0], 5)} IN ({', '.join(show(each) for each in args[1:])})", _COMPARISON
    if op == "is null":
        return f"{_inside(args[0], 5)} IS NULL", _COMPARISON
    if op == "case":
        return _case(args), _ATOM
    return f"{op.upper()}({', '.join(show(each) for each in args)})", _ATOM


def _denied(inner: Call) -> str:
    text = _inside(inner.args[0], 5)
    if inner.op == "is null":
        return f"{text} IS NOT NULL"
    rest = (
        _inside(inner.args[1], 5)
        if inner.op == "like"
        else f"({', '.join(show(each) for each in inner.args[1:])})"
    )
    return f"{text} NOT {inner.op.upper()} {rest}"


def _inside(expression: Expr, level: int) -> str:
    text, own = _show(expression)
    return text if own >= level else f"({text})"


def _case(args: tuple[Expr, ...]) -> str:
    words = ["CASE"]
    for when, then in zip(args[::2], args[1::2], strict=False):
        words.append(f"WHEN {show(when)} THEN {show(then)}")
    if len(args) % 2:
        words.append(f"ELSE {show(args[-1])}")
    return " ".join([*words, "END"])


def constant(value: Value) -> str:
    """Return a public value as SQL.

    Raises:
        InvalidRequest: for numbers that are not finite.
    """
    match value:
        case bool():
            return "TRUE" if value else "FALSE"
        case int():
            return str(value)
        case float():
            if value != value or value in (float("inf"), float("-inf")):
                raise InvalidRequest(f"{value!r} is no number that can be asked about; give a finite one")
            return repr(value)
        case str():
            return "'" + value.replace("'", "''") + "'"
        case datetime():
            return f"TIMESTAMP '{value.isoformat(' ')}'"
        case date():
            return f"DATE '{value.isoformat()}'"


def number(value: Fraction) -> str:
    """Return a rational number as SQL: as a decimal where it has one, else as a quotient."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
    whole = abs(int(value * 10**digits))
    sign = "-" if value < 0 else ""
    text = f"{whole:0{digits + 1}d}"
    return sign + (f"{text[:-digits]}.{text[-digits:]}" if digits else text)


def identifier(name: str) -> str:
    """Return a name as SQL, in quotes where it needs them."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name.upper() not in RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def listed(names: Iterable[str], most: int = 12) -> str:
    """Return names for a message, not too many."""
    known = sorted(names)
    return ", ".join(known[:most]) + (f" and {len(known) - most} more" if len(known) > most else "")
