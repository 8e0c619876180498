"""Pictures read whole: every page upright, as plain arrays, with what the writer needs to match the source.

Nothing of a file but its pixels, its timing and its coding parameters gets past this module.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from sfumato.core.errors import MediaError, MediaTooLarge, UnreadableMedia, UnsupportedMedia
from sfumato.redaction.covers import Channel
from sfumato.redaction.images import colour, deep
from sfumato.redaction.images.damage import refuse_damaged_jpeg
from sfumato.redaction.images.orientation import TAG, orientation_of, upright
from sfumato.redaction.kinds import EXTENSIONS, head_of, image_kind
from sfumato.vision.pillow import whole_pictures

#: More pages or frames than this in one file is refused; longer animations are videos.
MAX_FRAMES = 10_000


@dataclass(slots=True)
class Page:
    """One picture of a file.

    Args:
        pixels: (height, width[, channels]), upright.
        channels: what each channel is.
        milliseconds: how long it is shown.
        planes: of a JPEG, luma and chroma to be coded in place of `pixels`.
    """

    pixels: NDArray[Any]
    channels: tuple[Channel, ...]
    milliseconds: float = 0.0
    planes: NDArray[np.uint8] | None = None


@dataclass(slots=True)
class Picture:
    """A file's pictures, its format and the parameters its pixels were coded with."""

    kind: str
    pages: list[Page] = field(default_factory=list)
    coding: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, line: str) -> None:
        """Keep a sentence for the receipt, once."""
        if line not in self.notes:
            self.notes.append(line)


def read_picture(path: Path, max_pixels: int) -> Picture:
    """Read every page of a picture file.

    Guarantee:
        Sizes and the number of pages are checked as declared, before a pixel is decoded. What does not
        decode completely raises.

    Args:
        path: the file; its content, not its name, decides how it is read.
        max_pixels: the most pixels, summed over its pages.

    Raises:
        UnreadableMedia: truncated, damaged, empty or not to be opened.
        UnsupportedMedia: a format or a kind of pixel that is not handled.
        MediaTooLarge: more pixels or pages than the limits.
    """
    kind = image_kind(head_of(path))
    if kind is None:
        size = path.stat().st_size
        raise UnreadableMedia(
            f"{path.name} ({size} bytes) is not a picture: it is empty, damaged or another kind"
        )
    if kind not in EXTENSIONS:
        raise UnsupportedMedia(f"{path.name} is {kind}: convert it to one of {', '.join(EXTENSIONS)} first")
    picture = Picture(kind)
    if path.suffix.lower() not in EXTENSIONS[kind]:
        picture.note(f"the content is {kind} though the name says {_said(path)}; written as {kind}")
    try:
        with whole_pictures(), warnings.catch_warnings():
            # Pillow warns of odd metadata (dropped anyway) and of large pictures (refused by our own limit).
            warnings.simplefilter("ignore")
            if kind == "heic":
                _read_heif(path, picture, max_pixels)
            else:
                _read_pillow(path, picture, max_pixels)
    except MediaError:
        raise
    except Image.DecompressionBombError as error:
        raise MediaTooLarge(f"{path.name}: {error}; make it smaller first") from error
    except Exception as error:  # decoders raise almost any type on damaged input
        why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise UnreadableMedia(
            f"{path.name} does not decode as {kind} ({why}): it is damaged or truncated"
        ) from error
    return picture


def _said(path: Path) -> str:
    """Return what a file's name says of its kind, in words of ours: a name may be a person's."""
    suffix = path.suffix.lower()
    if any(suffix in suffixes for suffixes in EXTENSIONS.values()):
        return suffix
    return "another kind" if suffix else "nothing"


def _read_pillow(path: Path, picture: Picture, max_pixels: int) -> None:
    """Read with the one Pillow decoder that the content asks for."""
    with path.open("rb") as file:
        image = _opener(picture.kind)(file)
        frames = int(getattr(image, "n_frames", 1))
        if picture.kind == "jpeg":
            _jpeg_coding(image, picture)
            frames = 1
        elif picture.kind == "webp":
            picture.coding["lossless"] = _is_lossless_webp(path)
        elif picture.kind == "avif":
            _avif_coding(path, picture)
        _check_size(path, _sizes(image, frames, picture.kind), max_pixels)
        if picture.kind == "jpeg":
            refuse_damaged_jpeg(path)
        for key in ("loop", "default_image"):
            if key in image.info:
                picture.coding[key] = image.info[key]
        for index in range(frames):
            if frames > 1:
                image.seek(index)
            page = _page(path, image, index, picture)
            page.milliseconds = float(image.info.get("duration") or 0)
            picture.pages.append(page)


def _opener(kind: str) -> Callable[..., Image.Image]:
    """Return the decoder of one format: `Image.open` would try others, and would apply limits of its own."""
    if kind == "avif":
        if not features.check("avif"):
            raise UnsupportedMedia("AVIF needs Pillow 11.3 or newer: pip install --upgrade pillow")
        from PIL import AvifImagePlugin

        return AvifImagePlugin.AvifImageFile
    table: dict[str, Callable[..., Image.Image]] = {
        "jpeg": JpegImagePlugin.jpeg_factory,
        "png": PngImagePlugin.PngImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
        "tiff": TiffImagePlugin.TiffImageFile,
        "bmp": BmpImagePlugin.BmpImageFile,
        "gif": GifImagePlugin.GifImageFile,
    }
    return table[kind]


