"""Reading a version back; and a version without some people."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sfumato.core.errors import InvalidRequest
from sfumato.data.add import put
from sfumato.data.catalogue import Catalogue
from sfumato.data.lineage import derive
from sfumato.data.pictures import PIXELS, RECORDS
from sfumato.data.store import Place, Store
from sfumato.data.version import Item, Version

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored picture: its item, its bytes, and what is kept about it."""

    item: Item
    data: bytes
    record: dict[str, Any]


def holds_rows(version: Version) -> bool:
    """Return whether a version holds a table."""
    return any(is_rows(item) for item in version.items)


def is_rows(item: Item) -> bool:
    """Return whether an item is (part of) a table."""
    return item.rows > 0


def table(store: Store, version: Version) -> pa.Table:
    """Return all rows of a version; the unit's column holds pseudonyms.

    Raises:
        InvalidRequest: it holds pictures.
        IntegrityError: something is missing from the store, or was changed.
    """
    import pyarrow as pa

    from sfumato.data.tables import from_bytes

    parts = [from_bytes(store.get(item.name, item.home)) for item in version.items if is_rows(item)]
    if not parts and not version.facts.columns:
        raise InvalidRequest(f"{version.spec} holds no table")
    if not parts:  # everybody left
        return pa.table({name: pa.array([], _type(kind)) for name, kind in version.facts.columns})
    return pa.concat_tables(parts, promote_options="permissive")


def _type(kind: str) -> pa.DataType:
    import pyarrow as pa

    try:
        return pa.type_for_alias(kind)
    except ValueError:  # one with arguments, such as a time zone
        return pa.null()


def pictures(store: Store, version: Version) -> Iterator[Stored]:
    """Iterate over a version's pictures.

    Raises:
        IntegrityError: something is missing from the store, or was changed.
    """
    records = {_key(item): item for item in version.items if item.home.path.startswith(RECORDS)}
    for item in version.items:
        if item.home.path.startswith(PIXELS):
            about = records.get(_key(item))
            record = json.loads(store.get(about.name, about.home)) if about is not None else {}
            yield Stored(item, store.get(item.name, item.home), record)


def without(
    catalogue: Catalogue, store: Store, version: Version, subjects: Collection[str], *, why: str = "without"
) -> Version:
    """Write the next version of a dataset, which some people have left; it may hold nobody then.

    Args:
        subjects: their pseudonyms; see `Catalogue.people`.
        why: one word for the lineage, such as "withdrawn".
    """

    def build(label: str) -> Sequence[Item]:
        # Perhaps nobody: a refusal here would tell that nobody else was in it.
        return staying(store, version, label, subjects)

    return derive(catalogue, version.dataset, [version], build, how=why)


def staying(store: Store, version: Version, label: str, subjects: Collection[str]) -> list[Item]:
    """Return what a version holds without some people; a table that shrinks is stored for the new label."""
    leaving = set(subjects)
    items = [
        item if item.subject or not is_rows(item) else _cut(store, version, item, label, leaving)
        for item in version.items
        if item.subject not in leaving
    ]
    return [item for item in items if item is not None]


def people(store: Store, version: Version) -> tuple[str, ...]:
    """Return the pseudonyms of everybody that a version is about, sorted.

    Raises:
        IntegrityError: a table is missing from the store, or was changed.
    """
    from sfumato.data.tables import from_bytes

    found = {item.subject for item in version.items}
    for item in version.items:
        if is_rows(item) and not item.subject:
            column = from_bytes(store.get(item.name, item.home))[version.facts.unit]
            found.update(column.unique().to_pylist())
    return tuple(sorted(found - {""}))


def _cut(store: Store, version: Version, item: Item, label: str, leaving: set[str]) -> Item | None:
    """Return a table's item without the rows of some people: itself where it has none of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from sfumato.data.tables import from_bytes, to_bytes

    whole = from_bytes(store.get(item.name, item.home))
    gone = pc.is_in(whole[version.facts.unit], value_set=pa.array(sorted(leaving), pa.string()))
    rows = whole.filter(pc.invert(gone))
    if len(rows) == len(whole):
        return item
    place = Place(version.dataset, label, item.path)
    return put(store, place, to_bytes(rows), rows=len(rows)) if len(rows) else None


def _key(item: Item) -> tuple[str, str, str]:
    """Return what a picture and its record have in common, whatever a merge called them."""
    home = item.home
    return home.dataset, home.version, home.path.split("/", 1)[-1].removesuffix(".json")
