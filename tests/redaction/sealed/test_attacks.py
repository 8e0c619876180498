"""Attacks on sealed originals: whoever lacks the key, the right or a whole file gets nothing."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfumato.core.errors import (
    Erased,
    IntegrityError,
    InvalidRequest,
    LedgerTampered,
    MissingExtra,
    PolicyRefused,
    VaultLocked,
)
from sfumato.core.identity import Actor
from sfumato.core.project import Project
from sfumato.core.verify import verify
from sfumato.data import sealed_keys
from sfumato.data.erasure import erase
from sfumato.data.rotation import rotate
from sfumato.redaction.sealed import restore as restoring
from sfumato.redaction.sealed.restore import Order, end
from sfumato.redaction.sealed.room import Room, Wish
from sfumato.redaction.sealed.sidecar import open_sealed, read_head
from sfumato.redaction.settings import Settings

SUBJECT = "Ada Lovelace"


def ended(place, safe: Path, *tracks: int):
    project = Project(place.root)
    try:
        return end(place.room(), project.gate(), safe, tracks)
    finally:
        project.close()


def refused(place, safe: Path, error: type[Exception], match: str, **order) -> None:
    target = place.root / "never.mkv"
    with pytest.raises(error, match=match or None):
        place.restore(safe, target, **order)
    assert not target.exists()
    assert not [path for path in place.root.glob(".sfumato-*") if path.suffix == ".mkv"]


# The file


def test_records_cannot_change_places(place, filmed) -> None:
    _, safe = filmed
    path = place.sealed[0]
    sealed = place.room().open(path)
    one, two, *_ = sealed.table["records"]
    data = bytearray(path.read_bytes())
    size = min(one["size"], two["size"])
    first, second = data[one["at"] :][:size], data[two["at"] :][:size]
    data[one["at"] : one["at"] + size], data[two["at"] : two["at"] + size] = second, first
    path.write_bytes(data)
    refused(place, safe, IntegrityError, "record 0 of part 0")
    refused(
        place, safe, IntegrityError, "record", tracks=(1,)
    )  # a record of the other track is looked at too


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_bit_can_be_changed(place, filmed, share: float, bit: int) -> None:
    path, room = place.sealed[0], place.room()
    kept = path.read_bytes()
    changed = bytearray(kept)
    changed[int(share * len(kept))] ^= 1 << bit
    try:
        path.write_bytes(changed)
        with pytest.raises(IntegrityError):
            room.open(path).check()
        path.write_bytes(kept[: int(share * len(kept))])
        with pytest.raises(IntegrityError):
            room.open(path).check()
    finally:
        path.write_bytes(kept)
    room.open(path).check()


def test_a_torn_or_longer_file_is_found(place, filmed) -> None:
    _, safe = filmed
    path = place.sealed[0]
    kept = path.read_bytes()
    for data in (kept[:-1], kept[:-8], kept[: len(kept) // 2], b"", kept + b"\0", kept[9:]):
        path.write_bytes(data)
        refused(place, safe, IntegrityError, "")


def test_another_projects_file_does_not_open(place, other, filmed, monkeypatch) -> None:
    source, safe = filmed
    monkeypatch.chdir(other.root)
    shutil.copy(source, other.root / "hall.mp4")
    other.redact(other.root / "hall.mp4", other.root / "safe.mp4")
    assert (other.root / "safe.mp4").read_bytes() == safe.read_bytes()
    shutil.copy(other.sealed[0], place.sealed[0])
    refused(place, safe, IntegrityError, "another project")
    # Nor does the table open under the other's lock.
    lock = place.room().vault.keys.newest("0" * 64)
    with pytest.raises(IntegrityError, match="another key"):
        open_sealed(other.sealed[0], sealed_keys.Lock((("0" * 64, lock[0]),), lock[1]))


def test_another_outputs_file_does_not_open(place, filmed, clip: Callable[..., Path]) -> None:
    _, safe = filmed
    (mine,) = place.sealed
    place.redact(clip("other.mp4", frames=14), place.root / "safe2.mp4")
    (theirs,) = [path for path in place.sealed if path != mine]
    shutil.copy(theirs, mine)
    refused(place, safe, IntegrityError, "another output")


def test_a_changed_output_is_refused(place, filmed) -> None:
    _, safe = filmed
    with safe.open("ab") as file:
        file.write(b"x")
    refused(place, safe, IntegrityError, "changed since")


# The way through the gate


def test_without_the_right_nothing_is_restored(place, filmed) -> None:
    _, safe = filmed
    for role in ("analyst", "auditor", None):
        refused(place, safe, PolicyRefused, "restore", actor=Actor("uid:7", role))
    assert [row.kind for row in place.rows()][-3:] == ["refusal"] * 3
    place.restore(safe, place.root / "open.mkv", actor=Actor("uid:7", "curator"))


def test_without_a_purpose_nothing_is_restored(place, filmed) -> None:
    _, safe = filmed
    refused(place, safe, PolicyRefused, "declared purposes only", purpose="not declared")
    refused(place, safe, PolicyRefused, "does not allow the action 'restore'", purpose="teaching")
    text = (place.root / "sfumato.toml").read_text()
    (place.root / "sfumato.toml").write_text(text.partition("[purposes.teaching]")[0])
    refused(place, safe, PolicyRefused, r"\[purposes.NAME\] actions")
    for reason in ("", "  ", "two\nlines", "x" * 400):
        with pytest.raises(InvalidRequest, match="reason"):
            Order(reason=reason)


def test_a_changed_ledger_stops_a_restore(place, filmed) -> None:
    _, safe = filmed
    book = sqlite3.connect(place.root / ".sfumato" / "ledger.db")
    (table,) = [
        name
        for (name,) in book.execute("SELECT name FROM sqlite_master WHERE type='table'")
        if "body" in {row[1] for row in book.execute(f"PRAGMA table_info({name})")}
    ]
    for (trigger,) in book.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall():
        book.execute(f"DROP TRIGGER {trigger}")
    book.execute(f"UPDATE {table} SET body = replace(body, 'teaching', 'preachin') WHERE kind = 'reserve'")
    book.commit()
    book.close()
    refused(place, safe, LedgerTampered, "")


def test_a_restore_that_says_nothing_does_not_verify(place, filmed) -> None:
    _, safe = filmed
    place.restore(safe, place.root / "open.mkv")
    project = Project(place.root)
    verify(project.ledger)
    (row,) = [one for one in project.ledger.entries() if one.body.get("plan", {}).get("action") == "restore"]
    assert row.kind == "reserve"
    body = {**row.body, "at": project.ledger.time()}
    body["plan"] = {**body["plan"], "about": {**body["plan"]["about"], "reason": " "}}
    with project.ledger.book.writing():
        project.ledger.book.append("reserve", "", None, body)
    project.ledger.anchor = None
    with pytest.raises(LedgerTampered, match="names an output, tracks and a reason"):
        verify(project.ledger)
    project.close()


def test_a_person_who_does_not_agree_is_not_restored(place, clip: Callable[..., Path]) -> None:
    with (place.root / "sfumato.toml").open("a") as file:
        file.write('[purposes.study]\nlawful_basis = "consent"\nactions = ["restore"]\n')
    place.redact(clip("a.mp4", frames=8), place.root / "safe.mp4", seal=Wish(subjects=(SUBJECT,)))
    safe = place.root / "safe.mp4"
    refused(place, safe, PolicyRefused, "does not agree", purpose="study")
    project = Project(place.root)
    project.consent.give(place.room().vault.pseudonym(SUBJECT), "study", source="form 7")
    project.close()
    place.restore(safe, place.root / "open.mkv", purpose="study")


# The end


def test_destroyed_is_for_ever(place, filmed) -> None:
    _, safe = filmed
    path = place.sealed[0]
    kept = path.read_bytes()
    receipt = ended(place, safe)
    assert receipt.body["plan"]["action"] == "erase"
    assert not place.sealed
    path.write_bytes(kept)
    refused(place, safe, Erased, "destroyed")


def test_one_track_ends_and_no_older_copy_brings_it_back(place, filmed) -> None:
    _, safe = filmed
    path = place.sealed[0]
    older = path.read_bytes()
    ended(place, safe, 0)
    assert path.stat().st_size < len(older)
    refused(place, safe, InvalidRequest, "no track 0", tracks=(0,))
    place.restore(safe, place.root / "open.mkv", tracks=(1,))
    newer = path.read_bytes()
    path.write_bytes(older)
    refused(place, safe, IntegrityError, "older copy")
    path.write_bytes(newer)
    ended(place, safe, 1)
    refused(place, safe, IntegrityError, "")


@pytest.mark.parametrize("moment", ["without", "retire"])
def test_the_end_of_a_track_can_be_done_again(place, filmed, monkeypatch, moment: str) -> None:
    _, safe = filmed
    older = place.sealed[0].read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if moment == "without":
            patch.setattr("sfumato.redaction.sealed.sidecar.Sealed.without", killed)
        else:
            real, calls = sealed_keys.retire_older, []
            patch.setattr(
                "sfumato.redaction.sealed.room.retire_older",
                lambda *what: (calls.append(1), real(*what) if len(calls) < 3 else killed()),
            )
        with pytest.raises(KeyboardInterrupt):
            ended(place, safe, 0)
    if moment == "without":
        ended(place, safe, 0)
    else:
        assert 0 not in place.room().open(place.sealed[0]).tracks  # opening finishes it
    assert {one.name for one in place.sealed[0].parent.iterdir()} == {place.sealed[0].name, ".lock"}
    place.sealed[0].write_bytes(older)
    refused(place, safe, IntegrityError, "older copy")


def test_erasing_a_person_ends_what_was_sealed_about_them(place, clip: Callable[..., Path]) -> None:
    for name, people in (("ada", (SUBJECT,)), ("both", (SUBJECT, "Bob")), ("bob", ("Bob",))):
        frames = {"ada": 8, "both": 9, "bob": 10}[name]
        place.redact(
            clip(f"{name}.mp4", frames=frames), place.root / f"safe-{name}.mp4", seal=Wish(subjects=people)
        )
    kept = {path: path.read_bytes() for path in place.sealed}
    place.restore(place.root / "safe-ada.mp4", place.root / "before.mkv")
    project = Project(place.root)
    vault = place.room().vault
    erase(vault, vault.pseudonym(SUBJECT), project.gate())
    project.close()
    for path, data in kept.items():
        path.write_bytes(data)
    for name in ("ada", "both"):
        refused(place, place.root / f"safe-{name}.mp4", Erased, "erased")
    place.restore(place.root / "safe-bob.mp4", place.root / "open.mkv")
    # Nothing about her is sealed again, and that is said before a file is touched.
    with pytest.raises(Erased):
        place.redact(clip("new.mp4", frames=7), place.root / "new.mp4", seal=Wish(subjects=(SUBJECT,)))
    assert not (place.root / "new.mp4").exists()


def test_an_erased_persons_file_does_not_open_to_whoever_has_all_other_keys(place, clip) -> None:
    """The control: it is her key that is missing, not a rule of this program that stops it."""
    place.redact(clip("a.mp4", frames=8), place.root / "safe.mp4", seal=Wish(subjects=(SUBJECT,)))
    path, keys = place.sealed[0], place.room().vault.keys
    seal, owners = read_head(path)
    before = [(owner, number, keys.key(owner, number)) for owner, number in owners]
    open_sealed(path, sealed_keys._joined(seal, before))
    for guess in (before[:1], [before[0], (*before[1][:2], bytes(32))]):
        with pytest.raises(IntegrityError):
            open_sealed(path, sealed_keys._joined(seal, guess))


def test_new_keys_of_the_vault_open_it_too(place, filmed) -> None:
    _, safe = filmed
    keys = place.room().vault.keys
    rotate(keys, access=keys.access, data_keys=True)
    place.restore(safe, place.root / "open.mkv")
    ended(place, safe, 0)
    rotate(place.room().vault.keys, access=keys.access, data_keys=True)
    place.restore(safe, place.root / "open2.mkv", tracks=(1,))


# What is said, and to whom


def test_no_pixel_key_or_name_lies_anywhere(place, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    from PIL import Image

    pixels = rng.integers(0, 90, (64, 64, 3), np.uint8)
    pixels[20:40, 20:40] = (255, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "ada-lovelace.bmp")
    run = place.redact(tmp_path / "ada-lovelace.bmp", place.root / "safe.bmp", seal=Wish(subjects=(SUBJECT,)))
    sealed = place.room().open(place.sealed[0])
    keys = [bytes.fromhex(track["key"]) for track in sealed.tracks.values()] + [sealed.lock.key]
    (piece,) = [piece for pieces in sealed.pieces([0]) for piece in pieces]
    crop = piece.crops[0][0]
    inside = crop[len(crop) // 2]  # corners of a region are not covered
    row, swapped = inside.tobytes()[:30], inside[:, ::-1].tobytes()[:30]  # as the file has its colours
    pseudonym = place.room().vault.pseudonym(SUBJECT)
    secrets = [row, swapped, b"lovelace", b"Lovelace", pseudonym.encode(), b"magenta", *keys]
    secrets += [key.hex().encode() for key in keys]
    place.restore(place.root / "safe.bmp", tmp_path / "outside" / "open.png")
    seen = 0
    for path in place.root.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            seen += 1
            assert not [secret for secret in secrets if secret in data], path
    assert seen > 8
    assert swapped in (tmp_path / "ada-lovelace.bmp").read_bytes()  # the search finds pixels where they are
    assert run.receipt is not None
    assert "sealed" in run.receipt.body["facts"]
    assert all((path.stat().st_mode & 0o077) == 0 for path in place.sealed)


def test_it_needs_a_vault_and_says_how_to_make_one(tmp_path: Path, monkeypatch, clip) -> None:
    from sfumato.redaction.run import Options, run_files

    source = clip("a.mp4", frames=6)
    monkeypatch.chdir(tmp_path)
    for start in (False, True):
        if start:
            Project.init(tmp_path / "bare", forget=True).close()
            monkeypatch.chdir(tmp_path / "bare")
        with pytest.raises(InvalidRequest, match="sfumato vault init"):
            run_files(source, Path("safe.mp4"), Settings(), options=Options(seal=Wish()))
        assert not Path("safe.mp4").exists()


def test_a_policy_can_demand_it(place, clip) -> None:
    text = (place.root / "sfumato.toml").read_text().replace("[redact]", "[redact]\nseal = true")
    (place.root / "sfumato.toml").write_text(text)
    place.redact(clip("a.mp4", frames=8), place.root / "safe.mp4", seal=None)
    assert len(place.sealed) == 1


def test_a_locked_vault_stops_it_before_anything_is_written(place, clip) -> None:
    (place.outside / "master.key").unlink()
    with pytest.raises(VaultLocked):
        place.redact(clip("a.mp4", frames=8), place.root / "safe.mp4")
    assert not (place.root / "safe.mp4").exists()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.kdf.hkdf", None)
    with pytest.raises(MissingExtra, match=r"sfumato\[vault\]"):
        sealed_keys.derive([bytes(32)], "x")


def test_a_quarantined_output_leaves_no_sealed_file(place, clip, monkeypatch) -> None:
    from sfumato.core.errors import CheckFailed
    from sfumato.redaction.check.guard import Guard

    def fail(*_: object) -> None:
        raise CheckFailed("it shows")

    monkeypatch.setattr(Guard, "inspect", fail)
    with pytest.raises(CheckFailed):
        place.redact(clip("a.mp4", frames=8), place.root / "safe.mp4", check=True)
    assert not [one for one in (place.root / ".sfumato" / "sealed").iterdir() if one.name != ".lock"]


def test_two_sources_of_one_output_are_not_guessed(place, filmed) -> None:
    _, safe = filmed
    path = place.sealed[0]
    shutil.copy(path, path.with_name(path.name.replace(path.name[-23:-7], "0" * 16)))
    refused(place, safe, InvalidRequest, "2 sources")
    assert restoring.plan_to_end("", ()).action == "erase"


def test_a_room_elsewhere(place, clip, tmp_path: Path) -> None:
    away = tmp_path / "evidence"
    place.redact(clip("a.mp4", frames=8), place.root / "safe.mp4", seal=Wish(folder=away))
    assert not place.sealed
    assert len(list(away.glob("*.sealed"))) == 1
    room = Room.of(Project(place.root), Wish(folder=away))
    room.open(room.find(place.root / "safe.mp4")[0]).check()


def test_two_ends_at_once_bring_nothing_back(place, filmed) -> None:
    """Each would write a file that still holds the other's track, if they did not wait."""
    from concurrent.futures import ThreadPoolExecutor

    path = place.sealed[0]
    rooms = [place.room(), place.room()]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(room.end_tracks, path, [number]) for number, room in enumerate(rooms)]:
            done.result()
    assert not path.exists()
