"""From a person's id to the keyed hashes that a project knows them by, and where to look for them."""

from __future__ import annotations

from sfumato.core.errors import InvalidRequest, SfumatoError, UnknownName
from sfumato.core.identity import Pseudonyms
from sfumato.core.project import FOLDER, Project
from sfumato.data.add import scope_of
from sfumato.data.catalogue import OBJECTS, Catalogue
from sfumato.data.store import PlainStore, Store
from sfumato.data.vault import Vault
from sfumato.data.wrapping import Access
from sfumato.report.subject import Subject


def find(project: Project, id: str, population: str = "", access: Access | None = None) -> Subject:
    """Return a person of a project by their id; the id itself goes no further.

    Args:
        population: whose people they are one of; empty: the only one that the policy declares.
        access: what opens the vault, where there is one.

    Raises:
        UnknownName, InvalidRequest: no such population, or several and none was named.
    """
    if not id.strip():
        raise InvalidRequest("a person is asked for by their id, and an empty one was given")
    population = _population(project, population)
    catalogue = Catalogue.of(project)
    scopes = [population] if population else [scope_of("", name) for name in catalogue.names()]
    names = [catalogue.pseudonyms.of(scope, id) for scope in scopes]
    names.append(Pseudonyms.of(project.root / FOLDER).subject(id))
    if (project.root / FOLDER / "keys").is_dir():
        names.append(Vault.of(project.root, access).pseudonym(id))
    return Subject(tuple(dict.fromkeys(names)), population, store_of(project, access))


def store_of(project: Project, access: Access | None = None) -> Store | None:
    """Return where a project's data lie; None where they cannot be opened now."""
    inside = project.root / FOLDER
    if not (inside / "keys").is_dir():
        return PlainStore(inside / OBJECTS)
    try:
        return Vault.of(project.root, access)
    except SfumatoError:
        return None


def _population(project: Project, population: str) -> str:
    declared = project.policy.populations
    if population:
        if population not in declared:
            raise UnknownName("population", population, declared)
        return population
    if len(declared) > 1:
        raise InvalidRequest(
            f"the policy declares several populations ({', '.join(sorted(declared))}): name one "
            "with --population"
        )
    return next(iter(declared), "")
