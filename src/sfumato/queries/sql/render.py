"""A query back as SQL: one canonical text, which parses to the same query."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from sfumato.queries.kinds import TableShape, shape_of
from sfumato.queries.model import Aggregate, Column, Expr, Join, Key, Query
from sfumato.queries.show import constant, identifier, number, show
from sfumato.queries.sql.words import UNIT


def render(query: Query, tables: Mapping[str, TableShape] | None = None) -> str:
    """Return the query as SQL that parses to the same query.

    >>> hours, crowd = Key("hour", Column("hour")), Aggregate("count", "n")
    >>> render(Query(table="flow", aggregates=(crowd,), keys=(hours,)))
    'SELECT hour, COUNT(*) AS n FROM flow GROUP BY hour'

    Args:
        tables: gives the privacy units their names; without it they are called `privacy_unit`.
    """
    units = [_unit(name, tables) for name in (query.table, *(join.table for join in query.joins))]
    alias = query.alias or query.table
    unit = (identifier(alias) + "." if query.joins else "") + units[0]
    chosen = [_named(_key(key), key.name, key.of) for key in query.keys]
    chosen += [_named(_aggregate(each, unit), each.name, None) for each in query.aggregates]
    words = ["SELECT", ", ".join(chosen), "FROM", _table(query.table, query.alias)]
    for join, own in zip(query.joins, units[1:], strict=True):
        words.append(_join(join, own, unit))
    if query.where is not None:
        words += ["WHERE", show(query.where)]
    if query.keys:
        groups = ", ".join(_group(key, place) for place, key in enumerate(query.keys, 1))
        words += ["GROUP BY", f"ROLLUP ({groups})" if query.rollup else groups]
    if query.having:
        words += [
            "HAVING",
            " AND ".join(f"{identifier(name)} {op} {_plain(limit)}" for name, op, limit in query.having),
        ]
    if query.order:
        order = (identifier(each.by) + (" DESC" if each.descending else "") for each in query.order)
        words += ["ORDER BY", ", ".join(order)]
    if query.limit is not None:
        words += ["LIMIT", str(query.limit)]
    return " ".join(words)


def _unit(table: str, tables: Mapping[str, TableShape] | None) -> str:
    return UNIT if tables is None else identifier(shape_of(table, tables).unit)


def _table(name: str, alias: str) -> str:
    return identifier(name) + (f" AS {identifier(alias)}" if alias and alias != name else "")


def _join(join: Join, own: str, unit: str) -> str:
    verb = "LEFT JOIN" if join.kind == "left" else "JOIN"
    return f"{verb} {_table(join.table, join.alias)} ON {unit} = {identifier(join.alias)}.{own}"


def _named(text: str, name: str, plain: Expr | None) -> str:
    same = isinstance(plain, Column) and plain.name == name and not text.startswith("AMONG")
    return text if same else f"{text} AS {identifier(name)}"


def _key(key: Key) -> str:
    if key.values is None:
        return show(key.of)
    return f"AMONG({', '.join([show(key.of), *(constant(value) for value in key.values)])})"


def _group(key: Key, place: int) -> str:
    return show(key.of) if isinstance(key.of, Column) and key.of.name == key.name else str(place)


def _aggregate(asked: Aggregate, unit: str) -> str:
    inner = "*" if asked.of is None else show(asked.of)
    if asked.bounds is not None:
        inner = f"CLAMP({inner}, {number(asked.bounds[0])}, {number(asked.bounds[1])})"
    match asked.kind:
        case "units":
            text = f"COUNT(DISTINCT {unit})"
        case "quantile":
            text = f"QUANTILE_CONT({inner}, {number(asked.quantile or Fraction(0))})"
        case kind:
            names = {
                "count": "COUNT",
                "sum": "SUM",
                "mean": "AVG",
                "variance": "VAR_POP",
                "stddev": "STDDEV_POP",
            }
            text = f"{names[kind]}({inner})"
    return text if asked.where is None else f"{text} FILTER (WHERE {show(asked.where)})"


def _plain(limit: float) -> str:
    return constant(int(limit) if float(limit).is_integer() and abs(limit) < 1e15 else float(limit))
