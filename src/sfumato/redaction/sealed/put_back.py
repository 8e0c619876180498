"""Putting sealed pixels back into a copy of a redacted file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import IntegrityError, InvalidRequest
from sfumato.redaction.job import Progress
from sfumato.redaction.kinds import EXTENSIONS
from sfumato.redaction.sealed.pack import Piece, crop
from sfumato.redaction.sealed.sidecar import Sealed
from sfumato.redaction.sealed.take import canvas_of

#: What a restored video is written to bit for bit.
EXACT = ".mkv"


def check_target(sealed: Sealed, source: Path, target: Path, *, exact: bool) -> None:
    """Refuse a name that the restored file cannot have, before anything is opened.

    Raises:
        InvalidRequest: says which names can be.
    """
    suffix = target.suffix.lower()
    if sealed.table["about"]["kind"] == "video":
        from sfumato.redaction.videos.target import target_of

        form = target_of(target)
        if exact and suffix != EXACT:
            raise InvalidRequest(
                f"only {EXACT} holds a video bit for bit, got {target.name!r}: write to NAME{EXACT}"
            )
        canvas = canvas_of(sealed.table["about"])
        if form.steady or not (exact or canvas.pix_fmt in form.pixel_formats()):
            raise InvalidRequest(
                f"{suffix} cannot hold what was sealed ({canvas.pix_fmt}): write to NAME{EXACT}, "
                "with --exact bit for bit"
            )
        return
    from sfumato.redaction.kinds import head_of, image_kind

    kind = image_kind(head_of(source)) or ""
    if exact and suffix not in EXTENSIONS["png"] + EXTENSIONS["tiff"]:
        raise InvalidRequest(f"only .png and .tif hold a picture bit for bit, got {target.name!r}")
    if suffix not in (*EXTENSIONS["png"], *EXTENSIONS.get(kind, ())):
        raise InvalidRequest(f"a restored {kind} is written to .png or {EXTENSIONS.get(kind, ('',))[0]}")


def put_back(
    sealed: Sealed,
    source: Path,
    target: Path,
    chosen: Sequence[int],
    *,
    exact: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write a copy of a redacted file with the pixels of some tracks put back.

    Guarantee:
        Before it is encoded, every pixel that only chosen tracks hid is, bit for bit, what it was before it
        was covered. What another track hides too stays hidden.

    Args:
        sealed: the originals of `source`.
        source: the redacted file.
        target: where to write; its suffix says how.
        chosen: numbers of tracks.
        exact: write a video without any loss.
        progress: called with frames done and frames in all.

    Returns:
        How many frames or pages had something put back.

    Raises:
        IntegrityError: a record was changed, or frames do not match what was sealed.
        MediaError: the redacted file does not read, or the restored one could not be written.
    """
    if sealed.table["about"]["kind"] == "video":
        return _video(sealed, source, target, chosen, exact, progress)
    return _picture(sealed, source, target, chosen)


def _picture(sealed: Sealed, source: Path, target: Path, chosen: Sequence[int]) -> int:
    from sfumato.redaction.images.read import read_picture
    from sfumato.redaction.images.write import write_picture

    picture = read_picture(source, 1 << 40)
    if target.suffix.lower() in EXTENSIONS["png"] and picture.kind != "png":
        picture.kind, picture.coding = "png", {}
    touched = set()
    for pieces in sealed.pieces(chosen):
        for piece in pieces:
            page = picture.pages[piece.index]
            touched.add(piece.index)
            for (x1, y1, x2, y2), planes in zip(piece.rects, piece.crops, strict=True):
                page.pixels[y1:y2, x1:x2] = _alike(planes[0], page.pixels)
    write_picture(picture, target)
    return len(touched)


