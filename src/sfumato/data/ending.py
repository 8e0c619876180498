"""The end of versions whose time is over: in the ledger, in the catalogue, and of their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sfumato.core import purposes
from sfumato.core.errors import InvalidRequest
from sfumato.core.gate import Gate
from sfumato.core.policy import Policy
from sfumato.core.versions import RETENTION, retired
from sfumato.data.age import over_since
from sfumato.data.catalogue import Catalogue
from sfumato.data.recording import record
from sfumato.data.retention import SLACK, Due, Held, retain
from sfumato.data.store import Store
from sfumato.data.version import TAKEN_OVER, Version

LOG = "retention.jsonl"
#: dataset, label, hash
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Ended:
    """What was due, and how many stored items were removed with it."""

    due: tuple[Due, ...]
    removed: int


def end_due(
    catalogue: Catalogue,
    store: Store,
    gate: Gate,
    log: Path,
    *,
    now: datetime | None = None,
    dry_run: bool = False,
) -> Ended:
    """End every version whose time is over by the policy's [retention].

    Guarantee (heuristic):
        Of each the ledger says so first, then the catalogue; then the bytes go that no other version needs.
        What a version holds is as old as it was at the door, and the shortest rule counts. Killed at any
        moment, doing it again completes it. Keys of people in a vault stay: they may have other data.

    Args:
        log: a file of JSON lines on what was ended, such as `.sfumato/retention.jsonl`.
        now: the time to go by; None: the clock.
        dry_run: only say what is due; nothing is written.

    Raises:
        PolicyRefused: not a curator's right.
        InvalidRequest: a version is being added now, or the clock is behind the ledger or the last run.
        BatchFailed: some could not be ended; the others are.
    """
    gate.actor.require("curate")
    if gate.policy is None or gate.ledger is None:
        raise InvalidRequest("there is no project here, and so no [retention]: run `sfumato init`")
    now = now if now is not None else datetime.now(UTC)
    newest = purposes.clock(gate.ledger)
    if now < newest - SLACK:
        raise InvalidRequest(
            f"the clock says {now.isoformat(timespec='seconds')}, and the ledger's newest row is of "
            f"{newest.isoformat(timespec='seconds')}: one of them is wrong, and data that is ended too early "
            "does not come back. Set the clock."
        )
    work = _Work(catalogue, store, gate)
    if dry_run:
        return Ended(
            retain(
                work.held(gate.policy), gate.policy.retention, act=work.end, log=log, now=now, dry_run=True
            ),
            0,
        )
    with catalogue.quiet():  # nobody may add a version that shares what is about to go
        done = retain(work.held(gate.policy), gate.policy.retention, act=work.end, log=log, now=now)
    return Ended(done, work.removed)


@dataclass(slots=True)
class _Work:
    """One run over a catalogue."""

    catalogue: Catalogue
    store: Store
    gate: Gate
    removed: int = 0
    _versions: tuple[Version, ...] = ()
    _over: set[Key] = field(default_factory=set)
    _present: set[str] = field(default_factory=set)

    def held(self, policy: Policy) -> Iterator[Held]:
        """Yield what may be due: all that is not ended wholly."""
        assert self.gate.ledger is not None
        self._versions = tuple(self.catalogue.all())
        self._over = set(retired(self.gate.ledger, RETENTION))
        self._present = set(self.store.names())
        for one in self._versions:
            note = self.catalogue.retired(one)
            if note == TAKEN_OVER:
                continue  # the vault's version of it counts
            end = over_since(policy, self._versions, one)
            if _key(one) in self._over:
                if note is not None and not self._alone(one):
                    continue
                # A run was stopped over it. It ends now, also where the rule would let it stay today.
                now = datetime.now(UTC)
                end = end if end is not None and end[0] <= now else (now, 0)
            if end is not None:
                yield Held(one.dataset, one.label, end[0] - timedelta(days=end[1]), days=end[1])

    def end(self, due: Due) -> None:
        """End one version; again where an earlier run was stopped over it."""
        version = self.catalogue.at(due.held.dataset, due.held.version)
        assert version is not None
        record(self.catalogue, self.gate, version)
        self.gate.record_retired(
            dataset=version.dataset, label=version.label, hash=version.hash, why=RETENTION
        )
        self._over.add(_key(version))
        if self.catalogue.retired(version) is None:
            since = due.held.since.astimezone(UTC).date().isoformat()
            self.catalogue.retire(version, f"{RETENTION}: {due.days} days since {since} are over")
        for name in self._alone(version):
            self.store.remove(name)
            self._present.discard(name)
            self.removed += 1

    def _alone(self, version: Version) -> set[str]:
        """Return what of a version lies in the store, and no version that goes on needs."""
        mine = {item.name for item in version.items} & self._present
        for one in self._versions:
            if mine and _key(one) not in self._over and self.catalogue.retired(one) != TAKEN_OVER:
                mine -= {item.name for item in one.items}
        return mine


def _key(version: Version) -> Key:
    return version.dataset, version.label, version.hash
