"""What an analyst gives, checked before anything counts on it: a bound that is half kept is no bound."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime
from fractions import Fraction
from typing import Any, get_args

from sfumato.core.errors import InvalidRequest, PolicyRefused, UnknownName
from sfumato.core.numbers import rational
from sfumato.queries.model import Key, Mechanism, Query, Terms, Value
from sfumato.queries.tables import Table

#: Whole numbers beyond this are none in some engine.
LARGEST = 1 << 62


def exact(terms: Terms) -> Terms:
    """Return terms with exact amounts, and with contribution bounds that are whole numbers.

    >>> exact(Terms(epsilon=0.1)).epsilon
    Fraction(1, 10)

    Raises:
        InvalidRequest: an amount or a bound that is none. An engine would keep 3 groups for a bound of 2.5.
    """
    for name in ("groups", "rows"):
        value = getattr(terms, name)
        if value is not None and (type(value) is not int or value < 1):
            raise InvalidRequest(f"{name} must be a whole number, at least 1, got {value!r}")
    if terms.mechanism not in get_args(Mechanism):
        raise UnknownName("mechanism", str(terms.mechanism), get_args(Mechanism))
    amounts = {name: getattr(terms, name) for name in ("epsilon", "delta")}
    found = {name: None if one is None else rational(one, name=name) for name, one in amounts.items()}
    delta = found["delta"]
    if delta is not None and delta >= 1:
        raise InvalidRequest(f"delta must be below 1, got {terms.delta}: it is the chance that may go wrong")
    return replace(terms, epsilon=found["epsilon"], delta=delta)


def check(query: Query, tables: Mapping[str, Table]) -> None:
    """Refuse what could only fail after the charge, or would not be bounded.

    Raises:
        InvalidRequest: keys or comparisons that cannot be. PolicyRefused: a left join of other people's rows.
    """
    if len(tables) != 1 + len(query.joins):
        raise InvalidRequest("two tables of a question have one name: give each another alias, by AS")
    for name in (*(key.name for key in query.keys), *(one.name for one in query.aggregates)):
        if not isinstance(name, str) or not name:
            raise InvalidRequest("every column of an answer needs a name: write AS name")
    for key in query.keys:
        if key.values is not None:
            _values(key)
    for _, _, number in query.having:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise InvalidRequest(f"HAVING compares a figure with a finite number, got {number!r}")
    for one in query.aggregates:
        for end in one.bounds or ():
            if not isinstance(end, (int, float, Fraction)) or not math.isfinite(end):
                raise InvalidRequest(f"{one.name}: bounds are two finite numbers, got {end!r}")
    populations = {frozenset(table.populations) for table in tables.values()}
    if len(populations) > 1 and any(join.kind == "left" for join in query.joins):
        # Who is taken out of one population stays in the other's rows, and would move from group to group.
        raise PolicyRefused(
            "a LEFT JOIN goes over tables of the same people, and these belong to different populations: "
            "write JOIN, or ask one table at a time",
            rule="populations",
        )


def _values(key: Key) -> None:
    values = key.values or ()
    if not values:
        raise InvalidRequest(
            f"the key {key.name!r} has no values: name one at least, or leave them to the policy"
        )
    for value in values:
        _value(key, value)
    families = {_family(value) for value in values}
    if len(families) > 1:
        raise InvalidRequest(
            f"the values of the key {key.name!r} are {' and '.join(sorted(families))}: bring them to one kind"
        )
    if twice := _twice(values):
        raise InvalidRequest(f"the key {key.name!r} names the value {twice[0]!r} twice")


def _value(key: Key, value: Any) -> None:
    fits = isinstance(value, (bool, str, date))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        fits = math.isfinite(value) and abs(value) < LARGEST
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        fits = False
    if not fits:
        raise InvalidRequest(
            f"the key {key.name!r} cannot have the value {value!r}: text, numbers and dates can be"
        )


def _family(value: Value) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, datetime):
        return "times" if value.tzinfo is None else "times with a zone"
    if isinstance(value, date):
        return "dates"
    return "text" if isinstance(value, str) else "numbers"


def _twice(values: Iterable[Value]) -> list[Value]:
    seen: set[Value] = set()
    found = []
    for value in values:
        if value in seen:
            found.append(value)
        seen.add(value)
    return found
