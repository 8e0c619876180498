"""Raising a budget: two different owners, or, where no roles are declared, one person and a reason.

    proposal = propose(project, "residents", reason="ethics board decision 12")   # one owner
    approve(project, "residents")                                                  # another

The proposal is a row of the ledger and holds the exact amounts; the approval names that row by number and
hash, and goes into the row that raises the budget, where `verify` checks it again. A proposal lapses after 30
days of the ledger's time, and when who proposed is no owner any more by the policy of the approval's day.
Once roles were declared, the book remembers it: taking [roles] out of the policy does not bring the one-step
raise back.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict

from sfumato.core.book import Book, Entry
from sfumato.core.errors import InvalidRequest, PolicyRefused, UnknownName
from sfumato.core.identity import Actor
from sfumato.core.numbers import text

if TYPE_CHECKING:
    from sfumato.core.ledger import Ledger
    from sfumato.core.project import Project


class Budget(TypedDict):
    """A population's terms, as the ledger writes them."""

    epsilon: str
    delta: str
    unit: str
    relation: str


#: A proposal that nobody approved for this long lapses.
LAPSES = timedelta(days=30)
AMOUNTS = ("epsilon", "delta", "unit", "relation")


def declare_roles(ledger: Ledger) -> None:
    """Write into the book, once, that this project has roles."""
    if ledger.book.find("roles", "") is None:
        ledger.note("roles", "", {"declared": True})


def raise_alone(project: Project, population: str, *, reason: str) -> bool:
    """Raise a budget to what the policy says, in a project without roles; whether that changed anything.

    Raises:
        PolicyRefused: roles are or were declared.
    """
    wanted = _wanted(project, population)
    ledger = _book(project)
    try:
        return ledger.open_population(population, **wanted, blocks=_cut(project, population), reason=reason)
    finally:
        ledger.close()


def propose(project: Project, population: str, *, reason: str, actor: Actor | None = None) -> Entry:
    """Propose to raise a budget to what the policy says; nothing changes until another owner approves.

    Raises:
        PolicyRefused: not an owner.
        InvalidRequest: nothing would be raised, or no reason.
    """
    actor = actor or project.actor
    actor.require("raise")
    project.keep_roles()
    if not reason.strip():
        raise InvalidRequest("a raise needs a reason, which stays in the ledger")
    wanted = _wanted(project, population)
    ledger = _book(project)
    try:
        row = ledger.book.find("population", population)
        if row is None:
            raise InvalidRequest(f"the ledger has no population {population!r}: nothing to raise")
        now = {key: row.body[key] for key in AMOUNTS}
        if now == wanted:
            raise InvalidRequest(
                f"{population} has epsilon {now['epsilon']}, delta {now['delta']}, as sfumato.toml says: "
                "write the new amounts there first"
            )
        by = {"role": actor.role, "key": actor.key, "as": _entries(project, actor)}
        body = {"wanted": wanted, "from": now, "reason": reason, "by": by}
        return ledger.note("proposal", population, body)
    finally:
        ledger.close()


def approve(
    project: Project, population: str, *, row: int | None = None, actor: Actor | None = None
) -> Entry:
    """Approve the newest proposal for a population; raises its budget. Returns the proposal.

    Args:
        row: the proposal that was read; a newer one is then not approved unread. None: the newest.

    Raises:
        PolicyRefused: not an owner, the one who proposed, or other amounts than were proposed.
        InvalidRequest: no proposal, or a newer one.
    """
    actor = actor or project.actor
    actor.require("raise")
    project.keep_roles()
    wanted = _wanted(project, population)
    ledger = _book(project)
    try:
        proposal = ledger.book.find("proposal", population)
        if proposal is None:
            raise InvalidRequest(
                f"nobody proposed to raise {population!r}: `sfumato ledger raise {population}`"
            )
        if row is not None and row != proposal.seq:
            raise InvalidRequest(
                f"the newest proposal is row {proposal.seq} (epsilon {proposal.body['wanted']['epsilon']}), "
                f"not row {row}: read that one and approve it, or have row {row} proposed again"
            )
        approval = {
            "proposal": proposal.seq,
            "hash": proposal.hash,
            "by": {"role": actor.role, "key": actor.key},
            "proposer": _role_now(project, proposal.body["by"]),
        }
        cut = _cut(project, population)
        reason = proposal.body["reason"]
        ledger.open_population(population, **wanted, blocks=cut, reason=reason, approval=approval)
        return proposal
    finally:
        ledger.close()


