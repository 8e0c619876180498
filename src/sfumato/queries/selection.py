"""Groups that nobody knows beforehand: shown where enough privacy units, with noise, are in them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.mechanisms.exact import Kind, Law
from sfumato.queries import laws

#: Digits that probabilities are computed with, and how much of them is given away to be on the safe side.
DIGITS, SLACK = 60, Decimal("1e-24")
#: Up to this deviation Gaussian tails are summed term by term.
SUMMED = 2000
_EXACT = Context(prec=DIGITS)


def threshold(law: Kind, scale: Fraction, groups: int, delta: Fraction) -> int:
    """Return the smallest number t such that groups may be shown whose noisy count of units is t or more.

    >>> threshold("laplace", Fraction(5), groups=5, delta=Fraction(1, 10**6))
    76

    Guarantee: if the noisy counts of all groups together are (epsilon, d)-differentially private where groups
    are public, or rho-zCDP, then shown groups with their counts are (epsilon, d + delta)-private, or
    delta-approximately rho-zCDP: for neighbours that add, remove or replace one unit that counts in at most
    `groups` groups.

    Proof (after Korolova et al. 2009, and Google's "Delta for thresholding", 2020). Let the unit be in D and
    not in D'. At most k = `groups` groups occur in D by this unit alone, each with count 1; all others occur
    in both or in neither. Let E be the event that none of the former is shown: their noises are independent,
    so P(not E) = 1 - (1 - P(X >= t - 1))^k, which is at most delta by the choice of t. Given E, what is shown
    is a function of the noisy counts of groups that occur in both, and so is what is shown of D'. So outputs
    of D given E, and of D', are as close as where groups are public: that is delta-approximate zCDP (Bun and
    Steinke 2016, definition 8.1), and for (epsilon, d), P(D in S) <= P(not E) + P(D in S | E) P(E), and
    P(D' in S) <= delta + (1 - delta) P(D' in S) <= delta + P(E) (e^epsilon P(D in S | E) + d). Replacing a
    unit takes such an event for each of the two tables; a coin cuts both to 1 - delta.

    For what else is told of shown groups the same holds: it is noisy by itself, and adds its own loss.

    Args:
        law, scale: of the noise: the scale of Laplace noise, or the variance of a Gaussian.
        groups: in how many groups a unit counts.
        delta: in 0..1/2, exclusive: what may go wrong.

    Raises:
        InvalidRequest: a number out of its range.
    """
    if groups < 1 or not 0 < delta < Fraction(1, 2):
        raise InvalidRequest(
            f"a threshold needs 1 group or more and a delta in 0..1/2, got {groups} and {float(delta):g}"
        )
    above = tail(law, scale)
    most = _EXACT.divide(Decimal(delta.numerator), Decimal(delta.denominator))

    def private(at: int) -> bool:
        return _EXACT.multiply(_any(above(at - 1), groups), 1 + SLACK) <= most

    low, high = 1, 2
    while not private(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if private(middle) else (middle, high)
    return high


def _any(chance: Decimal, groups: int) -> Decimal:
    """Return the chance that one of `groups` independent events occurs, or a little more."""
    sum_of_all = _EXACT.multiply(chance, groups)
    if sum_of_all < Decimal("1e-25"):
        return sum_of_all  # the power would lose its digits, and differs less than `SLACK` is for
    return _EXACT.subtract(1, _EXACT.power(_EXACT.subtract(1, chance), groups))


def shown(counts: NDArray[np.int64], least: int) -> NDArray[np.int64]:
    """Return the places of noisy counts that reach the threshold.

    >>> shown(np.array([3, 80, 76]), 76)
    array([1, 2])
    """
    return np.flatnonzero(counts >= least)


def units_needed(law: Kind, scale: Fraction, least: int, level: float = 0.95) -> int:
    """Return how many units a group needs so that it is shown with probability `level`.

    >>> units_needed("laplace", Fraction(5), 76)
    87
    """
    return least + laws.interval(law, scale, 2 * level - 1)


def tail(law: Kind, scale: Fraction) -> Callable[[int], Decimal]:
    """Return P(X >= at) as a function of a whole number above 0, to some 55 digits and not rounded down.

    Args:
        law, scale: of X: discrete or rounded Laplace of this scale, or discrete Gaussian of this variance.
    """
    Law(law, scale)  # refuses what is out of range
    value = _EXACT.divide(Decimal(scale.numerator), Decimal(scale.denominator))
    if law != "gaussian":
        return lambda at: _laplace(value, at, rounded=law == "rounded")
    if value <= SUMMED**2:
        return _summed(value)
    return _bounded(value)


def _laplace(scale: Decimal, at: int, *, rounded: bool) -> Decimal:
    """Return exp(-at / scale) / (1 + exp(-1 / scale)); of rounded noise, exp(-(at - 1/2) / scale) / 2."""
    if at <= 0:
        return Decimal(1)
    if rounded:
        half = _EXACT.divide(1 - 2 * at, _EXACT.multiply(2, scale))
        return _EXACT.divide(_EXACT.exp(half), 2)
    below = _EXACT.add(1, _EXACT.exp(_EXACT.divide(-1, scale)))
    return _EXACT.divide(_EXACT.exp(_EXACT.divide(-at, scale)), below)


@functools.lru_cache(maxsize=64)
def _summed(variance: Decimal) -> Callable[[int], Decimal]:
    """Return Gaussian tails as sums of the exact weights, up to where they no longer count."""
    weights = [Decimal(1)]
    # exp(-(k + 1)^2 / 2v) = exp(-k^2 / 2v) q^(2k + 1), with q = exp(-1 / 2v).
    ratio = _EXACT.exp(_EXACT.divide(-1, _EXACT.multiply(2, variance)))
    square, step = _EXACT.multiply(ratio, ratio), ratio
    while weights[-1] > Decimal("1e-110"):
        weights.append(_EXACT.multiply(weights[-1], step))
        step = _EXACT.multiply(step, square)
    tails = [Decimal(0)]
    for weight in reversed(weights):
        tails.append(_EXACT.add(tails[-1], weight))
    tails.reverse()
    whole = _EXACT.subtract(_EXACT.multiply(2, tails[0]), 1)
    # What was left out is below a geometric sum from the last weight on.
    rest = _EXACT.divide(weights[-1], _EXACT.subtract(1, ratio))

    def above(at: int) -> Decimal:
        if at <= 0:
            return Decimal(1)
        return _EXACT.divide(_EXACT.add(tails[at] if at < len(tails) else 0, rest), whole)

    return above


def _bounded(variance: Decimal) -> Callable[[int], Decimal]:
    """Return an upper bound of tails of wide Gaussians.

    The weights are convex beyond one deviation, so each is below their integral over the unit around it;
    together they are at least sigma sqrt(2 pi), by Poisson's sum. So P(X >= at) <= Q((at - 1/2) / sigma): for
    a deviation above `SUMMED` off by less than 1 part in 10,000 where it matters, and never below.
    """
    from scipy import special

    # Rounded up, as a wider law has the heavier tail.
    sigma = float(_EXACT.sqrt(variance)) * (1 + 1e-15)

    def above(at: int) -> Decimal:
        if at - 0.5 <= sigma:
            return Decimal(1)
        log = float(special.log_ndtr(-(at - 0.5) / sigma))
        return _EXACT.multiply(_EXACT.exp(Decimal(log)), Decimal("1.000000001"))

    return above
