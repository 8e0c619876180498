from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfumato.cli.main import main
from sfumato.core.project import Project
from sfumato.data.store import Place
from sfumato.data.vault import Vault
from sfumato.data.wrapping import Access, passphrase


def run(*arguments: str) -> int:
    try:
        main(["vault", *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(passphrase, "LOG_N", 14)
    root = tmp_path / "project"
    Project.init(root, name="demo").ledger.close()
    with (root / "sfumato.toml").open("a") as file:
        file.write('\n[purposes.research]\nactions = ["redact"]\n')
    monkeypatch.chdir(root)
    return Project(root)


@pytest.fixture
def filled(project: Project, capsys) -> tuple[Vault, str, Place]:
    assert run("init", "--wrapping", "file", "--set", "path=../out/master.key") == 0
    capsys.readouterr()
    vault = Vault.of(project.root)
    place = Place("scans", "1", "x", vault.pseudonym("Ada Lovelace"))
    return vault, vault.put(b"scan", place), place


def test_init_status_and_check(project: Project, filled, capsys) -> None:
    assert run("status", "--check", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "wrapping": "file",
        "generation": 1,
        "owners": 1,
        "erased": 0,
        "items": 1,
        "checked": True,
    }
    assert run("init") == 2
    assert "already" in capsys.readouterr().err


def test_a_damaged_item_ends_with_5(filled, capsys) -> None:
    vault, name, _ = filled
    (vault.root / name[:2] / name[2:]).write_bytes(b"x")
    assert run("status") == 0
    assert run("status", "--check") == 5


def test_erase_asks_records_and_names_nobody(project: Project, filled, capsys, monkeypatch) -> None:
    _, name, place = filled
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert run("erase", "Ada Lovelace") == 2
    assert "--yes" in capsys.readouterr().err
    assert run("erase", "Ada Lovelac", "--yes") == 2
    assert "nothing here is about" in capsys.readouterr().err
    assert run("erase", "Ada Lovelace", "--yes", "--json") == 0
    done = capsys.readouterr()
    assert json.loads(done.out)["subject"] == place.subject
    for path in (project.root / ".sfumato").rglob("*"):
        assert not path.is_file() or b"Lovelace" not in path.read_bytes()
    assert "Lovelace" not in done.out + done.err
    assert run("status", "--check") == 0
    main(["ledger", "verify"])
    assert run("erase", place.subject, "--pseudonym", "--yes") == 0
    with pytest.raises(Exception, match="was erased"):
        Vault.of(project.root).get(name, place)


def test_erase_reads_the_subject_from_standard_input(filled, capsys, monkeypatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("Ada Lovelace\n"))
    assert run("erase", "-", "--yes") == 0
    assert "Erased" in capsys.readouterr().out


def test_a_passphrase_comes_by_variable_and_is_rotated(
    project: Project, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFUMATO_PASSPHRASE", "the first long passphrase")
    assert run("init") == 0
    monkeypatch.setenv("SFUMATO_NEW_PASSPHRASE", "the second long passphrase")
    assert run("rotate", "--data-keys", "--json") == 0
    assert json.loads(capsys.readouterr().out.split("machine.\n")[1])["generation"] == 2
    assert run("rotate") == 2
    assert "does not open this vault" in capsys.readouterr().err
    second = Access(passphrase="the second long passphrase")
    assert len(Vault.of(project.root, second).pseudonym("Ada")) == 32


@pytest.mark.parametrize("setting", ["path", "=x"])
def test_a_malformed_setting_is_refused(project: Project, capsys, setting: str) -> None:
    assert run("init", "--wrapping", "file", "--set", setting) == 2
    assert "KEY=VALUE" in capsys.readouterr().err


def test_without_a_vault_the_way_out_is_named(project: Project, capsys) -> None:
    assert run("status") == 2
    assert "sfumato vault init" in capsys.readouterr().err


def test_an_erasure_says_where_else_the_same_id_is(project: Project, filled, capsys) -> None:
    vault, _, place = filled
    with (project.root / "sfumato.toml").open("a") as file:
        file.write('\n[populations.patients]\nunit = "person"\nepsilon = 1\n')
    other = Place("clinic", "1", "y", vault.pseudonym("Ada Lovelace", "patients"))
    vault.put(b"row", other)
    assert run("erase", "Ada Lovelace", "--yes") == 0  # the policy's only population is meant
    assert "no population" in capsys.readouterr().err
    assert not vault.erased(place)
    assert run("erase", "Ada Lovelace", "--population", "", "--yes", "--json") == 0
    assert json.loads(capsys.readouterr().out)["elsewhere"] == []
    assert vault.erased(place)
