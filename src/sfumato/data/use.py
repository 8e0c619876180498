"""The use of a version: the one way in which a capability gets at a dataset.

used = use(project, "clinic", "research", "train")   # refused here, or without those who do not agree
rows = table(used.store, used.version)
plan = used.plan(mechanism="...", guarantee="proven", event=..., statement="...")
with project.gate().open(plan) as permit: ...        # refused where somebody withdrew since
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sfumato.core import purposes as rules
from sfumato.core import versions as rows
from sfumato.core.blocks import MARK
from sfumato.core.consent import Decision, Evidence
from sfumato.core.errors import PolicyRefused
from sfumato.core.event import NoEvent
from sfumato.core.gate import Gate, Plan
from sfumato.core.policy import Policy
from sfumato.data.age import at_the_door, over_since
from sfumato.data.catalogue import CUT, Catalogue
from sfumato.data.contents import people
from sfumato.data.lineage import ancestors, populations_of
from sfumato.data.opening import open_data
from sfumato.data.recording import record
from sfumato.data.store import Store
from sfumato.data.version import Version
from sfumato.data.withdrawal import agreed

if TYPE_CHECKING:
    from sfumato.core.project import Project
    from sfumato.data.wrapping import Access


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A version that may be used for a purpose; get one from `use`.

    Args:
        version: what to read; where the purpose rests on consent, without those who do not agree.
        store: where to read it.
        purpose, action: what for; both go into the plan.
        datasets: whose rules the gate will check again, each with the hash of the version that is read.
        populations: whose budgets a release with a privacy event charges, all of them.
        touched: of each, the blocks that the version touches; none where it has none, or where the ledger
            does not know the version.
        decision: what the consent register said, where the purpose rests on consent.
    """

    version: Version
    store: Store
    purpose: str
    action: str
    datasets: tuple[tuple[str, str], ...]
    populations: tuple[str, ...] = ()
    touched: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    decision: Decision | None = None

    @property
    def consent(self) -> Evidence | None:
        """That consent was asked; None where the purpose does not rest on it."""
        return self.decision.evidence if self.decision is not None else None

    def plan(self, **fields: Any) -> Plan:
        """Return a plan with what this use knows filled in; `fields` are the rest of `Plan`.

        Where it has a privacy event, every population of the version pays from the given share, and of each
        the blocks that the version touches. The first one is the plan's `population` unless another is given.
        """
        own: dict[str, Any] = {
            "action": self.action,
            "purpose": self.purpose,
            "datasets": self.datasets,
            "consent": self.consent,
        }
        if not isinstance(fields.get("event", NoEvent()), NoEvent) and self.populations:
            own |= self._payers(fields.get("population") or self.populations[0], fields.get("share", ""))
        return Plan(**(own | fields))

    def _payers(self, first: str, share: str) -> dict[str, Any]:
        """Return whom a plan charges whose population is `first`."""
        name, mark, _ = first.partition(MARK)
        also = []
        for one in self.populations:
            if one != name:
                blocks = self.touched.get(one, ())
                also += [(f"{one}{MARK}{block}", share) for block in blocks] or [(one, share)]
        blocks = () if mark else self.touched.get(name, ())
        return {"population": first, "blocks": blocks, "also": tuple(also)}

    def facts(self, *, proven: bool = False) -> dict[str, Any]:
        """Return what a receipt says of consent; see `Decision.facts`."""
        return self.decision.facts(proven=proven) if self.decision is not None else {}


def use(
    project: Project,
    spec: str,
    purpose: str,
    action: str,
    access: Access | None = None,
    *,
    gate: Gate | None = None,
) -> Use:
    """Return a version for a purpose, or refuse.

    Guarantee (heuristic):
        The version was not retired and its time is not over; the policy of today, and what was recorded when
        the data came in, allow the purpose, for it and for all that it was made from; and where the purpose
        rests on consent, everybody in the version agrees to it. The gate refuses the plan if that changes
        before the release.

    Args:
        spec: "NAME" (the newest version that may be used), "NAME@LABEL" or "NAME@HASH".
        purpose, action: what for: both as the policy names them.
        access: what may open the vault, where there is one.
        gate: whose; default: that of whoever runs this process.

    Raises:
        UnknownName: there is no such version.
        PolicyRefused: names the rule; the ledger records it.
    """
    catalogue, store = open_data(project, access)
    gate = gate or project.gate()
    return use_in(catalogue, store, gate, spec, purpose, action)


