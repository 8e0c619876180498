"""The proof of dp-pixelate, piece by piece: sensitivity, loss, and what frames give away together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.core.event import PureDP
from sfumato.core.gate import Gate, Permit, Plan
from sfumato.core.ledger import Ledger
from sfumato.core.policy import Policy
from sfumato.redaction.covers import Form, apply_yuv
from sfumato.redaction.covers.dp_pixelate import DpPixelate, build
from sfumato.redaction.grids import (
    FULL,
    LIMITED,
    Look,
    Painter,
    Range,
    Sums,
    cells_of,
    in_chroma,
    levels_of,
    looks_in_picture,
    looks_of_sums,
    noisy_sums,
    sums_of,
)

RGB = Form(("red", "green", "blue"))
RULES = '[project]\nname = "t"\n[populations.p]\nunit = "16 pixels"\nrelation = "replace-one"\nepsilon = 9'


@pytest.fixture(scope="module")
def permit() -> Permit:
    ledger = Ledger(":memory:")
    ledger.open_population("p", epsilon=9, delta=0, unit="16 pixels", relation="replace-one")
    ledger.open_share("p", "all", kind="filter", epsilon=9, delta=0)
    words = {"action": "redact", "mechanism": "m", "statement": "s", "population": "p", "share": "all"}
    plan = Plan(**words, guarantee="proven", event=PureDP(1))  # type: ignore[arg-type]
    return Gate(Policy.parse(RULES), ledger).open(plan)


@pytest.fixture
def cover(permit: Permit) -> Callable[..., DpPixelate]:
    return lambda **options: build(**options).charged(permit)


# --- sensitivity -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frames:
    """Two YUV frames that differ in at most `changed` pixels, and regions of both."""

    one: list[NDArray[np.uint8]]
    two: list[NDArray[np.uint8]]
    regions: NDArray[np.int32]
    cell: tuple[int, int]
    changed: int


@st.composite
def frames(draw: st.DrawFn) -> Frames:
    width, height = draw(st.integers(4, 40)), draw(st.integers(4, 40))
    cell = draw(st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 1)]))
    regions = []
    for _ in range(draw(st.integers(1, 4))):
        x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        regions.append((x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    small = (-(-height // cell[1]), -(-width // cell[0]))
    shapes = [(height, width), small, small]
    one = [rng.integers(0, 256, shape).astype(np.uint8) for shape in shapes]
    two = [plane.copy() for plane in one]
    changed = draw(st.integers(0, 6))
    for _ in range(changed):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        for plane, at in zip(two, ((y, x), *[(y // cell[1], x // cell[0])] * 2), strict=True):
            plane[at] = rng.choice([0, 255])
    return Frames(one, two, np.array(regions, np.int32), cell, changed)


Summing = Callable[[DpPixelate, list[NDArray[np.uint8]], Frames], list[Sums]]


def honest(cover: DpPixelate, planes: list[NDArray[np.uint8]], case: Frames) -> list[Sums]:
    def read(region: NDArray[np.int32]) -> list[NDArray[np.uint8]]:
        x1, y1, x2, y2 = (int(value) for value in region)
        cx1, cy1, cx2, cy2 = in_chroma((x1, y1, x2, y2), case.cell)
        return [planes[0][y1:y2, x1:x2], *(plane[cy1:cy2, cx1:cx2] for plane in planes[1:])]

    height, width = planes[0].shape
    return sums_of(cover, read, case.regions, (width, height), case.cell)


def overlaps_forgotten(cover: DpPixelate, planes: list[NDArray[np.uint8]], case: Frames) -> list[Sums]:
    return [
        one for region in case.regions for one in honest(cover, planes, replace(case, regions=region[None]))
    ]


def means_rounded_to_levels(cover: DpPixelate, planes: list[NDArray[np.uint8]], case: Frames) -> list[Sums]:
    done = []
    for one in honest(cover, planes, case):
        values = tuple(
            np.rint(value / np.maximum(count, 1)).astype(np.int64) * count
            for value, count in zip(one.values, one.counts, strict=True)
        )
        done.append(Sums(values, one.counts))
    return done


def within(case: Frames, summing: Summing) -> bool:
    """Return whether neighbours' sums differ by no more than is said, channel by channel."""
    cover = build(epsilon=1000, pixels=max(1, case.changed))
    first, second = (summing(cover, planes, case) for planes in (case.one, case.two))
    moved = [
        sum(
            int(np.abs(a.values[channel] - b.values[channel]).sum())
            for a, b in zip(first, second, strict=True)
        )
        for channel in range(3)
    ]
    return all(distance <= 255 * case.changed for distance in moved)


