"""Charging a release to one account or to several at once, and ending it; for the ledger.

A release that touches several blocks, or several populations, is one transaction: a `reserve` row for each
account, one after the other. The first names the others (`with`), and each of them names the first (`of`);
they end together in the same way. A release of one account is one row, as ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from sfumato.core.accounting import Share, Totals
from sfumato.core.blocks import MARK, chosen, rule_of, split
from sfumato.core.book import Entry
from sfumato.core.errors import BudgetSpent, InvalidRequest
from sfumato.core.event import Event, NoEvent, probability
from sfumato.core.numbers import Amount, brief, text

if TYPE_CHECKING:
    from sfumato.core.ledger import Ledger

#: More accounts than this in one release would make rows and receipts that nobody can read.
MOST = 4096


@dataclass(frozen=True, slots=True)
class Request:
    """What is charged.

    Args:
        population, share: whose budget, and which part of it; population may name one block, as P#BLOCK.
        blocks: of that population; empty: all that exist.
        also: further (population, share) that pay for the same event; all their blocks.
        delta: for shares of kind `sum`, the part of their delta that this release takes.
    """

    population: str = ""
    share: str = ""
    blocks: tuple[str, ...] = ()
    also: tuple[tuple[str, str], ...] = ()
    delta: Amount = 0

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Every (population, share) that it names."""
        return ((self.population, self.share), *self.also)


@dataclass(slots=True)
class _Account:
    """One account of a release, with its price."""

    name: str
    terms: Share
    part: Fraction
    price: Totals
    opened: bool = True
    before: Totals = field(init=False)
    after: Totals = field(init=False)


def accounts(ledger: Ledger, request: Request, at: str) -> tuple[str, ...]:
    """Return the names of all accounts that a charge at a time names, in order, each once.

    Raises:
        InvalidRequest: blocks that do not exist, or of a population without any.
    """
    found: dict[str, None] = {}
    for index, (name, share) in enumerate(request.pairs()):
        population, block = split(name)
        row = ledger.book.find("population", population)
        ledger.share(population, share)  # names what there is, where this is not
        assert row is not None
        asked = request.blocks if index == 0 else ()
        if block and asked:
            raise InvalidRequest(f"{name!r} is one block already; `blocks` names further ones: {asked}")
        blocks = chosen(population, row.body, (block,) if block or MARK in name else asked, at)
        found |= dict.fromkeys(f"{population}{MARK}{one}/{share}" for one in blocks)
        if not blocks:
            found[f"{population}/{share}"] = None
    if len(found) > MOST:
        raise InvalidRequest(f"a release charges at most {MOST} accounts, and this one names {len(found)}")
    return tuple(found)


def charge(ledger: Ledger, plan: Mapping[str, Any], event: Event, request: Request) -> Entry:
    """Charge a release to every account that it names, or to none; return the first of its rows.

    Raises:
        BudgetSpent: an account has no room: the fullest of those that have none.
    """
    if not request.population:
        if request.blocks or request.also:
            raise InvalidRequest("a plan that charges further accounts names its population first")
        return _record(ledger, plan, event)
    # Terms are fixed, so prices are worked out before the lock is taken: it can take a while.
    prices = _prices(ledger, event, request)
    full: list[_Account] = []
    with ledger._charging():
        at = ledger.time()
        found = [_account(ledger, name, prices) for name in accounts(ledger, request, at)]
        full = [one for one in found if not one.terms.fits(one.after)]
        if not full:
            first, last = _write(ledger, at, plan, event, found)
    if full:
        raise _refusal(full, len(found), event)
    ledger._advance(last)
    return first


def _prices(ledger: Ledger, event: Event, request: Request) -> dict[str, tuple[Share, Fraction, Totals]]:
    """Return the terms and price of each (population, share) that is named: of all its blocks alike."""
    delta = probability(request.delta, "delta")
    shares = {
        f"{split(name)[0]}/{share}": ledger.share(split(name)[0], share) for name, share in request.pairs()
    }
    mixed = any(terms.kind == "sum" for terms in shares.values())
    parts = {
        name: Fraction(0) if mixed and terms.kind == "filter" else delta for name, terms in shares.items()
    }
    return {name: (terms, parts[name], terms.charge(event, parts[name])) for name, terms in shares.items()}


def _account(ledger: Ledger, name: str, prices: Mapping[str, tuple[Share, Fraction, Totals]]) -> _Account:
    account, _, share = name.partition("/")
    terms, part, price = prices[f"{split(account)[0]}/{share}"]
    one = _Account(name, terms, part, price)
    one.opened = ledger.book.find("share", name) is not None
    one.before = ledger.totals(account, share) if one.opened else terms.nothing()
    one.after = one.before.plus(price)
    return one


def _write(
    ledger: Ledger, at: str, plan: Mapping[str, Any], event: Event, found: Sequence[_Account]
) -> tuple[Entry, Entry]:
    """Open the blocks that were never charged, then write a row for each account, one after the other."""
    for one in found:
        if not one.opened:
            opening = {"at": at, "terms": one.terms.to_data(), "after": one.terms.nothing().to_data()}
            ledger.book.append("share", one.name, None, opening)
    rows: list[Entry] = []
    for one in found:
        body: dict[str, Any] = {"at": at, "event": event.to_data(), "delta": text(one.part)}
        body |= {"of": rows[0].seq} if rows else {"plan": dict(plan)}
        if not rows and len(found) > 1:
            body["with"] = [other.name for other in found[1:]]
        # What is recorded is what was added, which a large denominator may have rounded up.
        body |= {"charge": one.after.minus(one.before).to_data(), "after": one.after.to_data()}
        rows.append(ledger.book.append("reserve", one.name, None, body))
    return rows[0], rows[-1]


