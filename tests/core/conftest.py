"""A real PostgreSQL server for the tests of the ledger, and the two backends as one parameter."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))


class Server:
    """A server with its data in a folder of its own; `kill` is SIGKILL to all of its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder, PROGRAMS[-1].parent
        self.user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self._schemas = 0

    def _run(self, *command: object, **more) -> subprocess.Popen[bytes]:
        log = (self.folder / "log").open("ab")
        with log:
            return subprocess.Popen(
                [str(part) for part in command],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=self.user,
                group=self.user,
                extra_groups=[] if self.user else None,
                **more,
            )

    def create(self) -> None:
        if self.user:
            shutil.chown(self.folder, self.user, self.user)
        options = ("-U", "sfumato", "--auth=trust", "--no-sync", "--no-locale", "-E", "UTF8")
        made = self._run(self.programs / "initdb", "-D", self.folder / "data", *options)
        assert made.wait(60) == 0, (self.folder / "log").read_text()
        rules = self.folder / "data" / "pg_hba.conf"
        rules.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")

    def start(self) -> None:
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "max_connections": 60,
            "shared_buffers": "16MB",
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        data = self.folder / "data"
        self.process = self._run(self.programs / "postgres", "-D", data, *flags, start_new_session=True)
        for _ in range(400):
            ready = self._run(self.programs / "pg_isready", "-h", "127.0.0.1", "-p", self.port)
            if ready.wait() == 0:
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        """SIGKILL to the server and to each of its children, as a machine that dies would."""
        assert self.process is not None
        family = [self.process.pid]
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    family.append(int(stat.parent.name))
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(20)
        while any(Path(f"/proc/{pid}").exists() and not _zombie(pid) for pid in family):
            time.sleep(0.01)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)

    def url(self, user: str = "sfumato", schema: str | None = None) -> str:
        """Return the URL of a schema of its own."""
        import psycopg

        if schema is None:
            self._schemas += 1
            schema = f"t{self._schemas}"
            with psycopg.connect(self._base("sfumato"), autocommit=True) as connection:
                connection.execute(f"CREATE SCHEMA {schema}".encode())
        return f"{self._base(user)}?options={quote(f'-csearch_path={schema}')}"

    def _base(self, user: str) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/postgres"


def _zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server, or a skip that says what is missing."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'sfumato[postgres]'")
    if not PROGRAMS:
        pytest.skip("needs a PostgreSQL server: apt-get install postgresql")
    memory = Path("/dev/shm")  # commits then cost no disk; what a killed process wrote stays all the same
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 29
    place = memory if roomy else None
    folder = Path(tempfile.mkdtemp(prefix="sfumato-postgres-", dir=place))
    server = Server(folder)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest) -> str:
    """A place for a book that is opened once."""
    return ":memory:" if request.param == "sqlite" else request.getfixturevalue("postgres").url()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a book that outlives its process."""
    if request.param == "sqlite":
        return str(tmp_path / "l.db")
    return request.getfixturevalue("postgres").url()


class Shelf:
    """A book and the means to harm it: copies put back, and statements that the triggers would stop."""

    def __init__(self, folder: Path, server: Server | None) -> None:
        self.folder, self.server, self.heads = folder, server, folder / "l.heads"
        self.where = server.url() if server else str(folder / "l.db")

    def save(self) -> object:
        """Return a copy of the whole book."""
        if self.server is None:
            return Path(self.where).read_bytes()
        return self.rows()

    def restore(self, saved, where: str = "") -> str:
        """Put a copy in place, here or somewhere else; return where."""
        where = where or self.where
        if self.server is None:
            Path(where).write_bytes(saved)
            return where
        from sfumato.core.book import open_book

        open_book(where, create=True).close()
        with self._open(where) as (run, mark):
            run("ALTER TABLE sfumato_entries DISABLE TRIGGER ALL")
            run("TRUNCATE sfumato_entries")
            for row in saved:
                run(f"INSERT INTO sfumato_entries VALUES ({', '.join([mark] * 7)})", row)
            run("ALTER TABLE sfumato_entries ENABLE TRIGGER ALL")
        return where

    def elsewhere(self) -> str:
        """Return a place for a twin."""
        return self.server.url() if self.server else str(self.folder / "twin.db")

    def rows(self) -> list[tuple]:
        with self._open(self.where) as (run, _):
            table = "entries" if self.server is None else "sfumato_entries"
            return run(f"SELECT seq, kind, share, ref, body, prev, hash FROM {table} ORDER BY seq").fetchall()

    def edit(self, *statements: tuple[str, tuple[object, ...]]) -> None:
        """Run statements on `entries`, with `?` for values, as the owner of the file or table can."""
        with self._open(self.where) as (run, mark):
            if self.server is None:
                run("DROP TRIGGER no_update")
                run("DROP TRIGGER no_delete")
            else:
                run("ALTER TABLE sfumato_entries DISABLE TRIGGER ALL")
            for statement, values in statements:
                text = statement if self.server is None else statement.replace("entries", "sfumato_entries")
                run(text.replace("?", mark), values)

    @contextlib.contextmanager
    def _open(self, where: str) -> Iterator[tuple]:
        if self.server is None:
            connection = sqlite3.connect(where)
            yield connection.execute, "?"
        else:
            import psycopg

            connection = psycopg.connect(where)
            yield connection.execute, "%s"
        connection.commit()
        connection.close()


@pytest.fixture(params=["sqlite", "postgres"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    return Shelf(tmp_path, None if request.param == "sqlite" else request.getfixturevalue("postgres"))
