"""The operating system's keyring: Keychain, Credential Locker, Secret Service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import IntegrityError, VaultLocked
from sfumato.data.sealing import KEY_BYTES, seal_bytes, unseal_bytes
from sfumato.data.wrapping import Access

SUMMARY = "the operating system's keyring (setting: service)"
NEEDS = ("cryptography", "keyring")
EXTRA = "vault"


class Keyring:
    """Wraps with a random key that the keyring holds under a name of its own."""

    def __init__(self, access: Access) -> None:
        access.only("keyring", "service")
        self._service = access.option("service")

    def wrap(
        self, secret: bytes, context: bytes, *, previous: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return a record with the entry's name and the sealed secret."""
        import keyring
        from keyring.errors import KeyringError

        service = self._service or str((previous or {}).get("service", "sfumato"))
        name, key = SYSTEM.bytes(16).hex(), SYSTEM.bytes(KEY_BYTES)
        try:
            keyring.set_password(service, name, key.hex())
            kept = keyring.get_password(service, name)
        except KeyringError as error:
            raise VaultLocked(_no_keyring(error)) from error
        if kept != key.hex():
            raise VaultLocked(_no_keyring("it does not keep what it is given"))
        return {"service": service, "name": name, "sealed": seal_bytes(key, secret, context).hex()}

    def unwrap(self, record: Mapping[str, Any], context: bytes) -> bytes:
        """Return the secret."""
        import keyring
        from keyring.errors import KeyringError

        service, name = _entry(record)
        try:
            sealed = bytes.fromhex(record["sealed"])
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"vault.json does not hold a keyring record: {error}") from error
        try:
            kept = keyring.get_password(service, name)
        except KeyringError as error:
            raise VaultLocked(_no_keyring(error)) from error
        if kept is None:
            raise VaultLocked(
                f"the keyring of this user holds no entry {name!r} of {service!r}: log in as the user who "
                "made the vault, or restore the entry"
            )
        try:
            return unseal_bytes(bytes.fromhex(kept), sealed, context)
        except (IntegrityError, ValueError) as error:
            raise VaultLocked(
                f"the keyring's entry {name!r} of {service!r} does not open this vault, or its vault.json "
                "was changed"
            ) from error

    def forget(self, record: Mapping[str, Any]) -> None:
        """Delete the entry; one that is gone already is fine."""
        import contextlib

        import keyring
        from keyring.errors import KeyringError

        with contextlib.suppress(KeyringError):
            keyring.delete_password(*_entry(record))


def _entry(record: Mapping[str, Any]) -> tuple[str, str]:
    try:
        return str(record["service"]), str(record["name"])
    except KeyError as error:
        raise IntegrityError(f"vault.json does not hold a keyring record: {error} is missing") from error


def _no_keyring(why: object) -> str:
    return (
        f"this user has no working keyring ({why}). On a server without one, take another wrapping: "
        "passphrase or file."
    )


def build(access: Access | None = None) -> Keyring:
    """Build the wrapping."""
    return Keyring(access or Access())
