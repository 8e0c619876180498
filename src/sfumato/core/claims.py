"""Who may go on with a release that takes long, such as a training run: the newest claim in the ledger.

A reservation that was opened with a key may be taken up again, after a crash, by whoever has the key. Each
time, a row of kind `claim` says so, with a number one above the last; whoever holds an older number draws no
more noise and ends nothing. So two processes with one checkpoint cannot both go on.

A claim also says how many steps the run's own journal counted by then, at least. The order is what makes it
sound: a process writes a step into the journal, then asks the ledger whether its claim is the newest, then
draws noise; the next one writes its claim, then reads the journal (again). Whichever comes first, every step
with noise was counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sfumato.core import charging
from sfumato.core.book import Entry
from sfumato.core.errors import IntegrityError, InvalidRequest, PolicyRefused

if TYPE_CHECKING:
    from sfumato.core.ledger import Ledger

KIND = "claim"
#: A key is this long, in bytes: nobody guesses it.
KEY_BYTES = 32


def lock_of(key: bytes) -> str:
    """Return what the ledger keeps of a key.

    Raises:
        InvalidRequest: a key that is not 32 bytes.
    """
    if len(key) != KEY_BYTES:
        raise InvalidRequest(f"a run's key has {KEY_BYTES} bytes, got {len(key)}")
    return hashlib.sha256(b"sfumato claim " + key).hexdigest()


def newest(ledger: Ledger, seq: int) -> int:
    """Return the number of the newest claim on a reservation; 0: whoever opened it has it still."""
    row = ledger.book.find(KIND, str(seq))
    return int(row.body["number"]) if row is not None else 0


def check(ledger: Ledger, seq: int, number: int) -> None:
    """Refuse to go on with a release that has ended, or that somebody else took up.

    Raises:
        PolicyRefused: says which row stands in the way.
    """
    if (ended := ledger.book.end_of(seq)) is not None:
        raise PolicyRefused(f"the run of row {seq} was ended by row {ended.seq} ({ended.kind})", rule="claim")
    if (found := newest(ledger, seq)) != number:
        raise PolicyRefused(
            f"the run of row {seq} was taken up by another process (claim {found}; this one has {number}): "
            "it alone goes on, and nothing more is drawn here",
            rule="claim",
        )


def take(
    ledger: Ledger, seq: int, key: bytes, digest: str, steps: int, by: Mapping[str, Any]
) -> tuple[Entry, Entry]:
    """Take up a standing reservation; return its row and the claim's.

    Args:
        digest: of the plan that was reserved.
        steps: how many steps the journal counts; never fewer than an earlier claim knew.

    Raises:
        InvalidRequest: no such reservation, it has ended, or it cannot be taken up.
        PolicyRefused: another key or plan.
        IntegrityError: the journal is older than what the ledger knows.
    """
    lock = lock_of(key)
    with ledger._charging():
        row = charging.open_reservation(ledger, seq)
        known = row.body.get("plan", {})
        if "resumable" not in known:
            raise InvalidRequest(f"the release of row {seq} was not opened as one that can be taken up again")
        if known["resumable"] != lock:
            raise PolicyRefused(f"this key does not open the run of row {seq}", rule="claim")
        if known.get("digest") != digest:
            raise PolicyRefused(
                f"the run of row {seq} was reserved for other settings: go on with those, or plan a new run",
                rule="claim",
            )
        before = ledger.book.find(KIND, str(seq))
        if before is not None and steps < before.body["steps"]:
            raise IntegrityError(
                f"the journal of the run of row {seq} counts {steps} steps, and the ledger knows of "
                f"{before.body['steps']}: an older copy was put back. Restore the newest one."
            )
        number = int(before.body["number"]) + 1 if before is not None else 1
        body = {"at": ledger.time(), "number": number, "steps": steps, **by}
        claim = ledger.book.append(KIND, str(seq), None, body)
    ledger._advance(claim)
    return row, claim


def fault(reservation: Entry | None, before: Mapping[str, Any] | None, entry: Entry) -> str:
    """Return what is wrong with a claim's row, for `verify`; empty: nothing."""
    body = entry.body
    if reservation is None or "resumable" not in reservation.body.get("plan", {}):
        return "it claims what is no standing reservation that can be taken up"
    number, steps = (before["number"], before["steps"]) if before is not None else (0, 0)
    if body["number"] != number + 1 or type(body["steps"]) is not int or body["steps"] < steps:
        return "its number or its steps do not follow from the claim before"
    return ""
