"""Erasure: the key is gone from every byte of the folder, all else stays, and no kill undoes half of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sfumato.core.errors import Erased, InvalidRequest
from sfumato.core.event import PureDP
from sfumato.core.gate import Gate, Plan
from sfumato.core.project import Project
from sfumato.core.receipt import Output
from sfumato.data.erasure import erase, plan_for
from sfumato.data.keyfiles import owner_of
from sfumato.data.rotation import rotate
from sfumato.data.store import Place
from sfumato.data.vault import Vault

WORKER = Path(__file__).with_name("vault_worker.py")
SECRET = b"diagnosis: planted plaintext 7f3a"
Search = Callable[[Path, bytes], list[str]]


class Clinic:
    """A vault with two versions of two people and a table about many; and the bytes of Ada's keys."""

    def __init__(self, project: Project, vault: Vault) -> None:
        self.project, self.vault = project, vault
        ada, bob = vault.pseudonym("Ada Lovelace"), vault.pseudonym("Bob")
        self.ada = [Place("scans", version, "a.png", ada) for version in "12"]
        others = [Place("scans", "1", "b.png", bob), Place("scans", "1", "labels.csv")]
        self.hers = {vault.put(SECRET, place): place for place in self.ada}
        self.others = {vault.put(b"other", place): place for place in others}
        rotate(vault.keys, data_keys=True)
        late = Place("visits", "1", "a.txt", ada)
        self.hers[vault.put(SECRET, late)] = late
        files, owner = vault.keys.files, owner_of("subject", ada)
        generation = files.head().generation
        numbers = files.numbers(generation, owner)
        self.raw = [vault.keys.key(owner, number) for number in numbers]
        self.wrapped = [files.key(generation, owner, number).read_bytes() for number in numbers]

    @property
    def subject(self) -> str:
        return self.ada[0].subject

    def needles(self) -> list[bytes]:
        """Her keys, raw and wrapped; of the wrapped ones the sealed part too."""
        return [SECRET, *self.raw, *self.wrapped, *(wrapped[-48:] for wrapped in self.wrapped)]

    def check_erased(self, root: Path, found: Search) -> None:
        vault = Vault.of(root)
        for needle in self.needles():
            assert found(root, needle) == []
        for name, place in self.hers.items():
            with pytest.raises(Erased, match="was erased 20"):
                vault.get(name, place)
        self.check_others(vault)

    def check_others(self, vault: Vault) -> None:
        for name, place in self.others.items():
            assert vault.get(name, place) == b"other"
        for name in vault.names():
            vault.check(name)
        assert set(vault.names()) == {*self.hers, *self.others}


@pytest.fixture
def clinic(project: Project, vault: Vault) -> Clinic:
    return Clinic(project, vault)


def test_after_an_erasure_no_byte_of_the_key_is_left(clinic: Clinic, found: Search) -> None:
    root = clinic.project.root
    assert len(clinic.raw) == 2
    for needle in clinic.needles():  # the search sees what is there: wrapped keys, and nothing else
        assert bool(found(root, needle)) == (needle not in (SECRET, *clinic.raw))
    clinic.vault.erase(clinic.subject)
    clinic.check_erased(root, found)


def test_deleting_the_items_only_would_leave_the_key(clinic: Clinic, found: Search) -> None:
    """The wrong twin: an erasure that removes files leaves every backup of them readable."""
    backup = clinic.project.root.parent / "backup"
    shutil.copytree(clinic.vault.root, backup)
    for name in clinic.hers:
        (clinic.vault.root / name[:2] / name[2:]).unlink()
    restored = Vault(backup, clinic.vault.keys)
    assert all(restored.get(name, place) == SECRET for name, place in clinic.hers.items())
    clinic.vault.erase(clinic.subject)
    for name, place in clinic.hers.items():
        with pytest.raises(Erased):
            restored.get(name, place)


def test_the_key_is_not_made_again(clinic: Clinic) -> None:
    at = clinic.vault.erase(clinic.subject)
    for vault in (clinic.vault, Vault.of(clinic.project.root)):
        with pytest.raises(Erased, match="New data about them is refused"):
            vault.put(b"new", clinic.ada[0])
    assert clinic.vault.erase(clinic.subject) == at
    assert clinic.vault.knows(clinic.subject)


def test_a_vault_that_was_open_with_the_key_in_memory_refuses_too(clinic: Clinic) -> None:
    other = Vault.of(clinic.project.root)
    name, place = next(iter(clinic.hers.items()))
    assert other.get(name, place) == SECRET
    clinic.vault.erase(clinic.subject)
    with pytest.raises(Erased):
        other.get(name, place)


def test_a_key_folder_put_back_over_a_tombstone_is_destroyed_again(clinic: Clinic, found: Search) -> None:
    keys = clinic.project.root / ".sfumato" / "keys"
    backup = clinic.project.root.parent / "backup"
    shutil.copytree(keys, backup)
    clinic.vault.erase(clinic.subject)
    shutil.copytree(backup, keys, dirs_exist_ok=True)
    assert found(keys, clinic.wrapped[0])
    clinic.check_erased(clinic.project.root, found)


