"""From one event to its privacy loss, by dp-accounting; every result is rounded up, once."""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from typing import Any, Final

from sfumato.core.errors import InvalidRequest
from sfumato.core.event import (
    ZCDP,
    ApproxDP,
    Composed,
    Event,
    Gaussian,
    Laplace,
    NoEvent,
    PoissonSampled,
    PureDP,
    Repeated,
)
from sfumato.core.numbers import LIMIT, ceil_to, float_down, float_up

ADD_OR_REMOVE: Final = "add-or-remove-one"
REPLACE: Final = "replace-one"
RELATIONS = (ADD_OR_REMOVE, REPLACE)

#: Rényi losses are whole multiples of 2^-60.
UNIT = 1 << 60
#: Stands for a loss without bound; adding and taking away stays exact, and no budget reaches it.
UNBOUNDED = 1 << 120
#: dp-accounting computes in float64; this share on top covers its rounding (tested against mpmath).
SLACK = 1 + 2.0**-36
#: Plans that lose more than this, at order 2, are priced by the Rényi conversion.
HUGE = 1000


def pure_loss(event: Event) -> Fraction:
    """Return the exact max-divergence of an event: its epsilon at delta 0. Unbounded: LIMIT per leaf."""
    match event:
        case NoEvent():
            return Fraction(0)
        case PureDP(epsilon=epsilon):
            return epsilon
        case Laplace(noise_multiplier=scale):
            return min(1 / scale, LIMIT)
        case PoissonSampled(event=inner):
            # Sampling only helps (the divergence is jointly quasi-convex); the amplified value is irrational.
            return pure_loss(inner)
        case Repeated(event=inner, times=times):
            return pure_loss(inner) * times
        case Composed(events=events):
            return sum((pure_loss(item) for item in events), Fraction(0))
        case ApproxDP(epsilon=epsilon, delta=delta) if delta == 0:
            return epsilon
        case ZCDP(rho=rho) if rho == 0:
            return Fraction(0)
        case _:
            return LIMIT


def renyi_loss(event: Event, orders: tuple[float, ...], relation: str) -> tuple[int, ...]:
    """Return the Rényi divergence of an event at each order, in units of 2^-60, rounded up."""
    match event:
        case NoEvent():
            return (0,) * len(orders)
        case Repeated(event=inner, times=times):
            return tuple(times * value for value in renyi_loss(inner, orders, relation))
        case Composed(events=events):
            parts = [renyi_loss(item, orders, relation) for item in events]
            return tuple(sum(column) for column in zip(*parts, strict=True)) or (0,) * len(orders)
        case ApproxDP(epsilon=epsilon, delta=delta) if delta == 0:
            return renyi_loss(PureDP(epsilon), orders, relation)
        case ApproxDP():
            raise InvalidRequest(
                "an (epsilon, delta) event has no Rényi loss: charge it to a share of kind 'sum' "
                '(in sfumato.toml: kind = "sum" under the share)'
            )
        case _:
            return _leaf(event, orders, relation)


@functools.lru_cache(maxsize=4096)
def _leaf(event: Event, orders: tuple[float, ...], relation: str) -> tuple[int, ...]:
    match event:
        case PureDP(epsilon=epsilon):
            values = _renyi_of_pure(epsilon, orders)
        case PoissonSampled(rate=rate, event=inner):
            values = _renyi_of_sampled(rate, inner, orders, relation)
        case Gaussian(noise_multiplier=sigma):
            values = _library_renyi("GaussianDpEvent", (float_down(sigma),), orders)
        case Laplace(noise_multiplier=scale):
            values = _library_renyi("LaplaceDpEvent", (float_down(scale),), orders)
        case ZCDP(rho=rho):
            values = _library_renyi("ZCDpEvent", (float_up(rho),), orders)
        case _:
            raise InvalidRequest(f"no Rényi loss is known for an event of kind {event.kind!r}")
    # No order of a pure event can lose more than its epsilon.
    cap = pure_loss(event)
    most = math.ceil(cap * UNIT) if cap < LIMIT else UNBOUNDED
    return tuple(min(_up(value), most) for value in values)


