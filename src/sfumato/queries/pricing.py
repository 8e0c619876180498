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
from dataclasses import dataclass, replace
from fractions import Fraction

from sfumato.core.accounting import Kind
from sfumato.core.errors import InvalidRequest, PolicyRefused
from sfumato.core.event import ZCDP, ApproxDP, Event, Laplace
from sfumato.core.losses import PLAN_ORDERS, conversion, plan_epsilon
from sfumato.core.numbers import brief, text
from sfumato.mechanisms.exact import Kind as Law
from sfumato.queries import laws
from sfumato.queries.bounded import Measure
from sfumato.queries.model import Terms

#: Digits of a rho: it is rounded down to these.
DIGITS = 6


@functools.lru_cache(maxsize=1024)
def epsilon_of(rho: Fraction, delta: Fraction) -> float:
    """Return the epsilon at `delta` of rho-zCDP, by the tight conversion over the orders that prices go by.

    >>> round(epsilon_of(Fraction(1, 2), Fraction(1, 10**6)), 2)
    5.22
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


@dataclass(frozen=True, slots=True)
class Draw:
    """One array of noisy whole numbers: a measure, at one level of its totals or of its quantile tree.

    Args:
        measure: its number in `Planned.measures`.
        level: how many keys its groups have (rollups), or the level of the tree (bins).
        linf, l1, l2_squared: what one privacy unit can change, in whole numbers.
        scale: of Laplace noise; the variance, of Gaussian.
    """

    measure: int
    level: int
    linf: int
    l1: int
    l2_squared: int
    law: Law
    scale: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """A statement's price, shared equally by its draws."""

    law: Law
    event: Event
    epsilon: Fraction
    delta: Fraction
    rho: Fraction
    selection: Fraction
    count: int

    def scale(self, draw: Draw) -> Fraction:
        """Return the scale of a draw's Laplace noise, or the variance of its Gaussian noise."""
        if self.law == "gaussian":
            return draw.l2_squared * self.count / (2 * self.rho)
        return draw.l1 * self.count / self.epsilon


def price_of(terms: Terms, spread: tuple[Draw, ...], kind: Kind, delta: Fraction, private: bool) -> Price:
    """Return the price of a statement of these draws, with the noise that has the smaller error.

    Args:
        kind, delta: of the share, and the delta that the statement is told at.
        private: groups are chosen privately, which takes its part of delta.

    Raises:
        InvalidRequest: no epsilon above 0. PolicyRefused: groups are chosen privately and no delta pays.
    """
    epsilon, count = terms.epsilon, len(spread)
    assert epsilon is not None
    if epsilon <= 0:
        raise InvalidRequest(f"epsilon must be above 0, got {text(epsilon)}")
    if private and (kind != "sum" or not delta):
        raise PolicyRefused(
            "choosing groups privately takes a delta of its own, and so a share of kind 'sum' that has one, "
            "and --delta, such as 1e-7: declare the groups' values, or such a share",
            rule="populations",
        )
    laplace = Price(
        law="laplace" if private else "rounded",
        event=ApproxDP(epsilon, delta) if private else Laplace(1 / epsilon),
        epsilon=epsilon,
        delta=delta if private else Fraction(0),
        rho=Fraction(0),
        selection=delta if private else Fraction(0),
        count=count,
    )
    if terms.mechanism == "laplace" or (terms.mechanism == "auto" and not delta):
        return laplace
    part = delta / 2 if private else delta  # half for the noise, half for the choice of groups
    try:
        rho = rho_for(epsilon, part)
    except InvalidRequest:
        if terms.mechanism == "gaussian":
            raise
        return laplace  # so small an epsilon that its Gaussian noise has no price
    gaussian = replace(
        laplace,
        law="gaussian",
        event=ApproxDP(epsilon, delta) if private else ZCDP(rho),
        delta=delta,
        rho=rho,
        selection=delta - part if private else Fraction(0),
    )
    if terms.mechanism == "gaussian" or _error(gaussian, spread) < _error(laplace, spread):
        return gaussian
    return laplace


def _error(price: Price, spread: tuple[Draw, ...]) -> float:
    """Return the mean relative width of the noise, over draws."""
    widths = [laws.deviation(price.law, price.scale(draw)) / draw.linf for draw in spread]
    return sum(widths) / len(widths)


def epsilon_for(
    terms: Terms,
    measures: tuple[Measure, ...],
    spread: tuple[Draw, ...],
    kind: Kind,
    delta: Fraction,
    private: bool,
) -> Fraction:
    """Return the least epsilon, to three digits, whose noise keeps all intervals within a target."""
    target = terms.target_error
    if target is None:
        raise InvalidRequest("say what the answer may cost: epsilon, such as 0.5, or a target error")
    if not target > 0:
        raise InvalidRequest(f"the target error must be above 0, got {target}")
    if any(measure.kind in ("squares", "bins") or measure.centred for measure in measures):
        raise InvalidRequest(
            "the error of a mean, variance or quantile depends on how many rows there are, which is not "
            "known beforehand: give epsilon, or ask for counts and sums with a target error"
        )

    price_of(replace(terms, epsilon=Fraction(1)), spread, kind, delta, private)  # what no epsilon mends

    def widest(epsilon: Fraction) -> float:
        try:
            price = price_of(replace(terms, epsilon=epsilon), spread, kind, delta, private)
        except InvalidRequest:  # so small that its Gaussian noise has no price
            return math.inf
        return max(
            laws.interval(price.law, price.scale(draw)) * float(measures[draw.measure].step)
            for draw in spread
        )

    low, high = Fraction(1, 10**6), Fraction(1, 10**6)
    while widest(high) > target:
        low, high = high, high * 4
        if high > 1000:
            raise InvalidRequest(
                f"no epsilon below 1000 keeps the error within {target}: ask for a larger one"
            )
    while high / low > Fraction(1002, 1000):
        middle = Fraction((low + high) / 2).limit_denominator(10**9)
        low, high = (low, middle) if widest(middle) <= target else (middle, high)
    return Fraction(brief(high))
