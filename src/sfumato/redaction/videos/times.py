"""Times: whole numbers of a unit, compared and converted without fractions, which are slow."""

from __future__ import annotations

from fractions import Fraction


def reaches(time: int, unit: Fraction, span: Fraction) -> bool:
    """Say whether a time, in `unit` seconds, is at least a span, in seconds.

    >>> reaches(12800, Fraction(1, 25600), Fraction(1, 2)), reaches(-1, Fraction(1), Fraction(0))
    (True, False)
    """
    return time * unit.numerator * span.denominator >= span.numerator * unit.denominator


def converted(time: int, unit: Fraction, other: Fraction) -> int:
    """Return a time in `unit` seconds as one in `other`: the nearest, of two the even one.

    >>> converted(1, Fraction(1, 25), Fraction(1, 12800)), converted(1, Fraction(1, 2), Fraction(1))
    (512, 0)
    """
    number, by = time * unit.numerator * other.denominator, unit.denominator * other.numerator
    whole, rest = divmod(number, by)
    return whole + (2 * rest > by or (2 * rest == by and whole % 2))
