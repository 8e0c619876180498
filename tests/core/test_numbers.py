from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.errors import InvalidRequest
from sfumato.core.numbers import brief, ceil_to, float_down, float_up, rational, text


@pytest.mark.parametrize("whole", [1, 0.7, 0.1, 2.5, 1e-6, 0.3, 8])
def test_k_parts_of_a_float_add_up_to_it(whole: float) -> None:
    for k in range(2, 1001):
        assert rational(whole / k) * k == rational(whole), k


def test_reading_a_float_bit_for_bit_would_not_add_up() -> None:
    """The wrong twin: exact binary values overshoot for some k."""
    assert any(Fraction(1 / k) * k > 1 for k in range(2, 1001))


@pytest.mark.parametrize(
    "bad", [float("nan"), float("inf"), -1, -1e-300, "x", "", "1/0", None, 2**21, Decimal("NaN"), "9" * 400]
)
def test_what_is_no_amount_is_refused_with_the_value(bad: object) -> None:
    with pytest.raises(InvalidRequest, match="must"):
        rational(bad)  # type: ignore[arg-type]


@given(st.floats(min_value=0, max_value=2**20))
def test_a_float_stays_within_two_units_in_the_last_place(value: float) -> None:
    assert abs(rational(value) - Fraction(value)) <= 2 * Fraction(math.ulp(value))
    assert (rational(value) == 0) == (value == 0)


@given(st.fractions(min_value=0, max_value=1000))
def test_text_is_exact_and_floats_bracket(value: Fraction) -> None:
    assert Fraction(text(value)) == value
    assert Fraction(float_down(value)) <= value <= Fraction(float_up(value))


@given(st.floats(min_value=0, max_value=1e5))
def test_a_computed_loss_is_rounded_up(value: float) -> None:
    assert ceil_to(value) >= Fraction(value)
    assert ceil_to(value) <= Fraction(value) + Fraction(3, 10**9)


@given(st.fractions(min_value=Fraction(1, 10**9), max_value=1000))
def test_brief_rounds_to_the_safe_side(value: Fraction) -> None:
    slack = Fraction(1, 10**5)
    assert Fraction(brief(value)) >= value * (1 - slack)
    assert Fraction(brief(value, up=False)) <= value * (1 + slack)
