"""Reading a version back; and a version without some people."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sfumato.core.errors import Erased, InvalidRequest
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


@dataclass(frozen=True, slots=True)
class Rows:
    """A version's rows, and how many pieces of it are of people who were erased."""

    table: pa.Table
    gone: int


def rows(store: Store, version: Version) -> Rows:
    """Return the rows of a version that can be read; the unit's column holds pseudonyms.

    Raises:
        InvalidRequest: it holds pictures.
        IntegrityError: something is missing from the store, or was changed.
    """
    import pyarrow as pa

    from sfumato.data.tables import empty_table, from_bytes

    if not (holds_rows(version) or version.facts.columns):
        raise InvalidRequest(f"{version.spec} holds no table")
    pieces = [_read(store, item) for item in version.items if is_rows(item)]
    parts = [from_bytes(data) for data in pieces if data is not None]
    parts = parts or [empty_table(version.facts.columns)]
    return Rows(pa.concat_tables(parts, promote_options="permissive"), sum(one is None for one in pieces))


def table(store: Store, version: Version) -> pa.Table:
    """Return the rows of a version that can be read; `rows` also says what cannot."""
    return rows(store, version).table


def gone(store: Store, version: Version) -> int:
    """Return how many pieces of a version are of people who were erased; needs no key."""
    return sum(store.erased(item.home) for item in version.items)


def _read(store: Store, item: Item) -> bytes | None:
    """Return an item's bytes; None where its person was erased."""
    try:
        return store.get(item.name, item.home)
    except Erased:
        return None


def pictures(store: Store, version: Version) -> Iterator[Stored]:
    """Iterate over a version's pictures, but for those of people who were erased; `gone` counts these.

    Raises:
        IntegrityError: something is missing from the store, or was changed.
    """
    records = {_key(item): item for item in version.items if item.home.path.startswith(RECORDS)}
    for item in version.items:
        if item.home.path.startswith(PIXELS):
            about = records.get(_key(item))
            data, record = _read(store, item), _read(store, about) if about is not None else b"{}"
            if data is not None and record is not None:
                yield Stored(item, data, json.loads(record))


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
    """Return what a version holds without some people; a table that shrinks is stored for the new label.

    What is of people who were erased goes too: nobody can read it.
    """
    leaving = set(subjects)
    items = [
        item if item.subject or not is_rows(item) else _cut(store, version, item, label, leaving)
        for item in version.items
        if item.subject not in leaving and not store.erased(item.home)
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
    leavers = pc.is_in(whole[version.facts.unit], value_set=pa.array(sorted(leaving), pa.string()))
    left = whole.filter(pc.invert(leavers))
    if len(left) == len(whole):
        return item
    place = Place(version.dataset, label, item.path)
    return put(store, place, to_bytes(left), rows=len(left)) if len(left) else None


def _key(item: Item) -> tuple[str, str, str]:
    """Return what a picture and its record have in common, whatever a merge called them."""
    home = item.home
    return home.dataset, home.version, home.path.split("/", 1)[-1].removesuffix(".json")