@settings(max_examples=400, deadline=None)
@given(case=frames())
def test_m_pixels_move_the_sums_of_a_channel_by_255_m_at_most(case: Frames) -> None:
    assert within(case, honest)


@pytest.mark.parametrize("wrong", [overlaps_forgotten, means_rounded_to_levels])
def test_sums_that_forget_overlaps_or_round_means_are_caught(wrong: Summing) -> None:
    planes = [np.full((20, 30), 127, np.uint8) for _ in range(3)]
    for plane in planes:
        plane[:6] = 128  # so that the mean lies just below a half
        plane[0, 0] = 0
    changed = [plane.copy() for plane in planes]
    for plane in changed:
        plane[0, 0] = 255
    regions = np.array([[0, 0, 29, 19], [0, 0, 30, 20]], np.int32)
    case = Frames(planes, changed, regions, (1, 1), 1)
    assert within(case, honest)
    assert not within(case, wrong)


def test_the_scale_of_the_noise_is_the_sensitivity_over_the_loss_and_losses_add_up_to_epsilon() -> None:
    cover = build(epsilon="0.7", pixels=12)
    for channels in (1, 3):
        losses = [Fraction(255 * 12) / cover.scale(channels, index) for index in range(channels)]
        assert sum(losses) == Fraction(7, 10)


def test_the_shape_of_a_grid_is_decided_by_the_size_of_the_region_alone() -> None:
    cover = build(epsilon=1, pixels=16, grid=8)
    assert cells_of(cover, 3, 2, 3) == (1, 1)
    assert cells_of(cover, 4000, 4000, 3) == (8, 8)
    assert cells_of(cover, 4000, 1000, 1) == (2, 8)
    rows, columns = cells_of(cover, 60, 90, 3)
    assert rows >= columns
    assert 60 * 90 / (rows * columns) >= cover.scale(3, 0) / 24


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(["uint8", "uint16", "float32"]), deep=st.booleans()
)
def test_a_pixel_has_one_level_of_0_to_255_in_each_channel_whatever_its_neighbours(
    seed: int, dtype: str, deep: bool
) -> None:
    rng = np.random.default_rng(seed)
    channels = ("cyan", "magenta", "yellow", "key") if deep else ("red", "green", "blue")
    high = 1.0 if dtype == "float32" else float(np.iinfo(dtype).max)
    picture = (rng.random((6, 7, len(channels))) * high * 1.2).clip(0, high).astype(dtype)
    if dtype == "float32":
        picture[0, 0] = np.nan
        picture[0, 1] = np.inf
    form = Form(channels, 0.0, high)
    whole = levels_of(picture, form)
    alone = levels_of(picture[2:3, 3:4], form)
    assert all(plane.dtype == np.uint8 for plane in whole)
    assert [plane[2, 3] for plane in whole] == [plane[0, 0] for plane in alone]


# --- loss --------------------------------------------------------------------------------------------------


