"""Pictures made safe: find, widen, cover, write; whole or not at all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest, MediaError, UnreadableMedia, UnsupportedMedia
from sfumato.core.files import whole
from sfumato.redaction.covers import Form, form_of, suited
from sfumato.redaction.grids import looks_in_picture
from sfumato.redaction.images.metadata import leftovers
from sfumato.redaction.images.planes import covered, planes_of
from sfumato.redaction.images.read import Picture, read_picture
from sfumato.redaction.images.views import views
from sfumato.redaction.images.write import write_picture
from sfumato.redaction.job import Job, Outcome
from sfumato.redaction.layers import Places, layers, places, spared
from sfumato.redaction.looks import TINT, noisy_cover, noisy_spots, others, painter_of, tinted_spots, tints
from sfumato.redaction.sealed.sealer import Sealer
from sfumato.redaction.sealed.take import PageSeal
from sfumato.vision.boxes import Boxes, nms


def redact_pixels(image: NDArray[Any], job: Job) -> tuple[NDArray[Any], Boxes]:
    """Return a redacted copy of a picture, and the boxes that were found in it.

    >>> from sfumato.redaction.covers.solid import build
    >>> from sfumato.redaction.settings import Settings
    >>> from sfumato.vision.finder import Finder
    >>> from sfumato.vision.toy import MAGENTA, ToyDetector
    >>> picture = np.zeros((48, 64, 3), np.uint8)
    >>> picture[10:20, 30:50] = MAGENTA
    >>> job = Job(Settings(cover="solid"), Finder([ToyDetector()]), build())
    >>> safe, boxes = redact_pixels(picture, job)
    >>> safe.max(), boxes.labels
    (np.uint8(0), ('face',))

    Guarantee (heuristic):
        What the detector found is covered in every channel, alpha too, with its margin; what it missed
        is not.

    Args:
        image: (height, width) grey, or (height, width, channels): grey + alpha, RGB or RGBA. uint8, uint16
            (all 16 bits), other integers or floats (0..1); upright. It is not changed.
        job: what to hide, how to find and how to cover it.

    Returns:
        The copy, of the same shape and type; and boxes in pixels. A picture with alpha is searched as it
        shows, without its alpha and in its alpha, a deep one in its whole range and in the one it uses, so a
        thing can have several boxes.

    Raises:
        InvalidRequest: an array that is no picture.
    """
    shape, kind = image.shape, image.dtype.kind
    if image.ndim not in (2, 3) or 0 in shape or kind not in "uif" or (image.ndim == 3 and shape[2] > 4):
        raise InvalidRequest(
            f"a picture is (height, width) or (height, width, 1 to 4 channels) of numbers, got {shape} "
            f"{image.dtype}"
        )
    pixels = np.array(image, order="C")
    return pixels, _hide(pixels, form_of(pixels), job)[0]


def redact_image_file(source: Path, target: Path, job: Job, sealer: Sealer | None = None) -> Outcome:
    """Write a redacted copy of a picture file.

    Guarantee (heuristic):
        `target` appears whole or not at all, in the format of the content of `source`, upright, with every
        page redacted and with no metadata; `source` is not changed. What the detector missed is not hidden.

    Args:
        source: JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC or AVIF.
        target: where to write; not `source`.
        job: what to hide, how to find and how to cover it.
        sealer: keeps what is hidden, encrypted; see `sfumato.redaction.sealed`.

    Raises:
        InvalidRequest: source and target are the same file.
        UnreadableMedia, UnsupportedMedia, MediaTooLarge: the file cannot be made safe.
        MediaError: the written copy failed its own check; it was removed.
    """
    if target.exists() and source.exists() and target.samefile(source):
        raise InvalidRequest(f"{source.name} would be written over itself: give another output")
    picture = read_picture(source, job.settings.max_pixels)
    if len(picture.pages) > 1 and noisy_cover(job) is not None:
        raise UnsupportedMedia(
            f"{source.name} holds {len(picture.pages)} pictures, and dp-pixelate would draw noise for each: "
            "of one scene, they could be averaged. Choose another cover, or make a video of an animation"
        )
    counts: Counter[str] = Counter()
    notes: list[str] = []
    seal = None if sealer is None else PageSeal(sealer, job)
    for page in picture.pages:
        form = form_of(page.pixels)
        # A proof that speaks of what is drawn holds for nothing else: noisy covers code what they drew.
        exact = picture.kind == "jpeg" and noisy_cover(job) is None
        planes = planes_of(source, page.pixels) if exact else None
        before = page.pixels if planes is None else page.pixels.copy()
        boxes, fixed, said = _hide(page.pixels, Form(page.channels, form.low, form.high), job, source, seal)
        if planes is not None:
            width, height = page.pixels.shape[1::-1]
            regions = [region for _, region in layers(job, boxes, fixed, width, height)]
            page.planes = covered(planes, before, page.pixels, regions)
        counts.update([*nms(boxes).labels, *fixed.counts.elements()])
        notes += [*fixed.notes, *said]
    with whole(target) as aside:
        try:
            write_picture(picture, aside)
        except (OSError, ValueError, RuntimeError) as error:
            raise MediaError(f"{source.name} could not be written as {picture.kind}: {error}") from error
        _check(picture, aside, source.name)
    if seal is not None:
        seal.finish()
    height, width = picture.pages[0].pixels.shape[:2]
    return Outcome(
        kind="image",
        regions=dict(counts),
        width=width,
        height=height,
        frames=len(picture.pages),
        notes=tuple(dict.fromkeys((*picture.notes, *notes))),
    )


def _hide(
    pixels: NDArray[Any],
    form: Form,
    job: Job,
    path: Path | None = None,
    seal: PageSeal | None = None,
) -> tuple[Boxes, Places, tuple[str, ...]]:
    """Find and cover in place; return what was found, what is fixed, and what was kept."""
    boxes = Boxes.concat(job.finder.find(view) for view in views(pixels, form.channels))
    height, width = pixels.shape[:2]
    boxes, said = spared(job, boxes, width, height)
    fixed = places(job, path, width, height)
    if seal is not None:
        seal.take(pixels, boxes, fixed)
    _cover(pixels, form, job, boxes, fixed)
    return boxes, fixed, said


def _cover(pixels: NDArray[Any], form: Form, job: Job, boxes: Boxes, fixed: Places) -> None:
    """Cover in place what is hidden in one picture: each box is a track of its own."""
    height, width = pixels.shape[:2]
    numbers = range(len(boxes))
    tinted = tinted_spots(job, boxes, numbers, fixed, width, height)
    cover = noisy_cover(job)
    if cover is not None and (grids := noisy_spots(job, boxes, numbers, fixed, width, height)):
        looks = looks_in_picture(cover, pixels, form, np.stack([spot.extent for spot in grids]))
        shown = {spot.key: look for spot, look in zip(grids, looks, strict=True)}
        painter, pieces = painter_of(grids, shown, form=form)
        painter.apply(pixels, pieces)
    if cover is not None:
        boxes, fixed = others(job, boxes, fixed)
    for one, regions in layers(job, boxes, fixed, width, height):
        suited(one, form).apply(pixels, regions)
    if tinted:
        painter, pieces = painter_of(tinted, tints(tinted), opacity=TINT, form=form)
        painter.apply(pixels, pieces)


def _check(picture: Picture, written: Path, name: str) -> None:
    """Read back what was written: it must decode, have the same size, and hold nothing but pixels."""
    room = "it was not kept. Is there room on the disk?"
    if not written.stat().st_size:
        raise UnreadableMedia(f"{name}: the redacted copy is empty; {room}")
    sizes = [page.pixels.shape[:2] for page in picture.pages]
    try:
        again = read_picture(written, 2 * sum(height * width for height, width in sizes))
    except MediaError as error:
        raise UnreadableMedia(f"{name}: the redacted copy does not decode; {room} ({error})") from error
    if again.kind != picture.kind or {page.pixels.shape[:2] for page in again.pages} != set(sizes):
        raise UnreadableMedia(f"{name}: the redacted copy has another size than the picture; {room}")
    found = leftovers(written)
    if any("cannot be walked" in one for one in found):
        raise UnreadableMedia(f"{name}: the redacted copy is torn; {room} ({'; '.join(found)})")
    if found:
        raise MediaError(f"{name}: the redacted copy still held {'; '.join(found)}; it was not kept")
