"""Versions in the ledger: the catalogue's files come first, their rows second, and none is forgotten."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sfumato.core.blocks import MARK
from sfumato.core.errors import (
    IntegrityError,
    InvalidRequest,
    LedgerMoved,
    LedgerRolledBack,
    LedgerTampered,
    PolicyRefused,
)
from sfumato.core.vaults import MADE
from sfumato.core.versions import CUT, DERIVED, OUTSIDE, RESTRICTED, touched
from sfumato.core.versions import versions as rows_of
from sfumato.data.lineage import ancestors
from sfumato.data.version import TAKEN_OVER, Version

if TYPE_CHECKING:
    from sfumato.core.gate import Gate
    from sfumato.core.ledger import Ledger
    from sfumato.core.project import Project
    from sfumato.data.catalogue import Catalogue

#: dataset, label -> hash
Known = dict[tuple[str, str], str]
#: These are about the whole ledger, and no version can be recorded or used before they are mended.
FATAL = (LedgerMoved, LedgerRolledBack, LedgerTampered)
#: How a view of some blocks says in its facts which ones: they are hashed with it.
BLOCKS = "blocks "


def made_of(population: str, blocks: Iterable[str]) -> str:
    """Return how a view of some blocks names them in its facts."""
    return f"{BLOCKS}{population}{MARK}{','.join(blocks)}"


def touches(ledger: Ledger, version: Version) -> dict[str, tuple[str, ...]]:
    """Return what a version touches, for its row: population -> blocks; none named: all that exist by now.

    It follows from how the version was made and from the rows of its parents, never from who is in it.
    """
    facts = version.facts
    theirs = touched(ledger, version.parents) if facts.reader in DERIVED and version.parents else {}
    found = {name: theirs.get(name, ()) for name in facts.populations}
    if facts.reader == RESTRICTED:
        population, _, blocks = facts.made_by.removeprefix(BLOCKS).partition(MARK)
        found[population] = tuple(blocks.split(","))
    return found


def record(catalogue: Catalogue, gate: Gate, version: Version) -> None:
    """Write a version and what it was made from into the ledger, the oldest first, where that is not done.

    Who is no curator writes down only that people left a version that the ledger knows: Sfumato made that.

    Raises:
        PolicyRefused, InvalidRequest, IntegrityError: it cannot be; says why.
    """
    if gate.ledger is None or not set(version.facts.populations) <= set(gate.ledger.populations()):
        return  # nothing private can be released from it
    known = {(row.body["dataset"], row.body["label"], row.body["hash"]) for row in rows_of(gate.ledger)}
    lineage = (version, *ancestors(catalogue, version))
    curator = gate.actor.may("curate")
    for one in _parents_first([one for one in lineage if (one.dataset, one.label, one.hash) not in known]):
        if curator:
            _write(gate, one)
        elif CUT.fullmatch(one.label) and (one.dataset, one.parents[0]) in {(d, h) for d, _, h in known}:
            gate.record_cut(dataset=one.dataset, label=one.label, hash=one.hash, parent=one.parents[0])
            known.add((one.dataset, one.label, one.hash))


def _write(gate: Gate, version: Version) -> None:
    if gate.ledger is None:
        return
    gate.record_version(
        dataset=version.dataset,
        label=version.label,
        hash=version.hash,
        how=version.facts.reader,
        parents=version.parents,
        populations=touches(gate.ledger, version),
    )


class Recorder:
    """Writes a project's versions into its ledger, through the gate."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.refused: dict[str, str] = {}  # spec -> why it could not be recorded

    @property
    def allowed(self) -> bool:
        """Whether who runs this may record: else the next curator's opening does."""
        return self._project.actor.may("curate")

    def version(self, version: Version) -> None:
        """Record a version, once."""
        _write(self._project.gate(), version)

    def retired(self, version: Version, reason: str) -> None:
        """Record that a version was retired, unless the ledger says so already: that its time was over."""
        if (version.dataset, version.label) not in recorded(self._project)[1]:
            why = "vault" if reason == TAKEN_OVER else "by hand"
            self._project.gate().record_retired(
                dataset=version.dataset, label=version.label, hash=version.hash, why=why
            )

    def vault(self, name: str, what: str = MADE) -> None:
        """Record that the project's vault was made, once, or rotated."""
        if self.allowed:
            self._project.gate().record_vault(vault=name, what=what)

    def catch_up(self, catalogue: Catalogue) -> int:
        """Record what is not yet, parents first; return how many versions that were.

        A version that cannot be recorded is in `refused`, with the reason: it cannot be used for a release
        with a privacy event, and keeps nobody from the others.
        """
        if not self.allowed or not catalogue.names():
            return 0
        self.refused.clear()
        known, gone = recorded(self._project)
        every: list[Version] = []
        for name in catalogue.names():
            with contextlib.suppress(IntegrityError):  # `verify` names what is damaged
                every += catalogue.versions(name, cuts=True)
        missing = [one for one in every if (one.dataset, one.label) not in known]
        for one in _parents_first(missing):
            with self._reporting(one):
                self.version(one)
        for one in every:
            if (one.dataset, one.label) not in gone and one.spec not in self.refused:
                with self._reporting(one):
                    if (reason := catalogue.retired(one)) is not None:
                        self.retired(one, reason)
        return len(missing) - len(self.refused.keys() & {one.spec for one in missing})

    @contextlib.contextmanager
    def _reporting(self, version: Version) -> Iterator[None]:
        try:
            yield
        except FATAL:
            raise
        except (PolicyRefused, InvalidRequest, IntegrityError) as error:
            self.refused[version.spec] = str(error)


def recorded(project: Project) -> tuple[Known, Known]:
    """Return the versions that the ledger knows, and those that it knows to be retired."""
    known = {
        (row.body["dataset"], row.body["label"]): row.body["hash"]
        for row in rows_of(project.ledger)
        if row.body["how"] != OUTSIDE
    }
    gone = {
        (row.body["dataset"], row.body["label"]): row.body["hash"]
        for row in project.ledger.book.all(kind="retired")
    }
    return known, gone


def compare(catalogue: Catalogue, known: Known, gone: Known, datasets: Iterable[str] = ()) -> list[str]:
    """Return what the ledger knows and the catalogue lacks, or holds otherwise."""
    wrong, chosen = [], set(datasets)
    for (dataset, label), digest in known.items():
        if chosen and dataset not in chosen:
            continue
        try:
            version = catalogue.at(dataset, label)
        except IntegrityError as error:
            wrong.append(str(error))
            continue
        if version is None:
            wrong.append(f"{dataset}@{label}, which the ledger knows, is missing")
        elif version.hash != digest:
            wrong.append(
                f"{dataset}@{label} has hash {version.hash[:16]}, and the ledger knows {digest[:16]}"
            )
        elif (dataset, label) in gone and catalogue.retired(version) is None:
            wrong.append(
                f"{dataset}@{label} is retired in the ledger, and not in the catalogue (where its time was "
                "over: run `sfumato data retain` again)"
            )
    return wrong


def _parents_first(versions: list[Version]) -> list[Version]:
    by_hash = {one.hash: one for one in versions}  # two names of one content have the same parents
    placed, listed, result = set[str](), set[str](), list[Version]()
    for start in versions:
        waiting = [start]
        while waiting:
            one = waiting[-1]
            if ahead := [by_hash[p] for p in one.parents if p in by_hash and p not in placed]:
                waiting += ahead
                continue
            waiting.pop()
            placed.add(one.hash)
            if one.spec not in listed:
                listed.add(one.spec)
                result.append(one)
    return result
