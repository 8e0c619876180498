"""Wrappings: where the key comes from that opens a vault's master key; one file each, found by name.

`build(access=None)` of a wrapping takes an `Access` and returns a `Wrapping`. A cloud key service is one more
module like these, named by an entry point in the group `sfumato.wrapping`: `wrap` sends 32 bytes to be
encrypted, `unwrap` sends them back, and the service's key never comes here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from sfumato.core.errors import InvalidRequest
from sfumato.core.plugins import Catalogue

CATALOGUE = Catalogue("wrapping", "sfumato.data.wrapping", "sfumato.wrapping")


@dataclass(frozen=True, slots=True)
class Access:
    """What a wrapping may use to reach its key.

    >>> Access(options={"path": "/media/stick/master.key"}).option("path")
    '/media/stick/master.key'

    Args:
        project: the folder that must not hold the key.
        passphrase: given by the caller; None: the wrapping asks where it knows to ask. Never printed.
        options: settings of one wrapping, such as `path` for `file`.
    """

    project: Path | None = None
    passphrase: str | None = field(default=None, repr=False)
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def option(self, name: str, default: str = "") -> str:
        """Return one setting."""
        return self.options.get(name, default)

    def only(self, wrapping: str, *known: str) -> None:
        """Refuse settings that a wrapping does not know, so that a typo does not pass unseen.

        Raises:
            InvalidRequest: names the unknown one and those that are known.
        """
        for name in self.options:
            if name not in known:
                raise InvalidRequest(
                    f"the wrapping {wrapping!r} has no setting {name!r}; it knows: "
                    f"{', '.join(known) or 'none'}"
                )


@runtime_checkable
class Wrapping(Protocol):
    """Protects one short secret, the vault's master key."""

    def wrap(
        self, secret: bytes, context: bytes, *, previous: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return a record (plain data for JSON, no secret in it) from which `unwrap` gets the secret back.

        Args:
            context: what the record is bound to; needed again to unwrap.
            previous: the record that this one follows in a rotation; its settings stand where none are given.
        """
        ...

    def unwrap(self, record: Mapping[str, Any], context: bytes) -> bytes:
        """Return the secret.

        Raises:
            VaultLocked: the key is not to be had or is another one, or the record was changed.
        """
        ...

    def forget(self, record: Mapping[str, Any]) -> None:
        """Destroy what `wrap` left outside the record and nothing else needs; called after a rotation."""
        ...


def read_descriptor(number: int) -> str:
    """Read a passphrase, one line, from an open file descriptor.

    Raises:
        InvalidRequest: there is nothing to read.
    """
    try:
        with os.fdopen(os.dup(number), encoding="utf-8") as file:
            line = file.readline().rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"no passphrase can be read from file descriptor {number}: {error}") from error
    if not line:
        raise InvalidRequest(f"file descriptor {number} gave an empty passphrase")
    return line
