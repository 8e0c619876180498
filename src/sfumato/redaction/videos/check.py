"""The last look at a written video, before it takes its name."""

from __future__ import annotations

import math
from array import array
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from sfumato.core.errors import MediaError
from sfumato.redaction.videos import h264
from sfumato.redaction.videos.metadata import left_in
from sfumato.redaction.videos.scan import Scan
from sfumato.redaction.videos.target import Target


def check_written(path: Path, name: str, form: Target, scan: Scan, sounds: int, words: int = 0) -> None:
    """Open a written file again and compare it with what it should be.

    Args:
        path: the file.
        name: what messages call it.
        form: how it was written.
        scan: what the source holds.
        sounds: tracks of sound that it should have.
        words: tracks of subtitles.

    Raises:
        MediaError: frames, times, size or sound differ, or something else is in the file.
    """
    with _opened(path) as container:
        if found := left_in(container, subtitles=words > 0):
            raise MediaError(f"{name}: the output still holds {', '.join(found)}; it was not written")
        stream = container.streams.video[0]
        context = stream.codec_context
        base = stream.time_base or Fraction(1)
        packets = container.demux(stream)
        sound = h264.only_pictures if form.video == "libx264" else _anything
        stamps: list[int] = []
        for packet in packets:
            if packet.size and not sound(bytes(packet)):
                raise MediaError(f"{name}: the output holds something besides pictures; it was not written")
            if packet.size and not packet.is_discard and packet.pts is not None:
                stamps.append(packet.pts)
        times = array("q", sorted(stamps))
        tracks = len(container.streams.audio), len(container.streams.subtitles)
        got = (context.width, context.height, len(times), *tracks)
    wanted = (scan.canvas.width, scan.canvas.height, len(scan.times), sounds, words)
    if got != wanted:
        raise MediaError(
            f"{name}: the output has width, height, frames, audio and subtitle tracks {got} instead of "
            f"{wanted}; it was not written"
        )
    slack = max(scan.time_base, base, 1 / scan.rate if form.steady else Fraction(0))
    unit = Fraction(1, math.lcm(base.denominator, scan.time_base.denominator, slack.denominator))
    ours, theirs, most = (int(one / unit) for one in (base, scan.time_base, slack))
    for index, (one, two) in enumerate(zip(times, scan.times, strict=True)):
        if abs(one * ours - (two - scan.start) * theirs) > most:
            shown, wished = one * base, (two - scan.start) * scan.time_base
            raise MediaError(
                f"{name}: frame {index} of the output is shown at {float(shown):.6f} s instead of "
                f"{float(wished):.6f} s; it was not written"
            )


def _opened(path: Path) -> Any:
    try:
        return av.open(str(path.absolute()), metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise MediaError(f"the written video does not open again: {error.strerror}") from error


def _anything(data: bytes) -> bool:
    """Codecs of which nothing is copied have nothing to be looked for."""
    return True
