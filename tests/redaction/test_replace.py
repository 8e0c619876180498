"""The cover that pastes a picture: what shows, what does not, and what a receipt says of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.core.errors import InvalidRequest
from sfumato.redaction.covers import Form, apply_yuv, suited
from sfumato.redaction.covers.replace import build
from sfumato.redaction.plan import prepare
from sfumato.redaction.settings import Settings

BOX = np.array([[20, 10, 60, 60]], np.int32)
RED = (255, 0, 0, 255)


def art(path: Path, colour: tuple[int, ...] = RED, *, size: int = 8) -> Path:
    """Write a picture whose left half is this colour and whose right half is transparent, green below."""
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[:] = (0, 255, 0, 0)
    pixels[:, : size // 2] = colour
    Image.fromarray(pixels).save(path)
    return path


def test_a_drawn_face_lies_on_a_fill() -> None:
    picture = np.full((70, 90, 3), 40, np.uint8)
    picture[10:60, 20:60] = 255
    build().apply(picture, BOX)
    assert picture[12, 22].tolist() == [40, 40, 40]
    middle = picture[36, 40].astype(int)
    assert middle[0] > 220
    assert middle[2] < 110
    assert (picture[10:60, 20:60].sum(axis=2) < 200).any()  # eyes and a mouth


def test_a_picture_is_stretched_to_the_region_and_fill_shows_through(tmp_path: Path) -> None:
    picture = np.full((70, 90, 3), 40, np.uint8)
    build(picture=art(tmp_path / "art.png")).apply(picture, BOX)
    assert picture[30, 25].tolist() == [255, 0, 0]
    assert picture[30, 55].tolist() == [40, 40, 40]
    assert picture[:, :, 1].max() == 40, "the colour under full transparency came through"


@pytest.mark.parametrize("side", [3, 17, 64, 65, 700])
def test_it_looks_the_same_at_every_size(side: int) -> None:
    picture = np.zeros((side, side), np.uint8)
    build().apply(picture, np.array([[0, 0, side, side]], np.int32))
    assert picture[side // 2, side // 2] > 150


def test_its_colours_are_right_in_video_and_in_print(tmp_path: Path) -> None:
    cover = build(picture=art(tmp_path / "art.png"))
    planes = [np.full(shape, 128, np.uint8) for shape in ((80, 80), (40, 80), (40, 80))]
    apply_yuv(cover, planes, np.array([[0, 0, 80, 80]], np.int32), subsampling=(1, 2))
    assert [int(plane[20, 10]) for plane in planes] == [81, 90, 240]
    cmyk = np.zeros((70, 90, 4), np.uint8)
    suited(cover, Form(("cyan", "magenta", "yellow", "key"))).apply(cmyk, BOX)
    assert cmyk[30, 25].tolist() == [0, 255, 255, 0]


def test_a_turned_photograph_is_pasted_upright(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20] = 255
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "art.png", exif=turned)
    picture = np.zeros((70, 90), np.uint8)
    build(picture=str(tmp_path / "art.png")).apply(picture, BOX)
    assert [int(picture[y, 40]) for y in (20, 50)] == [0, 255]


@pytest.mark.parametrize("what", ["absent.png", "words.png", "folder"])
def test_what_is_no_picture_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "words.png").write_text("no picture")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidRequest, match="picture"):
        build(picture=tmp_path / what)


def test_what_is_no_path_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"smile\.png"):
        build(picture=3)  # type: ignore[arg-type]


def test_a_receipt_tells_the_picture_by_its_hash_and_another_picture_is_another_run(tmp_path: Path) -> None:
    path = art(tmp_path / "art.png")
    settings = Settings(cover="replace", cover_options={"picture": str(path)})
    first = prepare(settings)
    assert first.secure
    assert first.settings.cover_options["picture"].startswith("sha256:")
    assert str(tmp_path) not in json.dumps(first.plan.to_data())
    same = prepare(settings).digest("image")
    art(path, (0, 0, 255, 255))
    assert first.digest("image") == same
    assert prepare(settings).digest("image") != same
