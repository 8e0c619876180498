"""Keys of a vault: one master key, and under it data keys of subjects and datasets, and pseudonyms."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import Erased, IntegrityError, InvalidRequest, VaultLocked
from sfumato.data.keyfiles import Head, KeyFolder, owner_of
from sfumato.data.sealing import KEY_BYTES, seal_bytes, unseal_bytes
from sfumato.data.store import Place
from sfumato.data.wrapping import CATALOGUE, Access, Wrapping

PSEUDONYM_DIGITS: Final = 32


class Keys:
    """The keys in one folder; the master key is asked for when it is first needed, not before.

    >>> import tempfile
    >>> outside = Access(options={"path": tempfile.mkdtemp() + "/master.key"})
    >>> keys = Keys.init(Path(tempfile.mkdtemp()) / "keys", "file", outside)
    >>> len(keys.pseudonym_key())
    32

    Args:
        root: the folder of the key files.
        access: what the wrapping may use to reach its key.

    Raises:
        VaultLocked: there is no vault here.
    """

    def __init__(self, root: Path, access: Access | None = None) -> None:
        self.files, self.access = KeyFolder(root), access or Access()
        self.files.stamp()
        self._seen: tuple[int, int] | None = None
        self._master: tuple[Head, bytes] | None = None
        self._cache: dict[tuple[str, int], bytes] = {}
        if os.access(root, os.W_OK):  # whoever may only read still honours every tombstone
            with self.files.lock():
                self.files.tidy()

    @classmethod
    def init(
        cls,
        root: Path,
        wrapping: str = "passphrase",
        access: Access | None = None,
        *,
        pseudonym: bytes | None = None,
    ) -> Keys:
        """Make a vault's keys.

        Args:
            pseudonym: the key of pseudonyms to take over; None: a new one.

        Raises:
            InvalidRequest: there is a vault already, or keys of one whose vault.json is gone.
        """
        files, access = KeyFolder(root), access or Access()
        plugin = _plugin(wrapping, access)
        files.make()
        with files.lock():
            if files.exists:
                raise InvalidRequest(f"{root} holds a vault already; `sfumato vault rotate` changes its keys")
            if any(True for number in files.generations() for _ in files.owners(number)):
                raise InvalidRequest(
                    f"{root} holds keys, and their vault.json is gone: restore it. A new vault here would "
                    "never open what the old one holds."
                )
            master = SYSTEM.bytes(KEY_BYTES)
            draft = Head(SYSTEM.bytes(16).hex(), 1, wrapping, {})
            head = Head(draft.vault, 1, wrapping, plugin.wrap(master, draft.context("master")))
            sealed = seal_bytes(master, pseudonym or SYSTEM.bytes(KEY_BYTES), head.context("pseudonym"))
            files.write_key(files.pseudonym_key(1), sealed)
            files.write_head(head)
        return cls(root, access)

    def unlock(self) -> tuple[Head, bytes]:
        """Return the head and the master key, asking the wrapping where needed.

        Raises:
            VaultLocked: the wrapping's key is not to be had, or is not the right one.
            IntegrityError: the key files were changed.
        """
        stamp = self.files.stamp()
        if self._master is None or stamp != self._seen:
            head = self.files.head()
            if self._master is None or head != self._master[0]:
                plugin = _plugin(head.wrapping, self.access)
                master = plugin.unwrap(head.record, head.context("master"))
                if len(master) != KEY_BYTES:
                    raise VaultLocked(
                        f"the wrapping {head.wrapping!r} gave a master key of {len(master)} bytes, and "
                        f"{KEY_BYTES} are needed: it opened another record"
                    )
                self._refuse_another_vaults(head, master)
                self._master = head, master
            self._seen = stamp
        return self._master

    def _refuse_another_vaults(self, head: Head, master: bytes) -> None:
        """Refuse a master key that opens nothing here: who put it in place could read all that follows."""
        try:
            open_key(self.files, head, master, "pseudonym", 0)
        except FileNotFoundError as error:
            if self.files.generation(head.generation).is_dir():
                raise IntegrityError(
                    f"the key of pseudonyms is missing from {self.files.root}: restore the newest copy of "
                    "the key folder"
                ) from error  # without the folder a rotation has just gone on; who reads a key tries again
        except IntegrityError as error:
            if self.files.generation(head.generation).is_dir() and self.files.head() == head:
                raise IntegrityError(
                    f"the master key of {self.files.root / 'vault.json'} does not open the keys beside it: "
                    "vault.json was exchanged, or the key of pseudonyms was changed. Restore the newest copy "
                    "of the key folder."
                ) from error

    def adopt(self, head: Head, master: bytes, access: Access) -> None:
        """Go on with the master key of a rotation that was just done."""
        self._master, self._seen, self.access = (head, master), None, access

    def pseudonym_key(self) -> bytes:
        """Return the key of pseudonyms; `sfumato.data.people` makes them."""
        return self._stored("pseudonym", 0)

    def newest(self, owner: str) -> tuple[int, bytes]:
        """Return the number and bytes of the key for an owner's new items; the first is made now.

        Raises:
            Erased: the owner was erased; no key is made for them again.
        """
        self.refuse_erased(owner)
        head, _ = self.unlock()
        numbers = self.files.numbers(head.generation, owner)
        if not numbers:
            with self.files.lock():
                self.refuse_erased(owner)
                head, master = self.unlock()
                numbers = self.files.numbers(head.generation, owner)
                if not numbers:
                    add_key(self.files, head, master, owner, 1)
                    numbers = [1]
        return numbers[-1], self.key(owner, numbers[-1])

    def key(self, owner: str, number: int) -> bytes:
        """Return one key of an owner.

        Raises:
            Erased: the owner was erased.
            IntegrityError: the key is missing or was changed.
        """
        self.refuse_erased(owner)
        if (owner, number) not in self._cache:
            self._cache[owner, number] = self._stored(owner, number)
        return self._cache[owner, number]

    def knows(self, owner: str) -> bool:
        """Whether an owner has a key, or had one and was erased."""
        head = self.files.head()
        return bool(self.files.numbers(head.generation, owner)) or self.files.erased(owner) is not None

    def refuse_erased(self, owner: str) -> None:
        """Raise Erased if the owner was erased, by whatever process."""
        if (at := self.files.erased(owner)) is not None:
            self.forget(owner)
            raise Erased(
                f"this person was erased {at}: their key was destroyed, and no copy of their data can be "
                "read. New data about them is refused too; it would need another subject id."
            )

    def erase(self, owner: str) -> str:
        """Destroy an owner's keys wherever they lie here; return when (an earlier time, if it was then).

        The tombstone comes first: a process killed in the middle leaves an erasure that counts at once and
        is finished when the vault is next opened.
        """
        with self.files.lock():
            self.files.tidy()
            at = self.files.erased(owner)
            if at is None:
                at = datetime.now(UTC).isoformat(timespec="seconds")
                self.files.bury(owner, at)
            self.files.destroy(owner)
        self.forget(owner)
        return at

    def forget(self, owner: str) -> None:
        """Drop an owner's keys from memory."""
        for known in [known for known in self._cache if known[0] == owner]:
            del self._cache[known]

    def _stored(self, owner: str, number: int) -> bytes:
        while True:
            head, master = self.unlock()
            try:
                return open_key(self.files, head, master, owner, number)
            except (FileNotFoundError, IntegrityError) as error:
                self.refuse_erased(owner)
                if self.files.head() != head:  # a rotation destroyed this one while it was being read
                    continue
                if isinstance(error, IntegrityError):
                    raise
                raise IntegrityError(
                    f"key {number} of {owner[:16]} is missing from {self.files.root}: restore the newest "
                    "copy of the key folder"
                ) from error