def _sizes(image: Image.Image, frames: int, kind: str) -> Iterator[tuple[int, int]]:
    """Yield the declared size of every page; only TIFF pages differ, and their headers are read for it."""
    if kind != "tiff" or frames > MAX_FRAMES:
        yield from [image.size] * frames
        return
    for index in range(frames):
        image.seek(index)
        yield image.size
    image.seek(0)


def _check_size(path: Path, sizes: Iterator[tuple[int, int]], max_pixels: int) -> None:
    pixels = 0
    for count, (width, height) in enumerate(sizes, start=1):
        pixels += width * height
        if pixels > max_pixels or count > MAX_FRAMES:
            raise MediaTooLarge(
                f"{path.name} declares {width} x {height} pixels, {pixels} up to page {count}: the limits "
                f"are {max_pixels} pixels and {MAX_FRAMES} pages in all. Raise max_pixels if you trust it"
            )


def _page(path: Path, image: Image.Image, index: int, picture: Picture) -> Page:
    """Decode the page that `image` is at."""
    tags = getattr(image, "tag_v2", None)
    if picture.kind == "tiff":
        deep.refuse_odd_tiff(path, tags)
    is_deep = deep.is_deep(path, tags)
    image.load()  # also proves that the file is whole: OpenCV would decode half of one without a word
    turned = orientation_of(image.getexif().get(TAG))  # after load: PNG keeps it behind the pixels
    if turned != 1:
        picture.note("the picture was turned upright")
    if is_deep:
        eight = np.asarray(image)
        pixels, channels = deep.decode(path, index, eight)
        picture.coding["grey"] = picture.kind == "png" and head_of(path, 26)[25] == 4
        if "icc_profile" in image.info:
            picture.note("a colour profile was dropped; the 16-bit values are as they were")
    else:
        pixels, channels = colour.to_array(image, picture.note)
    if turned >= 5 and picture.coding.get("subsampling") == 1:
        picture.coding["subsampling"] = 0  # 4:2:2 turned sideways has no name in the encoder
    return Page(upright(pixels, turned), channels)


def _jpeg_coding(image: Image.Image, picture: Picture) -> None:
    """Keep the quantisation tables, the subsampling and whether the scans are progressive."""
    if isinstance(image, MpoImagePlugin.MpoImageFile) and image.n_frames > 1:
        picture.note(f"only the first of {image.n_frames} pictures in the file was kept")
    layers: list[tuple[int, int, int, int]] = getattr(image, "layer", [])
    tables = getattr(image, "quantization", {})
    order = list(dict.fromkeys(table for *_, table in layers))
    coding: dict[str, Any] = {"progressive": bool(image.info.get("progressive"))}
    if image.info.get("adobe_transform") == 2:  # YCCK is written as CMYK: its chroma tables do not fit
        order = order[:1]
    if order and all(table in tables for table in order):
        coding["qtables"] = [list(tables[table]) for table in order]
    else:
        coding["quality"] = 95
    if len(layers) == 3:
        sampling = JpegImagePlugin.get_sampling(image)
        coding["subsampling"] = 0 if sampling == -1 else sampling
        if image.info.get("adobe_transform") == 0 or bytes(layer[0] for layer in layers) == b"RGB":
            coding |= {"keep_rgb": True, "subsampling": 0}
    picture.coding |= coding


def _is_lossless_webp(path: Path) -> bool:
    """Return whether every coded frame of a WebP file is lossless."""
    from sfumato.redaction.images.metadata import riff_chunks

    names = [name for name, _ in riff_chunks(path.read_bytes())]
    return b"VP8L" in names and b"VP8 " not in names


def _avif_coding(path: Path, picture: Picture) -> None:
    """Keep the chroma subsampling, from the third byte of the AV1 configuration box."""
    data = path.read_bytes()
    at = data.find(b"av1C")
    flags = data[at + 6] if 0 <= at < len(data) - 6 else 0
    names = {0b1100: "4:2:0", 0b1000: "4:2:2", 0: "4:4:4"}
    picture.coding["subsampling"] = names.get(flags & 0b1100, "4:4:4")
    if flags & 0b1000000:
        picture.note("10 or 12 bits per colour became 8")


def _read_heif(path: Path, picture: Picture, max_pixels: int) -> None:
    """Read the primary picture of a HEIF file; libheif turns it upright itself."""
    try:
        import pillow_heif
    except ImportError as error:
        raise UnsupportedMedia(f"{path.name} is HEIC: pip install 'sfumato[heic]' to redact it") from error
    with path.open("rb") as file:
        heif = pillow_heif.open_heif(file)
        primary = heif[heif.primary_index]
        _check_size(path, iter([primary.size]), max_pixels)
        if len(heif) > 1:
            picture.note(f"only the primary one of {len(heif)} pictures in the file was kept")
        depth: Any = primary.info.get("bit_depth", 8)
        if depth > 8:
            picture.note(f"{depth} bits per colour became 8")
        picture.coding["chroma"] = primary.info.get("chroma", 444)
        image = primary.to_pillow()
    pixels, channels = colour.to_array(image, picture.note)
    picture.pages.append(Page(pixels, channels))
