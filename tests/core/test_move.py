"""A ledger moves once, whole, and the old book is closed for good."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sfumato.cli.main import main
from sfumato.core.anchor import FileAnchor
from sfumato.core.book import open_book
from sfumato.core.errors import (
    BudgetSpent,
    IntegrityError,
    InvalidRequest,
    LedgerMoved,
    LedgerRolledBack,
    LedgerUnavailable,
)
from sfumato.core.event import PureDP
from sfumato.core.gate import Plan
from sfumato.core.ledger import Ledger
from sfumato.core.move import move, with_url
from sfumato.core.policy import Policy
from sfumato.core.project import Project
from sfumato.core.verify import verify

#: Moves the ledger of a project, and says when it begins.
KILLED = """
import sys
from pathlib import Path
from sfumato.core.move import move
from sfumato.core.project import Project
book = Project(Path(sys.argv[1])).book()
print("ready", flush=True)
move(book, sys.argv[2])
"""
POLICY = """\
# kept as it is
[project]
name = "test"   # also this
[populations.residents]
unit = "person"
epsilon = 1
"""


@pytest.fixture
def project(tmp_path: Path, postgres) -> Project:
    Project.init(tmp_path / "p").ledger.close()
    (tmp_path / "p" / "sfumato.toml").write_text(POLICY)
    project = Project(tmp_path / "p")
    release(project)
    return project


def release(project: Project) -> None:
    plan = Plan(
        action="redact",
        mechanism="test",
        guarantee="proven",
        statement="a test release",
        event=PureDP("0.125"),
        population="residents",
        share="all",
    )
    with project.gate().open(plan) as permit:
        permit.entropy.bytes(1)
        permit.settle()


def test_the_book_goes_on_where_it_was_moved_to(project: Project, postgres, monkeypatch, capsys) -> None:
    url = postgres.url()
    before = [row.to_data() for row in project.ledger.entries()]
    project.ledger.close()
    monkeypatch.chdir(project.root)
    main(["ledger", "move", "--to", url])
    assert "the old book is closed" in capsys.readouterr().out
    moved = Project(project.root)
    assert moved.where == url
    assert (project.root / "sfumato.toml").read_text() == f'{POLICY}\n[ledger]\nurl = "{url}"\n'
    release(moved)
    rows = [row.to_data() for row in moved.ledger.entries()]
    assert rows[: len(before)] == before
    assert [row["kind"] for row in rows[len(before) :]] == ["moved", "reserve", "settle"]
    assert float(moved.ledger.balances()[0].spent_epsilon) == 0.25
    main(["ledger", "verify"])  # every receipt, of before and after


def test_the_old_book_can_never_be_charged_again(project: Project, postgres, tmp_path: Path) -> None:
    url = postgres.url()
    file = project.root / ".sfumato" / "ledger.db"
    before = file.read_bytes()
    move(project.book(), url)
    head = project.book().head()
    with pytest.raises(LedgerMoved, match=r"was moved to.*url = "):
        release(project)
    with pytest.raises(LedgerMoved, match="before"):
        move(project.book(), postgres.url())
    assert project.book().head() == head
    verify(project.book())
    connection = sqlite3.connect(file)
    with pytest.raises(sqlite3.IntegrityError, match="moved"):
        connection.execute("INSERT INTO entries VALUES (99, 'void', '', NULL, '{}', '', '')")
    connection.close()
    project.ledger.close()
    file.write_bytes(before)  # a copy from before the move: the anchor has seen the closing row
    with pytest.raises(LedgerRolledBack):
        Project(project.root).gate()


def test_a_move_that_stopped_half_way_is_finished_by_asking_again(
    project: Project, postgres, monkeypatch
) -> None:
    url = postgres.url()

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sfumato.core.book.SQLiteBook.seal", stopped)
        with pytest.raises(KeyboardInterrupt):
            move(project.book(), url)
    assert move(project.book(), url).verified.rows == 6
    other = postgres.url()
    with pytest.raises(LedgerMoved):
        move(project.book(), other)


def test_a_half_moved_book_that_went_on_is_not_forgotten(project: Project, postgres, monkeypatch) -> None:
    url = postgres.url()
    with monkeypatch.context() as patch:
        patch.setattr("sfumato.core.book.SQLiteBook.seal", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            move(project.book(), url)
    release(project)  # the old book still counts
    with pytest.raises(IntegrityError, match="did not end where"):
        move(project.book(), url)
    with pytest.raises(LedgerRolledBack):
        Ledger(url, project.anchor(project.where))


def test_a_server_that_dies_during_the_move_leaves_the_old_book(
    project: Project, postgres, monkeypatch
) -> None:
    url = postgres.url()
    real = open_book(url, create=True)
    real.close()
    put, seen = type(real).put, []

    def dying(self, entry) -> None:
        seen.append(entry)
        if len(seen) == 3:
            postgres.kill()
        put(self, entry)

    with monkeypatch.context() as patch:
        patch.setattr(type(real), "put", dying)
        with pytest.raises(LedgerUnavailable):
            move(project.book(), url)
    postgres.start()
    release(project)
    assert open_book(url).last() is None
    assert move(project.book(), url).verified.releases == 2


def test_two_ledgers_under_one_name_are_refused(project: Project, postgres, tmp_path: Path) -> None:
    url = postgres.url()
    other = Ledger(url, create=True)
    with pytest.raises(InvalidRequest, match=other.id):
        move(project.book(), url)
    (project.root / "sfumato.toml").write_text(f'{POLICY}[ledger]\nurl = "{url}"\n')
    with pytest.raises(IntegrityError, match="in place of the old"):
        Project(project.root).gate()


def test_a_copy_moved_elsewhere_is_found(project: Project, postgres, tmp_path: Path) -> None:
    shutil.copy(project.where, tmp_path / "copy.db")
    anchor = project.anchor(project.where)
    move(project.book(), postgres.url())
    with pytest.raises(LedgerRolledBack):
        move(Ledger(tmp_path / "copy.db", anchor), postgres.url())


def test_a_book_that_does_not_verify_is_not_moved(project: Project, postgres) -> None:
    connection = sqlite3.connect(project.where)
    connection.execute("DROP TRIGGER no_update")
    connection.execute("UPDATE entries SET body = replace(body, '0.125', '0.001') WHERE seq = 4")
    connection.commit()
    connection.close()
    url = postgres.url()
    with pytest.raises(IntegrityError, match="row 4"):
        move(Ledger(project.where), url)
    with pytest.raises(IntegrityError, match="no ledger at"):
        Ledger(url)


def test_only_from_a_file_to_postgres(project: Project, postgres, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="PostgreSQL URL"):
        move(project.book(), str(tmp_path / "other.db"))
    with pytest.raises(InvalidRequest, match="already"):
        move(Ledger(postgres.url(), create=True), postgres.url())


def test_a_password_is_not_stored(project: Project, postgres, monkeypatch, capsys) -> None:
    monkeypatch.chdir(project.root)
    project.ledger.close()
    url = postgres.url("sfumato:hunter2")
    main(["ledger", "move", "--to", url])
    printed = capsys.readouterr()
    assert "PGPASSWORD" in printed.err
    for text in (printed.out, printed.err, (project.root / "sfumato.toml").read_text()):
        assert "hunter2" not in text
    release(Project(project.root))
    for path in project.root.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path
    for row in Project(project.root).ledger.entries():
        assert "hunter2" not in str(row.to_data())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[ledger]\n", '[ledger]\nurl = "URL"\n'),
        (' [ledger] # here\nanchor = "x"', ' [ledger] # here\nurl = "URL"\nanchor = "x"'),
        ("", '\n[ledger]\nurl = "URL"\n'),
        ('ledger.anchor = "x"\n', None),
        ('[project2]\nx = "x"\n', None),
    ],
)
def test_the_policy_is_edited_by_one_line_or_not_at_all(before: str, after: str | None) -> None:
    url, head = "postgresql://db/x", '[project]\nname = "p"\n'
    source = before + head if before.startswith("ledger.") else head + before
    edited = with_url(source, url)
    assert edited == (None if after is None else head + after.replace("URL", url))
    if edited is not None:
        assert Policy.parse(edited).ledger.url == url


def test_the_anchor_knows_the_closing_row(project: Project, postgres) -> None:
    anchor = project.anchor(project.where)
    assert isinstance(anchor, FileAnchor)
    done = move(project.book(), postgres.url())
    newest = anchor.newest()
    assert newest is not None
    assert newest.hash == done.verified.head


def test_a_second_machine_shares_the_book_and_its_budget(project: Project, postgres, tmp_path: Path) -> None:
    done = move(project.book(), postgres.url())
    second = tmp_path / "second"
    second.mkdir()
    (second / "sfumato.toml").write_text(with_url(POLICY, done.to) or "")
    release(Project(second))
    assert (second / ".sfumato" / ".gitignore").read_text() == "*\n"
    assert float(Project(second).ledger.balances()[0].spent_epsilon) == 0.25
    for _ in range(6):
        release(Project(second))
    with pytest.raises(BudgetSpent):
        release(Project(second))


def test_a_closed_book_stays_closed_though_its_trigger_is_gone(project: Project, postgres) -> None:
    anchor = project.anchor(project.where)
    done = move(project.book(), postgres.url())
    connection = sqlite3.connect(project.where)
    connection.execute("DROP TRIGGER closed")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerMoved, match=done.to.partition("?")[0]):
        Ledger(project.where, anchor).reserve({}, PureDP("0.1"), population="residents", share="all")


def test_a_place_left_without_rows_is_no_ledger(project: Project, postgres) -> None:
    """What a move leaves that stopped half-way, or a removal of all rows: never a fresh budget."""
    url = postgres.url()
    open_book(url, create=True).close()
    with pytest.raises(IntegrityError, match="no rows"):
        Ledger(url, FileAnchor(project.root / "fresh.heads"))
    assert open_book(url).last() is None


def test_only_an_owner_moves_the_ledger(project: Project, postgres, monkeypatch, capsys) -> None:
    policy = project.root / "sfumato.toml"
    policy.write_text(f'{POLICY}[roles]\nowner = ["nobody-here"]\n')
    monkeypatch.chdir(project.root)
    with pytest.raises(SystemExit) as stop:
        main(["ledger", "move", "--to", postgres.url()])
    assert stop.value.code == 3
    assert "'move'" in capsys.readouterr().err


def test_a_move_killed_at_any_moment_leaves_one_ledger(project: Project, postgres, tmp_path: Path) -> None:
    """SIGKILL, sooner or later; then the move is asked for again and a charge follows."""
    for number in range(6):
        root, url = tmp_path / f"m{number}", postgres.url()
        root.mkdir()
        Project.init(root / "p").close()
        (root / "p" / "sfumato.toml").write_text(POLICY)
        release(Project(root / "p"))
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(root / "p"), url], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.012 * number)
        process.kill()
        process.wait()
        process.stdout.close()
        with contextlib.suppress(LedgerMoved):
            move(Project(root / "p").book(), url)
        with pytest.raises(LedgerMoved):
            release(Project(root / "p"))
        (root / "p" / "sfumato.toml").write_text(f'{POLICY}[ledger]\nurl = "{url}"\n')
        release(Project(root / "p"))
        assert verify(Project(root / "p").book()).releases == 2


def test_a_charge_that_races_a_move_is_in_the_new_book_or_refused(project: Project, postgres) -> None:
    url, made, stop = postgres.url(), [], threading.Event()

    def charging() -> None:
        ledger = Ledger(project.where, project.anchor(project.where))
        while not stop.is_set():
            try:
                row = ledger.reserve({}, PureDP("0.000001"), population="residents", share="all")
            except LedgerMoved:
                return
            made.append(row.head)
        ledger.close()

    thread = threading.Thread(target=charging)
    thread.start()
    while len(made) < 3:
        time.sleep(0.005)
    move(project.book(), url)
    thread.join(20)
    stop.set()
    Ledger(url).compare(made)
