"""Where budgets would stand is where the ledger lets them get to."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.errors import BudgetSpent
from sfumato.core.event import Event, Laplace, PureDP
from sfumato.core.gate import Plan
from sfumato.core.ledger import Ledger
from sfumato.queries.standing import standing


def book(kind: str = "filter", epsilon: str = "1", blocks: str = "") -> Ledger:
    ledger = Ledger(":memory:")
    more = {"blocks": blocks} if blocks else {}
    for name in ("drivers", "walkers"):
        ledger.open_population(name, epsilon=epsilon, delta="1e-6", unit="person", **more)
        ledger.open_share(name, "all", kind=kind, epsilon=epsilon, delta="1e-6")
    return ledger


def plan(event: Event, **more: object) -> Plan:
    return Plan(
        action="query",
        mechanism="test",
        guarantee="proven",
        statement="a test",
        event=event,
        population="drivers",
        share="all",
        **more,  # type: ignore[arg-type]
    )


def charged(ledger: Ledger, one: Plan) -> None:
    ledger.reserve(
        {},
        one.event,
        population=one.population,
        share=one.share,
        delta=one.delta,
        blocks=one.blocks,
        also=one.also,
    )


amounts = st.lists(st.integers(1, 60).map(lambda part: Fraction(part, 100)), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(before=amounts, asked=amounts, kind=st.sampled_from(["filter", "sum"]), laplace=st.booleans())
def test_it_says_what_the_ledger_does(
    before: list[Fraction], asked: list[Fraction], kind: str, laplace: bool
) -> None:
    ledger = book(kind)

    def event(epsilon: Fraction) -> Event:
        return Laplace(1 / epsilon) if laplace else PureDP(epsilon)

    for epsilon in before:
        try:
            charged(ledger, plan(event(epsilon)))
        except BudgetSpent:
            break
    plans = [plan(event(epsilon)) for epsilon in asked]
    found = standing(ledger, plans)
    passed = 0
    for one in plans:
        try:
            charged(ledger, one)
        except BudgetSpent:
            break
        passed += 1
    assert (found.fits, found.first) == (passed == len(plans), passed)
    if found.fits:
        (balance,) = [one for one in ledger.balances() if one.population == "drivers"]
        assert found.after == balance.spent_epsilon
        assert found.left_after == max(balance.epsilon - balance.spent_epsilon, 0)


def test_looking_charges_nothing() -> None:
    ledger = book()
    rows = len(list(ledger.entries()))
    standing(ledger, [plan(PureDP("1/2"))])
    assert len(list(ledger.entries())) == rows


def test_everybody_who_pays_is_asked() -> None:
    ledger = book()
    charged(ledger, plan(PureDP("0.1"), also=(("walkers", "all"),)))
    ledger.reserve({}, PureDP("0.8"), population="walkers", share="all")
    found = standing(ledger, [plan(PureDP("0.2"), also=(("walkers", "all"),))])
    assert not found.fits
    assert found.account == "walkers/all"
    assert standing(ledger, [plan(PureDP("0.2"))]).fits  # the check can fail


def test_the_fullest_block_decides() -> None:
    ledger = book(blocks="hash 4")
    charged(ledger, plan(PureDP("0.9"), blocks=("h003",)))
    assert standing(ledger, [plan(PureDP("0.5"), blocks=("h000", "h001"))]).fits
    found = standing(ledger, [plan(PureDP("0.5"), blocks=("h001", "h003"))])
    assert (found.fits, found.account) == (False, "drivers#h003/all")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["0.5"], "epsilon 0.5 of 1 left afterwards"),
        (["1.5"], "no room for this question. Left: epsilon 1 of 1. Missing: epsilon 0.5. Nothing"),
        (
            ["0.6", "0.6"],
            "these 2 questions together. Left: epsilon 1 of 1. Missing: epsilon 0.2. Only",
        ),
        (["2", "0.1"], "Not even the first of them would fit"),
        (["0.4", "0.4", "0.4"], "The first 2 would fit"),
    ],
)
def test_it_speaks_plainly(asked: list[str], says: str) -> None:
    assert says in str(standing(book("sum"), [plan(PureDP(epsilon)) for epsilon in asked]))


def test_nothing_to_pay() -> None:
    one = plan(PureDP("0.5"))
    found = standing(book(), [], one)
    assert str(found) == "drivers/all: nothing to pay, epsilon 1 left of 1"
    assert found.to_data()["questions"] == 0
