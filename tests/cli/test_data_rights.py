"""Which role may give which command on data; a refusal comes before anything is written."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sfumato.cli.main import main
from sfumato.core import identity
from sfumato.core.project import Project
from sfumato.core.roles import ROLES

POLICY = """
[project]
name = "clinic"
[roles]
owner = ["maria"]
curator = ["carl"]
analyst = ["eva"]
auditor = ["ben"]
[purposes.care]
actions = ["query", "export"]
[populations.patients]
unit = "patient"
epsilon = 1
[datasets.clinic]
keep = ["age"]
unit = "patient"
population = "patients"
purposes = ["care"]
partition = "subject"
[retention]
days = 30
"""
NAMES = {"owner": "maria", "curator": "carl", "analyst": "eva", "auditor": "ben", "nobody": "stranger"}
READ = (("list",), ("show", "clinic"), ("versions", "clinic"), ("diff", "clinic@1", "clinic@1"), ("verify",))
CURATE = (
    ("add", "clinic", "more.csv"),
    ("retire", "clinic", "--reason", "wrong"),
    ("sweep",),
    ("retain",),
    ("retain", "--dry-run"),
)
KEY = ("--wrapping", "file", "--set", "path=../key/master.key")


def run(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def act_as(monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    name = NAMES[role]
    monkeypatch.setattr(identity, "local_user", lambda: (f"uid:{sum(name.encode())}", name))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    Project.init(root).close()
    (root / "sfumato.toml").write_text(POLICY)
    (root / "v.csv").write_text("patient,age\n1,40\n2,50\n")
    (root / "more.csv").write_text("patient,age\n1,40\n2,50\n3,60\n")
    monkeypatch.chdir(root)
    act_as(monkeypatch, "owner")
    assert run("data", "add", "clinic", "v.csv") == 0
    for role in NAMES:  # the key of those who act is made when somebody first does
        act_as(monkeypatch, role)
        run("ledger", "show")
    return root


def everything(root: Path) -> dict[str, bytes]:
    skipped = ("-wal", "-shm")
    return {
        str(p): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and p.name[-4:] not in skipped
    }


@pytest.mark.parametrize("role", [*ROLES, "nobody"])
def test_each_command_needs_its_right(root: Path, monkeypatch, capsys, role: str) -> None:
    act_as(monkeypatch, role)
    refused = [command for command in READ if role == "nobody"]
    refused += [command for command in CURATE if role not in ("owner", "curator")]
    before = everything(root)
    for command in refused:
        assert run("data", *command) == 3, command
    assert everything(root) == before
    for command in READ + CURATE[:4]:
        if command not in refused:
            assert run("data", *command) == 0, command


def test_a_vault_is_made_and_rotated_by_the_owner_and_people_are_erased_by_curators(
    root: Path, monkeypatch, capsys
) -> None:
    os.umask(0o077)
    for role in ("curator", "analyst", "auditor", "nobody"):
        act_as(monkeypatch, role)
        before = everything(root)
        assert run("vault", "init", *KEY) == 3
        assert everything(root) == before
    act_as(monkeypatch, "owner")
    assert run("vault", "init", *KEY) == 0
    for role in ("curator", "analyst", "auditor", "nobody"):
        act_as(monkeypatch, role)
        before = everything(root)
        assert run("vault", "rotate") == 3
        assert everything(root) == before
    for role in ("analyst", "auditor", "nobody"):
        act_as(monkeypatch, role)
        before = everything(root)
        assert run("vault", "erase", "1", "--yes") == 3
        assert everything(root) == before
    act_as(monkeypatch, "curator")
    assert run("vault", "erase", "1", "--yes") == 0
    act_as(monkeypatch, "owner")
    assert run("vault", "rotate") == 0


def test_retire_and_retain_write_their_rows(root: Path, monkeypatch, capsys) -> None:
    act_as(monkeypatch, "curator")
    assert run("data", "add", "clinic", "more.csv") == 0
    assert run("data", "retire", "clinic@1", "--reason", "retention is not meant here") == 0
    capsys.readouterr()
    assert run("data", "retain", "--dry-run") == 0
    assert "No version's time is over" in capsys.readouterr().out
    for label in ("1", "2"):
        path = root / ".sfumato" / "catalogue" / "clinic" / f"{label}.json"
        data = json.loads(path.read_text())
        data["created"] = (datetime.now(UTC) - timedelta(days=31)).isoformat(timespec="seconds")
        path.write_text(json.dumps(data))
    assert run("data", "retain", "--dry-run") == 0
    assert "The time of 2 versions is over. Nothing was written" in capsys.readouterr().out
    assert run("data", "retain", "--dry-run", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["due"]) == 2
    assert run("data", "export", "clinic", "-o", "out", "--purpose", "care") == 3
    assert "sfumato data retain" in capsys.readouterr().err
    assert run("data", "retain") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[:2] == ["version", "came"]
    assert "Ended 2 versions; " in out
    assert run("data", "verify") == 0
    assert run("ledger", "verify") == 0
    project = Project(root)
    rows = [(row.body["label"], row.body["why"]) for row in project.ledger.book.all(kind="retired")]
    project.close()
    assert sorted(rows) == [("1", "by hand"), ("1", "retention"), ("2", "retention")]
    assert run("report", "-o", "report.html") == 0
