"""Pseudonyms: a person's name in the store, keyed with a secret of the project."""

from __future__ import annotations

import hashlib
import hmac
import os
import unicodedata
from pathlib import Path

from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import IntegrityError
from sfumato.core.files import sync_folder

BYTES = 16


class Pseudonyms:
    """Turns identifying values into pseudonyms; the same value of the same people always gives the same one.

    Without the key nobody can tell, by trying names, whose a pseudonym is. With it, anybody can: it lies in
    the project and is as sensitive as the list of names. A pseudonym is not anonymity.

    >>> names = Pseudonyms(b"k" * 32)
    >>> names.of("patients", "17") == names.of("patients", "17") != names.of("staff", "17")
    True
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def open(cls, path: Path) -> Pseudonyms:
        """Return the project's pseudonyms; the key is drawn once, by whoever comes first.

        Raises:
            IntegrityError: the key file is damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            aside = path.with_name(f".{path.name}-{SYSTEM.bytes(8).hex()}")
            try:
                with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(SYSTEM.bytes(32))
                    file.flush()
                    os.fsync(file.fileno())
                os.link(aside, path)  # fails where another was first, and then theirs is the key
            except FileExistsError:
                pass
            finally:
                aside.unlink(missing_ok=True)
            sync_folder(path.parent)
        key = path.read_bytes()
        if len(key) != 32:
            raise IntegrityError(f"{path} holds {len(key)} bytes instead of a key of 32: restore it")
        return cls(key)

    def of(self, scope: str, value: str) -> str:
        """Return the pseudonym of a value: 32 hex digits.

        Args:
            scope: the people it is one of: the population, or the dataset where there is none.
            value: what identifies the person.
        """
        # NFC: the same name typed on two systems is the same person.
        return self._mac("subject", scope, unicodedata.normalize("NFC", value))[: 2 * BYTES]

    def fingerprint(self, digests: str) -> str:
        """Return a keyed hash, by which only this project can recognise data that it has seen."""
        return self._mac("source", digests)

    def path(self, subject: str, path: str) -> str:
        """Return a name for a file whose own name may be personal."""
        return self._mac("path", subject, path)[: 2 * BYTES]

    def _mac(self, *parts: str) -> str:
        message = "".join(f"{len(part)}:{part}" for part in parts)  # so that no two splits read the same
        return hmac.new(self._key, message.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
