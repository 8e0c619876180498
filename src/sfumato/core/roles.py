"""Roles, and the fixed table of what each may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from sfumato.core.errors import PolicyRefused

Role = Literal["owner", "curator", "analyst", "auditor"]
ROLES: tuple[Role, ...] = get_args(Role)

#: right -> who has it, and what it is. An action that stands nowhere here is the owner's alone.
RIGHTS: Mapping[str, tuple[tuple[Role, ...], str]] = {
    "redact": (("owner", "curator", "analyst"), "make redacted copies"),
    "query": (("owner", "analyst"), "ask for private answers"),
    "train": (("owner", "analyst"), "train a model"),
    "export": (("owner", "curator"), "take a dataset out"),
    "restore": (("owner", "curator"), "put sealed originals back, and see what is sealed"),
    "curate": (("owner", "curator"), "add, retire and minimise datasets"),
    "consent": (("owner", "curator"), "record consent and its withdrawal"),
    "erase": (("owner", "curator"), "erase a person"),
    "read": (("owner", "curator", "analyst", "auditor"), "read the ledger and the consent register"),
    "vault": (("owner",), "make the vault, and take new keys for it"),
    "raise": (("owner",), "propose or approve a larger budget"),
    "tokens": (("owner",), "make and revoke tokens"),
}


def may(role: Role | None, right: str) -> bool:
    """Whether a role has a right.

    >>> may("analyst", "query"), may("auditor", "query")
    (True, False)
    """
    holders = RIGHTS[right][0] if right in RIGHTS else ("owner",)
    return role in holders


def require(role: Role | None, right: str) -> None:
    """Refuse a role without a right.

    Raises:
        PolicyRefused: names the right, the role, and the roles that have it.
    """
    if may(role, right):
        return
    holders = RIGHTS[right][0] if right in RIGHTS else ("owner",)
    who = f"the role {role!r} does" if role else "having no role here does"
    raise PolicyRefused(
        f"{who} not include the right {right!r}; it belongs to: {', '.join(holders)}. The rule: [roles] in "
        "sfumato.toml says who is what; `sfumato roles` prints what each may do.",
        rule="roles",
    )