def subject_or_dataset(place: Place) -> str:
    """Return the owner whose key protects an item: its subject, or its dataset if it is about no single one.

    Raises:
        InvalidRequest: the subject is not a pseudonym.
    """
    if not place.subject:
        return owner_of("dataset", place.dataset)
    return owner_of("subject", checked_pseudonym(place.subject))


def checked_pseudonym(subject: str) -> str:
    """Return a pseudonym as it is, and refuse anything else, so that no name is stored in its place."""
    if len(subject) != PSEUDONYM_DIGITS or set(subject) - set("0123456789abcdef"):
        raise InvalidRequest(
            f"a subject is named by a pseudonym of {PSEUDONYM_DIGITS} hex digits, got {len(subject)} "
            "characters that are none: call sfumato.data.people.People.subject(id, population) first"
        )
    return subject


def add_key(files: KeyFolder, head: Head, master: bytes, owner: str, number: int) -> None:
    """Make a new data key; call with the lock held."""
    sealed = seal_bytes(master, SYSTEM.bytes(KEY_BYTES), head.context(owner, number))
    files.write_key(files.key(head.generation, owner, number), sealed)


def open_key(files: KeyFolder, head: Head, master: bytes, owner: str, number: int) -> bytes:
    """Read one key file; the owner "pseudonym" has the key of pseudonyms."""
    if owner == "pseudonym":
        path, context = files.pseudonym_key(head.generation), head.context("pseudonym")
    else:
        path, context = files.key(head.generation, owner, number), head.context(owner, number)
    try:
        return unseal_bytes(master, path.read_bytes(), context)
    except IntegrityError as error:
        raise IntegrityError(f"the key file {path.name} of {owner[:16]} was changed: {error}") from error


def _plugin(name: str, access: Access) -> Wrapping:
    plugin: Wrapping = CATALOGUE.build(name, access=access)
    return plugin
