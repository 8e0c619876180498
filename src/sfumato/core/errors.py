"""The whole exception tree, on one screen.

SfumatoError                     exit 1  anything else that went wrong
├── InvalidRequest               exit 2  the call itself cannot be carried out
│   ├── UnknownName                      a name that is not in the catalogue (nearest one suggested)
│   ├── MissingExtra                     an optional package is not installed
│   ├── MissingModel                     a model file is not on this machine
│   └── VaultLocked                      the master key is not to be had, or is not the right one
├── PolicyError                  exit 2  sfumato.toml does not read or does not add up
├── PolicyRefused                exit 3  a rule of the policy forbids this
├── BudgetSpent                  exit 4  the privacy budget has no room for this
├── IntegrityError               exit 5  a book or a receipt does not verify
│   ├── LedgerTampered                   a row was edited, removed or reordered
│   ├── LedgerRolledBack                 the book is older than a head that was already seen
│   ├── LedgerMoved                      the book was closed when it moved to another place
│   └── ReceiptInvalid                   a receipt does not match itself, its files or the book
├── LedgerUnavailable            exit 1  the ledger or its witness is locked, full or out of reach
├── MediaError                   exit 1  one input file cannot be made safe
│   ├── UnreadableMedia                  truncated, garbage, empty, or no permission
│   ├── UnsupportedMedia                 a format or feature that is not handled
│   ├── MediaTooLarge                    more pixels or frames than the limit allows
│   └── CheckFailed                      the check found something in the redacted copy: it was quarantined
├── EngineFailed                 exit 1  a database or query engine failed; nothing was released
├── AuditFailed                  exit 1  an audit contradicts what a training run claims: no release
├── Erased                       exit 1  the person's key was destroyed: nobody can read their data any more
├── DownloadFailed               exit 1  a model could not be fetched or does not match its hash
└── BatchFailed                  exit 1  some items of a batch failed; the rest are done

Every message says what was wrong, the value, and the way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SfumatoError(Exception):
    """Base of every error raised by Sfumato; `exit_code` is what the command line ends with."""

    exit_code = 1


class InvalidRequest(SfumatoError, ValueError):
    """The call cannot be carried out as asked."""

    exit_code = 2


class UnknownName(InvalidRequest):
    """A name that is not in the catalogue; the nearest valid one is suggested."""

    def __init__(self, kind: str, name: str, allowed: Iterable[str], *, hint: str = "") -> None:
        self.kind, self.name, self.allowed = kind, name, tuple(sorted(allowed))
        message = f"unknown {kind} {name!r}"
        near = nearest(name, self.allowed)
        message += f"; did you mean {near!r}?" if near else "."
        message += f" Known: {', '.join(self.allowed) or 'none'}."
        super().__init__(f"{message} {hint}".strip())


class MissingExtra(InvalidRequest):
    """An optional package is needed and not installed."""

    def __init__(self, what: str, packages: Iterable[str], extra: str) -> None:
        self.extra = extra
        way = f"pip install 'sfumato[{extra}]'" if extra else f"pip install {' '.join(packages)}"
        super().__init__(f"{what} needs {', '.join(packages)}, which is not installed. Run: {way}")


class MissingModel(InvalidRequest):
    """A model file is needed and not on this machine."""


class VaultLocked(InvalidRequest):
    """The vault's master key is not to be had, or what was given does not open it."""


class PolicyError(SfumatoError, ValueError):
    """The policy file does not read, has unknown keys, or does not add up."""

    exit_code = 2


class PolicyRefused(SfumatoError):
    """A rule of the policy forbids this; `rule` is the key that says so, where there is one."""

    exit_code = 3

    def __init__(self, message: str, *, rule: str = "") -> None:
        self.rule = rule
        super().__init__(message)


class BudgetSpent(SfumatoError):
    """The privacy budget has no room: gives what was asked, what is left, and the largest that would pass."""

    exit_code = 4


class IntegrityError(SfumatoError):
    """A ledger or a receipt does not verify: nothing may be released until a person has looked."""

    exit_code = 5


class LedgerTampered(IntegrityError):
    """A row of the ledger was edited, removed, added or reordered."""


class LedgerRolledBack(IntegrityError):
    """The ledger is older than a head that a receipt or an anchor has already seen."""


class LedgerMoved(IntegrityError):
    """The ledger was moved to another place, and this book is closed for good."""


class ReceiptInvalid(IntegrityError):
    """A receipt does not match its own digest, its files or the ledger."""


class LedgerUnavailable(SfumatoError):
    """The ledger or its witness cannot be read or written now: locked, disk full, no server, no right."""


class MediaError(SfumatoError):
    """One input file cannot be made safe; nothing was written for it."""


class UnreadableMedia(MediaError):
    """The file is truncated, damaged, empty or not readable."""


class UnsupportedMedia(MediaError):
    """The file's format, or a feature it uses, is not handled."""


class MediaTooLarge(MediaError):
    """The file holds more pixels or frames than the limit allows (a decompression bomb, perhaps)."""


class CheckFailed(MediaError):
    """The redacted copy was checked and still showed something; it lies in quarantine."""


class EngineFailed(SfumatoError):
    """A query engine failed; nothing was released. Its own words may quote data, and are left out."""


class AuditFailed(SfumatoError):
    """An audit found more privacy loss than was claimed, or a broken promise; `reasons` lists them."""

    def __init__(self, message: str, reasons: Iterable[str] = ()) -> None:
        self.reasons = tuple(reasons)
        super().__init__(message)


class Erased(SfumatoError):
    """The person was erased: their key was destroyed, and no copy of their data can be read any more."""


class DownloadFailed(SfumatoError):
    """A model could not be fetched, or what came does not match its published hash."""


class BatchFailed(SfumatoError):
    """Some items of a batch failed; the others are done. `failures` lists (item, reason)."""

    def __init__(self, message: str, failures: Iterable[tuple[str, str]] = ()) -> None:
        self.failures = tuple(failures)
        super().__init__(message)


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed name closest to `name`, or None when nothing is close."""
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return close[0] if close else None
