"""Pictures written from arrays alone, so that nothing else of the source can come along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfumato.redaction.images.colour import CMYK, PALETTE
from sfumato.redaction.images.png import png_of_grey
from sfumato.redaction.images.read import Page, Picture
from sfumato.redaction.images.tiff import tiff_of

#: Quality of a lossy copy where the source's own coding cannot be read off.
QUALITY = 90


def write_picture(picture: Picture, path: Path) -> None:
    """Write every page to `path`, in the picture's own format, whatever the name says."""
    first = picture.pages[0]
    kind = picture.kind
    if first.pixels.dtype == np.uint16 and first.pixels.ndim == 3 and kind == "png":
        grey = picture.coding.get("grey", False) and bool(
            (first.pixels[:, :, :1] == first.pixels[:, :, 1:3]).all()
        )
        if grey:
            path.write_bytes(png_of_grey(first.pixels[:, :, [0, 3]]))
        else:
            _png_16(first.pixels, path)
    elif kind == "tiff":
        path.write_bytes(tiff_of([(page.pixels, page.channels) for page in picture.pages]))
    elif kind == "heic":
        _heic(picture, path)
    else:
        _pillow(picture, path)


def _pillow(picture: Picture, path: Path) -> None:
    kind, coding = picture.kind, picture.coding
    if kind in ("gif", "png", "webp", "avif") and len(picture.pages) > 1:
        _alike(picture.pages)
    images = [_image(page) for page in picture.pages]
    options: dict[str, Any] = {}
    if kind == "jpeg":
        options = coding
    elif kind == "webp":
        lossless = coding.get("lossless", False)
        options = {"lossless": lossless, "quality": 80 if lossless else QUALITY, "exact": True}
        if not lossless:
            picture.note(f"WebP was coded again at quality {QUALITY}")
    elif kind == "avif":
        options = {"quality": QUALITY, "subsampling": coding.get("subsampling", "4:4:4")}
        picture.note(f"AVIF was coded again at quality {QUALITY}")
    elif kind == "gif":
        options = {"optimize": False, "disposal": 2}
        picture.notes = [line for line in picture.notes if line != PALETTE]
        picture.note("colours were fitted to new palettes of 256")
    if len(images) > 1:
        options |= {"save_all": True, "append_images": images[1:]}
        options["duration"] = [round(page.milliseconds) for page in picture.pages]
        if "loop" in coding:
            options["loop"] = coding["loop"]
        if kind == "png":
            options |= {"default_image": coding.get("default_image", False), "disposal": 0, "blend": 0}
    with path.open("wb") as file:
        images[0].save(file, format=kind.upper(), **options)


def _image(page: Page) -> Image.Image:
    """Return a page as a Pillow image, with no information but pixels."""
    if page.channels == CMYK:
        height, width = page.pixels.shape[:2]
        return Image.frombytes("CMYK", (width, height), page.pixels.tobytes())
    if page.planes is not None:
        height, width = page.planes.shape[:2]
        return Image.frombytes("YCbCr", (width, height), page.planes.tobytes())
    return Image.fromarray(page.pixels)


def _alike(pages: list[Page]) -> None:
    """Give all frames the same channels: the first frame of a GIF often has a palette, the rest have none."""
    images = [_image(page) for page in pages]
    mode = "RGBA" if any("alpha" in page.channels for page in pages) else "RGB"
    for page, image in zip(pages, images, strict=True):
        page.pixels = np.array(image.convert(mode))
        page.channels = ("red", "green", "blue", "alpha") if mode == "RGBA" else ("red", "green", "blue")


def _png_16(pixels: NDArray[Any], path: Path) -> None:
    import cv2

    order = [2, 1, 0, 3][: pixels.shape[2]]
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels[:, :, order]))
    if not done:
        raise OSError("OpenCV could not encode a 16-bit PNG")
    path.write_bytes(data.tobytes())


def _heic(picture: Picture, path: Path) -> None:
    import pillow_heif

    picture.note(f"HEIC was coded again at quality {QUALITY}")
    chroma = picture.coding.get("chroma", 444)
    with path.open("wb") as file:
        pillow_heif.from_pillow(_image(picture.pages[0])).save(file, quality=QUALITY, chroma=chroma)