def use_in(catalogue: Catalogue, store: Store, gate: Gate, spec: str, purpose: str, action: str) -> Use:
    """Return a version of a catalogue that is open already; see `use`."""
    empty = gate.ask(purpose, ())
    asked = Plan(
        action=action,
        mechanism="use of a dataset",
        guarantee="heuristic",
        statement="asked before a release is planned",
        purpose=purpose,
        consent=empty.evidence if empty is not None else None,
    )
    gate.check(asked)  # before anything is looked at, so that a forbidden purpose tells nothing
    try:
        version = _usable(catalogue, gate, spec)
        lineage = (version, *ancestors(catalogue, version))
        _in_time(catalogue, gate, version, spec)
        _recorded(gate.policy, version, purpose, spec)
    except PolicyRefused as refusal:
        gate.refuse(asked, refusal)
    ruling = _ruling(gate.policy, lineage)
    # What the policy says today counts as well as what it said when the data came in.
    gate.check(replace(asked, datasets=tuple((name, version.hash) for name in ruling)))
    decision = None
    if empty is not None:
        decision = gate.ask(purpose, people(store, version))
        assert decision is not None
        # Also where nobody leaves: that a cut was made must not tell that somebody in it does not agree.
        version = agreed(catalogue, store, version, decision.withdrawn, decision.evidence)
    record(catalogue, gate, version)  # a release with a privacy event needs its row
    return Use(
        version=version,
        store=store,
        purpose=purpose,
        action=action,
        datasets=tuple((name, version.hash) for name in ruling),
        populations=populations_of(catalogue, version),
        touched=rows.touched(gate.ledger, (version.hash,)) if gate.ledger is not None else {},
        decision=decision,
    )


def _usable(catalogue: Catalogue, gate: Gate, spec: str) -> Version:
    version = catalogue.usable(spec)
    gone = rows.retired(gate.ledger) if gate.ledger is not None else ()
    if (version.dataset, version.label, version.hash) in gone:
        raise PolicyRefused(f"{spec} was retired, as the ledger says, and may not be used any more")
    whole = version
    while CUT.fullmatch(whole.label):  # what was retired is retired for every purpose
        whole = catalogue.by_hash(whole.parents[0])
        if catalogue.retired(whole) is not None or (whole.dataset, whole.label, whole.hash) in gone:
            raise PolicyRefused(
                f"{spec} is a part of a version that was retired, and may not be used any more"
            )
    return version


def _in_time(catalogue: Catalogue, gate: Gate, version: Version, spec: str) -> None:
    if gate.policy is None:
        return
    end = over_since(gate.policy, tuple(catalogue.all()), version)
    if end is not None and rules.clock(gate.ledger) >= end[0]:
        raise PolicyRefused(
            f"the time of {spec} is over: {end[1]} days, since {end[0].date().isoformat()} (UTC). End "
            "it: sfumato data retain. If it may stay longer, its owner may set more days. The rule: "
            "[retention] in sfumato.toml.",
            rule="retention",
        )


def _recorded(policy: Policy | None, version: Version, purpose: str, spec: str) -> None:
    """Refuse a purpose that the data was not collected for, and that may not reuse it."""
    given = version.facts.purposes
    known = policy.purposes.get(purpose) if policy is not None else None
    reusable = known.compatible_with if known is not None else ()
    if given and purpose not in given and not set(given) & set(reusable):
        key = f"datasets.{version.dataset}.purposes"
        raise PolicyRefused(
            f"{spec} was collected for: {', '.join(given)}; asked: {purpose!r}. What was said when the data "
            f"came in goes on to count. The rule: {key}, as it was then. Name one of them with --purpose.",
            rule=key,
        )


def _ruling(policy: Policy | None, lineage: tuple[Version, ...]) -> tuple[str, ...]:
    """Return the datasets whose rules count: where data came in, and what the policy names.

    A copy that the policy does not name is held to the rules of all that it was made from.
    """
    named = policy.datasets if policy is not None else {}
    return tuple(sorted({one.dataset for one in lineage if one.dataset in named or at_the_door(one)}))
