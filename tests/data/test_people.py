"""One pseudonym of a person, under one key that nothing makes twice."""

from __future__ import annotations

import threading

import pytest

from sfumato.core.errors import InvalidRequest
from sfumato.core.project import Project
from sfumato.data.catalogue import Catalogue
from sfumato.data.people import People, people_of, plain_key
from sfumato.data.vault import Vault


def test_a_pseudonym_is_one_per_person_and_population() -> None:
    people, other = People(lambda: bytes(32)), People(lambda: b"k" * 32)
    assert len(people.subject("17")) == 32
    assert people.subject("17", "a") == people.subject(" 17\n", "a")
    assert people.subject("Zo\u00eb") == people.subject("Zoe\u0308") != people.subject("Zoe")
    names = {people.subject("17"), people.subject("17", "a"), people.subject("7", "a1"), other.subject("17")}
    assert len(names) == 4
    with pytest.raises(InvalidRequest, match="empty"):
        people.subject(" ")


def test_one_key_under_concurrency(tmp_path) -> None:
    seen: list[str] = []
    threads = [
        threading.Thread(target=lambda: seen.append(Catalogue(tmp_path / "c").people.subject("7")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1


def test_a_damaged_key_is_found(tmp_path) -> None:
    (tmp_path / "pseudonym.key").write_bytes(b"short")
    with pytest.raises(InvalidRequest, match="32"):
        plain_key(tmp_path)


def test_a_vault_takes_the_key_over(project: Project, outside, found) -> None:
    before, key = people_of(project).subject("Ada", "patients"), plain_key(project.root / ".sfumato")
    assert found(project.root, key)
    vault = Vault.init(project.root, "file", outside)
    assert vault.pseudonym("Ada", "patients") == before == people_of(project).subject("Ada", "patients")
    assert not found(project.root, key)
    with pytest.raises(InvalidRequest, match="open the data anew"):
        plain_key(project.root / ".sfumato")


def test_a_plain_key_that_was_left_goes_at_the_next_opening(project: Project, outside, found) -> None:
    key = plain_key(project.root / ".sfumato")
    Vault.init(project.root, "file", outside)
    (project.root / ".sfumato" / "pseudonym.key").write_bytes(key)  # as a kill leaves it
    people_of(project).subject("Ada")
    assert not found(project.root, key)
