"""The filter: what it admits, what it never admits, and the wrong twins that would admit more."""

from __future__ import annotations

import time
from fractions import Fraction

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.accounting import MAIN_PART, Share, Totals, threshold
from sfumato.core.errors import InvalidRequest
from sfumato.core.event import ApproxDP, Composed, Event, Gaussian, Laplace, PoissonSampled, PureDP, Repeated
from sfumato.core.losses import UNIT, conversion


def admitted(share: Share, event: Event, most: int = 10_000) -> int:
    totals, charge, count = share.nothing(), share.charge(event), 0
    while count < most and share.fits(totals.plus(charge)):
        totals, count = totals.plus(charge), count + 1
    return count


def test_gaussian_releases_asked_one_by_one() -> None:
    """Plain addition admits 12; the tight conversion of zCDP 121."""
    assert admitted(Share.new("filter", 1, "1e-6"), Gaussian(50)) >= 121


def test_what_the_filter_admits_is_really_within_the_budget() -> None:
    """Against the exact composed loss of dp-accounting, which is at most what the filter proves."""
    for event, library in (
        (Gaussian(50), dp_accounting.GaussianDpEvent(50)),
        (Laplace(50), dp_accounting.LaplaceDpEvent(50)),
    ):
        count = admitted(Share.new("filter", 1, "1e-6"), event)
        accountant = PLDAccountant().compose(dp_accounting.SelfComposedDpEvent(library, count))
        assert accountant.get_epsilon(1e-6) <= 1


@pytest.mark.parametrize("kind", ["filter", "sum"])
def test_k_requests_of_an_epsilon_kth_always_fit(kind: str) -> None:
    share = Share.new(kind, 1, 0)  # type: ignore[arg-type]
    for k in range(2, 1001):
        charge, totals = share.charge(PureDP(1 / k)), share.nothing()
        for _ in range(k):
            totals = totals.plus(charge)
            assert share.fits(totals), k
        assert not share.fits(totals.plus(share.charge(PureDP("1e-12")))), k


def test_k_requests_fit_in_a_share_with_delta_too() -> None:
    share = Share.new("filter", "0.7", "1e-6")
    for k in (2, 3, 6, 7, 10, 49, 183, 997):
        assert admitted(share, PureDP(0.7 / k), k) == k


def test_the_thresholds_use_up_delta_once() -> None:
    """The union over orders: the parts of delta add up to delta, and each converts to epsilon at most."""
    share = Share.new("filter", 1, "1e-6")
    main, rest = share.delta * MAIN_PART, share.delta * (1 - MAIN_PART) / (len(share.orders) - 1)
    parts = [main] + [rest] * (len(share.orders) - 1)
    assert sum(parts) == share.delta
    for order, limit, part in zip(share.orders, share.thresholds, parts, strict=True):
        assert limit / UNIT + conversion(order, part) <= 1

    # The wrong twin gives the whole of delta to every order: its parts add up to 16 times delta.
    careless = [threshold(share.epsilon, order, share.delta) for order in share.orders]
    assert all(loose > strict for loose, strict in zip(careless, share.thresholds, strict=True))


def test_an_order_that_is_spent_stays_spent() -> None:
    """Pure requests close order infinity, Gaussian ones the finite orders; together they fit nowhere."""
    share = Share.new("filter", 1, "1e-6")
    totals = share.nothing().plus(share.charge(Repeated(Gaussian(50), 121)))
    assert share.fits(totals)
    assert not share.fits(totals.plus(share.charge(PureDP("0.5"))))
    pure = share.nothing().plus(share.charge(PureDP(1)))
    assert share.fits(pure)
    assert not share.fits(pure.plus(share.charge(Gaussian(50))))


events = st.one_of(
    st.fractions(Fraction(1, 2), 200, max_denominator=100).map(Gaussian),
    st.fractions(Fraction(1, 2), 200, max_denominator=100).map(Laplace),
    st.fractions(0, 2, max_denominator=1000).map(PureDP),
    st.sampled_from(["0.01", "0.1"]).map(lambda rate: PoissonSampled(rate, Gaussian(2))),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(events, max_size=12), st.randoms(use_true_random=False))
def test_order_and_settlement_do_not_change_the_sum(history: list[Event], shuffle) -> None:
    share = Share.new("filter", 2, "1e-6")
    charges = [share.charge(event) for event in history]
    total = share.nothing()
    for charge in charges:
        total = total.plus(charge)
    assert Totals.from_data(total.to_data()) == total
    shuffle.shuffle(charges)
    for charge in charges:
        total = total.minus(charge)
    assert total == share.nothing()


@settings(max_examples=60, deadline=None)
@given(st.lists(events, max_size=12))
def test_spending_never_falls_and_what_fits_is_within_the_budget(history: list[Event]) -> None:
    share = Share.new("filter", 2, "1e-6")
    total, before = share.nothing(), Fraction(0)
    for event in history:
        total = total.plus(share.charge(event))
        spent, delta = share.spent(total)
        assert spent >= before
        assert share.fits(total) == (spent <= share.epsilon)
        assert delta <= share.delta
        before = spent


