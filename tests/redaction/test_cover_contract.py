"""The contract of every cover in the catalogue: a new file is tested before its author writes a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.redaction.covers import CATALOGUE, Cover, Form, apply_yuv, form_of, suited, widened

#: Covers that draw noise take it from a permit, once per track: test_grids.py, test_dp_pixelate.py.
NOISY = [name for name in CATALOGUE.names if CATALOGUE.load(name).summary.startswith("noisy")]
NAMES = [name for name in CATALOGUE.names if name not in NOISY]
SECURE = [name for name in NAMES if CATALOGUE.load(name).module.SECURE]
TYPES = ("uint8", "uint16", "uint32", "float32", "float64")


@dataclass(frozen=True)
class Scene:
    """Two pictures that differ only inside the regions."""

    one: NDArray[Any]
    two: NDArray[Any]
    regions: NDArray[np.int32]

    @property
    def inside(self) -> NDArray[np.bool_]:
        mask = np.zeros(self.one.shape[:2], bool)
        for x1, y1, x2, y2 in self.regions:
            mask[y1:y2, x1:x2] = True
        return mask


def noise(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    if dtype.startswith("float"):
        return rng.random(shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    width, height = draw(st.integers(1, 48)), draw(st.integers(1, 48))
    channels = draw(st.sampled_from([None, 1, 2, 3, 4, 5]))
    shape = (height, width) if channels is None else (height, width, channels)
    dtype = draw(st.sampled_from(TYPES))
    regions = []
    for _ in range(draw(st.integers(1, 5))):
        x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        regions.append((x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    one, other = noise(rng, shape, dtype), noise(rng, shape, dtype)
    scene = Scene(one, one.copy(), np.array(regions, np.int32))
    scene.two[scene.inside] = other[scene.inside]
    if dtype.startswith("float") and draw(st.booleans()):
        scene.two[scene.inside] = np.nan
    return scene


def covered(cover: Cover, pixels: NDArray[Any], regions: NDArray[np.int32]) -> NDArray[Any]:
    copy = pixels.copy()
    cover.apply(copy, regions)
    return copy


def tells_nothing(cover: Cover, scene: Scene) -> bool:
    """Return whether the output is the same, byte for byte, whatever was inside the regions."""
    first, second = (covered(cover, picture, scene.regions) for picture in (scene.one, scene.two))
    return first.tobytes() == second.tobytes()


def face_scene() -> Scene:
    rng = np.random.default_rng(5)
    one, other = noise(rng, (60, 80, 3), "uint8"), noise(rng, (60, 80, 3), "uint8")
    scene = Scene(one, one.copy(), np.array([[20, 10, 50, 45]], np.int32))
    scene.two[scene.inside] = other[scene.inside] // 2
    return scene


@pytest.mark.parametrize("name", SECURE)
@settings(max_examples=150, deadline=None)
@given(scene=scenes())
def test_a_secure_cover_tells_nothing_of_the_inside(name: str, scene: Scene) -> None:
    assert tells_nothing(CATALOGUE.build(name), scene)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SECURE)))
def test_a_cosmetic_cover_fails_that_test(name: str) -> None:
    assert not tells_nothing(CATALOGUE.build(name), face_scene())


class Leaky:
    """A broken twin of fill: secure by its own word, yet one part in a hundred of the inside is left."""

    name, secure = "leaky", True

    def apply(self, pixels: NDArray[Any], regions: NDArray[np.int32]) -> None:
        old = pixels.copy()
        CATALOGUE.build("fill").apply(pixels, regions)
        for x1, y1, x2, y2 in regions:
            part = (slice(y1, y2), slice(x1, x2))
            pixels[part] = pixels[part] * 0.99 + old[part] * 0.01


def test_a_leak_of_one_percent_fails_that_test() -> None:
    assert not tells_nothing(Leaky(), face_scene())


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(scene=scenes())
def test_only_the_regions_change_and_the_same_input_gives_the_same_output(name: str, scene: Scene) -> None:
    cover = CATALOGUE.build(name)
    first = covered(cover, scene.one, scene.regions)
    assert first.dtype == scene.one.dtype
    assert first.shape == scene.one.shape
    assert first[~scene.inside].tobytes() == scene.one[~scene.inside].tobytes()
    assert np.isfinite(first.astype(np.float64)).all()
    assert covered(CATALOGUE.build(name), scene.one, scene.regions).tobytes() == first.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_no_regions_change_nothing(name: str) -> None:
    picture = face_scene().one
    assert np.array_equal(covered(CATALOGUE.build(name), picture, np.zeros((0, 4), np.int32)), picture)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_region_over_the_whole_picture(name: str, dtype: str) -> None:
    picture = noise(np.random.default_rng(0), (9, 13, 3), dtype)
    result = covered(CATALOGUE.build(name), picture, np.array([[0, 0, 13, 9]], np.int32))
    if name in SECURE:
        other = noise(np.random.default_rng(1), (9, 13, 3), dtype)
        CATALOGUE.build(name).apply(other, np.array([[0, 0, 13, 9]], np.int32))
        assert np.array_equal(result, other)
    assert not np.array_equal(result, picture)


@pytest.mark.parametrize("name", NAMES)
def test_a_view_that_is_not_contiguous_is_covered_in_place(name: str) -> None:
    base = noise(np.random.default_rng(1), (40, 60, 3), "uint8")
    straight = np.ascontiguousarray(base[:, ::2])
    regions = np.array([[5, 5, 20, 30]], np.int32)
    cover = CATALOGUE.build(name)
    cover.apply(base[:, ::2], regions)
    assert np.array_equal(base[:, ::2], covered(cover, straight, regions))


@pytest.mark.parametrize("name", CATALOGUE.names)
def test_names_summaries_and_labels_agree(name: str) -> None:
    plugin, cover = CATALOGUE.load(name), CATALOGUE.build(name)
    assert isinstance(cover, Cover)
    assert (cover.name, cover.secure) == (name, plugin.module.SECURE)
    assert plugin.summary.startswith("secure" if cover.secure else ("cosmetic", "noisy"))


def yuv(
    rng: np.random.Generator, bits: int, sub: tuple[int, int], size: tuple[int, int]
) -> list[NDArray[Any]]:
    dtype = "uint8" if bits == 8 else "uint16"
    width, height = size
    small = (-(-height // sub[1]), -(-width // sub[0]))
    shapes = [(height, width), small, small]
    return [rng.integers(0, 2**bits, shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("sub", [(1, 1), (2, 1), (2, 2), (4, 1)])
def test_a_yuv_frame_keeps_its_depth_and_changes_whole_cells_only(
    name: str, bits: int, sub: tuple[int, int]
) -> None:
    planes = yuv(np.random.default_rng(3), bits, sub, (63, 41))
    before = [plane.copy() for plane in planes]
    regions = np.array([[7, 5, 22, 19], [50, 30, 63, 41]], np.int32)
    apply_yuv(CATALOGUE.build(name), planes, regions, subsampling=sub, bits=bits)
    cells = widened(regions, sub, (63, 41))
    mask = np.zeros((41, 63), bool)
    for x1, y1, x2, y2 in cells:
        mask[y1:y2, x1:x2] = True
    chroma = mask[:: sub[1], :: sub[0]]
    for plane, old, inside in zip(planes, before, (mask, chroma, chroma), strict=True):
        assert np.array_equal(plane[~inside], old[~inside])
        assert not np.array_equal(plane[inside], old[inside])
        assert plane.max() < 2**bits


@pytest.mark.parametrize("name", SECURE)
@pytest.mark.parametrize("interlaced", [False, True])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), x=st.integers(0, 20), y=st.integers(0, 20))
def test_no_chroma_sample_of_the_inside_survives(
    name: str, interlaced: bool, seed: int, x: int, y: int
) -> None:
    rng = np.random.default_rng(seed)
    planes = yuv(rng, 8, (2, 2), (45, 37))
    twin = [plane.copy() for plane in planes]
    regions = np.array([[x, y, x + 9, y + 11]], np.int32)
    twin[0][y : y + 11, x : x + 9] = rng.integers(0, 256, (11, 9))
    part = (slice(y // 2, (y + 12) // 2), slice(x // 2, (x + 10) // 2))
    for plane in twin[1:]:
        plane[part] = rng.integers(0, 256, plane[part].shape)
    for frame in (planes, twin):
        apply_yuv(CATALOGUE.build(name), frame, regions, subsampling=(2, 2), interlaced=interlaced)
    assert all(np.array_equal(one, two) for one, two in zip(planes, twin, strict=True))


@pytest.mark.parametrize("name", NOISY)
def test_a_cover_that_draws_noise_draws_none_without_a_permit(name: str) -> None:
    picture = face_scene().one
    before = picture.copy()
    with pytest.raises(InvalidRequest, match="permit"):
        CATALOGUE.build(name).apply(picture, np.array([[20, 10, 50, 45]], np.int32))
    assert np.array_equal(picture, before)


def test_a_yuv_frame_that_does_not_add_up_is_refused() -> None:
    luma, chroma = np.zeros((10, 10), np.uint8), np.zeros((4, 5), np.uint8)
    with pytest.raises(InvalidRequest, match="chroma divided by"):
        apply_yuv(
            CATALOGUE.build("fill"), [luma, chroma, chroma], np.zeros((0, 4), np.int32), subsampling=(2, 2)
        )


def test_a_cover_without_suited_is_used_as_it_is() -> None:
    cover = Leaky()
    assert suited(cover, Form(("grey",))) is cover
    assert form_of(np.zeros((2, 2, 4), np.uint16)) == Form(("red", "green", "blue", "alpha"), 0, 65535)
