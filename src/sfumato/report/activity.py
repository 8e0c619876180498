"""What was released, refused, erased, raised and recorded, from the ledger's rows and the kept receipts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from sfumato.core.accounting import Share, Totals
from sfumato.core.book import Entry
from sfumato.core.gate import UNDECLARED
from sfumato.core.numbers import brief
from sfumato.core.policy import ACTIONS, RIGHTS
from sfumato.core.receipt import GUARANTEES
from sfumato.report.sources import Sources

#: Releases shown in full; older ones are counted by month.
FULL = 200
#: Refusals and erasures shown one by one.
NEWEST = 50
GONE = "no purpose that the policy names"


@dataclass(slots=True)
class Release:
    """One release: its reservation (one row for each account that it charges) and how each ended."""

    first: Entry
    charged: list[Entry] = field(default_factory=list)
    ends: dict[int, Entry] = field(default_factory=dict)

    @property
    def plan(self) -> Mapping[str, Any]:
        """What the ledger keeps of the plan."""
        plan: Mapping[str, Any] = self.first.body.get("plan", {})
        return plan

    @property
    def end(self) -> Entry | None:
        """The row that ended it."""
        return self.ends.get(self.first.seq)

    @property
    def settled(self) -> Entry | None:
        """The row that its receipt ends with: the last one, where several accounts were charged."""
        rows = [row for row in self.ends.values() if row.kind == "settle"]
        return max(rows, key=lambda row: row.seq) if rows else None

    @property
    def state(self) -> str:
        """released, taken back, or unfinished: charged, and perhaps released."""
        if self.end is None:
            return "unfinished"
        return "released" if self.end.kind == "settle" else "taken back"

    @property
    def rows(self) -> list[int]:
        """The ledger's rows of it."""
        return sorted({row.seq for row in self.charged} | {row.seq for row in self.ends.values()})


def releases_of(rows: Iterable[Entry]) -> list[Release]:
    """Return every release of a ledger, oldest first."""
    found: dict[int, Release] = {}
    for row in rows:
        if row.kind == "reserve":
            first = int(row.body.get("of", row.seq))
            release = found.setdefault(first, Release(row))
            release.charged.append(row)
            found[row.seq] = release
        elif row.kind in ("settle", "void") and row.ref in found:
            found[row.ref].ends[row.ref] = row
    return [release for seq, release in found.items() if release.first.seq == seq]


def releases(sources: Sources, found: Sequence[Release], *, full: int | None = FULL) -> dict[str, Any]:
    """Return the releases: the newest in full, all of them counted by month, mechanism and purpose.

    Args:
        full: how many in full; None: all.
    """
    made = [release for release in found if release.plan.get("action") not in RIGHTS]
    shown = made if full is None else made[len(made) - min(full, len(made)) :]
    terms = {row.share: Share.from_data(row.body["terms"]) for row in sources.entries if row.kind == "share"}
    speak = purpose_speaker(sources)
    by_type = {kind: [r for r in made if r.plan.get("guarantee") == kind] for kind in GUARANTEES}
    whole = sources.extent.rows
    states = {name: sum(r.state == name for r in made) for name in ("released", "taken back", "unfinished")}
    return {
        "count": len(made),
        "by_guarantee": {
            kind: {"count": len(group), "from": _span([row for r in group for row in r.rows], whole)}
            for kind, group in by_type.items()
        },
        "by_state": states,
        "from": _span([row for release in made for row in release.rows], whole),
        "months": _months(made, speak),
        "newest": [_release(sources, one, terms, speak) for one in reversed(shown)],
    }


