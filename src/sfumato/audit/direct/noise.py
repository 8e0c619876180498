"""Is the noise what the claim says: deviation, shape, fresh in every step and in every place?

All tests look at the directions of canaries that were not in the data: what is seen there is noise alone.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special

from sfumato.audit.canaries import HUGE, Game
from sfumato.audit.findings import Finding

#: Every pair of so many steps is compared; later ones with their near neighbours only.
COMPARED = 512
#: Lags in steps at which all steps are compared.
LAGS = 32
#: So many values are compared with the normal law, which is enough to see a distance of 0.003.
SHAPED = 2_000_000


def noise(game: Game, noise_multiplier: float, rate: float, *, fresh: bool = True) -> tuple[Finding, ...]:
    """Return what the canaries' directions say of the noise.

    >>> rng = np.random.default_rng(1)
    >>> game = Game(np.arange(500) % 2 == 0, rng.normal(0, 2, (30, 500)))
    >>> min(one.p for one in noise(game, 2.0, 0.1)) > 1e-4
    True

    Args:
        game: of the run; sums in units of the clip bound.
        noise_multiplier: the claim's.
        rate: the chance of a unit to be in a step, the claim's.
        fresh: whether each step's noise should be independent (not so under matrix factorisation).

    Guarantee: for code that keeps its promises each finding's `p` is below x with probability x at most;
    for `noise-within-a-step` by the normal limit of sums over thousands of places.
    """
    outside = np.clip(game.sums[:, ~game.included], -HUGE, HUGE)
    inside = np.clip(game.sums[:, game.included], -HUGE, HUGE)
    scale = float(np.sqrt(np.mean(outside**2))) if outside.size else 0.0
    found = [_deviation(outside, noise_multiplier)]
    if inside.size:  # more noise than was promised is no fault, and must not make a contribution look large
        found.append(_contribution(inside, max(noise_multiplier, scale), rate))
    if scale == 0 or not math.isfinite(scale):
        return tuple(found)  # no noise at all, or no number: nothing else can be said of it
    clean = outside / scale
    found.append(_shape(clean))
    found.append(_within(game, scale))
    if fresh and len(clean) > 1:
        found += _over_steps(clean)
    return tuple(found)


def _deviation(outside: NDArray[np.float64], sigma: float) -> Finding:
    """Too little noise: the sum of squares over sigma^2 is chi-square."""
    count = outside.size
    total = float(np.sum((outside / sigma) ** 2))
    seen = sigma * math.sqrt(total / count) if count else 0.0
    said = f"deviation {seen:.4g} clip bounds, promised {sigma:.4g} or more"
    return Finding("noise-deviation", said, float(special.gammainc(count / 2, total / 2)) if count else 1.0)


def _contribution(inside: NDArray[np.float64], sigma: float, rate: float) -> Finding:
    """Too much of a canary: over all steps and canaries it adds `rate` clip bounds a step on average."""
    mean, count = float(inside.mean()), inside.size
    z = (mean - rate) / math.sqrt((sigma**2 + rate * (1 - rate)) / count)
    said = f"a unit adds {mean / rate:.4g} clip bounds per expected step, promised 1 or less"
    return Finding("contribution", said, float(special.ndtr(-z)))


def _shape(clean: NDArray[np.float64]) -> Finding:
    """Not Gaussian: the largest distance of the distribution from the normal one (Kolmogorov).

    The deviation was estimated from the same numbers, which only makes the distance smaller.
    """
    values = np.sort(special.ndtr(clean.ravel()[:SHAPED]))
    count = len(values)
    steps = np.arange(count + 1) / count
    distance = float(max(np.max(steps[1:] - values), np.max(values - steps[:-1])))
    said = f"distance {distance:.2g} from the normal distribution over {count} values"
    return Finding("noise-shape", said, float(special.kolmogorov(math.sqrt(count) * distance)))


def _over_steps(clean: NDArray[np.float64]) -> list[Finding]:
    """Noise used again: two steps of independent normal noise are nearly orthogonal."""
    steps, places = clean.shape
    found = []
    if places > 2:
        rows = clean[:COMPARED]
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
        cosines = np.abs(np.triu(rows @ rows.T, 1))
        most, pairs = min(float(cosines.max()), 1.0), len(rows) * (len(rows) - 1) // 2
        # the square of the cosine of independent normal vectors is Beta(1/2, (places - 1) / 2), exactly
        p = min(1.0, pairs * float(special.betainc((places - 1) / 2, 0.5, 1 - most**2)))
        first, second = np.unravel_index(int(cosines.argmax()), cosines.shape)
        said = f"steps {first} and {second} are the most alike, cosine {most:.2g}, of {pairs} pairs"
        found.append(Finding("noise-reused", said, p))
    lags = range(1, min(LAGS, steps - 1) + 1)
    zs = [float(np.vdot(clean[:-lag], clean[lag:])) / math.sqrt(places * (steps - lag)) for lag in lags]
    worst = max(range(len(zs)), key=lambda index: abs(zs[index]))
    p = min(1.0, len(zs) * 2 * float(special.ndtr(-abs(zs[worst]))))
    said = f"lag {worst + 1} correlates most, {zs[worst]:.2g} deviations from none, of {len(zs)} lags"
    found.append(Finding("noise-over-steps", said, p))
    return found


def _within(game: Game, scale: float) -> Finding:
    """Noise repeated within a step: correlation at every distance between places, all steps together."""
    mask = (~game.included).astype(np.float64)
    size = fft.next_fast_len(2 * len(mask), real=True)
    power = np.zeros(size // 2 + 1)
    for row in game.sums:
        power += np.abs(fft.rfft(np.clip(row, -HUGE, HUGE) / scale * mask, size)) ** 2
    together = fft.irfft(power, size)[1 : len(mask)]
    pairs = np.round(fft.irfft(np.abs(fft.rfft(mask, size)) ** 2, size)[1 : len(mask)])
    enough = pairs * len(game.sums) >= 1000  # the normal limit needs many terms
    if not enough.any():
        return Finding("noise-within-a-step", "too few places to tell", 1.0)
    zs = np.abs(together[enough]) / np.sqrt(pairs[enough] * len(game.sums))
    worst = int(zs.argmax())
    p = min(1.0, len(zs) * 2 * float(special.ndtr(-zs[worst])))
    distance = int(np.flatnonzero(enough)[worst]) + 1
    said = f"places {distance} apart correlate most, {zs[worst]:.2g} deviations from none"
    return Finding("noise-within-a-step", said, p)