def _record(ledger: Ledger, plan: Mapping[str, Any], event: Event) -> Entry:
    if not isinstance(event, NoEvent):
        raise InvalidRequest(
            f"a release with an event of kind {event.kind!r} must name the population it charges"
        )
    with ledger._charging():
        body = {"at": ledger.time(), "plan": dict(plan), "event": event.to_data()}
        entry = ledger.book.append("reserve", "", None, body)
    ledger._advance(entry)
    return entry


def end(ledger: Ledger, seq: int, kind: str, said: Mapping[str, Any], event: Event | None = None) -> Entry:
    """End a release: a row for each of its accounts, all in one transaction; return the first.

    Args:
        kind: settle or void.
        said: what the rows say beside the totals.
        event: what took place, where a settled release was less than what was reserved.
    """
    rows = members(ledger, open_reservation(ledger, seq))
    actual = _settlements(ledger, rows, event)
    written: list[Entry] = []
    with ledger._charging():
        open_reservation(ledger, seq)
        if kind == "void" and ledger.book.find("claim", str(seq)) is not None:
            raise InvalidRequest(f"the run of row {seq} was taken up again, and its charge stands")
        at = ledger.time()
        for row in rows:
            body: dict[str, Any] = {"at": at, **said} | ({"of": written[0].seq} if written else {})
            if row.share:
                totals = ledger.totals(*row.share.split("/"))
                charged = Totals.from_data(row.body["charge"])
                if kind == "void":
                    totals = totals.minus(charged)
                elif (lower := actual[row.seq]) is not None and event is not None:
                    totals = totals.minus(charged).plus(lower)
                    body |= {"event": event.to_data(), "charge": lower.to_data()}
                body["after"] = totals.to_data()
            written.append(ledger.book.append(kind, row.share, row.seq, body))
    ledger._advance(written[-1])
    return written[0]


def members(ledger: Ledger, row: Entry) -> tuple[Entry, ...]:
    """Return all rows of a release, given the first: reservations, or ends."""
    head = row if row.kind == "reserve" else ledger.book.get(row.ref or 0)
    others = [
        ledger.book.get(row.seq + 1 + index) for index in range(len(head.body.get("with", ())) if head else 0)
    ]
    return (row, *(other for other in others if other is not None))


def open_reservation(ledger: Ledger, seq: int) -> Entry:
    """Return a release's first row, where the release has not ended."""
    row = ledger.book.get(seq)
    if row is None or row.kind != "reserve":
        raise InvalidRequest(f"row {seq} of the ledger is not a reservation")
    if "of" in row.body:
        raise InvalidRequest(
            f"row {seq} of the ledger is part of the release of row {row.body['of']}: end that"
        )
    if (ended := ledger.book.end_of(seq)) is not None:
        raise InvalidRequest(f"reservation {seq} was already ended by row {ended.seq} ({ended.kind})")
    return row


def _settlements(ledger: Ledger, rows: Sequence[Entry], event: Event | None) -> dict[int, Totals | None]:
    """Return what each reservation settles to; None: to what was reserved."""
    found: dict[int, Totals | None] = {}
    known: dict[tuple[str, str], Totals] = {}
    for row in rows:
        found[row.seq] = None
        if event is None:
            continue
        if not row.share:
            if isinstance(event, NoEvent):
                continue
            raise InvalidRequest(f"reservation {row.seq} charged no population; it cannot settle to a charge")
        account, _, share = row.share.partition("/")
        key = f"{split(account)[0]}/{share}", row.body["delta"]
        if key not in known:
            reserved, part = Event.from_data(row.body["event"]), Fraction(row.body["delta"])
            known[key] = ledger.share(account, share).settlement(reserved, event, part)
        # The price is worked out anew, and may come out above the recorded one by what another build rounds.
        if known[key].within(Totals.from_data(row.body["charge"])):
            found[row.seq] = known[key]
    return found


def _refusal(full: Sequence[_Account], of: int, event: Event) -> BudgetSpent:
    """Explain why a release does not fit, by the fullest account; from the ledger and the request alone."""
    one = max(full, key=lambda account: account.terms.spent(account.before)[0] / (account.terms.epsilon or 1))
    terms = one.terms
    spent_epsilon, spent_delta = terms.spent(one.before)
    asked_epsilon, asked_delta = terms.spent(one.price)
    left = max(terms.epsilon - spent_epsilon, Fraction(0))
    missing = terms.spent(one.after)[0] - terms.epsilon
    asked = f"epsilon {brief(asked_epsilon)}" + (f", delta {brief(asked_delta)}" if asked_delta else "")
    return BudgetSpent(
        f"the budget of {one.name} has no room for this release. Asked (on its own): {asked}. "
        f"Budget: epsilon {brief(terms.epsilon)}, delta {brief(terms.delta)}. "
        f"Left: epsilon {brief(left, up=False)}"
        + (f", delta {brief(terms.delta - spent_delta, up=False)}" if terms.kind == "sum" else "")
        + (f". Missing: epsilon {brief(missing)}" if missing > 0 else "")
        + f". Largest that would fit: {terms.largest(event, one.before, one.part)}."
        + (
            f" No room in {len(full)} of the {of} accounts that it charges; nothing was charged."
            if of > 1
            else ""
        )
        + (
            " A view of the other blocks alone could still be used."
            if MARK in one.name and len(full) < of
            else ""
        )
    )


def balances(ledger: Ledger, population: str, share: str) -> list[str]:
    """Return the accounts of a share, as P or P#BLOCK: itself, or all its blocks that exist by now."""
    row = ledger.book.find("population", population)
    if row is None or rule_of(row.body) is None:
        return [population]
    return [f"{population}{MARK}{block}" for block in chosen(population, row.body, (), ledger.time())]
