"""Tokens: how a server knows who asks.

A token is shown once and kept as an argon2id hash. The hash is taken over the project, the role, the scope
and the end as well, so that none of them can be edited, and another project's token is nothing here. A token
is never an owner: its maker would be two owners.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import IntegrityError, InvalidRequest, MissingExtra, PolicyRefused, UnknownName
from sfumato.core.files import canonical, open_private, write_whole
from sfumato.core.identity import LOCAL_OWNER, Actor
from sfumato.core.roles import ROLES, Role

if TYPE_CHECKING:
    from argon2 import PasswordHasher

    from sfumato.core.policy import Policy

FORMAT = "sfumato-tokens/1"
PREFIX = "sft"
ID_BYTES, SECRET_BYTES = 6, 32
#: "token:NAME" has to fit under [roles] in the policy, which takes 100 characters.
NAME_LENGTH = 94
#: No real secret hashes to it; it makes an unknown token cost what a known one costs.
NOTHING = "0" * 2 * SECRET_BYTES
#: One answer for every token that is not one, so that it tells nothing of which part was wrong.
INVALID = "the token is not valid here: ask an owner for a new one (`sfumato token create`)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What is kept of a token.

    Args:
        purposes, actions: what it is limited to; None: what its role may do.
        expires: when it ends, ISO 8601 in UTC.
        revoked: when it was taken back; empty: it was not.
    """

    id: str
    name: str
    role: Role
    purposes: tuple[str, ...] | None
    actions: tuple[str, ...] | None
    made: str
    expires: str
    revoked: str = ""
    hash: str = ""

    def scope(self, project: str) -> bytes:
        """Return what the hash is taken over beside the secret."""
        fields = asdict(self)
        return canonical(
            {"project": project, **{k: v for k, v in fields.items() if k not in ("hash", "revoked")}}
        )

    def to_data(self) -> dict[str, Any]:
        """Return what may be shown: all but the hash."""
        return {key: value for key, value in asdict(self).items() if key != "hash"}


