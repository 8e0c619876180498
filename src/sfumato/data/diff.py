"""What differs between two versions: pictures by path, rows by a key column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sfumato.core.errors import UnknownName
from sfumato.data.contents import gone, holds_rows, is_rows, table
from sfumato.data.store import Store
from sfumato.data.version import Item, Version

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Change:
    """How many were added, removed and changed, and which: paths of items, or values of the key."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    which_added: tuple[str, ...] = ()
    which_removed: tuple[str, ...] = ()
    which_changed: tuple[str, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        names = ("added", "removed", "changed", "which_added", "which_removed", "which_changed")
        return {name: _listed(getattr(self, name)) for name in names}


@dataclass(frozen=True, slots=True)
class Diff:
    """The difference of two versions.

    Args:
        items: pictures and records, by path.
        rows: of tables: a row whose key is in both versions, with other values, was changed.
        key: the column that rows were matched by; empty where there is no table.
        gone: pieces of people who were erased; they are not compared.
        columns_added, columns_removed: of the table; rows are compared by the columns that both have.
    """

    items: Change
    rows: Change = field(default_factory=Change)
    key: str = ""
    columns_added: tuple[str, ...] = ()
    columns_removed: tuple[str, ...] = ()
    gone: int = 0

    @property
    def empty(self) -> bool:
        """Whether nothing differs."""
        counts = [self.items.added, self.items.removed, self.items.changed]
        counts += [self.rows.added, self.rows.removed, self.rows.changed]
        return not (any(counts) or self.columns_added or self.columns_removed)

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "items": self.items.to_data(),
            "rows": self.rows.to_data(),
            "key": self.key,
            "columns_added": list(self.columns_added),
            "columns_removed": list(self.columns_removed),
            "gone": self.gone,
        }


def diff(store: Store, old: Version, new: Version, *, key: str = "") -> Diff:
    """Compare two versions.

    Args:
        key: column that says which row is which; default: the privacy unit.

    Raises:
        UnknownName: the key is not a column of both.
        IntegrityError: something is missing from the store, or was changed.
    """
    items, lost = _items(store, old, new), gone(store, old) + gone(store, new)
    if not (holds_rows(old) or holds_rows(new)):
        return Diff(items, gone=lost)
    tables = [table(store, version) if holds_rows(version) else None for version in (old, new)]
    before, after = [_empty_like(own, other) for own, other in (tables, tables[::-1])]
    first, second = before.column_names, after.column_names
    both = [name for name in first if name in second]
    key = key or new.facts.unit
    if key not in both:
        raise UnknownName("key column", key, both)
    return Diff(
        items,
        _rows(before.select(both), after.select(both), key),
        key,
        tuple(name for name in second if name not in first),
        tuple(name for name in first if name not in second),
        lost,
    )


def _items(store: Store, old: Version, new: Version) -> Change:
    before = {item.path: item for item in old.items if not is_rows(item)}
    after = {item.path: item for item in new.items if not is_rows(item)}
    added, removed = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
    changed = [
        path for path in sorted(before.keys() & after.keys()) if _differ(store, before[path], after[path])
    ]
    return Change(len(added), len(removed), len(changed), tuple(added), tuple(removed), tuple(changed))


def _differ(store: Store, one: Item, other: Item) -> bool:
    """Return whether the contents differ; an encrypting store may call the same contents by two names."""
    if one.name == other.name or store.erased(one.home) or store.erased(other.home):
        return False
    return store.get(one.name, one.home) != store.get(other.name, other.home)


def _empty_like(own: pa.Table | None, other: pa.Table | None) -> pa.Table:
    if own is not None:
        return own
    assert other is not None
    return other.slice(0, 0)


def _rows(before: pa.Table, after: pa.Table, key: str) -> Change:
    """Count rows as a multiset: for one key, a row lost and a row gained are one row changed."""
    import numpy as np
    import pyarrow as pa

    from sfumato.data.disclosure import codes

    columns = [_joined(before[name], after[name]) for name in before.column_names]
    keys = columns[before.column_names.index(key)]
    key_codes, row_codes = codes([keys]), codes(columns)
    sides = np.concatenate([np.full(len(before), -1), np.full(len(after), 1)])
    balance = np.bincount(row_codes, weights=sides).astype(np.int64)
    key_of = np.zeros(len(balance), np.int64)
    key_of[row_codes] = key_codes  # the key is one of the columns, so equal rows have equal keys
    size = int(key_codes.max(initial=-1)) + 1
    gained = np.bincount(key_of, np.maximum(balance, 0), minlength=size).astype(np.int64)
    lost = np.bincount(key_of, np.maximum(-balance, 0), minlength=size).astype(np.int64)
    changed = np.minimum(gained, lost)
    first = np.unique(key_codes, return_index=True)[1]

    def which(chosen: Any) -> tuple[str, ...]:
        at = pa.array(first[np.flatnonzero(chosen)])
        return tuple(sorted(str(value) for value in keys.take(at).to_pylist()))

    more, fewer = gained - changed, lost - changed
    return Change(
        int(more.sum()), int(fewer.sum()), int(changed.sum()), which(more), which(fewer), which(changed)
    )


def _joined(before: pa.ChunkedArray, after: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return both columns as one; a column that changed its type is compared as text."""
    import pyarrow as pa

    if before.type != after.type:
        before, after = before.cast(pa.string()), after.cast(pa.string())
    return pa.chunked_array([*before.chunks, *after.chunks], before.type)


def _listed(value: int | Sequence[str]) -> int | list[str]:
    return value if isinstance(value, int) else list(value)
