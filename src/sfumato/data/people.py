"""People: the one place where a person's id becomes the pseudonym that a project knows them by."""

from __future__ import annotations

import hashlib
import hmac
import os
import unicodedata
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.core.errors import InvalidRequest
from sfumato.core.files import make_private, shred
from sfumato.core.identity import KEY_NAME, Pseudonyms
from sfumato.core.project import FOLDER
from sfumato.data.keyfiles import KEYS, holds_vault
from sfumato.data.lock import locked
from sfumato.data.pinning import checked_vault

if TYPE_CHECKING:
    from sfumato.core.project import Project
    from sfumato.data.wrapping import Access

DIGITS = 32


class People:
    """Turns people's ids into pseudonyms: one per person and population, in all that a project keeps.

    Without the key nobody can tell, by trying names, whose a pseudonym is. With it, anybody can: it is as
    sensitive as the list of names. A pseudonym is not anonymity.

    >>> people = People(lambda: bytes(32))
    >>> people.subject(" 17", "patients") == people.subject("17", "patients") != people.subject("17", "staff")
    True

    Args:
        key: gives the project's pseudonym key, 32 bytes; called when it is first needed.
    """

    def __init__(self, key: Callable[[], bytes]) -> None:
        self._ask = key

    @cached_property
    def _key(self) -> bytes:
        return self._ask()

    def subject(self, id: str, population: str = "") -> str:
        """Return a person's pseudonym: 32 hex digits.

        Args:
            id: what identifies the person; white space around it does not count. Stored nowhere.
            population: one of the policy's; empty for datasets without one.

        Raises:
            InvalidRequest: the id is empty. VaultLocked: the key lies in a vault that does not open.
        """
        # NFC: the same name typed on two systems is the same person.
        name = unicodedata.normalize("NFC", id).strip()
        if not name:
            raise InvalidRequest("a subject needs an id, got an empty one")
        return self._mac("subject", population, name)[:DIGITS]

    def fingerprint(self, digest: str) -> str:
        """Return a keyed hash of a source, by which only this project knows that it has seen it."""
        return self._mac("source", digest)

    def content(self, digest: str) -> str:
        """Return a keyed hash of what entered, which tells that two versions hold the same."""
        return self._mac("content", digest)

    def path(self, subject: str, path: str) -> str:
        """Return a name for a file whose own name may be personal."""
        return self._mac("path", subject, path)[:DIGITS]

    def _mac(self, *parts: str) -> str:
        message = "".join(f"{len(part)}:{part}" for part in parts)  # so that no two splits read the same
        return hmac.digest(self._key, message.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()


def people_of(project: Project, access: Access | None = None) -> People:
    """Return a project's people; the key is read, or made, when a pseudonym is first asked for.

    Args:
        access: what may open the vault, where there is one.
    """
    return People(lambda: _key_of(project, access))


def people_beside(folder: Path) -> People:
    """Return the people of a project without a vault, by its folder `.sfumato`."""
    return People(lambda: plain_key(folder))


def _key_of(project: Project, access: Access | None) -> bytes:
    if checked_vault(project):
        from sfumato.data.vault import Vault

        return Vault.of(project.root, access).keys.pseudonym_key()
    return plain_key(project.root / FOLDER)


def plain_key(folder: Path) -> bytes:
    """Return the pseudonym key of a project without a vault; made once, for its owner's eyes only.

    Raises:
        InvalidRequest: a vault has taken the key over, or the file is damaged.
    """
    make_private(folder)
    with locked(folder / "pseudonym.lock"):  # a vault that is being made takes this lock too
        if holds_vault(folder):
            raise InvalidRequest(
                f"the key of pseudonyms lies in the vault {folder / KEYS} now: open the data anew"
            )
        Pseudonyms.of(folder)
        return (folder / KEY_NAME).read_bytes()


def forget_plain_key(folder: Path) -> None:
    """Destroy the plain key, once a vault has it: at the vault's making, or when it is next opened."""
    path = folder / KEY_NAME
    if path.exists() and holds_vault(folder) and os.access(folder, os.W_OK):
        with locked(folder / "pseudonym.lock"):
            if path.exists():
                shred(path)
