"""Bounds by whole numbers: that what they hold is between them, and that they are tight."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.errors import InvalidRequest
from sfumato.mechanisms.exact import Kind, Law, cumulative, exp_bounds

mpmath = pytest.importorskip("mpmath", reason="needs mpmath, to check bounds against: pip install mpmath")


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(st.fractions(0, 40), st.fractions(0, Fraction(1, 10**9)), st.fractions(0, 3000)),
    st.integers(8, 400),
)
def test_bounds_hold_the_exponential(x: Fraction, bits: int) -> None:
    low, high = exp_bounds(x, bits)
    with mpmath.workprec(bits + 200):
        exact = mpmath.exp(-mpmath.mpf(x.numerator) / x.denominator) * mpmath.mpf(2) ** bits
        assert low <= exact <= high
        assert high - low <= 2
        # The wrong twin: bounds of a number that is larger by three units hold it no more.
        assert not low + 3 <= exact


@pytest.mark.parametrize("halved", [True, False])
@pytest.mark.parametrize(
    ("kind", "parameter"),
    [
        ("laplace", Fraction(1, 1000)),
        ("laplace", Fraction(1, 3)),
        ("laplace", Fraction(41, 3)),
        ("gaussian", Fraction(1, 1000)),
        ("gaussian", Fraction(1, 3)),
        ("gaussian", Fraction(1234, 5)),
    ],
)
def test_sums_are_those_of_the_law(kind: Kind, parameter: Fraction, halved: bool) -> None:
    bits = 150
    bounds = cumulative(Law(kind, parameter), bits, halved=halved)
    with mpmath.workprec(bits + 200):
        value = mpmath.mpf(parameter.numerator) / parameter.denominator
        power, half = (1, value) if kind == "laplace" else (2, 2 * value)
        weights = [mpmath.exp(-(mpmath.mpf(k) ** power) / half) for k in range(len(bounds) + 400)]
        if halved:
            weights = [weights[0], *(2 * weight for weight in weights[1:])]
        total, sofar = mpmath.fsum(weights), mpmath.mpf(0)
        for weight, (low, high) in zip(weights, bounds, strict=False):
            sofar += weight
            exact = sofar / total * mpmath.mpf(2) ** bits
            assert low <= exact <= high
            assert high - low <= 2
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(bounds))
    assert bounds[-1][0] >= 2**bits - 2


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["laplace", "gaussian"]), st.fractions(Fraction(1, 100), 30), st.integers(0, 200))
def test_energy_of_a_coarser_law_is_that_at_its_steps(kind: Kind, parameter: Fraction, k: int) -> None:
    law = Law(kind, parameter)
    assert law.coarser(8).energy(k) == law.energy(8 * k) == law.energy(-8 * k)


@pytest.mark.parametrize(
    "parameter", [Fraction(0), Fraction(-1), 1.5, 3, Fraction(2**90), Fraction(1, 2**5000)]
)
def test_a_parameter_that_is_none_is_refused(parameter: Fraction) -> None:
    for kind in ("laplace", "gaussian"):
        with pytest.raises(InvalidRequest, match=r"of (Laplace|Gaussian) noise must be|4096 bits"):
            Law(kind, parameter)  # type: ignore[arg-type]
