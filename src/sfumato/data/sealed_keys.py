"""Keys of sealed originals: a file's own, and those of the people it is about; it opens with all of them.

A file's own key is destroyed to end the file; a track is ended by sealing the others under a new own key and
destroying the old one. Erasing a person destroys theirs, and with it every file that they are named in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sfumato.core.errors import Erased, IntegrityError, MissingExtra
from sfumato.core.files import canonical
from sfumato.data.keyfiles import owner_of
from sfumato.data.keys import Keys, add_key, checked_pseudonym
from sfumato.data.sealing import KEY_BYTES

KIND: Final = "sealed originals"


@dataclass(frozen=True, slots=True)
class Lock:
    """What a file is locked with: owners of keys with the numbers of these, its own first, and the key."""

    owners: tuple[tuple[str, int], ...]
    key: bytes = field(repr=False)


def new_lock(keys: Keys, seal: str, subjects: Sequence[str] = ()) -> Lock:
    """Return the lock of a new file.

    Args:
        seal: the file's own name, random.
        subjects: pseudonyms of the people it is about; erasing any of them ends it.

    Raises:
        Erased: one of them was erased. VaultLocked: the master key is not to be had.
    """
    owners = [owner_of(KIND, seal), *(owner_of("subject", checked_pseudonym(one)) for one in subjects)]
    held = [(owner, *keys.newest(owner)) for owner in dict.fromkeys(owners)]
    return _joined(seal, held)


def open_lock(keys: Keys, seal: str, owners: Sequence[tuple[str, int]]) -> Lock:
    """Return the lock of a file, by what it says of its keys; finishes the end of a track that was stopped.

    Raises:
        Erased: the file was destroyed, or somebody it is about was erased.
        IntegrityError: a key is missing, or the file is an older copy than the last end of a track.
    """
    own, number = owners[0]
    if own != owner_of(KIND, seal):
        raise IntegrityError("it names another file's key as its own")
    if (at := keys.files.erased(own)) is not None:
        raise Erased(f"these originals were destroyed {at}: their key is gone, and nobody can restore them")
    there = keys.files.numbers(keys.unlock()[0].generation, own)
    if there and number < there[0]:
        raise IntegrityError(
            "it is an older copy: a track of it was destroyed since, and with it the key of this copy. "
            "Put the newest copy back"
        )
    if number not in there:
        raise IntegrityError(
            "its key is not in this project's vault: it belongs to another project, or the key folder is "
            "an older copy"
        )
    return _joined(seal, [(owner, n, keys.key(owner, n)) for owner, n in owners])


def renew(keys: Keys, seal: str, lock: Lock) -> Lock:
    """Return a new lock for a file: a new own key, and the same keys of people."""
    own = owner_of(KIND, seal)
    with keys.files.lock():
        keys.refuse_erased(own)
        head, master = keys.unlock()
        number = keys.files.numbers(head.generation, own)[-1] + 1
        add_key(keys.files, head, master, own, number)
    held = [(own, number), *lock.owners[1:]]
    return _joined(seal, [(owner, n, keys.key(owner, n)) for owner, n in held])


def retire_older(keys: Keys, seal: str, lock: Lock) -> None:
    """Destroy the own keys that a file had before this lock."""
    own, number = lock.owners[0]
    generations = keys.files.generations()
    if all(min(keys.files.numbers(one, own), default=number) >= number for one in generations):
        return
    with keys.files.lock():
        keys.files.destroy_below(own, number)
    keys.forget(own)


def destroy(keys: Keys, seal: str) -> str:
    """Destroy a file's own keys; return when. Needs no master key."""
    return keys.erase(owner_of(KIND, seal))


def derive(keys: Sequence[bytes], *about: str | int) -> bytes:
    """Return the key that follows from all of some keys, for one use; without any of them nobody has it."""
    try:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError as error:
        raise MissingExtra("sealing originals", ("cryptography",), "vault") from error
    info = canonical(["sfumato", KIND, len(keys), *about])
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(b"".join(keys))


def _joined(seal: str, held: Sequence[tuple[str, int, bytes]]) -> Lock:
    owners = tuple((owner, number) for owner, number, _ in held)
    return Lock(owners, derive([key for *_, key in held], "file", seal))
