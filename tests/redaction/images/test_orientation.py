"""All eight orientations, wherever a format keeps them, give the coverage of the upright picture."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pillow_heif
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sfumato.redaction.images import redact_image_file
from sfumato.redaction.images.orientation import TAG, orientation_of, upright
from sfumato.redaction.images.read import read_picture
from sfumato.redaction.job import Job, Outcome
from sfumato.vision.toy import MAGENTA

PATCH = (slice(40, 70), slice(60, 100))
#: The patch with the margins of a face, corners included: 0.3 of its sides, 0.555 above and 0.15 below.
REGION = (slice(23, 75), slice(48, 112))
LOSSLESS = ("PNG", "WEBP", "TIFF", "PNG16", "TIFF16", "XMP")


def scene() -> NDArray[np.uint8]:
    y, x = np.mgrid[0:120, 0:160]
    picture = np.stack([x, y, (x + y) // 2], axis=2).astype(np.uint8)
    picture[PATCH] = MAGENTA
    return picture


def turned(orientation: int) -> NDArray[np.uint8]:
    """Return the scene as a camera stores it under an orientation."""
    return upright(scene(), {6: 8, 8: 6}.get(orientation, orientation))


def tagged(kind: str, orientation: int) -> bytes:
    """Return the turned scene as a file that says how it is turned."""
    pixels, file = turned(orientation), io.BytesIO()
    exif = Image.Exif()
    exif[TAG] = orientation
    tag = (TAG, "H", 1, orientation, True)
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="{orientation}"/>'.encode()
    if kind == "PNG16":
        plain = cv2.imencode(".png", np.ascontiguousarray(pixels[:, :, ::-1]).astype(np.uint16) * 257)[
            1
        ].tobytes()
        body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        return bytes(plain[:-12] + chunk + plain[-12:])  # behind the pixels, where some cameras put it
    if kind == "TIFF16":
        tifffile.imwrite(file, pixels.astype(np.uint16) * 257, photometric="rgb", extratags=[tag])
    elif kind == "XMP":
        tags = [tag, (700, "B", len(xmp), xmp, True)]  # said twice, to be turned once
        tifffile.imwrite(file, pixels, photometric="rgb", extratags=tags)
    elif kind == "HEIF":
        height, width = pixels.shape[:2]
        pillow_heif.encode("RGB", (width, height), pixels.tobytes(), file, quality=95, exif=exif.tobytes())
    else:
        options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
        Image.fromarray(pixels).save(file, kind, exif=exif, **options)
    return file.getvalue()


def redacted(folder: Path, data: bytes, job: Job) -> tuple[NDArray[np.uint8], Outcome, Path]:
    source, target = folder / "in.any", folder / "out.any"
    source.write_bytes(data)
    outcome = redact_image_file(source, target, job)
    pixels: NDArray[Any] = read_picture(target, 10**6).pages[0].pixels
    return (pixels >> 8 if pixels.dtype == np.uint16 else pixels).astype(np.uint8), outcome, target


@pytest.mark.parametrize("kind", [*LOSSLESS, "JPEG", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_coverage_is_that_of_upright(
    tmp_path: Path, toy_job: Callable[..., Job], kind: str, orientation: int
) -> None:
    pixels, outcome, target = redacted(tmp_path, tagged(kind, orientation), toy_job())
    assert (outcome.width, outcome.height, outcome.regions) == (160, 120, {"face": 1})
    if kind != "HEIF":
        with Image.open(target) as after:
            after.load()
            assert TAG not in after.getexif()
    reference = scene()
    red, green, blue = (pixels[PATCH][:, :, index].astype(int) for index in range(3))
    assert not ((red > 180) & (green < 90) & (blue > 180)).any()
    if kind in LOSSLESS:
        outside = np.ones(pixels.shape[:2], bool)
        outside[REGION] = False
        assert np.array_equal(pixels[outside], reference[outside])
    else:
        assert np.abs(pixels[85:].astype(int) - reference[85:]).mean() < 4


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_a_tag_that_is_no_orientation_means_upright(
    tmp_path: Path, toy_job: Callable[..., Job], value: int
) -> None:
    exif, file = Image.Exif(), io.BytesIO()
    exif[TAG] = value
    Image.fromarray(scene()).save(file, "JPEG", exif=exif)
    _, outcome, _ = redacted(tmp_path, file.getvalue(), toy_job())
    assert (outcome.width, outcome.height) == (160, 120)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_turn_as_pillow_turns_them(orientation: int) -> None:
    image = Image.fromarray(scene())
    image.getexif()[TAG] = orientation
    assert np.array_equal(upright(scene(), orientation), np.asarray(ImageOps.exif_transpose(image)))


def test_odd_values_of_the_tag() -> None:
    odd = [None, "6", (8,), (), "six", 2.9, float("inf"), float("nan"), -1, 9]
    assert [orientation_of(value) for value in odd] == [1, 6, 8, 1, 1, 2, 1, 1, 1, 1]
