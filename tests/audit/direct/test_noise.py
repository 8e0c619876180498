"""Noise tests: quiet on good noise, and each kind of bad noise is found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from sfumato.audit.canaries import Game
from sfumato.audit.direct import noise
from sfumato.audit.findings import Finding, judged

SIGMA, RATE, STEPS, PLACES = 2.0, 0.2, 60, 800
Make = Callable[[np.random.Generator], NDArray[np.float64]]


def game(make: Make, seed: int, *, signal: float = 1.0) -> Game:
    rng = np.random.default_rng(seed)
    included = rng.random(PLACES) < 0.5
    taken = (rng.random((STEPS, PLACES)) < RATE) & included
    return Game(included, make(rng) + signal * taken)


def good(rng: np.random.Generator) -> NDArray[np.float64]:
    return SIGMA * rng.standard_normal((STEPS, PLACES))


def broken(found: tuple[Finding, ...]) -> set[str]:
    return {one.test for one in judged(found) if one.broken}


def test_good_noise_is_left_alone_and_p_values_are_honest() -> None:
    """Each p is below x in a part x of the runs at most: checked at 0.05 over 40 runs."""
    low: dict[str, int] = {}
    for seed in range(40):
        found = noise(game(good, seed), SIGMA, RATE)
        assert not broken(found)
        for one in found:
            low[one.test] = low.get(one.test, 0) + (one.p < 0.05)
    assert len(low) == 6
    for test, count in low.items():
        assert stats.binom.sf(count - 1, 40, 0.05) > 1e-4, (test, count)


def smaller(rng: np.random.Generator) -> NDArray[np.float64]:
    return 0.97 * good(rng)


def uniform(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.uniform(-1, 1, (STEPS, PLACES)) * SIGMA * np.sqrt(3)


def twice(rng: np.random.Generator) -> NDArray[np.float64]:
    rows = good(rng)
    rows[41] = rows[7]
    return rows


def negated(rng: np.random.Generator) -> NDArray[np.float64]:
    rows = good(rng)
    rows[1::2] = -rows[::2]
    return rows


def autoregressive(rng: np.random.Generator) -> NDArray[np.float64]:
    rows = good(rng)
    for index in range(1, STEPS):
        rows[index] = 0.1 * rows[index - 1] + np.sqrt(1 - 0.01) * rows[index]
    return rows


def tiled(rng: np.random.Generator) -> NDArray[np.float64]:
    return np.tile(SIGMA * rng.standard_normal((STEPS, PLACES // 4)), (1, 4))


def none(rng: np.random.Generator) -> NDArray[np.float64]:
    return np.zeros((STEPS, PLACES))


@pytest.mark.parametrize(
    ("make", "test"),
    [
        (smaller, "noise-deviation"),
        (none, "noise-deviation"),
        (uniform, "noise-shape"),
        (twice, "noise-reused"),
        (negated, "noise-reused"),
        (autoregressive, "noise-over-steps"),
        (tiled, "noise-within-a-step"),
    ],
)
def test_bad_noise_is_found(make: Make, test: str) -> None:
    assert test in broken(noise(game(make, 3), SIGMA, RATE))


def test_more_noise_than_promised_is_no_fault() -> None:
    for seed in range(30):
        assert not broken(noise(game(lambda rng: 4 * good(rng), seed), SIGMA, RATE))


@pytest.mark.parametrize(("signal", "found"), [(1.0, False), (1.6, True), (2.0, True), (0.5, False)])
def test_a_unit_that_adds_too_much_is_found(signal: float, found: bool) -> None:
    assert ("contribution" in broken(noise(game(good, 5, signal=signal), SIGMA, RATE))) == found


def test_correlated_noise_is_allowed_where_it_is_meant() -> None:
    assert not broken(noise(game(negated, 3), SIGMA, RATE, fresh=False))


def test_one_step_and_infinite_sums_are_judged_too() -> None:
    one = Game(np.arange(64) % 2 == 0, SIGMA * np.random.default_rng(1).standard_normal((1, 64)))
    assert not broken(noise(one, SIGMA, RATE))
    wild = Game(one.included, np.where(one.included, np.inf, one.sums))
    assert "contribution" in broken(noise(wild, SIGMA, RATE))
