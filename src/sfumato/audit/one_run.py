"""How much privacy loss one run must have: the audit of Steinke, Nasr and Jagielski.

Each of m canaries is put into the data by a fair coin of its own. After one run of the mechanism, r of the
coins are guessed and v guesses are right. A mechanism that is (epsilon, delta)-DP lets no guesser be right
too often, so many right guesses refute a small epsilon.

Source: Steinke, Nasr, Jagielski 2023, "Privacy auditing with one (1) training run" (arXiv 2305.08846),
Theorem 5.2 and the remark on its computation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sfumato.core.errors import InvalidRequest

#: Bounds are searched up to here; a claim beyond it protects nobody.
MOST = 60.0
#: The search stops when the bound is known to this much, and returns its lower end.
STEP = 1e-6


def p_value(right: int, guesses: int, canaries: int, *, epsilon: float, delta: float = 0.0) -> float:
    """Return the most probable it can be that an (epsilon, delta)-DP run lets so many guesses be right.

    >>> round(p_value(5, 5, 5, epsilon=0.0), 5)   # fair coins: 2^-5
    0.03125

    Guarantee: for a mechanism that is (epsilon, delta)-DP under add-or-remove-one of a canary, over the
    canaries' fair coins and its own noise, the chance of a value of `p` or less is at most `p`.

    Args:
        right: correct guesses, v.
        guesses: guesses made, r; the rest of the canaries is abstained from.
        canaries: canaries, m, each included by a fair coin.
        epsilon, delta: the claim that is tested.

    Raises:
        InvalidRequest: not 0 <= right <= guesses <= canaries, or no epsilon and delta.

    Source: Steinke, Nasr, Jagielski 2023. With W ~ Binomial(r, 1 / (1 + exp(-epsilon))):
        P[W >= v] + 2 m delta * max over i >= 1 of P[v - i <= W < v] / i.
    """
    check(right, guesses, canaries)
    if not (epsilon >= 0 and 0 <= delta <= 1):
        raise InvalidRequest(f"epsilon is at least 0 and delta lies in 0..1, got {epsilon!r}, {delta!r}")
    if right == 0:
        return 1.0
    rate = float(special.expit(epsilon))
    tail = float(special.betainc(right, guesses - right + 1, rate))
    if delta == 0.0:
        return tail
    counts = np.arange(right - 1, -1, -1)  # v - 1, v - 2, ... 0
    below = np.cumsum(np.exp(_log_binomial(counts, guesses, epsilon)))
    steepest = float(np.max(below / np.arange(1, right + 1)))
    return min(1.0, tail + 2 * canaries * delta * steepest)


def epsilon_lower(
    right: int, guesses: int, canaries: int, *, delta: float = 0.0, confidence: float = 0.95
) -> float:
    """Return an epsilon that the run's true one is not below, with this confidence; 0.0 says nothing.

    >>> 0 < epsilon_lower(90, 100, 100) < 2.2   # 90 of 100: the rate alone would say log(9) = 2.197
    True

    Guarantee: if the run is (epsilon, delta)-DP under add-or-remove-one, the result exceeds epsilon with
    probability at most 1 - confidence, provided that the guesses' number did not depend on the outcome.

    Args:
        right, guesses, canaries: as for `p_value`.
        delta: of the claim.
        confidence: in 0..1.
    """
    alpha = significance(confidence)
    check(right, guesses, canaries)

    def refuted(epsilon: float) -> bool:
        return p_value(right, guesses, canaries, epsilon=epsilon, delta=delta) <= alpha

    return least_not_refuted(refuted)


def ceiling(guesses: int, canaries: int, *, delta: float = 0.0, confidence: float = 0.95) -> float:
    """Return the largest bound that so many guesses can show: all of them right.

    >>> ceiling(10, 10) < ceiling(100, 100) < ceiling(1000, 1000)
    True
    """
    return epsilon_lower(guesses, guesses, canaries, delta=delta, confidence=confidence)


def least_not_refuted(refuted: Callable[[float], bool], most: float = MOST) -> float:
    """Return the lower end of where `refuted` stops to hold, by bisection from 0."""
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < most and refuted(high):
        low, high = high, 2 * high
    while high - low > STEP:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def significance(confidence: float) -> float:
    """Return 1 - confidence.

    Raises:
        InvalidRequest: it does not lie strictly between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise InvalidRequest(f"confidence lies between 0 and 1, as 0.95 does, got {confidence!r}")
    return 1 - confidence


def check(right: int, guesses: int, canaries: int) -> None:
    """Refuse counts that cannot be."""
    if not 0 <= right <= guesses <= canaries:
        raise InvalidRequest(
            f"right guesses, guesses and canaries must rise from 0: got {right}, {guesses}, {canaries}"
        )


def _log_binomial(counts: NDArray[np.int64], trials: int, epsilon: float) -> NDArray[np.float64]:
    """Log of the probabilities of counts at the rate expit(epsilon), finite where that rounds to 1."""
    ways = special.gammaln(trials + 1) - special.gammaln(counts + 1) - special.gammaln(trials - counts + 1)
    log_wrong = -math.log1p(math.exp(epsilon)) if epsilon < 700 else -epsilon
    log_right = -math.log1p(math.exp(-epsilon))
    result: NDArray[np.float64] = ways + counts * log_right + (trials - counts) * log_wrong
    return result
