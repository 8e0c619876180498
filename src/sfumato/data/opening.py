"""Opening a project's data: its catalogue, and the store that its versions lie in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.core.errors import InvalidRequest
from sfumato.core.project import FOLDER
from sfumato.data.catalogue import FOLDER as CATALOGUE
from sfumato.data.catalogue import OBJECTS, Catalogue
from sfumato.data.keyfiles import holds_vault
from sfumato.data.people import people_of
from sfumato.data.store import PlainStore, Store

if TYPE_CHECKING:
    from sfumato.core.project import Project
    from sfumato.data.wrapping import Access


def open_catalogue(project: Project, access: Access | None = None) -> Catalogue:
    """Return a project's catalogue; looking at it needs no key."""
    return Catalogue(project.root / FOLDER / CATALOGUE, people_of(project, access))


def open_data(project: Project, access: Access | None = None) -> tuple[Catalogue, Store]:
    """Return a project's catalogue and store: the vault where there is one, plain files otherwise.

    No key is asked for before something has to be read, written or named.

    Args:
        access: what may open the vault.

    Raises:
        InvalidRequest: the data was not moved into the vault wholly.
    """
    folder = project.root / FOLDER
    catalogue = open_catalogue(project, access)
    plain = PlainStore(folder / OBJECTS)
    if not holds_vault(folder):
        return catalogue, plain
    if any(True for _ in plain.names()):
        raise InvalidRequest(
            "the data was not moved into the vault wholly, and some of it lies in clear: finish it with "
            "`sfumato vault init`"
        )
    from sfumato.data.vault import Vault

    return catalogue, Vault.of(project.root, access)
