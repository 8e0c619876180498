"""A key file that lies outside the project: on a removable disk, or mounted by the system that runs it."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import IntegrityError, InvalidRequest, VaultLocked
from sfumato.core.files import write_whole
from sfumato.data.lock import locked
from sfumato.data.sealing import KEY_BYTES, seal_bytes, unseal_bytes
from sfumato.data.wrapping import Access

SUMMARY = "a key file outside the project (setting: path)"
NEEDS = ("cryptography",)
EXTRA = "vault"

VARIABLE = "SFUMATO_KEY_FILE"


class KeyFile:
    """Wraps with the 32 bytes in a file, which is made where it does not exist."""

    def __init__(self, access: Access) -> None:
        access.only("file", "path")
        self._project = access.project
        self._path = access.option("path") or os.environ.get(VARIABLE, "")

    def wrap(
        self, secret: bytes, context: bytes, *, previous: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return a record with the file's path and the sealed secret."""
        named = self._path or str((previous or {}).get("path", ""))
        if not named:
            raise InvalidRequest(
                f"the wrapping 'file' needs a path outside the project: --set path=FILE, or {VARIABLE}"
            )
        path = Path(named).expanduser().resolve()
        self._outside(path)
        _make(path)
        return {"path": str(path), "sealed": seal_bytes(_read(path), secret, context).hex()}

    def unwrap(self, record: Mapping[str, Any], context: bytes) -> bytes:
        """Return the secret."""
        try:
            named, sealed = str(record["path"]), bytes.fromhex(record["sealed"])
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"vault.json does not hold a key file record: {error}") from error
        path = Path(self._path or named).expanduser().resolve()
        self._outside(path)
        key = _read(path)
        try:
            return unseal_bytes(key, sealed, context)
        except IntegrityError as error:
            raise VaultLocked(
                f"the key file {path} does not open this vault, or its vault.json was changed. Name the "
                f"right file by {VARIABLE}."
            ) from error

    def forget(self, record: Mapping[str, Any]) -> None:
        """Leave the file: another vault may use it, and it opens nothing of this one any more."""

    def _outside(self, path: Path) -> None:
        if self._project is not None and path.is_relative_to(self._project.resolve()):
            raise InvalidRequest(
                f"the key file {path} lies inside the project, beside what it protects: a copy of the "
                "folder would be a copy of both. Name a place outside it."
            )


def _make(path: Path) -> None:
    """Make a key file, unless there is one: of two that make it at once, both use the first one's."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            write_whole(path, SYSTEM.bytes(KEY_BYTES).hex() + "\n", mode=0o600)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(4096)
    except OSError as error:
        raise VaultLocked(
            f"the key file {path} cannot be read ({error.strerror}): attach it, or name another place by "
            f"{VARIABLE}"
        ) from error
    if os.name == "posix" and mode & 0o077:
        raise VaultLocked(f"the key file {path} is open to others (mode {mode:o}): chmod 600 {path}")
    try:
        key = bytes.fromhex(text.decode())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise VaultLocked(
            f"{path} is not a key file: it must hold {2 * KEY_BYTES} hex digits and nothing else"
        )
    return key


def build(access: Access | None = None) -> KeyFile:
    """Build the wrapping."""
    return KeyFile(access or Access())