def _release(
    sources: Sources, release: Release, terms: Mapping[str, Share], speak: Callable[[object], str]
) -> dict[str, Any]:
    plan, end = release.plan, release.end
    receipt = sources.receipt(release.settled) if release.settled is not None else None
    digest = str(end.body.get("receipt", "")) if end is not None else ""
    guarantee = receipt.body["guarantee"] if receipt is not None else {}
    reserved = release.first.body["event"]
    event = end.body.get("event", reserved) if end is not None else reserved
    return {
        "row": release.first.seq,
        "at": release.first.body["at"],
        "state": release.state,
        "action": action(plan.get("action")),
        "mechanism": str(plan.get("mechanism", "")),
        "purpose": speak(plan.get("purpose")),
        "guarantee": plan.get("guarantee"),
        "role": role(plan.get("by")),
        "event": spoken_event(event),
        "reserved": spoken_event(reserved) if event != reserved else "",
        "charges": [_charge(row, release.ends.get(row.seq), terms) for row in release.charged if row.share],
        "statement": str(guarantee.get("statement", "")),
        "limits": [str(limit) for limit in guarantee.get("limits", ())],
        "receipt": digest,
        "receipt_kept": receipt is not None,
        "outputs": len(receipt.outputs) if receipt is not None else 0,
        "from": {"rows": release.rows} | ({"receipt": digest} if digest else {}),
    }


def _charge(row: Entry, end: Entry | None, terms: Mapping[str, Share]) -> dict[str, Any]:
    share = terms[row.share]
    settled = end.body.get("charge") if end is not None and end.kind == "settle" else None
    if end is not None and end.kind == "void":
        epsilon = delta = Fraction(0)
    else:
        epsilon, delta = share.spent(Totals.from_data(settled or row.body["charge"]))
    newest = end if end is not None and "after" in end.body else row
    after, _ = share.spent(Totals.from_data(newest.body["after"]))
    return {
        "share": row.share,
        "epsilon": brief(epsilon),
        "delta": brief(delta),
        "share_after": brief(after),
        "from": {"rows": [row.seq] + ([end.seq] if end is not None else [])},
    }


def _months(made: Sequence[Release], speak: Callable[[object], str]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, ...], list[Release]] = {}
    for release in made:
        plan = release.plan
        key = (
            release.first.body["at"][:7],
            action(plan.get("action")),
            str(plan.get("mechanism", "")),
            speak(plan.get("purpose")),
            str(plan.get("guarantee")),
        )
        groups.setdefault(key, []).append(release)
    names = ("month", "action", "mechanism", "purpose", "guarantee")
    return [
        dict(zip(names, key, strict=True))
        | {
            "count": len(group),
            "taken_back": sum(one.state == "taken back" for one in group),
            "unfinished": sum(one.state == "unfinished" for one in group),
            "from": _span([row for one in group for row in one.rows]),
        }
        for key, group in sorted(groups.items(), reverse=True)
    ]


def refusals(sources: Sources) -> dict[str, Any]:
    """Return what was refused: counts by rule, and the newest."""
    rows = [row for row in sources.entries if row.kind == "refusal"]
    speak = purpose_speaker(sources)
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for row in rows:
        key = (str(row.body["rule"]), action(row.body["action"]), speak(row.body["purpose"]))
        groups.setdefault(key, []).append(row)
    return {
        "count": len(rows),
        "from": _span([row.seq for row in rows], sources.extent.rows),
        "rules": [
            {
                "rule": rule or "the policy",
                "action": done,
                "purpose": purpose,
                "count": len(group),
                "first": group[0].body["at"],
                "last": group[-1].body["at"],
                "roles": sorted({role(row.body.get("by")) for row in group}),
                "from": _span([row.seq for row in group]),
            }
            for (rule, done, purpose), group in sorted(groups.items())
        ],
    }


def erasures(sources: Sources, found: Sequence[Release]) -> dict[str, Any]:
    """Return the erasures, without a word on who was erased."""
    made = [release for release in found if release.plan.get("action") == "erase"]
    return {
        "count": len(made),
        "from": _span([row for release in made for row in release.rows], sources.extent.rows),
        "newest": [
            {
                "at": release.first.body["at"],
                "state": {"released": "done", "unfinished": "not finished"}.get(release.state, release.state),
                "role": role(release.plan.get("by")),
                "receipt": str(release.end.body.get("receipt", "")) if release.end is not None else "",
                "from": {"rows": release.rows},
            }
            for release in reversed(made[len(made) - min(NEWEST, len(made)) :])
        ],
    }


