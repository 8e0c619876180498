"""How a vault's keys lie on disk; nothing here can open them.

    .sfumato/keys/
      vault.json         which generation counts, and the wrapped master key: written whole, last
      rotating.json      only while a rotation runs: from which generation to which
      g-000001/          a generation: every key, sealed under one master key
        pseudonym.key
        ab/<owner>/1.key one file per key, written once
      erased/<owner>     tombstones: the owner's keys are destroyed, or will be at the next open
      aside/             files being written
      lock
    .sfumato/keys-erased/  the tombstones again, so that an older key folder put back brings nobody back

An owner is a subject or a dataset, as a hash. A key file is never rewritten, only overwritten to destroy it:
a rewritten file would leave the old bytes in free blocks. That is also why keys are no database rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import IntegrityError, VaultLocked
from sfumato.core.files import canonical, make_private, shred, sync_folder, write_whole
from sfumato.core.identity import KEY_NAME
from sfumato.data.lock import locked

FORMAT = "sfumato-vault/1"
#: Where the keys lie, in a project's .sfumato.
KEYS = "keys"
_OWNER = re.compile("[0-9a-f]{64}")
_KEY = re.compile(r"[1-9][0-9]{0,8}\.key")


@dataclass(frozen=True, slots=True)
class Head:
    """What vault.json says: the generation that counts, and how its master key is wrapped."""

    vault: str
    generation: int
    wrapping: str
    record: dict[str, Any]

    def context(self, *what: str | int) -> bytes:
        """Return what a sealed key of this generation is bound to."""
        return canonical([FORMAT, self.vault, self.generation, *what])


def owner_of(kind: str, name: str) -> str:
    """Return the hash that keys and tombstones of a subject or dataset are filed under."""
    return hashlib.sha256(f"sfumato {kind}\x00{name}".encode("utf-8", "surrogatepass")).hexdigest()


def holds_vault(folder: Path) -> bool:
    """Return whether a project's folder .sfumato holds a vault.

    Raises:
        IntegrityError: it holds what a vault left, and not the vault: nothing may take its place.
    """
    if (folder / KEYS / "vault.json").exists():
        return True
    # A vault that was being made, and is not yet, leaves the plain key where it is.
    left = any((folder / KEYS).glob("g-*/??/*")) or any((folder / "vault").glob("??/*"))
    taken = any((folder / KEYS).glob("g-*")) and not (folder / KEY_NAME).exists()
    if left or taken:
        raise IntegrityError(
            f"{folder} has had a vault, and its {KEYS}/vault.json is gone: without it nothing opens. Restore "
            "its newest copy."
        )
    return False


class KeyFolder:
    """The key files of one vault."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._head = root / "vault.json"
        self._rotating = root / "rotating.json"
        self._erased = root / "erased"
        self._twins = root.with_name(f"{root.name}-erased")
        self._aside = root / "aside"

    def make(self) -> None:
        """Make the folders; others may not look inside."""
        for folder in (self.root, self._erased, self._aside):
            make_private(folder)

    @property
    def exists(self) -> bool:
        """Whether a vault was made here."""
        return self._head.exists()

    def lock(self) -> AbstractContextManager[None]:
        """Hold the one lock of all writers."""
        return locked(self.root / "lock")

    # The head

    def stamp(self) -> tuple[int, int]:
        """Return what changes when another process writes vault.json."""
        try:
            found = self._head.stat()
        except FileNotFoundError as error:
            raise VaultLocked(f"there is no vault at {self.root}: run `sfumato vault init`") from error
        return found.st_ino, found.st_mtime_ns

    def head(self) -> Head:
        """Read vault.json.

        Raises:
            VaultLocked: there is no vault here.
            IntegrityError: it does not read, or an older copy of it was put back.
        """
        while True:
            stamp = self.stamp()
            head = self._read_head()
            newest = max(self.generations(), default=0)
            late = newest > head.generation and self.rotating is None
            if self.generation(head.generation).is_dir() and not late:
                return head
            rotated_meanwhile = self.stamp() != stamp or max(self.generations(), default=0) != newest
            if not rotated_meanwhile:
                raise IntegrityError(
                    f"{self._head} speaks of generation {head.generation}, and the newest keys here are of "
                    f"generation {newest}: an older copy of one was put back. Restore the newest of both."
                )

    def _read_head(self) -> Head:
        try:
            data = json.loads(self._head.read_text(encoding="utf-8"))
            if data.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            record = dict(data["record"])
            return Head(str(data["vault"]), int(data["generation"]), str(data["wrapping"]), record)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(
                f"{self._head} does not read ({error!r}): without it nothing opens. Restore its newest copy."
            ) from error

    def write_head(self, head: Head) -> None:
        """Make a generation the one that counts; the old one counts until this returns."""
        self._write(self._head, (json.dumps({"format": FORMAT, **asdict(head)}, indent=2) + "\n").encode())

    # Generations

    def generation(self, number: int) -> Path:
        """Return the folder of one generation."""
        return self.root / f"g-{number:06d}"

    def generations(self) -> list[int]:
        """Return the generations that lie here; more than one only while a rotation runs."""
        return sorted(int(path.name[2:]) for path in self.root.glob("g-[0-9]*") if path.name[2:].isdigit())

    @property
    def rotating(self) -> tuple[int, int] | None:
        """From which generation to which a rotation runs, or was stopped."""
        try:
            data = json.loads(self._rotating.read_text(encoding="utf-8"))
            old, new = int(data["from"]), int(data["to"])
            if new != old + 1:
                raise ValueError(f"no rotation goes from generation {old} to {new}")
            return old, new
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{self._rotating} does not read: {error!r}") from error

    def begin_rotation(self, old: int, new: int) -> None:
        """Write down what is about to happen."""
        self._write(self._rotating, json.dumps({"from": old, "to": new}).encode())

    def end_rotation(self) -> None:
        """Destroy the generation that does not count, and then the note of the rotation."""
        if (rotating := self.rotating) is None:
            return
        old, new = rotating
        counts = self.head().generation
        if counts not in rotating:
            raise IntegrityError(f"{self._rotating} speaks of generations {old} and {new}, {counts} counts")
        loser = self.generation(new if counts == old else old)
        if os.path.lexists(loser):
            shred_tree(loser)
        self._rotating.unlink(missing_ok=True)
        sync_folder(self.root)

    # Keys

    def owners(self, generation: int) -> Iterator[str]:
        """Iterate over the owners that have a key."""
        for path in sorted(self.generation(generation).glob("??/*")):
            yield path.name

    def numbers(self, generation: int, owner: str) -> list[int]:
        """Return the numbers of an owner's keys, oldest first."""
        folder = self._owner(generation, owner)
        with contextlib.suppress(FileNotFoundError):
            return sorted(int(path.stem) for path in folder.iterdir() if _KEY.fullmatch(path.name))
        return []

    def key(self, generation: int, owner: str, number: int) -> Path:
        """Return where one key lies."""
        return self._owner(generation, owner) / f"{number}.key"

    def pseudonym_key(self, generation: int) -> Path:
        """Return where the key of pseudonyms lies."""
        return self.generation(generation) / "pseudonym.key"

    def write_key(self, path: Path, sealed: bytes) -> None:
        """Write one sealed key, durably."""
        for folder in reversed(path.parents):
            if not folder.exists():
                make_private(folder)
                sync_folder(folder.parent)
        self._write(path, sealed)

    # Erasure

    def erased(self, owner: str) -> str | None:
        """Return when an owner was erased (UTC, ISO 8601); None if they were not."""
        for folder in (self._erased, self._twins):
            with contextlib.suppress(FileNotFoundError):
                return (folder / owner).read_text(encoding="utf-8").strip() or "at an unknown time"
        return None

    def all_erased(self) -> list[str]:
        """Return every owner that has a tombstone."""
        return sorted(_tombstones(self._erased) | _tombstones(self._twins))

    def bury(self, owner: str, at: str) -> None:
        """Write a tombstone: from here on the erasure will be finished, by whoever opens the vault next."""
        self._write(self._erased / owner, f"{at}\n".encode())
        self._repair_tombstones()

    def _repair_tombstones(self) -> None:
        """Put every tombstone in both of its places."""
        here, twins = _tombstones(self._erased), _tombstones(self._twins)
        for owner in twins - here:
            self._write(self._erased / owner, (self._twins / owner).read_bytes())
        if here - twins:
            make_private(self._twins)
        for owner in here - twins:  # not by way of `aside`: the key folder may be a disk of its own
            write_whole(self._twins / owner, (self._erased / owner).read_bytes(), mode=None)

    def destroy(self, *owners: str) -> None:
        """Destroy the keys of owners in every generation that lies here."""
        generations = self.generations()
        for owner in owners:
            for folder in [self._owner(generation, owner) for generation in generations]:
                if os.path.lexists(folder):
                    shred_tree(folder)
                    sync_folder(folder.parent)

    def destroy_below(self, owner: str, number: int) -> None:
        """Destroy an owner's keys of lower numbers, in every generation. Call with the lock held."""
        for generation in self.generations():
            for old in self.numbers(generation, owner):
                if old < number:
                    shred(self.key(generation, owner, old))

    def tidy(self) -> None:
        """Finish what a killed process left: files aside, a rotation, erasures. Call with the lock held."""
        if self._aside.is_dir():
            for path in self._aside.iterdir():
                shred_tree(path)
        self._repair_tombstones()
        self.end_rotation()
        self.destroy(*self.all_erased())

    def _owner(self, generation: int, owner: str) -> Path:
        return self.generation(generation) / owner[:2] / owner

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file whole. The file aside lies where `tidy` finds it, whatever happens."""
        aside = self._aside / SYSTEM.bytes(8).hex()
        write_whole(aside, data, mode=None)
        aside.replace(path)
        sync_folder(path.parent)


def _tombstones(folder: Path) -> set[str]:
    with contextlib.suppress(FileNotFoundError):
        return {path.name for path in folder.iterdir() if _OWNER.fullmatch(path.name)}
    return set()


def shred_tree(path: Path) -> None:
    """Shred a file, or a folder and all in it. A link is removed; what it leads to is not touched."""
    if path.is_symlink() or not path.is_dir():
        shred(path)
        return
    for inner in sorted(path.iterdir()):
        shred_tree(inner)
    path.rmdir()
