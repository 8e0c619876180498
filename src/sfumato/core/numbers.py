"""Exact amounts: what decides a budget is a rational number, never a float."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

from sfumato.core.errors import InvalidRequest

Amount = int | float | str | Decimal | Fraction

#: Amounts beyond this mean nothing as a privacy loss, and would only make arithmetic slow.
LIMIT = Fraction(2**20)
#: Stands for a loss without bound: far above LIMIT, so that no budget reaches it, and exact to add and to
#: take away.
BOUNDLESS = Fraction(2**60)
#: Amounts are written with exponents within this; `1e-40000000` would take minutes to make exact.
EXPONENT = 400


def rational(value: Amount, *, name: str = "amount") -> Fraction:
    """Return `value` as the exact rational it was meant to be.

    A float stands for the simplest rational within two units in its last place: 0.1 is 1/10, 1 / 7 is 1/7 and
    0.7 / 3 is 7/30, so that k requests of `epsilon / k` add up to epsilon, typed or computed. This rational
    is what the event stores and the mechanism must use, so nothing is lost between charge and noise.

    >>> rational(0.1), rational(1 / 7), rational("1/3"), rational("1e-6")
    (Fraction(1, 10), Fraction(1, 7), Fraction(1, 3), Fraction(1, 1000000))

    Raises:
        InvalidRequest: not a number, NaN, infinite, negative, above 2^20, or written with over 300 characters
            or an exponent beyond 400.
    """
    try:
        if isinstance(value, bool):
            raise TypeError(value)
        if isinstance(value, str):
            if len(value) > 300:
                raise ValueError(value[:20])
            if "/" not in value:
                value = Decimal(value)
        if isinstance(value, Decimal) and (not value.is_finite() or abs(value.adjusted()) > EXPONENT):
            raise ValueError(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise ValueError(value)
            exact = _simplest(value)
        else:
            exact = Fraction(value)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise InvalidRequest(
            f"{name} must be a finite number such as 0.5, '1/3' or 1e-6, got {value!r}"
        ) from error
    if exact < 0 or exact > LIMIT:
        raise InvalidRequest(f"{name} must lie in 0..{LIMIT}, got {value!r}")
    return exact


def _simplest(value: float) -> Fraction:
    exact = Fraction(value)
    if value == 0:
        return exact
    for bound in (10**3, 10**6, 10**9):
        candidate = exact.limit_denominator(bound)
        if candidate and abs(candidate - exact) <= 2 * Fraction(math.ulp(value)):
            return candidate
    return Fraction(repr(value))


def text(value: Fraction) -> str:
    """Return the shortest exact spelling: a decimal where one ends within 12 places, else a fraction.

    >>> text(Fraction(1, 2)), text(Fraction(1, 3)), text(Fraction(1, 10**6))
    ('0.5', '1/3', '0.000001')
    """
    if value.denominator == 1:
        return str(value.numerator)
    for places in range(1, 13):
        scaled = value * 10**places
        if scaled.denominator == 1:
            whole, part = divmod(abs(scaled.numerator), 10**places)
            return f"{'-' if value < 0 else ''}{whole}.{part:0{places}d}"
    return f"{value.numerator}/{value.denominator}"


def brief(value: Fraction, *, up: bool = True) -> str:
    """Return a short decimal for people, rounded up (a spend) or down (what is left)."""
    if value == 0:
        return "0"
    if float(value) <= 1e-300:
        return "1e-300" if up else "0"
    digits = 6 - (math.floor(math.log10(float(value))) if value > 0 else 0)
    places = min(max(digits - 1, 0), 30)
    scaled = value * 10**places
    rounded = Fraction(math.ceil(scaled) if up else math.floor(scaled), 10**places)
    return f"{float(rounded):.6g}"


def ceil_to(value: float, places: int = 9) -> Fraction:
    """Round a computed loss up, once, to a decimal grid; one grid step pays for the float's own error."""
    if math.isnan(value):
        raise InvalidRequest("a privacy loss came out as NaN; nothing can be charged for it")
    if value >= float(LIMIT):
        return BOUNDLESS
    scale: int = 10**places
    return Fraction(math.ceil(max(value, 0.0) * scale) + 1, scale) if value > 0 else Fraction(0)


def float_up(value: Fraction) -> float:
    """Return a float that is not below `value`."""
    near = float(value)
    return near if Fraction(near) >= value else math.nextafter(near, math.inf)


def float_down(value: Fraction) -> float:
    """Return a float that is not above `value`."""
    near = float(value)
    return near if Fraction(near) <= value else math.nextafter(near, -math.inf)
