"""PostgreSQL as a book: what it refuses, what it never shows, and what a killed server leaves."""

from __future__ import annotations

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from sfumato.core.book import open_book
from sfumato.core.book_postgres import public_url, without_passwords
from sfumato.core.errors import IntegrityError, InvalidRequest, LedgerTampered, LedgerUnavailable
from sfumato.core.event import PureDP
from sfumato.core.ledger import Ledger
from sfumato.core.policy import Policy
from sfumato.core.verify import verify

psycopg = pytest.importorskip("psycopg", reason="needs psycopg: pip install 'sfumato[postgres]'")
SECRET = "hunter2%40x"


def opened(url: str) -> Ledger:
    ledger = Ledger(url, create=True)
    ledger.open_population("residents", epsilon=1, delta="1e-6", unit="person")
    ledger.open_share("residents", "all", kind="sum", epsilon=1, delta="1e-6")
    return ledger


def charge(ledger: Ledger) -> None:
    row = ledger.reserve({}, PureDP("0.01"), population="residents", share="all")
    ledger.settle(row.seq, receipt="r")


def test_rows_cannot_be_changed_through_the_database(postgres) -> None:
    url = postgres.url()
    charge(opened(url))
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (
            b"UPDATE sfumato_entries SET body = '{}'",
            b"DELETE FROM sfumato_entries",
            b"TRUNCATE sfumato_entries",
        ):
            with pytest.raises(psycopg.Error, match="append-only"):
                connection.execute(statement)
        for column, value in (("seq", "1"), ("prev", "repeat('0', 64)")):
            row = {"seq": "99", "prev": "'x'", column: value}
            with pytest.raises(psycopg.errors.UniqueViolation):
                connection.execute(
                    "INSERT INTO sfumato_entries VALUES "
                    f"({row['seq']}, 'void', '', NULL, '{{}}', {row['prev']}, 'y')".encode()
                )


def test_an_edit_by_the_owner_of_the_table_is_found(postgres) -> None:
    url = postgres.url()
    charge(ledger := opened(url))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE sfumato_entries DISABLE TRIGGER ALL")
        connection.execute("UPDATE sfumato_entries SET body = replace(body, '0.01', '0.001') WHERE seq = 4")
    with pytest.raises(LedgerTampered, match=r"row 4 .*hash"):
        verify(ledger)


def test_a_role_that_may_only_read_and_add_can_charge(postgres) -> None:
    url = postgres.url()
    opened(url).close()
    schema = url.rpartition("%3D")[2]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS clerk")
        connection.execute("CREATE ROLE clerk LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO clerk".encode())
        connection.execute(f"GRANT SELECT, INSERT ON {schema}.sfumato_entries TO clerk".encode())
    ledger = Ledger(postgres.url("clerk", schema))
    charge(ledger)
    assert verify(ledger).releases == 1
    ledger.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP OWNED BY clerk")
        connection.execute("DROP ROLE clerk")


