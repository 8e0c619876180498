"""Rotation: the old keys open nothing any more, and at every moment one master key is in force."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sfumato.core.errors import InvalidRequest, SfumatoError, VaultLocked
from sfumato.core.project import Project
from sfumato.data.keyfiles import owner_of
from sfumato.data.rotation import rotate
from sfumato.data.sealing import read_header
from sfumato.data.store import Place
from sfumato.data.vault import Vault
from sfumato.data.wrapping import Access

WORKER = Path(__file__).with_name("vault_worker.py")
Search = Callable[[Path, bytes], list[str]]


@pytest.fixture
def items(vault: Vault) -> dict[str, Place]:
    places = [Place("scans", "1", who, vault.pseudonym(who)) for who in ("Ada Lovelace", "Bob")]
    return {vault.put(b"scan", place): place for place in (*places, Place("scans", "1", "labels.csv"))}


def read_all(vault: Vault, items: dict[str, Place]) -> None:
    for name, place in items.items():
        assert vault.get(name, place) == b"scan"


def test_everything_opens_after_a_rotation_and_pseudonyms_stay(
    project: Project, vault: Vault, items: dict[str, Place], found: Search
) -> None:
    before = vault.pseudonym("Ada Lovelace")
    keys = project.root / ".sfumato" / "keys"
    old = [path.read_bytes() for path in keys.rglob("*.key")]
    assert len(old) == 4
    done = rotate(vault.keys)
    assert (done.generation, done.keys, done.new_keys) == (2, 3, 0)
    for open_vault in (vault, Vault.of(project.root)):
        read_all(open_vault, items)
        assert open_vault.pseudonym("Ada Lovelace") == before
    for sealed in old:
        assert found(project.root, sealed) == []
    assert [path.name for path in keys.glob("g-*")] == ["g-000002"]


def test_new_data_keys_are_for_new_items(vault: Vault, items: dict[str, Place]) -> None:
    name, place = next(iter(items.items()))
    assert rotate(vault.keys, data_keys=True).new_keys == 3
    late = vault.put(b"late", place)
    numbers = []
    for item in (name, late):
        with (vault.root / item[:2] / item[2:]).open("rb") as file:
            numbers.append(read_header(file).number)
    assert numbers == [1, 2]
    owner = owner_of("subject", place.subject)
    assert vault.keys.key(owner, 1) != vault.keys.key(owner, 2)
    assert (vault.get(name, place), vault.get(late, place)) == (b"scan", b"late")


def test_another_process_goes_on_after_a_rotation(
    project: Project, vault: Vault, items: dict[str, Place], tmp_path: Path
) -> None:
    other = Vault.of(project.root)
    read_all(other, items)
    rotate(vault.keys, access=Access(options={"path": str(tmp_path / "outside" / "new.key")}))
    read_all(other, items)
    fresh = Place("scans", "2", "new", other.pseudonym("Carl"))
    name = other.put(b"scan", fresh)
    read_all(Vault.of(project.root), items | {name: fresh})


def test_the_old_key_file_opens_nothing_any_more(
    project: Project, vault: Vault, items: dict[str, Place], outside: Access, tmp_path: Path
) -> None:
    rotate(vault.keys, access=Access(options={"path": str(tmp_path / "outside" / "new.key")}))
    with pytest.raises(VaultLocked, match="does not open"):
        read_all(Vault.of(project.root, outside), items)


def test_a_rotation_that_cannot_wrap_changes_nothing(
    project: Project, vault: Vault, items: dict[str, Place]
) -> None:
    with pytest.raises(InvalidRequest, match="12 characters"):
        rotate(vault.keys, wrapping="passphrase", access=Access(passphrase="short"))
    inside = Access(project.root, options={"path": str(project.root / "k")})
    with pytest.raises(InvalidRequest, match="inside the project"):
        rotate(vault.keys, access=inside)
    assert vault.status().generation == 1
    read_all(Vault.of(project.root), items)


@pytest.mark.parametrize(("what", "safe"), [("rotate", True), ("careless", False)])
def test_killed_at_every_touch_of_the_disk_one_master_key_is_in_force(
    project: Project, vault: Vault, items: dict[str, Place], tmp_path: Path, what: str, safe: bool
) -> None:
    (tmp_path / "sweep").mkdir()
    result = subprocess.run(
        [sys.executable, WORKER, "sweep", what, project.root, tmp_path / "sweep", tmp_path / "outside" / "b"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 20
    generations, lost = set(), 0
    for folder in sorted((tmp_path / "sweep").iterdir()):
        try:
            survivor = Vault.of(folder)
            read_all(survivor, items)
        except SfumatoError:
            lost += 1
            continue
        generations.add(survivor.status().generation)
        keys = folder / ".sfumato" / "keys"
        assert len(list(keys.glob("g-*"))) == 1
        assert list((keys / "aside").iterdir()) == []
        assert not (keys / "rotating.json").exists()
    assert (lost == 0) == safe
    assert generations == {1, 2}


def test_writers_of_a_new_subject_and_a_rotation_at_once_lose_nothing(project: Project, vault: Vault) -> None:
    modes = ["put"] * 3 + ["rotate"]
    processes = [
        subprocess.Popen(
            [sys.executable, WORKER, mode, project.root, "Dora", "15" if mode == "put" else "3"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for mode in modes
    ]
    end = time.monotonic() + 60
    while len(list(project.root.glob("ready-*"))) < len(processes):
        assert time.monotonic() < end
        time.sleep(0.01)
    (project.root / "go").touch()
    names = []
    for process in processes:
        out, problem = process.communicate(timeout=60)
        assert process.returncode == 0, problem
        names += out.split()
    assert len(set(names)) == 45
    again = Vault.of(project.root)
    place = Place("scans", "1", "scan", again.pseudonym("Dora"))
    assert len({again.get(name, place) for name in names}) == 45
    assert again.status().generation == 4
