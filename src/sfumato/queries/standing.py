"""Where a budget stands, before and after questions: from the ledger and the plans alone, never from data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from sfumato.core import charging
from sfumato.core.accounting import Share, Totals
from sfumato.core.blocks import split
from sfumato.core.charging import Request
from sfumato.core.numbers import brief, text

if TYPE_CHECKING:
    from sfumato.core.gate import Plan
    from sfumato.core.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Standing:
    """The account that has least room for some questions, asked one after the other.

    Args:
        account: as POPULATION/SHARE, or POPULATION#BLOCK/SHARE.
        questions: how many are charged; those answered before cost nothing and are not among them.
        before, after: epsilon spent without them, and with them; delta: spent with them.
        budget, budget_delta: of the account.
        fits: whether every account has room for all of them; first: how many of them fit, in their order.
    """

    account: str
    questions: int
    before: Fraction
    after: Fraction
    delta: Fraction
    budget: Fraction
    budget_delta: Fraction
    fits: bool
    first: int

    @property
    def left(self) -> Fraction:
        """Epsilon that is left before them."""
        return max(self.budget - self.before, Fraction(0))

    @property
    def left_after(self) -> Fraction:
        """Epsilon that is left after them."""
        return max(self.budget - self.after, Fraction(0))

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON; amounts are exact text."""
        return {
            "account": self.account,
            "questions": self.questions,
            "spent_before": text(self.before),
            "spent_after": text(self.after),
            "spent_delta": text(self.delta),
            "budget": text(self.budget),
            "budget_delta": text(self.budget_delta),
            "left": brief(self.left, up=False),
            "left_after": brief(self.left_after, up=False),
            "fits": self.fits,
            "first_that_fit": self.first,
        }

    def __str__(self) -> str:
        if not self.questions:
            return f"{self.account}: nothing to pay, epsilon {brief(self.left, up=False)} left of {self._of}"
        if self.fits:
            return f"{self.account}: epsilon {brief(self.left_after, up=False)} of {self._of} left afterwards"
        return self.refusal()

    def refusal(self) -> str:
        """Return why they do not fit, what is missing, and what would pass."""
        one = self.questions == 1
        missing = self.after - self.budget
        lacks = f" Missing: epsilon {brief(missing)}." if missing > 0 else ""
        if missing <= 0 and self.delta > self.budget_delta:
            lacks = f" Missing: delta {brief(self.delta - self.budget_delta)}."
        passes = "" if one else f" {_first(self.first)}"
        asked = "this question" if one else f"these {self.questions} questions together"
        return (
            f"the budget of {self.account} has no room for {asked}. Left: epsilon "
            f"{brief(self.left, up=False)} of {self._of}.{lacks}{passes} Nothing was charged."
        )

    @property
    def _of(self) -> str:
        return brief(self.budget, up=False)


def _first(count: int) -> str:
    if not count:
        return "Not even the first of them would fit: ask for less."
    which = "Only the first" if count == 1 else f"The first {count}"
    return f"{which} would fit: ask {'that' if count == 1 else 'those'}, or for less each."


def standing(ledger: Ledger, plans: Sequence[Plan], accounts_of: Plan | None = None) -> Standing:
    """Return where budgets would stand after releases, one after the other; nothing is charged.

    Args:
        accounts_of: where there are no plans to pay for, whose accounts to look at.
    """
    at = ledger.time()
    spent: dict[str, tuple[Share, Totals, Totals]] = {}
    first, fits = 0, True
    for plan in [*plans, *([accounts_of] if accounts_of is not None and not plans else [])]:
        asked = Request(plan.population, plan.share, plan.blocks, plan.also, plan.delta)
        deltas = _deltas(ledger, asked)
        for name in charging.accounts(ledger, asked, at):
            account, _, share = name.partition("/")
            if name not in spent:
                totals = _totals(ledger, name)
                spent[name] = (ledger.share(account, share), totals, totals)
            if plans:
                terms, before, after = spent[name]
                after = after.plus(terms.charge(plan.event, deltas[f"{split(account)[0]}/{share}"]))
                spent[name] = (terms, before, after)
                fits = fits and terms.fits(after)
        first += bool(plans) and fits
    name, (terms, before, after) = max(spent.items(), key=_fullness)
    epsilon, delta = terms.spent(after)
    return Standing(
        name, len(plans), terms.spent(before)[0], epsilon, delta, terms.epsilon, terms.delta, fits, first
    )


def _deltas(ledger: Ledger, asked: Request) -> dict[str, Fraction]:
    """Return the delta that each share takes: as the ledger does, none in a filter beside a sum."""
    shares = {
        f"{split(name)[0]}/{share}": ledger.share(split(name)[0], share) for name, share in asked.pairs()
    }
    mixed = any(terms.kind == "sum" for terms in shares.values())
    part = Fraction(asked.delta)
    return {name: Fraction(0) if mixed and terms.kind == "filter" else part for name, terms in shares.items()}


def _totals(ledger: Ledger, name: str) -> Totals:
    account, _, share = name.partition("/")
    if ledger.book.find("share", name) is None:  # a block that was never charged
        return ledger.share(account, share).nothing()
    return ledger.totals(account, share)


def _fullness(item: tuple[str, tuple[Share, Totals, Totals]]) -> tuple[bool, Fraction]:
    terms, _, after = item[1]
    return not terms.fits(after), terms.spent(after)[0] / (terms.epsilon or 1)