def seen_loss(cover: DpPixelate, channels: int, draws: int = 40_000) -> float:
    """Return an epsilon that released sums of two neighbours are caught at, with 99.9 % confidence.

    The neighbours are as far apart as they may be; the attack is a threshold on the likelihood ratio.
    """
    far = 255 * cover.pixels
    counts = (np.full((1, 1), 10**6),) * channels
    ratios = []
    for value in (0, far):
        sums = Sums(tuple(np.full((draws, 1), value, np.int64) for _ in range(channels)), counts)
        (noisy,) = noisy_sums(cover, [sums])
        scales = [float(build_scale(cover, channels, index)) for index in range(channels)]
        ratios.append(
            sum(
                (np.abs(values[:, 0]) - np.abs(values[:, 0] - far)) / scale
                for values, scale in zip(noisy.values, scales, strict=True)
            )
        )
    none, some = ratios
    error = math.sqrt(math.log(2 * 40 / 0.001) / (2 * draws))  # Hoeffding, over all thresholds tried
    best = 0.0
    for cut in np.quantile(np.concatenate([none, some]), np.linspace(0.02, 0.98, 40)):
        for hit, false in (
            ((some > cut).mean(), (none > cut).mean()),
            ((none <= cut).mean(), (some <= cut).mean()),
        ):
            if hit > error:
                best = max(best, math.log((hit - error) / (false + error)))
    return best


def build_scale(cover: DpPixelate, channels: int, index: int) -> Fraction:
    return build(epsilon=cover.epsilon, pixels=cover.pixels).scale(channels, index)


class HalfTheNoise(DpPixelate):
    """A broken twin: the scale is half of what epsilon asks for."""

    def scale(self, channels: int, index: int) -> Fraction:
        return DpPixelate.scale(self, channels, index) / 2


@pytest.mark.parametrize("channels", [1, 3])
def test_an_attack_on_the_released_sums_never_sees_more_than_epsilon(
    cover: Callable[..., DpPixelate], channels: int
) -> None:
    built = cover(epsilon=1, pixels=3)
    loss = seen_loss(built, channels)
    assert 0.6 < loss <= 1  # it sees most of it: the attack can see
    twin = HalfTheNoise(built.epsilon, built.pixels, built.grid, noise=built.noise)
    assert seen_loss(twin, channels) > 1


# --- what frames give away together ------------------------------------------------------------------------


def spread(cover: DpPixelate, frames: int, *, fixed: bool) -> float:
    """Return how far the mean of the greys of many frames is from the truth, in levels, on average."""
    picture = np.full((40, 40), 100, np.uint8)
    regions = np.array([[0, 0, 40, 40]], np.int32)
    form = Form(("grey",))
    off = []
    for _ in range(12):
        looks = looks_in_picture(cover, picture, form, regions)
        total = np.zeros((40, 40))
        for _ in range(frames):
            shown = picture.copy()
            if not fixed:
                looks = looks_in_picture(cover, picture, form, regions)
            Painter(looks, regions, form=form).apply(shown, regions)
            total += shown
        off.append(float(np.abs(total / frames - 100).mean()))
    return float(np.mean(off))


def test_the_mean_of_300_frames_of_a_track_tells_no_more_than_one_frame(
    cover: Callable[..., DpPixelate],
) -> None:
    built = cover(epsilon=1, pixels=16, grid=4)
    fixed = spread(built, 300, fixed=True)
    assert fixed > 5
    assert spread(built, 60, fixed=False) < fixed / 3  # a twin with fresh noise in every frame


# --- painting ----------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), x=st.integers(0, 20), y=st.integers(0, 20), interlaced=st.booleans())
def test_painting_reads_nothing_and_leaves_no_sample_of_the_inside(
    seed: int, x: int, y: int, interlaced: bool
) -> None:
    rng = np.random.default_rng(seed)
    planes = [rng.integers(0, 256, shape).astype(np.uint8) for shape in ((37, 45), (19, 23), (19, 23))]
    twin = [plane.copy() for plane in planes]
    region = np.array([[x, y, x + 9, y + 11]], np.int32)
    twin[0][y : y + 11, x : x + 9] = rng.integers(0, 256, (11, 9))
    x1, y1, x2, y2 = in_chroma((x, y, x + 9, y + 11), (2, 2))
    for plane in twin[1:]:
        plane[y1:y2, x1:x2] = 0
    painter = Painter([Look(rng.random((3, 2, 3)))], region, cell=(2, 2))
    for frame in (planes, twin):
        apply_yuv(painter, frame, region, subsampling=(2, 2), interlaced=interlaced)
    assert all(np.array_equal(one, two) for one, two in zip(planes, twin, strict=True))