def test_nothing_there_is_said_and_a_foreign_table_is_refused(postgres) -> None:
    url = postgres.url()
    with pytest.raises(IntegrityError, match="no ledger at"):
        Ledger(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE sfumato_entries (x INT)")
    with pytest.raises(LedgerTampered, match="format"):
        Ledger(url)


def test_an_unlogged_table_is_refused(postgres) -> None:
    """A crash empties it."""
    url = postgres.url()
    opened(url).close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE sfumato_entries SET UNLOGGED")
    with pytest.raises(LedgerTampered, match="persistence"):
        Ledger(url)


def test_a_commit_waits_for_the_disk(postgres) -> None:
    url = postgres.url()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER ROLE sfumato SET synchronous_commit = off")
        try:
            book = open_book(url, create=True)
            assert book._connection.execute("SHOW synchronous_commit").fetchone() == ("on",)  # type: ignore[attr-defined]
            book.close()
        finally:
            connection.execute("ALTER ROLE sfumato RESET synchronous_commit")


def test_a_server_that_may_forget_is_refused(postgres, monkeypatch) -> None:
    monkeypatch.setattr("sfumato.core.book_postgres.DURABLE", {"fsync": ("never",)})
    with pytest.raises(IntegrityError, match=r"fsync=on.*power cut"):
        open_book(postgres.url(), create=True)


def test_a_lost_server_is_named_and_the_book_goes_on_when_it_is_back(postgres) -> None:
    ledger = opened(postgres.url())
    charge(ledger)
    postgres.kill()
    for _ in range(2):
        with pytest.raises(LedgerUnavailable, match="Nothing is released"):
            charge(ledger)
    postgres.start()
    charge(ledger)
    assert verify(ledger).releases == 2


def test_the_server_dies_between_charge_and_commit(postgres) -> None:
    """The client cannot know whether the row was written; it must not go on either way."""
    ledger = opened(postgres.url())
    head = ledger.head()
    with pytest.raises(LedgerUnavailable), ledger.book.writing():  # noqa: PT012
        ledger.book.append("reserve", "", None, {})
        postgres.kill()
    postgres.start()
    assert ledger.head() == head
    charge(ledger)


# Passwords


@pytest.fixture
def guarded(postgres) -> str:
    """A URL with a password that the server asks for."""
    url = postgres.url()
    schema = url.rpartition("%3D")[2]
    with psycopg.connect(url, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'guarded'").fetchone():
            connection.execute("CREATE ROLE guarded SUPERUSER LOGIN PASSWORD 'hunter2@x'")
    return postgres.url(f"guarded:{SECRET}", schema)


def test_a_password_opens_the_ledger_and_appears_nowhere(guarded: str) -> None:
    ledger = opened(guarded)
    charge(ledger)
    assert "hunter2" not in ledger.book.path
    for row in ledger.entries():
        assert "hunter2" not in str(row.to_data())
    ledger.close()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda url: re.sub(r":\d+/", ":1/", url),
        lambda url: url.replace(SECRET, "hunter2wrong"),
        lambda url: url.replace("/postgres", "/nodatabase-hunter2%40x"),
        lambda url: url.replace("options=", "hunter2=") + "&password=hunter2%40x",
        lambda url: url.replace("@127", "@[127"),
        lambda url: url.replace("@127", ":hunter2@hunter2@127"),
    ],
)
def test_no_error_shows_the_password(guarded: str, spoil) -> None:
    with pytest.raises((LedgerUnavailable, IntegrityError, InvalidRequest)) as caught:
        opened(spoil(guarded))
    error: BaseException | None = caught.value
    while error is not None and not error.__suppress_context__:
        assert "hunter2@x" not in str(error)
        assert "hunter2wrong" not in str(error)
        assert SECRET not in str(error)
        error = error.__cause__ or error.__context__
    assert "hunter2@x" not in str(caught.value)


def test_a_policy_error_does_not_show_the_password() -> None:
    for source in ('url = "mysql://me:hunter2@db/x"', "url = ['postgresql://me:hunter2@db/x']"):
        with pytest.raises(Exception, match="url") as caught:
            Policy.parse(f'[project]\nname = "x"\n[ledger]\n{source}')
        assert "hunter2" not in str(caught.value)
    policy = Policy.parse('[project]\nname = "x"\n[ledger]\nurl = "postgresql://me:hunter2@db/x"')
    assert "hunter2" not in repr(policy)
    assert "hunter2" in policy.to_toml()  # a policy is the owner's own file, and reads back as it was


def test_urls_are_shown_without_passwords() -> None:
    for url, shown in (
        ("postgresql://me:a@db/x", "postgresql://me@db/x"),
        ("postgres://me@db:5433/x?password=a", "postgres://me@db:5433/x"),
        ("postgresql:///x?host=/run/pg&password=a", "postgresql:///x?host=/run/pg"),
        ("postgresql://a:b@h1:1,h2:2/x?sslmode=require", "postgresql://a@h1:1,h2:2/x?sslmode=require"),
    ):
        assert public_url(url) == shown
        assert public_url(shown) == shown
    assert without_passwords("bad postgresql://me:x@db and password='a b' host=c") == (
        "bad postgresql://me:***@db and password=*** host=c"
    )


# What would lose a charge without anyone noticing


def test_another_thread_opens_its_own_book(place: str) -> None:
    """Two threads in one connection would share its transaction, and so its lock."""
    ledger = opened(place)
    with ThreadPoolExecutor(1) as pool, pytest.raises(InvalidRequest, match="every thread"):
        pool.submit(charge, ledger).result()
    charge(ledger)
    assert verify(ledger).releases == 1


def test_a_book_is_written_once_at_a_time(place: str) -> None:
    ledger = opened(place)
    with ledger.book.writing(), pytest.raises(InvalidRequest, match="very object"):
        charge(ledger)
    charge(ledger)
    assert verify(ledger).releases == 1


