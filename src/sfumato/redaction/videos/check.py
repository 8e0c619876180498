"""The last look at a written video, before it takes its name."""

from __future__ import annotations

from array import array
from fractions import Fraction
from pathlib import Path

import av

from sfumato.core.errors import MediaError
from sfumato.redaction.videos import h264
from sfumato.redaction.videos.metadata import leftovers
from sfumato.redaction.videos.scan import Scan
from sfumato.redaction.videos.target import Target


def check_written(path: Path, name: str, form: Target, scan: Scan, sounds: int) -> None:
    """Open a written file again and compare it with what it should be.

    Args:
        path: the file.
        name: what messages call it.
        form: how it was written.
        scan: what the source holds.
        sounds: tracks of sound that it should have.

    Raises:
        MediaError: frames, times, size or sound differ, or something else is in the file.
    """
    if found := leftovers(path):
        raise MediaError(f"{name}: the output still holds {', '.join(found)}; it was not written")
    with av.open(str(path.absolute())) as container:
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
        got = (context.width, context.height, len(times), len(container.streams.audio))
    wanted = (scan.canvas.width, scan.canvas.height, len(scan.times), sounds)
    if got != wanted:
        raise MediaError(
            f"{name}: the output has width, height, frames and audio tracks {got} instead of {wanted}; "
            f"it was not written"
        )
    slack = max(scan.time_base, base, 1 / scan.rate if form.steady else Fraction(0))
    for index, (one, two) in enumerate(zip(times, scan.times, strict=True)):
        shown, wished = one * base, (two - scan.start) * scan.time_base
        if abs(shown - wished) > slack:
            raise MediaError(
                f"{name}: frame {index} of the output is shown at {float(shown):.6f} s instead of "
                f"{float(wished):.6f} s; it was not written"
            )


def _anything(data: bytes) -> bool:
    """Codecs of which nothing is copied have nothing to be looked for."""
    return True
