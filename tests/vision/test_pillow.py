"""Pictures that break off are refused, whatever another package told Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from sfumato.vision.pillow import whole_pictures


@pytest.fixture
def cut() -> bytes:
    picture = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(picture, "BMP")
    return picture.getvalue()[:-900]


def test_a_cut_picture_is_refused_inside_and_the_switch_is_put_back(
    cut: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    Image.open(io.BytesIO(cut)).load()  # the control: it is read as if it were whole
    with whole_pictures(), pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(cut)).load()
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_who_ends_first_does_not_switch_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    one, two = whole_pictures(), whole_pictures()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    two.__exit__(None, None, None)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_an_error_inside_puts_it_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ZeroDivisionError), whole_pictures():
        raise ZeroDivisionError
    assert ImageFile.LOAD_TRUNCATED_IMAGES
