"""How far sums of independent noises spread: variances, and how much heavier than normal their tails are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sfumato.mechanisms.exact import Kind

Floats = NDArray[np.float64]
Number = TypeVar("Number", float, Floats)

#: 95 % of a normal law lie within this many standard deviations, and of a Laplace law.
NORMAL, LAPLACE = 1.959963985, math.log(20) / math.sqrt(2)


@dataclass(frozen=True, slots=True)
class Spread:
    """Of a sum of independent noises: its variance and its fourth cumulant, which is 0 for normal noise.

    >>> noise = Spread.of("gaussian", Fraction(100))
    >>> (noise + noise).deviation
    14.142135623730951
    """

    variance: float
    fourth: float = 0.0

    @classmethod
    def of(cls, law: Kind, scale: Fraction) -> Spread:
        """Return the spread of one draw; `scale` is that of Laplace noise, or the variance of a Gaussian."""
        if law == "gaussian":
            return cls(float(scale))
        ratio, rest = math.exp(-1 / float(scale)), -math.expm1(-1 / float(scale))
        if law == "laplace":
            # The difference of two geometric numbers.
            return cls(2 * ratio / rest**2, 2 * ratio * (1 + 4 * ratio + ratio**2) / rest**4)
        # Rounded: every number but nought is (1 + ratio) / (2 sqrt(ratio)) times as likely.
        two = (1 + ratio) * math.sqrt(ratio) / rest**2
        return cls(two, two * (1 + 10 * ratio + ratio**2) / rest**2 - 3 * two**2)

    def __add__(self, other: Spread) -> Spread:
        return Spread(self.variance + other.variance, self.fourth + other.fourth)

    def times(self, factor: float, count: float = 1.0) -> Spread:
        """Return that of `count` independent such noises, each taken `factor` times."""
        return Spread(count * factor**2 * self.variance, count * factor**4 * self.fourth)

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return math.sqrt(self.variance)

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % interval."""
        return float(half_width(np.float64(self.variance), np.float64(self.fourth)))


def half_width(variance: Number, fourth: Number) -> Number:
    """Return half the width of a 95 % interval.

    Exact for normal and Laplace noise. Sums of Laplace noises lie between; by their excess kurtosis, what
    this covers is 94.9 to 95.1 % for two or more of them in any proportion (integrated numerically, and
    tested).
    """
    kurtosis = np.clip(fourth / np.maximum(variance, 1e-150) ** 2, 0, 3)
    result: Number = (NORMAL + (LAPLACE - NORMAL) * (kurtosis / 3) ** 0.75) * np.sqrt(variance)
    return result
