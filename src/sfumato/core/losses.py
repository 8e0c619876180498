"""From one event to its privacy loss, by dp-accounting; every result is rounded up, once."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
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
from sfumato.core.numbers import BOUNDLESS, LIMIT, ceil_to, float_down, float_up

ADD_OR_REMOVE: Final = "add-or-remove-one"
REPLACE: Final = "replace-one"
RELATIONS = (ADD_OR_REMOVE, REPLACE)

#: Rényi losses are whole multiples of 2^-60.
UNIT = 1 << 60
#: Stands for a loss without bound; adding and taking away stays exact, and no budget reaches it.
UNBOUNDED = 1 << 120
#: dp-accounting computes in float64: this share on top covers what it rounds in closed forms ...
SLACK = 1 + 2.0**-36
#: ... and this much over (order - 1) what it loses in differences of large numbers: it works with moments,
#: whose logarithm is (order - 1) times the loss.
MOMENT_SLACK = 2.0**-40
#: The composed distribution of a plan is computed by FFT, whose noise hides deltas below about 2^-45.
FFT_NOISE = Fraction(1, 2**40)
#: A plan that costs more than this by its Rényi losses is not worth a distribution, which would be huge.
PLD_MOST = 100


def pure_loss(event: Event) -> Fraction:
    """Return the exact max-divergence of an event: its epsilon at delta 0; BOUNDLESS where there is none."""
    match event:
        case NoEvent():
            return Fraction(0)
        case PureDP(epsilon=epsilon):
            return epsilon
        case Laplace(noise_multiplier=scale):
            return 1 / scale if 1 / scale <= LIMIT else BOUNDLESS
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
            return BOUNDLESS


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
    try:
        values = _values(event, orders, relation)
    except (ArithmeticError, ValueError) as error:
        if isinstance(error, InvalidRequest):
            raise
        values = [math.inf] * len(orders)  # parameters beyond float64: no bound that could be trusted
    pure = pure_loss(event)
    return tuple(min(_up(value), _most(pure, order)) for value, order in zip(values, orders, strict=True))


def _values(event: Event, orders: tuple[float, ...], relation: str) -> list[float]:
    match event:
        case PureDP(epsilon=epsilon):
            return _renyi_of_pure(epsilon, orders)
        case PoissonSampled(rate=rate, event=inner):
            return _renyi_of_sampled(rate, inner, orders, relation)
        case Gaussian(noise_multiplier=sigma):
            return _library_renyi("GaussianDpEvent", (float_down(sigma),), orders)
        case Laplace(noise_multiplier=scale):
            return _library_renyi("LaplaceDpEvent", (float_down(scale),), orders)
        case ZCDP(rho=rho):  # by its definition; the library does the same, and takes long to load
            return [float_up(rho) * order for order in orders]
        case _:
            raise InvalidRequest(f"no Rényi loss is known for an event of kind {event.kind!r}")


def _most(pure: Fraction, order: float) -> int:
    """Return the most that an epsilon-DP event loses at an order: epsilon, or order * epsilon^2 / 2."""
    if pure > LIMIT:
        return UNBOUNDED
    return math.ceil(min(pure, Fraction(order) * pure * pure / 2) * UNIT)


def _up(value: float) -> int:
    if not math.isfinite(value) or value > float(LIMIT):
        return UNBOUNDED
    return math.ceil(Fraction(max(value, 0.0) * SLACK) * UNIT)


def _slack(values: list[float], orders: tuple[float, ...]) -> list[float]:
    return [value + MOMENT_SLACK / (order - 1) for value, order in zip(values, orders, strict=True)]


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
    event = dp_accounting.RandomizedResponseDpEvent(math.nextafter(noise, 0), 2)
    return _slack(_compose(accountant, event), orders)


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
    amplified = _slack(_compose(rdp.RdpAccountant(orders), event), orders)
    return [min(pair) for pair in zip(whole, amplified, strict=True)]


def _compose(accountant: Any, event: Any) -> list[float]:
    import numpy as np

    # It tells of every order that it could not compute, which is then charged as infinite: nothing to act on.
    library = logging.getLogger("absl")
    before = library.level
    library.setLevel(logging.ERROR)
    try:
        with np.errstate(all="ignore"):  # what overflows comes out as infinite, and is charged as such
            curve = accountant.compose(event)._rdp  # it has no public reader; a test pins this name
    finally:
        library.setLevel(before)
    return [float(value) for value in curve]


@functools.lru_cache(maxsize=512)
def plan_epsilon(
    event: Event, delta: Fraction, relation: str = ADD_OR_REMOVE, grid: float | None = None
) -> Fraction:
    """Return the epsilon at `delta` of a plan that is fixed whole before its first release, rounded up.

    By composed privacy loss distributions where dp-accounting has them, else by the Rényi conversion.
    Valid only for plans fixed in advance; see docs/guarantees/composition.md.

    >>> float(plan_epsilon(Repeated(Gaussian(50), 100), Fraction(1, 10**6))) < 1
    True

    Args:
        grid: width of the distribution's cells; None: as `grid_of` says. Every width gives an upper bound.
    """
    simple = pure_loss(event)
    if delta == 0 or simple == 0:
        return simple
    if isinstance(event, ApproxDP):
        return event.epsilon if event.delta <= delta else BOUNDLESS
    if delta <= 4 * FFT_NOISE:
        return min(simple, rough_epsilon(event, delta, relation))
    best = simple
    if not any(isinstance(leaf, ApproxDP) for leaf in leaves(event)):
        best = min(simple, rough_epsilon(event, delta, relation))
        if best > PLD_MOST:
            return best
    try:
        if grid is None:
            price = _tight(event, delta, relation)[0]
        else:
            price = tight_epsilon(grid, event, delta, relation)
    except _NoDistribution:
        return best
    return min(best, ceil_to(price))


#: Cells of a privacy loss distribution, widest last. Each divides the next, so that a wider one, which
#: rounds losses up, never gives less than a narrower one. The work goes with 1 / width.
GRIDS = (1e-4, 2e-4, 5e-4, 1e-3)


def grid_of(event: Event, delta: Fraction, relation: str = ADD_OR_REMOVE) -> float:
    """Return how wide the cells are that `plan_epsilon` prices a plan on."""
    gaussian = all(isinstance(leaf, Gaussian) for leaf in leaves(event))
    if not gaussian or delta <= 4 * FFT_NOISE or rough_epsilon(event, delta, relation) > PLD_MOST:
        return GRIDS[0]
    return _tight(event, delta, relation)[1]


@functools.lru_cache(maxsize=512)
def _tight(event: Event, delta: Fraction, relation: str) -> tuple[float, float]:
    """Return the price by distributions, and the widest cells on which it is within 0.5 % of the narrowest's.

    What rounding up adds grows with the number of steps and the square of the width: measured for Gaussian
    steps, at most steps * width^2. Steps of other kinds are quick on the narrowest.
    """
    steps, width = steps_of(event), GRIDS[0]
    if all(isinstance(leaf, Gaussian) for leaf in leaves(event)):
        width = widest(float(min(rough_epsilon(event, delta, relation), LIMIT)), steps)
    while True:
        price = tight_epsilon(width, event, delta, relation)
        if width == GRIDS[0] or (fit := widest(price, steps)) >= width:
            return price, width
        width = fit


def widest(price: float, steps: int) -> float:
    """Return the widest cells on which a plan of Gaussian steps with about this price is priced well."""
    fine = min(math.sqrt(0.002 * price / max(1, steps)), price / 2000)
    return max((width for width in GRIDS if width <= fine), default=GRIDS[0])


def tight_epsilon(width: float, event: Event, delta: Fraction, relation: str) -> float:
    """Return the epsilon of a plan by its composed distribution on cells of a width; not rounded up yet."""
    return float(_distribution(event, relation, width).get_epsilon_for_delta(float_down(delta - FFT_NOISE)))


def privacy_curve(
    event: Event, epsilons: Sequence[float], relation: str = ADD_OR_REMOVE, grid: float = GRIDS[0]
) -> tuple[float, ...]:
    """Return the delta at each of `epsilons` of a plan that is fixed whole before its first release.

    Each is an upper bound, in both directions of the relation; the FFT's noise is added, once.

    >>> privacy_curve(Gaussian(1), [0.0, 1.0])[1] < 0.13
    True

    Raises:
        InvalidRequest: dp-accounting has no distribution for the event.
    """
    try:
        deltas = _distribution(event, relation, grid).get_delta_for_epsilon(list(epsilons))
    except _NoDistribution as error:
        raise InvalidRequest(f"no privacy curve is known for an event of kind {event.kind!r}") from error
    return tuple(min(1.0, max(0.0, float(delta)) + float(FFT_NOISE)) for delta in deltas)


def steps_of(event: Event) -> int:
    """Return how many steps an event has, repetitions counted."""
    match event:
        case Repeated(event=inner, times=times):
            return times * steps_of(inner)
        case Composed(events=events):
            return sum(steps_of(item) for item in events)
        case _:
            return 1


class _NoDistribution(Exception):
    """The event has no privacy loss distribution in dp-accounting."""


def _distribution(event: Event, relation: str, width: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as pld

    match event:
        case Repeated(event=inner, times=times):
            if times == 0:
                return pld.identity(width)
            return _distribution(inner, relation, width).self_compose(times)
        case Composed(events=events):
            total = pld.identity(width)
            for item in events:
                total = total.compose(_distribution(item, relation, width))
            return total
        case _:
            return _step(event, relation, width)


@functools.lru_cache(maxsize=16)
def _step(event: Event, relation: str, width: float) -> Any:
    from dp_accounting.pld import common
    from dp_accounting.pld import privacy_loss_distribution as pld

    cells = {"value_discretization_interval": width}
    match event:
        case NoEvent():
            return pld.identity(width)
        case PureDP(epsilon=epsilon):
            given = common.DifferentialPrivacyParameters(float_up(epsilon), 0)
            return pld.from_privacy_parameters(given, **cells)
        case ApproxDP(epsilon=epsilon, delta=delta):
            given = common.DifferentialPrivacyParameters(float_up(epsilon), float_up(delta))
            return pld.from_privacy_parameters(given, **cells)
        case Gaussian(noise_multiplier=sigma):
            return pld.from_gaussian_mechanism(float_down(sigma), **cells)
        case Laplace(noise_multiplier=scale):
            return pld.from_laplace_mechanism(float_down(scale), **cells)
        case PoissonSampled(rate=rate, event=Gaussian(noise_multiplier=sigma)) if relation == ADD_OR_REMOVE:
            if rate == 0:
                return pld.identity(width)
            return pld.from_gaussian_mechanism(float_down(sigma), sampling_prob=float_up(rate), **cells)
        case PoissonSampled(rate=rate, event=Laplace(noise_multiplier=scale)) if relation == ADD_OR_REMOVE:
            if rate == 0:
                return pld.identity(width)
            return pld.from_laplace_mechanism(float_down(scale), sampling_prob=float_up(rate), **cells)
        case PoissonSampled(event=inner):
            return _distribution(inner, relation, width)
        case _:
            raise _NoDistribution(event.kind)


#: Orders that a plan's price by Rényi losses is searched over.
PLAN_ORDERS = tuple(1 + 2 ** (step / 4) for step in range(-8, 45))


def rough_epsilon(event: Event, delta: Fraction, relation: str = ADD_OR_REMOVE) -> Fraction:
    """Return an epsilon at `delta` by Rényi losses: quick, sound, and not as tight as a distribution's."""
    if any(isinstance(leaf, ApproxDP) for leaf in leaves(event)):
        return BOUNDLESS  # it has a distribution, but no Rényi loss
    losses = renyi_loss(event, PLAN_ORDERS, relation)
    best = BOUNDLESS
    for order, units in zip(PLAN_ORDERS, losses, strict=True):
        if units < UNBOUNDED:
            best = min(best, ceil_to(units / UNIT + conversion(order, delta)))
    return best


def leaves(event: Event) -> list[Event]:
    """Return the leaves of an event."""
    match event:
        case Repeated(event=inner) | PoissonSampled(event=inner):
            return leaves(inner)
        case Composed(events=events):
            return [leaf for item in events for leaf in leaves(item)]
        case _:
            return [event]


def conversion(order: float, delta: Fraction) -> float:
    """Return what turning a Rényi loss at `order` into (epsilon, delta) adds to epsilon.

    Source: Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), Proposition 12. It may be negative.
    """
    log_delta = math.log(delta.numerator) - math.log(delta.denominator)
    return math.log1p(-1 / order) - (log_delta + math.log(order)) / (order - 1)
