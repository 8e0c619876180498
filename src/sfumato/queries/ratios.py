"""Means and variances from noisy sums, with intervals that hold for small groups too.

A ratio of two noisy numbers has no standard error worth the name where the lower one may be 0. Fieller's way
(1954) needs none: for the true ratio t, S - t N is noise alone, of a known law; the interval is every t for
which that noise is not too large. Where the noisy N may as well be 0, every t is possible: the figure is
missing, and its interval is all that the bounds allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from sfumato.queries.spread import LAPLACE, NORMAL, Floats, Spread, half_width

#: Variances are told where there are this many times more rows than the noise on them: below it, what the
#: mean is off by would count as spread.
CLEAR = 10.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One aggregate in all cells; NaN is missing.

    Args:
        value, error, low, high: (cells,) float64: figure, standard error, ends of its 95 % interval.
    """

    value: Floats
    error: Floats
    low: Floats
    high: Floats

    def on_grid(self, step: Fraction, centre: int = 0) -> Figures:
        """Return figures that were counted in steps from a centre in units of the values."""
        # Whole numbers stay exact up to the one division, so that 7 steps of 1/10 are 0.7.
        up, down = float(step.numerator), float(step.denominator)
        value, low, high = ((one + centre) * up / down for one in (self.value, self.low, self.high))
        return Figures(value, self.error * up / down, low, high)


def mean(sums: Floats, rows: Floats, noise: tuple[Spread, Spread], bounds: tuple[float, float]) -> Figures:
    """Return sums / rows.

    Guarantee: the interval covers the true ratio in 95 % of draws, however few rows there are; more often
    where it is all of `bounds`.

    Args:
        sums, rows: (cells,), noisy.
        noise: of the two; independent.
        bounds: of the true mean.
    """
    of_sums, of_rows = noise
    low, high, clear = _fieller(sums, rows, of_sums.variance, of_sums.fourth, of_rows, *bounds)
    value = np.clip(sums / np.where(clear, rows, 1.0), *bounds)
    error = np.sqrt(of_sums.variance + value**2 * of_rows.variance) / np.where(clear, rows, 1.0)
    return _known(value, error, low, high, clear, bounds)


def variance(
    squares: Floats,
    sums: Floats,
    rows: Floats,
    noise: tuple[Spread, Spread, Spread],
    bounds: tuple[float, float],
) -> Figures:
    """Return the variance of values in `bounds`, from noisy sums of squares, of values, and of ones.

    With m = sums / rows, squares - 2 m sums + m^2 rows - v rows is noise alone for the true variance v, and
    is level in m at the true mean: so the noisy m does, and v + m^2 is a ratio as above.

    Guarantee: the interval covers the true variance in 94 to 96 % of draws, however few rows there are; more
    often where it is all that the bounds allow.
    """
    of_squares, of_sums, of_rows = noise
    enough = rows > CLEAR * of_rows.deviation
    safe = np.where(enough, rows, 1.0)
    m = np.clip(sums / safe, *bounds)
    most = ((bounds[1] - bounds[0]) / 2) ** 2
    # The square of a noisy sum is too large by the variance of its noise.
    slack = of_sums.variance + m**2 * of_rows.variance
    spread = squares - (sums**2 - of_sums.variance - m**2 * of_rows.variance) / safe
    numerator = spread - m**2 * rows
    # Near a bound the noisy mean is cut off on one side: half its own deviation makes up for that.
    lean = np.minimum(abs(m) + np.sqrt(slack) / safe / 2, max(abs(bounds[0]), abs(bounds[1])))
    doubt = of_squares.variance + 4 * lean**2 * of_sums.variance + 2 * (slack / safe) ** 2
    fourth = of_squares.fourth + 16 * lean**4 * of_sums.fourth
    low, high, clear = _fieller(numerator, rows, doubt, fourth, of_rows, -(m**2), most - m**2)
    clear = clear & enough
    value = np.clip(spread / safe, 0, most)
    error = np.sqrt(doubt + (value - m**2) ** 2 * of_rows.variance) / safe
    return _known(value, error, low + m**2, high + m**2, clear, (0.0, most))


def root(figures: Figures) -> Figures:
    """Return standard deviations of variances; the error by its first derivative, missing at 0."""
    value = np.sqrt(figures.value)
    error = np.divide(figures.error, 2 * value, out=np.full_like(value, np.nan), where=value > 0)
    return Figures(value, error, np.sqrt(figures.low), np.sqrt(figures.high))


def _known(
    value: Floats,
    error: Floats,
    low: Floats,
    high: Floats,
    clear: NDArray[np.bool_],
    bounds: tuple[float, float],
) -> Figures:
    """Leave out what noise alone could have made."""
    return Figures(
        np.where(clear, value, np.nan),
        np.where(clear, error, np.nan),
        np.where(clear, low, bounds[0]),
        np.where(clear, high, bounds[1]),
    )


def _fieller(
    above: Floats,
    below: Floats,
    variance: float | Floats,
    fourth: float | Floats,
    noise: Spread,
    least: float | Floats,
    most: float | Floats,
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return the ends of the set of ratios, and where it has ends."""
    tail = LAPLACE if noise.fourth else NORMAL
    clear = below > tail * noise.deviation
    safe = np.where(clear, below, 2 * tail * noise.deviation + 1)
    ends = []
    for side in (-1.0, 1.0):
        end = above / safe
        # The tails of the noise depend on the ratio a little: a few rounds settle it.
        for _ in range(6):
            total = np.maximum(variance + end**2 * noise.variance, 1e-150)
            z = half_width(total, fourth + end**4 * noise.fourth) / np.sqrt(total)
            lead = safe**2 - z**2 * noise.variance
            root = np.sqrt(np.maximum(noise.variance * above**2 + variance * lead, 0))
            end = (above * safe + side * z * root) / lead
        ends.append(np.clip(end, least, most))
    return ends[0], ends[1], clear
