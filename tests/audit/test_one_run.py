"""The one-run bound: against exact counts, and against mechanisms whose epsilon is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.audit.one_run import ceiling, epsilon_lower, p_value
from sfumato.core.errors import InvalidRequest


def pmf(trials: int, rate: float) -> list[float]:
    """Binomial probabilities by counting, as slow and plain as can be."""
    return [math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(trials + 1)]


def rate_of(epsilon: float) -> float:
    return 1 / (1 + math.exp(-epsilon))


@pytest.mark.parametrize("right", range(7))
def test_fair_coins_are_counted_out(right: int) -> None:
    ways = sum(sum(bits) >= right for bits in itertools.product((0, 1), repeat=6))
    assert p_value(right, 6, 9, epsilon=0.0) == pytest.approx(ways / 64)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.02])
def test_the_formula_written_out(epsilon: float, delta: float) -> None:
    guesses, canaries = 14, 30
    chances = pmf(guesses, rate_of(epsilon))
    for right in range(1, guesses + 1):
        tail = sum(chances[right:])
        steepest = max(sum(chances[right - i : right]) / i for i in range(1, right + 1))
        expected = min(1.0, tail + 2 * canaries * delta * steepest)
        assert p_value(right, guesses, canaries, epsilon=epsilon, delta=delta) == pytest.approx(expected)


def missed(guesses: int, truth: float, delta: float, bound) -> float:  # type: ignore[no-untyped-def]
    """How often a bound lies above the truth, for randomised response that fails openly with delta: exact."""
    chances = pmf(guesses, delta + (1 - delta) * rate_of(truth))
    return sum(chance for right, chance in enumerate(chances) if bound(right) > truth + 1e-9)


@pytest.mark.parametrize("truth", [0.1, 1.0, 2.5])
@pytest.mark.parametrize("delta", [0.0, 1e-3])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_bound_is_above_a_known_epsilon_no_more_often_than_asked(
    truth: float, delta: float, confidence: float
) -> None:
    """Randomised response is the mechanism whose guesses are best; there the bound must be exact."""

    def bound(right: int) -> float:
        return epsilon_lower(right, 100, 100, delta=delta, confidence=confidence)

    assert missed(100, truth, delta, bound) <= 1 - confidence
    if delta == 0:  # and it is not slack either: half of what was asked is used
        assert missed(100, truth, delta, bound) > (1 - confidence) / 3


def test_a_bound_without_confidence_fails_that_test() -> None:
    def naive(right: int) -> float:
        return math.log(max(right, 1) / max(100 - right, 0.5))

    assert missed(100, 1.0, 0.0, naive) > 0.2


def test_a_bound_that_forgets_delta_fails_that_test() -> None:
    def forgets(right: int) -> float:
        return epsilon_lower(right, 100, 100, delta=0.0)

    assert missed(100, 0.5, 0.1, forgets) > 0.05
    assert missed(100, 0.5, 0.1, lambda right: epsilon_lower(right, 100, 100, delta=0.1)) <= 0.05


counts = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60)).map(sorted)


@settings(max_examples=150, deadline=None)
@given(counts=counts, epsilon=st.floats(0, 6), delta=st.sampled_from([0.0, 1e-6, 1e-3]))
def test_more_right_guesses_are_less_probable_and_a_larger_epsilon_allows_more(
    counts: list[int], epsilon: float, delta: float
) -> None:
    right, guesses, canaries = counts
    p = p_value(right, guesses, canaries, epsilon=epsilon, delta=delta)
    assert 0 <= p <= 1
    if right:
        assert p_value(right - 1, guesses, canaries, epsilon=epsilon, delta=0.0) >= p_value(
            right, guesses, canaries, epsilon=epsilon, delta=0.0
        )
    assert p_value(right, guesses, canaries, epsilon=epsilon + 1, delta=0.0) >= p_value(
        right, guesses, canaries, epsilon=epsilon, delta=0.0
    )
    assert p_value(right, guesses, canaries, epsilon=epsilon, delta=min(1.0, 2 * delta)) >= p - 1e-12


@settings(max_examples=60, deadline=None)
@given(counts=counts, delta=st.sampled_from([0.0, 1e-5]))
def test_bounds_rise_with_right_guesses_and_stay_below_the_ceiling(counts: list[int], delta: float) -> None:
    right, guesses, canaries = counts
    bound = epsilon_lower(right, guesses, canaries, delta=delta)
    assert bound <= ceiling(guesses, canaries, delta=delta) + 1e-5
    if right:
        assert epsilon_lower(right - 1, guesses, canaries, delta=delta) <= bound + 1e-5
    assert epsilon_lower(right, guesses, canaries, delta=delta, confidence=0.99) <= bound + 1e-5
    assert epsilon_lower(right, guesses, canaries + 40, delta=delta) <= bound + 1e-5


def test_all_right_among_thousands_stays_a_number() -> None:
    assert 6 < ceiling(5000, 5000, delta=1e-5) < 8
    assert p_value(5000, 5000, 5000, epsilon=800.0, delta=1e-5) == 1.0
    assert np.isfinite(p_value(1, 5000, 5000, epsilon=30.0, delta=1e-5))


@pytest.mark.parametrize("wrong", [(3, 2, 5), (1, 6, 5), (-1, 2, 5)])
def test_counts_that_cannot_be_are_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidRequest, match="rise from 0"):
        p_value(*wrong, epsilon=1.0)
    with pytest.raises(InvalidRequest, match="rise from 0"):
        epsilon_lower(*wrong)


@pytest.mark.parametrize(("epsilon", "delta"), [(-1.0, 0.0), (math.nan, 0.0), (1.0, 2.0), (1.0, math.nan)])
def test_a_claim_that_cannot_be_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(InvalidRequest):
        p_value(1, 2, 3, epsilon=epsilon, delta=delta)
    with pytest.raises(InvalidRequest, match="confidence"):
        epsilon_lower(1, 2, 3, confidence=1.0)
