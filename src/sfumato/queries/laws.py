"""The laws of the noise: how wide, and how likely to go beyond."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

import numpy as np

Law = Literal["laplace", "gaussian"]


def interval(law: Law, scale: Fraction, level: float = 0.95) -> int:
    """Return the smallest w with P(|X| <= w) >= level."""
    if law == "laplace":
        beta = float(scale)
        # P(|X| > w) = 2 x^(w+1) / (1 + x)
        width = -beta * math.log((1 - level) * (1 + math.exp(-1 / beta)) / 2) - 1
        return max(0, math.ceil(width - 1e-9))
    sigma = math.sqrt(scale)
    if sigma > 1000:
        from scipy import special

        return math.ceil(sigma * float(special.ndtri((1 + level) / 2)) - 0.5)
    at = np.arange(math.ceil(12 * sigma) + 3)
    mass = np.exp(-(at**2) / (2 * float(scale)))
    mass[1:] *= 2
    return int(np.searchsorted(np.cumsum(mass / mass.sum()), level - 1e-12))


def deviation(law: Law, scale: Fraction) -> float:
    """Return the standard deviation."""
    if law == "laplace":
        return math.sqrt(2 * math.exp(-1 / float(scale))) / -math.expm1(-1 / float(scale))
    return math.sqrt(scale)
