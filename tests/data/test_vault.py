"""The vault as a store: what was put comes back, at its place only, and nothing lies in clear."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sfumato.core.errors import IntegrityError, InvalidRequest, VaultLocked
from sfumato.core.project import Project
from sfumato.data.store import Place, PlainStore, Store
from sfumato.data.vault import Vault

SECRET = b"diagnosis: planted plaintext 7f3a"
Search = Callable[[Path, bytes], list[str]]


@pytest.fixture
def ada(vault: Vault) -> Place:
    return Place("scans", "1", "ada/scan.png", vault.pseudonym("Ada Lovelace"))


def test_a_vault_is_a_store(vault: Vault, ada: Place) -> None:
    store: Store = vault
    about_many = Place("scans", "1", "labels.csv")
    for place, data in ((ada, SECRET), (about_many, b""), (about_many, b"x" * (3 << 20))):
        name = store.put(data, place)
        assert store.get(name, place) == data
        store.check(name)
        assert name in set(store.names())


def test_a_second_put_is_another_item_and_both_are_read(vault: Vault, ada: Place) -> None:
    first, second = vault.put(SECRET, ada), vault.put(SECRET, ada)
    assert first != second  # equal names would tell who has equal data
    assert vault.get(first, ada) == vault.get(second, ada) == SECRET


def test_another_process_reads_it(project: Project, vault: Vault, ada: Place) -> None:
    name = vault.put(SECRET, ada)
    again = Vault.of(project.root)  # the key file's place is remembered
    assert again.get(name, ada) == SECRET
    assert again.pseudonym("Ada Lovelace") == ada.subject


def test_large_items_go_in_and_out_piece_by_piece(vault: Vault) -> None:
    place = Place("scans", "1", "film.raw")
    name = vault.put_stream((bytes([i]) * 700_000 for i in range(5)), place)
    assert b"".join(vault.stream(name, place)) == b"".join(bytes([i]) * 700_000 for i in range(5))
    assert max(len(piece) for piece in vault.stream(name, place)) == 1 << 20


@pytest.mark.parametrize("change", ["dataset", "version", "path", "subject"])
def test_at_another_place_it_does_not_open(vault: Vault, ada: Place, change: str) -> None:
    other = replace(ada, **{change: vault.pseudonym("Bob") if change == "subject" else "other"})
    vault.put(b"", other)  # so that the other place has a key of its own
    name = vault.put(SECRET, ada)
    with pytest.raises(IntegrityError):
        vault.get(name, other)
    assert vault.get(name, ada) == SECRET


def test_places_that_read_alike_are_not_alike(vault: Vault) -> None:
    name = vault.put(SECRET, Place("a", "1", "b/c"))
    for other in (Place("a", "1/b", "c"), Place("a", "1", 'b/c","'), Place("a", "1", "b//c")):
        with pytest.raises(IntegrityError, match="another place"):
            vault.get(name, other)


def test_tampering_is_found_wherever_it_is(vault: Vault, ada: Place) -> None:
    name = vault.put(SECRET, ada)
    path = vault.root / name[:2] / name[2:]
    whole = path.read_bytes()
    for where in range(0, len(whole), 7):
        path.write_bytes(whole[:where] + bytes([whole[where] ^ 1]) + whole[where + 1 :])
        for use in (lambda: vault.get(name, ada), lambda: vault.check(name)):
            with pytest.raises(IntegrityError, match="changed"):
                use()
    path.unlink()
    with pytest.raises(IntegrityError, match="missing"):
        vault.get(name, ada)


def test_an_older_item_under_a_newer_name_is_found(vault: Vault, ada: Place) -> None:
    """Both are genuine and of the same place: only the name tells them apart."""
    old, new = vault.put(b"old", ada), vault.put(b"new", ada)
    path = vault.root / new[:2] / new[2:]
    path.write_bytes((vault.root / old[:2] / old[2:]).read_bytes())
    with pytest.raises(IntegrityError, match="changed"):
        vault.get(new, ada)


def test_nothing_lies_in_clear(project: Project, vault: Vault, ada: Place, found: Search) -> None:
    vault.put(SECRET, ada)
    for needle in (SECRET, b"Ada", b"Lovelace", b"scan.png", ada.subject.encode()):
        assert found(project.root, needle) == [], needle
    PlainStore(project.root / "plain").put(SECRET, ada)
    assert len(found(project.root, SECRET)) == 1  # the search sees what is there


def test_a_name_in_place_of_a_pseudonym_is_refused(vault: Vault) -> None:
    for subject in ("Ada Lovelace", "A" * 32, "0" * 31, "0" * 64):
        with pytest.raises(InvalidRequest, match="pseudonym") as refusal:
            vault.put(SECRET, Place("scans", "1", "a", subject))
        assert subject not in str(refusal.value)


def test_pseudonyms_depend_on_the_vault_and_not_on_spelling(vault: Vault, tmp_path: Path, outside) -> None:
    other = Vault.init(tmp_path / "other", "file", outside)
    assert vault.pseudonym("Zoë") == vault.pseudonym("Zoe\u0308")
    assert vault.pseudonym("Zoë") != vault.pseudonym("Zoe")
    assert vault.pseudonym("Zoë") != other.pseudonym("Zoë")
    with pytest.raises(InvalidRequest, match="empty"):
        vault.pseudonym("")


@pytest.mark.skipif(os.name != "posix", reason="modes are a POSIX thing")
def test_others_on_the_machine_see_nothing(project: Project, vault: Vault, ada: Place) -> None:
    vault.put(SECRET, ada)
    for top in ("keys", "vault"):
        for path in (project.root / ".sfumato" / top).rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) in (0o600, 0o700), path


def test_no_plaintext_or_half_an_item_stays_when_the_source_breaks(vault: Vault, ada: Place) -> None:
    def source():
        yield SECRET
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        vault.put_stream(source(), ada)
    assert list(vault.names()) == []
    assert [path for path in vault.root.rglob("*") if path.is_file()] == []


def test_without_a_vault_the_way_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(VaultLocked, match="sfumato vault init"):
        Vault.of(tmp_path)


def test_check_names_and_status_need_no_key(
    project: Project, vault: Vault, ada: Place, tmp_path: Path
) -> None:
    name = vault.put(SECRET, ada)
    (tmp_path / "outside" / "master.key").unlink()
    locked = Vault.of(project.root)
    locked.check(name)
    assert list(locked.names()) == [name]
    assert locked.status().to_data() == {
        "wrapping": "file",
        "generation": 1,
        "owners": 1,
        "erased": 0,
        "items": 1,
    }
    with pytest.raises(VaultLocked, match="cannot be read"):
        locked.get(name, ada)
