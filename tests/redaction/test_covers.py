"""What each cover does by itself: colours, softness, settings."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato.core.errors import InvalidRequest
from sfumato.redaction.covers import Form, apply_yuv, suited, widened
from sfumato.redaction.covers import blur as blur_module
from sfumato.redaction.covers import fill as fill_module
from sfumato.redaction.covers import pixelate as pixelate_module
from sfumato.redaction.covers import solid as solid_module

BOX = np.array([[20, 20, 60, 50]], np.int32)
INSIDE = (slice(20, 50), slice(20, 60))


def ramp(width: int = 90, height: int = 70) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 2, y * 3, np.full_like(x, 90)], axis=2).astype(np.uint8)


def test_fill_continues_a_flat_picture_exactly() -> None:
    picture = np.full((70, 90, 3), (12, 200, 77), np.uint8)
    expected = picture.copy()
    picture[INSIDE] = 255
    fill_module.build().apply(picture, BOX)
    assert np.array_equal(picture, expected)


def test_fill_follows_a_slope() -> None:
    picture, before = ramp(), ramp()
    fill_module.build().apply(picture, BOX)
    error = np.abs(picture[INSIDE].astype(int) - before[INSIDE])
    assert error.max() < 40
    assert picture[35, 22, 0] < picture[35, 40, 0] < picture[35, 57, 0]


def test_fill_is_smooth_where_its_surroundings_are_not() -> None:
    """No streaks: a checkered border dies out within a few pixels."""
    picture = ((np.indices((200, 200)).sum(axis=0) // 4 % 2) * 255).astype(np.uint8)
    fill_module.build().apply(picture, np.array([[50, 50, 150, 150]], np.int32))
    middle = picture[65:135, 65:135].astype(int)
    assert np.abs(np.diff(middle, axis=0)).max() <= 3
    assert np.abs(np.diff(middle, axis=1)).max() <= 3
    assert abs(middle.mean() - 127.5) < 12


@pytest.mark.parametrize("size", [90, 97, 400])
def test_fill_stays_between_the_values_around_it(size: int) -> None:
    rng = np.random.default_rng(2)
    picture = rng.integers(100, 140, (size, size)).astype(np.uint16)
    low = size // 5
    fill_module.build().apply(picture, np.array([[low, low, size - low, size - low]], np.int32))
    assert picture.min() >= 100
    assert picture.max() < 140


def test_fill_has_no_seam_between_regions_that_overlap() -> None:
    picture = np.full((100, 100), 50, np.uint8)
    picture[:, 50:] = 200
    fill_module.build().apply(picture, np.array([[20, 20, 60, 60], [40, 40, 80, 80]], np.int32))
    assert np.abs(np.diff(picture[45:55, 30:70].astype(int), axis=1)).max() <= 12


def test_fill_takes_what_outside_there_is() -> None:
    picture = np.full((20, 20), 9, np.uint8)
    picture[3, 19] = 250
    fill_module.build().apply(picture, np.array([[0, 0, 19, 20]], np.int32))
    assert picture[:, :19].min() >= 9
    assert picture[3, 18] > picture[18, 18]


def test_fill_reads_no_pixel_that_is_not_a_number() -> None:
    picture = np.full((40, 40), 2.5, np.float32)
    picture[5:10, 5:35] = np.nan
    fill_module.build().apply(picture, np.array([[10, 10, 30, 30]], np.int32))
    assert np.allclose(picture[10:30, 10:30], 2.5)


def test_a_feather_changes_pixels_near_the_region_and_fades() -> None:
    before, soft = ramp(), ramp()
    fill_module.build(feather=0.2).apply(soft, BOX)
    changed = np.argwhere((before != soft).any(axis=2))
    assert changed.min(axis=0).tolist() >= [14, 14]
    assert changed.max(axis=0).tolist() <= [55, 65]
    change = np.abs(soft.astype(int) - before)[49:57, 40, 1]
    assert change[1] > 0
    assert change[-1] == 0


def test_a_feather_tells_nothing_of_the_inside_either() -> None:
    one, two = ramp(), ramp()
    two[INSIDE] = np.random.default_rng(0).integers(0, 256, two[INSIDE].shape)
    for picture in (one, two):
        fill_module.build(feather=0.3).apply(
            picture, np.array([[20, 20, 60, 50], [66, 20, 70, 30]], np.int32)
        )
    two[20:30, 66:70] = one[20:30, 66:70]
    assert np.array_equal(one, two)


def test_solid_paints_its_colour_in_every_form() -> None:
    red = solid_module.build(colour=(255, 0, 0))
    rgba = np.full((70, 90, 4), 7, np.uint16)
    red.apply(rgba, BOX)
    assert rgba[30, 30].tolist() == [65535, 0, 0, 65535]
    cmyk = np.full((70, 90, 4), 7, np.uint8)
    suited(red, Form(("cyan", "magenta", "yellow", "key"))).apply(cmyk, BOX)
    assert cmyk[30, 30].tolist() == [0, 255, 255, 0]
    grey = np.zeros((70, 90), np.float32)
    solid_module.build(colour=(255, 255, 255)).apply(grey, BOX)
    assert grey[30, 30] == pytest.approx(1)


@pytest.mark.parametrize(
    ("bits", "full", "expected"),
    [
        (8, False, [16, 128, 128]),
        (10, False, [64, 512, 512]),
        (8, True, [0, 128, 128]),
        (10, True, [0, 512, 512]),
    ],
)
def test_solid_black_is_black_in_video(bits: int, full: bool, expected: list[int]) -> None:
    planes = [np.full(shape, 99, np.uint16) for shape in ((40, 60), (20, 30), (20, 30))]
    box = np.array([[4, 4, 20, 20]], np.int32)
    apply_yuv(solid_module.build(), planes, box, subsampling=(2, 2), bits=bits, full_range=full)
    assert [int(plane[5, 5]) for plane in planes] == expected


def test_solid_red_in_video_is_the_red_of_bt601() -> None:
    planes = [np.zeros((8, 8), np.uint8) for _ in range(3)]
    box = np.array([[0, 0, 8, 8]], np.int32)
    apply_yuv(solid_module.build(colour=(255, 0, 0)), planes, box, subsampling=(1, 1))
    assert [int(plane[0, 0]) for plane in planes] == [81, 90, 240]


def test_a_frame_without_outside_is_filled_with_grey() -> None:
    planes = [np.full((8, 8), 3, np.uint16) for _ in range(4)]
    box = np.array([[0, 0, 8, 8]], np.int32)
    apply_yuv(fill_module.build(), planes, box, subsampling=(1, 1), bits=10)
    assert [int(plane[0, 0]) for plane in planes] == [502, 512, 512, 1023]


def test_pixelate_has_as_many_blocks_at_every_size() -> None:
    for side in (32, 64, 400):
        picture = np.random.default_rng(0).integers(0, 256, (side, side)).astype(np.uint8)
        pixelate_module.build(blocks=8).apply(picture, np.array([[0, 0, side, side]], np.int32))
        assert len(np.unique(np.diff(picture.astype(int), axis=1).any(axis=0).nonzero()[0])) == 7


def test_blur_looks_the_same_at_every_size() -> None:
    """A step edge keeps the same profile, relative to the region."""
    profiles = []
    for side in (64, 512):
        picture = np.zeros((side, side), np.uint8)
        picture[:, side // 2 :] = 255
        blur_module.build().apply(picture, np.array([[0, 0, side, side]], np.int32))
        profiles.append(picture[side // 2, [side * n // 8 for n in range(1, 8)]].astype(int))
    assert np.abs(profiles[0] - profiles[1]).max() <= 6


@pytest.mark.parametrize(
    ("module", "wrong"),
    [
        (fill_module, {"feather": 0.6}),
        (fill_module, {"feather": float("nan")}),
        (solid_module, {"colour": (0, 0, 256)}),
        (solid_module, {"colour": (0, 0)}),
        (blur_module, {"strength": 0}),
        (pixelate_module, {"blocks": 0}),
        (pixelate_module, {"blocks": 2.5}),
    ],
)
def test_settings_out_of_range_are_refused(module: object, wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        module.build(**wrong)  # type: ignore[attr-defined]


REGIONS = np.array([[8, 20, 44, 50], [12, 50, 40, 58], [72, 4, 87, 20]], np.int32)


@pytest.mark.parametrize(("cell", "bits"), [((2, 2), 8), ((2, 1), 10), ((1, 1), 8), ((4, 1), 10)])
@pytest.mark.parametrize("feather", [0.0, 0.2])
def test_planes_filled_at_once_are_nearly_those_filled_one_by_one(
    cell: tuple[int, int], bits: int, feather: float
) -> None:
    y, x = np.mgrid[0:71, 0:91]
    small = (slice(None, None, cell[1]), slice(None, None, cell[0]))
    scale = 2 ** (bits - 8)
    source = [
        (one * scale).astype(np.uint16 if bits > 8 else np.uint8)
        for one in (40 + x + y, (30 + 2 * y)[small], (200 - x)[small], 255 - x)
    ]
    done = [plane.copy() for plane in source]
    cover = fill_module.build(feather=feather)
    apply_yuv(cover, done, REGIONS, subsampling=cell, bits=bits)
    chroma = REGIONS // np.array([*cell, *cell]) + (REGIONS % np.array([*cell, *cell]) > 0) * [0, 0, 1, 1]
    for index, (one, plane) in enumerate(zip(done, source, strict=True)):
        alone = plane.copy()
        cover.apply(alone, chroma.astype(np.int32) if index in (1, 2) else REGIONS)
        # Luma is read as the mean of each cell, and one cell further away.
        most = 1 if index in (1, 2) or cell == (1, 1) else 12 * max(cell) * scale
        assert np.abs(one.astype(int) - alone).max() <= most
        assert (one != plane).any()


@pytest.mark.parametrize("cell", [(2, 2), (2, 1), (1, 1)])
@pytest.mark.parametrize("feather", [0.0, 0.3])
def test_planes_filled_at_once_tell_nothing_of_the_inside(cell: tuple[int, int], feather: float) -> None:
    draw = np.random.default_rng(1)
    sides = ((71, 91), (-(-71 // cell[1]), -(-91 // cell[0])))
    shapes = (sides[0], sides[1], sides[1], sides[0])
    one = [draw.integers(0, 256, shape).astype(np.uint8) for shape in shapes]
    two = [plane.copy() for plane in one]
    # Whole cells, to the border where the last one is cut.
    for x1, y1, x2, y2 in widened(np.array([*REGIONS, [60, 60, 91, 71]], np.int32), cell, (91, 71)):
        for index, plane in enumerate(two):
            wide, high = cell if index in (1, 2) else (1, 1)
            part = plane[y1 // high : -(-y2 // high), x1 // wide : -(-x2 // wide)]
            part[...] = draw.integers(0, 256, part.shape)
    regions = np.array([*REGIONS, [60, 60, 91, 71]], np.int32)
    for planes in (one, two):
        apply_yuv(fill_module.build(feather=feather), planes, regions, subsampling=cell)
    assert all(np.array_equal(first, second) for first, second in zip(one, two, strict=True))


def test_fills_group_what_hangs_together_and_nothing_else() -> None:
    # Bands of two heads that come in turns, a third that touches the second by a chain, one apart.
    boxes = np.array(
        [[0, 0, 10, 4], [50, 0, 60, 4], [2, 4, 8, 8], [52, 4, 58, 8], [61, 2, 70, 6], [90, 40, 95, 45]]
    )
    groups = [group.tolist() for group in fill_module._groups(boxes, 4)]
    together = [[0, 2], [1, 3, 4], [5]]
    assert sorted(sorted(group) for group in groups) == sorted(
        sorted(boxes[one].tolist()) for one in together
    )
    assert fill_module._groups(boxes[:0], 4) == []
