"""Key files: made once, bound to their owner, and never silently replaced."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sfumato.core.errors import Erased, IntegrityError, InvalidRequest, MissingExtra
from sfumato.core.project import Project
from sfumato.data.keyfiles import owner_of
from sfumato.data.opening import open_data
from sfumato.data.people import people_of
from sfumato.data.rotation import rotate
from sfumato.data.store import Place
from sfumato.data.vault import Vault
from sfumato.data.wrapping import Access


def key_folder(project: Project) -> Path:
    return project.root / ".sfumato" / "keys"


def key_of(vault: Vault, subject: str, number: int = 1) -> Path:
    files = vault.keys.files
    return files.key(files.head().generation, owner_of("subject", subject), number)


@pytest.fixture
def two(vault: Vault) -> tuple[Place, Place]:
    return tuple(Place("scans", "1", "scan", vault.pseudonym(name)) for name in ("Ada", "Bob"))  # type: ignore[return-value]


def test_each_subject_has_a_key_of_their_own(vault: Vault, two: tuple[Place, Place]) -> None:
    ada, bob = two
    name = vault.put(b"a", ada)
    vault.put(b"b", bob)
    key_of(vault, bob.subject).unlink()
    assert vault.get(name, ada) == b"a"


def test_a_key_file_in_anothers_place_is_found(
    project: Project, vault: Vault, two: tuple[Place, Place]
) -> None:
    ada, bob = two
    name = vault.put(b"a", ada)
    vault.put(b"b", bob)
    shutil.copy(key_of(vault, bob.subject), key_of(vault, ada.subject))
    with pytest.raises(IntegrityError, match="key file"):
        Vault.of(project.root).get(name, ada)


def test_a_lost_or_cut_key_file_is_named(project: Project, vault: Vault, two: tuple[Place, Place]) -> None:
    ada, _ = two
    name = vault.put(b"a", ada)
    path = key_of(vault, ada.subject)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(IntegrityError, match="was changed"):
        Vault.of(project.root).get(name, ada)
    path.unlink()
    with pytest.raises(IntegrityError, match="missing"):
        Vault.of(project.root).get(name, ada)


def test_a_second_init_is_refused(project: Project, vault: Vault, outside: Access) -> None:
    with pytest.raises(InvalidRequest, match="already"):
        Vault.init(project.root, "file", outside)


def test_init_never_starts_over_keys_that_lost_their_head(
    project: Project, vault: Vault, outside: Access, two: tuple[Place, Place]
) -> None:
    name = vault.put(b"a", two[0])
    head = key_folder(project) / "vault.json"
    kept = head.read_bytes()
    head.unlink()
    with pytest.raises(IntegrityError, match="Restore its newest copy"):
        Vault.init(project.root, "file", outside)
    with pytest.raises(IntegrityError, match="Restore its newest copy"):
        open_data(project)  # nothing is ever stored in clear beside what a vault left
    head.write_bytes(kept)
    assert Vault.of(project.root).get(name, two[0]) == b"a"


def test_a_stopped_init_can_be_done_again(project: Project, vault: Vault, outside: Access) -> None:
    known, key = vault.pseudonym("Ada"), vault.keys.pseudonym_key()
    (project.root / ".sfumato" / "pseudonym.key").write_bytes(key)  # it goes when vault.json is there
    (key_folder(project) / "vault.json").unlink()
    assert people_of(project).subject("Ada") == known
    again = Vault.init(project.root, "file", outside)
    place = Place("scans", "1", "scan")
    assert again.get(again.put(b"a", place), place) == b"a"
    assert again.pseudonym("Ada") == known
    assert not (project.root / ".sfumato" / "pseudonym.key").exists()


def test_an_older_head_put_back_is_found_and_nothing_is_destroyed(
    project: Project, vault: Vault, two: tuple[Place, Place]
) -> None:
    name = vault.put(b"a", two[0])
    head = key_folder(project) / "vault.json"
    old = head.read_bytes()
    rotate(vault.keys)
    new = head.read_bytes()
    head.write_bytes(old)
    with pytest.raises(IntegrityError, match="older copy"):
        Vault.of(project.root).get(name, two[0])
    head.write_bytes(new)
    assert Vault.of(project.root).get(name, two[0]) == b"a"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": "other"}', '{"format": "sfumato-vault/1"}']
)
def test_a_head_that_does_not_read_is_named(project: Project, vault: Vault, text: str) -> None:
    (key_folder(project) / "vault.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"vault\.json"):
        Vault.of(project.root).status()


def test_a_head_of_another_vault_does_not_open(project: Project, vault: Vault, two) -> None:
    name = vault.put(b"a", two[0])
    head = key_folder(project) / "vault.json"
    data = json.loads(head.read_text())
    data["vault"] = "0" * 32
    head.write_text(json.dumps(data))
    with pytest.raises(InvalidRequest, match="does not open this vault"):
        Vault.of(project.root).get(name, two[0])


def test_who_may_only_read_reads_and_honours_tombstones(
    project: Project, vault: Vault, two: tuple[Place, Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = [vault.put(b"a", place) for place in two]
    vault.keys.files.bury(owner_of("subject", two[0].subject), "2026-01-01")  # an erasure stopped here
    monkeypatch.setattr("os.access", lambda path, mode: False)
    reader = Vault.of(project.root)
    assert key_of(vault, two[0].subject).exists()
    with pytest.raises(Erased):
        reader.get(first, two[0])
    assert reader.get(second, two[1]) == b"a"


def test_without_the_packages_the_extra_is_named(
    project: Project, outside: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'sfumato\[vault\]'"):
        Vault.init(project.root, "file", outside)