def _alike(original: NDArray[Any], pixels: NDArray[Any]) -> NDArray[Any]:
    """Return original pixels with the channels of the picture that they go to."""
    if original.dtype != pixels.dtype:
        raise IntegrityError(
            f"the redacted picture reads as {pixels.dtype}, and its originals are {original.dtype}: it was "
            "written by another version of Sfumato; restore with that one"
        )
    if original.shape[2:] == pixels.shape[2:]:
        return original
    if original.ndim == 2:
        original = np.repeat(original[:, :, None], 1 if pixels.shape[2] == 2 else 3, axis=2)
    channels, wanted = original.shape[2], 1 if pixels.ndim == 2 else pixels.shape[2]
    if wanted == channels + 1:  # the writer gave every page alpha
        full = np.iinfo(pixels.dtype).max
        return np.concatenate([original, np.full_like(original[:, :, :1], full)], axis=2)
    if wanted == channels:
        return original
    raise IntegrityError(
        f"the redacted picture has {wanted} channels, and its originals {channels}: it was written by "
        "another version of Sfumato; restore with that one"
    )


def _video(
    sealed: Sealed, source: Path, target: Path, chosen: Sequence[int], exact: bool, progress: Progress | None
) -> int:
    from sfumato.redaction.videos.audio import Sound
    from sfumato.redaction.videos.encode import Coder, Coding
    from sfumato.redaction.videos.making import OWN_DEPTH
    from sfumato.redaction.videos.reader import open_video
    from sfumato.redaction.videos.target import target_of
    from sfumato.redaction.videos.writer import VideoWriter

    about = sealed.table["about"]
    canvas, form = canvas_of(about), target_of(target)
    limit = 4 * canvas.width * canvas.height + (1 << 16)  # decoders count whole blocks, and some more
    if exact:
        form = replace(form, video="ffv1", options={"level": "3", "slices": "4", "slicecrc": "1"}, even=False)
    with open_video(source, limit) as first:  # sound is told from packets: all must have been seen
        times = [shot.pts for shot in first.frames()]
        base, spans, rate = first.stream.time_base, first.spans, first.rate
    if len(times) != about["frames"]:
        raise IntegrityError(
            f"{source.name} has {len(times)} frames, and originals were sealed for {about['frames']}"
        )
    coding = Coding(form=form, canvas=canvas, time_base=base, rate=rate)
    usual, touched = max(round(1 / rate / base), 1), 0
    waiting, coder = _Waiting(sealed.pieces(chosen)), Coder(coding)
    with (
        open_video(source, limit) as reader,
        VideoWriter(target, coding, None, times, OWN_DEPTH if coding.is_h264 else 0) as writer,
    ):
        sound = Sound(reader, writer, "copy", spans, times[-1] * base + 1 / rate)
        for shot in reader.frames(sound.take):
            frame = canvas.draw(shot.frame)
            touched += _restored(frame, waiting.at(shot.index), canvas.cell)
            for picture in coder.write(frame, shot.pts, shot.frame.duration or usual):
                writer.write(picture)
            sound.until(shot.pts * base)
            if progress is not None:
                progress(shot.index + 1, about["frames"])
        for picture in coder.finish():
            writer.write(picture)
        writer.finish()
        sound.finish()
    return touched


def _restored(frame: Any, pieces: Sequence[Piece], cell: tuple[int, int]) -> bool:
    """Put pieces back into a frame of our own; say whether there were any."""
    from sfumato.redaction.videos.frames import planes

    for piece in pieces:
        for rect, own in zip(piece.rects, piece.crops, strict=True):
            for plane, original in zip(crop(planes(frame), rect, cell), own, strict=True):
                plane[:] = original
    return bool(pieces)


class _Waiting:
    """Pieces in order of frames, from records in order of their first: no more is read than is needed."""

    def __init__(self, records: Iterator[list[Piece]]) -> None:
        self._records = records
        self._next = next(records, None)
        self._held: dict[int, list[Piece]] = {}

    def at(self, index: int) -> list[Piece]:
        """Return the pieces of a frame; frames must come in order."""
        while self._next is not None and self._next[0].index <= index:
            for piece in self._next:
                self._held.setdefault(piece.index, []).append(piece)
            self._next = next(self._records, None)
        return self._held.pop(index, [])
