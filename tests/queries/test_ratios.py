"""Means, variances and deviations: intervals that hold, for groups of any size, under both laws."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from noisy import DRAWS, LAWS, covered, draw, scale_of

from sfumato.queries.ratios import Figures, mean, root, variance
from sfumato.queries.spread import Spread

#: Groups and rows that one unit counts in, over epsilon: what noise on rows has as its deviation.
NOISE = 12.0
HALF = 500


def values(kind: str, rows: int) -> np.ndarray:
    rng = np.random.default_rng(rows)
    if kind == "even":
        return rng.integers(-HALF, HALF + 1, rows)
    return np.minimum(HALF, -HALF + rng.exponential(80, rows).astype(int))


def noisy(
    law: str, data: np.ndarray, seed: int, wrong: float = 1.0
) -> tuple[list[np.ndarray], tuple[Spread, ...]]:
    """Return noisy rows, sums and squares; noise `wrong` times wider than said."""
    rng = np.random.default_rng(seed)
    exact = [len(data), int(data.sum()), int((data**2).sum())]
    scales = [scale_of(law, NOISE * size) for size in (1, HALF, HALF**2)]
    real = [scale * Fraction(wrong) ** (2 if law == "gaussian" else 1) for scale in scales]
    numbers = [
        (total + draw(law, scale, DRAWS, rng)).astype(float) for total, scale in zip(exact, real, strict=True)
    ]
    return numbers, tuple(Spread.of(law, scale) for scale in scales)  # type: ignore[arg-type]


def means(law: str, data: np.ndarray, wrong: float = 1.0) -> Figures:
    (rows, sums, _), (of_rows, of_sums, _) = noisy(law, data, len(data), wrong)
    return mean(sums, rows, (of_sums, of_rows), (-HALF, HALF))


def variances(law: str, data: np.ndarray, wrong: float = 1.0) -> Figures:
    (rows, sums, squares), (of_rows, of_sums, of_squares) = noisy(law, data, len(data), wrong)
    return variance(squares, sums, rows, (of_squares, of_sums, of_rows), (-HALF, HALF))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", ["even", "skewed"])
@pytest.mark.parametrize("rows", [60, 100, 200, 1000, 30_000])
def test_means_are_held_in_95_percent(law: str, kind: str, rows: int) -> None:
    data = values(kind, rows)
    found = means(law, data)
    assert 0.94 <= covered(found.low, found.high, data.mean()) <= 0.96
    if rows >= 1000:
        assert not np.isnan(found.value).any()
        assert found.error.mean() == pytest.approx(found.value.std(), rel=0.06)
        assert abs(found.value.mean() - data.mean()) < 0.1 * found.value.std()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("rows", [0, 1, 5, 20, 40])
def test_means_of_few_rows_are_wide_or_missing(law: str, rows: int) -> None:
    data = values("skewed", rows)
    found = means(law, data)
    truth = data.mean() if rows else 0
    assert covered(found.low, found.high, truth) >= 0.94
    missing = np.isnan(found.value)
    assert missing.mean() > (0.9 if rows <= 5 else 0.02)
    assert (found.low[missing] == -HALF).all()
    assert (found.high[missing] == HALF).all()
    assert np.isnan(found.error[missing]).all()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", ["even", "skewed"])
@pytest.mark.parametrize("rows", [200, 400, 1000, 30_000])
def test_variances_and_deviations_are_held_in_95_percent(law: str, kind: str, rows: int) -> None:
    data = values(kind, rows)
    found = variances(law, data)
    assert 0.94 <= covered(found.low, found.high, data.var()) <= 0.96
    assert covered(root(found).low, root(found).high, data.std()) == covered(
        found.low, found.high, data.var()
    )
    if rows >= 30_000:
        assert abs(found.value.mean() - data.var()) < 0.15 * found.value.std()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("rows", [0, 3, 30, 110])
def test_variances_of_few_rows_are_wide_or_missing(law: str, rows: int) -> None:
    data = values("even", rows)
    found = variances(law, data)
    assert covered(found.low, found.high, data.var() if rows else 0) >= 0.94
    assert np.isnan(found.value).mean() > 0.5
    missing = np.isnan(found.value)
    assert (found.high[missing] == HALF**2).all()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("make", [means, variances])
@pytest.mark.parametrize("rows", [1000, 30_000])
def test_noise_wider_than_said_is_found(law: str, make: object, rows: int) -> None:
    data = values("even", rows)
    exact = data.mean() if make is means else data.var()
    found = make(law, data, wrong=1.25)  # type: ignore[operator]
    assert covered(found.low, found.high, exact) < 0.93


def test_a_delta_method_would_not_hold_for_small_groups() -> None:
    # The twin: the ratio's standard error taken for that of normal noise, as if N were known to be large.
    data = values("even", 60)
    found = means("gaussian", data)
    (rows, sums, _), (of_rows, of_sums, _) = noisy("gaussian", data, 60)
    ratio = sums / rows
    error = np.sqrt(of_sums.variance + ratio**2 * of_rows.variance) / abs(rows)
    naive = covered(ratio - 1.96 * error, ratio + 1.96 * error, data.mean())
    assert abs(naive - 0.95) > abs(covered(found.low, found.high, data.mean()) - 0.95)


def test_figures_stay_within_what_is_possible() -> None:
    for law in LAWS:
        found = variances(law, values("skewed", 150))
        assert np.nanmin(found.value) >= 0
        assert np.nanmax(found.value) <= HALF**2
        assert (found.low <= found.high).all()
        assert found.low.min() >= 0


def test_a_root_of_nought_has_no_error() -> None:
    zero = np.zeros(1)
    found = root(Figures(zero, zero + 1, zero, zero + 4))
    assert found.value[0] == 0
    assert np.isnan(found.error[0])
    assert found.high[0] == 2


def test_figures_on_a_grid_are_the_decimals_they_should_be() -> None:
    seven = np.array([7.0])
    found = Figures(seven, seven, seven, seven).on_grid(Fraction(1, 10))
    assert found.value[0] == 0.7
    moved = replace(found, value=seven).on_grid(Fraction(1, 2), centre=3)
    assert moved.value[0] == 5.0
    assert moved.error[0] == 0.35


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("rows", [160, 200, 1000])
def test_variances_of_values_at_a_bound_are_held_as_well(law: str, rows: int) -> None:
    data = np.full(rows, -HALF)
    data[:3] = HALF - 20
    found = variances(law, data)
    assert 0.935 <= covered(found.low, found.high, data.var()) <= 0.965
    assert covered(means(law, data).low, means(law, data).high, data.mean()) >= 0.94
