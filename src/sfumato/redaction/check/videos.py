"""A video file under the eyes of the check: every frame is looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core.errors import UnsupportedMedia
from sfumato.redaction.check.coverage import GAP, Compared
from sfumato.redaction.check.looks import SAME, Looker, Picture, Seen
from sfumato.redaction.check.metadata import thumbnails, told
from sfumato.redaction.check.report import Find, Report
from sfumato.redaction.job import Progress
from sfumato.redaction.videos.reader import Shot, VideoReader, open_video
from sfumato.vision.boxes import iou

#: Every so many seconds a frame is looked at in every way, whatever the quick look says.
CLOSELY = 2.0


def check_video(
    path: Path,
    name: str,
    looker: Looker,
    *,
    original: Path | None = None,
    thorough: bool = False,
    max_pixels: int,
    subtitles: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Look at every frame with the quick detector, and more closely at some and where it saw something.

    Args:
        path: the output.
        name: what the finds call it.
        looker: looks.
        original: what it was made from.
        thorough: every frame is looked at by all detectors in all ways.
        max_pixels: frames with more are refused.
        subtitles: whether subtitles were to be kept; else a track of them is a find.
        progress: called with (frames done, frames or None).

    Raises:
        MediaError: it cannot be read.
        UnsupportedMedia: the original has other frames.
    """
    report = Report(videos=1)
    report.finds += told(path, "video", name, subtitles=subtitles)
    report.finds += thumbnails(path, "video", name, looker)
    compared, sights = Compared(name), _Sights(name)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(open_video(path, max_pixels))
        source = stack.enter_context(open_video(original, max_pixels)) if original is not None else None
        step = 1 if thorough else max(1, round(CLOSELY * float(reader.rate)))
        total = reader.guess_frames()
        start: float | None = None
        for shot, before in _together(reader, source, name):
            picture = upright(shot.frame)
            close = shot.index % step == 0
            seen = looker.closely(picture, thorough=thorough) if close else looker.quickly(picture)
            at = float(shot.pts * reader.stream.time_base)
            start = at if start is None else start
            sights.take(seen, shot.index, at - start)
            if before is not None:
                if before.shape != picture.shape:
                    raise UnsupportedMedia(
                        f"{name} has frames of another size than its original, so that the two cannot be "
                        "compared"
                    )
                compared.frame(before, picture, looker.quickly(before), shot.index, at - start)
            report.frames += 1
            if progress is not None:
                progress(report.frames, total)
    report.finds += sights.finds
    report.finds += compared.finds()
    report.coverage += compared.coverage()
    return report


def upright(frame: Any) -> Picture:
    """Return a frame as it is shown, in RGB."""
    picture: Picture = frame.to_ndarray(format="rgb24")
    quarters = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, quarters)) if quarters else picture


def _together(
    reader: VideoReader, source: VideoReader | None, name: str
) -> Iterator[tuple[Shot, Picture | None]]:
    """Yield every frame with that of the original, which may have others only by mistake."""
    if source is None:
        for shot in reader.frames():
            yield shot, None
        return
    try:
        for one, two in zip(reader.frames(), source.frames(), strict=True):
            yield one, upright(two.frame)
    except ValueError as error:
        raise UnsupportedMedia(
            f"{name} has another number of frames than its original, so that the two cannot be compared"
        ) from error


class _Sights:
    """What was seen in the frames of one video; the same thing in neighbouring frames is one find."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: list[tuple[int, int]] = []
        self.finds: list[Find] = []

    def take(self, seen: list[Seen], index: int, seconds: float) -> None:
        """Take what was seen in a frame."""
        for one in seen:
            number = self._known(one, index)
            if number is None:
                self._last.append((len(self.finds), index))
                self.finds.append(
                    Find(
                        file=self._name,
                        kind="seen",
                        label=one.label,
                        score=round(one.score, 4),
                        box=one.box,
                        frame=index,
                        seconds=round(seconds, 3),
                        look=one.look,
                    )
                )

    def _known(self, one: Seen, index: int) -> int | None:
        """Count a find once more if this is it, and return its number."""
        self._last = [(number, last) for number, last in self._last if index - last <= GAP]
        for place, (number, last) in enumerate(self._last):
            find = self.finds[number]
            if find.label != one.label or find.box is None or last == index:
                continue
            if iou(np.array([find.box]), np.array([one.box]))[0, 0] > SAME:
                from dataclasses import replace

                self.finds[number] = replace(find, frames=find.frames + 1)
                self._last[place] = (number, index)
                return number
        return None
