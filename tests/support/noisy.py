"""Noise of the exact laws from a seeded source, and how often intervals hold."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 4000
LAWS = ("laplace", "rounded", "gaussian")


def draw(law: str, scale: Fraction, shape: Any, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return discrete or rounded Laplace noise of a scale, or discrete Gaussian noise of a variance."""
    if law == "rounded":
        return np.rint(rng.laplace(0, float(scale), shape)).astype(np.int64)
    if law == "laplace":
        out = -math.expm1(-1 / float(scale))
        return rng.geometric(out, shape) - rng.geometric(out, shape)
    reach = math.ceil(12 * math.sqrt(scale)) + 1
    if reach > 10**6:
        return np.rint(rng.normal(0, math.sqrt(scale), shape)).astype(np.int64)
    at = np.arange(-reach, reach + 1)
    sums = np.cumsum(np.exp(-(at**2) / (2 * float(scale))))
    return np.searchsorted(sums / sums[-1], rng.random(shape)) - reach


def scale_of(law: str, spread: float) -> Fraction:
    """Return the parameter of a law with about this standard deviation."""
    return Fraction(spread / math.sqrt(2)) if law != "gaussian" else Fraction(spread) ** 2


def covered(low: NDArray[Any], high: NDArray[Any], truth: float) -> float:
    """Return the share of intervals that hold the truth, give or take what floats lose."""
    slack = 1e-9 * max(1.0, abs(truth))
    return float(((low <= truth + slack) & (truth - slack <= high)).mean())
