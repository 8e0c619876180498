"""A ledger in PostgreSQL, for several machines: the same rows, hashes and rules as the SQLite file.

One ledger per schema. Use a role that may only SELECT and INSERT; only the first opening needs CREATE.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from sfumato.core.book import BUSY_SECONDS, COLUMNS, Book, Entry
from sfumato.core.errors import (
    IntegrityError,
    InvalidRequest,
    LedgerTampered,
    LedgerUnavailable,
    MissingExtra,
)
from sfumato.core.files import canonical

if TYPE_CHECKING:
    import psycopg

FORMAT = "sfumato-ledger/1"
TABLE = "sfumato_entries"
#: First half of the advisory lock's name; the second is the schema's.
LOCK = 0x5F0A70
CONNECT_SECONDS = 10
#: A writer that froze in the middle of a charge is rolled back after this long, so that others go on.
FROZEN_SECONDS = 60
#: Said again in every transaction: a pooler may hand out another session than the one it was said to.
GUARDS = (
    f"SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = '{BUSY_SECONDS:.0f}s'; "
    f"SET LOCAL idle_in_transaction_session_timeout = '{FROZEN_SECONDS}s'"
)
#: Hosts that are this machine; a socket's folder begins with a slash or (abstract) an at sign.
LOCAL = re.compile(r"|localhost|127(\.\d+){3}|::1|[/@].*")
#: What the server must be set to for a committed row to survive its power cut, and the ledger to mean it.
DURABLE = {"fsync": ("on",), "full_page_writes": ("on",), "synchronous_commit": ("on", "remote_apply")}

SCHEMA = """
CREATE TABLE {table} (
    seq   BIGINT PRIMARY KEY CHECK (seq > 0),
    kind  TEXT NOT NULL,
    share TEXT NOT NULL,
    ref   BIGINT UNIQUE,
    body  TEXT NOT NULL,
    prev  TEXT NOT NULL UNIQUE,
    hash  TEXT NOT NULL UNIQUE
);
COMMENT ON TABLE {table} IS '{format}';
CREATE INDEX ON {table} (share, seq);
CREATE INDEX ON {table} (kind, share, seq);
CREATE FUNCTION {refuse}() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$;
CREATE TRIGGER no_change BEFORE UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION {refuse}();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION {refuse}();
"""


class PostgresBook(Book):
    """The rows of a ledger in a PostgreSQL table.

    Durability: `synchronous_commit=on` is set and read back, and a server that runs without `fsync` is
    refused. One writer at a time: an advisory lock of the transaction. A connection that was lost is opened
    again by the next call, never in the middle of a transaction. The object belongs to the thread that made
    it. Another machine is spoken to by TLS, unless the URL (or PGSSLMODE) says what else will do.

    Args:
        url: postgresql://user@host:port/database; the password is better kept in ~/.pgpass or PGPASSWORD.

    Raises:
        LedgerUnavailable: the server does not answer or lets nobody in.
        IntegrityError: there is no ledger; LedgerTampered: the table is not one.
    """

    def __init__(self, url: str, *, create: bool) -> None:
        self.path = public_url(url)
        self._url, self._writing, self._thread = url, False, threading.get_ident()
        self._driver = _driver()
        self._connection = self._connect()
        try:
            self._prepare(create)
        except BaseException:
            self._connection.close()
            raise

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        connection: psycopg.Connection[tuple[Any, ...]]
        try:
            with self._failures():
                connection = self._driver.connect(
                    self._url, autocommit=True, connect_timeout=CONNECT_SECONDS, client_encoding="utf8"
                )
        except IntegrityError as error:
            raise InvalidRequest(f"the ledger's URL does not read: {error}") from None
        try:
            with self._failures():
                self._check_private(connection)
                connection.execute(GUARDS.replace("SET LOCAL", "SET").encode())
                self._check_durable(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_private(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        named = "PGSSLMODE" in os.environ or any(key == "sslmode" for key, _ in _pairs(_split(self._url)))
        if named or connection.pgconn.ssl_in_use or LOCAL.fullmatch(connection.info.host or ""):
            return
        raise InvalidRequest(
            f"the server of {self.path} is another machine and speaks without TLS: whoever is on the way "
            "could read the ledger and make up answers. Turn TLS on and put sslmode=verify-full in the URL; "
            "sslmode=disable says that the network is trusted."
        )

    def _check_durable(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        for name, allowed in DURABLE.items():
            row = connection.execute(f"SHOW {name}").fetchone()
            value = row[0] if row else None
            if value not in allowed:
                raise IntegrityError(
                    f"the server of {self.path} runs with {name}={value}: a charge could be forgotten by a "
                    f"power cut after its release. Set {name}={allowed[0]} on the server."
                )

    def _prepare(self, create: bool) -> None:
        with self._failures():
            row = self._connection.execute("SELECT current_schema(), hashtext(current_schema())").fetchone()
        if row is None or row[0] is None or "%" in row[0]:
            raise InvalidRequest(f"{self.path} has no schema to work in: set search_path for this user")
        schema = row[0].replace('"', '""')
        self._table, self._lock = f'"{schema}"."{TABLE}"', (LOCK, row[1])
        if create:
            with self.writing():
                if self._format() is None:  # another process may have made it while this one waited
                    self._connection.execute(
                        SCHEMA.format(
                            table=self._table, format=FORMAT, refuse=f'"{schema}"."sfumato_append_only"'
                        ).encode()
                    )
        found = self._format()
        if found is None:
            raise IntegrityError(
                f"there is no ledger at {self.path}. If it was lost, restore it from a backup; "
                "`sfumato ledger move --to URL` moves a project's ledger there."
            )
        if found != (FORMAT, "p"):
            raise LedgerTampered(
                f"the table {TABLE} of {self.path} has format {found[0]!r} and persistence {found[1]!r}; "
                f"this version of Sfumato reads {FORMAT!r} in a permanent table ('p')"
            )

    def _format(self) -> tuple[str, str] | None:
        with self._failures():
            row = self._connection.execute(
                "SELECT coalesce(obj_description(oid, 'pg_class'), ''), relpersistence::text "
                "FROM pg_class WHERE oid = to_regclass(%s)",
                (self._table,),
            ).fetchone()
        return (row[0], row[1]) if row else None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __del__(self) -> None:
        if connection := self.__dict__.get("_connection"):
            connection.close()  # as SQLite does; the driver would only warn

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the one write lock; commit durably at the end, or roll back on an exception."""
        if self._writing:
            raise InvalidRequest(f"the ledger {self.path} is being written by this very object")
        connection = self._live()
        # Read committed: each statement sees what was committed before it, so also before the lock was had.
        with self._failures():
            self._writing = True
            try:
                begin = f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {GUARDS}"
                connection.execute(begin.encode())
                connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", self._lock)
                yield
                # COMMIT of a transaction in which something failed rolls back, and is no error to the server.
                if (said := connection.execute("COMMIT").statusmessage) != "COMMIT":
                    raise LedgerUnavailable(
                        f"the ledger at {self.path} did not take the row (the server answered {said} to "
                        "COMMIT). Nothing was charged and nothing is released; try again."
                    )
            except BaseException:
                with contextlib.suppress(self._driver.Error):  # the server rolls back what it lost
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._writing = False

    def put(self, entry: Entry) -> None:
        """Add one row as it stands; call it inside `writing`."""
        values = (entry.seq, entry.kind, entry.share, entry.ref)
        with self._failures():
            done = self._live().execute(
                f"INSERT INTO {self._table} ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s)",
                (*values, canonical(entry.body).decode(), entry.prev, entry.hash),
            )
        if done.rowcount != 1:
            raise LedgerTampered(
                f"the table of {self.path} swallows new rows: a rule or trigger was added to it. Nothing may "
                "be released; take it away and compare with a backup."
            )

    def _rows(self, columns: str, clause: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        query = f"SELECT {columns} FROM {self._table} {clause.replace('?', '%s')}"
        with self._failures():
            return self._live().execute(query, values).fetchall()

    def _live(self) -> psycopg.Connection[tuple[Any, ...]]:
        if threading.get_ident() != self._thread:  # two threads would share one transaction and its lock
            raise InvalidRequest(
                f"the ledger {self.path} belongs to the thread that opened it. Open it anew in every thread."
            )
        if self._connection.closed and not self._writing:
            self._connection = self._connect()
        return self._connection

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn the driver's errors into ours; their text and cause may hold the password, so both are cut."""
        try:
            yield
        except (self._driver.OperationalError, self._driver.InterfaceError) as error:
            problem: Exception = LedgerUnavailable(
                f"the ledger at {self.path} cannot be reached: {self._clean(error)}. Nothing is released; "
                "what was charged stands. Try again when the server is back."
            )
        except self._driver.errors.InsufficientPrivilege as error:
            problem = LedgerUnavailable(
                f"the ledger at {self.path} is not this role's to use: {self._clean(error)}. It needs USAGE "
                "on the schema and SELECT and INSERT on the table; the first opening CREATE too."
            )
        except self._driver.errors.ReadOnlySqlTransaction as error:
            problem = LedgerUnavailable(
                f"the server of {self.path} takes no rows: {self._clean(error)}. It may be a standby: name "
                "the primary, or add target_session_attrs=read-write to the URL."
            )
        except self._driver.Error as error:
            problem = IntegrityError(f"the ledger at {self.path} refuses: {self._clean(error)}")
        else:
            return
        raise problem from None

    def _clean(self, error: Exception) -> str:
        text = without_passwords(" ".join(str(error).split()))
        for secret in _passwords(self._url):
            text = text.replace(secret, "***")
        return text[:300]


def public_url(url: str) -> str:
    """Return a URL without its password, as it may be shown and stored.

    >>> public_url("postgresql://me:secret@db.example/ledger?password=other&sslmode=require")
    'postgresql://me@db.example/ledger?sslmode=require'

    Raises:
        InvalidRequest: it is not a URL.
    """
    parts = _split(url)
    user, at, host = parts.netloc.rpartition("@")
    pieces = [piece for piece in parts.query.split("&") if not _secret(unquote(piece.partition("=")[0]))]
    shown = "&".join(pieces)
    return f"{parts.scheme}://{user.partition(':')[0]}{at}{host}{parts.path}" + (f"?{shown}" if shown else "")


def without_passwords(text: str) -> str:
    """Return a text with what looks like a password in a URL or a connection string blotted out."""
    text = re.sub(r"(://[^\s:/@]*):[^\s@]*@", r"\1:***@", text)
    return re.sub(r"(password\s*=\s*)('[^']*'|[^\s&]+)", r"\1***", text, flags=re.IGNORECASE)


def has_password(url: str) -> bool:
    """Whether a URL spells out a password."""
    return bool(_passwords(url))


def _passwords(url: str) -> list[str]:
    parts = _split(url)
    spelled = parts.netloc.rpartition("@")[0].partition(":")[2]
    found = [spelled, unquote(spelled), *(value for key, value in _pairs(parts) if _secret(key))]
    return sorted({secret for secret in found if secret}, key=len, reverse=True)


def _secret(key: str) -> bool:
    return key.lower().endswith("password")


def _pairs(parts: SplitResult) -> list[tuple[str, str]]:
    return parse_qsl(parts.query, keep_blank_values=True)


def _split(url: str) -> SplitResult:
    # libpq lets a password hold characters at which others split a URL, and would then show a part of it.
    try:
        parts = urlsplit(url)
        if "#" in url or url.count("@") > parts.netloc.count("@") or parts.netloc.count("@") > 1:
            raise ValueError
    except ValueError:
        raise InvalidRequest(
            "the ledger's URL does not read; it looks like postgresql://user@host:5432/database, and within "
            "a name or password @ is written %40, # %23, / %2F and ? %3F"
        ) from None
    return parts


def _driver() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise MissingExtra("a ledger in PostgreSQL", ["psycopg"], "postgres") from error
    return psycopg
