"""What comes back is what was covered, bit for bit, and nothing else; the outputs know nothing of it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfumato.core.errors import InvalidRequest
from sfumato.core.project import Project
from sfumato.core.verify import verify
from sfumato.redaction.sealed.sealer import Sealer
from sfumato.redaction.sealed.sidecar import Sealed
from sfumato.redaction.settings import Settings
from sfumato.redaction.zones import Zone
from sfumato.vision.toy import MAGENTA


def masks(sealed: Sealed, chosen: list[int], shape: tuple[int, int]) -> dict[int, Any]:
    """Return where the chosen tracks alone hide something, frame by frame."""
    found: dict[int, Any] = {}
    for pieces in sealed.pieces(chosen):
        for piece in pieces:
            mask = found.setdefault(piece.index, np.zeros(shape, bool))
            for x1, y1, x2, y2 in piece.rects:
                assert not mask[y1:y2, x1:x2].any()
                mask[y1:y2, x1:x2] = True
    return found


@pytest.mark.parametrize("chosen", [[], [0], [1]])
def test_a_video_comes_back_bit_for_bit(place, filmed, planes_of, chosen: list[int]) -> None:
    source, safe = filmed
    target = place.root / "open.mkv"
    receipt = place.restore(safe, target, tracks=tuple(chosen), exact=True)
    sealed = place.room().open(place.sealed[0])
    assert sorted(sealed.tracks) == [0, 1]
    frames, covered, back = planes_of(source), planes_of(safe), planes_of(target)
    assert len(frames) == len(covered) == len(back) == 30
    where = masks(sealed, chosen or [0, 1], frames[0][0].shape)
    assert len(where) >= 25
    for index, planes in enumerate(back):
        mask = where.get(index, np.zeros(frames[0][0].shape, bool))
        for plane, original, hidden in zip(planes, frames[index], covered[index], strict=True):
            here = mask if plane.shape == mask.shape else mask[::2, ::2]
            assert (plane[here] == original[here]).all()
            assert (plane[~here] == hidden[~here]).all()
    assert receipt.body["facts"]["frames"] == len(where)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_restored_video_has_its_times_and_sound(place, filmed, times_of) -> None:
    source, safe = filmed
    place.restore(safe, place.root / "open.mp4")
    import av

    with av.open(str(place.root / "open.mp4")) as container:
        assert len(container.streams.audio) == 1
    assert times_of(place.root / "open.mp4") == times_of(safe) == times_of(source)


@pytest.mark.parametrize(
    "what",
    [
        {"pix_fmt": "yuv420p10le", "options": {"crf": "10", "preset": "ultrafast"}},
        {"pix_fmt": "yuv444p"},
        {"size": (161, 97), "pix_fmt": "yuv444p"},
    ],
)
def test_other_formats_come_back(place, clip, planes_of, what: dict[str, Any]) -> None:
    source = clip("a.mkv", frames=12, **what)
    place.redact(source, place.root / "safe.mkv")
    place.restore(place.root / "safe.mkv", place.root / "open.mkv", exact=True)
    sealed = place.room().open(place.sealed[0])
    pix_fmt = sealed.table["about"]["canvas"]["pix_fmt"]
    frames, back = planes_of(source, pix_fmt), planes_of(place.root / "open.mkv", pix_fmt)
    where = masks(sealed, list(sealed.tracks), frames[0][0].shape)
    assert where
    for index, mask in where.items():
        assert (back[index][0][mask] == frames[index][0][mask]).all()


def test_what_two_tracks_hide_needs_both(place, clip, planes_of) -> None:
    cross = lambda index: [(8 + 5 * index, 40, 18), (128 - 5 * index, 40, 18)]  # noqa: E731
    source = clip("cross.mp4", frames=25, squares=cross)
    place.redact(source, place.root / "safe.mp4", Settings(hide=("face",), every=1))
    sealed = place.room().open(place.sealed[0])
    shared = [record for record in sealed.table["records"] if len(record["tracks"]) > 1]
    assert shared, "the squares cross: their regions overlap"
    shape = planes_of(source)[0][0].shape
    alone = masks(sealed, [shared[0]["tracks"][0]], shape)
    both = masks(sealed, shared[0]["tracks"], shape)
    parted = sum(int(mask.sum()) for mask in alone.values())
    assert parted < sum(int(mask.sum()) for mask in both.values())


def test_outputs_are_the_same_with_and_without(place, filmed, tmp_path: Path) -> None:
    source, safe = filmed
    place.redact(source, tmp_path / "plain.mp4", seal=None)
    assert (tmp_path / "plain.mp4").read_bytes() == safe.read_bytes()
    assert len(place.sealed) == 1
    assert not [path for path in safe.parent.iterdir() if "sealed" in path.name]


def photo(path: Path, mode: str = "RGB", **options: Any) -> Path:
    rng = np.random.default_rng(5)
    pixels = np.stack([rng.integers(60, 120, (90, 120), np.uint8)] * 3, axis=2)
    pixels[30:60, 40:70] = MAGENTA
    pixels[40:50, 50:60, 1] = 30
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "mode"), [("a.png", "RGB"), ("b.tif", "RGB"), ("c.bmp", "RGB"), ("d.png", "RGBA")]
)
def test_a_picture_comes_back_bit_for_bit(place, tmp_path: Path, name: str, mode: str) -> None:
    source, safe = photo(tmp_path / name, mode), place.root / f"safe{Path(name).suffix}"
    place.redact(source, safe)
    place.restore(safe, place.root / "open.png", exact=True)
    with Image.open(source) as one, Image.open(place.root / "open.png") as two, Image.open(safe) as three:
        assert (np.array(one) == np.array(two)).all()
        assert (np.array(one) != np.array(three)).any()


def test_a_jpeg_comes_back_to_png_exactly_and_to_jpeg_nearly(place, tmp_path: Path) -> None:
    source, safe = photo(tmp_path / "a.jpg", quality=95), place.root / "safe.jpg"
    place.redact(source, safe)
    place.restore(safe, place.root / "open.png", exact=True)
    place.restore(safe, place.root / "open.jpg")
    with Image.open(source) as one, Image.open(place.root / "open.png") as two:
        assert (np.array(one)[30:60, 40:70] == np.array(two)[30:60, 40:70]).all()
    with pytest.raises(InvalidRequest, match="bit for bit"):
        place.restore(safe, place.root / "exact.jpg", exact=True)
    with pytest.raises(InvalidRequest, match=r"\.png"):
        place.restore(safe, place.root / "open.webp")


def test_many_pages_and_zones(place, tmp_path: Path) -> None:
    pages = [Image.open(photo(tmp_path / f"{n}.png")) for n in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    corner = Zone("corner", ((0.0, 0.0), (0.2, 0.0), (0.2, 0.2)))
    place.redact(tmp_path / "a.tif", place.root / "safe.tif", Settings(zones=(corner,)))
    sealed = place.room().open(place.sealed[0])
    assert [one["label"] for one in sealed.tracks.values()] == ["face"] * 3 + ["zone corner"]
    place.restore(place.root / "safe.tif", place.root / "open.tif")
    with Image.open(tmp_path / "a.tif") as one, Image.open(place.root / "open.tif") as two:
        for number in range(3):
            one.seek(number)
            two.seek(number)
            assert (np.array(one) == np.array(two)).all()


def test_a_soft_edge_comes_back(place, tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    place.redact(source, place.root / "safe.png", Settings(cover_options={"feather": 0.3}))
    place.restore(place.root / "safe.png", place.root / "open.png", exact=True)
    with Image.open(source) as one, Image.open(place.root / "open.png") as two:
        assert (np.array(one) == np.array(two)).all()


def test_parts_join_in_any_order(place, tmp_path: Path, planes_of) -> None:
    """Parts of a film written by different writers, last first, make the same file as one writer."""
    from functools import partial

    from sfumato.core.receipt import Output
    from sfumato.redaction.sealed.pack import pack_video

    rng = np.random.default_rng(3)
    film = [
        [rng.integers(0, 255, shape, np.uint8) for shape in ((64, 64), (32, 32), (32, 32))] for _ in range(9)
    ]
    pack = partial(pack_video, pix_fmt="yuv420p", bits=8, cell=(2, 2))
    room, output = place.room(), photo(tmp_path / "any.png")
    sealer = Sealer.new(tmp_path / "aside")
    (tmp_path / "aside").mkdir()
    for number in (2, 0, 1):
        part = sealer.part(number)
        for index in range(3 * number, 3 * number + 3):
            part.take(index, film[index], [(7, "face", (4, 4, 40, 40))], pack, (2, 2))
        part.finish()
    sealer.describe({"kind": "video", "frames": 9})
    made = room.join(sealer, Output.of(output))
    room.keep(made, Output.of(output), "f" * 64)
    sealed = room.open(room.find(output)[0])
    got = [piece for pieces in sealed.pieces([7]) for piece in pieces]
    assert [piece.index for piece in got] == list(range(9))
    assert all((piece.crops[0][0] == film[piece.index][0][4:40, 4:40]).all() for piece in got)
    assert sealed.tracks[7]["last"] == 8


def test_resume_seals_what_was_not(place, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        photo(folder / name)
    Image.new("RGB", (40, 40)).save(folder / "empty.png")
    (folder / "b.png").write_bytes(photo(tmp_path / "x.png").read_bytes())
    with Image.open(folder / "b.png") as image:
        image.rotate(90).save(folder / "b.png")
    place.redact(folder, place.root / "safe", seal=None)
    assert not place.sealed
    run = place.redact(folder, place.root / "safe", resume=True)
    assert (run.done, run.skipped, len(place.sealed)) == (2, 1, 2)
    before = [path.read_bytes() for path in place.sealed]
    run = place.redact(folder, place.root / "safe", resume=True)
    assert (run.done, run.skipped) == (0, 3)
    assert [path.read_bytes() for path in place.sealed] == before


def test_sealing_again_replaces_and_ends_the_older(place, filmed) -> None:
    source, safe = filmed
    older = place.sealed[0].read_bytes()
    place.redact(source, safe, overwrite=True)
    assert len(place.sealed) == 1
    assert place.sealed[0].read_bytes() != older
    place.restore(safe, place.root / "open.mp4")
    place.sealed[0].write_bytes(older)
    with pytest.raises(Exception, match="destroyed"):
        place.restore(safe, place.root / "again.mp4")


def test_the_ledger_says_it_before(place, filmed, monkeypatch: pytest.MonkeyPatch) -> None:
    _, safe = filmed
    rows = len(place.rows())

    def killed(*_: Any, **__: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("sfumato.redaction.sealed.restore.put_back", killed)
    with pytest.raises(KeyboardInterrupt):
        place.restore(safe, place.root / "open.mp4", tracks=(1,))
    (row,) = place.rows()[rows:]
    plan = row.body["plan"]
    assert (row.kind, plan["action"], plan["purpose"], plan["lawful_basis"]) == (
        "reserve",
        "restore",
        "court",
        "legal obligation",
    )
    assert plan["about"]["tracks"] == [1]
    assert plan["about"]["reason"] == "order 12/3"
    assert not (place.root / "open.mp4").exists()
    project = Project(place.root)
    assert row.seq in verify(project.ledger).unfinished
    project.close()


def test_the_receipt_says_that_originals_are_kept(place, filmed) -> None:
    receipt = json.loads((place.root / "safe.mp4.receipt.json").read_text())
    assert receipt["facts"]["sealed"] == 1
    assert receipt["plan"]["parameters"]["sealed"] is True
    assert any("encrypted" in limit for limit in receipt["guarantee"]["limits"])


def test_a_run_stopped_between_the_two_names_goes_on(place, clip, monkeypatch) -> None:
    """The sealed file has its name and the output has not yet: done again, there is one of each."""
    from sfumato.redaction.sealed.room import Room

    source, safe, keep = clip("a.mp4", frames=8), place.root / "safe.mp4", Room.keep

    def stopped(room: Room, *what: Any) -> None:
        keep(room, *what)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Room, "keep", stopped)
        with pytest.raises(KeyboardInterrupt):
            place.redact(source, safe)
    assert not safe.exists()
    place.redact(source, safe, resume=True)
    assert len(place.sealed) == 1
    place.restore(safe, place.root / "open.mkv")
    left = {one.name for one in place.sealed[0].parent.iterdir()}
    assert left == {place.sealed[0].name, ".lock"}


def test_a_video_of_many_chunks_comes_back(place, clip, planes_of) -> None:
    there = lambda index: [(20, 20, 18)] if 250 < index < 450 else []  # noqa: E731
    options = {"crf": "12", "preset": "ultrafast", "g": "50", "keyint_min": "50"}
    source = clip("long.mp4", frames=640, squares=there, options=options)
    place.redact(source, place.root / "safe.mp4")
    sealed = place.room().open(place.sealed[0])
    assert len({record["part"] for record in sealed.table["records"]}) == 2
    place.restore(place.root / "safe.mp4", place.root / "open.mkv", exact=True)
    frames, back = planes_of(source), planes_of(place.root / "open.mkv")
    where = masks(sealed, list(sealed.tracks), frames[0][0].shape)
    assert set(range(251, 450)) <= set(where)
    for index, mask in where.items():
        assert (back[index][0][mask] == frames[index][0][mask]).all()
