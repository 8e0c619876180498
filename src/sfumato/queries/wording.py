"""Expressions and values in the words of a page."""

from __future__ import annotations

from sfumato.queries.model import Expr, Value

_PLURALS = {"person": "people", "person-day": "person-days"}


def plural(unit: str) -> str:
    """Return what several privacy units are called.

    >>> plural("person"), plural("vehicle"), plural("household")
    ('people', 'vehicles', 'households')
    """
    return _PLURALS.get(unit, f"{unit}s")


def expression(one: Expr | None) -> str:
    """Return an expression as SQL."""
    from sfumato.queries.show import show

    return show(one) if one is not None else ""


def spelled(value: Value) -> str:
    """Return a public value, safe to print."""
    said = str(value)  # of a date or time, as ISO 8601 has it
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in said)
