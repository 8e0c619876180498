"""The ledger knows the vault: without it, or with another, nothing is opened."""

from __future__ import annotations

import shutil

import pytest

from sfumato.core.errors import IntegrityError, InvalidRequest, LedgerTampered
from sfumato.core.project import Project
from sfumato.core.verify import verify
from sfumato.data.add import add
from sfumato.data.door import Request
from sfumato.data.opening import make_vault, open_data, open_vault, rotate_vault
from sfumato.data.people import people_of
from sfumato.data.vault import Vault
from sfumato.data.wrapping import Access


@pytest.fixture
def made(project: Project, outside: Access, tmp_path) -> Project:
    source = tmp_path / "t.csv"
    source.write_text("who,x\nAda,1\nBob,2\n")
    make_vault(project, "file", outside)
    catalogue, store = open_data(project, outside)
    add(catalogue, store, project.policy, Request(dataset="d", path=source, unit="who", keep=("x",)))
    project.close()
    return Project(project.root)


def rows(project: Project) -> list[str]:
    return [row.body["what"] for row in project.ledger.book.all(kind="vault")]


def gone(project: Project) -> None:
    for name in ("keys", "keys-erased", "vault"):
        shutil.rmtree(project.root / ".sfumato" / name, ignore_errors=True)


def test_a_vault_that_was_deleted_wholly_leaves_no_plain_project(made: Project, outside: Access) -> None:
    gone(made)
    opened = (
        lambda: open_data(made),
        lambda: people_of(made).subject("Ada"),
        lambda: open_vault(made),
        lambda: make_vault(made, "file", outside),
    )
    for way in opened:
        with pytest.raises(IntegrityError, match="Restore the newest copy"):
            way()
    assert not (made.root / ".sfumato" / "pseudonym.key").exists()


def test_another_key_folder_in_its_place_is_refused(made: Project, tmp_path) -> None:
    other = Project.init(tmp_path / "other")
    make_vault(other, "file", Access(options={"path": str(tmp_path / "theirs" / "key")}))
    gone(made)
    shutil.copytree(other.root / ".sfumato" / "keys", made.root / ".sfumato" / "keys")
    with pytest.raises(IntegrityError, match="another one"):
        open_data(made)
    with pytest.raises(IntegrityError, match="another one"):
        people_of(made).subject("Ada")


def test_the_newest_copy_put_back_opens_again(made: Project, outside: Access, tmp_path) -> None:
    before = people_of(made, outside).subject("Ada")
    shutil.copytree(made.root / ".sfumato", tmp_path / "copy")
    gone(made)
    for name in ("keys", "vault"):
        shutil.copytree(tmp_path / "copy" / name, made.root / ".sfumato" / name)
    assert people_of(made, outside).subject("Ada") == before


def test_making_and_rotating_are_rows_once_each(made: Project, outside: Access) -> None:
    assert rows(made) == ["made"]
    rotate_vault(made, outside, outside)
    open_data(made)
    assert rows(made) == ["made", "rotated"]
    verify(made.ledger)


def test_a_vault_without_a_row_is_recorded_when_it_is_next_opened(project: Project, outside: Access) -> None:
    Vault.init(project.root, "file", outside)  # and killed
    assert rows(project) == []
    open_data(project)
    assert rows(project) == ["made"]


def test_a_second_vault_is_not_recorded_and_does_not_verify(made: Project) -> None:
    for what in ("made", "rotated"):
        with pytest.raises(IntegrityError, match="not recorded"):
            made.gate().record_vault(vault="0" * 32, what=what)
    with pytest.raises(InvalidRequest, match="made or rotated"):
        made.gate().record_vault(vault="0" * 32, what="burnt")
    made.ledger.note("vault", "", {"vault": "0" * 32, "what": "rotated"})
    with pytest.raises(LedgerTampered, match="has the vault"):
        verify(made.ledger)


def test_what_a_vault_took_over_is_retired_for_that(project: Project, outside: Access, tmp_path) -> None:
    source = tmp_path / "t.csv"
    source.write_text("who,x\nAda,1\n")
    catalogue, store = open_data(project)
    add(catalogue, store, project.policy, Request(dataset="d", path=source, unit="who", keep=("x",)))
    make_vault(project, "file", outside)
    assert [row.body["why"] for row in project.ledger.book.all(kind="retired")] == ["vault"]
    verify(project.ledger)