def _entries(project: Project, actor: Actor) -> list[str]:
    """Return which entries of the policy make somebody an owner."""
    roles = project.policy.roles
    return sorted(set(roles.owner) & {actor.key, *actor.names}) if roles is not None else []


def _role_now(project: Project, by: Mapping[str, Any]) -> str:
    """Return whether the policy still makes an owner of who proposed: "owner" or "none"."""
    roles = project.policy.roles
    return "owner" if roles is None or {by["key"], *by.get("as", ())} & set(roles.owner) else "none"


def check(
    book: Book, name: str, wanted: Mapping[str, str], approval: Mapping[str, Any] | None, at: str
) -> None:
    """Refuse a raise without two different owners, in a book that knows of roles; for the ledger.

    Raises:
        PolicyRefused: says what is missing.
    """
    declared = book.find("roles", "")
    if approval is None:
        if declared is None:
            return
        raise PolicyRefused(
            f"raising {name!r} needs two different owners, because roles were declared (row {declared.seq} "
            f"of the ledger): one runs `sfumato ledger raise {name} --reason ...`, another "
            f"`sfumato ledger approve {name}`.",
            rule="roles.owner",
        )
    proposal = book.get(int(approval["proposal"]))
    newest = book.find("population", name)
    problem = fault(proposal, newest.seq if newest else 0, name, wanted, approval, at)
    if problem:
        raise PolicyRefused(f"{name!r} is not raised: {problem}.", rule="roles.owner")


def fault(
    proposal: Entry | None,
    newest: int,
    name: str,
    wanted: Mapping[str, Any],
    approval: Mapping[str, Any],
    at: str,
) -> str:
    """Return what is wrong with an approval, or nothing; the same for the ledger and for `verify`.

    Args:
        newest: number of the row that last declared the population.
        at: time of the row that raises.
    """
    if proposal is None or (proposal.kind, proposal.share) != ("proposal", name):
        return "the approval names no proposal for it"
    if proposal.hash != approval.get("hash"):
        return "the approval is for another proposal"
    if proposal.seq < newest:
        return "its budget was changed after the proposal; propose again"
    if datetime.fromisoformat(at) - datetime.fromisoformat(proposal.body["at"]) > LAPSES:
        return f"the proposal of row {proposal.seq} lapsed after {LAPSES.days} days; propose again"
    if any(proposal.body["wanted"][key] != wanted[key] for key in AMOUNTS):
        asked = ", ".join(f"{key} {wanted[key]}" for key in AMOUNTS[:2])
        was = ", ".join(f"{key} {proposal.body['wanted'][key]}" for key in AMOUNTS[:2])
        return f"the proposal is for {was}, and sfumato.toml now says {asked}"
    first, second = proposal.body["by"], approval.get("by", {})
    if first["role"] != "owner" or second.get("role") != "owner":
        return "both must be owners"
    if approval.get("proposer") != "owner":
        return "whoever proposed it is no owner any more by sfumato.toml; an owner must propose again"
    if first["key"] == second.get("key"):
        return "the owner who proposed cannot approve; another owner must"
    return ""


def _wanted(project: Project, population: str) -> Budget:
    declared = project.policy.populations
    if population not in declared:
        raise UnknownName("population", population, declared)
    section = declared[population]
    return Budget(
        epsilon=text(section.epsilon),
        delta=text(section.delta),
        unit=section.unit,
        relation=section.relation,
    )


def _cut(project: Project, population: str) -> str:
    """Return how the policy cuts a population into blocks, which a raise cannot change."""
    return project.policy.populations[population].blocks


def _book(project: Project) -> Ledger:
    """Return the book as it is; the policy is not applied to it, because it asks for the raise."""
    ledger = project.book()
    if project.policy.roles is not None:
        declare_roles(ledger)
    return ledger
