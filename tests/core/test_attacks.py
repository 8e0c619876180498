"""Attacks on the book, the anchors and the receipts, as the command line answers them: exit code 5."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sfumato.cli.main import main
from sfumato.core.book import row_hash
from sfumato.core.event import PureDP
from sfumato.core.files import canonical, digest_of
from sfumato.core.gate import Plan
from sfumato.core.ledger import Ledger
from sfumato.core.project import Project

MAIN = "import sys; from sfumato.cli.main import main; main(sys.argv[1:])"
POLICY = """\
[project]
name = "test"
[populations.residents]
unit = "person"
epsilon = 1
delta = 1e-6
"""


class Desk:
    """A project with three releases, and what an attacker has: its book, its folders, its user's state."""

    def __init__(self, shelf, root: Path, state: Path) -> None:
        self.shelf, self.root, self.state = shelf, root, state
        Project.init(root, name="test").close()
        policy = POLICY
        if shelf.server is None:
            shelf.where = str(root / ".sfumato" / "ledger.db")
        else:
            Ledger(shelf.where, create=True).close()
            for file in (state / "sfumato" / "projects").iterdir():
                file.unlink()
            policy += f'[ledger]\nurl = "{shelf.where}"\n'
        (root / "sfumato.toml").write_text(policy)
        for _ in range(3):
            self.release()

    def release(self) -> Path:
        """Release something, and return the receipt's place."""
        project = Project(self.root)
        plan = Plan(
            action="redact",
            mechanism="test",
            guarantee="proven",
            statement="a test release",
            event=PureDP("0.1"),
            population="residents",
            share="all",
        )
        with project.gate().open(plan) as permit:
            permit.entropy.bytes(1)
            permit.settle()
        project.close()
        return self.receipts[-1]

    @property
    def receipts(self) -> list[Path]:
        return sorted((self.root / ".sfumato" / "receipts").iterdir())

    def forget(self) -> None:
        """Remove the file anchors, as whoever has the user's account can."""
        for file in (self.state / "sfumato" / "anchors").glob("*.heads"):
            file.unlink()

    def run(self, *arguments: object) -> tuple[int, str]:
        """Run a command in a process of its own; return its exit code and what it said."""
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *map(str, arguments)],
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "XDG_STATE_HOME": str(self.state)},
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stderr + done.stdout