def test_an_older_key_folder_in_place_of_the_new_one_brings_nobody_back(
    clinic: Clinic, found: Search
) -> None:
    keys = clinic.project.root / ".sfumato" / "keys"
    backup = clinic.project.root.parent / "backup"
    shutil.copytree(keys, backup)
    at = clinic.vault.erase(clinic.subject)
    shutil.rmtree(keys)
    shutil.copytree(backup, keys)
    assert found(keys, clinic.wrapped[0])
    clinic.check_erased(clinic.project.root, found)
    vault = Vault.of(clinic.project.root)
    with pytest.raises(Erased, match="New data about them is refused"):
        vault.put(b"new", clinic.ada[0])
    assert (vault.erase(clinic.subject), vault.status().erased) == (at, 1)


def test_an_unknown_subject_is_no_success(clinic: Clinic) -> None:
    with pytest.raises(InvalidRequest, match="nothing here is about"):
        clinic.vault.erase(clinic.vault.pseudonym("Ada Lovelac"))
    assert clinic.vault.status().erased == 0


def test_an_erasure_needs_no_master_key(clinic: Clinic, tmp_path: Path, found: Search) -> None:
    key_file = tmp_path / "outside" / "master.key"
    kept = key_file.read_bytes()
    key_file.unlink()
    Vault.of(clinic.project.root).erase(clinic.subject)
    key_file.write_bytes(kept)
    key_file.chmod(0o600)
    clinic.check_erased(clinic.project.root, found)


def test_killed_at_every_touch_of_the_disk_it_is_whole_or_not_begun(
    clinic: Clinic, found: Search, tmp_path: Path
) -> None:
    outcomes = set()
    result = _sweep("erase", clinic.project.root, tmp_path)
    for folder in sorted((tmp_path / "sweep").iterdir()):
        vault = Vault.of(folder)
        begun = vault.status().erased == 1
        outcomes.add(begun)
        if begun:
            clinic.check_erased(folder, found)
        else:
            assert all(vault.get(name, place) == SECRET for name, place in clinic.hers.items())
            clinic.check_others(vault)
            vault.erase(clinic.subject)
            clinic.check_erased(folder, found)
    assert outcomes == {True, False}
    assert result > 10


def test_an_erased_subject_stays_erased_whatever_writers_do(
    clinic: Clinic, tmp_path: Path, found: Search
) -> None:
    """Four writers of the same person, against the eraser."""
    root = clinic.project.root
    modes = ["put"] * 4 + ["erase"]
    processes = [
        subprocess.Popen(
            [sys.executable, WORKER, mode, root, "Ada Lovelace", "30" if mode == "put" else "1"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for mode in modes
    ]
    _start(root, len(processes))
    printed = [process.communicate(timeout=60)[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert printed[0][-1] == "erased"
    vault = Vault.of(root)
    for needle in clinic.needles():
        assert found(root, needle) == []
    for name in {name for lines in printed for name in lines} - {"erased"}:
        with pytest.raises(Erased):
            vault.get(name, clinic.ada[0])
        vault.check(name)


# On the record


def test_an_erasure_is_recorded_by_pseudonym_whatever_the_purposes_say(clinic: Clinic, found: Search) -> None:
    gate = clinic.project.gate()
    receipt = erase(clinic.vault, clinic.subject, gate)
    assert receipt.guarantee == "heuristic"
    assert receipt.body["plan"]["parameters"] == {"subject": clinic.subject}
    receipt.verify_ledger(clinic.project.ledger)
    for word in (b"Ada", b"Lovelace"):
        assert found(clinic.project.root, word) == []
    clinic.check_erased(clinic.project.root, found)
    again = erase(clinic.vault, clinic.subject, gate)
    assert again.body["facts"] == receipt.body["facts"]


def test_nothing_can_leave_as_an_erasure(clinic: Clinic) -> None:
    gate = clinic.project.gate()
    with (
        gate.open(plan_for(clinic.subject)) as permit,
        pytest.raises(InvalidRequest, match="releases nothing"),
    ):
        permit.settle([Output("0" * 64, 1)])
    with pytest.raises(InvalidRequest, match="person's right"):
        Plan(
            action="erase",
            mechanism="x",
            guarantee="proven",
            statement="x",
            event=PureDP(1),
            population="p",
            share="all",
        )


def test_an_unknown_subject_leaves_no_record(clinic: Clinic) -> None:
    gate: Gate = clinic.project.gate()
    before = len(list(clinic.project.ledger.entries()))
    with pytest.raises(InvalidRequest, match="nothing here"):
        erase(clinic.vault, "0" * 32, gate)
    assert len(list(clinic.project.ledger.entries())) == before


def _sweep(what: str, base: Path, tmp_path: Path) -> int:
    (tmp_path / "sweep").mkdir()
    result = subprocess.run(
        [sys.executable, WORKER, "sweep", what, base, tmp_path / "sweep", tmp_path / "outside" / "new.key"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


def _start(root: Path, count: int) -> None:
    import time

    end = time.monotonic() + 60
    while len(list(root.glob("ready-*"))) < count:
        assert time.monotonic() < end
        time.sleep(0.01)
    (root / "go").touch()
