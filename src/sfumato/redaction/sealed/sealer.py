"""Sealing what an output hides: in parts that know nothing of each other, joined into one file."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sfumato.core.entropy import SYSTEM
from sfumato.core.files import canonical, open_private, write_whole
from sfumato.core.receipt import Output
from sfumato.data.sealed_keys import Lock, derive
from sfumato.data.sealing import KEY_BYTES, seal_bytes, unseal_bytes
from sfumato.redaction.sealed.areas import Owners, Rect, parcels
from sfumato.redaction.sealed.pack import Piece, crop
from sfumato.redaction.sealed.sidecar import (
    FORMAT,
    copy,
    key_of,
    read_json,
    record_context,
    write_head,
    write_table,
)

#: A part is packed and sealed when it holds so many bytes or frames.
HELD_BYTES, HELD_FRAMES = 8 << 20, 64

Pack = Callable[[Sequence[Piece]], bytes]
Region = tuple[int, str, Rect]


@dataclass(frozen=True, slots=True)
class Sealer:
    """Seals what one output hides, part by part; it can be sent to another process.

    Args:
        folder: where the parts are written; private, and only this file's.
        seal: the file's own name, 32 hex digits.
        secret: what its keys follow from; it is kept nowhere.
        source: a keyed hash of what is redacted.
    """

    folder: Path
    seal: str
    secret: bytes = field(repr=False)
    source: str = ""

    @classmethod
    def new(cls, folder: Path, source: str = "") -> Sealer:
        """Return the sealer of a new file."""
        return cls(folder, SYSTEM.bytes(16).hex(), SYSTEM.bytes(KEY_BYTES), source)

    def describe(self, about: Mapping[str, Any]) -> None:
        """Say what a restore needs to know of the output, once it is written."""
        data = seal_bytes(self.secret, canonical(dict(about)), self._context("about"))
        write_whole(self.folder / f"{self.seal[:8]}.about", data, mode=None)

    def about(self) -> dict[str, Any]:
        """Return what `describe` was told."""
        data = (self.folder / f"{self.seal[:8]}.about").read_bytes()
        return read_json(unseal_bytes(self.secret, data, self._context("about")))

    def part(self, number: int = 0) -> Part:
        """Return the writer of one part; parts may be written in any order, and at once."""
        return Part(self, number)

    def key(self, owners: Owners) -> bytes:
        """Return the key of what a set of tracks hides together."""
        return key_of([self.track_key(number) for number in owners], self.seal, owners)

    def track_key(self, number: int) -> bytes:
        """Return the key of one track."""
        return derive([self.secret], "track", self.seal, number)

    def path(self, number: int) -> Path:
        """Return where a part lies."""
        return self.folder / f"{self.seal[:8]}-{number:08d}.part"

    def parts(self) -> list[int]:
        """Return the numbers of the parts that are finished."""
        found = self.folder.glob(f"{self.seal[:8]}-*.part")
        return sorted(int(path.stem.partition("-")[2]) for path in found)

    def read_part(self, number: int) -> dict[str, Any]:
        """Return what a finished part says of itself."""
        data = self.path(number).read_bytes()
        (size,) = struct.unpack(">Q", data[-8:])
        return read_json(unseal_bytes(self.secret, data[-8 - size : -8], self._context("part", number)))

    def _context(self, *what: str | int) -> bytes:
        return canonical(["sfumato sealed original", FORMAT, self.seal, *what])


class Part:
    """Seals some of the frames of one output, in order.

    >>> import tempfile
    >>> import numpy as np
    >>> from sfumato.redaction.sealed.pack import pack_plain
    >>> sealer = Sealer.new(Path(tempfile.mkdtemp()))
    >>> part = sealer.part()
    >>> part.take(0, [np.zeros((8, 8), np.uint8)], [(0, "face", (0, 0, 4, 4))], pack_plain)
    >>> part.finish()
    >>> sealer.parts()
    [0]
    """

    def __init__(self, sealer: Sealer, number: int) -> None:
        self._sealer, self._number = sealer, number
        self._aside = sealer.path(number).with_suffix(".writing")
        os.close(open_private(self._aside, os.O_WRONLY | os.O_TRUNC))
        self._held: dict[Owners, list[Piece]] = {}
        self._size, self._indices = 0, set[int]()
        self._records: list[dict[str, Any]] = []
        self._tracks: dict[int, dict[str, Any]] = {}
        self._pack: Pack | None = None

    def take(
        self,
        index: int,
        planes: Sequence[NDArray[Any]],
        regions: Sequence[Region],
        pack: Pack,
        cell: tuple[int, int] = (1, 1),
    ) -> None:
        """Keep what will be hidden in one frame; call before it is covered.

        Args:
            index: of the frame or page, in the whole output; rising.
            planes: its pixels, which are copied.
            regions: track number, class and rectangle, on whole chroma cells.
            pack: how the pixels are packed.
            cell: luma pixels per chroma sample.
        """
        self._pack = pack
        for number, label, rect in regions:
            track = self._tracks.setdefault(number, {"label": label, "first": index, "box": list(rect)})
            track["last"] = index
        for owners, rects in parcels([(number, rect) for number, _, rect in regions]).items():
            crops = tuple([part.copy() for part in crop(planes, rect, cell)] for rect in rects)
            piece = Piece(index, tuple(rects), crops)
            self._held.setdefault(owners, []).append(piece)
            self._size += piece.size
        if regions:
            self._indices.add(index)
        if self._size >= HELD_BYTES or len(self._indices) >= HELD_FRAMES:
            self._seal()

    def finish(self) -> None:
        """Seal what is held and give the part its name."""
        self._seal()
        sealer = self._sealer
        said = {"records": self._records, "tracks": {str(n): one for n, one in self._tracks.items()}}
        data = seal_bytes(sealer.secret, canonical(said), sealer._context("part", self._number))
        with self._aside.open("ab") as file:
            file.write(data + struct.pack(">Q", len(data)))
        self._aside.replace(sealer.path(self._number))

    def _seal(self) -> None:
        if self._pack is None:
            return
        with self._aside.open("ab") as file:
            for owners, pieces in sorted(self._held.items()):
                record = {
                    "tracks": list(owners),
                    "part": self._number,
                    "number": len(self._records),
                    "first": pieces[0].index,
                    "at": file.tell(),
                }
                key, packed = self._sealer.key(owners), self._pack(pieces)
                data = seal_bytes(key, packed, record_context(self._sealer.seal, record))
                file.write(data)
                self._records.append(record | {"size": len(data)})
        self._held, self._size, self._indices = {}, 0, set()


def join(sealer: Sealer, lock: Lock, output: Output, subjects: Sequence[str] = ()) -> Path | None:
    """Make one file of all parts; return where it lies, or None where nothing was hidden.

    Args:
        lock: what the table is locked with.
        output: the redacted file that the originals belong to.
        subjects: pseudonyms of the people the output is about.
    """
    said = [(number, sealer.read_part(number)) for number in sealer.parts()]
    tracks: dict[int, dict[str, Any]] = {}
    for _, part in said:
        for name, seen in part["tracks"].items():
            track = tracks.setdefault(int(name), dict(seen))
            track["last"] = max(track["last"], seen["last"])
    if not tracks:
        return None
    path = sealer.folder / f"{sealer.seal}.sealed"
    with os.fdopen(open_private(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
        head = write_head(file, sealer.seal, lock)
        records = []
        for number, part in said:
            start = file.tell()
            with sealer.path(number).open("rb") as source:
                copy(source, file, sum(record["size"] for record in part["records"]))
            records += [record | {"at": start + record["at"]} for record in part["records"]]
            sealer.path(number).unlink()
        table = {
            "about": sealer.about(),
            "output": {"sha256": output.sha256, "bytes": output.bytes},
            "source": sealer.source,
            "subjects": list(subjects),
            "tracks": [
                {"track": number, "key": sealer.track_key(number).hex(), **tracks[number]}
                for number in sorted(tracks)
            ],
            "records": records,
        }
        write_table(file, head, lock, table)
    return path
