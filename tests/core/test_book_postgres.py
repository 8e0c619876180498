"""PostgreSQL as a book: what it refuses, what it never shows, and what a killed server leaves."""

from __future__ import annotations

import re

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
