"""Shares of a budget, and whether the next release still fits.

A population's (epsilon, delta) is split into shares that simply add up. Inside a share the accounting is one
of two kinds:

- `filter`: releases may be chosen after seeing the ones before. Rényi losses are added at a fixed grid of
  orders; every order has its own threshold, fixed when the share is opened, and a release fits while at
  least one order stays within its threshold. The thresholds use up parts of delta that add up to delta.
- `sum`: each release pays (epsilon_i, delta_i), and these add up; a plan fixed whole in advance (one
  training run) pays the tight epsilon of its composed privacy loss distribution.

The argument, its conditions and its sources: docs/guarantees/composition.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

from sfumato.core.errors import InvalidRequest
from sfumato.core.event import ZCDP, ApproxDP, Event, Gaussian, Laplace, PureDP, Repeated, probability
from sfumato.core.losses import (
    ADD_OR_REMOVE,
    RELATIONS,
    UNIT,
    conversion,
    grid_of,
    plan_epsilon,
    pure_loss,
    renyi_loss,
    rough_epsilon,
)
from sfumato.core.numbers import LIMIT, Amount, brief, rational, spelled, text

Kind = Literal["filter", "sum"]
KINDS: tuple[Kind, ...] = ("filter", "sum")

#: Fixed Rényi orders beside the main one and infinity. Few: each uses up a part of delta.
SIDE_ORDERS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 256.0)
#: The part of delta that the main order gets; the side orders split the rest evenly.
MAIN_PART = Fraction(99, 100)
#: Exact sums keep their common denominator up to this size; later amounts are rounded up to 10^-18 first.
DENOMINATOR_BITS = 4096
GRID = 10**18


@dataclass(frozen=True, slots=True)
class Totals:
    """What a share has been charged so far (or what one release adds): exact.

    Args:
        epsilon: sum of pure losses (kind `filter`: at order infinity), or of epsilons (kind `sum`).
        delta: sum of deltas (kind `sum` only).
        renyi: per order of the share, in units of 2^-60 (kind `filter` only).
    """

    epsilon: Fraction
    delta: Fraction
    renyi: tuple[int, ...] = ()

    def plus(self, other: Totals) -> Totals:
        """Return the sum."""
        return Totals(
            _add(self.epsilon, other.epsilon),
            _add(self.delta, other.delta),
            tuple(a + b for a, b in zip(self.renyi, other.renyi, strict=True)),
        )

    def minus(self, other: Totals) -> Totals:
        """Return what is left when a charge that was added before is taken away."""
        return Totals(
            self.epsilon - other.epsilon,
            self.delta - other.delta,
            tuple(a - b for a, b in zip(self.renyi, other.renyi, strict=True)),
        )

    def within(self, other: Totals) -> bool:
        """Whether no component is larger than that of `other`."""
        return (
            self.epsilon <= other.epsilon
            and self.delta <= other.delta
            and all(a <= b for a, b in zip(self.renyi, other.renyi, strict=True))
        )

    def to_data(self) -> dict[str, Any]:
        """Return plain data for the ledger; integers as text, so that any JSON reader keeps them exact."""
        return {
            "epsilon": text(self.epsilon),
            "delta": text(self.delta),
            "renyi": [str(value) for value in self.renyi],
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Totals:
        """Read totals back from the ledger."""
        return cls(spelled(data["epsilon"]), spelled(data["delta"]), tuple(map(int, data["renyi"])))


def _add(total: Fraction, amount: Fraction) -> Fraction:
    exact = total + amount
    if exact.denominator.bit_length() <= DENOMINATOR_BITS:
        return exact
    return total + _on_grid(amount)


def _on_grid(amount: Fraction) -> Fraction:
    """Round up to a multiple of 10^-18."""
    return Fraction(math.ceil(amount * GRID), GRID)


@dataclass(frozen=True, slots=True)
class Share:
    """A part (epsilon, delta) of a population's budget, with its kind of accounting, fixed once opened.

    >>> share = Share.new("filter", 1, "1e-6")
    >>> share.fits(share.charge(Gaussian(50)))
    True

    Args:
        orders: Rényi orders (kind `filter` with delta above 0).
        thresholds: per order, the most that may be charged, in units of 2^-60, rounded down.
    """

    kind: Kind
    epsilon: Fraction
    delta: Fraction
    relation: str = ADD_OR_REMOVE
    orders: tuple[float, ...] = ()
    thresholds: tuple[int, ...] = ()

    @classmethod
    def new(cls, kind: Kind, epsilon: Amount, delta: Amount, relation: str = ADD_OR_REMOVE) -> Share:
        """Open a share; for a filter, choose its orders and thresholds from (epsilon, delta) alone."""
        if kind not in KINDS:
            raise InvalidRequest(f"a share's kind must be one of {', '.join(KINDS)}, got {kind!r}")
        if relation not in RELATIONS:
            raise InvalidRequest(f"the neighbouring relation must be one of {RELATIONS}, got {relation!r}")
        share = cls(kind, rational(epsilon, name="epsilon"), probability(delta, "delta"), relation)
        if kind == "sum" or not share.delta:
            return share
        main = _main_order(share.epsilon, share.delta)
        side = tuple(order for order in SIDE_ORDERS if order != main)
        parts = (MAIN_PART, *((1 - MAIN_PART) / len(side) for _ in side))
        orders = (main, *side)
        limits = tuple(
            threshold(share.epsilon, order, share.delta * part)
            for order, part in zip(orders, parts, strict=True)
        )
        return replace(share, orders=orders, thresholds=limits)

    def nothing(self) -> Totals:
        """Return the totals of a share to which nothing has been charged."""
        return Totals(Fraction(0), Fraction(0), (0,) * len(self.orders))

    def charge(self, event: Event, delta: Amount = 0) -> Totals:
        """Return what a release of `event` costs in this share.

        Args:
            delta: kind `sum`: the part of the share's delta that this release takes.

        Raises:
            InvalidRequest: the event has no loss of this kind.
        """
        part = probability(delta, "delta")
        if self.kind == "sum":
            return Totals(_bounded(plan_epsilon(event, part, self.relation)), part)
        if part:
            raise InvalidRequest(
                f"a release in a share of kind 'filter' takes no delta of its own, got {text(part)}; "
                "leave delta out, or use a share of kind 'sum'"
            )
        pure = _bounded(pure_loss(event))
        if not self.orders:
            return Totals(pure, Fraction(0))
        return Totals(pure, Fraction(0), renyi_loss(event, self.orders, self.relation))

    def settlement(self, reserved: Event, actual: Event, delta: Amount = 0) -> Totals:
        """Return what a release that was reserved as one event and took place as another costs in the end.

        The stop may have depended on what was seen. A filter adds Rényi losses step by step, so the charge
        of what took place is right as it is. In a share of kind `sum` the plan's delta is used up by the
        runs that go on to the end, so a run that stops keeps its whole price, unless it comes to less by
        losses that hold with certainty (pure ones, which need no delta).

        Raises:
            InvalidRequest: `actual` costs more than `reserved`.
        """
        before = self.charge(reserved, delta)
        if self.kind == "sum" and probability(delta, "delta"):
            # On the cells of the reservation: on wider ones a step less could seem to cost more.
            part = probability(delta, "delta")
            cells = grid_of(reserved, part, self.relation)
            after = Totals(_bounded(plan_epsilon(actual, part, self.relation, cells)), part)
        else:
            after = self.charge(actual, delta)
        if not after.within(before):
            raise InvalidRequest(
                f"a release may settle to less, never to more: what took place costs epsilon "
                f"{brief(after.epsilon)}, and {brief(before.epsilon)} was reserved"
            )
        if self.kind == "filter" or actual == reserved:
            return after
        return Totals(min(before.epsilon, pure_loss(actual)), before.delta)

    def fits(self, totals: Totals) -> bool:
        """Whether these totals are within the share."""
        if self.kind == "sum":
            return totals.epsilon <= self.epsilon and totals.delta <= self.delta
        if totals.epsilon <= self.epsilon:  # order infinity: pure composition, needs no delta
            return True
        return any(value <= limit for value, limit in zip(totals.renyi, self.thresholds, strict=True))

    def spent(self, totals: Totals) -> tuple[Fraction, Fraction]:
        """Return the (epsilon, delta) that these totals amount to, rounded up."""
        if self.kind == "sum":
            return totals.epsilon, totals.delta
        best, delta = totals.epsilon, Fraction(0)
        for value, limit in zip(totals.renyi, self.thresholds, strict=True):
            at_order = self.epsilon + Fraction(value - limit, UNIT)
            if at_order < best:
                best, delta = max(at_order, Fraction(0)), self.delta
        return best, delta

    def largest(self, event: Event, before: Totals, delta: Fraction = Fraction(0)) -> str:
        """Return, for people, the largest request of the same form that would fit after `before`."""

        def fits(candidate: Event) -> bool:
            if self.kind == "filter":
                return self.fits(before.plus(self.charge(candidate, delta)))
            # The tight price takes seconds each; the rough one is never below it, so what fits it fits.
            price = pure_loss(candidate)
            if delta:
                price = min(price, rough_epsilon(candidate, delta, self.relation))
            return self.fits(before.plus(Totals(_bounded(price), delta)))

        def fits_sum(epsilon: Fraction) -> bool:
            return self.fits(before.plus(Totals(_bounded(epsilon), delta)))

        match event:
            case Gaussian(noise_multiplier=start):
                found = _least(lambda value: fits(Gaussian(value)), start)
                return f"Gaussian, noise multiplier at least {brief(found)}" if found else "none"
            case Laplace(noise_multiplier=start):
                found = _least(lambda value: fits(Laplace(value)), start)
                return f"Laplace, noise multiplier at least {brief(found)}" if found else "none"
            case PureDP(epsilon=start):
                most = _most(lambda value: fits(PureDP(value)), start)
                return f"epsilon {brief(most, up=False)}" if most else "none"
            case ZCDP(rho=start):
                most = _most(lambda value: fits(ZCDP(value)), start)
                return f"rho {brief(most, up=False)}" if most else "none"
            case ApproxDP(epsilon=start, delta=part):
                # What it costs is its epsilon, where its delta fits.
                most = _most(lambda value: fits_sum(value), start) if part <= delta else Fraction(0)
                return f"epsilon {brief(most, up=False)}" if most else "none"
            case Repeated(event=inner, times=times):
                count = _count(lambda value: fits(Repeated(inner, value)), times)
                return f"{count} times instead of {times}" if count else "none"
            case _:
                return "none of this form"

    def to_data(self) -> dict[str, Any]:
        """Return plain data for the ledger."""
        return {
            "kind": self.kind,
            "epsilon": text(self.epsilon),
            "delta": text(self.delta),
            "relation": self.relation,
            "orders": [repr(order) for order in self.orders],
            "thresholds": [str(value) for value in self.thresholds],
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Share:
        """Read a share back from the ledger."""
        return cls(
            data["kind"],
            Fraction(data["epsilon"]),
            Fraction(data["delta"]),
            data["relation"],
            tuple(float(order) for order in data["orders"]),
            tuple(int(value) for value in data["thresholds"]),
        )


def _bounded(amount: Fraction) -> Fraction:
    return amount if amount.denominator.bit_length() <= DENOMINATOR_BITS else _on_grid(amount)


def threshold(epsilon: Fraction, order: float, delta: Fraction) -> int:
    """Return the most Rényi loss at `order` that still converts to (epsilon, delta), in units, rounded down.

    Negative: this order can never serve.
    """
    room = float(epsilon) - conversion(order, delta)
    return math.floor(Fraction(room - 1e-12 * (1 + abs(room))) * UNIT)


def _main_order(epsilon: Fraction, delta: Fraction) -> float:
    """Return the order that admits the most Gaussian releases; it depends on (epsilon, delta) only."""
    candidates = [1 + 2 ** (step / 16) for step in range(-64, 193)]
    part = delta * MAIN_PART
    return max(candidates, key=lambda order: threshold(epsilon, order, part) / order)


def _least(fits: Callable[[Fraction], bool], start: Fraction) -> Fraction | None:
    """Return the least noise multiplier that fits, to 4 digits, rounded up; it is above `start`."""
    low, high = start, start
    for _ in range(40):
        high *= 2
        if high > LIMIT:
            return None
        if fits(high):
            break
        low = high
    else:
        return None
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    places = max(0, 4 - math.ceil(math.log10(float(high))))
    return Fraction(math.ceil(high * 10**places), 10**places)


def _most(fits: Callable[[Fraction], bool], start: Fraction) -> Fraction:
    """Return the largest epsilon that fits, rounded down; it is below `start`."""
    low, high = Fraction(0), start
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return Fraction(math.floor(low * 10**9), 10**9)


def _count(fits: Callable[[int], bool], start: int) -> int:
    """Return the largest number of repetitions that fits; it is below `start`."""
    low, high = 0, start
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
