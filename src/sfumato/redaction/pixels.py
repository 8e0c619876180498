"""Pictures in memory: what people hold, as arrays, and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest, MediaTooLarge, UnreadableMedia
from sfumato.core.files import whole
from sfumato.redaction.covers import FORMS
from sfumato.redaction.images.colour import CMYK, to_array
from sfumato.redaction.images.orientation import TAG, orientation_of, upright
from sfumato.redaction.images.read import Page, Picture, read_picture
from sfumato.redaction.images.write import write_picture
from sfumato.redaction.kinds import EXTENSIONS, sniff
from sfumato.vision.pillow import whole_pictures

if TYPE_CHECKING:
    from PIL import Image

#: Formats that hold 16 bits per channel.
DEEP = ("png", "tiff")
#: How a new picture is coded; nothing of a source is known here.
CODING: dict[str, dict[str, Any]] = {"jpeg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}


def array_of(image: NDArray[Any] | Image.Image | str | os.PathLike[str], max_pixels: int) -> NDArray[Any]:
    """Return a picture as an array: grey, RGB or RGBA; a file or a Pillow image is turned upright.

    Raises:
        InvalidRequest: not a picture, a video, or a file of several pages.
        MediaTooLarge: more than `max_pixels`.
        MediaError: the file cannot be read.
    """
    from PIL import Image

    if isinstance(image, np.ndarray):
        if image.ndim in (2, 3):
            _check_size(image.shape[1], image.shape[0], max_pixels)
        return image
    if isinstance(image, Image.Image):
        _check_size(*image.size, max_pixels)
        return _from_pil(image)
    if isinstance(image, (str, os.PathLike)):
        return _from_file(Path(image), max_pixels)
    raise InvalidRequest(
        f"a picture is a NumPy array, a Pillow image or a path, got {type(image).__name__}; "
        "a tensor becomes an array by .cpu().numpy()"
    )


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise MediaTooLarge(
            f"the picture has {width} x {height} pixels, and the limit is {max_pixels}: raise max_pixels"
        )


def _from_pil(image: Image.Image) -> NDArray[Any]:
    try:
        with whole_pictures():
            image.load()
        turned = orientation_of(image.getexif().get(TAG))
    except Exception as error:  # decoders raise almost any type on damaged input
        raise UnreadableMedia(f"the Pillow image does not decode: {error}") from error
    pixels, _ = to_array(image.convert("RGB") if image.mode == "CMYK" else image, _silent)
    return upright(pixels, turned)


def _from_file(path: Path, max_pixels: int) -> NDArray[Any]:
    if not path.exists():
        raise InvalidRequest(f"there is no file {path}")
    if sniff(path) == "video":
        raise InvalidRequest(f"{path.name} is a video: use sfumato.redact_files(source, target)")
    picture = read_picture(path, max_pixels)
    if len(picture.pages) > 1:
        raise InvalidRequest(
            f"{path.name} holds {len(picture.pages)} pictures: sfumato.redact_files(source, target) does all"
        )
    page = picture.pages[0]
    if page.channels == CMYK:
        from PIL import Image

        height, width = page.pixels.shape[:2]
        return np.array(Image.frombytes("CMYK", (width, height), page.pixels.tobytes()).convert("RGB"))
    return page.pixels


def to_pil(pixels: NDArray[Any]) -> Image.Image:
    """Return a grey, RGB or RGBA array as a Pillow image.

    Raises:
        InvalidRequest: pixels that Pillow has no mode for.
    """
    from PIL import Image

    flat = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if flat.dtype == np.uint8 or (flat.dtype == np.uint16 and flat.ndim == 2):
        return Image.fromarray(flat)
    raise InvalidRequest(
        f"Pillow has no image of {flat.dtype} with shape {flat.shape}: save it as .png or .tiff, or scale "
        "it to uint8 first"
    )


def save(pixels: NDArray[Any], path: Path) -> Path:
    """Write a grey, RGB or RGBA array; the file appears whole and holds nothing but pixels.

    Raises:
        InvalidRequest: a suffix that is not known, or a format that cannot hold these pixels.
    """
    kinds = {suffix: kind for kind, suffixes in EXTENSIONS.items() for suffix in suffixes}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise InvalidRequest(f"no picture is written to {path.name!r}: choose one of {', '.join(kinds)}")
    flat = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if flat.dtype not in (np.uint8, np.uint16):
        raise InvalidRequest(f"pixels of {flat.dtype} are not written: scale them to uint8 or uint16 first")
    if flat.dtype == np.uint16 and kind not in DEEP:
        raise InvalidRequest(f"{kind} holds 8 bits per channel, these pixels have 16: choose .png or .tiff")
    channels = FORMS[1 if flat.ndim == 2 else flat.shape[2]]
    if "alpha" in channels and kind in ("jpeg", "bmp"):
        raise InvalidRequest(f"{kind} has no transparency: choose .png or .webp, or drop the last channel")
    page = Page(np.ascontiguousarray(flat), channels)
    with whole(path) as aside:
        write_picture(Picture(kind, [page], dict(CODING.get(kind, {}))), aside)
    return path


def _silent(note: str) -> None:
    """Keep no note: the caller sees the array."""
