"""Who is in which block, and views that hold the people of some blocks alone."""

from __future__ import annotations

from collections.abc import Collection

from sfumato.core.blocks import Blocks, chosen, rule_of
from sfumato.core.errors import IntegrityError, InvalidRequest, PolicyRefused
from sfumato.core.ledger import Ledger
from sfumato.core.versions import RESTRICTED, touched, versions
from sfumato.data.catalogue import Catalogue
from sfumato.data.lineage import derive
from sfumato.data.recording import made_of
from sfumato.data.version import Version


def blocks_of(catalogue: Catalogue, ledger: Ledger, population: str) -> dict[str, str]:
    """Return the block of every person (pseudonym) of a population whom a recorded version holds.

    Guarantee:
        A person's block follows from the ledger's first row of a version that holds them, or from their
        pseudonym: never from anybody else, and it never changes.

    Raises:
        InvalidRequest: the population has no blocks, or blocks by enrolment and a version that was stored
            whole, whose people would seem to be new later on.
        IntegrityError: a version that the ledger knows is missing.
    """
    rule, found = _rule(ledger, population), dict[str, str]()
    known = {one.hash: one for one in catalogue.all()}
    for row in versions(ledger):
        if population not in row.body["populations"]:
            continue
        block = rule.at(row.body["at"]) if rule.period else ""
        if row.body["hash"] not in known:
            raise IntegrityError(
                f"{row.body['dataset']}@{row.body['label']}, which the ledger knows, is missing from the "
                "catalogue: restore it"
            )
        for item in known[row.body["hash"]].items:
            if not item.subject and rule.period:
                raise InvalidRequest(
                    f"{row.body['dataset']}@{row.body['label']} holds items about many people, so nobody can "
                    f"say since when each of them is in {population!r}: its blocks cannot be viewed alone"
                )
            if item.subject:
                found.setdefault(item.subject, block or rule.of(item.subject))
    return found


def restrict(
    catalogue: Catalogue, ledger: Ledger, version: Version, blocks: Collection[str], dataset: str
) -> Version:
    """Write a view of a version that holds the people of some blocks and nobody else.

    It touches these blocks only, and a catalogue opened by `sfumato.data.opening` records it so.

    Raises:
        InvalidRequest: no blocks or several populations, or an item that is about many.
        PolicyRefused: the version is not in the ledger, or does not touch such a block.
    """
    if len(version.facts.populations) != 1:
        raise InvalidRequest(
            f"{version.spec} has the populations {', '.join(version.facts.populations) or 'none'}: a view of "
            "blocks needs a version of exactly one"
        )
    population = version.facts.populations[0]
    row = ledger.book.find("population", population)
    wanted = chosen(population, row.body if row else {}, tuple(blocks), ledger.time())
    theirs = touched(ledger, (version.hash,), version.dataset).get(population)
    if theirs is None or not set(wanted) <= set(theirs) or not blocks:
        raise PolicyRefused(
            f"{version.spec} touches the blocks {', '.join(theirs or ()) or 'none yet'}; asked: "
            f"{', '.join(wanted)}. Only blocks that a recorded version touches can be viewed alone.",
            rule=f"populations.{population}.blocks",
        )
    if any(not item.subject for item in version.items):
        raise InvalidRequest(
            f"{version.spec} has items about many people, which no block can be cut from: add it with "
            f'partition = "subject" under [datasets.{version.dataset}]'
        )
    where = blocks_of(catalogue, ledger, population)
    items = [item for item in version.items if where.get(item.subject) in wanted]
    # Perhaps nobody: a refusal here would tell that nobody else is in these blocks.
    made_by = made_of(population, wanted)  # hashed, so that two choices are two versions
    return derive(catalogue, dataset, [version], items, how=RESTRICTED, made_by=made_by)


def _rule(ledger: Ledger, population: str) -> Blocks:
    row = ledger.book.find("population", population)
    rule = rule_of(row.body) if row is not None else None
    if rule is None:
        raise InvalidRequest(
            f"the population {population!r} has no blocks: see [populations] in sfumato.toml"
        )
    return rule
