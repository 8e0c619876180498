"""Intervals, deviations and tails of discrete noise, against exact arithmetic and against draws."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from sfumato.core.entropy import SeededEntropy
from sfumato.core.errors import InvalidRequest
from sfumato.mechanisms.exact import Kind, Law, cumulative
from sfumato.mechanisms.tables import sampler
from sfumato.queries import laws
from sfumato.queries.laws import deviation, interval, tail, threshold

SMALL: list[tuple[Kind, Fraction]] = [
    ("laplace", Fraction(1, 9)),
    ("laplace", Fraction(1)),
    ("laplace", Fraction(50, 3)),
    ("rounded", Fraction(1, 9)),
    ("rounded", Fraction(50, 3)),
    ("gaussian", Fraction(1, 9)),
    ("gaussian", Fraction(1)),
    ("gaussian", Fraction(5000, 3)),
]
WIDE: list[tuple[Kind, Fraction]] = [
    ("laplace", Fraction(10**6)),
    ("laplace", Fraction(10**12)),
    ("rounded", Fraction(10**6)),
    ("gaussian", Fraction(1100**2)),
    ("gaussian", Fraction(10**24)),
]


def magnitudes(law: Law, bits: int) -> list[Fraction]:
    """Return P(|X| <= k) for k = 0, 1, ..., by exact arithmetic."""
    if law.kind == "rounded":  # |X| = (K + 1) div 2
        steps = cumulative(Law("laplace", 2 * law.parameter), bits, halved=False)[::2]
    else:
        steps = cumulative(law, bits, halved=True)
    return [Fraction(low, 2**bits) for low, _ in steps]


@pytest.mark.parametrize(("kind", "parameter"), SMALL)
def test_an_interval_is_the_smallest_that_reaches_its_level(kind: Kind, parameter: Fraction) -> None:
    within = [float(part) for part in magnitudes(Law(kind, parameter), 200)]
    for level in (0.0, 0.5, 0.9, 0.95, 0.999999):
        width = interval(kind, parameter, level)
        assert within[width] >= level - 1e-12
        assert width == 0 or within[width - 1] < level + 1e-12


@pytest.mark.parametrize(("kind", "parameter"), SMALL)
def test_tails_are_exact_and_never_below(kind: Kind, parameter: Fraction) -> None:
    sums = magnitudes(Law(kind, parameter), 900)
    for at in (1, 2, 3, math.ceil(9 * Law(kind, parameter).width)):
        exact = (1 - sums[at - 1]) / 2
        told = tail(kind, parameter, at)
        assert exact <= Fraction(told) <= exact * Fraction(1 + 3e-9) + Fraction(1e-300)
        other = tail(kind, parameter, 1 - at)  # P(X >= 1 - at) = 1 - P(X >= at)
        assert 1 - exact <= Fraction(other) <= 1 - exact + Fraction(3e-9)


@pytest.mark.parametrize(("kind", "parameter"), [*SMALL, *WIDE])
def test_a_threshold_is_the_first_that_few_reach(kind: Kind, parameter: Fraction) -> None:
    for delta in (0.5, 0.01, 1e-6, 1e-40):
        at = threshold(kind, parameter, delta)
        assert tail(kind, parameter, at) <= delta
        assert at == 1 or tail(kind, parameter, at - 1) > delta


@pytest.mark.parametrize(("kind", "parameter"), [*SMALL, *WIDE])
def test_draws_agree(kind: Kind, parameter: Fraction) -> None:
    draws = sampler(Law(kind, parameter)).draw(200_000, SeededEntropy(4)).astype(float)
    width = interval(kind, parameter, 0.95)
    below, above = (np.abs(draws) <= width - 1).mean(), (np.abs(draws) <= width).mean()
    assert below < 0.952
    assert above > 0.948
    assert draws.std() == pytest.approx(deviation(kind, parameter), rel=0.02, abs=1e-3)
    sums = draws.reshape(-1, 4).sum(axis=1)
    assert sums.std() == pytest.approx(deviation(kind, parameter, 4), rel=0.03, abs=2e-3)
    # The wrong twin: of less noise, neither the deviation nor the interval would do.
    less = parameter * Fraction(2, 3)
    assert deviation(kind, less) < 0.9 * draws.std()
    assert width <= 1 or (np.abs(draws) <= interval(kind, less, 0.95)).mean() < 0.94


def test_sums_and_the_formula_for_wide_laws_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    law = Law("gaussian", Fraction(900**2))
    summed = laws._above(law)
    monkeypatch.setattr(laws, "SUMMED", 10)
    integrated = laws._above.__wrapped__(law)
    for at in (1, 100, 900, 5000, 20_000, 30_000):
        assert integrated(at) == pytest.approx(summed(at), rel=1e-12)


def test_what_lies_beyond_all_floats_is_not_impossible() -> None:
    for kind, parameter in SMALL + WIDE:
        assert 0 < tail(kind, parameter, 10**15 if parameter > 10**5 else 10**6) < 1e-300
        assert tail(kind, parameter, -(10**16)) == 1


def test_levels_and_probabilities_out_of_range_are_refused() -> None:
    for level in (-0.1, 1.0, math.nan):
        with pytest.raises(InvalidRequest, match="level"):
            interval("laplace", Fraction(1), level)
    for delta in (0.0, 0.6, math.nan):
        with pytest.raises(InvalidRequest, match="probability"):
            threshold("laplace", Fraction(1), delta)
    with pytest.raises(InvalidRequest, match="above 0"):
        interval("gaussian", Fraction(0))
