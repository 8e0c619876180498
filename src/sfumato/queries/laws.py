"""How far discrete noise reaches: intervals, deviations and tails of the laws that are drawn.

For what people read, and for thresholds below which a group stays hidden: figures in float64, and where a
guarantee rests on one (`tail`, `threshold`), rounded to the safe side.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from scipy import special

from sfumato.core.errors import InvalidRequest
from sfumato.mechanisms.exact import Kind, Law

#: Up to this deviation sums are taken term by term; beyond, three terms of Euler and Maclaurin's formula are
#: right to 10^-12.
SUMMED = 1000
#: More than float64 loses in any of the sums here.
SLACK = 1e-9
#: Terms beyond this many deviations are below 10^-300.
REACH = 38


def interval(law: Kind, parameter: Fraction, level: float = 0.95) -> int:
    """Return the smallest w such that P(|X| <= w) is at least `level`.

    >>> interval("laplace", Fraction(10)), interval("gaussian", Fraction(2500))
    (30, 98)

    Args:
        law: "laplace" or "rounded", of scale `parameter`; or "gaussian", of variance `parameter`.
        level: in 0..1, below 1.
    """
    if not 0 <= level < 1:
        raise InvalidRequest(f"the level of an interval must lie in 0..1, below 1, got {level!r}")
    above = _above(Law(law, parameter))
    return _least(lambda w: 2 * above(w + 1) <= 1 - level, 0)


def deviation(law: Kind, parameter: Fraction, draws: int = 1) -> float:
    """Return the standard deviation of a draw, or of the sum of independent ones.

    >>> deviation("gaussian", Fraction(2500)), round(deviation("laplace", Fraction(10), 4), 3)
    (50.0, 28.272)
    """
    checked = Law(law, parameter)
    if law != "gaussian":
        x = float(1 / checked.parameter)
        one = math.exp(-x / 2) * math.sqrt(2) / -math.expm1(-x) if x < 700 else 0.0
        if law == "rounded":  # all but nought weigh cosh(1 / (2 scale)) times as much
            one *= math.sqrt((1 + math.exp(-x)) / (2 * math.exp(-x / 2))) if x < 700 else 1
    elif checked.width > 10:
        one = checked.width  # the difference is below exp(-1900) of it
    else:
        k = np.arange(1, 400.0)
        weights = np.exp(-k * k * float(1 / (2 * checked.parameter)))
        one = math.sqrt(2 * float((k * k * weights).sum()) / (1 + 2 * float(weights.sum())))
    return one * math.sqrt(draws)


def tail(law: Kind, parameter: Fraction, at: int) -> float:
    """Return P(X >= at), rounded up; never 0.

    >>> tail("gaussian", Fraction(100), 60) < 2e-9 < tail("gaussian", Fraction(100), 58)
    True
    """
    above = _above(Law(law, parameter))
    if at <= 0:
        return min(1.0, (1 - above(1 - at)) * (1 + SLACK))
    return above(at) * (1 + SLACK) + 5e-324


def threshold(law: Kind, parameter: Fraction, delta: float) -> int:
    """Return the smallest whole number t at which P(X >= t) is at most `delta`, rounded to the safe side.

    >>> threshold("laplace", Fraction(2), 1e-6)
    27
    """
    if not 0 < delta <= 0.5:
        raise InvalidRequest(f"a probability above 0 and at most 1/2 is needed, got {delta!r}")
    return _least(lambda at: tail(law, parameter, at) <= delta, 1)


def _least(true: Callable[[int], bool], start: int) -> int:
    """Return the smallest whole number from `start` on for which it is true; from there on it stays so."""
    low, step = start, 1
    while not true(low + step - 1):
        low, step = low + step, 2 * step
    high = low + step - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if true(middle) else (middle + 1, high)
    return low


@functools.lru_cache(maxsize=128)
def _above(law: Law) -> Callable[[int], float]:
    """Return P(X >= at) as a function of `at`, which is above 0."""
    inverse = float(1 / law.parameter)
    if law.kind == "laplace":
        return lambda at: math.exp(-at * inverse) / (1 + math.exp(-inverse))
    if law.kind == "rounded":
        return lambda at: math.exp((0.5 - at) * inverse) / 2
    if law.width <= SUMMED:
        k = np.arange(math.ceil(REACH * law.width) + 2, dtype=float)
        own = np.exp(-k * k * (inverse / 2))
        total = 2 * float(own.sum()) - 1

        def summed(at: int) -> float:
            # exp(-(at + k)^2 / 2v), with what all terms have in common taken out.
            terms = own * np.exp(-k * (at * inverse))
            return math.exp(-at * at * (inverse / 2)) * float(terms.sum()) / total

        return summed

    def integrated(at: int) -> float:
        b, root = at - 0.5, math.sqrt(inverse)
        whole = math.sqrt(math.pi / 2) / root * float(special.erfcx(b * root / math.sqrt(2)))
        slope = b * inverse
        whole -= slope / 24 + 7 * (3 * slope * inverse - slope**3) / 5760
        return math.exp(-b * b * (inverse / 2)) * whole * root / math.sqrt(2 * math.pi)

    return integrated