def _up(value: float) -> int:
    if not math.isfinite(value) or value > float(LIMIT):
        return UNBOUNDED
    return math.ceil(Fraction(max(value, 0.0) * SLACK) * UNIT)


def _library_renyi(name: str, arguments: tuple[float, ...], orders: tuple[float, ...]) -> list[float]:
    import dp_accounting
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(orders)
    return _compose(accountant, getattr(dp_accounting, name)(*arguments))


def _renyi_of_pure(epsilon: Fraction, orders: tuple[float, ...]) -> list[float]:
    """Randomised response dominates every epsilon-DP mechanism (Kairouz, Oh, Viswanath 2015)."""
    import dp_accounting
    from dp_accounting import rdp

    if epsilon == 0:
        return [0.0] * len(orders)
    noise = 2 * math.exp(-float_up(epsilon)) / (1 + math.exp(-float_up(epsilon)))
    accountant = rdp.RdpAccountant(orders, dp_accounting.NeighboringRelation.REPLACE_ONE)
    return _compose(accountant, dp_accounting.RandomizedResponseDpEvent(math.nextafter(noise, 0), 2))


def _renyi_of_sampled(rate: Fraction, inner: Event, orders: tuple[float, ...], relation: str) -> list[float]:
    import dp_accounting
    from dp_accounting import rdp

    if rate == 0:
        return [0.0] * len(orders)
    whole = [value / UNIT for value in renyi_loss(inner, orders, relation)]
    if not isinstance(inner, Gaussian) or rate == 1:
        return whole
    if relation != ADD_OR_REMOVE:
        raise InvalidRequest(
            f"Poisson sampling is accounted for under {ADD_OR_REMOVE!r} only, and this population "
            f"declares {relation!r}"
        )
    event = dp_accounting.PoissonSampledDpEvent(
        float_up(rate), dp_accounting.GaussianDpEvent(float_down(inner.noise_multiplier))
    )
    amplified = _compose(rdp.RdpAccountant(orders), event)
    return [min(pair) for pair in zip(whole, amplified, strict=True)]


def _compose(accountant: Any, event: Any) -> list[float]:
    # The accountant has no public reader for the curve it keeps; the private name is pinned by a test.
    return [float(value) for value in accountant.compose(event)._rdp]


@functools.lru_cache(maxsize=512)
def plan_epsilon(event: Event, delta: Fraction, relation: str = ADD_OR_REMOVE) -> Fraction:
    """Return the epsilon at `delta` of a plan that is fixed whole before its first release, rounded up.

    By composed privacy loss distributions where dp-accounting has them, else by the Rényi conversion.
    Valid only for plans fixed in advance; see docs/guarantees/composition.md.

    >>> float(plan_epsilon(Repeated(Gaussian(50), 100), Fraction(1, 10**6))) < 1
    True
    """
    if delta == 0:
        return pure_loss(event)
    if isinstance(event, ApproxDP) and event.delta <= delta:
        return event.epsilon
    if (simple := pure_loss(event)) == 0:
        return simple
    try:
        if _huge(event, relation):
            raise _NoDistribution("huge")
        bounds = [ceil_to(_distribution(event, relation).get_epsilon_for_delta(float_down(delta)))]
    except _NoDistribution:
        bounds = [renyi_epsilon(event, delta, relation)]
    return min([*bounds, simple])


def _huge(event: Event, relation: str) -> bool:
    """Whether a loss distribution would not fit into memory: its grid has 10,000 points per unit of loss."""
    try:
        return renyi_loss(event, (2.0,), relation)[0] > HUGE * UNIT
    except InvalidRequest:  # no Rényi loss of this kind
        return False


class _NoDistribution(Exception):
    """The event has no privacy loss distribution in dp-accounting."""


