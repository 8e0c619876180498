"""Where the bytes of a dataset's versions lie: content-addressed, written once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sfumato.core.errors import IntegrityError, InvalidRequest
from sfumato.core.files import sha256_of, write_whole

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
    """Holds bytes by the SHA-256 of what is written to disk, so that a hash verifies without any key."""

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


class PlainStore:
    """A folder of files named by their SHA-256, unencrypted.

    >>> import tempfile
    >>> store = PlainStore(Path(tempfile.mkdtemp()))
    >>> place = Place("traffic", "1", "flow.csv")
    >>> store.get(store.put(b"junction,hour", place), place)
    b'junction,hour'
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, data: bytes, place: Place) -> str:
        """Store bytes durably and return their name."""
        name = hashlib.sha256(data).hexdigest()
        path = self._path(name)
        if not path.exists():
            write_whole(path, data, mode=0o600)
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

    def names(self) -> Iterator[str]:
        """Iterate over the names of all that is stored."""
        for path in sorted(self.root.glob("??/*")):
            if _NAME.fullmatch(path.parent.name + path.name):  # nothing else was stored by this class
                yield path.parent.name + path.name

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidRequest(f"a stored item is named by 64 hex digits, got {name[:80]!r}")
        return self.root / name[:2] / name[2:]
