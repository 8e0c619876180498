"""Sampling tests: quiet on Poisson sampling, and each other law is found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from sfumato.audit.direct import sampling
from sfumato.audit.findings import judged
from sfumato.core.errors import InvalidRequest

UNITS, RATE, DRAWS = 600, 0.1, 120
Draw = Callable[[], NDArray[np.intp]]


def poisson(rng: np.random.Generator, rate: float = RATE) -> Draw:
    return lambda: np.flatnonzero(rng.random(UNITS) < rate)


def broken(draw: Draw) -> set[str]:
    return {one.test for one in judged(sampling(draw, UNITS, RATE, draws=DRAWS)) if one.broken}


def test_poisson_sampling_is_left_alone_and_p_values_are_honest() -> None:
    low: dict[str, int] = {}
    for seed in range(200):
        found = sampling(poisson(np.random.default_rng(seed)), UNITS, RATE, draws=DRAWS)
        assert not any(one.broken for one in judged(found))
        for one in found:
            low[one.test] = low.get(one.test, 0) + (one.p < 0.02)
    assert len(low) == 6
    for test, count in low.items():
        assert stats.binom.sf(count - 1, 200, 0.02) > 1e-4, (test, count)


def fixed(rng: np.random.Generator) -> Draw:
    return lambda: rng.choice(UNITS, int(UNITS * RATE), replace=False)


def shuffled(rng: np.random.Generator) -> Draw:
    rest = [np.empty(0, np.intp)]

    def draw() -> NDArray[np.intp]:
        if len(rest[0]) < 60:
            rest[0] = rng.permutation(UNITS)
        batch, rest[0] = rest[0][:60], rest[0][60:]
        return batch

    return draw


def together(rng: np.random.Generator) -> Draw:
    """Neighbours come in pairs."""
    return lambda: np.flatnonzero(np.repeat(rng.random(UNITS // 2) < RATE, 2))


def sticky(rng: np.random.Generator) -> Draw:
    """A fifth of a batch stays from the one before."""
    last = [np.zeros(UNITS, bool)]

    def draw() -> NDArray[np.intp]:
        new = np.where(rng.random(UNITS) < 0.2, last[0], rng.random(UNITS) < RATE)
        last[0] = new
        return np.flatnonzero(new)

    return draw


def favourites(rng: np.random.Generator) -> Draw:
    rates = np.where(np.arange(UNITS) % 2 == 0, 0.05, 0.15)
    return lambda: np.flatnonzero(rng.random(UNITS) < rates)


def doubled(rng: np.random.Generator) -> Draw:
    return lambda: rng.integers(0, UNITS, 60)


def stranger(rng: np.random.Generator) -> Draw:
    return lambda: np.append(np.flatnonzero(rng.random(UNITS) < RATE), UNITS)


def often(rng: np.random.Generator) -> Draw:
    return poisson(rng, 1.2 * RATE)


def everything(rng: np.random.Generator) -> Draw:
    return lambda: np.arange(UNITS)


def same(rng: np.random.Generator) -> Draw:
    batch = np.flatnonzero(rng.random(UNITS) < RATE)
    return lambda: batch


@pytest.mark.parametrize(
    ("law", "test"),
    [
        (fixed, "batch-sizes"),
        (shuffled, "batch-sizes"),
        (shuffled, "units-counts"),
        (shuffled, "steps-independent"),
        (together, "units-independent"),
        (sticky, "steps-independent"),
        (favourites, "units-counts"),
        (doubled, "once-per-step"),
        (stranger, "once-per-step"),
        (often, "sampling-rate"),
        (everything, "sampling-rate"),
        (same, "steps-independent"),
    ],
)
def test_another_law_is_found(law: Callable[[np.random.Generator], Draw], test: str) -> None:
    assert test in broken(law(np.random.default_rng(2)))


def test_a_lower_rate_is_no_fault_and_full_batches_may_be_promised() -> None:
    assert not broken(poisson(np.random.default_rng(3), 0.8 * RATE))
    found = sampling(lambda: np.arange(50), 50, 1.0, draws=20)
    assert not any(one.broken for one in judged(found))
    empty = sampling(lambda: np.empty(0, np.intp), 50, 0.1, draws=20)
    assert not any(one.broken for one in judged(empty))


def test_a_handful_of_units_is_not_accused_by_chance() -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        found = sampling(lambda: np.flatnonzero(rng.random(3) < 0.1), 3, 0.1, draws=16)
        assert not any(one.broken for one in judged(found))


@pytest.mark.parametrize("wrong", [(1, 0.1, 200), (10, 0.0, 200), (10, 1.5, 200), (10, 0.1, 3)])
def test_what_cannot_be_tested_is_refused(wrong: tuple[int, float, int]) -> None:
    units, rate, draws = wrong
    with pytest.raises(InvalidRequest, match="16 draws"):
        sampling(lambda: np.arange(1), units, rate, draws=draws)


def test_a_mask_in_place_of_indices_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="unit indices"):
        sampling(lambda: np.ones(UNITS, bool), UNITS, RATE)
