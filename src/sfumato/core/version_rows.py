"""The rows about versions, read from the book once: what was seen is not read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato.core.book import Book, Entry

Key = tuple[str, str, str]


class VersionRows:
    """Rows of one kind, by hash and by name, in the order of the book; grows as the book does.

    Ask for it before something is appended in the same transaction: rows that are taken back must not stay.

    Args:
        kind: version, or retired.
    """

    def __init__(self, book: Book, kind: str) -> None:
        self._book, self._kind, self._after = book, kind, 0
        self.rows: list[Entry] = []
        self.by_hash: dict[str, list[Entry]] = {}
        self.by_key: dict[Key, Entry] = {}
        self.by_label: dict[tuple[str, str], Entry] = {}

    def fresh(self) -> VersionRows:
        """Read what the book has got since, and return this."""
        last = self._book.last()
        for row in self._book.all(kind=self._kind, after=self._after):
            self._add(row)
        self._after = max(last.seq if last else 0, self.rows[-1].seq if self.rows else 0)
        return self

    def _add(self, row: Entry) -> None:
        key = key_of(row.body)
        self.rows.append(row)
        self.by_hash.setdefault(key[2], []).append(row)
        self.by_key.setdefault(key, row)
        self.by_label.setdefault(key[:2], row)


def key_of(body: Mapping[str, Any]) -> Key:
    """Return what a row is about: dataset, label and hash."""
    return body["dataset"], body["label"], body["hash"]
