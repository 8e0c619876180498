"""What the system refuses, in one line with the way out."""

from __future__ import annotations

import errno
import os
import sqlite3

from sfumato.redaction.tree import shown

FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def explain(error: Exception) -> str | None:
    """Return what to tell of an error that comes from the system and not from a fault of ours.

    >>> explain(OSError(errno.ENOSPC, "No space left on device", "safe.jpg"))
    'safe.jpg: no space left on device. Make room, or choose another disk; then call again with --resume'
    >>> explain(KeyError("a fault of ours")) is None
    True
    """
    if isinstance(error, OSError):
        return f"{_what(error)}. {_way_out(error.errno)}"
    if isinstance(error, UnicodeError):
        reason = getattr(error, "reason", error)
        return f"a name holds bytes that are no text here ({reason}). Rename the file or folder"
    if isinstance(error, sqlite3.Error):
        return f"the ledger cannot be read or written: {error}. Is there room, and may you write there?"
    return None


def _what(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    reason = reason[:1].lower() + reason[1:]
    if error.filename is None:
        return reason
    return f"{shown(os.fsdecode(error.filename))}: {reason}"


def _way_out(number: int | None) -> str:
    if number in FULL:
        return "Make room, or choose another disk; then call again with --resume"
    if number in CLOSED:
        return "Change the permissions, or choose another place"
    if number == errno.ENAMETOOLONG:
        return "Choose a name of at most 230 bytes: .receipt.json and the like come after it"
    return "Nothing more was written; call again with --resume when it is mended"