def raises(rows: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return every change of a population's budget after it was opened, with who proposed and approved it."""
    before: dict[str, Entry] = {}
    proposals = {row.seq: row for row in rows if row.kind == "proposal"}
    used: set[int] = set()
    changes = []
    for row in rows:
        if row.kind != "population":
            continue
        if (old := before.get(row.share)) is not None:
            approval = row.body.get("approval") or {}
            proposal = proposals.get(approval.get("proposal", 0))
            used.add(approval.get("proposal", 0))
            changes.append(_change(row, old, proposal, approval))
        before[row.share] = row
    waiting = [row for row in proposals.values() if row.seq not in used]
    return changes + [_proposal(row) for row in waiting]


def _change(row: Entry, old: Entry, proposal: Entry | None, approval: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "population": row.share,
        "at": row.body["at"],
        "state": "in force",
        "from_epsilon": old.body["epsilon"],
        "to_epsilon": row.body["epsilon"],
        "from_delta": old.body["delta"],
        "to_delta": row.body["delta"],
        "proposed_by": _owner(proposal.body.get("by")) if proposal is not None else "",
        "approved_by": _owner(approval.get("by")),
        "from": {"rows": sorted({old.seq, row.seq, *([proposal.seq] if proposal is not None else [])})},
    }


def _proposal(row: Entry) -> dict[str, Any]:
    return {
        "population": row.share,
        "at": row.body["at"],
        "state": "proposed, not in force",
        "from_epsilon": row.body["from"]["epsilon"],
        "to_epsilon": row.body["wanted"]["epsilon"],
        "from_delta": row.body["from"]["delta"],
        "to_delta": row.body["wanted"]["delta"],
        "proposed_by": _owner(row.body.get("by")),
        "approved_by": "",
        "from": {"rows": [row.seq]},
    }


def _owner(by: object) -> str:
    return str(by.get("key") or by.get("who") or "") if isinstance(by, Mapping) else ""


def purpose_speaker(sources: Sources) -> Callable[[object], str]:
    """Return what says a purpose, and no word that the policy does not know: callers may type anything."""
    known = {*sources.policy.purposes, UNDECLARED, "right to erasure"}

    def speak(purpose: object) -> str:
        return purpose if isinstance(purpose, str) and purpose in known else GONE

    return speak


def action(name: object) -> str:
    """Return an action of the policy, or "other"."""
    return name if isinstance(name, str) and name in ACTIONS else "other"


def role(by: object) -> str:
    """Return by which role something was done; "owner" where the project had no roles."""
    return str(by.get("role", "none")) if isinstance(by, Mapping) else "owner (no roles declared)"


def spoken_event(event: Mapping[str, Any]) -> str:
    """Return a privacy event in words.

    >>> inner = {"kind": "poisson", "rate": "0.01", "event": {"kind": "gaussian", "noise_multiplier": "1"}}
    >>> spoken_event({"kind": "repeated", "times": 100, "event": inner})
    '100 times: Poisson sampling at rate 0.01 of: Gaussian noise, multiplier 1'
    """
    kind = event.get("kind")
    match kind:
        case "none":
            return "none: a filter or a record, nothing noised"
        case "gaussian" | "laplace":
            return f"{str(kind).capitalize()} noise, multiplier {event['noise_multiplier']}"
        case "poisson":
            return f"Poisson sampling at rate {event['rate']} of: {spoken_event(event['event'])}"
        case "repeated":
            return f"{event['times']} times: {spoken_event(event['event'])}"
        case "composed":
            parts = next(value for value in event.values() if isinstance(value, (list, tuple)))
            return "; ".join(spoken_event(part) for part in parts)
    amounts = ", ".join(f"{key} {value}" for key, value in event.items() if key != "kind")
    return f"{kind}: {amounts}"


def _span(rows: Sequence[int], whole: int = 0) -> dict[str, Any]:
    """Return the source of a count: its rows, the first and last of many, or of none the whole."""
    if not rows and whole:
        return {"rows": [1, whole], "of": whole}
    if len(rows) <= 6:
        return {"rows": sorted(rows)}
    return {"rows": [min(rows), max(rows)], "of": len(rows)}
