"""What queries pay, from the noise they draw to what a share admits: never too little."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.accounting import Share, Totals, threshold
from sfumato.core.errors import BudgetSpent
from sfumato.core.event import ZCDP, Event, Laplace, PureDP
from sfumato.core.ledger import Ledger
from sfumato.core.losses import ADD_OR_REMOVE, renyi_loss

DELTA = Fraction(1, 10**6)
#: Cells of the distributions of the library, which rounds losses up.
CELL = 1e-4


def admitted(share: Share, event: Event, most: int = 10_000) -> int:
    totals, charge, count = share.nothing(), share.charge(event), 0
    while count < most and share.fits(totals.plus(charge)):
        totals, count = totals.plus(charge), count + 1
    return count


def distribution(event: Event, times: int) -> pld.PrivacyLossDistribution:
    """Return the library's distribution of the mechanism whose event this is."""
    match event:
        case ZCDP(rho=rho):  # of sensitivity 1
            one = pld.from_gaussian_mechanism(math.sqrt(1 / (2 * rho)), value_discretization_interval=CELL)
        case Laplace(noise_multiplier=scale):
            one = pld.from_laplace_mechanism(float(scale), value_discretization_interval=CELL)
        case PureDP(epsilon=epsilon):  # the discrete Laplace of a count is this to the letter
            one = pld.from_discrete_laplace_mechanism(float(epsilon), value_discretization_interval=CELL)
        case _:
            raise AssertionError(event)
    return one.self_compose(times)


def whole(history: Iterable[tuple[Event, int]]) -> float:
    """Return the epsilon at DELTA of a whole history, by the library."""
    total = None
    for event, times in history:
        part = distribution(event, times)
        total = part if total is None else total.compose(part)
    return 0.0 if total is None else float(total.get_epsilon_for_delta(float(DELTA)))


@pytest.mark.parametrize(
    ("event", "least", "by_addition"),
    [(ZCDP(Fraction(1, 5000)), 121, 12), (Laplace(50), 126, 50), (PureDP("0.02"), 125, 50)],
)
def test_counts_asked_one_by_one(event: Event, least: int, by_addition: int) -> None:
    """Gaussian counts of deviation 50, and Laplace counts of scale 50, rounded or discrete."""
    count = admitted(Share.new("filter", 1, DELTA), event)
    assert count >= least > 2 * by_addition
    assert whole([(event, count)]) <= 1


def test_no_renyi_filter_admits_126_discrete_counts() -> None:
    """The whole of delta on whichever order is best: 125.57. So counts that want 126 draw rounded noise."""

    def best(event: Event) -> float:
        orders = tuple(float(order) for order in np.arange(20, 26, 0.02))
        losses = renyi_loss(event, orders, ADD_OR_REMOVE)
        limits = [threshold(Fraction(1), order, DELTA) for order in orders]
        return max(limit / loss for limit, loss in zip(limits, losses, strict=True))

    assert 125.5 < best(PureDP("0.02")) < 125.6
    assert 126.3 < best(Laplace(50)) < 126.4


kinds = st.one_of(
    st.sampled_from([Fraction(1, 5000), Fraction(1, 800), Fraction(1, 200)]).map(ZCDP),
    st.sampled_from([5, 20, 50]).map(Laplace),
    st.sampled_from([Fraction(1, 5), Fraction(1, 20), Fraction(1, 50)]).map(PureDP),
)


def fill(share: Share, asked: Iterable[tuple[Event, int]], factor: int = 1) -> list[tuple[Event, int]]:
    """Return what a share admits of what is asked, one by one; with a factor, at a fraction of the price."""
    totals, history = share.nothing(), []
    for event, times in asked:
        charge, count = share.charge(event), 0
        cheap = Totals(charge.epsilon / factor, charge.delta, tuple(loss // factor for loss in charge.renyi))
        while count < times and share.fits(totals.plus(cheap)):
            totals, count = totals.plus(cheap), count + 1
        history += [(event, count)] if count else []
    return history


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(kinds, st.integers(1, 60)), min_size=1, max_size=5))
def test_no_history_is_admitted_that_the_library_would_refuse(asked: list[tuple[Event, int]]) -> None:
    share = Share.new("filter", 1, DELTA)
    # At the end, what still fits of each kind: the share is full.
    history = fill(share, [*asked, (Laplace(20), 1000), (ZCDP(Fraction(1, 5000)), 1000)])
    assert whole(history) <= 1


def test_a_filter_that_charges_a_half_is_found_out() -> None:
    share = Share.new("filter", 1, DELTA)
    for event in (ZCDP(Fraction(1, 5000)), Laplace(20), PureDP("0.05")):
        assert whole(fill(share, [(event, 1000)])) <= 1
        assert whole(fill(share, [(event, 1000)], factor=2)) > 1


@pytest.mark.parametrize("delta", [Fraction(0), DELTA])
def test_k_counts_of_an_epsilon_kth_fit_with_the_noise_they_draw(delta: Fraction) -> None:
    """From epsilon to scale to event and back nothing is rounded, so the last of k fits too, and no more."""
    for sensitivity, epsilon in ((1, Fraction(1)), (15, Fraction("0.7")), (7, Fraction(1, 3))):
        share = Share.new("filter", epsilon, delta)
        for k in (*range(2, 60), 97, 128, 300, 999, 1000):
            scale = sensitivity / (epsilon / k)
            for event in (PureDP(sensitivity / scale), Laplace(scale / sensitivity)):
                charge = share.charge(event)
                totals = Totals(k * charge.epsilon, charge.delta, tuple(k * loss for loss in charge.renyi))
                assert totals.epsilon == epsilon
                assert share.fits(totals)
                if not delta:
                    assert not share.fits(totals.plus(share.charge(PureDP("1e-12"))))


def test_the_ledger_admits_k_of_k_and_refuses_one_more() -> None:
    for k in (3, 7, 10):
        ledger = Ledger(":memory:")
        ledger.open_population("p", epsilon=1, delta=0, unit="person", relation="add-or-remove-one")
        ledger.open_share("p", "all", kind="filter", epsilon=1, delta=0)
        for _ in range(k):
            ledger.reserve({"mechanism": "m"}, Laplace(Fraction(k)), population="p", share="all")
        with pytest.raises(BudgetSpent, match="Left: epsilon 0"):
            ledger.reserve({"mechanism": "m"}, PureDP("1e-9"), population="p", share="all")


@pytest.mark.parametrize("event", [ZCDP(Fraction(1, 10**6)), Laplace(1000), PureDP("0.001")])
def test_what_is_charged_does_not_grow_with_the_history(event: Event) -> None:
    """Totals after 10,000 events are as small as after one: an admission adds and compares, and no more."""
    share = Share.new("filter", 1000, DELTA)
    charge = share.charge(event)
    totals = share.nothing()
    for _ in range(10_000):
        totals = totals.plus(charge)
    assert len(totals.renyi) == len(share.orders) <= 16
    assert (
        max(loss.bit_length() for loss in totals.renyi)
        <= max(loss.bit_length() for loss in charge.renyi) + 14
    )
    assert totals.epsilon.denominator <= max(charge.epsilon.denominator, 1)