def test_ten_thousand_earlier_events_do_not_slow_the_next() -> None:
    """Work per admission, counted rather than timed: the totals stay small, whatever came before."""
    share = Share.new("filter", 1000, "1e-6")
    total = share.nothing()
    for k in range(1, 10_001):
        total = total.plus(share.charge(PureDP(Fraction(1, 10_000 + k % 300))))
    assert total.epsilon.denominator.bit_length() < 4096 + 64
    start = time.perf_counter()
    share.fits(total.plus(share.charge(PureDP("0.001"))))
    assert time.perf_counter() - start < 1  # a safety net, not a promise


def test_rounding_of_huge_denominators_only_ever_charges_more() -> None:
    share = Share.new("sum", 1000, 0)
    total, exact = share.nothing(), Fraction(0)
    for prime_like in range(10_001, 10_601, 2):
        total = total.plus(share.charge(PureDP(Fraction(1, prime_like))))
        exact += Fraction(1, prime_like)
    assert exact <= total.epsilon <= exact + Fraction(300, 10**18)


def test_a_sum_share_prices_a_plan_tightly_and_takes_its_delta() -> None:
    share = Share.new("sum", 8, "1e-5")
    charge = share.charge(Repeated(PoissonSampled("0.01", Gaussian("1.1")), 1000), "5e-6")
    assert charge.delta == Fraction(5, 10**6)
    assert 1 < charge.epsilon < 3
    assert share.fits(charge)
    assert not share.fits(charge.plus(charge).plus(charge))
    assert share.fits(share.charge(ApproxDP(1, "1e-5"), "1e-5"))


def test_a_stopped_plan_pays_by_its_steps_not_by_a_shorter_plan() -> None:
    share = Share.new("sum", 8, "1e-5")
    step = PoissonSampled("0.01", Gaussian("1.1"))
    plan, stop = Repeated(step, 1000), Repeated(step, 100)
    # The plan's delta is used up by the runs that go on to the end: re-pricing the shorter plan, or bounding
    # the stopped one at the same delta, would use it twice (up to 1.16 times delta was reached that way).
    assert share.charge(stop, "1e-5").epsilon < share.settlement(plan, stop, "1e-5").epsilon
    assert share.settlement(plan, stop, "1e-5") == share.charge(plan, "1e-5")
    assert share.settlement(plan, plan, "1e-5") == share.charge(plan, "1e-5")
    with pytest.raises(InvalidRequest, match="never to more"):
        share.settlement(plan, Repeated(step, 1001), "1e-5")
    pure = Repeated(PureDP("0.1"), 10)
    assert share.settlement(pure, Repeated(PureDP("0.1"), 3)).epsilon == Fraction(3, 10)


@pytest.mark.parametrize("event", [Gaussian("1e-6"), Laplace("1e-200"), ApproxDP(1, 1)])
def test_no_budget_is_large_enough_for_what_has_no_bound(event: Event) -> None:
    for kind in ("filter", "sum"):
        share = Share.new(kind, 2**20, 0)  # type: ignore[arg-type]
        assert not share.fits(share.charge(event))


def test_one_charge_with_a_huge_denominator_is_written_down() -> None:
    share = Share.new("sum", 10, 0)
    primes = [Fraction(1, 10**290 + odd) for odd in range(1, 32, 2)]
    total = share.nothing().plus(share.charge(Composed([PureDP(part) for part in primes])))
    assert Totals.from_data(total.to_data()) == total


def test_requests_that_make_no_sense_are_refused() -> None:
    share = Share.new("filter", 1, "1e-6")
    with pytest.raises(InvalidRequest, match="no delta of its own"):
        share.charge(Gaussian(1), "1e-7")
    with pytest.raises(InvalidRequest, match="kind"):
        Share.new("odometer", 1, 0)  # type: ignore[arg-type]
    for epsilon in (-1, float("nan"), float("inf")):
        with pytest.raises(InvalidRequest):
            Share.new("filter", epsilon, 0)


@pytest.mark.parametrize(
    ("event", "grows"),
    [(Gaussian(2), "noise multiplier"), (Laplace(1), "noise multiplier"), (PureDP(3), "epsilon")],
)
def test_the_largest_request_named_in_a_refusal_would_pass(event: Event, grows: str) -> None:
    share = Share.new("filter", 1, "1e-6")
    before = share.charge(Gaussian(20))
    assert not share.fits(before.plus(share.charge(event)))
    message = share.largest(event, before)
    assert grows in message
    value = message.split()[-1]
    assert share.fits(before.plus(share.charge(type(event)(value))))  # type: ignore[call-arg]


def test_the_largest_number_of_repetitions_would_pass_and_one_more_would_not() -> None:
    share = Share.new("filter", 1, "1e-6")
    assert share.largest(Repeated(Gaussian(50), 500), share.nothing()) == "121 times instead of 500"
