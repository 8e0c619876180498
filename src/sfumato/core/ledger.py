"""The ledger: an append-only book of every charge to a population's privacy budget.

Rules it holds always (docs/house.md, section "The ledger"):

- `reserve` is durable before it returns; what it charged stands until `settle` or `void` says otherwise.
- `settle` may only lower the charge, once; `void` takes it back, and is for releases that drew no noise.
- The budget belongs to the population: shares add up to no more than it, and are fixed once opened.
- Every row is chained to the one before; an anchor outside holds the newest head, and a book that is older
  than its anchor or than any known receipt refuses everything.

Only the gate calls `reserve`, `settle` and `void`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from sfumato.core import charging, merkle, raising
from sfumato.core.accounting import Kind, Share, Totals
from sfumato.core.anchor import Anchor, Head
from sfumato.core.blocks import check_rule, split
from sfumato.core.book import Entry, open_book
from sfumato.core.changes import check_change, check_name, check_population, check_same
from sfumato.core.charging import Request
from sfumato.core.errors import (
    InvalidRequest,
    LedgerRolledBack,
    LedgerTampered,
    LedgerUnavailable,
    PolicyRefused,
)
from sfumato.core.event import Event, probability
from sfumato.core.losses import ADD_OR_REMOVE
from sfumato.core.numbers import Amount, rational, text
from sfumato.core.version_rows import VersionRows

FORMAT = "sfumato-ledger/1"
#: Rows that only lower a charge: their release is over, so an unreachable witness hears with the next charge.
ENDS = ("settle", "void")
Note = Literal["roles", "proposal", "refusal", "version", "retired", "vault"]


@dataclass(frozen=True, slots=True)
class Balance:
    """A share and what has been spent of it, for people: rounded up."""

    population: str
    share: str
    kind: Kind
    epsilon: Fraction
    delta: Fraction
    spent_epsilon: Fraction
    spent_delta: Fraction


class Ledger:
    """A book of charges, in one SQLite file or a PostgreSQL database.

    >>> ledger = Ledger(":memory:")
    >>> ledger.open_population("residents", epsilon=1, delta="1e-6", unit="person")
    True
    >>> ledger.open_share("residents", "all", kind="filter", epsilon=1, delta="1e-6")
    >>> [balance.share for balance in ledger.balances()]
    ['all']

    Args:
        path: the file, or a URL such as postgresql://user@host/database; ":memory:" for a book that lives as
            long as the object (tests, notebooks).
        anchor: where the newest head is remembered; None: nowhere (then a rollback shows only by receipts).
        create: make the file if there is none.

    Raises:
        IntegrityError: no such file; LedgerTampered: not a ledger; LedgerRolledBack: older than its anchor.
    """

    def __init__(self, path: Path | str, anchor: Anchor | None = None, *, create: bool = False) -> None:
        self.book = open_book(str(path), create=create or str(path) == ":memory:")
        self.anchor = anchor
        self._known: dict[int, str] = {}
        self.versions, self.retired = VersionRows(self.book, "version"), VersionRows(self.book, "retired")
        first = self.book.get(1)
        if first is None:
            if not (create or str(path) == ":memory:"):
                raise LedgerTampered(
                    f"the ledger {self.book.path} has no rows: they were removed, or a move into it stopped "
                    "half-way. Restore it from a backup, or ask for the move again."
                )
            with self.book.writing():
                first = self.book.get(1) or self.book.append(
                    "genesis", "", None, {"at": _now(), "format": FORMAT, "ledger": secrets.token_hex(16)}
                )
        self.id: str = str(first.body.get("ledger", ""))
        if first.kind != "genesis" or first.body.get("format") != FORMAT or not is_id(self.id):
            raise LedgerTampered(f"the first row of {self.book.path} does not open a ledger")
        self.check()
        if anchor is not None and anchor.newest() is None:
            anchor.advance(self.head())

    # Reading

    def head(self) -> Head:
        """Return the newest row's number and hash."""
        last = self.book.last()
        if last is None:
            raise LedgerTampered("the ledger has no rows")
        return last.head

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Iterate over the rows, oldest first."""
        return self.book.all(after=after)

    def time(self) -> str:
        """Return the time for a new row; never before the row that it follows, whatever the clock says."""
        last = self.book.last()
        return max(_now(), last.body.get("at", "") if last else "")

    def populations(self) -> dict[str, dict[str, Any]]:
        """Return the populations as declared: unit, relation, epsilon and delta as exact text."""
        return {row.share: row.body for row in self.book.all(kind="population")}

    def share(self, population: str, share: str) -> Share:
        """Return a share's terms.

        Raises:
            InvalidRequest: no such share has been opened.
        """
        row = self.book.find("share", f"{population}/{share}")
        if row is None:  # a block that was not charged yet has the terms of its population's share
            row = self.book.find("share", f"{split(population)[0]}/{share}")
        if row is None:
            known = [entry.share for entry in self.book.all(kind="share")]
            raise InvalidRequest(
                f"the ledger has no share {population}/{share}; it has: {', '.join(known) or 'none'}. "
                "Declare it under [populations.NAME.shares.NAME] in sfumato.toml."
            )
        return Share.from_data(row.body["terms"])

    def shares(self, population: str) -> dict[str, Share]:
        """Return the shares opened in a population, by name."""
        rows = (row for row in self.book.all(kind="share") if row.share.partition("/")[0] == population)
        return {row.share.partition("/")[2]: Share.from_data(row.body["terms"]) for row in rows}

    def totals(self, population: str, share: str) -> Totals:
        """Return what a share has been charged so far, reservations included."""
        name = f"{population}/{share}"
        last = self.book.last(name)
        if last is None or "after" not in last.body:
            return self.share(population, share).nothing()
        return Totals.from_data(last.body["after"])

    def balances(self) -> list[Balance]:
        """Return every account with what has been spent of it: shares, and of blocked populations P#BLOCK."""
        result = []
        for row in self.book.all(kind="share"):
            population, _, name = row.share.partition("/")
            if split(population)[1]:
                continue
            terms = Share.from_data(row.body["terms"])
            for account in charging.balances(self, population, name):
                epsilon, delta = terms.spent(self.totals(account, name))
                result.append(Balance(account, name, terms.kind, terms.epsilon, terms.delta, epsilon, delta))
        return result

    # Opening budgets

    def open_population(
        self,
        name: str,
        *,
        epsilon: Amount,
        delta: Amount,
        unit: str,
        relation: str = ADD_OR_REMOVE,
        blocks: str = "",
        reason: str = "",
        approval: Mapping[str, Any] | None = None,
    ) -> bool:
        """Declare a population's whole budget; declaring the same again changes nothing and returns False.

        A budget may be lowered to what its shares already hold, and raised only with a reason, which stays
        in the book, and where roles were declared with two owners' `approval` (core/raising.py). Its `blocks`
        (core/blocks.py) are fixed for ever.

        Raises:
            PolicyRefused: raised without a reason or an approval, lowered below its shares, or another unit.
        """
        wanted = {
            "epsilon": text(rational(epsilon, name="epsilon")),
            "delta": text(probability(delta, "delta")),
            "unit": unit,
            "relation": relation,
        } | ({"blocks": blocks} if blocks else {})
        check_population(name)
        check_rule(blocks, relation)
        with self._charging():
            row = self.book.find("population", name)
            if row is not None:
                old = {key: row.body[key] for key in (*wanted, "blocks") if key in row.body}
                if old == wanted:
                    return False
                check_change(name, old, wanted, self._held(name), reason)
                if any(Fraction(wanted[key]) > Fraction(old[key]) for key in ("epsilon", "delta")):
                    raising.check(self.book, name, wanted, approval, self.time())
            at = self.time()
            body = {"at": at, **wanted, "reason": reason}
            if blocks:  # enrolment blocks begin with the population, whenever its budget is raised
                body["opened"] = row.body["opened"] if row is not None else at
            entry = self.book.append(
                "population", name, None, body | ({"approval": dict(approval)} if approval else {})
            )
        self._advance(entry)
        return True

    def note(self, kind: Note, share: str, body: Mapping[str, Any]) -> Entry:
        """Append a row that charges and changes nothing: that roles were declared, a proposal, a refusal."""
        with self._charging():
            entry = self.book.append(kind, share, None, {"at": self.time(), **body})
        self._advance(entry)
        return entry

    def open_share(self, population: str, name: str, *, kind: Kind, epsilon: Amount, delta: Amount) -> None:
        """Open a share inside a population's budget; opening the same again changes nothing.

        Raises:
            PolicyRefused: the terms differ from those it was opened with (they are what its thresholds were
                proved for), or the shares would add up to more than the population's budget.
        """
        check_name(name)
        check_population(population)
        with self._charging():
            owner = self.book.find("population", population)
            if owner is None:
                raise InvalidRequest(f"the ledger has no population {population!r}")
            terms = Share.new(kind, epsilon, delta, owner.body["relation"])
            row = self.book.find("share", f"{population}/{name}")
            if row is not None:
                check_same(population, name, Share.from_data(row.body["terms"]), terms)
                return
            held_epsilon, held_delta = self._held(population)
            budget = Fraction(owner.body["epsilon"]), Fraction(owner.body["delta"])
            if held_epsilon + terms.epsilon > budget[0] or held_delta + terms.delta > budget[1]:
                raise PolicyRefused(
                    f"share {population}/{name} asks for epsilon {text(terms.epsilon)}, delta "
                    f"{text(terms.delta)}; of the population's budget, epsilon {text(budget[0])}, delta "
                    f"{text(budget[1])}, epsilon {text(budget[0] - held_epsilon)}, delta "
                    f"{text(budget[1] - held_delta)} is not yet in a share. Make the share smaller."
                )
            body = {"at": self.time(), "terms": terms.to_data(), "after": terms.nothing().to_data()}
            entry = self.book.append("share", f"{population}/{name}", None, body)
        self._advance(entry)

    # Charging: for the gate only

    def reserve(
        self,
        plan: Mapping[str, Any],
        event: Event,
        *,
        population: str = "",
        share: str = "",
        delta: Amount = 0,
        blocks: tuple[str, ...] = (),
        also: tuple[tuple[str, str], ...] = (),
    ) -> Entry:
        """Charge a release before it happens, to all its accounts or to none; durable when this returns.

        Args:
            plan: what the book keeps about the release, as plain data without personal data.
            event: what the release will do; NoEvent needs no population.
            population, share: whose budget, and which part of it.
            delta: for a share of kind `sum`, the part of its delta that this release takes.
            blocks: of the population; empty: all that exist by now.
            also: further (population, share) that pay for the same event.

        Returns:
            The release's row; where it charges several accounts the first of them (see `rows_of`).

        Raises:
            BudgetSpent: it does not fit; says what was asked, what is left and what would fit.
            IntegrityError: the book is older than its anchor or a known receipt, or was edited.
        """
        if Event.from_data(event.to_data()) != event:
            raise InvalidRequest("the event cannot be written down exactly: use simpler numbers")
        return charging.charge(
            self, plan, event, Request(population, share, tuple(blocks), tuple(also), delta)
        )

    def settle(self, seq: int, *, receipt: str, event: Event | None = None) -> Entry:
        """End a reservation that was released; with `event`, lower it to what took place.

        Raises:
            InvalidRequest: no such reservation, already ended, or `event` costs more than was reserved.
        """
        return charging.end(self, seq, "settle", {"receipt": receipt}, event)

    def void(self, seq: int, *, reason: str) -> Entry:
        """Take back a reservation whose permit drew no noise and released nothing.

        Raises:
            InvalidRequest: no such reservation, or already ended.
        """
        return charging.end(self, seq, "void", {"reason": reason})

    def rows_of(self, entry: Entry) -> tuple[Entry, ...]:
        """Return all rows of a release, given the first of its reservations or of its ends."""
        return charging.members(self, entry)

    # Integrity

    def know(self, heads: Iterable[Head]) -> None:
        """Remember heads that receipts have seen; the book must contain each of them from now on."""
        self._known |= {head.seq: head.hash for head in heads}
        self.check()

    def check(self) -> None:
        """Refuse a book that is older than, or differs from, its anchor or a known receipt.

        Raises:
            LedgerRolledBack: a known head is missing; LedgerTampered: another row stands in its place.
        """
        heads = [Head(seq, digest) for seq, digest in self._known.items()]
        if self.anchor is not None:
            heads += self.anchor.heads()
        self.compare(heads)

    def compare(self, heads: Iterable[Head]) -> None:
        """Check that the book holds rows that somebody has seen.

        Raises:
            LedgerRolledBack: one is missing; LedgerTampered: another row stands in its place.
        """
        for head in heads:
            row = self.book.get(head.seq)
            if row is None:
                raise LedgerRolledBack(
                    f"the ledger {self.book.path} is older than what was already seen: it ends at row "
                    f"{self.head().seq}, and row {head.seq} is known. An older copy was put back, or rows "
                    "were cut off. Nothing is released; restore the newest copy."
                )
            if row.hash != head.hash:
                raise LedgerTampered(
                    f"row {head.seq} of the ledger {self.book.path} is not the row that was seen before: "
                    "the book was edited, or two copies of it went on separately. Nothing is released; "
                    "restore the copy that its receipts belong to."
                )

    def root(self, size: int | None = None) -> str:
        """Return the root of the Merkle tree over the first `size` rows (default: all)."""
        return merkle.root(self._hashes(size))

    def prove(self, seq: int, size: int | None = None) -> merkle.Proof:
        """Return the proof that a row is among the first `size` rows; it verifies against their root.

        >>> ledger = Ledger(":memory:")
        >>> ledger.prove(1).verify(ledger.root())
        """
        rows = self._hashes(size)
        path = merkle.inclusion(rows, seq)
        return merkle.Proof(self.id, seq, len(rows), rows[seq - 1], path)

    def prove_growth(self, before: int, size: int | None = None) -> merkle.GrowthProof:
        """Return the proof that the book only grew since it had `before` rows."""
        rows = self._hashes(size)
        return merkle.GrowthProof(self.id, before, len(rows), merkle.growth(rows, before))

    def close(self) -> None:
        """Close the file."""
        self.book.close()

    # Inside

    def _hashes(self, size: int | None) -> list[str]:
        rows = self.book.hashes(self.head().seq if size is None else size)
        if size is not None and len(rows) != size:
            raise InvalidRequest(f"the ledger has {self.head().seq} rows; a size of {size} was asked for")
        return rows

    def _charging(self) -> Any:
        return _Checked(self)

    def _advance(self, entry: Entry) -> None:
        if self.anchor is None:
            return
        try:
            self.anchor.advance(entry.head)
        except LedgerUnavailable:
            if entry.kind not in ENDS:
                raise

    def _held(self, population: str) -> tuple[Fraction, Fraction]:
        shares = self.shares(population).values()
        zero = Fraction(0)
        return sum((share.epsilon for share in shares), zero), sum((share.delta for share in shares), zero)


class _Checked:
    """The write lock, taken, and the book checked against what is known, before anything is added."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.lock = ledger.book.writing()

    def __enter__(self) -> None:
        self.lock.__enter__()
        try:
            self.ledger.check()
        except BaseException as error:
            self.lock.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(self, *problem: Any) -> None:
        self.lock.__exit__(*problem)


def is_id(name: str) -> bool:
    """Whether a string is a ledger's own name: 32 hex digits, so that it can name a file."""
    return len(name) == 32 and set(name) <= set("0123456789abcdef")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
