"""A passphrase, stretched by scrypt."""

from __future__ import annotations

import getpass
import hashlib
import os
import sys
import unicodedata
from collections.abc import Mapping
from typing import Any

from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import IntegrityError, InvalidRequest, VaultLocked
from sfumato.data.sealing import seal_bytes, unseal_bytes
from sfumato.data.wrapping import Access

SUMMARY = "a passphrase (scrypt, 128 MB and about half a second for every guess)"
NEEDS = ("cryptography",)
EXTRA = "vault"

VARIABLE = "SFUMATO_PASSPHRASE"
MINIMUM = 12
#: OWASP's first choice for scrypt; N = 2^17 takes 128 MiB.
LOG_N, R, P = 17, 8, 1
_LEAST, _MOST = (14, 8, 1), (20, 16, 4)

_WRONG = "the passphrase does not open this vault, or its vault.json was changed"


class Passphrase:
    """Wraps with a key that is derived from a passphrase."""

    def __init__(self, access: Access) -> None:
        access.only("passphrase")
        self._given = access.passphrase

    def wrap(
        self, secret: bytes, context: bytes, *, previous: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return a record with salt, cost and the sealed secret."""
        passphrase = self._ask(twice=True)
        if len(passphrase) < MINIMUM:
            raise InvalidRequest(
                f"a passphrase needs {MINIMUM} characters or more, got {len(passphrase)}: take five random "
                "words"
            )
        salt = SYSTEM.bytes(32)
        key = _stretch(passphrase, salt, LOG_N, R, P)
        return {
            "salt": salt.hex(),
            "log_n": LOG_N,
            "r": R,
            "p": P,
            "sealed": seal_bytes(key, secret, context).hex(),
        }

    def unwrap(self, record: Mapping[str, Any], context: bytes) -> bytes:
        """Return the secret; a wrong passphrase takes as long as a right one and says no more."""
        try:
            cost = int(record["log_n"]), int(record["r"]), int(record["p"])
            salt, sealed = bytes.fromhex(record["salt"]), bytes.fromhex(record["sealed"])
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"vault.json does not hold a passphrase record: {error}") from error
        bounded = all(low <= value <= high for low, value, high in zip(_LEAST, cost, _MOST, strict=True))
        if not bounded or _memory(*cost) >= 1 << 31:
            raise IntegrityError(f"vault.json asks for scrypt with log2 N, r, p = {cost}: it was changed")
        key = _stretch(self._ask(), salt, *cost)
        try:
            return unseal_bytes(key, sealed, context)
        except IntegrityError as error:
            raise VaultLocked(_WRONG) from error

    def forget(self, record: Mapping[str, Any]) -> None:
        """Nothing lies outside the record."""

    def _ask(self, *, twice: bool = False) -> str:
        given = self._given if self._given is not None else os.environ.get(VARIABLE)
        if given is None:
            if not sys.stdin.isatty():
                raise VaultLocked(
                    f"the vault needs its passphrase: set {VARIABLE}, give a file descriptor "
                    "(--passphrase-fd), or run this on a terminal. It is never taken from the command line."
                )
            given = getpass.getpass("Passphrase of the vault: ")
            if twice and getpass.getpass("The same again: ") != given:
                raise InvalidRequest("the two passphrases differ; nothing was changed")
        self._given = given
        return given


def _stretch(passphrase: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    # NFC: the same words typed on two systems are the same bytes.
    # Bytes that are no UTF-8 come from a variable as surrogates.
    words = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass")
    return hashlib.scrypt(words, salt=salt, n=1 << log_n, r=r, p=p, maxmem=_memory(log_n, r, p), dklen=32)


def _memory(log_n: int, r: int, p: int) -> int:
    """Return the bytes that scrypt may take, a little more than it does."""
    return 128 * r * ((1 << log_n) + p + 2) + (1 << 20)


def build(access: Access | None = None) -> Passphrase:
    """Build the wrapping."""
    return Passphrase(access or Access())
