"""Taking data over into a new vault: every dataset is encrypted afterwards, and nothing is left in clear.

A version's hash covers the names of its items, so that no version can change its items. Each dataset
therefore gets a next version with the content of its newest usable one, and the versions before are retired:
their history stays, their data goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sfumato.core.errors import PolicyRefused
from sfumato.core.files import make_private, shred, write_whole
from sfumato.data.add import ENCRYPTED, ROWS, put_all
from sfumato.data.catalogue import Catalogue
from sfumato.data.contents import is_rows
from sfumato.data.lineage import populations_of
from sfumato.data.lock import locked
from sfumato.data.store import MOVED, Place, PlainStore, Store
from sfumato.data.version import TAKEN_OVER, Version


@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken over: the new versions, how many old ones were retired, how many plain items went."""

    versions: tuple[str, ...]
    retired: int
    removed: int


def take_over(catalogue: Catalogue, plain: PlainStore, vault: Store) -> Taken:
    """Move a project's plain data into its vault.

    Killed at any moment, doing it again goes on: a dataset's plain items go last, when every dataset has its
    encrypted version.

    Raises:
        InvalidRequest: a version is being added now.
        IntegrityError: something is missing, or was changed; what is plain stays.
    """
    if not plain.root.exists():
        make_private(plain.root)
    with locked(plain.root / ".lock"):
        write_whole(plain.root / MOVED, "", mode=None)  # from here on nothing is stored in clear
        with catalogue.quiet():  # and nobody is at it who began before
            pass
        old = [one for one in catalogue.all() if any(plain.holds(item.name) for item in one.items)]
        made = []
        for dataset in sorted({one.dataset for one in old}):
            try:
                newest = catalogue.usable(dataset)
            except PolicyRefused:
                continue  # all of it was retired, and stays so
            if newest in old:
                made.append(_encrypted(catalogue, plain, vault, newest).spec)
        retired = 0
        for version in old:
            if catalogue.retired(version) is None:
                catalogue.retire(version, TAKEN_OVER)
                retired += 1
        removed = sum(1 for _ in plain.names())
        for path in sorted(plain.root.glob("??/*")) + sorted(plain.root.glob("??/.*")):
            shred(path)  # what a killed writer left aside too
    return Taken(tuple(made), retired, removed)


def _encrypted(catalogue: Catalogue, plain: PlainStore, vault: Store, version: Version) -> Version:
    """Write a version's content into the vault, as the next version."""
    with catalogue.claim(version.dataset) as label:
        newest = catalogue.versions(version.dataset)[-1]
        parents = [version, newest]
        known = {one.path: one for one in version.items if not plain.holds(one.name)}
        paths: list[str] = []
        moved = put_all(vault, _pieces(plain, version, paths))
        items = [replace(item, path=path) for item, path in zip(moved, paths, strict=True)]
        populations = {name for parent in parents for name in populations_of(catalogue, parent)}
        facts = replace(
            version.facts, reader=ENCRYPTED, population="", populations=tuple(sorted(populations))
        )
        return catalogue.add(version.dataset, label, [*known.values(), *items], facts, parents)


def _pieces(plain: PlainStore, version: Version, paths: list[str]) -> Iterator[tuple[Place, bytes, int]]:
    """Yield what goes into the vault, tables cut by person; appends each piece's path in the version."""
    from sfumato.data.tables import by_subject, from_bytes, to_bytes

    for item in version.items:
        if not plain.holds(item.name):
            continue
        data = plain.get(item.name, item.home)
        if item.subject or not is_rows(item):
            paths.append(item.path)
            yield item.home, data, item.rows
            continue
        for subject, rows in by_subject(from_bytes(data), version.facts.unit):
            paths.append(_of_one(item.path, subject))
            home = item.home
            yield (
                Place(home.dataset, home.version, _of_one(home.path, subject), subject),
                to_bytes(rows),
                len(rows),
            )


def _of_one(path: str, subject: str) -> str:
    return path.removesuffix(f"{ROWS}.parquet") + f"{ROWS}/{subject}.parquet"
