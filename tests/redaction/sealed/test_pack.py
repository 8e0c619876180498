"""Parcels and packing: nothing is lost, and no pixel belongs to two sets of tracks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.redaction.sealed.areas import parcels
from sfumato.redaction.sealed.pack import Piece, crop, pack_plain, pack_video, padded, unpack

SIDE = 12


@st.composite
def regions(draw: st.DrawFn) -> list[tuple[int, tuple[int, int, int, int]]]:
    found = []
    for _ in range(draw(st.integers(0, 7))):
        x, y = draw(st.integers(0, SIDE - 1)), draw(st.integers(0, SIDE - 1))
        width, height = draw(st.integers(1, SIDE - x)), draw(st.integers(1, SIDE - y))
        found.append((draw(st.integers(0, 4)), (x, y, x + width, y + height)))
    return found


def painted(found: list[tuple[int, tuple[int, int, int, int]]]) -> np.ndarray:
    picture = np.full((SIDE, SIDE), 0, object)
    for number, (x1, y1, x2, y2) in found:
        picture[y1:y2, x1:x2] |= 1 << number
    return picture


@settings(max_examples=150, deadline=None)
@given(regions())
def test_parcels_hold_each_pixel_once_under_all_its_tracks(found) -> None:
    wanted, got = painted(found), np.full((SIDE, SIDE), 0, object)
    for owners, rects in parcels(found).items():
        bits = sum(1 << number for number in owners)
        for x1, y1, x2, y2 in dict.fromkeys(rects):
            assert x1 < x2
            assert y1 < y2
            assert ((got[y1:y2, x1:x2] == 0) | (got[y1:y2, x1:x2] == bits)).all()
            got[y1:y2, x1:x2] = bits
    assert (got == wanted).all()


@pytest.mark.parametrize(
    ("dtype", "channels"),
    [("u1", (3,)), ("u2", ()), ("u1", (4,)), ("u4", ()), ("f4", ()), ("i4", ()), ("u1", ())],
)
def test_pictures_come_back_bit_for_bit(dtype: str, channels: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    rects = ((2, 3, 9, 11), (0, 0, 1, 1))
    crops = []
    for x1, y1, x2, y2 in rects:
        raw = rng.integers(0, 255, (y2 - y1, x2 - x1, *channels, np.dtype(dtype).itemsize), np.uint8)
        pixels = np.ascontiguousarray(raw).view(dtype)[..., 0]
        crops.append([np.nan_to_num(pixels) if dtype == "f4" else pixels])
    (back,) = unpack(pack_plain([Piece(3, rects, tuple(crops))]))
    assert (back.index, back.rects) == (3, rects)
    for one, two in zip(crops, back.crops, strict=True):
        assert one[0].dtype == two[0].dtype
        assert (one[0] == two[0]).all()


@pytest.mark.parametrize(
    ("pix_fmt", "bits", "cell"),
    [
        ("yuv420p", 8, (2, 2)),
        ("yuv422p", 8, (2, 1)),
        ("yuv444p", 8, (1, 1)),
        ("yuv420p10le", 10, (2, 2)),
        ("yuv444p10le", 10, (1, 1)),
        ("yuv422p10le", 10, (2, 1)),
    ],
)
def test_video_comes_back_bit_for_bit(pix_fmt: str, bits: int, cell: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    dtype = np.uint16 if bits > 8 else np.uint8
    width, height = 70, 50
    shapes = [(height, width)] + [(-(-height // cell[1]), -(-width // cell[0]))] * 2
    pieces = []
    for index in (3, 4, 9, 10):  # with a gap, and noise in all planes
        planes = [rng.integers(0, 1 << bits, shape, dtype) for shape in shapes]
        rects = ((2 * index, 4, 2 * index + 20, 30), (40, 34, 70, 50))
        crops = tuple([part.copy() for part in crop(planes, rect, cell)] for rect in rects)
        pieces.append(Piece(index, rects, crops))
    back = list(unpack(pack_video(pieces, pix_fmt, bits, cell)))
    assert [one.index for one in back] == [3, 4, 9, 10]
    for one, two in zip(pieces, back, strict=True):
        assert one.rects == two.rects
        for left, right in zip(one.crops, two.crops, strict=True):
            assert all((a == b).all() for a, b in zip(left, right, strict=True))


def test_padding_tells_little() -> None:
    sizes = {len(padded(bytes(size))) for size in range(20_000, 40_000, 7)}
    assert len(sizes) < 40
    assert all(size <= len(padded(bytes(size))) <= size * 1.125 for size in range(1024, 100_000, 997))
