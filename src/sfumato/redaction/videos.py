"""Videos: look at some frames, follow what was found through all of them, cover it, write.

Two passes over the file, so that a frame can be covered for what is seen only later. Between them lie boxes
and times, no pixels: memory does not grow with the length but for some dozen bytes per frame.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import av.error

from sfumato.core.errors import InvalidRequest, MediaError, UnreadableMedia, UnsupportedMedia
from sfumato.core.files import whole
from sfumato.redaction.covers import apply_yuv
from sfumato.redaction.follow import Rules, Timeline, follow
from sfumato.redaction.job import Job, Outcome, Progress
from sfumato.redaction.regions import regions_of
from sfumato.redaction.second_look import SecondLook
from sfumato.redaction.video_audio import Sound
from sfumato.redaction.video_frames import Canvas, CutFinder, canvas_for, planes
from sfumato.redaction.video_metadata import leftovers
from sfumato.redaction.video_reader import Shot, VideoReader, open_video
from sfumato.redaction.video_writer import Target, VideoWriter, target_of
from sfumato.vision.boxes import Boxes
from sfumato.vision.tracks import Track

#: Share of the full threshold from which a box may extend or bridge a track.
WEAK = 0.5
#: Longest time, in seconds, between two looks: in a slow video every k-th frame would be too seldom.
LONGEST_STEP = Fraction(1, 2)
#: Seconds for which a thing that was lost is looked for more closely.
PATIENCE = 2
#: Longest gap, in seconds, that is bridged between two sightings of one thing.
LONGEST_BRIDGE = 2


@dataclass(slots=True)
class Scan:
    """What the first pass learnt.

    Args:
        canvas: what frames are drawn on.
        time_base: unit of `times`, in seconds.
        rate: usual frames per second.
        times: of every frame, in order of showing.
        start: time that becomes nought in the output, in the same unit.
        sights: looked-at frame -> boxes, weak ones included.
        cuts: first frames of new scenes.
        spans: audio stream index -> (start, end) in seconds.
        notes: what the output leaves out or changes.
    """

    canvas: Canvas
    time_base: Fraction
    rate: Fraction
    times: array[int] = field(default_factory=lambda: array("q"))
    start: int = 0
    sights: dict[int, Boxes] = field(default_factory=dict)
    cuts: set[int] = field(default_factory=set)
    spans: dict[int, tuple[Fraction, Fraction]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def redact_video_file(source: Path, target: Path, job: Job, progress: Progress | None = None) -> Outcome:
    """Write a copy of a video in which the wanted things are hidden in every frame.

    >>> redact_video_file(Path("street.mp4"), Path("safe.mp4"), job)  # doctest: +SKIP

    Guarantee:
        - `target` holds all of the output or is left as it was; `source` is never changed.
        - Every frame of the source is in the output, at its time, in its size, upright: a rotation mark is
          carried out on the pixels, so that no reader sees it sideways.
        - A thing seen in two looked-at frames is covered in the frames between them and held at both ends.
        - No container or stream metadata, chapter, subtitle, data stream or attached picture is written. The
          written file is opened again and checked before it takes its name.
        - A damaged or cut file gives an error and no output.

    Args:
        source: a video file.
        target: the output; its suffix chooses the container: .mp4, .m4v, .mov, .mkv, .webm, .avi.
        job: settings, finder and cover.
        progress: called with (frames done, frames in all) over both passes, so a video counts twice.

    Raises:
        InvalidRequest: `source` and `target` are one file.
        UnreadableMedia: empty, damaged, cut short, or it changed while it was read.
        UnsupportedMedia: no video in it, or the output cannot hold it.
        MediaTooLarge: frames have more than `settings.max_pixels` pixels.
        MediaError: the output could not be written or did not pass its check.
    """
    form = target_of(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise InvalidRequest(f"{source.name} would be written over itself; choose another output")
    tell = progress or _silent
    try:
        scan = _scan(source, form, job, tell)
    except av.error.FFmpegError as error:
        raise UnsupportedMedia(
            f"{source.name}: its pictures cannot be converted ({error.strerror}); convert it to MP4 first"
        ) from error
    tracks = _follow(scan, job)
    try:
        with whole(target) as aside:
            sound = _write(source, aside, form, scan, tracks, job, tell)
            _check(aside, source.name, form, scan, len(sound))
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(
            f"{source.name} could not be written to {target.name}: {error.strerror or error}. "
            f"Is there room on the disk? Else try another suffix, or audio='drop'"
        ) from error
    return Outcome(
        kind="video",
        regions=dict(sorted(Counter(track.label for track in tracks).items())),
        width=scan.canvas.width,
        height=scan.canvas.height,
        frames=len(scan.times),
        notes=tuple(dict.fromkeys((*scan.notes, *scan.canvas.notes, *sound.notes))),
    )


def _silent(done: int, total: int | None) -> None:
    """Tell nobody."""


def _scan(source: Path, form: Target, job: Job, tell: Progress) -> Scan:
    """First pass: read every frame, look at some."""
    formats = form.pixel_formats()
    with open_video(source, job.settings.max_pixels) as reader:
        guess = reader.guess_frames()
        scan: Scan | None = None
        looker: _Looker | None = None
        for shot in reader.frames():
            if scan is None or looker is None:
                scan = _new_scan(reader, shot, formats, form.even)
                looker = _Looker(scan, job)
            looker.see(shot)
            scan.times.append(shot.pts)
            tell(shot.index + 1, 2 * guess if guess and shot.index < guess else None)
        if scan is None or looker is None:
            raise UnreadableMedia(f"{source.name} holds no picture that can be decoded")
        looker.finish()
        scan.spans, scan.notes = reader.spans, tuple(reader.notes)
    if form.steady:
        _settle_steady(source.name, scan)
    return scan


def _new_scan(reader: VideoReader, shot: Shot, formats: frozenset[str], even: bool) -> Scan:
    stream = reader.stream
    canvas = canvas_for(shot.frame, stream.codec_context, stream.sample_aspect_ratio, formats, even)
    return Scan(canvas, stream.time_base, reader.rate)


class _Looker:
    """Chooses the frames to look at and keeps what the finder finds there."""

    def __init__(self, scan: Scan, job: Job) -> None:
        self._scan, self._every = scan, job.settings.every
        self._cuts = CutFinder()
        self._eye = SecondLook(
            job.finder, weak=WEAK, step=_step(scan, job), patience=round(PATIENCE * scan.rate)
        )
        self._before: Shot | None = None
        self._looked: Shot | None = None

    def see(self, shot: Shot) -> None:
        """Take the next frame: look at it where it is due, and on both sides of a cut or a gap in time."""
        before, looked = self._before, self._looked
        new_scene = self._cuts.is_cut(shot.frame) or (before is not None and self._is_gap(before, shot))
        if new_scene and before is not None:
            self._scan.cuts.add(shot.index)
            self._look(before)
            self._eye.forget()
        if (
            new_scene
            or looked is None
            or shot.index - looked.index >= self._every
            or (shot.pts - looked.pts) * self._scan.time_base >= LONGEST_STEP
        ):
            self._look(shot)
        self._before = shot

    def finish(self) -> None:
        """Look at the last frame."""
        if self._before is not None:
            self._look(self._before)

    def _is_gap(self, before: Shot, shot: Shot) -> bool:
        """Say whether so much time has passed that nobody knows where things went."""
        time = (shot.pts - before.pts) * self._scan.time_base
        return time >= LONGEST_STEP and time > 4 / self._scan.rate

    def _look(self, shot: Shot) -> None:
        if self._looked is None or shot.index > self._looked.index:
            picture = self._scan.canvas.rgb(shot.frame)
            self._scan.sights[shot.index] = self._eye.candidates(shot.index, picture)
            self._looked = shot


def _step(scan: Scan, job: Job) -> int:
    """Return the usual distance, in frames, of two looked-at frames."""
    return max(min(job.settings.every, int(LONGEST_STEP * scan.rate)), 1)


def _follow(scan: Scan, job: Job) -> list[Track]:
    """Lay tracks through all frames."""
    least = {label: job.finder.threshold(label) for label in job.finder.hide}
    step = _step(scan, job)
    bridge = max(4 * step, round(LONGEST_BRIDGE * scan.rate))
    return follow(
        scan.sights,
        frames=len(scan.times),
        cuts=scan.cuts,
        sure=lambda label, score: score >= least[label] - 1e-6,
        rules=Rules(step=step, bridge=bridge, linger=max(2, step // 2)),
    )


def _write(
    source: Path, aside: Path, form: Target, scan: Scan, tracks: list[Track], job: Job, tell: Progress
) -> Sound:
    """Second pass: read again, cover, encode."""
    canvas, total = scan.canvas, len(scan.times)
    timeline = Timeline(tracks)
    with (
        open_video(source, job.settings.max_pixels) as reader,
        VideoWriter(aside, form, canvas, scan.time_base, scan.rate) as writer,
    ):
        sound = Sound(reader, writer, job.settings.audio, scan.spans)
        for shot in _same_frames(source.name, reader.frames(sound.take), scan):
            frame = canvas.draw(shot.frame)
            regions = regions_of(timeline.at(shot.index), job.settings, canvas.width, canvas.height)
            apply_yuv(
                job.cover,
                planes(frame),
                regions,
                subsampling=canvas.cell,
                bits=canvas.bits,
                full_range=canvas.full_range,
                interlaced=bool(shot.frame.interlaced_frame),
            )
            sound.until(shot.pts * scan.time_base)
            writer.write(frame, shot.pts - scan.start, shot.frame.duration, scan.time_base)
            tell(total + shot.index + 1, 2 * total)
        writer.finish()
        sound.finish()
    return sound


def _same_frames(name: str, shots: Iterable[Shot], scan: Scan) -> Iterable[Shot]:
    """Yield the frames of the second pass while they are those of the first.

    Raises:
        UnreadableMedia: another frame came, or not as many: tracks would lie on the wrong pictures.
    """
    count = 0
    for shot in shots:
        if shot.index >= len(scan.times) or shot.pts != scan.times[shot.index]:
            break
        yield shot
        count += 1
    else:
        if count == len(scan.times):
            return
    raise UnreadableMedia(
        f"{name} read differently the second time, at frame {count} of {len(scan.times)}: "
        f"it changed meanwhile, or it is damaged. Copy it aside and try again"
    )


def _settle_steady(name: str, scan: Scan) -> None:
    """Fit a video to a container that has one frame duration and starts at nought.

    Raises:
        UnsupportedMedia: its times are too uneven for that, or it starts too late.
    """
    frame = 1 / scan.rate
    start = scan.times[0] * scan.time_base
    uneven = any(
        abs(time * scan.time_base - start - index * frame) > frame / 2
        for index, time in enumerate(scan.times)
    )
    if uneven or not 0 <= start <= 3 * frame:
        raise UnsupportedMedia(
            f"{name}: its frames start at {float(start):.3f} s or do not last equally long, which .avi "
            f"cannot hold; write to .mp4 or .mkv"
        )
    if start:
        scan.start = scan.times[0]
        scan.notes += (f"the first frame is shown {float(start):.3f} s earlier: .avi starts at nought",)


def _check(path: Path, name: str, form: Target, scan: Scan, sounds: int) -> None:
    """Open the written file again and compare it with what it should be.

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
        times = array(
            "q", sorted(p.pts for p in packets if p.size and not p.is_discard and p.pts is not None)
        )
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
