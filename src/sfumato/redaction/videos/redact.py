"""Videos: look at some frames, follow what was found through all of them, cover it, write.

Two passes over the file, so that a frame can be covered for what is seen only later. Between them lie boxes
and times, no pixels: what is kept grows with the length by some dozen bytes per frame.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

import av.error

from sfumato.core.errors import InvalidRequest, MediaError, UnsupportedMedia
from sfumato.core.files import whole
from sfumato.redaction.job import Job, Outcome, Progress
from sfumato.redaction.layers import places, said
from sfumato.redaction.sealed.sealer import Sealer
from sfumato.redaction.sealed.take import about_video
from sfumato.redaction.videos.audio import Sound
from sfumato.redaction.videos.check import check_written
from sfumato.redaction.videos.follow import Rules, follow
from sfumato.redaction.videos.hands import Hands, OwnHands
from sfumato.redaction.videos.looking import ChunkSights, together
from sfumato.redaction.videos.making import Edit, edit_for, join
from sfumato.redaction.videos.scan import Scan
from sfumato.redaction.videos.subtitles import Words
from sfumato.redaction.videos.survey import Survey
from sfumato.redaction.videos.survey import survey as survey_video
from sfumato.redaction.videos.target import Target, target_of
from sfumato.redaction.zones import picks
from sfumato.vision.opencv import one_thread
from sfumato.vision.tracks import Track

#: Longest gap, in seconds, that is bridged between two sightings of one thing.
LONGEST_BRIDGE = 2


def redact_video_file(
    source: Path,
    target: Path,
    job: Job,
    progress: Progress | None = None,
    hands: Hands | None = None,
    sealer: Sealer | None = None,
) -> Outcome:
    """Write a copy of a video in which the wanted things are hidden in every frame.

    >>> redact_video_file(Path("street.mp4"), Path("safe.mp4"), job)  # doctest: +SKIP

    Guarantee:
        - `target` holds all of the output or is left as it was; `source` is never changed.
        - Every frame of the source is in the output, at its time, in its size, upright: a rotation mark is
          carried out on the pixels, so that no reader sees it sideways.
        - A thing seen in two looked-at frames is covered in the frames between them and held at both ends.
        - No container or stream metadata but the language of a track, no chapter, data stream or attached
          picture is written, and of subtitles nothing or, where wanted, the plain words. The
          written file is opened again and checked before it takes its name.
        - A damaged or cut file gives an error and no output.

    Args:
        source: a video file.
        target: the output; its suffix chooses the container: .mp4, .m4v, .mov, .mkv, .webm, .avi.
        job: settings, finder and cover.
        progress: called with (frames done, frames in all) over both passes, so a video counts twice.
        hands: work on the chunks; None: this thread does. The output is the same.
        sealer: keeps what is hidden, encrypted; see `sfumato.redaction.sealed`.

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
    with one_thread():
        return _redact(
            source, target, form, job, progress or _silent, hands or OwnHands(job, sealer=sealer), sealer
        )


def _redact(
    source: Path, target: Path, form: Target, job: Job, tell: Progress, hands: Hands, sealer: Sealer | None
) -> Outcome:
    """Do what `redact_video_file` says."""
    try:
        survey = survey_video(source, form, job.settings)
        parts = _look(source, survey, hands, tell)
        job.finder.rest()
        scan = together(source.name, form, survey, parts)
    except av.error.FFmpegError as error:
        raise UnsupportedMedia(
            f"{source.name}: its pictures cannot be converted ({error.strerror}); convert it to MP4 first"
        ) from error
    tracks, kept = spare(tracks_of(scan, job), scan, job)
    fixed = places(job, source, scan.canvas.width, scan.canvas.height)
    try:
        edit = edit_for(source, form, survey, parts, scan, tracks, job)
        with whole(target) as aside:
            sound, words = _write(source, aside, edit, job, hands, tell)
            check_written(aside, source.name, form, scan, len(sound), len(words))
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(
            f"{source.name} could not be written to {target.name}: {error.strerror or error}. "
            f"Is there room on the disk? Else try another suffix, or audio='drop'"
        ) from error
    if sealer is not None:
        sealer.describe(about_video(scan.canvas, len(scan.times)))
    return Outcome(
        kind="video",
        regions=dict(sorted((Counter(track.label for track in tracks) + fixed.counts).items())),
        width=scan.canvas.width,
        height=scan.canvas.height,
        frames=len(scan.times),
        notes=tuple(
            dict.fromkeys((*scan.notes, *scan.canvas.notes, *sound.notes, *words.notes, *fixed.notes, *kept))
        ),
    )


def _silent(done: int, total: int | None) -> None:
    """Tell nobody."""


def _look(source: Path, survey: Survey, hands: Hands, tell: Progress) -> list[ChunkSights]:
    """First pass: look at every chunk."""
    total = survey.packets

    def told(done: int) -> None:
        tell(done, 2 * total if done <= total else None)

    with contextlib.closing(hands.looks(source, survey, told)) as looks:
        return list(looks)


def scan_video(source: Path, job: Job, form: Target, told: Progress | None = None) -> Scan:
    """Return what the first pass learns: every frame's time, and what is seen in those that are looked at.

    Args:
        source: a video file.
        job: settings and finder.
        form: how the output would be written: `target_of(path)`.
        told: called with (frames done, frames in both passes).

    Raises:
        UnreadableMedia, UnsupportedMedia, MediaTooLarge: as `redact_video_file`.
    """
    survey = survey_video(source, form, job.settings)
    return together(source.name, form, survey, _look(source, survey, OwnHands(job), told or _silent))


def tracks_of(scan: Scan, job: Job) -> list[Track]:
    """Lay tracks through all frames."""
    least = {label: job.finder.threshold(label) for label in job.finder.hide}
    step = scan.step(job.settings.every)
    bridge = max(4 * step, round(LONGEST_BRIDGE * scan.rate))
    return follow(
        scan.sights,
        frames=len(scan.times),
        cuts=scan.cuts,
        sure=lambda label, score: score >= least[label] - 1e-6,
        rules=Rules(step=step, bridge=bridge, linger=max(2, step // 2)),
    )


def spare(tracks: list[Track], scan: Scan, job: Job) -> tuple[list[Track], tuple[str, ...]]:
    """Return the tracks without those that are to be kept, and what to say about it."""
    notes = []
    for pick in picks(job.settings.keep):
        start = scan.times[0] * scan.time_base
        moments = [abs(float(t * scan.time_base - start) - (pick.seconds or 0.0)) for t in scan.times]
        frame = min(range(len(moments)), key=moments.__getitem__)
        meant = []
        for track in tracks:
            box = track.at(frame)
            if box is not None and pick.marks(
                track.label, box.tolist(), scan.canvas.width, scan.canvas.height
            ):
                meant.append(track)
        tracks = [track for track in tracks if not any(track is one for one in meant)]
        notes.append(said(pick, bool(meant)))
    return tracks, tuple(notes)


def _write(
    source: Path, aside: Path, edit: Edit, job: Job, hands: Hands, tell: Progress
) -> tuple[Sound, Words]:
    """Second pass: make every chunk and join them."""
    total = len(edit.times)
    with contextlib.closing(hands.makes(source, edit)) as made:
        return join(source, aside, edit, made, job, lambda done: tell(total + done, 2 * total))
