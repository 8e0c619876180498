"""Quantiles from noisy trees: the bins, the spread of a rank, and intervals that hold."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noisy import LAWS, covered, draw, scale_of

from sfumato.queries import quantiles, rollup
from sfumato.queries.quantiles import FAN, bins, levels, quantile, tree_sums, widths
from sfumato.queries.ratios import Figures
from sfumato.queries.spread import Spread

TINY = Fraction(1, 50)
HALF = Fraction(1, 2)


@given(
    low=st.fractions(-1000, 1000, max_denominator=100),
    span=st.fractions(Fraction(1, 1000), 10**7),
    step=st.none() | st.fractions(Fraction(1, 1000), 100),
    whole=st.booleans(),
)
def test_bins_cover_the_range_and_make_a_whole_tree(
    low: Fraction, span: Fraction, step: Fraction | None, whole: bool
) -> None:
    if whole:
        low, span, step = Fraction(int(low)), Fraction(int(span) + 1), step and Fraction(int(step) + 1)
    start, width, count = bins((low, low + span), step, whole=whole)
    assert start == low
    assert 2 <= count <= FAN**3
    assert start + width * count > low + span
    if whole:
        assert width.denominator == 1
    sizes = levels(count)
    assert sizes[-1] == count
    fans = {below // above for above, below in zip((1, *sizes), sizes, strict=False)}
    assert len(fans) == 1
    assert max(fans) <= FAN


def test_few_whole_numbers_have_a_bin_each() -> None:
    assert bins((Fraction(0), Fraction(23)), whole=True) == (0, 1, 25)
    assert bins((Fraction(0), Fraction(1)), whole=True) == (0, 1, 2)


def test_a_declared_step_is_the_width_as_far_as_it_goes() -> None:
    assert bins((Fraction(0), Fraction(300)), Fraction(1, 10))[1:] == (Fraction(1, 10), 15**3)
    assert bins((Fraction(0), Fraction(1000)), Fraction(1, 10))[1] == HALF


@given(st.integers(2, 5000))
def test_levels_of_any_count_end_at_the_bins(count: int) -> None:
    assert levels(count)[-1] == count
    assert [a * b for a, b in zip(widths(count), levels(count), strict=True)] == [count] * len(levels(count))


@given(st.integers(0, 2**32 - 1))
def test_tree_sums_are_exact_sums(seed: int) -> None:
    leaves = np.random.default_rng(seed).integers(0, 2**40, (3, 144))
    top, bottom = tree_sums(leaves)
    assert (bottom == leaves).all()
    assert (top.sum(-1) == leaves.sum(-1)).all()
    assert top[1, 4] == leaves[1, 48:60].sum()


# Quantiles


def tree_of(values: np.ndarray, low: float, width: float, count: int) -> list[np.ndarray]:
    places = np.clip(np.floor((values - low) / width), 0, count - 1).astype(int)
    return tree_sums(np.bincount(places, minlength=count)[None, :])


def found(
    values: np.ndarray,
    at: Fraction,
    law: str,
    spread: float,
    *,
    step: Fraction | None = None,
    draws: int = 1000,
    wrong: float = 1.0,
    whole: bool = False,
) -> Figures:
    low, width, count = bins((Fraction(0), Fraction(100)), step, whole=whole)
    rng = np.random.default_rng(len(values))
    tree = tree_of(values, float(low), float(width), count)
    said, real = scale_of(law, spread), scale_of(law, spread * wrong)
    noisy = [level + draw(law, real, (draws, level.shape[1]), rng) for level in tree]
    noise = [Spread.of(law, said)] * len(tree)  # type: ignore[arg-type]
    return quantile(noisy, noise, at, (low, width), (0.0, 100.0), whole=whole)


def exact(values: np.ndarray, at: Fraction) -> float:
    """Return the first value with a share of at least `at` not above it."""
    return float(np.sort(values)[max(0, -(-at * len(values) // 1) - 1)])


SAMPLES = {
    "bell": lambda rng, rows: np.clip(rng.normal(50, 12, rows), 0, 100),
    "two hills": lambda rng, rows: np.where(
        rng.random(rows) < 0.7, rng.normal(20, 1, rows), rng.normal(80, 1, rows)
    ),
    "one value": lambda rng, rows: np.full(rows, 31.4),
}


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(0, 100), min_size=40, max_size=90),
    at=st.fractions(Fraction(1, 20), 1, max_denominator=20),
)
def test_without_noise_it_is_the_quantile(values: list[int], at: Fraction) -> None:
    data = np.array(values)
    figures = found(data, at, "gaussian", 1e-3, draws=1, whole=True)
    assert figures.value[0] == exact(data, at)
    # Where a share is reached exactly, the next value that occurs is possible, too.
    assert figures.low[0] <= figures.value[0] <= figures.high[0]
    assert figures.high[0] <= min([value for value in values if value > figures.value[0]], default=100)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("rows", [0, 100, 500, 3000, 100_000])
@pytest.mark.parametrize("at", [HALF, Fraction(19, 20)])
def test_intervals_hold_in_95_percent_or_more(law: str, sample: str, rows: int, at: Fraction) -> None:
    data = SAMPLES[sample](np.random.default_rng(rows), rows)
    figures = found(data, at, law, 15.0)
    truth = exact(data, at) if rows else 50.0
    assert covered(figures.low, figures.high, truth) >= 0.945
    told = ~np.isnan(figures.value)
    assert told.mean() < 0.1 if rows == 0 else told.mean() > (0.3 if rows == 100 else 0.99)
    assert (figures.low <= figures.high).all()
    assert (figures.value[told] >= figures.low[told]).all()
    assert (figures.value[told] <= figures.high[told]).all()
    if rows == 100_000:
        assert (figures.high - figures.low).mean() < 3


@pytest.mark.parametrize("law", LAWS)
def test_fine_steps_make_a_third_level_and_hold_as_well(law: str) -> None:
    data = np.random.default_rng(1).normal(50, 12, 20_000).clip(0, 100)
    figures = found(data, HALF, law, 15.0, step=Fraction(1, 25), draws=600)
    assert 0.94 <= covered(figures.low, figures.high, exact(data, HALF)) <= 0.995
    assert (figures.high - figures.low).mean() < 1
    assert np.sqrt(((figures.value - exact(data, HALF)) ** 2).mean()) < 0.2


@pytest.mark.parametrize("law", LAWS)
def test_noise_wider_than_said_is_found(law: str) -> None:
    data = np.random.default_rng(1).normal(50, 12, 20_000).clip(0, 100)
    figures = found(data, HALF, law, 15.0, step=Fraction(1, 25), draws=600, wrong=1.5)
    assert covered(figures.low, figures.high, exact(data, HALF)) < 0.93


@pytest.mark.parametrize("count", [16, 144, 1000])
def test_the_spread_of_ranks_is_what_is_drawn(count: int) -> None:
    rng = np.random.default_rng(2)
    sizes, at = levels(count), 0.3
    noise = [Spread.of("gaussian", Fraction(100 * (depth + 1))) for depth in range(len(sizes))]
    tree = [draw("gaussian", Fraction(100 * (d + 1)), (6000, size), rng) for d, size in enumerate(sizes)]
    leaves = rollup.consistent(tree, noise)[-1]
    ranks = np.cumsum(leaves, axis=1) - at * leaves.sum(1, keepdims=True)
    told = quantiles._deviations(sizes[0], rollup.upward(sizes, noise), at)
    np.testing.assert_allclose(ranks.std(0), told, rtol=0.06)


def test_a_tree_beats_its_leaves_alone() -> None:
    sizes = levels(2744)
    noise = [Spread(3.0)] * 3
    tree = quantiles._deviations(sizes[0], rollup.upward(sizes, noise), 0.5)
    alone = np.sqrt(2744 * 0.25)  # three times the budget, and a sum of half of all leaves
    assert tree.max() < alone / 3


def test_many_groups_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(1).normal(50, 12, 500).clip(0, 100)
    together = found(data, HALF, "laplace", 15.0, draws=10)
    monkeypatch.setattr(quantiles, "AT_ONCE", 700)
    apart = found(data, HALF, "laplace", 15.0, draws=10)
    for end in ("value", "error", "low", "high"):
        np.testing.assert_array_equal(getattr(together, end), getattr(apart, end))
