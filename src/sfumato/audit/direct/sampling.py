"""Does every step take every unit in by a coin of its own, once at most?

Privacy amplification is proved for Poisson sampling. Batches of a fixed size, or shuffled epochs cut into
batches, look alike to an audit by canaries and are not what was paid for.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sfumato.audit.findings import Finding
from sfumato.core.errors import InvalidRequest

#: The sampler's draw for one step: indices of the units that are in it.
Sample = Callable[[], NDArray[np.intp]]

#: So many units are watched; what holds for all holds for them.
WATCHED = 20_000
DRAWS = 200
#: Counts, of batches or of units, whose spread says something.
FEWEST = 16


def sampling(sample: Sample, units: int, rate: float, *, draws: int = DRAWS) -> tuple[Finding, ...]:
    """Return what the batches of `draws` steps say of the sampler.

    >>> rng = np.random.default_rng(1)
    >>> found = sampling(lambda: np.flatnonzero(rng.random(1000) < 0.1), 1000, 0.1)
    >>> min(one.p for one in found) > 1e-4
    True

    Args:
        sample: the run's own sampler.
        units: how many privacy units there are.
        rate: the chance of each to be in a step, the claim's.
        draws: steps to draw.

    Guarantee: for Poisson sampling each finding's `p` is below x with probability x at most, by the normal
    limits of counts; the test for double participation has no chance in it.

    Raises:
        InvalidRequest: fewer than 2 units or 16 draws, or a rate outside 0..1.
    """
    if units < 2 or draws < FEWEST or not 0 < rate <= 1:
        raise InvalidRequest(
            f"a sampler is tested on 2 units, {FEWEST} draws and a rate in 0..1, "
            f"got {units}, {draws}, {rate!r}"
        )
    taken, doubled = _batches(sample, units, draws)
    found = [_once(doubled, draws), _rate(taken, rate)]
    seen = float(taken.mean())
    if 0 < seen < 1:
        found += [_sizes(taken, seen), _shares(taken, seen), _pairs(taken, seen), _steps(taken, seen)]
    elif rate < 1:
        found.append(
            Finding("batch-sizes", f"every step takes {'all' if seen else 'none'} of the units", seen < 1)
        )
    return tuple(found)


def _batches(sample: Sample, units: int, draws: int) -> tuple[NDArray[np.bool_], int]:
    """Return (draws, watched units) bool, and in how many draws a unit came twice or does not exist."""
    taken = np.zeros((draws, units), dtype=bool)
    doubled = 0
    for row in taken:
        batch = np.asarray(sample())
        if batch.ndim != 1 or (batch.size and not np.issubdtype(batch.dtype, np.integer)):
            raise InvalidRequest(
                f"a sampler returns unit indices in one dimension, got {batch.dtype} {batch.shape}"
            )
        inside = batch[(batch >= 0) & (batch < units)].astype(np.intp)
        row[inside] = True
        doubled += int(row.sum()) != len(batch)
    return taken[:, : min(units, WATCHED)], doubled


def _once(doubled: int, draws: int) -> Finding:
    said = f"in {doubled} of {draws} steps a unit was in twice, or does not exist"
    return Finding("once-per-step", said, 0.0 if doubled else 1.0)


def _rate(taken: NDArray[np.bool_], rate: float) -> Finding:
    """Units come too often: all inclusions together are binomial."""
    count, total = int(taken.sum()), taken.size
    said = f"a unit is in a step with chance {count / total:.4g}, promised {rate:.4g} or less"
    return Finding("sampling-rate", said, _at_least(count, total, rate))


def _sizes(taken: NDArray[np.bool_], rate: float) -> Finding:
    """Batches vary too little (a fixed size) or too much (units that come together)."""
    sizes = taken.sum(axis=1)
    p, ratio = _spread(sizes, taken.shape[1], rate)
    said = f"batch sizes vary {ratio:.3g} times as much as independent coins do"
    return Finding("batch-sizes", said, p)


def _shares(taken: NDArray[np.bool_], rate: float) -> Finding:
    """Units' counts vary too little (turns) or too much (favourites)."""
    if taken.shape[1] < FEWEST:  # a few counts may all be equal by chance
        return Finding("units-counts", f"{taken.shape[1]} units are too few to tell", 1.0)
    p, ratio = _spread(taken.sum(axis=0), len(taken), rate)
    said = f"units' counts vary {ratio:.3g} times as much as independent coins do"
    return Finding("units-counts", said, p)


def _spread(counts: NDArray[np.intp], trials: int, rate: float) -> tuple[float, float]:
    """Return the chance of binomial counts that vary so little or so much, and how much they vary.

    Their sum of squares is close to a gamma law with its mean and its variance, which is that of chi-square
    and a term for binomial counts that are not quite normal.
    """
    one = trials * rate * (1 - rate)
    freedom = len(counts) - 1
    spread = float(np.sum((counts - counts.mean()) ** 2)) / one
    scale = 2 + (1 - 6 * rate * (1 - rate)) / one
    lower = float(special.gammainc(freedom / scale, spread / scale))
    upper = float(special.gammaincc(freedom / scale, spread / scale))
    return _both_sides(lower, upper), math.sqrt(spread / freedom)


def _pairs(taken: NDArray[np.bool_], rate: float) -> Finding:
    """Units that come together, or never do: disjoint pairs of units at several distances."""
    units = taken.shape[1]
    worst, least, tests = 1, 1.0, 0
    distance = 1
    while 2 * distance <= units:
        blocks = units // (2 * distance)
        shaped = taken[:, : blocks * 2 * distance].reshape(len(taken), blocks, 2, distance)
        p = _binomial(int((shaped[:, :, 0] & shaped[:, :, 1]).sum()), shaped.size // 2, rate**2)
        tests += 1
        if p < least:
            worst, least = distance, p
        distance *= 2
    said = f"units {worst} apart are the least independent, of {tests} distances"
    return Finding("units-independent", said, min(1.0, tests * least))


def _steps(taken: NDArray[np.bool_], rate: float) -> Finding:
    """Units whose steps depend on each other: disjoint pairs of steps at each lag up to two epochs."""
    draws, units = taken.shape
    lags = range(1, min(draws // 2, math.ceil(2 / rate)) + 1)
    worst, least = 1, 1.0
    for lag in lags:
        blocks = draws // (2 * lag)
        shaped = taken[: blocks * 2 * lag].reshape(blocks, 2, lag, units)
        p = _binomial(int((shaped[:, 0] & shaped[:, 1]).sum()), shaped.size // 2, rate**2)
        if p < least:
            worst, least = lag, p
    said = f"steps {worst} apart are the least independent, of {len(lags)} lags"
    return Finding("steps-independent", said, min(1.0, len(lags) * least))


def _at_least(count: int, trials: int, rate: float) -> float:
    return float(special.betainc(count, trials - count + 1, rate)) if count else 1.0


def _at_most(count: int, trials: int, rate: float) -> float:
    return float(special.betainc(trials - count, count + 1, 1 - rate)) if count < trials else 1.0


def _binomial(count: int, trials: int, rate: float) -> float:
    return _both_sides(_at_most(count, trials, rate), _at_least(count, trials, rate))


def _both_sides(lower: float, upper: float) -> float:
    return min(1.0, 2 * min(lower, upper))
