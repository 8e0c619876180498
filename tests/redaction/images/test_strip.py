from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sfumato.core.errors import MediaError
from sfumato.redaction.images.strip import stripped


def test_pixels_stay_and_metadata_goes(tmp_path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)
    exif = Image.Exif()
    exif[0x010E] = "Ann at home"
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path, exif=exif)
    assert b"Ann" in path.read_bytes()
    data, width, height = stripped(path)
    assert (width, height) == (30, 20)
    assert b"Ann" not in data
    assert (np.asarray(Image.open(io.BytesIO(data))) == pixels).all()
    assert stripped(path)[0] == data


def test_a_turned_picture_is_upright(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    data, width, height = stripped(path)
    assert (width, height) == Image.open(io.BytesIO(data)).size == (20, 30)


def test_garbage_is_a_media_error(tmp_path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8\xffgarbage")
    with pytest.raises(MediaError):
        stripped(path)
