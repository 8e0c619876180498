"""Generalisation: a value made coarser at the door."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any

from sfumato.core.dataset_policy import Rule
from sfumato.core.errors import InvalidRequest

_ISO = re.compile(
    r"(\d{4})-(\d{2})(?:-(\d{2}))?(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?"
)
_EXIF = re.compile(r"(\d{4}):(\d{2}):(\d{2})(?: \d{2}:\d{2}:\d{2})?")


def generalise(value: Any, rule: Rule) -> Any:
    """Return a value as coarse as the rule asks; None stays None.

    >>> generalise("1984-05-17", Rule.parse("month")), generalise("10115", Rule.parse("prefix 2"))
    ('1984-05', '10')
    >>> generalise(37, Rule.parse("band 10")), generalise(52.5163, Rule.parse("grid 0.1"))
    ('30-39', 52.5)

    Guarantee (heuristic):
        Values of one month, year, prefix, band or grid cell become equal. How many people share one is what
        the disclosure checks count.

    Args:
        value: a date, datetime or ISO text (month, year); text or a whole number (prefix); a finite number or
            its text (band, grid, round).
        rule: from the policy.

    Raises:
        ValueError: the value is not of that kind. The message does not hold the value.
    """
    if value is None:
        return None
    if rule.kind in ("month", "year"):
        year, month = _year_month(value)
        return f"{year:04d}-{month:02d}" if rule.kind == "month" else f"{year:04d}"
    if rule.kind == "prefix":
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValueError("is neither text nor a whole number")
        return str(value).strip()[: int(rule.size)]
    number = _number(value)
    if rule.kind == "band":
        low = int((number / rule.size).to_integral_value(ROUND_FLOOR)) * int(rule.size)
        return f"{low}-{low + int(rule.size) - 1}" if rule.size > 1 else str(low)
    steps = (number / rule.size).to_integral_value(ROUND_HALF_EVEN)
    result = steps * rule.size + 0  # 0 and -0 are one cell, and a sign would tell which side of it
    return int(result) if rule.size == int(rule.size) and not isinstance(value, float) else float(result)


def generalised(values: Iterable[Any], rule: Rule, column: str) -> list[Any]:
    """Return many values as coarse as the rule asks.

    Raises:
        InvalidRequest: says the column, the rule and how many values do not fit, but no value.
    """
    result, wrong, why = [], 0, ""
    for value in values:
        try:
            result.append(generalise(value, rule))
        except ValueError as error:
            wrong, why = wrong + 1, str(error)
    if wrong:
        raise InvalidRequest(
            f'{wrong} different values of {column!r} cannot be generalised by "{rule}": each {why}. Correct '
            f"them, choose another rule, or take {column!r} off the keep list."
        )
    return result


def generalised_fields(fields: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Return a picture's fields with the rules applied to those that have one."""
    return {
        name: generalised([value], rules[name], name)[0] if name in rules else value
        for name, value in fields.items()
    }


def _year_month(value: Any) -> tuple[int, int]:
    if isinstance(value, (date, datetime)):
        return value.year, value.month
    match = None
    if isinstance(value, str):
        text = value.strip()
        match = _ISO.fullmatch(text) or _EXIF.fullmatch(text)
    if match is None:
        raise ValueError("is no date like 1984-05-17")
    year, month = int(match[1]), int(match[2])
    try:
        date(year, month, int(match[3] or 1))
    except ValueError:
        raise ValueError("is no day that exists") from None
    return year, month


def _number(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise ValueError("is no number")
    try:
        number = Decimal(repr(value) if isinstance(value, float) else str(value).strip())
    except InvalidOperation:
        raise ValueError("is no number") from None
    if not number.is_finite() or abs(number) > 10**15:
        raise ValueError("is no finite number up to 1e15")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("is no finite number")
    return number