def test_a_commit_that_rolled_back_is_no_charge(postgres) -> None:
    """The server answers COMMIT of a failed transaction with ROLLBACK, and no error."""
    ledger = opened(postgres.url())
    head = ledger.head()
    with pytest.raises(LedgerUnavailable, match="ROLLBACK"), ledger.book.writing():  # noqa: PT012
        ledger.book.append("refusal", "", None, {})
        with contextlib.suppress(psycopg.Error):
            ledger.book._connection.execute("SELECT 1/0")  # type: ignore[attr-defined]
    assert ledger.head() == head
    charge(ledger)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE RULE swallow AS ON INSERT TO sfumato_entries DO INSTEAD NOTHING",
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
        "CREATE TRIGGER swallow BEFORE INSERT ON sfumato_entries FOR EACH ROW EXECUTE FUNCTION swallow()",
    ],
)
def test_a_table_that_swallows_rows_is_found_by_the_charge_itself(postgres, statement: str) -> None:
    url = postgres.url()
    ledger = opened(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())
    with pytest.raises(LedgerTampered, match="swallows"):
        charge(ledger)


def test_a_pooled_session_waits_for_the_disk_too(postgres) -> None:
    """A pooler may give the next transaction a session that never heard SET."""
    book = open_book(postgres.url(), create=True)
    book._connection.execute("SET synchronous_commit = off")  # type: ignore[attr-defined]
    with book.writing():
        assert book._connection.execute("SHOW synchronous_commit").fetchone() == ("on",)  # type: ignore[attr-defined]
    book.close()


def test_two_clients_make_the_schema_at_once(postgres) -> None:
    url = postgres.url()
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: Ledger(url, create=True).id, range(8)))
    assert len(set(names)) == 1
    assert Ledger(url).head().seq == 1


# Where the server is, and what it may


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_of_another_encoding_holds_a_ledger(postgres, monkeypatch, encoding: str) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    name = f"coded_{encoding.lower()}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0".encode())
    url = re.sub(r"/postgres\?.*", f"/{name}", postgres.url())
    ledger = opened(url)
    charge(ledger)
    ledger.note("refusal", "", {"rule": "Zürich"})
    assert verify(ledger).releases == 1
    ledger.close()


def test_another_machine_is_spoken_to_by_tls(postgres) -> None:
    url = postgres.url().replace("@127.0.0.1:", "@db.example:") + "&hostaddr=127.0.0.1"
    with pytest.raises(InvalidRequest, match="sslmode=verify-full"):
        open_book(url, create=True)
    with pytest.raises(LedgerUnavailable, match="SSL"):
        open_book(f"{url}&sslmode=require", create=True)
    open_book(f"{url}&sslmode=disable", create=True).close()


def test_a_role_without_rights_is_told_which(postgres) -> None:
    url = postgres.url()
    opened(url).close()
    schema = url.rpartition("%3D")[2]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE stranger LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO stranger".encode())
        with pytest.raises(LedgerUnavailable, match="SELECT and INSERT"):
            Ledger(postgres.url("stranger", schema))
        connection.execute(f"GRANT SELECT ON {schema}.sfumato_entries TO stranger".encode())
        ledger = Ledger(postgres.url("stranger", schema))
        assert verify(ledger).rows == 3
        with pytest.raises(LedgerUnavailable, match="SELECT and INSERT"):
            charge(ledger)
        ledger.close()
        connection.execute("DROP OWNED BY stranger")
        connection.execute("DROP ROLE stranger")


def test_names_cannot_become_statements(postgres) -> None:
    schema = "x\"'; DROP TABLE y; {}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(('CREATE SCHEMA "' + schema.replace('"', '""') + '"').encode())
    path = quote('-csearch_path="' + schema.replace('"', '""').replace(" ", "\\ ") + '"')
    ledger = Ledger(re.sub(r"options=.*", f"options={path}", postgres.url()), create=True)
    name = "p'); DROP TABLE sfumato_entries; --%s ?"
    ledger.open_population(name, epsilon=1, delta=0, unit="person")
    ledger.open_share(name, name, kind="sum", epsilon=1, delta=0)
    ledger.reserve({"x": name}, PureDP("0.1"), population=name, share=name)
    assert verify(ledger).rows == 4
    ledger.close()


@pytest.mark.parametrize("password", ["pa#ss", "pa?ss", "pa/ss", "pa@ss"])
def test_a_password_that_splits_the_url_is_refused_and_not_shown(password: str) -> None:
    """libpq takes the first two as they are, and a part of them was shown and stored."""
    with pytest.raises(InvalidRequest, match="%23") as caught:
        public_url(f"postgresql://me:{password}@db/x")
    assert "pa" not in str(caught.value).replace("password", "")
    for spelled in ("PASSWORD", "pass%77ord", "sslPassword"):
        assert (
            public_url(f"postgresql://db/x?{spelled}=pass&options=-ca+b") == "postgresql://db/x?options=-ca+b"
        )
