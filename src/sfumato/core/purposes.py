"""The rules of the policy that a plan must pass: who, for what, until when, on which data.

Every answer follows from the policy, the plan, the acting identity, the clock and the ledger, never from the
data, so a refusal reads the same whatever the data holds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sfumato.core.blocks import MARK
from sfumato.core.errors import PolicyRefused, nearest
from sfumato.core.identity import Actor
from sfumato.core.policy import ACTIONS, FILE_NAME, RIGHTS, Policy, Purpose
from sfumato.core.versions import sources

if TYPE_CHECKING:
    from sfumato.core.gate import Plan
    from sfumato.core.ledger import Ledger


def clock(ledger: Ledger | None) -> datetime:
    """Return the time that rules go by: now, or the ledger's newest row where the clock was set back."""
    now = datetime.now(UTC)
    last = ledger.book.last() if ledger is not None else None
    if last is None or "at" not in last.body:
        return now
    return max(now, datetime.fromisoformat(last.body["at"]))


def check(policy: Policy, plan: Plan, actor: Actor, at: datetime, ledger: Ledger | None = None) -> None:
    """Refuse a plan that a rule of the policy forbids.

    Args:
        ledger: knows what the versions that the plan names were made from: their rules count too.

    Raises:
        PolicyRefused: names the rule, what was asked, and what would pass.
    """
    if plan.action not in ACTIONS and actor.role != "owner":  # a right such as "read" is not a release
        raise PolicyRefused(
            f"{plan.action!r} is none of the actions that a role may have ({', '.join(ACTIONS)}), and so the "
            "owner's alone",
            rule="roles",
        )
    actor.check(plan.purpose, plan.action, at)
    for population, share in ((plan.population, plan.share), *plan.also):
        _spendable(policy, population, share, actor)
    for name, _ in plan.datasets:
        _charged(policy, plan, name)
    if plan.action in RIGHTS or not policy.purposes:
        return  # a person's right overrides purposes; nothing can leave this way: see `Plan` and `settle`
    purpose = _declared(policy, plan)
    _allowed(plan, purpose, actor, at)
    for name, digest in plan.datasets:
        made_from = sources(ledger, digest, policy.datasets) if ledger is not None else ()
        # A copy or a view that the policy does not name is held to the rules of all that it was made from.
        own = () if made_from and name not in policy.datasets else (name,)
        for one in sorted({*own, *made_from}):
            _given(policy, plan, one)


def _spendable(policy: Policy, population: str, share: str, actor: Actor) -> None:
    section = policy.populations.get(population.partition(MARK)[0])
    if section is None or share not in section.shares:
        return
    users, key = section.shares[share].users, f"populations.{population}.shares.{share}.users"
    if users and not actor.is_one_of(users):
        mine = [name for name, one in section.shares.items() if not one.users or actor.is_one_of(one.users)]
        raise PolicyRefused(
            f"the share {share!r} of {population!r} is for others to spend; yours: "
            f"{', '.join(sorted(mine)) or 'none'}. The rule: {key} in {FILE_NAME}.",
            rule=key,
        )


def _declared(policy: Policy, plan: Plan) -> Purpose:
    if plan.purpose in policy.purposes:
        return policy.purposes[plan.purpose]
    near = nearest(plan.purpose, policy.purposes)
    raise PolicyRefused(
        f"the policy allows use for declared purposes only; asked: {plan.purpose!r}; "
        f"declared: {', '.join(sorted(policy.purposes))}."
        + (f" Did you mean {near!r}?" if near else " Name one with --purpose."),
        rule="purposes",
    )


def _allowed(plan: Plan, purpose: Purpose, actor: Actor, at: datetime) -> None:
    key = f"purposes.{plan.purpose}"
    if plan.action not in purpose.actions:
        raise PolicyRefused(
            f"the purpose {plan.purpose!r} does not allow the action {plan.action!r}; it allows: "
            f"{', '.join(purpose.actions) or 'none'}. The rule: {key}.actions in {FILE_NAME}.",
            rule=f"{key}.actions",
        )
    if purpose.expires is not None and at.astimezone(UTC).date() > purpose.expires:
        raise PolicyRefused(
            f"the purpose {plan.purpose!r} ended with {purpose.expires.isoformat()} (UTC). If the use is "
            f"still lawful, its owner may set a later day. The rule: {key}.expires in {FILE_NAME}.",
            rule=f"{key}.expires",
        )
    if purpose.roles and actor.role not in purpose.roles:
        raise PolicyRefused(
            f"the purpose {plan.purpose!r} is open to the roles {', '.join(purpose.roles)}, and this is "
            f"asked by the role {actor.role!r}. The rule: {key}.roles in {FILE_NAME}.",
            rule=f"{key}.roles",
        )


def _charged(policy: Policy, plan: Plan, name: str) -> None:
    section = policy.datasets.get(name)
    key = f"datasets.{name}"
    charged = {name.partition(MARK)[0] for name in (plan.population, *(one for one, _ in plan.also)) if name}
    if section and charged and section.population and section.population not in charged:
        raise PolicyRefused(
            f"the dataset {name!r} is about the population {section.population!r}, and the plan charges "
            f"{', '.join(sorted(charged))}. The rule: {key}.population in {FILE_NAME}.",
            rule=f"{key}.population",
        )


def _given(policy: Policy, plan: Plan, name: str) -> None:
    section = policy.datasets.get(name)
    key = f"datasets.{name}"
    if section is None:
        raise PolicyRefused(
            f"the policy does not say what the dataset {name!r} was given for. Say so, with the people's "
            f"knowledge: [{key}] purposes = [...] in {FILE_NAME}.",
            rule="datasets",
        )
    reusable = policy.purposes[plan.purpose].compatible_with
    if plan.purpose in section.purposes or set(section.purposes) & set(reusable):
        return
    raise PolicyRefused(
        f"the dataset {name!r} was given for: {', '.join(section.purposes) or 'nothing yet'}; asked: "
        f"{plan.purpose!r}. Data may be used again for another purpose only where that one names the first: "
        f"purposes.{plan.purpose}.compatible_with, now: {', '.join(reusable) or 'none'}. The rule: "
        f"{key}.purposes in {FILE_NAME}.",
        rule=f"{key}.purposes",
    )
