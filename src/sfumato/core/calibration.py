"""From a target (epsilon, delta) to the noise multiplier of a plan, and how much of it is spent on the way.

The search runs on dp-accounting's composed distributions, and ends with the very price that the ledger will
charge (`losses.plan_epsilon`, or a filter's thresholds): what is returned never costs more than was asked.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from sfumato.core.accounting import Share
from sfumato.core.errors import InvalidRequest
from sfumato.core.event import MAX_TIMES, Event, Gaussian, PoissonSampled, Repeated, probability
from sfumato.core.losses import (
    ADD_OR_REMOVE,
    PLAN_ORDERS,
    PLD_MOST,
    REPLACE,
    UNBOUNDED,
    UNIT,
    conversion,
    plan_epsilon,
    renyi_loss,
    tight_epsilon,
    widest,
)
from sfumato.core.numbers import LIMIT, Amount, ceil_to, rational

#: Digits of a noise multiplier: it is rounded up to these, which costs less than a 10,000th of epsilon.
DIGITS = 5
#: How close the search comes before it rounds up.
CLOSE = 2e-5
#: Orders for a first guess, which only has to be on the safe side.
FEW_ORDERS = (2.0, 3.0, 5.0, 9.0, 17.0, 33.0, 65.0, 257.0, 1025.0)


def training_event(noise_multiplier: Amount, rate: Amount, steps: int) -> Event:
    """Return the event of a training run: so many Gaussian steps, each on a Poisson sample.

    >>> training_event("1.1", "0.01", 1000).to_data()["times"]
    1000
    """
    share = probability(rate, "rate")
    step: Event = Gaussian(noise_multiplier)
    return Repeated(step if share == 1 else PoissonSampled(share, step), steps)


def noise_multiplier_for(
    *,
    epsilon: Amount,
    delta: Amount,
    rate: Amount,
    steps: int,
    relation: str = ADD_OR_REMOVE,
    by: Literal["pld", "renyi"] = "pld",
) -> Fraction:
    """Return the least noise multiplier, to five digits, whose run costs at most `epsilon` at `delta`.

    >>> round(float(noise_multiplier_for(epsilon=3, delta="1e-5", rate="0.137", steps=292)), 2)
    3.41

    Args:
        rate: probability with which each privacy unit is in a step.
        by: "pld": as a share of kind `sum` charges it; "renyi": as a filter of this (epsilon, delta) does.

    Raises:
        InvalidRequest: an argument out of range, or no noise is enough.
    """
    target, part, share = rational(epsilon, name="epsilon"), probability(delta, "delta"), _rate(rate)
    if target == 0 or part == 0:
        raise InvalidRequest(
            f"Gaussian noise needs epsilon and delta above 0, got {epsilon!r} and {delta!r}: a delta of 1e-5 "
            "is usual, and it should be far below one over the number of people"
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MAX_TIMES:
        raise InvalidRequest(f"steps must be a whole number of 1..{MAX_TIMES}, got {steps!r}")
    if relation == REPLACE and share < 1:
        raise InvalidRequest(f"Poisson sampling is accounted for under {ADD_OR_REMOVE!r} only")
    return _calibrated(target, part, share, steps, relation, by)


@functools.lru_cache(maxsize=64)
def _calibrated(
    target: Fraction, delta: Fraction, rate: Fraction, steps: int, relation: str, by: str
) -> Fraction:
    if by == "renyi":
        whole = Share.new("filter", target, delta, relation)

        def fits(sigma: Fraction) -> bool:
            return whole.fits(whole.charge(training_event(sigma, rate, steps)))

        return _up_until(fits, _bisected(fits))
    # Every width gives an upper bound; this one is within 0.5 % at the target.
    width = widest(float(target), steps)

    def price(sigma: float) -> float:
        return tight_epsilon(width, training_event(Fraction(sigma), rate, steps), delta, relation)

    def roughly(sigma: Fraction) -> bool:
        event = training_event(sigma, rate, steps)
        return Spending(event, delta, relation, orders=FEW_ORDERS).after(steps) <= target

    def charged(sigma: Fraction) -> bool:
        return plan_epsilon(training_event(sigma, rate, steps), delta, relation) <= target

    start = _bisected(roughly, 1.01)
    if target <= PLD_MOST:
        start = _solved(price, float(target), start)
    return _up_until(charged, start)


def _solved(price: Callable[[float], float], target: float, high: float) -> float:
    """Return where a falling price meets a target, by the secant on logarithms, from above."""
    below = price(high)
    low, above = high, below
    while above <= target:
        if low < 2.0**-12:
            return low
        high, below, low = low, above, low * 0.8
        above = price(low)
    while high / low > 1 + CLOSE:
        slope = math.log(above / below) if below > 0 else 0.0
        share = math.log(above / target) / slope if slope > 0 else 0.5
        middle = low * (high / low) ** min(max(share, 0.02), 0.98)
        # A little to both sides of the guess, so that both ends close in on a straight line.
        for guess in (middle * (1 + CLOSE / 3), middle * (1 - CLOSE / 3)):
            if low < guess < high:
                found = price(guess)
                if found > target:
                    low, above = guess, found
                else:
                    high, below = guess, found
    return high


def _bisected(fits: Callable[[Fraction], bool], close: float = 1 + CLOSE) -> float:
    high = 1.0
    while not fits(Fraction(high)):
        high *= 2
        if high > LIMIT:
            raise InvalidRequest(
                "no noise is enough for this epsilon, delta and number of steps: ask for more"
            )
    low = high / 2
    while low > 2.0**-10 and fits(Fraction(low)):
        low, high = low / 2, low
    while high / low > close:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(Fraction(middle)) else (middle, high)
    return high


def _up_until(fits: Callable[[Fraction], bool], start: float) -> Fraction:
    """Round up to a few digits, and go on up until what will be charged fits."""
    places = DIGITS - 1 - math.floor(math.log10(start))
    unit = Fraction(10) ** -places
    sigma = math.ceil(Fraction(start) / unit) * unit
    for step in (0, 1, 2, 4, 8, 16, 32, 64, 128, 256):
        if fits(sigma + step * unit):
            return sigma + step * unit
    raise InvalidRequest("no noise multiplier was found for this epsilon, delta and number of steps")


def _rate(rate: Amount) -> Fraction:
    share = probability(rate, "rate")
    if share == 0:
        raise InvalidRequest("a rate of 0 samples nobody: a step needs a rate above 0")
    return share


@dataclass(frozen=True)
class Spending:
    """How much of a plan is spent after some of its steps: quick, an upper bound, for people to look at.

    It goes by Rényi losses, which add up step by step, and is above the distributions that price a whole plan
    (by a tenth or so at the end, more at the start); so it is cut off at that price, where that is known. It
    decides nothing.

    >>> spending = Spending(training_event("1.1", "0.01", 1000), Fraction(1, 10**5))
    >>> spending.after(0), spending.after(10) < spending.after(1000)
    (Fraction(0, 1), True)

    Args:
        event: of the whole plan; steps are repetitions of its inner event.
        most: what the whole plan costs, if that is known.
        orders: of Rényi; fewer are quicker and give a larger bound.
    """

    event: Event
    delta: Fraction
    relation: str = ADD_OR_REMOVE
    most: Fraction | None = None
    orders: tuple[float, ...] = PLAN_ORDERS

    @functools.cached_property
    def _step(self) -> tuple[int, ...]:
        inner = self.event.event if isinstance(self.event, Repeated) else self.event
        return renyi_loss(inner, self.orders, self.relation)

    @functools.cached_property
    def _added(self) -> tuple[float, ...]:
        return tuple(conversion(order, self.delta) for order in self.orders)

    def after(self, steps: int) -> Fraction:
        """Return the epsilon at `delta` of the first `steps` steps, rounded up."""
        if steps <= 0:
            return Fraction(0)
        best = min(
            (
                steps * units / UNIT + added
                for units, added in zip(self._step, self._added, strict=True)
                if units < UNBOUNDED
            ),
            default=math.inf,
        )
        spent = ceil_to(best)
        return spent if self.most is None else min(spent, self.most)
