"""An anchor: the ledger's latest head, kept outside the ledger.

A hash chain alone does not show that an older copy of the whole book was put back: the old copy verifies.
Something outside must remember a newer head. By default that is a file in the user's state folder; every
receipt is another such memory; a witness on another machine (`witness.py`) is a third.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sfumato.core.errors import IntegrityError, LedgerTampered
from sfumato.core.files import open_private

#: Writers append out of order by at most the number of processes at once; this many bytes hold thousands.
TAIL_BYTES = 1 << 18
LINE = re.compile(rb"^(\d{1,18}) ([0-9a-f]{64})$", re.MULTILINE)


@dataclass(frozen=True, order=True, slots=True)
class Head:
    """A row of the ledger by number and hash; the newest row is the head."""

    seq: int
    hash: str


class Anchor(Protocol):
    """Something outside the book that remembers heads."""

    def heads(self) -> list[Head]:
        """Return every head that the book must contain."""

    def newest(self) -> Head | None:
        """Return the newest head; None where none is remembered yet."""

    def advance(self, head: Head) -> None:
        """Remember a head, durably."""


class FileAnchor:
    """An append-only file, one head a line.

    Appending needs no lock: whichever of two writers comes second, the highest number in the file is the
    newest head, and none is ever overwritten.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def newest(self) -> Head | None:
        """Return the highest head in the file; None where there is none yet.

        Raises:
            IntegrityError: the file cannot be read; LedgerTampered: it has seen two rows of one number.
        """
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL_BYTES))
                tail = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise IntegrityError(
                f"the anchor {self.path} cannot be read ({error.strerror}): who uses the ledger has to be "
                "able to read and write it"
            ) from error
        # Whole lines only: one that a power cut or a full disk cut short says nothing.
        heads = {Head(int(seq), digest.decode()) for seq, digest in LINE.findall(tail)}
        newest = max(heads, default=None)
        if newest and len({head.hash for head in heads if head.seq == newest.seq}) > 1:
            raise LedgerTampered(
                f"the anchor {self.path} has seen two rows numbered {newest.seq}: two copies of the ledger "
                "went on separately. Nothing is released; restore the copy that its receipts belong to."
            )
        return newest

    def heads(self) -> list[Head]:
        """Return the newest head, if any."""
        newest = self.newest()
        return [newest] if newest is not None else []

    def advance(self, head: Head) -> None:
        """Append a head, durably. A line of its own before and after: a torn line cannot swallow it."""
        line = f"\n{head.seq} {head.hash}\n".encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = open_private(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            if os.write(handle, line) != len(line):
                raise IntegrityError(f"the anchor {self.path} could not be written whole: is the disk full?")
            os.fsync(handle)
        finally:
            os.close(handle)
