"""Which vault a project has, in the ledger: so that deleting or exchanging its key folder shows.

A row says that a vault was made, or its master key rotated; a project has one vault for ever. Nothing here
needs a key. The row is written after the vault, by the gate; who may record and opens the data catches up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sfumato.core.book import Book, Entry
from sfumato.core.errors import IntegrityError, InvalidRequest

if TYPE_CHECKING:
    from sfumato.core.ledger import Ledger

KIND = "vault"
MADE, ROTATED = "made", "rotated"


def newest(book: Book) -> Entry | None:
    """Return the newest row about the project's vault; None where the ledger knows of none."""
    return book.find(KIND, "")


def record(ledger: Ledger, vault: str, what: str, by: Mapping[str, Any]) -> Entry:
    """Write into the ledger that a vault was made (once) or rotated.

    Raises:
        IntegrityError: the ledger knows another vault; InvalidRequest: neither made nor rotated.
    """
    if what not in (MADE, ROTATED):
        raise InvalidRequest(f"a vault is {MADE} or {ROTATED}, got {what!r}")
    with ledger._charging():
        before = newest(ledger.book)
        if before is None:
            what = MADE  # a rotation of a vault whose making was not recorded pins it too
        elif what == MADE and before.body["vault"] == vault:
            return before
        if problem := fault({"vault": vault, "what": what}, before):
            raise IntegrityError(f"the vault {vault} is not recorded: {problem}")
        entry = ledger.book.append(KIND, "", None, {"at": ledger.time(), "vault": vault, "what": what, **by})
    ledger._advance(entry)
    return entry


def fault(body: Mapping[str, Any], before: Entry | None) -> str:
    """Return what is wrong with a row about a vault, or nothing; for the ledger and for `verify`."""
    if body["what"] == MADE:
        return f"row {before.seq} of the ledger has made one" if before is not None else ""
    if body["what"] != ROTATED:
        return f"it must be {MADE} or {ROTATED}"
    if before is None:
        return "the ledger has no vault to rotate"
    if before.body["vault"] != body["vault"]:
        return f"row {before.seq} of the ledger has the vault {before.body['vault']}"
    return ""
