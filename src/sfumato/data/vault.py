"""The vault: a store that encrypts at rest, and forgets a person by destroying their key."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import IntegrityError, InvalidRequest
from sfumato.core.files import canonical, make_private, open_private, sync_folder
from sfumato.core.project import FOLDER
from sfumato.data.keyfiles import KEYS, holds_vault, owner_of
from sfumato.data.keys import Keys, checked_pseudonym, subject_or_dataset
from sfumato.data.people import People, forget_plain_key, plain_key
from sfumato.data.sealing import read_header, seal, unseal
from sfumato.data.store import Place, PlainStore
from sfumato.data.wrapping import Access


@dataclass(frozen=True, slots=True)
class Status:
    """What can be said of a vault without opening it."""

    wrapping: str
    generation: int
    owners: int
    erased: int
    items: int

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


class Vault:
    """A store (see `sfumato.data.store.Store`) of encrypted items.

    >>> import tempfile
    >>> outside = Access(options={"path": tempfile.mkdtemp() + "/master.key"})
    >>> vault = Vault.init(Path(tempfile.mkdtemp()), "file", outside)
    >>> ada = Place("clinic", "1", "scan.png", subject=vault.pseudonym("Ada Lovelace"))
    >>> name = vault.put(b"pixels", ada)
    >>> vault.get(name, ada)
    b'pixels'
    >>> _ = vault.erase(ada.subject)
    >>> vault.get(name, ada)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    sfumato.core.errors.Erased: this person was erased ...

    Guarantee: heuristic. Without the master key nobody reads or changes an item unseen; once a subject is
    erased, nobody who kept no copy of their key reads their items. The limits: docs/guarantees/vault.md.

    Each item is sealed under a key of its own, derived from the subject's data key (the dataset's, for an
    item about nobody or many) and a random salt, and bound to its place. It is named by the SHA-256 of the
    ciphertext, so that `check` needs no key. Putting the same bytes twice gives two items of different names:
    equal names would tell who has equal data.

    Args:
        root: the folder of the encrypted items.
        keys: the keys that open them.
    """

    by_person = True

    def __init__(self, root: Path, keys: Keys) -> None:
        self.root, self.keys = root, keys
        self._files = PlainStore(root)
        self._people = People(keys.pseudonym_key)

    @classmethod
    def init(cls, project: Path, wrapping: str = "passphrase", access: Access | None = None) -> Vault:
        """Make the vault of a project folder.

        Raises:
            InvalidRequest: it has one already, or the wrapping's settings do not fit.
            VaultLocked: the wrapping's key is not to be had.
        """
        access = _inside(project, access)
        folder = project / FOLDER
        pseudonym = plain_key(folder) if not holds_vault(folder) else None
        keys = Keys.init(folder / KEYS, wrapping, access, pseudonym=pseudonym)
        forget_plain_key(folder)
        return cls(folder / "vault", keys)

    @classmethod
    def of(cls, project: Path, access: Access | None = None) -> Vault:
        """Open the vault of a project folder; finishes what a killed process left.

        Raises:
            VaultLocked: it has none. The master key is asked for later, when it is first needed.
        """
        vault = cls(project / FOLDER / "vault", Keys(project / FOLDER / KEYS, _inside(project, access)))
        forget_plain_key(project / FOLDER)
        return vault

    def pseudonym(self, subject_id: str, population: str = "") -> str:
        """Return the pseudonym under which a person's items are stored; see `sfumato.data.people`."""
        return self._people.subject(subject_id, population)

    def fingerprint(self, digest: str) -> str:
        """Return a keyed hash of a source; see `sfumato.data.people`."""
        return self._people.fingerprint(digest)

    def put(self, data: bytes, place: Place) -> str:
        """Encrypt and store bytes durably; return their name."""
        return self.put_stream((data,), place)

    def put_stream(self, source: Iterable[bytes], place: Place) -> str:
        """Encrypt and store a large item, given piece by piece (an open file gives lines: read in blocks).

        Raises:
            Erased: the subject was erased.
        """
        name = self._write(source, place)
        self._sync([name])
        return name

    def put_many(self, pieces: Iterable[tuple[bytes, Place]]) -> list[str]:
        """Encrypt and store many things; they are durable when this returns.

        Raises:
            Erased: a subject was erased.
        """
        names = [self._write((data,), place) for data, place in pieces]
        self._sync(names)
        return names

    def _write(self, source: Iterable[bytes], place: Place) -> str:
        owner = subject_or_dataset(place)
        number, key = self.keys.newest(owner)
        make_private(self.root)
        aside = self.root / f".aside-{SYSTEM.bytes(8).hex()}"
        digest = hashlib.sha256()
        try:
            handle = open_private(aside, os.O_WRONLY | os.O_EXCL)
            with os.fdopen(handle, "wb") as file:
                for piece in seal(key, source, _context(place), number=number):
                    digest.update(piece)
                    file.write(piece)
            name = digest.hexdigest()
            folder = self.root / name[:2]
            if not folder.exists():
                make_private(folder)
                sync_folder(self.root)
            aside.replace(folder / name[2:])
        finally:
            aside.unlink(missing_ok=True)
        self.keys.refuse_erased(owner)  # erased meanwhile: what was written can be read by nobody
        return name

    def _sync(self, names: list[str]) -> None:
        """Make what was written survive a power cut: all at the end, so that the disk can order it."""
        for name in names:
            with (self.root / name[:2] / name[2:]).open("rb+") as file:
                os.fsync(file.fileno())
        for folder in sorted({name[:2] for name in names}):
            sync_folder(self.root / folder)

    def erased(self, place: Place) -> bool:
        """Return whether the person was erased whose item it is; needs no key."""
        return bool(place.subject) and self.keys.files.erased(subject_or_dataset(place)) is not None

    def remove(self, name: str) -> None:
        """Remove something that no version refers to."""
        (self.root / name[:2] / name[2:]).unlink(missing_ok=True)

    def get(self, name: str, place: Place) -> bytes:
        """Return stored bytes, decrypted and checked.

        Raises:
            Erased: the subject was erased.
            IntegrityError: missing, changed, or stored for another place.
            VaultLocked: the master key is not to be had.
        """
        return b"".join(self.stream(name, place))

    def stream(self, name: str, place: Place) -> Iterator[bytes]:
        """Yield stored bytes piece by piece; the whole is checked against its name before the first piece."""
        owner = subject_or_dataset(place)
        self.keys.refuse_erased(owner)
        self.check(name)
        with (self.root / name[:2] / name[2:]).open("rb") as file:
            try:
                header = read_header(file)
                yield from unseal(self.keys.key(owner, header.number), header, file, _context(place))
            except IntegrityError as error:
                raise IntegrityError(
                    f"the stored item {name[:16]} is not {place.path!r} of {place.dataset}: {error}"
                ) from error

    def check(self, name: str) -> None:
        """Check one stored item against its name; needs no key, and passes for erased subjects too."""
        self._files.check(name)

    def names(self) -> Iterator[str]:
        """Iterate over the names of all that is stored."""
        return self._files.names()

    def aside(self) -> Iterator[Path]:
        """Iterate over files that a writer began; it may be at them still."""
        yield from sorted(self.root.glob(".aside-*"))

    def knows(self, subject: str) -> bool:
        """Whether a subject (a pseudonym) has a key here, or was erased."""
        return self.keys.knows(owner_of("subject", checked_pseudonym(subject)))

    def refuse_unknown(self, subject: str) -> None:
        """Raise InvalidRequest if nothing here is, or was, about a subject (a pseudonym)."""
        if not self.knows(subject):
            raise InvalidRequest(
                f"nothing here is about the subject {subject}: check the id, and that it is spelled as when "
                "the data came in"
            )

    def erase(self, subject: str) -> str:
        """Destroy a subject's keys: no version's copy of them can be read again. Needs no master key.

        Through the gate, with a record: `sfumato.data.erasure.erase`.

        Args:
            subject: a pseudonym.

        Returns:
            When they were erased, UTC; a second call returns the first time.

        Raises:
            InvalidRequest: nothing here is about this subject.
        """
        self.refuse_unknown(subject)
        return self.keys.erase(owner_of("subject", subject))

    def status(self) -> Status:
        """Return what can be said without a key."""
        files = self.keys.files
        head = files.head()
        return Status(
            wrapping=head.wrapping,
            generation=head.generation,
            owners=sum(1 for _ in files.owners(head.generation)),
            erased=len(files.all_erased()),
            items=sum(1 for _ in self.names()),
        )


def _context(place: Place) -> bytes:
    return canonical(["sfumato item", place.dataset, place.version, place.path, place.subject])


def _inside(project: Path, access: Access | None) -> Access:
    access = access or Access()
    return Access(project, access.passphrase, access.options)
