"""The one-run audit in its f-DP form: a whole trade-off curve is tested, not one (epsilon, delta).

Where a canary's coin is flipped, a right guess becomes a wrong one. So for every set of counts, the chance of
being right at a random canary is at most f-bar of the chance of being wrong there with one right guess less;
f-bar(x) = 1 - f(x) is what the trade-off curve f allows. Written for "at least i right" for each i, these
bind the whole distribution of the number of right guesses, and with it the chance of a large one.

Source: Mahloujifar, Melis, Chaudhuri 2024, "Auditing f-differential privacy in one run" (arXiv 2410.22235).
Trade-off curves: Dong, Roth, Su 2019 (arXiv 1905.02383).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sfumato.audit.one_run import check, least_not_refuted, significance
from sfumato.core.errors import InvalidRequest

#: p-values below this are reported as this.
LEAST = 1e-18


class Tradeoff(Protocol):
    """A symmetric trade-off curve, by the inverse of x -> 1 - f(x)."""

    def needed(self, right: float) -> float:
        """Return the least chance of an event on one side that allows `right` on the other side, in 0..1."""
        ...


@dataclass(frozen=True, slots=True)
class Gaussian:
    """mu-GDP: as hard to tell apart as N(0, 1) and N(mu, 1).

    >>> round(Gaussian(0.0).needed(0.3), 6)   # nothing can be told: both sides alike
    0.3
    """

    mu: float

    def needed(self, right: float) -> float:
        """Return Phi(Phi^-1(right) - mu)."""
        return float(special.ndtr(special.ndtri(right) - self.mu))


class Curve:
    """The trade-off curve of a privacy curve: delta as a function of epsilon, in both directions.

    >>> pure = Curve([1.0], [0.0])               # (1, 0)-DP
    >>> round(pure.needed(0.5), 6) == round(max(0.5 * math.exp(-1), 1 - 0.5 * math.exp(1)), 6)
    True

    Args:
        epsilons: each at least 0.
        deltas: the mechanism is (epsilon, delta)-DP for each pair, in both directions.
    """

    def __init__(self, epsilons: Sequence[float], deltas: Sequence[float]) -> None:
        epsilon, delta = np.asarray(epsilons, float), np.asarray(deltas, float)
        if epsilon.shape != delta.shape or not epsilon.size or (epsilon < 0).any() or (delta < 0).any():
            raise InvalidRequest("a privacy curve is pairs of epsilon >= 0 and delta >= 0, and at least one")
        # right <= delta + e^eps x, and, from the other direction, 1 - x <= delta + e^eps (1 - right): lines
        # below x, of which the highest counts. x >= right is never more than they ask: f is at most 1 - x.
        slopes = np.concatenate([np.exp(-epsilon), np.exp(epsilon)])
        offsets = np.concatenate([-delta * np.exp(-epsilon), 1 - delta - np.exp(epsilon)])
        self._breaks, self._slopes, self._offsets = _envelope(slopes, offsets)

    def needed(self, right: float) -> float:
        """Return the least chance on the other side, in 0..1."""
        index = bisect.bisect_left(self._breaks, right)
        return min(1.0, max(0.0, self._slopes[index] * right + self._offsets[index]))


def p_value(right: int, guesses: int, canaries: int, tradeoff: Tradeoff) -> float:
    """Return a bound on the chance that a run with this trade-off curve lets so many guesses be right.

    >>> p_value(50, 100, 100, Gaussian(1.0)) > 0.5
    True

    Guarantee: as for `one_run.p_value`, for a mechanism whose trade-off curve between a data set and the one
    with a canary added or removed is nowhere below `tradeoff`, in both directions.

    Args:
        right, guesses, canaries: as for `one_run.p_value`.
        tradeoff: the claim that is tested.
    """
    check(right, guesses, canaries)
    if not _refuted(right, guesses, canaries, tradeoff, 1.0):
        return 1.0
    low, high = (
        math.log(LEAST),
        0.0,
    )  # the recursion says of a tail that it cannot be; the p-value is the least
    while high - low > 1e-3:
        middle = (low + high) / 2
        if _refuted(right, guesses, canaries, tradeoff, math.exp(middle)):
            high = middle
        else:
            low = middle
    return math.exp(high)


def refuted(right: int, guesses: int, canaries: int, tradeoff: Tradeoff, confidence: float = 0.95) -> bool:
    """Return whether so many right guesses refute a trade-off curve with this confidence."""
    check(right, guesses, canaries)
    return _refuted(right, guesses, canaries, tradeoff, significance(confidence))


def mu_lower(right: int, guesses: int, canaries: int, *, confidence: float = 0.95) -> float:
    """Return a mu that the run's true one is not below, with this confidence, if the run is mu-GDP at all.

    >>> 0.5 < mu_lower(900, 1000, 1000) < 2.6
    True
    """
    return least_not_refuted(
        lambda mu: refuted(right, guesses, canaries, Gaussian(mu), confidence), most=40.0
    )


def epsilon_of(mu: float, delta: float) -> float:
    """Return the epsilon at `delta` of a mu-GDP mechanism (Dong, Roth, Su 2019, Corollary 1).

    >>> epsilon_of(0.0, 1e-5), round(epsilon_of(1.0, 1e-5), 3)
    (0.0, 4.377)
    """
    if not 0 < delta < 1 or not mu >= 0:
        raise InvalidRequest(f"mu is at least 0 and delta lies between 0 and 1, got {mu!r}, {delta!r}")
    if mu == 0 or delta_of(mu, 0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while delta_of(mu, high) > delta:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(mu, middle) > delta else (low, middle)
    return low


def delta_of(mu: float, epsilon: float) -> float:
    """Return the delta at `epsilon` of a mu-GDP mechanism."""
    shift = epsilon / mu
    second = epsilon + float(special.log_ndtr(-shift - mu / 2))  # in logarithms: exp(epsilon) may overflow
    return float(special.ndtr(-shift + mu / 2)) - math.exp(second)


def _refuted(right: int, guesses: int, canaries: int, tradeoff: Tradeoff, tail: float) -> bool:
    """Return whether a chance of `tail` for `right` or more right guesses cannot be under the curve.

    From the top down: `most` is the chance, over a random canary, to be right with at least i right in all,
    `wrong` to be wrong then. The curve asks for at least so much `wrong` at i as `most` at i + 1 needs; what
    is thereby added to `wrong` comes from runs with exactly i right, which add i / (guesses - i) times as
    much to `most`. All runs together must not need more than there are: guesses / canaries.
    """
    most, wrong = tail * right / canaries, tail * (guesses - right) / canaries
    whole, needed = guesses / canaries, tradeoff.needed
    for count in range(right - 1, -1, -1):
        more = needed(most) - wrong
        if more > 0:
            wrong += more
            most += more * count / (guesses - count)
        if most + wrong > whole:  # it only grows from here
            return True
    return most + wrong >= whole and right > 0


def _envelope(
    slopes: NDArray[np.float64], offsets: NDArray[np.float64]
) -> tuple[list[float], list[float], list[float]]:
    """Return the upper envelope of lines: where one takes over from the one before, and the lines."""
    order = np.lexsort((offsets, slopes))
    lines: list[tuple[float, float]] = []
    starts: list[float] = []
    for slope, offset in zip(slopes[order].tolist(), offsets[order].tolist(), strict=True):
        while lines:
            if slope == lines[-1][0]:
                crossing = -math.inf  # sorted by offset too: the later line lies above
            else:
                crossing = (lines[-1][1] - offset) / (slope - lines[-1][0])
            if crossing > starts[-1]:
                break
            lines.pop()
            starts.pop()
        starts.append(-math.inf if not lines else crossing)
        lines.append((slope, offset))
    return starts[1:], [line[0] for line in lines], [line[1] for line in lines]
