"""An anchor: the ledger's latest head, kept outside the ledger.

A hash chain alone does not show that an older copy of the whole book was put back: the old copy verifies.
Something outside must remember a newer head. By default that is a file in the user's state folder; every
receipt is another such memory; a witness on another machine (`witness.py`) is a third.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sfumato.core.errors import IntegrityError

#: Writers append out of order by at most the number of processes at once; this many bytes hold thousands.
TAIL_BYTES = 1 << 18


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
        """Return the highest head in the file; None where there is no file yet.

        Raises:
            IntegrityError: the file does not read as an anchor.
        """
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL_BYTES))
                tail = file.read()
        except FileNotFoundError:
            return None
        lines = tail.split(b"\n")
        if size > TAIL_BYTES:
            del lines[0]  # cut in the middle
        heads = []
        for line in lines[:-1]:  # a line without its end is an append that a power cut stopped
            try:
                seq, digest = line.decode().split(" ")
                heads.append(Head(int(seq), digest))
            except ValueError as error:
                raise IntegrityError(
                    f"the anchor {self.path} does not read: {line[:80]!r} is not 'number hash'. Compare it "
                    "with a backup, and run `sfumato ledger verify`."
                ) from error
        return max(heads, default=None)

    def heads(self) -> list[Head]:
        """Return the newest head, if any."""
        newest = self.newest()
        return [newest] if newest is not None else []

    def advance(self, head: Head) -> None:
        """Append a head, durably."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, f"{head.seq} {head.hash}\n".encode())
            os.fsync(handle)
        finally:
            os.close(handle)
