"""[datasets.NAME.columns.NAME]: what is publicly known of a column, so that answers can be bounded."""

from __future__ import annotations

import math
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from sfumato.core.policy_values import whole

Kind = Literal["boolean", "integer", "number", "text", "date", "timestamp"]
#: A list of public values longer than this belongs into a range.
VALUES = 100_000


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, Fraction)):
        raise ValueError("must be a number")
    if not math.isfinite(value) or not -(10**30) < Fraction(value) < 10**30:
        raise ValueError("must be a finite number below 1e30")
    return Fraction(value)


def _bound(value: Any) -> Any:
    return value if isinstance(value, date) else _number(value)


def _value(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if not isinstance(value, (bool, int, float, str, date)):
        raise ValueError("must be text, a number, true, false or a date")
    return value


def _spell(value: Any) -> Any:
    if isinstance(value, Fraction):
        return value.numerator if value.denominator == 1 else float(value)
    return value


Number = Annotated[Any, BeforeValidator(_number), PlainSerializer(_spell)]
Bound = Annotated[Any, BeforeValidator(_bound), PlainSerializer(_spell)]
PublicValue = Annotated[Any, BeforeValidator(_value)]


class ColumnSection(BaseModel):
    """What everybody may know of a column. It must not be computed from the data.

    Args:
        kind: of its values; empty: as the table says. A CSV file says none: its columns are text.
        bounds: values are clamped into them before they count: numbers, dates or times, lowest first.
        step: grid of sums: every value is rounded to a multiple of it. Default: fine, by the bounds.
        values: all values to group by; others are left out.
        range: the same for whole numbers, from first to last; it bounds the column too, so that what lies
            outside counts as the nearest of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    kind: Kind | Literal[""] = ""
    bounds: tuple[Bound, Bound] | None = None
    step: Number | None = None
    values: Annotated[tuple[PublicValue, ...], Field(max_length=VALUES)] | None = None
    range: tuple[Annotated[int, BeforeValidator(whole)], Annotated[int, BeforeValidator(whole)]] | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> ColumnSection:
        if self.bounds is not None:
            low, high = self.bounds
            if isinstance(low, datetime) != isinstance(high, datetime) or type(low) is not type(high):
                raise ValueError("bounds are two numbers, two dates or two times")
            if isinstance(low, datetime) and (low.tzinfo is None) != (high.tzinfo is None):
                raise ValueError("one of the bounds has a time zone and the other has none")
            if not low < high:
                raise ValueError("bounds are the lowest and the highest value, in this order")
        if self.step is not None and not self.step > 0:
            raise ValueError("step must be above 0")
        if self.values is not None and self.range is not None:
            raise ValueError("say values or range, not both")
        if self.values is not None:
            if not self.values:
                raise ValueError("values must name at least one")
            if len({(isinstance(one, bool), one) for one in self.values}) < len(self.values):
                raise ValueError("a value stands there twice")
            if len({_family(one) for one in self.values}) > 1:
                raise ValueError("values must be of one kind")
        if self.range is not None and not 0 <= self.range[1] - self.range[0] < 10_000_000:
            raise ValueError("a range is the first and the last whole number, at most 10 million of them")
        self._fits_its_kind()
        return self

    def _fits_its_kind(self) -> None:
        numeric = self.kind in ("", "integer", "number")
        if (self.step is not None or self.range is not None) and not numeric:
            raise ValueError(f"step and range are for numbers, and the kind is {self.kind!r}")
        if self.bounds is not None and self.kind:
            of_dates = isinstance(self.bounds[0], date)
            if of_dates != (self.kind in ("date", "timestamp")) or self.kind in ("text", "boolean"):
                raise ValueError(f"these bounds do not fit the kind {self.kind!r}")
        if self.values is not None and self.kind and _family(self.values[0]) not in _FAMILIES[self.kind]:
            raise ValueError(f"these values do not fit the kind {self.kind!r}")

    @property
    def clamps(self) -> tuple[Fraction, Fraction] | None:
        """The bounds of a numeric column, as exact numbers."""
        if self.bounds is not None and isinstance(self.bounds[0], Fraction):
            return self.bounds
        if self.bounds is None and self.range is not None:
            return Fraction(self.range[0]), Fraction(self.range[1])
        return None

    def public_values(self) -> tuple[Any, ...] | None:
        """Return all values to group by, where they are declared."""
        if self.range is not None:
            return tuple(range(self.range[0], self.range[1] + 1))
        return self.values


_FAMILIES = {
    "boolean": ("boolean",),
    "integer": ("number",),
    "number": ("number",),
    "text": ("text",),
    "date": ("date",),
    "timestamp": ("date", "timestamp"),
}


def _family(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, datetime):
        return "timestamp"
    return "date" if isinstance(value, date) else "text"
