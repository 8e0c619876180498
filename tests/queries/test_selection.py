"""Groups chosen privately: delta is kept, exactly, and not wasted."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noisy import LAWS
from scipy import stats

from sfumato.core.errors import InvalidRequest
from sfumato.queries import laws
from sfumato.queries.selection import SUMMED, shown, tail, threshold, units_needed

SCALES = [
    ("laplace", Fraction(1, 3)),
    ("laplace", Fraction(5)),
    ("laplace", Fraction(777, 10)),
    ("rounded", Fraction(1, 2)),
    ("rounded", Fraction(30)),
    ("gaussian", Fraction(1, 4)),
    ("gaussian", Fraction(25)),
    ("gaussian", Fraction(3000)),
]


def mass(law: str, scale: Fraction, reach: int) -> np.ndarray:
    """Return P(X = k) for k in -reach..reach."""
    at = np.arange(-reach, reach + 1)
    if law == "rounded":
        ends = stats.laplace(scale=float(scale)).sf(np.arange(reach + 2) - 0.5)
        half = ends[1:-1] - ends[2:]
        return np.concatenate([half[::-1], [1 - 2 * ends[1]], half])
    weights = np.exp(-abs(at) / float(scale) if law == "laplace" else -(at**2) / (2 * float(scale)))
    result: np.ndarray = weights / weights.sum()
    return result


def leak(law: str, scale: Fraction, groups: int, least: int) -> float:
    """Return how likely it is that a group is shown in which there is one unit alone."""
    reach = math.ceil(60 * (math.sqrt(scale) if law == "gaussian" else float(scale)) + 60)
    chances = mass(law, scale, reach)
    alone = float(chances[np.arange(-reach, reach + 1) + 1 >= least].sum())
    return -math.expm1(groups * math.log1p(-alone))


@pytest.mark.parametrize(("law", "scale"), SCALES)
@pytest.mark.parametrize("groups", [1, 5, 100])
@pytest.mark.parametrize("delta", [Fraction(1, 100), Fraction(1, 10**6), Fraction(1, 10**9)])
def test_the_threshold_is_the_smallest_that_keeps_delta(
    law: str, scale: Fraction, groups: int, delta: Fraction
) -> None:
    least = threshold(law, scale, groups, delta)  # type: ignore[arg-type]
    assert leak(law, scale, groups, least) <= float(delta) * (1 + 1e-9)
    # The wrong twin: one less.
    assert leak(law, scale, groups, least - 1) > float(delta) * (1 + 1e-9)


@pytest.mark.parametrize(("law", "scale"), SCALES)
def test_a_threshold_for_one_group_leaks_with_many(law: str, scale: Fraction) -> None:
    least = threshold(law, scale, 1, Fraction(1, 10**6))  # type: ignore[arg-type]
    assert leak(law, scale, 100, least) > 1e-6


@pytest.mark.parametrize("groups", [1, 3])
def test_neighbours_are_as_close_as_was_promised(groups: int) -> None:
    # A unit alone in one group, and with two others in a second: all outputs, by their exact law.
    epsilon, delta = 1.0, Fraction(1, 1000)
    scale = Fraction(groups)
    least = threshold("laplace", scale, groups, delta)
    reach = 120 * groups
    chances = mass("laplace", scale, 2 * reach)
    counts = np.arange(-reach, reach + 1)

    def output(units: int) -> np.ndarray:
        """Return the law of what is shown of a group: its noisy count, or nothing (last)."""
        own = chances[counts - units + 2 * reach]
        kept = np.where(counts >= least, own, 0)
        return np.append(kept, 1 - kept.sum())

    one = np.multiply.outer(output(1), output(3))
    other = np.multiply.outer(np.append(np.zeros(len(counts)), 1.0), output(2))
    if groups == 1:
        one, other = output(1), np.append(np.zeros(len(counts)), 1.0)
    for a, b in ((one, other), (other, one)):
        assert np.maximum(a - math.exp(epsilon) * b, 0).sum() <= float(delta) + 1e-12
    # The wrong twin: a threshold one lower.
    if groups == 1:
        least -= 1
        assert np.maximum(output(1) - math.exp(epsilon) * other, 0).sum() > float(delta)


@settings(max_examples=60, deadline=None)
@given(
    law=st.sampled_from(LAWS),
    scale=st.fractions(Fraction(1, 10), 10**4),
    at=st.integers(1, 400),
)
def test_tails_are_those_of_the_law(law: str, scale: Fraction, at: int) -> None:
    exact, other = float(tail(law, scale)(at)), laws.tail(law, scale, at)  # type: ignore[arg-type]
    assert exact == pytest.approx(other, rel=1e-6, abs=1e-90)


@settings(max_examples=40, deadline=None)
@given(
    law=st.sampled_from(LAWS),
    scale=st.fractions(Fraction(1, 10), 10**5),
    groups=st.integers(1, 1000),
    digits=st.integers(1, 60),
)
def test_it_rises_with_noise_groups_and_care(law: str, scale: Fraction, groups: int, digits: int) -> None:
    delta = Fraction(1, 10**digits)
    least = threshold(law, scale, groups, delta)  # type: ignore[arg-type]
    assert least >= 2
    assert threshold(law, 2 * scale, groups, delta) >= least  # type: ignore[arg-type]
    assert threshold(law, scale, groups + 1, delta) >= least  # type: ignore[arg-type]
    assert threshold(law, scale, groups, delta / 10) >= least  # type: ignore[arg-type]


def test_wide_gaussians_are_bounded_from_above_and_closely() -> None:
    narrow, wide = Fraction(SUMMED**2), Fraction(SUMMED**2 + 1)
    for at in (2 * SUMMED, 5 * SUMMED, 8 * SUMMED):
        exact, bound = tail("gaussian", narrow)(at), tail("gaussian", wide)(at)
        assert exact < bound < exact * Decimal("1.001")
    assert threshold("gaussian", Fraction(10**10), 5, Fraction(1, 10**6)) == 506_898


def test_groups_with_enough_units_are_nearly_always_shown() -> None:
    least = threshold("laplace", Fraction(5), 5, Fraction(1, 10**6))
    units = units_needed("laplace", Fraction(5), least)
    below = 1 - laws.tail("laplace", Fraction(5), units - least + 1)
    assert 0.95 <= below < 0.97
    assert list(shown(np.array([least - 1, least, least + 1]), least)) == [1, 2]


@pytest.mark.parametrize(("groups", "delta"), [(0, Fraction(1, 10)), (1, Fraction(0)), (1, Fraction(1, 2))])
def test_what_makes_no_sense_is_refused(groups: int, delta: Fraction) -> None:
    with pytest.raises(InvalidRequest, match="1 group or more"):
        threshold("laplace", Fraction(5), groups, delta)
