"""Versions in the ledger: the catalogue's files come first, their rows second, and none is forgotten."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sfumato.core.errors import IntegrityError
from sfumato.core.versions import CUT, RESTRICTED, touched
from sfumato.core.versions import versions as rows_of
from sfumato.data.age import at_the_door
from sfumato.data.blocks import blocks_named
from sfumato.data.lineage import ancestors
from sfumato.data.version import Version

if TYPE_CHECKING:
    from sfumato.core.gate import Gate
    from sfumato.core.project import Project
    from sfumato.data.catalogue import Catalogue

#: dataset, label -> hash
Known = dict[tuple[str, str], str]


class Recorder:
    """Writes a project's versions into its ledger, through the gate."""

    def __init__(self, project: Project) -> None:
        self._project = project

    @property
    def allowed(self) -> bool:
        """Whether who runs this may record: else the next curator's opening does."""
        return self._project.actor.may("curate")

    def version(self, version: Version) -> None:
        """Record a version, once."""
        _write(self._project.gate(), version)

    def retired(self, version: Version) -> None:
        """Record that a version was retired, by hand unless the ledger says that its time was over."""
        if (version.dataset, version.label) not in recorded(self._project)[1]:
            self._project.gate().record_retired(
                dataset=version.dataset, label=version.label, hash=version.hash, why="by hand"
            )

    def catch_up(self, catalogue: Catalogue) -> int:
        """Record what is not yet, parents first; return how many versions that were."""
        if not self.allowed or not catalogue.names():
            return 0
        known, gone = recorded(self._project)
        every: list[Version] = []
        for name in catalogue.names():
            with contextlib.suppress(IntegrityError):  # `verify` names what is damaged
                every += catalogue.versions(name, cuts=True)
        missing = [one for one in every if (one.dataset, one.label) not in known]
        for one in _parents_first(missing):
            self.version(one)
        for one in every:
            if (one.dataset, one.label) not in gone and catalogue.retired(one) is not None:
                self.retired(one)
        return len(missing)


def record(catalogue: Catalogue, gate: Gate, version: Version) -> None:
    """Write a version and what it was made from into the ledger, the oldest first, where that is not done.

    Who is no curator writes down only that people left a version that the ledger knows: Sfumato made that.
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
    gate.record_version(
        dataset=version.dataset,
        label=version.label,
        hash=version.hash,
        how=version.facts.reader,
        parents=version.parents,
        populations=_touching(gate, version),
    )


def _touching(gate: Gate, version: Version) -> dict[str, tuple[str, ...]]:
    """Return what a version touches, by time and lineage; without blocks all that exist by now."""
    own = dict.fromkeys(version.facts.populations, tuple[str, ...]())
    if gate.ledger is None or at_the_door(version):
        return own
    if version.facts.reader == RESTRICTED:
        return own | blocks_named(version)
    theirs = touched(gate.ledger, version.parents)
    return own | {name: blocks for name, blocks in theirs.items() if name in own}


def recorded(project: Project) -> tuple[Known, Known]:
    """Return the versions that the ledger knows, and those that it knows to be retired."""
    known = {(row.body["dataset"], row.body["label"]): row.body["hash"] for row in rows_of(project.ledger)}
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
    placed, result = set[str](), list[Version]()
    for start in versions:
        waiting = [start]
        while waiting:
            one = waiting[-1]
            if ahead := [by_hash[p] for p in one.parents if p in by_hash and p not in placed]:
                waiting += ahead
                continue
            waiting.pop()
            placed.add(one.hash)
            if one not in result:
                result.append(one)
    return result