class Tokens:
    """A project's tokens, in one file that is written whole.

    Args:
        path: .sfumato/tokens.json.
        project: the ledger's id; a token is bound to it.
        actor: who makes and revokes; needs the right "tokens".
    """

    def __init__(self, path: Path, project: str, *, actor: Actor = LOCAL_OWNER) -> None:
        self.path, self.project, self.actor = path, project, actor

    def all(self) -> list[Token]:
        """Return every token, ended ones too.

        Raises:
            IntegrityError: the file does not read.
        """
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            raise IntegrityError(
                f"{self.path} does not read: {error}. Restore it, or revoke all by removing it."
            ) from error
        try:
            if data["format"] != FORMAT:
                raise ValueError(f"format {data['format']!r}")
            return [_token(item) for item in data["tokens"]]
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"{self.path} does not hold tokens of format {FORMAT}: {error}") from error

    def create(
        self,
        name: str,
        role: str,
        *,
        expires: datetime,
        purposes: Sequence[str] | None = None,
        actions: Sequence[str] | None = None,
    ) -> tuple[str, Token]:
        """Make a token; return its text, which is kept nowhere, and its record.

        Raises:
            PolicyRefused: the acting role may not make tokens.
            InvalidRequest: an owner's token, a name in use, an end that has passed or has no time zone.
        """
        self.actor.require("tokens")
        if role not in ROLES:
            raise UnknownName("role", role, ROLES)
        if role == "owner":
            raise InvalidRequest(
                "a token is never an owner, because its maker could then be two owners at once; "
                f"choose from: {', '.join(ROLES[1:])}"
            )
        if not name or len(name) > NAME_LENGTH or "/" in name or " " in name or not name.isprintable():
            raise InvalidRequest(
                f"a token's name must be 1 to {NAME_LENGTH} characters without space or '/', got {name!r}"
            )
        now = datetime.now(UTC)
        if expires.tzinfo is None or expires <= now:
            raise InvalidRequest(
                f"a token must end in the future, with a time zone given; got {expires.isoformat()}"
            )
        secret = SYSTEM.bytes(SECRET_BYTES).hex()
        token = Token(
            id=SYSTEM.bytes(ID_BYTES).hex(),
            name=name,
            role=role,
            purposes=tuple(purposes) if purposes is not None else None,
            actions=tuple(actions) if actions is not None else None,
            made=now.isoformat(timespec="seconds"),
            expires=expires.astimezone(UTC).isoformat(timespec="seconds"),
        )
        token = replace(token, hash=_hasher().hash(token.scope(self.project) + secret.encode()))
        with _locked(self.path):
            known = self.all()
            if any(other.name == name and not other.revoked for other in known):
                raise InvalidRequest(
                    f"there is a token named {name!r}; revoke it first, or choose another name"
                )
            self._write([*known, token])
        return f"{PREFIX}_{token.id}_{secret}", token

    def revoke(self, name: str) -> Token:
        """Take a token back, by name or id; it stays listed.

        Raises:
            PolicyRefused: the acting role may not revoke tokens.
            UnknownName: no such token that is still good.
        """
        self.actor.require("tokens")
        with _locked(self.path):
            known = self.all()
            for index, token in enumerate(known):
                if name in (token.name, token.id) and not token.revoked:
                    known[index] = replace(token, revoked=datetime.now(UTC).isoformat(timespec="seconds"))
                    self._write(known)
                    return known[index]
        raise UnknownName("token", name, [token.name for token in known if not token.revoked])

    def authenticate(self, text: str, policy: Policy, *, at: datetime | None = None) -> Actor:
        """Return who a token stands for. A server asks anew for each request, so that revoking works at once.

        Args:
            text: the token as it was shown.
            policy: where it has a [roles] section, "token:NAME" must stand there under the token's role.
            at: the clock; default: now.

        Raises:
            PolicyRefused: not a token of this project, ended, revoked, or not in the policy.
        """
        prefix, _, rest = text.partition("_")
        number, _, secret = rest.partition("_")
        found: Token | None = None
        for token in self.all():
            if hmac.compare_digest(token.id.encode(), _bytes(number)):
                found = token
        if not _matches(found, self.project, secret) or found is None or prefix != PREFIX:
            raise PolicyRefused(INVALID, rule="token")
        ends = datetime.fromisoformat(found.expires)
        if found.revoked:
            raise PolicyRefused(
                f"the token {found.name!r} was revoked at {found.revoked}", rule="token.revoked"
            )
        if (at or datetime.now(UTC)) >= ends:
            raise PolicyRefused(
                f"the token {found.name!r} ended at {found.expires}; an owner can make a new one",
                rule="token.expires",
            )
        if policy.roles is not None and f"token:{found.name}" not in policy.roles.members()[found.role]:
            raise PolicyRefused(
                f"the policy does not know the token {found.name!r} as {found.role}. The rule: "
                f'"token:{found.name}" under roles.{found.role} in sfumato.toml.',
                rule=f"roles.{found.role}",
            )
        return Actor(
            f"token:{found.id}",
            found.role,
            found.id,
            found.purposes,
            found.actions,
            ends,
            names=(f"token:{found.name}",),
        )

    def _write(self, tokens: list[Token]) -> None:
        text = json.dumps({"format": FORMAT, "tokens": [asdict(token) for token in tokens]}, indent=2)
        write_whole(self.path, text + "\n", mode=None)


def _matches(token: Token | None, project: str, secret: str) -> bool:
    """Whether a secret is a token's; takes as long where there is no such token."""
    import argon2

    hasher = _hasher()
    record = token or Token(id="", name="", role="auditor", purposes=None, actions=None, made="", expires="")
    try:
        return (
            hasher.verify(record.hash or _dummy(), record.scope(project) + _bytes(secret))
            and token is not None
        )
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


_DUMMY: list[str] = []


def _dummy() -> str:
    if not _DUMMY:
        _DUMMY.append(_hasher().hash(NOTHING))
    return _DUMMY[0]


def _hasher() -> PasswordHasher:
    try:
        from argon2 import PasswordHasher
    except ImportError as error:
        raise MissingExtra("a token", ["argon2-cffi"], "server") from error
    return PasswordHasher()


def _token(item: dict[str, Any]) -> Token:
    token = Token(**item)
    if token.role not in ROLES[1:]:
        raise ValueError(f"role {token.role!r}")
    if not all(isinstance(part, str) for part in (token.id, token.name, token.revoked, token.hash)):
        raise TypeError("a token's id, name, revoked and hash are texts")
    if datetime.fromisoformat(token.expires).tzinfo is None:
        raise ValueError(f"expires {token.expires!r} has no time zone")
    return replace(token, purposes=_tuple(token.purposes), actions=_tuple(token.actions))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # a server may hand on bytes that are no text


def _tuple(value: Sequence[str] | None) -> tuple[str, ...] | None:
    return tuple(value) if value is not None else None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock while the file is read and written, so that no revocation is lost between two owners."""
    if sys.platform == "win32":
        yield  # the file is still written whole
        return
    import fcntl

    handle = open_private(path.with_suffix(".lock"), os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
