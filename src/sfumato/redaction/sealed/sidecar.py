"""The file of sealed originals: pixels in sealed records, and a sealed table that says what they are.

    "SFSO" | format 1 | length of head, 4 | head (JSON, in clear) | records ... | table | place of table, 8

The head names the file (a random number) and the keys that open the table. The table holds the hash of the
redacted output, a key for each track, and for each record its place, its length and whose pixels it holds.
A record is bound to the file, its tracks, its part and its number, so none opens in another's place, and one
that is missing is missed: the table names them all.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sfumato.core.errors import IntegrityError
from sfumato.core.files import canonical, open_private
from sfumato.data.sealed_keys import Lock, derive
from sfumato.data.sealing import seal_bytes, unseal_bytes
from sfumato.redaction.sealed.areas import Owners
from sfumato.redaction.sealed.pack import Piece, unpack

MAGIC, FORMAT = b"SFSO", 1


@dataclass(slots=True)
class Sealed:
    """A file of sealed originals, its table opened.

    Args:
        path: the file.
        seal: its own name.
        lock: what it opened with.
        table: what it holds; see `join`.
    """

    path: Path
    seal: str
    lock: Lock
    table: dict[str, Any]

    @property
    def tracks(self) -> dict[int, dict[str, Any]]:
        """What is sealed: track number -> class, first and last frame, place in the first."""
        return {track["track"]: track for track in self.table["tracks"]}

    @property
    def output(self) -> str:
        """The hash of the redacted file that the originals belong to."""
        return str(self.table["output"]["sha256"])

    def pieces(self, chosen: Sequence[int]) -> Iterator[list[Piece]]:
        """Yield, record by record in order of first frames, what is hidden by chosen tracks alone.

        Raises:
            IntegrityError: a record was changed, moved or cut off.
        """
        wanted = set(chosen)
        with self.path.open("rb") as file:
            for record in sorted(self.table["records"], key=lambda one: (one["first"], one["number"])):
                if set(record["tracks"]) <= wanted:
                    yield self._read(file, record)

    def check(self) -> None:
        """Check every record; needs no decoding.

        Raises:
            IntegrityError: one was changed, moved or cut off.
        """
        with self.path.open("rb") as file:
            for record in self.table["records"]:
                self._open(file, record)

    def without(self, ended: Sequence[int], lock: Lock, target: Path) -> None:
        """Write the file again without some tracks, under another lock."""
        gone = set(ended)
        with self.path.open("rb") as source, os.fdopen(open_private(target, os.O_WRONLY), "wb") as file:
            head = write_head(file, self.seal, lock)
            records = []
            for record in self.table["records"]:
                if not gone & set(record["tracks"]):
                    source.seek(record["at"])
                    records.append(record | {"at": file.tell()})
                    copy(source, file, record["size"])
            tracks = [track for track in self.table["tracks"] if track["track"] not in gone]
            write_table(file, head, lock, self.table | {"records": records, "tracks": tracks})

    def _read(self, file: BinaryIO, record: dict[str, Any]) -> list[Piece]:
        return list(unpack(self._open(file, record)))

    def _open(self, file: BinaryIO, record: dict[str, Any]) -> bytes:
        tracks = self.tracks
        owners = tuple(record["tracks"])
        keys = [bytes.fromhex(tracks[number]["key"]) for number in owners]
        file.seek(record["at"])
        try:
            return unseal_bytes(
                key_of(keys, self.seal, owners), file.read(record["size"]), record_context(self.seal, record)
            )
        except IntegrityError as error:
            raise IntegrityError(
                f"record {record['number']} of part {record['part']} in {self.path.name}: {error}. Nothing "
                "of it is restored; put the newest copy of the file back"
            ) from error


def read_head(path: Path) -> tuple[str, list[tuple[str, int]]]:
    """Return what a file says in clear: its own name, and the keys that open it.

    Raises:
        IntegrityError: it is no file of sealed originals, was cut off, or is of a later format.
    """
    with path.open("rb") as file:
        head = _read_head(path, file)
    return _said(path, head)


def open_sealed(path: Path, lock: Lock) -> Sealed:
    """Open a file's table.

    Raises:
        IntegrityError: it was changed, cut off, or locked with another key.
    """
    with path.open("rb") as file:
        head = _read_head(path, file)
        seal, _ = _said(path, head)
        end = file.seek(0, os.SEEK_END) - 8
        file.seek(max(end, 0))
        (at,) = struct.unpack(">Q", file.read(8).rjust(8, b"\0"))
        if not len(head) <= at < end:
            raise _torn(path, "its end is missing")
        file.seek(at)
        data = file.read(end - at)
    try:
        table = read_json(unseal_bytes(lock.key, data, head))
    except IntegrityError as error:
        raise _torn(path, str(error)) from error
    return Sealed(path, seal, lock, table)


def key_of(keys: Sequence[bytes], seal: str, owners: Owners) -> bytes:
    """Return the key of what some tracks hide together, which needs the keys of all of them."""
    return derive(keys, "tracks", seal, *owners)


def record_context(seal: str, record: Mapping[str, Any]) -> bytes:
    """Return what a record is bound to."""
    place = [record["part"], record["number"], record["first"]]
    return canonical(["sfumato sealed original", FORMAT, seal, list(record["tracks"]), *place])


def write_head(file: BinaryIO, seal: str, lock: Lock) -> bytes:
    """Write what a file says in clear, and return it."""
    said = canonical({"seal": seal, "keys": [list(one) for one in lock.owners]})
    head = MAGIC + bytes([FORMAT]) + struct.pack(">I", len(said)) + said
    file.write(head)
    return head


def write_table(file: BinaryIO, head: bytes, lock: Lock, table: Mapping[str, Any]) -> None:
    """Write the sealed table and its place, durably."""
    at = file.tell()
    # The head is what the table is bound to: keys cannot be exchanged for others.
    file.write(seal_bytes(lock.key, canonical(dict(table)), head) + struct.pack(">Q", at))
    file.flush()
    os.fsync(file.fileno())


def _read_head(path: Path, file: BinaryIO) -> bytes:
    fixed = file.read(9)
    if len(fixed) < 9 or fixed[:4] != MAGIC:
        raise _torn(path, "it is no file of sealed originals")
    if fixed[4] != FORMAT:
        raise IntegrityError(
            f"{path.name} is of format {fixed[4]}, and this version reads format {FORMAT}: update Sfumato"
        )
    (size,) = struct.unpack(">I", fixed[5:])
    return fixed + file.read(min(size, 1 << 20))


def _said(path: Path, head: bytes) -> tuple[str, list[tuple[str, int]]]:
    try:
        said = json.loads(head[9:])
        keys = [(str(owner), int(number)) for owner, number in said["keys"]]
        if not keys:
            raise ValueError("it names no key")
        return str(said["seal"]), keys
    except (ValueError, KeyError, TypeError) as error:
        raise _torn(path, f"its head does not read: {error}") from error


def _torn(path: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"the sealed originals {path.name} do not open: {why}. Nothing is restored; put the newest copy of "
        "the file back"
    )


def read_json(data: bytes) -> dict[str, Any]:
    """Read an object."""
    read: dict[str, Any] = json.loads(data)
    return read


def copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    """Copy so many bytes, in blocks."""
    while size:
        block = source.read(min(size, 1 << 20))
        if not block:
            raise IntegrityError("a part of the sealed originals was cut off while it was read")
        target.write(block)
        size -= len(block)
