"""The vault that a project's ledger knows: none may be taken away, and none put in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.core import vaults
from sfumato.core.errors import IntegrityError
from sfumato.core.project import FOLDER
from sfumato.data.keyfiles import KEYS, KeyFolder, holds_vault

if TYPE_CHECKING:
    from sfumato.core.book import Entry
    from sfumato.core.project import Project


def pinned(project: Project) -> Entry | None:
    """Return the ledger's newest row about the project's vault; None where it knows of none."""
    opened = project.__dict__.get("ledger")
    if opened is not None:
        return vaults.newest(opened.book)
    ledger = project.book()
    try:
        return vaults.newest(ledger.book)
    finally:
        ledger.close()


def checked_vault(project: Project) -> str:
    """Return the name of the project's vault, empty where it has none; needs no key.

    Raises:
        IntegrityError: the ledger knows a vault, and there is none here, or another one.
    """
    folder = project.root / FOLDER
    here = KeyFolder(folder / KEYS).head().vault if holds_vault(folder) else ""
    row = pinned(project)
    if row is None or row.body["vault"] == here:
        return here
    was = f"another one ({here}) is in its place" if here else f"{folder / KEYS} is gone"
    raise IntegrityError(
        f"this project has the vault {row.body['vault']} (row {row.seq} of the ledger), and {was}. Without "
        "it nothing it holds opens, and who was erased would be new again; so nothing is read or written. "
        f"Restore the newest copy of {folder / KEYS} and {folder / f'{KEYS}-erased'}. If it is lost for "
        "good, so is the data in it: move this folder away and add the data that you still have to a "
        "new project."
    )
