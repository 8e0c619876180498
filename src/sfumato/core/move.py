"""Moving a ledger from its file into PostgreSQL: every row as it is, both books verified, the old one closed.

The last row of both is the same, of kind `moved`: in the new book the history goes on after it, in the old
one nothing can. Every head that a receipt or an anchor knows stays valid.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sfumato.core.book import SCHEMES, Book, Entry, SQLiteBook, open_book
from sfumato.core.errors import IntegrityError, InvalidRequest, LedgerMoved, PolicyError
from sfumato.core.ledger import Ledger
from sfumato.core.policy import Policy
from sfumato.core.verify import Verification, verify


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did.

    Args:
        to: the new place, without a password: what [ledger] url should say.
        verified: what the new book holds.
    """

    to: str
    verified: Verification


def move(ledger: Ledger, url: str) -> Moved:
    """Move a ledger from its SQLite file to a PostgreSQL database that has none.

    A move that was interrupted is finished by asking again. Until the old book is closed, it stays the one
    that counts, and nobody can charge it meanwhile.

    Args:
        url: postgresql://user@host/database; give the password by ~/.pgpass or PGPASSWORD.

    Raises:
        InvalidRequest: the place holds another ledger, or is no PostgreSQL URL.
        IntegrityError: one of the two books does not verify; LedgerMoved: it was moved before.
    """
    old = ledger.book
    if not isinstance(old, SQLiteBook):
        raise InvalidRequest(
            f"the ledger is at {old.path} already; PostgreSQL's own tools move it from there"
        )
    if not url.startswith(SCHEMES):
        raise InvalidRequest("a ledger moves to a PostgreSQL URL, such as postgresql://user@host/database")
    last = old.last()
    if last is not None and last.kind == "moved":
        raise LedgerMoved(f"the ledger was moved to {last.body['to']} before; {advice(last.body['to'])}")
    verify(ledger)
    new = open_book(url, create=True)
    try:
        with old.writing():
            ledger.check()
            closing = _copy(ledger, new)
            result = _verified(url)
            if result.head != closing.hash:
                raise IntegrityError(f"the rows at {new.path} are not those of {old.path}; it was not closed")
            old.seal(closing)
    finally:
        new.close()
    if ledger.anchor is not None:
        ledger.anchor.advance(closing.head)
    return Moved(new.path, result)


def _verified(url: str) -> Verification:
    ledger = Ledger(url)
    try:
        return verify(ledger)
    finally:
        ledger.close()


def _copy(ledger: Ledger, new: Book) -> Entry:
    """Copy every row and add the closing one, all or nothing; or find that this was done before."""
    last = ledger.book.last()
    assert last is not None
    with new.writing():
        there = new.last()
        if there is None:
            for entry in ledger.book.all():
                new.put(entry)
            return new.append("moved", "", None, {"at": ledger.time(), "to": new.path})
        first = new.get(1)
        if first is None or first.body.get("ledger") != ledger.id:
            raise InvalidRequest(
                f"{new.path} holds ledger {first.body.get('ledger') if first else 'unknown'} already, and "
                f"this is {ledger.id}: one place holds one ledger. Use another database, or a schema: "
                "?options=-csearch_path%3DNAME"
            )
        if there.kind != "moved" or (there.seq, there.prev) != (last.seq + 1, last.hash):
            raise IntegrityError(
                f"{new.path} holds another copy of ledger {ledger.id}, of {there.seq} rows, that did not end "
                "where this one does. Find out which of the two was charged last; the other must go."
            )
        return there


def advice(to: str) -> str:
    """Return what to put into the policy."""
    return f'put this line under [ledger] in sfumato.toml: url = "{to}"'


def with_url(source: str, to: str) -> str | None:
    """Return a policy's text with [ledger] url set, otherwise untouched; None where that takes a person."""
    line = f'url = "{to}"'
    header = re.search(r"^[ \t]*\[ledger\][ \t]*(#.*)?$", source, re.MULTILINE)
    if header is not None:
        edited = f"{source[: header.end()]}\n{line}{source[header.end() :]}"
    else:
        edited = f"{source.rstrip()}\n\n[ledger]\n{line}\n"
    try:
        before, after = Policy.parse(source), Policy.parse(edited)
    except PolicyError:
        return None
    wanted = before.model_copy(update={"ledger": before.ledger.model_copy(update={"url": to})})
    return edited if after == wanted else None
