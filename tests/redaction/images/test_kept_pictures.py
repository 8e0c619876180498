"""What a redacted picture keeps of its source, figure by figure; and copies that keep less are caught."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from sfumato.redaction.images import planes, redact_image_file
from sfumato.redaction.images.read import read_picture
from sfumato.redaction.job import Job
from sfumato.vision.toy import MAGENTA, ToyDetector

MakeJob = Callable[..., Job]
#: The patch with a face's margin and a feather, in whole blocks of 16 and one more.
NEAR = (slice(0, 128), slice(16, 160))


def scene(height: int = 240, width: int = 320) -> NDArray[np.uint8]:
    """Return hard edges between saturated colours, which coding twice is hardest on, and a magenta face."""
    drawn = np.random.default_rng(5)
    picture = np.full((height, width, 3), 90, np.uint8)
    colours = [(200, 30, 40), (40, 60, 190), (30, 170, 60), (190, 180, 60), (120, 120, 120)]
    for _ in range(250):
        y, x = drawn.integers(0, height), drawn.integers(0, width)
        picture[y : y + drawn.integers(3, 30), x : x + drawn.integers(3, 30)] = colours[drawn.integers(5)]
    picture[50:80, 70:100] = MAGENTA
    return picture


def jpeg(picture: NDArray[np.uint8], mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.fixture
def redact(tmp_path: Path, toy_job: MakeJob) -> Callable[[str, bytes], Path]:
    """Return a function that redacts bytes as a file of a name and gives the output."""

    def run(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        target = tmp_path / "out" / name
        redact_image_file(tmp_path / name, target, toy_job())
        return target

    return run


def far(path: Path | io.BytesIO) -> NDArray[np.int16]:
    """Return the pixels that no region is near, as Pillow decodes them."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(np.int16)
    keep = np.ones(pixels.shape[:2], bool)
    keep[NEAR] = False
    return pixels[keep]


def psnr(one: NDArray[np.int16], two: NDArray[np.int16]) -> float:
    error = float(((one - two).astype(np.float64) ** 2).mean())
    return 99.0 if error == 0 else 10 * float(np.log10(255**2 / error))


def coding(data: bytes) -> tuple[Any, ...]:
    """Return how a JPEG is coded: tables, sampling of each component, whether it is progressive, its mode."""
    with Image.open(io.BytesIO(data)) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        sampling = [tuple(layer[1:3]) for layer in image.layer]
        tables = [image.quantization[layer[3]] for layer in image.layer]
        return tables, sampling, bool(image.info.get("progressive")), image.mode, image.size


def lost(source: bytes, output: bytes) -> list[str]:
    """Return what a JPEG does not keep of another."""
    names = ("tables", "sampling", "progressive", "mode", "size")
    found = [
        name for name, a, b in zip(names, coding(source), coding(output), strict=True) if a != b
    ]  # fmt: skip
    if "size" not in found and psnr(far(io.BytesIO(source)), far(io.BytesIO(output))) < 50:
        found.append("pixels outside")
    if len(output) > 1.25 * len(source):
        found.append("bytes")
    return found


KINDS: dict[str, dict[str, Any]] = {
    "4:4:4": {"subsampling": 0, "quality": 88},
    "4:2:2": {"subsampling": 1, "quality": 88},
    "4:2:0": {"subsampling": 2, "quality": 88},
    "4:2:0, progressive": {"subsampling": 2, "quality": 75, "progressive": True},
    "4:2:0, quality 95": {"subsampling": 2, "quality": 95},
    "4:2:0, own tables": {"subsampling": 2, "qtables": [list(range(3, 67)), list(range(4, 132, 2))]},
    "three tables as one": {"subsampling": 0, "qtables": [list(range(2, 66))]},
    "grey": {"mode": "L", "quality": 85},
    "CMYK": {"mode": "CMYK", "quality": 90},
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [(240, 320), (233, 317)])
def test_a_jpeg_is_coded_as_its_source(
    redact: Callable[[str, bytes], Path], name: str, size: tuple[int, int]
) -> None:
    data = jpeg(scene(*size), **KINDS[name])
    target = redact("a.jpg", data)
    assert lost(data, target.read_bytes()) == []
    if name != "grey":
        with Image.open(target) as image:
            assert len(ToyDetector().detect(np.asarray(image.convert("RGB")))) == 0


def test_a_photograph_outside_the_regions_is_nearly_bit_exact(redact: Callable[[str, bytes], Path]) -> None:
    photo = (
        pytest.importorskip("skimage.data", reason="its portrait is the picture: pip install scikit-image")
        .astronaut()[:240, :320]
        .copy()
    )
    photo[50:80, 70:100] = MAGENTA
    for sampling in (0, 2):
        data = jpeg(photo, quality=90, subsampling=sampling)
        one, two = far(io.BytesIO(data)), far(redact("a.jpg", data))
        print(f"subsampling {sampling}: {psnr(one, two):.1f} dB, {(one == two).mean():.2%} of values equal")
        assert psnr(one, two) >= 58
        assert (one == two).mean() > 0.95


def test_copies_that_keep_less_are_caught() -> None:
    data = jpeg(scene(), quality=88, subsampling=2)
    decoded = np.asarray(Image.open(io.BytesIO(data)))
    tables, *_ = coding(data)
    same = {"qtables": [list(tables[0]), list(tables[1])], "subsampling": 2}
    assert "tables" in lost(data, jpeg(decoded, quality=75, subsampling=2))
    assert {"sampling", "bytes"} <= set(lost(data, jpeg(decoded, quality=95, subsampling=0)))
    assert "progressive" in lost(data, jpeg(decoded, progressive=True, **same))
    assert "mode" in lost(data, jpeg(decoded, "L", quality=88))
    # Coded from red, green and blue: the tables are kept, and chroma is smoothed once more.
    assert lost(data, jpeg(decoded, **same)) == ["pixels outside"]


