"""What one person may ask for (GDPR Art. 15), computed from their pseudonyms; their id is nowhere in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sfumato.core.book import Entry
from sfumato.core.errors import Erased, SfumatoError
from sfumato.data.contents import is_rows
from sfumato.data.store import Store
from sfumato.data.version import Version
from sfumato.report.activity import Release, action, purpose_speaker, role
from sfumato.report.datasets import NEVER, consent_rows
from sfumato.report.sources import Sources

if TYPE_CHECKING:
    from sfumato.core.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks, by keyed hash; a project may know a person by more than one.

    Args:
        pseudonyms: 32 hex digits each.
        population: whose people they are one of; empty for all.
        store: where to look into tables that hold many people; None: these are not looked into.
        looked: what an earlier report saw in such tables, for where they cannot be read any more.
    """

    pseudonyms: tuple[str, ...]
    population: str = ""
    store: Store | None = None
    looked: Mapping[str, str] | None = None


#: How a version was looked through for a person.
HELD, ABSENT, UNREAD = "holds data of this person", "holds no data of this person", "could not be read"
#: Their ciphertext stays in it, so that hashes verify; the keys that would open it are destroyed.
ERASED = "held data of this person, which were erased"


def answer(
    sources: Sources, data: Mapping[str, Any], found: Sequence[Release], subject: Subject
) -> dict[str, Any]:
    """Return the answer to one person.

    Raises:
        IntegrityError: something is missing from the books, or was changed.
    """
    presence = {one.spec: _presence(one, subject) for one in sources.versions}
    touched = [one for one in sources.versions if presence[one.spec] == HELD]
    uses, erasures = _uses(sources, found, touched, subject)
    presence |= dict.fromkeys(_erased(sources, touched, subject, erasures), ERASED)
    mine = {spec for spec, state in presence.items() if state == HELD}
    held = [one for one in sources.versions if one.spec in mine]
    names = dict.fromkeys(one.dataset for one in held)
    purposes = dict.fromkeys(p for one in held for p in one.facts.purposes)
    return {
        "pseudonyms": list(subject.pseudonyms),
        "population": subject.population,
        "versions": [
            {
                "version": one.spec,
                "state": presence[one.spec],
                "retired": sources.retired(one),
                "created": one.created,
                "fields": list(one.facts.kept),
                "from": {"version": one.hash},
            }
            for one in sources.versions
        ],
        "datasets": [one for one in data["datasets"] if one["name"] in names],
        "purposes": [one["name"] for one in data["purposes"] if one["name"] in purposes],
        "storage": [
            {"dataset": name, "days": _days(sources, name), "from": {"policy": "retention"}} for name in names
        ],
        "consents": _consents(sources, sources.consents, subject),
        "releases": uses,
        "erasures": erasures,
    }


def _erased(
    sources: Sources, held: Sequence[Version], subject: Subject, erasures: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return the versions all of whose items of this person were stored before the person was erased."""
    if not erasures:
        return []
    last = max(row for one in erasures for row in one["from"]["rows"])
    recorded = {
        (row.body["dataset"], row.body["label"]): row.seq for row in sources.entries if row.kind == "version"
    }
    found = []
    for one in held:
        mine = [item.home for item in one.items if item.subject in subject.pseudonyms]
        # What the ledger does not know is not said to be erased.
        if mine and all(recorded.get((home.dataset, home.version), last) < last for home in mine):
            found.append(one.spec)
    return found


def _days(sources: Sources, name: str) -> int | str:
    days = sources.policy.retention.days_of(name)
    return days if days is not None else NEVER


def _presence(version: Version, subject: Subject) -> str:
    if any(item.subject in subject.pseudonyms for item in version.items):
        return HELD
    if subject.population not in (version.facts.populations or ("",)):
        return ABSENT  # its pseudonyms are those of other people
    shared = [item for item in version.items if is_rows(item) and not item.subject]
    if not shared:
        return ABSENT
    try:
        if subject.store is None:
            raise Erased("not looked into")
        return HELD if _in_tables(version, subject, subject.store) else ABSENT
    except (SfumatoError, OSError):
        return (subject.looked or {}).get(version.spec, UNREAD)


def _in_tables(version: Version, subject: Subject, store: Store) -> bool:
    from sfumato.data.tables import from_bytes

    for item in version.items:
        if is_rows(item) and not item.subject:
            table = from_bytes(store.get(item.name, item.home))
            if set(table[version.facts.unit].unique().to_pylist()) & set(subject.pseudonyms):
                return True
    return False


def _consents(sources: Sources, rows: Sequence[Entry], subject: Subject) -> list[dict[str, Any]]:
    known = sources.policy.purposes
    return [
        {
            "purpose": purpose if purpose in known else "a purpose that the policy no longer names",
            "kind": row.kind,
            "date": row.body["date"],
            "from": {"consent": [row.seq]},
        }
        for row in consent_rows(rows)
        for purpose, _, name in [row.share.rpartition("/")]
        if name in subject.pseudonyms
    ]


def _uses(
    sources: Sources, found: Sequence[Release], held: Sequence[Version], subject: Subject
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the releases that read a version with this person's data, and the erasures of this person."""
    hashes, names = {one.hash for one in held}, {one.dataset for one in held}
    speak, uses, erasures = purpose_speaker(sources), [], []
    for release in found:
        receipt = sources.receipt(release.settled) if release.settled is not None else None
        if receipt is None:
            continue
        record = _record(release, receipt, speak)
        parameters = receipt.body.get("plan", {}).get("parameters", {})
        if release.plan.get("action") == "erase":
            if parameters.get("subject") in subject.pseudonyms:
                erasures.append(record)
            continue
        used = [one for one in receipt.body.get("plan", {}).get("datasets", ()) if isinstance(one, Mapping)]
        # The receipt of a proven release names the dataset and leaves its version out.
        sure = any(one.get("version") in hashes for one in used) or parameters.get("version") in hashes
        likely = any("version" not in one and one.get("name") in names for one in used)
        if sure or likely:
            uses.append(record | {"certain": sure})
    return uses, erasures


def _record(release: Release, receipt: Receipt, speak: Callable[[object], str]) -> dict[str, Any]:
    return {
        "at": release.first.body["at"],
        "action": action(release.plan.get("action")),
        "mechanism": str(release.plan.get("mechanism", "")),
        "purpose": speak(release.plan.get("purpose")),
        "guarantee": receipt.guarantee,
        "statement": str(receipt.body["guarantee"].get("statement", "")),
        "role": role(release.plan.get("by")),
        "receipt": receipt.digest,
        "from": {"rows": release.rows, "receipt": receipt.digest},
    }
