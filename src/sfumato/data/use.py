"""The use of a version: the one way in which a capability gets at a dataset.

used = use(project, "clinic", "research", "train")   # refused here, or without those who do not agree
rows = table(used.store, used.version)
plan = used.plan(mechanism="...", guarantee="proven", event=..., statement="...")
with project.gate().open(plan) as permit: ...        # refused where somebody withdrew since
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sfumato.core import purposes as rules
from sfumato.core.blocks import MARK
from sfumato.core.consent import Decision, Evidence
from sfumato.core.errors import PolicyRefused
from sfumato.core.event import NoEvent
from sfumato.core.gate import Gate, Plan
from sfumato.core.policy import Policy
from sfumato.core.roles import may
from sfumato.core.versions import touched
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
        datasets: whose rules the gate will check again, each with the hash of the version read, or of the
            newest one that it was made from.
        populations: whose budgets a release with a privacy event charges, all of them.
        touched: population -> which of its blocks the version touches; none: it has no blocks.
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

        Where it has a privacy event, the first population pays from the given `share`, and the others from
        theirs of that name, unless `population` and `also` are given; of each the blocks that the version
        touches, and no others.
        """
        own: dict[str, Any] = {
            "action": self.action,
            "purpose": self.purpose,
            "datasets": self.datasets,
            "consent": self.consent,
        }
        if not isinstance(fields.get("event", NoEvent()), NoEvent) and self.populations:
            own |= self._payers(fields.get("population", self.populations[0]), fields.get("share", ""))
            # What is read is this version, under whatever name's rules: its row says whom it touches.
            own["datasets"] = tuple((name, self.version.hash) for name, _ in self.datasets)
        return Plan(**(own | fields))

    def _payers(self, first: str, share: str) -> dict[str, Any]:
        others = [name for name in self.populations if name != first.partition(MARK)[0]]
        also = [
            (f"{name}{MARK}{block}" if block else name, share)
            for name in others
            for block in self.touched.get(name) or ("",)
        ]
        blocks = () if MARK in first else self.touched.get(first, ())
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
    used = use_in(catalogue, store, gate, spec, purpose, action)
    if may(gate.actor.role, "curate"):  # a release with a privacy event needs their rows in the ledger
        _record(catalogue, gate, used.version)
    if gate.ledger is None:
        return used
    return replace(used, touched=touched(gate.ledger, (used.version.hash,)))


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
        version = _usable(catalogue, spec)
        lineage = (version, *ancestors(catalogue, version))
        _in_time(catalogue, gate, version, spec)
        _recorded(gate.policy, version, purpose, spec)
    except PolicyRefused as refusal:
        gate.refuse(asked, refusal)
    ruling = _ruling(gate.policy, lineage)
    # What the policy says today counts as well as what it said when the data came in.
    gate.check(replace(asked, datasets=tuple(ruling.items())))
    decision = None
    if empty is not None:
        decision = gate.ask(purpose, people(store, version))
        assert decision is not None
        # Also where nobody leaves: that a cut was made must not tell that somebody in it does not agree.
        version = agreed(catalogue, store, version, decision.withdrawn, decision.evidence)
    if version.dataset in ruling:
        ruling[version.dataset] = version.hash
    return Use(
        version=version,
        store=store,
        purpose=purpose,
        action=action,
        datasets=tuple(ruling.items()),
        populations=populations_of(catalogue, version),
        decision=decision,
    )


def _record(catalogue: Catalogue, gate: Gate, version: Version) -> None:
    """Write a version and what it was made from into the ledger, the oldest first, where that is not done."""
    known = {one.hash: one for one in (version, *ancestors(catalogue, version))}
    waiting, done = [version.hash], set[str]()
    while waiting:
        one = known[waiting[-1]]
        if first := [digest for digest in one.parents if digest not in done]:
            waiting += first
            continue
        waiting.pop()
        if one.hash in done:
            continue
        done.add(one.hash)
        record(gate, one)


def _usable(catalogue: Catalogue, spec: str) -> Version:
    version = catalogue.usable(spec)
    whole = version
    while CUT.fullmatch(whole.label):  # what was retired is retired for every purpose
        whole = catalogue.by_hash(whole.parents[0])
        if catalogue.retired(whole) is not None:
            raise PolicyRefused(
                f"{spec} is a part of a version that was retired, and may not be used any more"
            )
    return version


def since(catalogue: Catalogue, version: Version) -> tuple[tuple[str, datetime], ...]:
    """Return when what a version holds came in at the door: pairs of dataset and time, the oldest of each.

    A copy, a cut or a merge is as old as what it was made from.
    """
    known = {(one.dataset, one.label): one for one in catalogue.all()}
    found: dict[str, datetime] = {}
    waiting, seen = [version], set[str]()
    while waiting:
        one = waiting.pop()
        if one.spec in seen:
            continue
        seen.add(one.spec)
        homes = {(item.home.dataset, item.home.version) for item in one.items}
        if at_the_door(one):
            homes |= {(one.dataset, one.label)}
        for home in homes:
            if home in known and home != (one.dataset, one.label):
                waiting.append(known[home])
            elif at_the_door(one):
                made = datetime.fromisoformat(one.created)
                found[one.dataset] = min(made, found.get(one.dataset, made))
            else:  # stored anew when something was cut out of it
                waiting += [catalogue.by_hash(digest) for digest in one.parents]
    return tuple(sorted(found.items()))


def at_the_door(version: Version) -> bool:
    """Return whether a version was read from a source, and not made from other versions."""
    from sfumato.data.readers import CATALOGUE

    return not version.parents or version.facts.reader in CATALOGUE.names


def over_since(policy: Policy, catalogue: Catalogue, version: Version) -> tuple[datetime, int] | None:
    """Return when a version's time is over, and after how many days; None where it may stay.

    The shortest rule counts: its own dataset's, or that of a dataset it was made from.
    """
    ends = [
        (came + timedelta(days=days), days)
        for dataset, came in since(catalogue, version)
        for name in (dataset, version.dataset)
        if (days := policy.retention.days_of(name)) is not None
    ]
    return min(ends, default=None)


def _in_time(catalogue: Catalogue, gate: Gate, version: Version, spec: str) -> None:
    if gate.policy is None:
        return
    end = over_since(gate.policy, catalogue, version)
    if end is not None and rules.clock(gate.ledger) >= end[0]:
        raise PolicyRefused(
            f"the time of {spec} is over: {end[1]} days, since {end[0].date().isoformat()} (UTC). Retire "
            "it; if it may stay longer, its owner may set more days. The rule: [retention] in sfumato.toml.",
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


def _ruling(policy: Policy | None, lineage: tuple[Version, ...]) -> dict[str, str]:
    """Return the datasets whose rules count, with a version's hash: where data came in, and what is named.

    A copy that the policy does not name is held to the rules of all that it was made from.
    """
    named = policy.datasets if policy is not None else {}
    found = {one.dataset: one for one in lineage[1:] if one.dataset in named or at_the_door(one)}
    for one in lineage[1:]:
        if one.dataset in found and one.created > found[one.dataset].created:
            found[one.dataset] = one
    own = lineage[0]
    if own.dataset in found or own.dataset in named or at_the_door(own):
        found[own.dataset] = own
    return {name: found[name].hash for name in sorted(found)}