@pytest.fixture
def desk(shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Desk(shelf, tmp_path / "p", tmp_path / "state")


def restored_copy(desk: Desk) -> None:
    old = desk.shelf.save()
    desk.release()
    desk.shelf.restore(old)


def restored_copy_without_anchor(desk: Desk) -> None:
    """The receipts know better."""
    restored_copy(desk)
    desk.forget()


def restored_copy_without_anchor_and_receipt(desk: Desk) -> None:
    """That there was an anchor is known."""
    restored_copy_without_anchor(desk)
    desk.receipts[-1].unlink()


def restored_copy_with_an_emptied_anchor(desk: Desk) -> None:
    restored_copy(desk)
    desk.receipts[-1].unlink()
    for file in (desk.state / "sfumato" / "anchors").glob("*.heads"):
        file.write_bytes(b"")


def forked_copy(desk: Desk) -> None:
    old = desk.shelf.save()
    desk.release()
    desk.shelf.restore(old)
    other = Ledger(desk.shelf.where)
    for _ in range(2):
        other.reserve({}, PureDP("0.1"), population="residents", share="all")
    other.close()


def edited_row(desk: Desk) -> None:
    desk.shelf.edit(("UPDATE entries SET body = replace(body, '0.1', '0.2') WHERE seq = 4", ()))


def text_that_is_none(desk: Desk) -> None:
    if desk.shelf.server is not None:
        pytest.skip("PostgreSQL stores no bytes that are not text: only an SQLite file can be damaged so")
    desk.shelf.edit(("UPDATE entries SET body = CAST(x'7bff7d' AS TEXT) WHERE seq = 4", ()))


def nested_row(desk: Desk) -> None:
    desk.shelf.edit(("UPDATE entries SET body = ? WHERE seq = 4", ("[" * 100_000,)))


def cut_tail(desk: Desk) -> None:
    desk.shelf.edit(("DELETE FROM entries WHERE seq > 6", ()))


def removed_row(desk: Desk) -> None:
    desk.shelf.edit(("DELETE FROM entries WHERE seq = 5", ()))


def emptied(desk: Desk) -> None:
    desk.shelf.edit(("DELETE FROM entries WHERE seq > 0", ()))


def removed_table(desk: Desk) -> None:
    desk.shelf.edit(("DROP TABLE entries", ()))


def replaced_by_a_new_ledger(desk: Desk) -> None:
    """Two ledgers under one name."""
    desk.shelf.edit(("DELETE FROM entries WHERE seq > 0", ()))
    Ledger(desk.shelf.where, create=True).close()


def forged(desk: Desk, seq: int, change: Callable[[dict], object], **columns: object) -> None:
    """Change a row and chain the rest anew, with no anchor or receipt left to compare with."""
    prev, statements = "0" * 64, []
    for number, kind, share, ref, body, _, _ in desk.shelf.rows():
        row = {"kind": kind, "ref": ref, "data": json.loads(body)}
        if number == seq:
            change(row["data"])
            row |= columns
        digest = row_hash(number, row["kind"], share, row["ref"], row["data"], prev)
        values = (row["kind"], row["ref"], canonical(row["data"]).decode(), prev, digest, number)
        statements.append(
            ("UPDATE entries SET kind = ?, ref = ?, body = ?, prev = ?, hash = ? WHERE seq = ?", values)
        )
        prev = digest
    desk.shelf.edit(*statements)
    for receipt in desk.receipts:
        receipt.unlink()
    for file in (desk.state / "sfumato" / "anchors").glob("*.heads"):
        file.write_text(f"{number} {prev}\n")


def clock_set_back(desk: Desk) -> None:
    forged(desk, 6, lambda data: data.update(at="2001-01-01T00:00:00+00:00"))


def replayed_settlement(desk: Desk) -> None:
    """Row 7 ends reservation 6; it is made to end 4 again, which row 5 ended."""
    if desk.shelf.server is None:
        desk.shelf.edit(("DROP INDEX one_end", ()))
        desk.shelf.edit = lambda *statements: _edit_again(desk, statements)
    else:
        desk.shelf.edit(("ALTER TABLE entries DROP CONSTRAINT entries_ref_key", ()))
    forged(desk, 7, lambda data: None, ref=4)


def _edit_again(desk: Desk, statements: tuple) -> None:
    with desk.shelf._open(desk.shelf.where) as (run, _):
        for statement, values in statements:
            run(statement, values)


def charge_that_is_none(amount: str) -> Callable[[Desk], None]:
    def attack(desk: Desk) -> None:
        def change(data: dict) -> None:
            data["event"]["epsilon"] = data["charge"]["epsilon"] = amount

        forged(desk, 6, change)

    attack.__name__ = f"charge_of_{amount}"
    return attack


def anchor_of_another_row(desk: Desk) -> None:
    for file in (desk.state / "sfumato" / "anchors").glob("*.heads"):
        file.write_text(f"9 {'0' * 64}\n")


def forged_receipt_that_was_kept(desk: Desk) -> None:
    """A receipt of a row that no ledger has."""
    data = json.loads(desk.receipts[-1].read_text())
    rows = data["ledger_rows"]
    for row, seq in zip(rows, (10**30, 10**30 + 1), strict=True):
        row["seq"] = seq
    rows[1]["ref"] = 10**30
    for row in rows:
        row["hash"] = row_hash(*(row[name] for name in ("seq", "kind", "share", "ref", "body", "prev")))
    name = f"{10**30 + 1:012d}-{data['digest'][:16]}.json"
    (desk.root / ".sfumato" / "receipts" / name).write_text(json.dumps(data))


ATTACKS = [
    restored_copy,
    restored_copy_without_anchor,
    restored_copy_without_anchor_and_receipt,
    restored_copy_with_an_emptied_anchor,
    forked_copy,
    edited_row,
    text_that_is_none,
    nested_row,
    cut_tail,
    removed_row,
    emptied,
    removed_table,
    replaced_by_a_new_ledger,
    clock_set_back,
    replayed_settlement,
    charge_that_is_none("-1"),
    charge_that_is_none("nan"),
    charge_that_is_none("1e400"),
    anchor_of_another_row,
    forged_receipt_that_was_kept,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_every_attack_is_found_by_verify(desk: Desk, attack: Callable[[Desk], None]) -> None:
    attack(desk)
    code, said = desk.run("ledger", "verify")
    assert code == 5, said


@pytest.mark.parametrize(
    "attack", [restored_copy, cut_tail, emptied, replaced_by_a_new_ledger, removed_table]
)
def test_and_nothing_is_opened_for_a_release_either(desk: Desk, attack: Callable[[Desk], None]) -> None:
    attack(desk)
    code, said = desk.run("ledger", "show")
    assert code == 5, said


def test_an_honest_book_verifies(desk: Desk) -> None:
    """The negative control."""
    code, said = desk.run("ledger", "verify")
    assert (code, "9 rows" in said) == (0, True), said
    code, said = desk.run("receipt", "verify", desk.receipts[0], "--ledger")
    assert code == 0, said


# Receipts


def stripped(data: dict) -> None:
    data["ledger_rows"] = []


def another_ledger(data: dict) -> None:
    data["ledger"] = "0" * 32


def another_guarantee(data: dict) -> None:
    data["guarantee"]["statement"] = "nobody can ever be found"


def odd_outputs(data: dict) -> None:
    data["outputs"] = [{"name": "x"}]


def no_outputs(data: dict) -> None:
    del data["outputs"]


def outputs_of_no_kind(data: dict) -> None:
    data["outputs"] = [{"sha256": ["x"], "bytes": "1"}]


def row_of_text(data: dict) -> None:
    data["ledger_rows"][1]["seq"] = "9"


@pytest.mark.parametrize("again", [False, True], ids=["as it is", "with a new digest"])
@pytest.mark.parametrize(
    "change",
    [stripped, another_ledger, another_guarantee, odd_outputs, no_outputs, outputs_of_no_kind, row_of_text],
)
def test_a_forged_receipt_does_not_verify(
    receipt: tuple[Desk, dict], change: Callable[[dict], object], again: bool
) -> None:
    desk, data = receipt
    change(data)
    if again:
        body = {key: value for key, value in data.items() if key not in ("format", "digest", "ledger_rows")}
        data["digest"] = digest_of(body)
    (desk.root / "forged.json").write_text(json.dumps(data))
    assert called("receipt", "verify", "forged.json", "sfumato.toml") == 5


@pytest.fixture
def receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Desk, dict]:
    """A project with a book in a file, for what is the same whatever holds the book."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    desk = Desk(SimpleNamespace(server=None), tmp_path / "p", tmp_path / "state")
    monkeypatch.chdir(desk.root)
    return desk, json.loads(desk.receipts[-1].read_text())


def called(*arguments: str) -> int:
    """Run a command in this process; return its exit code."""
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


# Amounts


@pytest.mark.parametrize("amount", ["-1", "nan", "inf", "1e400", "1e30", '"x"', "true"])
@pytest.mark.parametrize("key", ["epsilon", "delta"])
def test_a_budget_that_is_none_is_refused(
    receipt: tuple[Desk, dict], key: str, amount: str, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = receipt[0].root / "sfumato.toml"
    rest = [line for line in POLICY.splitlines() if not line.startswith(key)]
    policy.write_text("\n".join([*rest, f"{key} = {amount}"]) + "\n")
    assert called("ledger", "show") == 2
    assert key in capsys.readouterr().err


def test_a_noise_that_is_none_is_refused(receipt: tuple[Desk, dict]) -> None:
    for amount in ("-1", "nan", "inf", "1e400", "0", "x"):
        assert called("ledger", "plan", "--gaussian", amount) == 2