def _distribution(event: Event, relation: str) -> Any:
    from dp_accounting.pld import common
    from dp_accounting.pld import privacy_loss_distribution as pld

    match event:
        case NoEvent():
            return pld.identity()
        case PureDP(epsilon=epsilon):
            return pld.from_privacy_parameters(common.DifferentialPrivacyParameters(float_up(epsilon), 0))
        case ApproxDP(epsilon=epsilon, delta=delta):
            parameters = common.DifferentialPrivacyParameters(float_up(epsilon), float_up(delta))
            return pld.from_privacy_parameters(parameters)
        case Gaussian(noise_multiplier=sigma):
            return pld.from_gaussian_mechanism(float_down(sigma))
        case Laplace(noise_multiplier=scale):
            return pld.from_laplace_mechanism(float_down(scale))
        case PoissonSampled(rate=rate, event=Gaussian(noise_multiplier=sigma)) if relation == ADD_OR_REMOVE:
            if rate == 0:
                return pld.identity()
            return pld.from_gaussian_mechanism(float_down(sigma), sampling_prob=float_up(rate))
        case PoissonSampled(rate=rate, event=Laplace(noise_multiplier=scale)) if relation == ADD_OR_REMOVE:
            if rate == 0:
                return pld.identity()
            return pld.from_laplace_mechanism(float_down(scale), sampling_prob=float_up(rate))
        case PoissonSampled(event=inner):
            return _distribution(inner, relation)
        case Repeated(event=inner, times=times):
            return pld.identity() if times == 0 else _distribution(inner, relation).self_compose(times)
        case Composed(events=events):
            total = pld.identity()
            for item in events:
                total = total.compose(_distribution(item, relation))
            return total
        case _:
            raise _NoDistribution(event.kind)


#: Orders that a plan's price by Rényi losses is searched over.
PLAN_ORDERS = tuple(1 + 2 ** (step / 4) for step in range(-8, 45))


def stopped_epsilon(reserved: Event, actual: Event, delta: Fraction, relation: str) -> Fraction:
    """Return an epsilon that holds with probability 1 - delta for a plan stopped after seeing results.

    At one order, chosen from the plan alone, exp((order - 1)(loss - Rényi loss so far)) is a supermartingale
    with mean at most 1, so by Markov's inequality the privacy loss at the stop exceeds the Rényi loss of
    what took place by more than log(1/delta)/(order - 1) with probability at most delta.
    """
    simple = pure_loss(actual)
    if delta == 0 or isinstance(actual, ApproxDP) or simple == 0:
        return simple if not isinstance(actual, ApproxDP) else LIMIT
    extra = math.log(delta.denominator) - math.log(delta.numerator)
    planned = renyi_loss(reserved, PLAN_ORDERS, relation)
    order = min(
        zip(PLAN_ORDERS, planned, strict=True), key=lambda pair: pair[1] / UNIT + extra / (pair[0] - 1)
    )[0]
    (units,) = renyi_loss(actual, (order,), relation)
    if units >= UNBOUNDED:
        return simple
    return min(simple, ceil_to(units / UNIT + extra / (order - 1)))


def renyi_epsilon(event: Event, delta: Fraction, relation: str) -> Fraction:
    """Return the epsilon at `delta` by the Rényi conversion: fast, and at least that of the distribution."""
    best = LIMIT
    for order, units in zip(PLAN_ORDERS, renyi_loss(event, PLAN_ORDERS, relation), strict=True):
        if units < UNBOUNDED:
            best = min(best, ceil_to(units / UNIT + conversion(order, delta)))
    return best


def conversion(order: float, delta: Fraction) -> float:
    """Return what turning a Rényi loss at `order` into (epsilon, delta) adds to epsilon.

    Source: Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), Proposition 12. It may be negative.
    """
    log_delta = math.log(delta.numerator) - math.log(delta.denominator)
    return math.log1p(-1 / order) - (log_delta + math.log(order)) / (order - 1)
