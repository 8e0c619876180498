"""Lineage: whose budget a version is, however it was copied, cut, renamed or merged.

A population is declared where data comes in at the door, and nowhere else. Every other version has the
populations of its parents, all of them, so no name and no detour gives anybody a fresh budget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from sfumato.core.errors import IntegrityError, InvalidRequest
from sfumato.data.catalogue import Catalogue
from sfumato.data.version import Facts, Item, Version


def populations_of(catalogue: Catalogue, version: Version) -> tuple[str, ...]:
    """Return the populations whose budget a release of this version must charge.

    Guarantee:
        The union of what was declared at the door for the version and for all its ancestors, read through
        the lineage; names, labels and what a version claims do not count.

    Raises:
        IntegrityError: an ancestor is missing.
    """
    found = {one.facts.population for one in (version, *ancestors(catalogue, version))}
    return tuple(sorted(found - {""}))


def check_populations(catalogue: Catalogue, version: Version) -> None:
    """Check that a version claims the populations that its lineage gives it.

    Raises:
        IntegrityError: it claims others.
    """
    expected = populations_of(catalogue, version)
    if version.facts.populations != expected:
        raise IntegrityError(
            f"{version.spec} claims the populations {', '.join(version.facts.populations) or 'none'}, and "
            f"its lineage gives {', '.join(expected) or 'none'}"
        )


def copy(catalogue: Catalogue, version: Version, dataset: str) -> Version:
    """Return the same data under another name: a copy, or one half of a rename (retire the other)."""
    return derive(catalogue, dataset, [version], version.items, how="copy")


def view(catalogue: Catalogue, version: Version, dataset: str, paths: Collection[str]) -> Version:
    """Return some items of a version as a version.

    Raises:
        InvalidRequest: a path that the version does not hold.
    """
    wanted = set(paths)
    items = [item for item in version.items if item.path in wanted]
    if absent := wanted - {item.path for item in items}:
        raise InvalidRequest(f"{version.spec} holds no {min(absent)!r}")
    return derive(catalogue, dataset, [version], items, how="view")


def merge(catalogue: Catalogue, versions: Sequence[Version], dataset: str) -> Version:
    """Return versions put together; paths that clash go below the name of their dataset and label.

    Raises:
        InvalidRequest: a version is named twice.
    """
    specs = [version.spec for version in versions]
    if twice := [spec for spec in specs if specs.count(spec) > 1]:
        raise InvalidRequest(f"{twice[0]} is named twice: a merge takes each version once")
    count = Counter(item.path for version in versions for item in version.items)
    taken, items = set(count), []
    for version in versions:
        for item in version.items:
            path = item.path
            if count[path] > 1:  # and never a refusal: that somebody is in both is nobody's business
                while path in taken:
                    path = f"{version.dataset}/{version.label}/{path}"
                taken.add(path)
            items.append(replace(item, path=path))
    return derive(catalogue, dataset, versions, items, how="merge")


def ancestors(catalogue: Catalogue, version: Version) -> tuple[Version, ...]:
    """Return every version that one was made from, at whatever distance.

    Raises:
        IntegrityError: one is missing.
    """
    known = {one.hash: one for one in catalogue.all()} if version.parents else {}
    waiting, found = list(version.parents), dict[str, Version]()
    while waiting:
        digest = waiting.pop()
        if digest in found:
            continue
        if digest not in known:
            raise IntegrityError(f"version {digest[:16]}, which {version.spec} was made from, is missing")
        found[digest] = known[digest]
        waiting += known[digest].parents
    return tuple(found.values())


def derive(
    catalogue: Catalogue,
    dataset: str,
    parents: Sequence[Version],
    items: Sequence[Item] | Callable[[str], Sequence[Item]],
    *,
    how: str,
    made_by: str = "",
) -> Version:
    """Write a version made from others. It cannot declare a population: it has those of its parents.

    Args:
        items: what it holds; or a function that stores it, given the new label.
        how: one word for what was done, kept in the version.
        made_by: digest of the receipt of the release that made it, where one did.

    Raises:
        InvalidRequest: no parent, or parents with different privacy units.
    """
    if not parents:
        raise InvalidRequest("a derived version needs at least one parent")
    units = sorted({parent.facts.unit for parent in parents})
    if len(units) > 1:
        raise InvalidRequest(f"versions with different privacy units cannot be merged: {', '.join(units)}")
    with catalogue.claim(dataset) as label:
        # A name that has versions is not written over: the new one follows them, and inherits from them too.
        older = catalogue.versions(dataset)[-1:] if dataset in catalogue.names() else ()
        inherited = {name for one in (*parents, *older) for name in populations_of(catalogue, one)}
        held = items(label) if callable(items) else items
        facts = replace(facts_of(parents, held, how, made_by), populations=tuple(sorted(inherited)))
        return catalogue.add(dataset, label, held, facts, [*parents, *older])


def facts_of(parents: Sequence[Version], items: Sequence[Item], how: str, made_by: str = "") -> Facts:
    """Return what a version made from others says about itself, but for its populations."""
    first = parents[0].facts
    purposes = [set(parent.facts.purposes) for parent in parents if parent.facts.purposes]
    if purposes and not set.intersection(*purposes):
        raise InvalidRequest("these versions were collected for different purposes, and no purpose fits all")
    same = all(parent.facts.columns == first.columns for parent in parents)
    subjects = {item.subject for item in items}
    # A view that happens to hold everybody is no copy: that it does would tell that nobody else is there.
    whole = how == "copy" and len(parents) == 1 and tuple(items) == parents[0].items
    return Facts(
        reader=how,
        unit=first.unit,
        purposes=tuple(sorted(set.intersection(*purposes))) if purposes else (),
        columns=first.columns if same else (),
        kept=tuple(dict.fromkeys(field for parent in parents for field in parent.facts.kept)),
        dropped=tuple(dict.fromkeys(pair for parent in parents for pair in parent.facts.dropped)),
        generalised=tuple(dict.fromkeys(pair for parent in parents for pair in parent.facts.generalised)),
        rows=sum(item.rows for item in items),
        subjects=first.subjects if whole else 0 if "" in subjects else len(subjects),
        tested=first.tested if whole else {},
        made_by=made_by,
        fingerprint=first.fingerprint if whole else "",
        content=first.content if whole else "",
    )
