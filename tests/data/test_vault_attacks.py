"""What somebody who can write in the vault's folders tries: links, exchanged heads, forged notes."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

from sfumato.core.errors import Erased, IntegrityError, InvalidRequest
from sfumato.core.project import Project
from sfumato.data import keys as keys_module
from sfumato.data.keyfiles import owner_of
from sfumato.data.rotation import rotate
from sfumato.data.store import Place
from sfumato.data.vault import Vault
from sfumato.data.wrapping import Access
from sfumato.data.wrapping.file import KeyFile
from sfumato.data.wrapping.passphrase import Passphrase

MANY = Place("scans", "1", "labels.csv")


def keys_of(project: Project) -> Path:
    return project.root / ".sfumato" / "keys"


def test_a_link_among_the_files_aside_destroys_nothing_behind_it(
    project: Project, vault: Vault, tmp_path: Path
) -> None:
    (tmp_path / "letter").write_bytes(b"mine")
    (keys_of(project) / "aside" / "link").symlink_to(tmp_path / "letter")
    (keys_of(project) / "aside" / "folder").mkdir()
    (keys_of(project) / "aside" / "folder" / "left").write_bytes(b"key")
    Vault.of(project.root)
    assert (tmp_path / "letter").read_bytes() == b"mine"
    assert list((keys_of(project) / "aside").iterdir()) == []


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_link_in_place_of_an_erased_persons_keys_destroys_nothing_behind_it(
    project: Project, vault: Vault, tmp_path: Path, as_folder: bool
) -> None:
    outside = tmp_path / "letters"
    outside.mkdir()
    (outside / "1.key").write_bytes(b"mine")
    place = Place("scans", "1", "a", vault.pseudonym("Ada"))
    vault.put(b"a", place)
    owner = vault.keys.files._owner(1, owner_of("subject", place.subject))
    shutil.rmtree(owner)
    if as_folder:
        owner.symlink_to(outside)
    else:
        owner.mkdir()
        (owner / "1.key").symlink_to(outside / "1.key")
    vault.keys.erase(owner_of("subject", place.subject))
    assert (outside / "1.key").read_bytes() == b"mine"
    assert not owner.exists()


def test_a_link_in_place_of_the_generation_that_goes_destroys_nothing_behind_it(
    project: Project, vault: Vault, tmp_path: Path
) -> None:
    vault.put(b"a", MANY)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine").write_bytes(b"mine")
    keys = keys_of(project)
    (keys / "g-000002").symlink_to(tmp_path / "letters")
    (keys / "rotating.json").write_text('{"from": 1, "to": 2}')
    Vault.of(project.root)
    assert (tmp_path / "letters" / "mine").read_bytes() == b"mine"
    assert not (keys / "g-000002").is_symlink()


def test_a_key_file_put_back_read_only_is_destroyed_all_the_same(project: Project, vault: Vault) -> None:
    place = Place("scans", "1", "a", vault.pseudonym("Ada"))
    vault.put(b"a", place)
    path = vault.keys.files.key(1, owner_of("subject", place.subject), 1)
    path.chmod(0o400)
    vault.erase(place.subject)
    assert not path.exists()


def test_an_exchanged_head_is_found_before_anything_is_stored_under_it(
    project: Project, vault: Vault, tmp_path: Path
) -> None:
    """Without the check, what comes next would be sealed under a master key that the other knows."""
    theirs = Access(options={"path": str(tmp_path / "theirs" / "master.key")})
    (tmp_path / "other").mkdir()
    Vault.init(tmp_path / "other", "file", theirs)
    shutil.copy(tmp_path / "other" / ".sfumato" / "keys" / "vault.json", keys_of(project) / "vault.json")
    with pytest.raises(IntegrityError, match="was exchanged"):
        Vault.of(project.root).put(b"new", MANY)
    assert list(vault.names()) == []


def test_a_key_file_that_the_head_names_inside_the_project_is_refused(project: Project, vault: Vault) -> None:
    keys = keys_of(project)
    data = json.loads((keys / "vault.json").read_text())
    shutil.copy(data["record"]["path"], keys / "planted")
    data["record"]["path"] = str(keys / "planted")
    (keys / "vault.json").write_text(json.dumps(data))
    with pytest.raises(InvalidRequest, match="inside the project"):
        Vault.of(project.root).put(b"new", MANY)


@pytest.mark.parametrize("note", ['{"from": 1, "to": 1}', '{"from": 1, "to": 7}', "[]"])
def test_a_forged_note_of_a_rotation_destroys_no_key(project: Project, vault: Vault, note: str) -> None:
    name = vault.put(b"a", MANY)
    (keys_of(project) / "rotating.json").write_text(note)
    with pytest.raises(IntegrityError, match=r"rotating\.json"):
        Vault.of(project.root)
    (keys_of(project) / "rotating.json").unlink()
    assert Vault.of(project.root).get(name, MANY) == b"a"


@pytest.mark.parametrize("cost", [(20, 16, 4), (20, 16, 1), (13, 8, 1), (20, 17, 1)])
def test_a_cost_that_was_raised_or_lowered_is_named(cost: tuple[int, int, int]) -> None:
    record = dict(zip(("log_n", "r", "p"), cost, strict=True)) | {"salt": "00" * 32, "sealed": "00" * 99}
    with pytest.raises(IntegrityError, match="it was changed"):
        Passphrase(Access(passphrase="correct horse battery")).unwrap(record, b"")


def test_a_passphrase_of_bytes_that_are_no_text_opens_what_it_closed() -> None:
    wrapping = Passphrase(Access(passphrase="correct \udcff horse battery"))
    assert wrapping.unwrap(wrapping.wrap(b"s" * 32, b"c"), b"c") == b"s" * 32


@pytest.mark.parametrize("record", ["x", None, 5])
def test_a_head_whose_record_is_none_is_named(project: Project, vault: Vault, record: object) -> None:
    path = keys_of(project) / "vault.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"record": record}))
    with pytest.raises(IntegrityError, match=r"vault\.json"):
        Vault.of(project.root).pseudonym("Ada")


def test_strays_among_keys_and_items_stop_nobody(project: Project, vault: Vault) -> None:
    name = vault.put(b"a", MANY)
    owner = vault.keys.files._owner(1, owner_of("dataset", "scans"))
    (owner / "old.key").write_bytes(b"?")
    (vault.root / name[:2] / "readme").write_text("?")
    again = Vault.of(project.root)
    again.put(b"b", MANY)
    assert len(list(again.names())) == 2
    assert again.get(name, MANY) == b"a"


def test_a_folder_in_place_of_an_item_is_named(vault: Vault) -> None:
    name = vault.put(b"a", MANY)
    path = vault.root / name[:2] / name[2:]
    path.unlink()
    path.mkdir()
    with pytest.raises(IntegrityError, match="missing or was changed"):
        vault.get(name, MANY)


@pytest.mark.parametrize("what", ["rotated", "erased"])
def test_a_key_read_while_it_is_being_destroyed_is_no_false_alarm(
    project: Project, vault: Vault, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The reader holds no lock: it may see half of the random bytes that a key was overwritten with."""
    place = Place("scans", "1", "a", vault.pseudonym("Ada"))
    name = vault.put(b"a", place)
    reader, real, met = Vault.of(project.root), keys_module.open_key, []

    def torn(files, head, master, owner, number):
        if owner != "pseudonym" and not met:
            met.append(owner)
            rotate(vault.keys) if what == "rotated" else vault.keys.erase(owner)
            raise IntegrityError("the key file 1.key was changed")
        return real(files, head, master, owner, number)

    monkeypatch.setattr(keys_module, "open_key", torn)
    if what == "rotated":
        assert reader.get(name, place) == b"a"
    else:
        with pytest.raises(Erased):
            reader.get(name, place)
    assert met


def test_two_vaults_that_make_one_key_file_at_once_both_open(tmp_path: Path) -> None:
    access = Access(options={"path": str(tmp_path / "outside" / "shared.key")})
    records, start = [], threading.Barrier(8)

    def make() -> None:
        start.wait()
        records.append(KeyFile(access).wrap(b"s" * 32, b"c"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [KeyFile(access).unwrap(record, b"c") for record in records] == [b"s" * 32] * 8
