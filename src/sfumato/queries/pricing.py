"""From an epsilon to noise: how a statement's price is split over its draws, and which noise is the smaller.

Gaussian noise is discrete, and charged as a zCDP event, which is its loss on whole numbers (Canonne, Kamath,
Steinke 2020, arXiv 2004.00010, Theorem 14).

Laplace noise is continuous noise, rounded. On whole numbers that is the continuous mechanism, rounded, so it
loses no more. Draws that differ in all by epsilon of their scales are charged as one draw that differs by
epsilon: the Renyi loss of a Laplace draw as a function of how many scales neighbours differ is the logarithm
of a sum of exponentials, so it is convex, and 0 at 0, so that losses of parts add up to no more than that of
their sum. Where groups are chosen privately noise is discrete and charged as (epsilon, delta).
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

from sfumato.core.accounting import Kind
from sfumato.core.errors import InvalidRequest
from sfumato.core.event import ZCDP
from sfumato.core.losses import PLAN_ORDERS, conversion, plan_epsilon
from sfumato.core.numbers import text

#: Digits of a rho: it is rounded down to these.
DIGITS = 6


@functools.lru_cache(maxsize=1024)
def epsilon_of(rho: Fraction, delta: Fraction) -> float:
    """Return the epsilon at `delta` of rho-zCDP, by the tight conversion over the orders that prices go by.

    >>> round(epsilon_of(Fraction(1, 2), Fraction(1, 10**6)), 2)
    5.24
    """
    return min(float(rho) * order + conversion(order, delta) for order in PLAN_ORDERS)


@functools.lru_cache(maxsize=1024)
def rho_for(epsilon: Fraction, delta: Fraction) -> Fraction:
    """Return the largest rho, to six digits, whose zCDP costs at most `epsilon` at `delta`.

    Raises:
        InvalidRequest: no rho does, as where delta is 0.
    """
    if not delta or not epsilon:
        raise InvalidRequest(
            f"Gaussian noise needs epsilon and delta above 0, got {text(epsilon)} and {text(delta)}: use "
            "Laplace noise, or a share with a delta"
        )
    low, high = 1e-12, 1e6
    if epsilon_of(Fraction(low), delta) > epsilon:
        raise InvalidRequest(f"no Gaussian noise is enough for epsilon {text(epsilon)}: ask for more")
    while high / low > 1 + 1e-8:
        middle = math.sqrt(low * high)
        if epsilon_of(Fraction(middle), delta) <= epsilon:
            low = middle
        else:
            high = middle
    unit = Fraction(10) ** (math.floor(math.log10(low)) + 1 - DIGITS)
    rho = math.floor(Fraction(low) / unit) * unit
    # The search is in floats; the price that is charged is the ledger's own.
    while plan_epsilon(ZCDP(rho), delta) > epsilon:
        rho -= unit
    return rho


def default_delta(kind: Kind, share_delta: Fraction, asked: Fraction | None) -> Fraction:
    """Return the delta that a statement's (epsilon, delta) is told at.

    In a filter it is the share's: nothing of it is used up. In a share of kind `sum` it is taken, and so has
    to be asked for.
    """
    if asked is not None:
        return asked
    return share_delta if kind == "filter" else Fraction(0)
