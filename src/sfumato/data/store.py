"""Where the bytes of a dataset's versions lie: content-addressed, written once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sfumato.core.errors import IntegrityError, InvalidRequest
from sfumato.core.files import sha256_of, shred, write_whole

#: Marks a plain store that a vault took the place of.
MOVED = ".moved"

_NAME = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Place:
    """What a stored item is: bound to its bytes where they are encrypted.

    Args:
        dataset, version: whose they are; the version is a label that is known before its hash is.
        path: inside the version, with forward slashes.
        subject: the person it is about, as a pseudonym; empty where it is about nobody or about many.
    """

    dataset: str
    version: str
    path: str
    subject: str = ""


class Store(Protocol):
    """Holds bytes by the SHA-256 of what is written to disk, so that a hash verifies without any key.

    Args:
        by_person: whether it can forget one person, so that what it holds must be cut by person.
    """

    by_person: bool

    def put(self, data: bytes, place: Place) -> str:
        """Store bytes durably and return their name, 64 hex digits; the same call may be made again."""
        ...

    def get(self, name: str, place: Place) -> bytes:
        """Return stored bytes.

        Raises:
            IntegrityError: they are missing, or were changed.
        """
        ...

    def check(self, name: str) -> None:
        """Check that what lies on disk is what `name` says; needs no key.

        Raises:
            IntegrityError: it is missing, or was changed.
        """
        ...

    def names(self) -> Iterator[str]:
        """Iterate over the names of all that is stored."""
        ...

    def put_many(self, pieces: Iterable[tuple[bytes, Place]]) -> list[str]:
        """Store many things; they are durable when this returns, and not before."""
        ...

    def erased(self, place: Place) -> bool:
        """Return whether the person was erased whose item it is; needs no key."""
        ...

    def remove(self, name: str) -> None:
        """Remove something that no version refers to; see `sfumato.data.sweep`."""
        ...

    def aside(self) -> Iterator[Path]:
        """Iterate over files that a writer began; it may be at them still."""
        ...


class PlainStore:
    """A folder of files named by their SHA-256, unencrypted.

    >>> import tempfile
    >>> store = PlainStore(Path(tempfile.mkdtemp()))
    >>> place = Place("traffic", "1", "flow.csv")
    >>> store.get(store.put(b"junction,hour", place), place)
    b'junction,hour'
    """

    by_person = False

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, data: bytes, place: Place) -> str:
        """Store bytes durably and return their name.

        Raises:
            InvalidRequest: a vault took this store's place meanwhile.
        """
        if (self.root / MOVED).exists():
            raise InvalidRequest("the project has a vault now, and nothing is stored in clear: begin anew")
        name = hashlib.sha256(data).hexdigest()
        path = self._path(name)
        if not path.exists():
            write_whole(path, data, mode=None)
        return name

    def get(self, name: str, place: Place) -> bytes:
        """Return stored bytes, checked against their name."""
        try:
            data = self._path(name).read_bytes()
        except (FileNotFoundError, IsADirectoryError) as error:
            raise IntegrityError(f"{place.path!r} of {place.dataset} is missing from the store") from error
        if hashlib.sha256(data).hexdigest() != name:
            raise IntegrityError(f"{place.path!r} of {place.dataset} was changed in the store")
        return data

    def check(self, name: str) -> None:
        """Check one stored item against its name."""
        path = self._path(name)
        if not path.is_file() or sha256_of(path) != name:
            raise IntegrityError(f"the stored item {name[:16]} is missing or was changed")

    def put_many(self, pieces: Iterable[tuple[bytes, Place]]) -> list[str]:
        """Store many things durably."""
        return [self.put(data, place) for data, place in pieces]

    def erased(self, place: Place) -> bool:
        """Return False: plain files cannot forget a person."""
        return False

    def holds(self, name: str) -> bool:
        """Return whether something lies here."""
        return self._path(name).exists()

    def remove(self, name: str) -> None:
        """Overwrite and remove something; where the file system writes elsewhere, old bytes may stay."""
        path = self._path(name)
        if path.exists():
            shred(path)

    def aside(self) -> Iterator[Path]:
        """Iterate over files that a writer began; it may be at them still."""
        yield from sorted(self.root.glob("??/.*"))

    def names(self) -> Iterator[str]:
        """Iterate over the names of all that is stored."""
        for path in sorted(self.root.glob("??/*")):
            if _NAME.fullmatch(path.parent.name + path.name):  # nothing else was stored by this class
                yield path.parent.name + path.name

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidRequest(f"a stored item is named by 64 hex digits, got {name[:80]!r}")
        return self.root / name[:2] / name[2:]
