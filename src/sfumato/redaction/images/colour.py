"""Pillow images as arrays whose channels have a name; colours in sRGB."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from sfumato.core.errors import UnsupportedMedia
from sfumato.redaction.covers import Channel

Note = Callable[[str], None]

PALETTE = "a palette became full colour"

CMYK: tuple[Channel, ...] = ("cyan", "magenta", "yellow", "key")
_CHANNELS: dict[str, tuple[Channel, ...]] = {
    "L": ("grey",),
    "LA": ("grey", "alpha"),
    "RGB": ("red", "green", "blue"),
    "RGBA": ("red", "green", "blue", "alpha"),
    "CMYK": CMYK,
}


def to_array(image: Image.Image, note: Note) -> tuple[NDArray[Any], tuple[Channel, ...]]:
    """Return a loaded image's pixels and what its channels are.

    A palette would keep the colours of what is hidden, and 1 bit has no room for a soft fill: both become
    grey or colour. Colours with a profile other than sRGB are converted, as the profile is not kept.

    Args:
        image: a loaded picture in any mode of Pillow's.
        note: called with a sentence for every change of the picture's kind.

    Raises:
        UnsupportedMedia: pixels of a kind that is not handled.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _grey_16(image, note)
    if image.mode in ("I", "F"):
        _drop_profile(image, note)
        pixels = np.array(image)
        tags = getattr(image, "tag_v2", None)  # of TIFF, where no tag means unsigned; elsewhere "I" is signed
        unsigned = tags is not None and tags.get(339, (1,)) == (1,)
        return (pixels.view(np.uint32) if image.mode == "I" and unsigned else pixels), ("grey",)
    image = _plain(image, note)
    if image.mode not in _CHANNELS:
        raise UnsupportedMedia(f"pixels in {image.mode} are not handled: convert the picture to RGB first")
    image = _in_srgb(image, note)
    return np.array(image), _CHANNELS[image.mode]


def _plain(image: Image.Image, note: Note) -> Image.Image:
    """Convert palettes, colour keys, premultiplied alpha and single bits to plain channels."""
    profile = image.info.get("icc_profile")
    if image.mode in ("P", "PA"):
        note(PALETTE)
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "1":
        note("1 bit per pixel became 8 bits of grey")
        image = image.convert("LA" if image.has_transparency_data else "L")
    elif image.mode in ("RGBa", "La"):
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    elif image.mode in ("RGBX", "YCbCr"):
        image = image.convert("RGB")
    elif image.mode in ("L", "RGB") and "transparency" in image.info:
        note("a colour key became an alpha channel")
        image = image.convert(image.mode + "A")
    if profile:
        image.info["icc_profile"] = profile
    return image


def _grey_16(image: Image.Image, note: Note) -> tuple[NDArray[Any], tuple[Channel, ...]]:
    pixels = np.array(image).astype(np.uint16)
    _drop_profile(image, note)
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return pixels, ("grey",)
    note("a colour key became an alpha channel, and grey became colour to hold it")
    alpha = np.where(pixels == key, 0, 65535).astype(np.uint16)
    return np.stack([pixels, pixels, pixels, alpha], axis=2), _CHANNELS["RGBA"]


def _in_srgb(image: Image.Image, note: Note) -> Image.Image:
    """Return the image with its colours in sRGB, so that it looks the same without its profile."""
    data = image.info.get("icc_profile")
    if not data:
        return image
    if image.mode not in ("RGB", "RGBA"):
        _drop_profile(image, note)
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        if "srgb" in ImageCms.getProfileDescription(profile).lower():
            return image
        converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        note("a damaged colour profile was dropped")
        return image
    note("colours were converted to sRGB and the colour profile dropped")
    return image if converted is None else converted


def _drop_profile(image: Image.Image, note: Note) -> None:
    if image.info.get("icc_profile"):
        note("a colour profile was dropped; the values are as they were, and may look different without it")