def test_nothing_of_the_inside_stays_in_the_planes() -> None:
    """Chroma is stored for four pixels at once: what a hidden pixel had a part in goes, too."""
    pictures = []
    for colour in ((255, 0, 255), (0, 255, 0)):
        picture = np.full((64, 64, 3), 128, np.uint8)
        picture[21:43, 21:43] = colour
        stored = np.asarray(Image.fromarray(picture).convert("YCbCr")).copy()
        stored[20:44, 20:44, 1:] = stored[24, 24, 1:]  # as the cells of 2 x 2 hold it
        after = picture.copy()
        after[21:43, 21:43] = 7
        pictures.append(planes.covered(stored, picture, after, [np.array([[21, 21, 43, 43]], np.int32)]))
    assert np.array_equal(*pictures)


@pytest.mark.parametrize("turned", [3, 6])
def test_turned_jpegs_stay_close(redact: Callable[[str, bytes], Path], turned: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turned
    data = jpeg(scene(320, 320), quality=88, subsampling=2, exif=exif)
    one = read_picture(_file(redact, data), 10**7).pages[0].pixels.astype(np.int16)
    two = read_picture(redact("a.jpg", data), 10**7).pages[0].pixels.astype(np.int16)
    same = np.abs(one - two).max(axis=2) <= 8
    assert one.shape == two.shape
    assert same.mean() > 0.8  # the region and its surroundings are the rest


def _file(redact: Any, data: bytes) -> Path:
    path: Path = redact("a.jpg", data).parent.parent / "plain.jpg"
    path.write_bytes(data)
    return path


# --- 16 bits


def png_16(picture: NDArray[np.uint16], *, interlaced: bool = False) -> bytes:
    """Return a PNG of 16 bits: grey, grey and alpha, RGB or RGBA; in one pass or in the seven of Adam7."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[picture.shape[2]]
    height, width = picture.shape[:2]
    steps = [(0, 0, 1, 1)]
    if interlaced:
        steps = [
            (0, 0, 8, 8),
            (0, 4, 8, 8),
            (4, 0, 8, 4),
            (0, 2, 4, 4),
            (2, 0, 4, 2),
            (0, 1, 2, 2),
            (1, 0, 2, 1),
        ]
    raw = b"".join(
        b"\0" + row.astype(">u2").tobytes()
        for y, x, down, right in steps
        for row in picture[y::down, x::right]
    )

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, int(interlaced))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )


def deep(channels: int) -> NDArray[np.uint16]:
    """Return a picture whose low bytes matter; those with colour have a magenta face."""
    colour = scene(120, 160).astype(np.uint16) * 257
    colour[:, :, :3] ^= np.random.default_rng(1).integers(0, 64, (120, 160, 1)).astype(np.uint16)
    alpha = np.full((120, 160, 1), 65535, np.uint16)
    alpha[100:] = 40_001
    if channels <= 2:
        colour = colour[:, :, 1:2]
    return np.concatenate([colour, alpha], axis=2) if channels in (2, 4) else colour


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_pngs_keep_every_bit_outside(
    redact: Callable[[str, bytes], Path], channels: int, interlaced: bool
) -> None:
    picture = deep(channels)
    target = redact("a.png", png_16(picture, interlaced=interlaced))
    head = target.read_bytes()[:26]
    assert head[24] == 16  # bits
    assert head[25] == {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    after = cv2.imread(str(target), cv2.IMREAD_UNCHANGED)
    assert after.dtype == np.uint16
    after = after[:, :, None] if after.ndim == 2 else after[:, :, [2, 1, 0, 3][: after.shape[2]]]
    if channels == 2:  # OpenCV reads grey and alpha as grey three times, and alpha
        picture = picture[:, :, [0, 0, 0, 1]]
    assert after.shape == picture.shape
    assert np.array_equal(after[100:], picture[100:])
    assert (after[100:] % 257 != 0).any()  # bits that 8 could not hold
    if channels >= 3:
        assert len(ToyDetector().detect(np.ascontiguousarray(after[:, :, :3] >> 8).astype(np.uint8))) == 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_tiffs_keep_every_bit_outside(
    redact: Callable[[str, bytes], Path], channels: int
) -> None:
    picture, file = deep(channels), io.BytesIO()
    kind = "minisblack" if channels == 1 else "rgb"
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    tifffile.imwrite(file, picture[:, :, 0] if channels == 1 else picture, photometric=kind, **extra)
    after = tifffile.imread(redact("a.tif", file.getvalue()))
    assert after.dtype == np.uint16
    assert np.array_equal(after.reshape(picture.shape)[100:], picture[100:])


def test_a_palette_keeps_its_transparency(redact: Callable[[str, bytes], Path]) -> None:
    indexed = Image.fromarray(scene(120, 160)).quantize(32)
    file = io.BytesIO()
    indexed.save(file, "PNG", transparency=bytes(range(200, 232)))
    with Image.open(file) as image:
        before = np.asarray(image.convert("RGBA"))
    with Image.open(redact("a.png", file.getvalue())) as image:
        assert image.mode == "RGBA"
        assert np.array_equal(np.asarray(image)[100:], before[100:])


@pytest.mark.parametrize("alpha", [False, True])
def test_lossless_webp_keeps_every_value_outside(redact: Callable[[str, bytes], Path], alpha: bool) -> None:
    picture = scene(120, 160)
    if alpha:
        picture = np.dstack([picture, np.full((120, 160), 90, np.uint8)])
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", lossless=True, exact=True)
    with Image.open(redact("a.webp", file.getvalue())) as image:
        assert np.array_equal(np.asarray(image)[100:], picture[100:])