@pytest.mark.parametrize(("levels", "full"), [(LIMITED, False), (FULL, True)])
def test_without_much_noise_a_grid_shows_the_colours_that_were_there(
    cover: Callable[..., DpPixelate], levels: Range, full: bool
) -> None:
    built = cover(epsilon=10**6, pixels=1, grid=2)
    planes = [
        np.full((40, 40), 90, np.uint8),
        np.full((20, 20), 120, np.uint8),
        np.full((20, 20), 140, np.uint8),
    ]
    case = Frames(planes, planes, np.array([[4, 4, 36, 36]], np.int32), (2, 2), 0)
    looks = looks_of_sums(built, honest(built, planes, case), levels)
    shown = [np.zeros_like(plane) for plane in planes]
    apply_yuv(
        Painter(looks, case.regions, cell=(2, 2)), shown, case.regions, subsampling=(2, 2), full_range=full
    )
    for plane, value in zip(shown, (90, 120, 140), strict=True):
        assert abs(int(plane[plane.shape[0] // 2, plane.shape[1] // 2]) - value) <= 1


def test_a_picture_keeps_its_colours_too(cover: Callable[..., DpPixelate]) -> None:
    picture: NDArray[Any] = np.full((30, 30, 4), (200, 90, 40, 7), np.uint8)
    cover(epsilon=10**6, pixels=1).apply(picture, np.array([[3, 3, 27, 27]], np.int32))
    assert np.abs(picture[15, 15].astype(int) - (200, 90, 40, 255)).max() <= 3
    assert (picture[0, 0] == (200, 90, 40, 7)).all()


def test_where_two_regions_meet_the_one_that_counted_the_pixels_lies_on_top() -> None:
    regions = np.array([[0, 0, 6, 6], [3, 3, 9, 9]], np.int32)
    looks = [Look(np.zeros((1, 1, 3))), Look(np.ones((1, 1, 3)))]
    picture = np.full((9, 9, 3), 77, np.uint8)
    Painter(looks, regions, form=RGB).apply(picture, regions)
    assert picture[4, 4].tolist() == [0, 0, 0]
    assert picture[8, 8].tolist() == [255, 255, 255]
    assert picture[0, 8].tolist() == [77, 77, 77]


def test_without_a_permit_nothing_is_covered_and_nothing_is_left_as_if_it_were() -> None:
    picture = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(InvalidRequest, match="through a permit"):
        build(pixels=1).apply(picture, np.array([[0, 0, 9, 9]], np.int32))


def test_a_plane_by_itself_is_refused(cover: Callable[..., DpPixelate]) -> None:
    planes = [np.zeros((8, 8), np.uint8) for _ in range(3)]
    with pytest.raises(InvalidRequest, match="one grid per track"):
        apply_yuv(cover(), planes, np.array([[0, 0, 8, 8]], np.int32), subsampling=(1, 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilon": 0}, "epsilon must be above 0"),
        ({"epsilon": float("nan")}, "finite number"),
        ({"pixels": -1}, "whole number of 1..1000000"),
        ({"pixels": 1.5}, "whole number of 1..1000000"),
        ({"grid": 0}, "whole number of 1..64"),
        ({"population": "a/b"}, "population must be a name"),
        ({"epsilon": "1e-9", "pixels": 10**6}, "noise and nothing else"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        build(**options)
