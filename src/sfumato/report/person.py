"""From a person's id to the pseudonym that a project knows them by, and where to look for them."""

from __future__ import annotations

from sfumato.core.errors import SfumatoError
from sfumato.core.project import Project
from sfumato.data.opening import open_data
from sfumato.data.people import people_of
from sfumato.data.store import Store
from sfumato.data.wrapping import Access
from sfumato.report.subject import Subject


def find(project: Project, id: str, population: str = "", access: Access | None = None) -> Subject:
    """Return a person of a project by their id; the id itself goes no further.

    Args:
        population: whose people they are one of; empty: of the datasets without one.
        access: what opens the vault, where there is one.

    Raises:
        InvalidRequest: the id is empty. VaultLocked: the vault, which holds the key, does not open.
    """
    name = people_of(project, access).subject(id, population)
    return Subject((name,), population, store_of(project, access))


def store_of(project: Project, access: Access | None = None) -> Store | None:
    """Return where a project's data lie; None where that cannot be opened now."""
    try:
        return open_data(project, access)[1]
    except SfumatoError:
        return None
