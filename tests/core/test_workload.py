"""A mixed workload, chosen as it goes: what the filter admits of it, and what it must never admit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant

from sfumato.core.accounting import Share
from sfumato.core.errors import BudgetSpent
from sfumato.core.event import Event, Gaussian, Laplace, PoissonSampled, Repeated
from sfumato.core.ledger import Ledger
from sfumato.core.losses import plan_epsilon
from sfumato.core.verify import verify

EPSILON, DELTA = Fraction(3), Fraction(1, 10**6)


def requests(answers: list[bool]) -> Iterator[Event]:
    """A hundred requests; how noisy the next one is depends on whether the last was answered."""
    for number in range(100):
        careful = bool(answers) and not answers[-1]
        noise = 30 + 5 * (number % 4) + (20 if careful else 0)
        match number % 3:
            case 0:
                yield Gaussian(noise)
            case 1:
                yield Laplace(noise)
            case _:
                yield Repeated(PoissonSampled("0.01", Gaussian(2)), 3 + number % 5)


def library(event: Event) -> dp_accounting.DpEvent:
    match event:
        case Gaussian():
            return dp_accounting.GaussianDpEvent(float(event.noise_multiplier))
        case Laplace():
            return dp_accounting.LaplaceDpEvent(float(event.noise_multiplier))
        case PoissonSampled():
            return dp_accounting.PoissonSampledDpEvent(float(event.rate), library(event.event))
        case Repeated():
            return dp_accounting.SelfComposedDpEvent(library(event.event), event.times)
        case _:
            raise AssertionError(event)


def by_adding(events: Iterator[Event], answers: list[bool]) -> int:
    """Plain composition: every release takes an even part of delta and the least epsilon at it."""
    spent, part = Fraction(0), DELTA / 100
    for event in events:
        price = plan_epsilon(event, part if not isinstance(event, Laplace) else Fraction(0))
        answers.append(spent + price <= EPSILON)
        spent += price if answers[-1] else 0
    return sum(answers)


def test_twice_as_many_as_by_adding_epsilons_and_no_more_than_the_whole_history_allows(where: str) -> None:
    ledger = Ledger(where, create=True)
    ledger.open_population("p", epsilon=EPSILON, delta=DELTA, unit="person")
    ledger.open_share("p", "s", kind="filter", epsilon=EPSILON, delta=DELTA)
    answers: list[bool] = []
    history: list[Event] = []
    for event in requests(answers):
        try:
            row = ledger.reserve({}, event, population="p", share="s")
        except BudgetSpent:
            answers.append(False)
            continue
        ledger.settle(row.seq, receipt="r")
        history.append(event)
        answers.append(True)
    plain: list[bool] = []
    assert len(history) >= 2 * by_adding(requests(plain), plain)
    assert verify(ledger).releases == len(history)
    assert ledger.balances()[0].spent_epsilon <= EPSILON
    assert whole(history) <= float(EPSILON)


def whole(history: list[Event]) -> float:
    """The tight loss of the whole history, by dp-accounting alone."""
    accountant = PLDAccountant()
    for event, times in Counter(history).items():  # the order does not matter
        accountant.compose(library(event), times)
    return float(accountant.get_epsilon(float(DELTA)))


def test_until_it_is_full_the_filter_stays_below_what_the_whole_history_allows() -> None:
    """The same mix for as long as anything fits; a twin that forgets half of its charges is caught."""
    kinds = (Gaussian(30), Laplace(40), Repeated(PoissonSampled("0.01", Gaussian(2)), 5))
    for forget in (False, True):
        share = Share.new("filter", EPSILON, DELTA)
        total, history = share.nothing(), []
        for number in range(3000):
            event = kinds[number % 3]
            charged = total.plus(share.charge(event))
            if share.fits(charged):
                history.append(event)
                total = total if forget and number % 2 else charged
        assert (whole(history) <= float(EPSILON)) is not forget


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf"), "1e400", 10**30])
def test_amounts_that_are_none_are_refused_before_anything_is_charged(where: str, amount: object) -> None:
    ledger = Ledger(where, create=True)
    ledger.open_population("p", epsilon=EPSILON, delta=DELTA, unit="person")
    ledger.open_share("p", "s", kind="sum", epsilon=EPSILON, delta=DELTA)
    head = ledger.head()
    for make in (Gaussian, Laplace):
        with pytest.raises(ValueError, match="noise_multiplier"):
            ledger.reserve({}, make(amount), population="p", share="s")
    with pytest.raises(ValueError, match="delta"):
        ledger.reserve({}, Gaussian(1), population="p", share="s", delta=amount)  # type: ignore[arg-type]
    assert ledger.head() == head
