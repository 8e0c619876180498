"""Totals that add up: the same as least squares, with the spread that they have."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noisy import DRAWS, LAWS, covered, draw, scale_of
from numpy.typing import NDArray

from sfumato.queries.rollup import consistent, non_negative, spreads, upward, whole
from sfumato.queries.spread import NORMAL, Spread, half_width

FANS = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def sizes_of(fans: list[int]) -> list[int]:
    return [int(np.prod(fans[: at + 1])) for at in range(len(fans))]


def ancestry(sizes: list[int]) -> NDArray[np.float64]:
    """Return what every node is a sum of: (all nodes, leaves)."""
    leaves = sizes[-1]
    return np.concatenate([np.kron(np.eye(size), np.ones(leaves // size)) for size in sizes])


@settings(max_examples=40, deadline=None)
@given(fans=FANS, seed=st.integers(0, 2**32 - 1))
def test_they_are_the_weighted_least_squares(fans: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = sizes_of(fans)
    noise = [Spread(float(rng.uniform(0.5, 50))) for _ in sizes]
    levels = [rng.integers(-100, 100, size) for size in sizes]
    weights = np.concatenate(
        [np.full(size, one.variance**-0.5) for size, one in zip(sizes, noise, strict=True)]
    )
    tree = ancestry(sizes)
    leaves = np.linalg.lstsq(tree * weights[:, None], np.concatenate(levels) * weights, rcond=None)[0]
    np.testing.assert_allclose(np.concatenate(consistent(levels, noise)), tree @ leaves, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(fans=FANS, seed=st.integers(0, 2**32 - 1))
def test_their_spread_is_that_of_the_weights_they_have(fans: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = sizes_of(fans)
    noise = [Spread(float(rng.uniform(0.5, 50)), float(rng.uniform(0, 900))) for _ in sizes]
    total = sum(sizes)
    # One impulse at a time: the weights of every number in every estimate.
    impulses = np.split(np.eye(total).astype(int), np.cumsum(sizes)[:-1], axis=1)
    weights = np.concatenate(consistent(impulses, noise), axis=1).T
    variances = np.concatenate([np.full(size, one.variance) for size, one in zip(sizes, noise, strict=True)])
    fourths = np.concatenate([np.full(size, one.fourth) for size, one in zip(sizes, noise, strict=True)])
    at = 0
    for size, found in zip(sizes, spreads(sizes, noise), strict=True):
        np.testing.assert_allclose(weights[at : at + size] ** 2 @ variances, found.variance, rtol=1e-9)
        np.testing.assert_allclose(
            weights[at : at + size] ** 4 @ fourths, found.fourth, rtol=1e-9, atol=1e-12
        )
        at += size


def test_equal_weights_would_not_do() -> None:
    # The wrong twin of the least squares: all levels trusted alike.
    levels, noise = [np.array([100]), np.array([1, 2])], [Spread(1.0), Spread(400.0)]
    right, wrong = consistent(levels, noise), consistent(levels, [Spread(1.0), Spread(1.0)])
    assert abs(right[0][0] - 100) < 1 < abs(wrong[0][0] - 100)


@pytest.mark.parametrize("law", LAWS)
def test_intervals_of_every_level_hold_in_95_percent(law: str) -> None:
    rng = np.random.default_rng(5)
    sizes, deviations = [1, 4, 24], [30.0, 20.0, 12.0]
    truth = [np.array([2400]), np.full(4, 600), np.full(24, 100)]
    scales = [scale_of(law, one) for one in deviations]
    levels = [
        exact + draw(law, scale, (DRAWS, len(exact)), rng) for exact, scale in zip(truth, scales, strict=True)
    ]
    noise = [Spread.of(law, scale) for scale in scales]  # type: ignore[arg-type]
    for exact, found, spread in zip(truth, consistent(levels, noise), spreads(sizes, noise), strict=True):
        one, width = found[:, 0], spread.half_width
        assert 0.94 <= covered(one - width, one + width, exact[0]) <= 0.96
        assert covered(one - 0.8 * width, one + 0.8 * width, exact[0]) < 0.94
        assert abs(one.mean() - exact[0]) < 4 * spread.deviation / DRAWS**0.5, "unbiased"
        assert spread.deviation == pytest.approx(one.std(), rel=0.05)


def test_totals_and_parts_get_better() -> None:
    noise = [Spread.of("laplace", Fraction(10))] * 3
    assert all(one.variance < noise[0].variance for one in spreads([1, 5, 20], noise))


def test_a_half_width_is_exact_where_the_law_is_known() -> None:
    assert Spread.of("gaussian", Fraction(10**6)).half_width == pytest.approx(1959.96, rel=1e-4)
    assert Spread.of("laplace", Fraction(10**5)).half_width == pytest.approx(299_573, rel=1e-4)


@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.5, 0.8, 1.0])
def test_a_half_width_holds_for_two_laplace_noises(ratio: float) -> None:
    def beyond(t: float) -> float:
        if ratio == 1:
            return float((1 + t / 2) * np.exp(-t))
        return float((np.exp(-t) - ratio**2 * np.exp(-t / ratio)) / (1 - ratio**2))

    variance, fourth = 2 * (1 + ratio**2), 12 * (1 + ratio**4)
    width = float(half_width(np.float64(variance), np.float64(fourth)))
    assert 0.9485 <= 1 - beyond(width) <= 0.9515
    assert 1 - beyond(NORMAL * variance**0.5) < 0.9485, "taking them for normal would be wrong"


@settings(max_examples=40, deadline=None)
@given(fans=FANS, seed=st.integers(0, 2**32 - 1))
def test_finished_totals_add_up_are_whole_and_not_below_nought(fans: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = sizes_of(fans)
    levels = [rng.integers(-60, 100, (3, size)) for size in sizes]
    found = consistent(levels, [Spread(4.0)] * len(sizes))
    clipped = non_negative(found)
    rounded = whole(clipped)
    for above, below in itertools.pairwise(rounded):
        assert (below.reshape(*above.shape, -1).sum(-1) == above).all()
    for above, below in itertools.pairwise(clipped):
        np.testing.assert_allclose(below.reshape(*above.shape, -1).sum(-1), above, atol=1e-6)
    assert min(one.min() for one in rounded) >= 0
    assert max(abs(one - other).max() for one, other in zip(clipped, rounded, strict=True)) < 3


def test_upward_is_the_inverse_variance_rule() -> None:
    assert upward([1, 2], [Spread(2.0), Spread(1.0)]) == [1.0, 1.0]


@pytest.mark.parametrize("law", ["laplace", "rounded"])
@pytest.mark.parametrize("scale", [Fraction(1, 5), Fraction(1), Fraction(9, 2), Fraction(60)])
def test_the_spread_of_one_draw_has_the_moments_of_its_law(law: str, scale: Fraction) -> None:
    at = np.arange(1, 4000, dtype=float)
    half = np.exp(-at / float(scale))
    if law == "laplace":
        half /= 1 + 2 * half.sum()
    else:
        half *= np.sinh(0.5 / float(scale))
    variance, fourth = 2 * (at**2 * half).sum(), 2 * (at**4 * half).sum()
    found = Spread.of(law, scale)  # type: ignore[arg-type]
    assert found.variance == pytest.approx(variance, rel=1e-9)
    assert found.fourth == pytest.approx(fourth - 3 * variance**2, rel=1e-9)
