"""Whole numbers say the same as fractions."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from sfumato.redaction.videos.times import converted, reaches

UNITS = st.builds(Fraction, st.integers(1, 2000), st.integers(1, 90_000))
TIMES = st.integers(-(2**62), 2**62)


@given(TIMES, UNITS, UNITS)
def test_a_time_is_converted_as_a_fraction_is_rounded(time: int, unit: Fraction, other: Fraction) -> None:
    assert converted(time, unit, other) == round(time * unit / other)


@given(st.integers(-99, 99))
def test_halves_go_to_the_even_number(time: int) -> None:
    assert converted(time, Fraction(1, 2), Fraction(1)) == round(Fraction(time, 2))


@given(TIMES, UNITS, UNITS)
def test_a_time_reaches_a_span_as_fractions_do(time: int, unit: Fraction, span: Fraction) -> None:
    assert reaches(time, unit, span) == (time * unit >= span)
    assert reaches(time, unit, time * unit)
