"""Who acts: a user of this machine, or the holder of a token.

A user is known by the number that the operating system gives the process, never by an environment variable,
which anyone may set. What goes into the ledger and into receipts is the role and a keyed hash; without the
project's key nobody can tell from a receipt who made it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.core.entropy import SYSTEM
from sfumato.core.errors import InvalidRequest, PolicyRefused
from sfumato.core.files import write_whole
from sfumato.core.roles import Role, require

if TYPE_CHECKING:
    from sfumato.core.policy import Policy

#: People whose data it is; a vault takes this key over.
KEY_NAME = "pseudonym.key"
#: Who acts; needed at every release, so it has no passphrase.
ACTORS_KEY = "actors.key"
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Actor:
    """Someone who acts, with what they may do.

    >>> Actor("uid:1000", "analyst").label()
    {'role': 'analyst'}

    Args:
        key: "uid:1000" or "token:ID"; tells two people apart, and stays inside.
        role: None: known here, but without any right.
        who: keyed hash of `key`, for the ledger; empty where no roles are declared.
        purposes, actions: what a token is limited to; None: no limit.
        expires: when a token ends.
        names: what the policy may call a user of this machine.
    """

    key: str
    role: Role | None
    who: str = ""
    purposes: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None
    expires: datetime | None = None
    names: tuple[str, ...] = field(default=(), compare=False)

    def label(self) -> dict[str, str]:
        """Return what the ledger keeps of this actor: the role, and the keyed hash where there is one."""
        return {"role": self.role or "none"} | ({"who": self.who} if self.who else {})

    def require(self, right: str) -> None:
        """Refuse a right that the role does not include, or that lies outside a token's scope or time.

        Raises:
            PolicyRefused: names the right and who has it, or the limit.
        """
        require(self.role, right)
        self.in_time(datetime.now(UTC))
        self._within("actions", self.actions, right)

    def may(self, right: str) -> bool:
        """Whether `require` would let this right pass."""
        try:
            self.require(right)
        except PolicyRefused:
            return False
        return True

    def is_one_of(self, users: tuple[str, ...]) -> bool:
        """Whether a list of the policy names this user, by name or number, or this token by its name."""
        return bool({self.key, *self.names} & set(users))

    def about(self, purpose: str) -> None:
        """Refuse a purpose that a token is not for.

        Raises:
            PolicyRefused: names the limit.
        """
        self._within("purposes", self.purposes, purpose)

    def check(self, purpose: str, action: str, at: datetime) -> None:
        """Refuse an action without the right to it, and what lies outside a token's scope or time.

        Raises:
            PolicyRefused: names the limit.
        """
        self.in_time(at)
        require(self.role, action)
        self._within("actions", self.actions, action)
        self.about(purpose)

    def in_time(self, at: datetime) -> None:
        """Refuse a token that ended.

        Raises:
            PolicyRefused: names the end.
        """
        if self.expires is not None and at >= self.expires:
            raise PolicyRefused(
                f"the token ended at {self.expires.isoformat(timespec='seconds')}; an owner can make another",
                rule="token.expires",
            )

    def _within(self, name: str, scope: tuple[str, ...] | None, asked: str) -> None:
        if scope is not None and asked not in scope:
            raise PolicyRefused(
                f"the token is limited to the {name} {', '.join(scope) or 'none'}; asked: {asked!r}. "
                "An owner can make one with another scope.",
                rule=f"token.{name}",
            )


#: The one person of a project without roles.
LOCAL_OWNER = Actor("local", "owner")


def local_user() -> tuple[str, ...]:
    """Return the names of the user that runs this process: "uid:1000" first, then the login name."""
    if sys.platform == "win32":
        return (os.getlogin(),)  # asks the system, not the environment
    import pwd

    uid = os.getuid()
    try:
        return f"uid:{uid}", pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run as a number without a name
        return (f"uid:{uid}",)


def local_actor(policy: Policy, folder: Path) -> Actor:
    """Return who runs this process, with the role that the policy gives them.

    Without a [roles] section everyone who can open the project is its owner.

    Args:
        folder: the project's .sfumato, which holds the key of the pseudonyms.

    Raises:
        PolicyRefused: the user's name and number have different roles.
    """
    names = local_user()
    if policy.roles is None:
        return Actor(names[0], "owner")
    roles = {role for role, members in policy.roles.members().items() if set(members) & set(names)}
    if len(roles) > 1:
        raise PolicyRefused(
            f"{' and '.join(names)} are one user, and [roles] in sfumato.toml gives them the roles "
            f"{', '.join(sorted(roles))}: a user has one role",
            rule="roles",
        )
    who = Pseudonyms.of(folder, ACTORS_KEY)("actor", names[0])
    return Actor(names[0], next(iter(roles), None), who, names=names)


class Pseudonyms:
    """Keyed hashes of names, the same for the same name as long as the key lives.

    >>> pseudonyms = Pseudonyms(bytes(32))
    >>> pseudonyms("subject", "Ann") == pseudonyms("subject", "Ann")
    True
    >>> pseudonyms("subject", "Ann") == pseudonyms("actor", "Ann")
    False
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise InvalidRequest(
                f"a pseudonym key has {KEY_BYTES} bytes, this one {len(key)}: restore it from a backup"
            )
        self._key = key

    @classmethod
    def of(cls, folder: Path, name: str = KEY_NAME) -> Pseudonyms:
        """Return those of a project; the key is made on first use, for its owner's eyes only."""
        path = folder / name
        if not path.exists():
            folder.mkdir(mode=0o700, exist_ok=True)  # a second machine has the policy only
            _make_once(path, SYSTEM.bytes(KEY_BYTES))
        return cls(path.read_bytes())

    def __call__(self, kind: str, name: str) -> str:
        """Return the keyed hash of a name, as 32 hex digits; other kinds of names give other hashes."""
        message = kind.encode() + b"\0" + name.encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:32]

    def subject(self, name: str) -> str:
        """Return the pseudonym of a person whose data it is."""
        return self("subject", name)


def _make_once(path: Path, key: bytes) -> None:
    aside = path.with_name(f".{path.name}.{key[:8].hex()}")
    write_whole(aside, key, mode=None)
    try:
        os.link(aside, path)  # fails where another process was first, whose key then counts
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
