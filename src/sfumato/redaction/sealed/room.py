"""Where a project keeps sealed originals: `.sfumato/sealed`, a file per redacted output, by its hash."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.core.errors import Erased, IntegrityError, InvalidRequest
from sfumato.core.files import make_private, sha256_of, sync_folder
from sfumato.core.project import FOLDER
from sfumato.core.receipt import Output
from sfumato.data.lock import locked
from sfumato.data.sealed_keys import destroy, new_lock, open_lock, renew, retire_older
from sfumato.redaction.sealed.sealer import Sealer, join
from sfumato.redaction.sealed.sidecar import Sealed, open_sealed, read_head

if TYPE_CHECKING:
    from sfumato.core.project import Project
    from sfumato.data.vault import Vault
    from sfumato.data.wrapping import Access

SEALED = "sealed"
NO_VAULT = (
    "sealing originals needs a project with a vault, whose keys they are sealed under. In the project's "
    "folder: pip install 'sfumato[vault]', then `sfumato vault init`"
)


@dataclass(frozen=True, slots=True)
class Wish:
    """That originals are to be sealed, and how.

    Args:
        access: what may open the vault.
        subjects: ids of the people that the files are about; erasing one of them ends what was sealed.
        population: which people the ids are of; empty for none.
        folder: where the sealed files are kept; None: in the project.
    """

    access: Access | None = None
    subjects: tuple[str, ...] = ()
    population: str = ""
    folder: Path | None = None


@dataclass(slots=True)
class Room:
    """The sealed originals of one project.

    Args:
        folder: where the files lie.
        vault: whose keys they are sealed under.
        subjects: pseudonyms of the people that what is sealed from now on is about.
        sealed: how many files this room has sealed.
    """

    folder: Path
    vault: Vault
    subjects: tuple[str, ...] = ()
    sealed: int = 0

    @classmethod
    def of(cls, project: Project | None, wish: Wish | None = None, *, unlock: bool = True) -> Room:
        """Open a project's room.

        Args:
            unlock: ask for the vault's key now, so that nothing fails half way.

        Raises:
            InvalidRequest: no project, or no vault in it. VaultLocked: the key is not to be had.
            Erased: one of the people was erased.
        """
        from sfumato.data.opening import open_vault
        from sfumato.data.pinning import checked_vault

        wish = wish or Wish()
        if project is None or not checked_vault(project):
            raise InvalidRequest(NO_VAULT)
        vault = open_vault(project, wish.access)
        if unlock:
            vault.keys.unlock()
        subjects = tuple(vault.pseudonym(one, wish.population) for one in wish.subjects)
        for subject in subjects:
            if vault.knows(subject):
                vault.keys.refuse_erased(_owner(subject))
        return cls(wish.folder or project.root / FOLDER / SEALED, vault, subjects)

    # Sealing

    @contextlib.contextmanager
    def staging(self, prefix: str, *, exclusive: bool) -> Iterator[Path]:
        """Yield an empty private folder; what killed runs of the same outputs left is swept away first."""
        make_private(self.folder)
        if exclusive:
            for left in self.folder.glob(f"{prefix}*"):
                shutil.rmtree(left, ignore_errors=True)
        aside = Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder))
        try:
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def begin(self, source: Path, aside: Path) -> Sealer:
        """Return the sealer of one output.

        Args:
            source: what is redacted.
            aside: a folder of its own.
        """
        make_private(aside)
        return Sealer.new(aside, self.fingerprint(source))

    def fingerprint(self, source: Path) -> str:
        """Return a keyed hash of a source, by which only this project knows it."""
        return self.vault.fingerprint(sha256_of(source))

    def join(self, sealer: Sealer, output: Output) -> Path | None:
        """Make one file of what was sealed for an output; None where nothing was hidden."""
        if not sealer.parts() or not any(sealer.read_part(number)["tracks"] for number in sealer.parts()):
            return None
        lock = new_lock(self.vault.keys, sealer.seal, self.subjects)
        return join(sealer, lock, output, self.subjects)

    def keep(self, made: Path, output: Output, source: str) -> None:
        """Give a file its name; one that was sealed of the same source for the same output is destroyed."""
        make_private(self.folder)
        place = self.place(output.sha256, source)
        with self._alone():
            older = read_head(place)[0] if place.exists() else None
            made.replace(place)
            sync_folder(self.folder)
            self.sealed += 1
            if older is not None:
                destroy(self.vault.keys, older)

    def holds(self, output: Output, source: Path) -> bool:
        """Whether the originals of an output are sealed here."""
        return self.place(output.sha256, self.fingerprint(source)).exists()

    def place(self, output: str, source: str) -> Path:
        """Return where the originals of one output of one source lie."""
        return self.folder / f"{output}-{source[:16]}.sealed"

    # Opening

    def find(self, output: Path) -> list[Path]:
        """Return the files with originals of a redacted file.

        Raises:
            IntegrityError: there are none: it was changed, or nothing of it was sealed.
        """
        digest = sha256_of(output)
        found = sorted(self.folder.glob(f"{digest}-*.sealed"))
        if not found:
            raise IntegrityError(
                f"no originals are sealed for {output.name} as it is (sha256 {digest[:16]}...): it was "
                "changed since, it was redacted without --seal, or nothing was hidden in it. Use the "
                f"redacted file as it was written; sealed files lie in {self.folder}"
            )
        return found

    def open(self, path: Path) -> Sealed:
        """Open a file.

        Raises:
            Erased: it was destroyed, or a person it is about was erased.
            IntegrityError: it was changed, cut off, or belongs to another project or output.
        """
        seal, owners = read_head(path)
        try:
            lock = open_lock(self.vault.keys, seal, owners)
        except Erased as error:
            raise Erased(f"{path.name[:16]}...: {error}") from error
        except IntegrityError as error:
            raise IntegrityError(f"the sealed originals {path.name}: {error}") from error
        sealed = open_sealed(path, lock)
        if not path.name.startswith(f"{sealed.output}-"):
            raise IntegrityError(
                f"{path.name} holds the originals of another output, {sealed.output[:16]}...: it was renamed "
                "or put in another file's place. Nothing is restored"
            )
        retire_older(self.vault.keys, seal, lock)  # where the end of a track was stopped half way
        return sealed

    # Ending

    def end(self, path: Path) -> str:
        """Destroy a file's keys and the file; return when. Needs no master key."""
        with self._alone():
            return self._end(path)

    def _end(self, path: Path) -> str:
        at = destroy(self.vault.keys, read_head(path)[0])
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
        return at

    def _alone(self) -> AbstractContextManager[None]:
        """Hold the one lock of all who write here: two ends at once would bring each other's track back."""
        return locked(self.folder / ".lock")

    def end_tracks(self, path: Path, tracks: Sequence[int]) -> None:
        """Destroy some tracks of a file: no copy of it, old or new, opens them again.

        Killed at any moment, doing it again completes it.
        """
        with self._alone():
            self._end_tracks(path, tracks)

    def _end_tracks(self, path: Path, tracks: Sequence[int]) -> None:
        for left in self.folder.glob(".ending-*"):
            shutil.rmtree(left, ignore_errors=True)
        sealed = self.open(path)
        if set(sealed.tracks) <= set(tracks):
            self._end(path)
            return
        keys = self.vault.keys
        lock = renew(keys, sealed.seal, sealed.lock)
        aside = Path(tempfile.mkdtemp(prefix=".ending-", dir=self.folder))
        try:
            sealed.without(tracks, lock, aside / path.name)
            (aside / path.name).replace(path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        retire_older(keys, sealed.seal, lock)


def _owner(subject: str) -> str:
    from sfumato.data.keyfiles import owner_of

    return owner_of("subject", subject)
