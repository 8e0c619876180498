"""Opening a project's data: its catalogue, and the store that its versions lie in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.core.errors import InvalidRequest
from sfumato.core.project import FOLDER
from sfumato.core.vaults import ROTATED
from sfumato.data.catalogue import FOLDER as CATALOGUE
from sfumato.data.catalogue import OBJECTS, Catalogue
from sfumato.data.people import People, people_of
from sfumato.data.pinning import checked_vault, pinned
from sfumato.data.recording import Recorder
from sfumato.data.store import PlainStore, Store

if TYPE_CHECKING:
    from sfumato.core.project import Project
    from sfumato.data.rotation import Rotated
    from sfumato.data.takeover import Taken
    from sfumato.data.vault import Vault
    from sfumato.data.wrapping import Access


def open_catalogue(project: Project, access: Access | None = None) -> Catalogue:
    """Return a project's catalogue; looking at it needs no key."""
    return Catalogue(project.root / FOLDER / CATALOGUE, people_of(project, access))


def open_data(
    project: Project, access: Access | None = None, *, record: bool = True
) -> tuple[Catalogue, Store]:
    """Return a project's catalogue and store: the vault where there is one, plain files otherwise.

    Versions that a stopped process left out of the ledger are recorded, where a curator opens the data.

    No key is asked for before something has to be read, written or named.

    Args:
        access: what may open the vault.
        record: False leaves the ledger as it is.

    Raises:
        InvalidRequest: the data was not moved into the vault wholly.
        IntegrityError: the ledger knows a vault, and there is none here, or another one.
    """
    folder = project.root / FOLDER
    name = checked_vault(project)
    recorder = Recorder(project)
    catalogue = Catalogue(folder / CATALOGUE, people_of(project, access), recorder)
    if record:
        recorder.catch_up(catalogue)
    plain = PlainStore(folder / OBJECTS)
    if not name:
        return catalogue, plain
    if pinned(project) is None:  # whoever made it was stopped, or may not record
        recorder.vault(name)
    if any(True for _ in plain.names()):
        raise InvalidRequest(
            "the data was not moved into the vault wholly, and some of it lies in clear: finish it with "
            "`sfumato vault init`"
        )
    from sfumato.data.vault import Vault

    return catalogue, Vault.of(project.root, access)


def open_vault(project: Project, access: Access | None = None) -> Vault:
    """Return a project's vault; the key is asked for when it is needed.

    Raises:
        VaultLocked: it has none; IntegrityError: the ledger knows one, and there is none here, or another.
    """
    from sfumato.data.vault import Vault

    checked_vault(project)
    return Vault.of(project.root, access)


def rotate_vault(
    project: Project,
    old: Access,
    new: Access,
    *,
    wrapping: str = "",
    data_keys: bool = False,
) -> Rotated:
    """Rotate the vault's master key (`sfumato.data.rotation.rotate`), and record it.

    Args:
        old, new: what opens the old master key, and the new one.
    """
    from sfumato.data.rotation import rotate

    keys = open_vault(project, old).keys
    done = rotate(keys, wrapping=wrapping, access=new, data_keys=data_keys)
    Recorder(project).vault(keys.files.head().vault, ROTATED)
    return done


def make_vault(
    project: Project, wrapping: str = "passphrase", access: Access | None = None
) -> tuple[Vault, Taken]:
    """Make a project's vault and take its data over; where that was stopped, go on with it.

    Raises:
        InvalidRequest: it has a vault, and all its data is in there.
    """
    from sfumato.data.takeover import take_over
    from sfumato.data.vault import Vault

    folder = project.root / FOLDER
    plain = PlainStore(folder / OBJECTS)
    if checked_vault(project) and any(True for _ in plain.names()):
        vault = Vault.of(project.root, access)
    else:
        vault = Vault.init(project.root, wrapping, access)
    recorder = Recorder(project)
    recorder.vault(vault.keys.files.head().vault)
    catalogue = Catalogue(folder / CATALOGUE, People(vault.keys.pseudonym_key), recorder)
    recorder.catch_up(catalogue)
    return vault, take_over(catalogue, plain, vault)
