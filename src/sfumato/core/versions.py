"""Versions of datasets in the ledger: which there are, whose budget they are, and which blocks they touch.

What a version touches follows from time and lineage, never from which people are in it. A version's hash
covers keyed pseudonyms, so that nobody without the project's key can guess at its content; it stays in the
ledger and goes into no receipt of a proven release.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sfumato.core.blocks import chosen, split
from sfumato.core.book import Entry
from sfumato.core.charging import Request, accounts
from sfumato.core.errors import IntegrityError, InvalidRequest, PolicyRefused, UnknownName
from sfumato.core.version_rows import key_of

if TYPE_CHECKING:
    from sfumato.core.gate import Plan
    from sfumato.core.ledger import Ledger

#: How a version is called that holds only the people of some blocks, by construction (data/blocks.py).
RESTRICTED = "blocks"
#: How a version is called that people left who do not agree to a purpose, and its label: of which version.
WITHDRAWN = "withdrawn"
CUT = re.compile(r"([0-9]+)w[0-9]+")
#: How versions are called that were made from others; any other came from a source, and holds new people.
DERIVED = frozenset({"copy", "view", "merge", "without", WITHDRAWN, "encrypted", RESTRICTED})
#: How a table is called that is asked questions where it lies; the catalogue does not have it.
OUTSIDE = "table"
RETENTION = "retention"
#: "vault": what it held lies encrypted in a later version.
REASONS = (RETENTION, "vault", "by hand")
Touched = dict[str, tuple[str, ...]]


def versions(ledger: Ledger) -> tuple[Entry, ...]:
    """Return the rows of all recorded versions, oldest first."""
    return tuple(ledger.versions.fresh().rows)


def touched(ledger: Ledger, hashes: Sequence[str], dataset: str = "") -> Touched:
    """Return what the recorded versions of these hashes touch together: population -> blocks.

    Args:
        dataset: count only its versions; empty: every one with such a hash.
    """
    found: dict[str, set[str]] = {}
    known = ledger.versions.fresh().by_hash
    for row in (row for digest in hashes for row in known.get(digest, ())):
        if dataset in ("", row.body["dataset"]):
            for population, blocks in row.body["populations"].items():
                found.setdefault(population, set()).update(blocks)
    return {population: tuple(sorted(blocks)) for population, blocks in sorted(found.items())}


def record(
    ledger: Ledger,
    body: Mapping[str, Any],
    populations: Mapping[str, Sequence[str]],
    by: Mapping[str, Any],
) -> Entry:
    """Write a version into the ledger, once; the same again returns its row.

    Args:
        body: dataset, label, hash, how, parents.
        populations: whose it is; without blocks: all that exist by now.

    Raises:
        IntegrityError: the label stands in the ledger with another hash.
        PolicyRefused: it would leave out a population or a block of its parents.
    """
    with ledger._charging():
        row = ledger.versions.fresh().by_label.get((body["dataset"], body["label"]))
        if row is not None and row.body["hash"] == body["hash"]:
            return row
        if row is not None:
            raise IntegrityError(
                f"{body['dataset']}@{body['label']} is in the ledger (row {row.seq}) with hash "
                f"{row.body['hash'][:16]}, and has {body['hash'][:16]} now: its file "
                "was changed. Restore it."
            )
        at = ledger.time()
        whose = {
            name: list(_blocks(ledger, name, blocks, at)) for name, blocks in sorted(populations.items())
        }
        _check_parents(ledger, body, whose, at)
        entry = ledger.book.append("version", "", None, {"at": at, **body, "populations": whose, **by})
    ledger._advance(entry)
    return entry


def _blocks(ledger: Ledger, population: str, blocks: Sequence[str], at: str) -> tuple[str, ...]:
    row = ledger.book.find("population", population)
    if row is None:
        raise UnknownName("population in the ledger", population, ledger.populations())
    return tuple(sorted(chosen(population, row.body, tuple(blocks), at)))


def _check_parents(
    ledger: Ledger, body: Mapping[str, Any], whose: Mapping[str, Sequence[str]], at: str
) -> None:
    known = ledger.versions.fresh().by_hash
    populations = {name: row.body for row in ledger.book.all(kind="population") if (name := row.share)}
    problem = fault(body, whose, touched(ledger, body["parents"]), known)
    if not problem and from_source(body):
        problem = unfinished(whose, populations, at)
    if problem:
        raise PolicyRefused(
            f"{body['dataset']}@{body['label']} is not recorded: {problem}. A version touches what its "
            "parents touch, and one from a source all blocks up to its day.",
            rule="populations",
        )


def fault(
    body: Mapping[str, Any],
    whose: Mapping[str, Sequence[str]],
    parents: Mapping[str, Sequence[str]],
    known: Collection[str],
) -> str:
    """Return what is wrong with what a version touches, or nothing; for the ledger and for `verify`.

    Args:
        parents: what its parents touch; known: the hashes of the versions before.
    """
    restricted = body["how"] == RESTRICTED
    if absent := [parent for parent in body["parents"] if parent not in known]:
        return f"its parent {absent[0][:16]} is not in the ledger; record that one first"
    if restricted and not body["parents"]:
        return "a version of some blocks alone needs a parent"
    for population, blocks in parents.items():
        if population not in whose:
            return f"it leaves out the population {population!r} of its parents"
        mine = set(whose[population])
        if not restricted and (left := set(blocks) - mine):
            return f"it leaves out the block {min(left)} of {population!r}, which its parents touch"
        if restricted and (more := mine - set(blocks)):
            return f"it holds the block {min(more)} of {population!r}, which its parents do not touch"
    return ""


def from_source(body: Mapping[str, Any]) -> bool:
    """Whether a version may hold people whom no version before it held."""
    return body["how"] not in DERIVED or not body["parents"]


def unfinished(
    whose: Mapping[str, Sequence[str]], populations: Mapping[str, Mapping[str, Any]], at: str
) -> str:
    """Return which block a version that came from a source at a time leaves out, or nothing."""
    for population, blocks in whose.items():
        if left := set(chosen(population, populations[population], (), at)) - set(blocks):
            return f"it leaves out the block {min(left)} of {population!r}"
    return ""


def record_cut(ledger: Ledger, body: Mapping[str, Any], parent: str, by: Mapping[str, Any]) -> Entry:
    """Write into the ledger, once, a version that people left: it touches what the one touches that it is of.

    Args:
        body: dataset, label, hash; parent: hash of the version that they left.

    Raises:
        PolicyRefused: the label is not that of a cut of a version with this hash in the ledger.
    """
    match = CUT.fullmatch(body["label"])
    for row in versions(ledger):
        same = (row.body["dataset"], row.body["hash"]) == (body["dataset"], parent)
        if match and same and row.body["label"].partition("w")[0] == match[1]:
            facts = {**body, "how": WITHDRAWN, "parents": [parent]}
            return record(ledger, facts, row.body["populations"], by)
    raise PolicyRefused(
        f"{body['dataset']}@{body['label']} is no version that people left, of {parent[:16]} in the ledger: "
        f"such are called NwM, after the version N that the ledger has. Any other is recorded by a curator.",
        rule="roles",
    )


def sources(ledger: Ledger, digest: str, named: Collection[str]) -> tuple[str, ...]:
    """Return the other datasets whose rules a recorded version is held to: those that it was made from.

    Args:
        named: datasets that the policy names; of the others those count where something came in.
    """
    rows: dict[str, list[Entry]] = {}
    for row in versions(ledger):
        rows.setdefault(row.body["hash"], []).append(row)
    waiting = [parent for row in rows.get(digest, ()) for parent in row.body["parents"]]
    found, seen = set[str](), set[str]()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        for row in rows.get(one, ()):
            waiting += row.body["parents"]
            if row.body["dataset"] in named or not row.body["parents"]:
                found.add(row.body["dataset"])
    return tuple(sorted(found))


def retired(ledger: Ledger, why: str = "") -> frozenset[tuple[str, str, str]]:
    """Return (dataset, label, hash) of the versions that the ledger knows to be retired.

    Args:
        why: only those for this reason.
    """
    bodies = [row.body for row in ledger.book.all(kind="retired") if why in ("", row.body["why"])]
    return frozenset((body["dataset"], body["label"], body["hash"]) for body in bodies)


def retire(ledger: Ledger, body: Mapping[str, Any], by: Mapping[str, Any]) -> Entry:
    """Write into the ledger, once for each reason, that a version is retired.

    Raises:
        InvalidRequest: no such version, or no such reason.
    """
    if body["why"] not in REASONS:
        raise InvalidRequest(f"a version is retired for one of {', '.join(REASONS)}, got {body['why']!r}")
    key = key_of(body)
    with ledger._charging():
        for row in ledger.retired.fresh().by_hash.get(key[2], ()):
            if key_of(row.body) == key and row.body["why"] == body["why"]:
                return row
        if key not in ledger.versions.fresh().by_key:
            raise InvalidRequest(f"{body['dataset']}@{body['label']} is not in the ledger: record it first")
        entry = ledger.book.append("retired", "", None, {"at": ledger.time(), **body, **by})
    ledger._advance(entry)
    return entry


def check(ledger: Ledger, plan: Plan) -> None:
    """Refuse a plan with a privacy event that does not charge everybody whom its datasets hold.

    The answer follows from the plan and the ledger alone.

    Raises:
        PolicyRefused: an unrecorded version, or a population or block that is not charged; says which.
    """
    charged = charges(ledger, plan)
    for dataset, digest in plan.datasets:
        # By hash alone: a copy is named under each dataset whose rules it is held to.
        if digest not in ledger.versions.fresh().by_hash:
            raise PolicyRefused(
                f"the version {digest[:16]} of {dataset!r} is not in the ledger, so nobody knows whose "
                "budget it is. A curator's opening of the catalogue records it: sfumato data verify",
                rule="datasets",
            )
        for population, blocks in touched(ledger, (digest,)).items():
            if population not in charged:
                raise PolicyRefused(
                    f"{dataset!r} holds people of the population {population!r}, whom "
                    "this plan does not charge; "
                    f"it charges: {', '.join(sorted(charged)) or 'none'}. Charge them too: "
                    f"population, or also.",
                    rule=f"populations.{population}",
                )
            if left := sorted(set(blocks) - charged[population]):
                raise PolicyRefused(
                    f"{dataset!r} touches {len(left)} blocks of {population!r} that this "
                    "plan does not charge: "
                    f"{', '.join(left[:12])}. Charge them too, or use a view of the charged blocks alone.",
                    rule=f"populations.{population}.blocks",
                )


def charges(ledger: Ledger, plan: Plan) -> dict[str, set[str]]:
    """Return whom a plan charges: population -> blocks (none where it has none)."""
    if not plan.population:
        return {}
    request = Request(plan.population, plan.share, plan.blocks, plan.also, plan.delta)
    found: dict[str, set[str]] = {}
    for account in accounts(ledger, request, ledger.time()):
        population, block = split(account.partition("/")[0])
        found.setdefault(population, set()).update({block} - {""})
    return found
