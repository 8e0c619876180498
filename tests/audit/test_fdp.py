"""The f-DP form: against a linear programme, the pure form, dp-accounting, and mechanisms that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from sfumato.audit import fdp, one_run
from sfumato.core.errors import InvalidRequest
from sfumato.core.event import Gaussian as GaussianEvent
from sfumato.core.losses import privacy_curve


def largest_tail(right: int, guesses: int, canaries: int, pairs: list[tuple[float, float]]) -> float:
    """The largest chance of `right` or more right guesses under all constraints, by linear programming.

    For every i: sum over j > i of j p_j <= delta m + e^eps * sum over j >= i of (guesses - j) p_j, for each
    (eps, delta) of the curve, and the mirrored inequality; p is a distribution.
    """
    j = np.arange(guesses + 1)
    rows, limits = [], []
    for i in range(guesses):
        above, wrong = np.where(j > i, j, 0.0), np.where(j >= i, guesses - j, 0.0)
        for epsilon, delta in pairs:
            rows += [above - math.exp(epsilon) * wrong, math.exp(epsilon) * above - wrong]
            limits += [delta * canaries, (math.exp(epsilon) + delta - 1) * canaries]
    result = optimize.linprog(
        -(j >= right).astype(float),
        A_ub=np.array(rows),
        b_ub=np.array(limits),
        A_eq=np.ones((1, guesses + 1)),
        b_eq=[1.0],
        bounds=(0, 1),
    )
    assert result.success
    return float(-result.fun)


@pytest.mark.parametrize("canaries", [12, 20])
@pytest.mark.parametrize("pairs", [[(0.0, 0.1)], [(1.0, 0.0)], [(0.0, 0.3), (1.0, 1e-3), (2.0, 1e-5)]])
def test_the_recursion_solves_the_linear_programme(canaries: int, pairs: list[tuple[float, float]]) -> None:
    curve = fdp.Curve(*zip(*pairs, strict=True))
    for right in range(7, 13):
        exact = largest_tail(right, 12, canaries, pairs)
        assert fdp.p_value(right, 12, canaries, curve) == pytest.approx(exact, rel=5e-3, abs=1e-9), right


@settings(max_examples=100, deadline=None)
@given(
    right=st.floats(0, 1),
    pairs=st.lists(st.tuples(st.floats(0, 8), st.floats(0, 1)), min_size=1, max_size=6),
)
def test_a_curve_is_the_highest_of_its_lines(right: float, pairs: list[tuple[float, float]]) -> None:
    lines = [0.0]
    for epsilon, delta in pairs:
        lines += [(right - delta) * math.exp(-epsilon), 1 - delta - math.exp(epsilon) * (1 - right)]
    got = fdp.Curve(*zip(*pairs, strict=True)).needed(right)
    assert got == pytest.approx(min(1.0, max(lines)), abs=1e-9)


def test_the_gaussian_curve_is_that_of_dp_accounting() -> None:
    epsilons = np.linspace(0, 6, 200).tolist()
    curve = fdp.Curve(epsilons, privacy_curve(GaussianEvent(1), epsilons, grid=1e-3))
    for right in (1e-4, 0.01, 0.3, 0.7, 0.99):
        assert curve.needed(right) == pytest.approx(fdp.Gaussian(1.0).needed(right), abs=2e-3)
        assert curve.needed(right) <= fdp.Gaussian(1.0).needed(right) + 1e-9  # in the mechanism's favour


@pytest.mark.parametrize(("mu", "delta"), [(0.3, 1e-5), (1.0, 1e-5), (3.0, 1e-6)])
def test_epsilon_of_mu_is_that_of_dp_accounting(mu: float, delta: float) -> None:
    epsilon = fdp.epsilon_of(mu, delta)
    assert privacy_curve(GaussianEvent(1 / mu), [epsilon], grid=1e-3)[0] == pytest.approx(delta, rel=0.01)


@pytest.mark.parametrize("right", [60, 70, 80, 95])
def test_a_pure_curve_says_what_the_pure_form_says(right: int) -> None:
    """Neither is tighter by much, and the pure form is exact for randomised response: it may not be above."""
    pure = one_run.p_value(right, 100, 100, epsilon=1.0)
    by_curve = fdp.p_value(right, 100, 100, fdp.Curve([1.0], [0.0]))
    assert pure * 0.99 <= by_curve <= max(1.5 * pure, 0.2) or pure > 0.1


def above(truth: float, canaries: int, bound) -> float:  # type: ignore[no-untyped-def]
    """How often a bound on mu lies above the truth, for Gaussian answers, one per canary: exact."""
    counts = np.arange(canaries + 1)
    chances = stats.binom.pmf(counts, canaries, stats.norm.cdf(truth / 2))
    return float(
        sum(p for k, p in zip(counts, chances, strict=True) if p > 1e-9 and bound(int(k)) > truth + 1e-6)
    )


@pytest.mark.parametrize("truth", [0.5, 1.5])
def test_mu_is_above_the_truth_no_more_often_than_asked(truth: float) -> None:
    assert above(truth, 150, lambda right: fdp.mu_lower(right, 150, 150)) <= 0.05


def test_a_mu_without_confidence_fails_that_test() -> None:
    def naive(right: int) -> float:
        return 2 * float(stats.norm.ppf(min(max(right, 1), 149) / 150))

    assert above(1.0, 150, naive) > 0.2


def test_the_extremes_alone_give_more_than_all_of_them() -> None:
    """Guessing a tenth of 2,000 canaries: the bound nears the truth, and does not pass it."""
    rng = np.random.default_rng(4)
    bounds = []
    for _ in range(60):
        inside = rng.random(2000) < 0.5
        scores = rng.standard_normal(2000) + 2.0 * inside
        order = np.argsort(scores)
        right = int(inside[order[-100:]].sum() + (~inside[order[:100]]).sum())
        bounds.append(fdp.mu_lower(right, 200, 2000))
    assert max(bounds) <= 2.0
    assert np.median(bounds) > 0.8


@settings(max_examples=60, deadline=None)
@given(
    counts=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)).map(sorted),
    mu=st.floats(0, 4),
)
def test_monotone(counts: list[int], mu: float) -> None:
    right, guesses, canaries = counts
    p = fdp.p_value(right, guesses, canaries, fdp.Gaussian(mu))
    assert 0 < p <= 1
    assert fdp.p_value(right - 1, guesses, canaries, fdp.Gaussian(mu)) >= p * 0.998
    assert fdp.p_value(right, guesses, canaries, fdp.Gaussian(mu + 0.5)) >= p * 0.998
    bound = fdp.mu_lower(right, guesses, canaries)
    assert fdp.mu_lower(right - 1, guesses, canaries) <= bound + 1e-5
    assert fdp.mu_lower(guesses, guesses, canaries) >= bound - 1e-5


@pytest.mark.parametrize("pairs", [([], []), ([1.0], [1.0, 2.0]), ([-1.0], [0.0]), ([1.0], [-0.1])])
def test_a_broken_curve_is_refused(pairs: tuple[list[float], list[float]]) -> None:
    with pytest.raises(InvalidRequest, match="privacy curve"):
        fdp.Curve(*pairs)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        fdp.epsilon_of(-1.0, 1e-5)
    with pytest.raises(InvalidRequest):
        fdp.epsilon_of(1.0, 0.0)
    with pytest.raises(InvalidRequest):
        fdp.p_value(3, 2, 2, fdp.Gaussian(1.0))
