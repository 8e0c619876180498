"""The rows of a ledger: their form, their hashes, what every book can do, and the SQLite file.

The other backend is `book_postgres.py`; `open_book` picks one by what it is given.
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.core.anchor import Head
from sfumato.core.errors import (
    IntegrityError,
    InvalidRequest,
    LedgerMoved,
    LedgerTampered,
    LedgerUnavailable,
)
from sfumato.core.files import canonical, share

BUSY_SECONDS = 120.0
#: Rows read at a time: a reader that is left half-way must not keep writers from committing.
PAGE = 1000
ROOT_HASH = "0" * 64
#: How a PostgreSQL URL begins.
SCHEMES = ("postgresql://", "postgres://")
COLUMNS = "seq, kind, share, ref, body, prev, hash"

SCHEMA = """
CREATE TABLE entries (
    seq   INTEGER PRIMARY KEY,
    kind  TEXT NOT NULL,
    share TEXT NOT NULL,
    ref   INTEGER,
    body  TEXT NOT NULL,
    prev  TEXT NOT NULL,
    hash  TEXT NOT NULL UNIQUE
);
CREATE INDEX by_share ON entries (share, seq);
CREATE INDEX by_kind ON entries (kind, share, seq);
CREATE UNIQUE INDEX one_end ON entries (ref) WHERE ref IS NOT NULL;
CREATE TRIGGER no_update BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER no_delete BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
PRAGMA user_version = 1;
"""
SEAL = """
CREATE TRIGGER closed BEFORE INSERT ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger was moved'); END;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row.

    Args:
        kind: genesis, population, share, reserve, settle, void, claim, roles, proposal, refusal, version,
            retired or moved.
        share: "population/share" that the row is about (of a claim: the reservation); empty where it is about
            none.
        ref: of settle and void, the number of the reservation that they end.
        body: plain data; what it holds depends on the kind.
        prev: hash of the row before.
    """

    seq: int
    kind: str
    share: str
    ref: int | None
    body: dict[str, Any]
    prev: str
    hash: str

    @property
    def head(self) -> Head:
        """The row as a head."""
        return Head(self.seq, self.hash)

    def computed_hash(self) -> str:
        """Return the hash that this row must have."""
        return row_hash(self.seq, self.kind, self.share, self.ref, self.body, self.prev)

    def to_data(self) -> dict[str, Any]:
        """Return the row as plain data, as receipts carry it."""
        return {name: getattr(self, name) for name in COLUMNS.split(", ")}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Entry:
        """Read a row from plain data."""
        return cls(**{name: data[name] for name in COLUMNS.split(", ")})


def row_hash(seq: int, kind: str, share: str, ref: int | None, body: dict[str, Any], prev: str) -> str:
    """Return the SHA-256 that chains a row to the one before."""
    content = canonical({"seq": seq, "kind": kind, "share": share, "ref": ref, "body": body})
    return hashlib.sha256(bytes.fromhex(prev) + content).hexdigest()


class Book(abc.ABC):
    """Rows in, rows out, one writer at a time. It knows nothing of budgets.

    A backend brings `writing`, `put`, `_rows` and `close`; `?` stands for a value in a clause.

    Args:
        path: where the book is, for messages: never with a password.
    """

    path: str

    @abc.abstractmethod
    def close(self) -> None:
        """Close the book."""

    @abc.abstractmethod
    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Hold the one write lock; commit durably at the end, or roll back on an exception."""

    @abc.abstractmethod
    def put(self, entry: Entry) -> None:
        """Add one row as it stands; call it inside `writing`."""

    @abc.abstractmethod
    def _rows(self, columns: str, clause: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Run one SELECT."""

    def append(self, kind: str, share: str, ref: int | None, body: dict[str, Any]) -> Entry:
        """Chain one row to the last; call it inside `writing`."""
        last = self.last()
        if last is not None:
            self.check_open(last)
        seq, prev = (last.seq + 1, last.hash) if last else (1, ROOT_HASH)
        entry = Entry(seq, kind, share, ref, body, prev, row_hash(seq, kind, share, ref, body, prev))
        self.put(entry)
        return entry

    def check_open(self, last: Entry) -> None:  # noqa: B027  a book that cannot be closed has nothing to do
        """Refuse a new row where the newest one closed the book."""

    def last(self, share: str | None = None) -> Entry | None:
        """Return the newest row, of one share or of all."""
        where, values = ("WHERE share = ?", (share,)) if share is not None else ("", ())
        return self._one(f"{where} ORDER BY seq DESC LIMIT 1", values)

    def get(self, seq: int) -> Entry | None:
        """Return one row by number."""
        return self._one("WHERE seq = ?", (seq,))

    def end_of(self, seq: int) -> Entry | None:
        """Return the row that settled or voided a reservation."""
        return self._one("WHERE ref = ?", (seq,))

    def find(self, kind: str, share: str) -> Entry | None:
        """Return the newest row of a kind about a share."""
        return self._one("WHERE kind = ? AND share = ? ORDER BY seq DESC LIMIT 1", (kind, share))

    def all(self, *, kind: str | None = None, after: int = 0) -> Iterator[Entry]:
        """Iterate over rows in order."""
        where, values = ("AND kind = ?", (kind,)) if kind else ("", ())
        clause = f"WHERE seq > ? {where} ORDER BY seq LIMIT {PAGE}"
        while True:
            rows = self._rows(COLUMNS, clause, (after, *values))
            for row in rows:
                yield _entry(row)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def hashes(self, size: int) -> list[str]:
        """Return the hashes of the first `size` rows, in order."""
        return [row[0] for row in self._rows("hash", "WHERE seq <= ? ORDER BY seq", (size,))]

    def _one(self, clause: str, values: tuple[Any, ...] = ()) -> Entry | None:
        for row in self._rows(COLUMNS, clause, values):
            return _entry(row)
        return None


def open_book(where: str, *, create: bool = False) -> Book:
    """Open a book: a PostgreSQL URL or the path of an SQLite file."""
    if where.startswith(SCHEMES):
        from sfumato.core.book_postgres import PostgresBook

        return PostgresBook(where, create=create)
    return SQLiteBook(where, create=create)


def public_place(where: str) -> str:
    """Return where a book is, without a password."""
    if where.startswith(SCHEMES):
        from sfumato.core.book_postgres import public_url

        return public_url(where)
    return where


class SQLiteBook(Book):
    """The SQLite file.

    Durability: rollback journal and `synchronous=EXTRA`, so that a committed row survives a power cut. (WAL
    is not used: SQLite before 3.51.3 can lose committed rows when the log is reset.)
    """

    def __init__(self, path: str, *, create: bool) -> None:
        self.path = path
        if path != ":memory:" and not create and not Path(path).exists():
            raise IntegrityError(
                f"there is no ledger at {path}. If it was lost, restore it from a backup; `sfumato init` "
                "starts a new one only in a folder that has none."
            )
        with self._named():
            self.connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            with self._named():
                self._prepare(create)
            if create and path != ":memory:":
                share(Path(path))
        except BaseException:
            self.connection.close()
            raise

    def _prepare(self, create: bool) -> None:
        self.connection.execute("PRAGMA journal_mode=DELETE")
        self.connection.execute("PRAGMA synchronous=EXTRA")
        if create and self._version() == 0:
            with self.writing():
                if self._version() == 0:  # another process may have made it while this one waited
                    for statement in _statements(SCHEMA):
                        self.connection.execute(statement)
        if (version := self._version()) != 1:
            raise LedgerTampered(
                f"the ledger {self.path} has format {version}, and this version of Sfumato reads format 1"
            )

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Name what SQLite complains of: a lock or a full disk is no damage."""
        try:
            yield
        except sqlite3.ProgrammingError as error:
            raise InvalidRequest(
                f"the ledger {self.path} was used wrongly: {error}. Open it anew in every thread."
            ) from error
        except sqlite3.OperationalError as error:
            # A table or column that is gone, or bytes that are no text: somebody changed the file.
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) == sqlite3.SQLITE_ERROR:
                raise LedgerTampered(f"the ledger {self.path} was changed: {error}") from error
            raise LedgerUnavailable(
                f"the ledger {self.path} cannot be used now: {error}. Another process may hold it, the disk "
                "may be full, or it may not be yours to write. Nothing was charged; try again."
            ) from error
        except sqlite3.DatabaseError as error:
            raise LedgerTampered(f"the ledger {self.path} is not a whole SQLite file: {error}") from error

    def _version(self) -> int:
        return int(self.connection.execute("PRAGMA user_version").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the one write lock; commit at the end, or roll back on an exception."""
        with self._named():
            busy = self.connection.in_transaction
            if busy:
                raise InvalidRequest(f"the ledger {self.path} is being written by this very object")
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def put(self, entry: Entry) -> None:
        """Add one row as it stands; call it inside `writing`."""
        try:
            self.connection.execute(
                f"INSERT INTO entries ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    entry.seq,
                    entry.kind,
                    entry.share,
                    entry.ref,
                    canonical(entry.body).decode(),
                    entry.prev,
                    entry.hash,
                ),
            )
        except sqlite3.IntegrityError:
            if (last := self.last()) is not None:
                self.check_open(last)
            raise

    def check_open(self, last: Entry) -> None:
        """Refuse a new row after the move, though somebody took the trigger away that refuses it too."""
        if last.kind == "moved":
            raise LedgerMoved(
                f"the ledger {self.path} was moved to {last.body['to']} and is closed. Put this line "
                f'under [ledger] in sfumato.toml: url = "{last.body["to"]}"'
            )

    def seal(self, entry: Entry) -> None:
        """Add the closing row, after which the file itself refuses every other; inside `writing`."""
        self.put(entry)
        self.connection.execute(SEAL)

    def _rows(self, columns: str, clause: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._named():
            return self.connection.execute(f"SELECT {columns} FROM entries {clause}", values).fetchall()


def _entry(row: tuple[Any, ...]) -> Entry:
    seq, kind, share, ref, body, prev, digest = row
    try:
        data = json.loads(body)
        if not isinstance(data, dict):
            raise ValueError(body[:40])
    except (ValueError, TypeError, RecursionError) as error:
        raise LedgerTampered(f"row {seq} of the ledger does not read: {error}") from error
    entry = Entry(seq, kind, share, ref, data, prev, digest)
    # Every row is checked when it is read: an edited total must not admit a release before anyone verifies.
    try:
        sound = entry.computed_hash() == digest
    except (TypeError, ValueError, RecursionError):
        sound = False
    if not sound:
        raise LedgerTampered(
            f"row {seq} of the ledger was edited: its content does not match its hash. Nothing may be "
            "released; compare with a backup and with the receipts."
        )
    return entry


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
