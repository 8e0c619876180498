from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from sfumato.core.errors import (
    UnreadableMedia,
    UnsupportedMedia,
)
from sfumato.redaction.job import Job
from sfumato.redaction.videos import redact as videos
from sfumato.redaction.videos import redact_video_file
from sfumato.vision.boxes import Boxes
from sfumato.vision.finder import Finder
from sfumato.vision.toy import ToyDetector
from sfumato.vision.tracks import Track

Make = Callable[..., Path]
MakeJob = Callable[..., Job]
Frames = Callable[[Path], list[int]]
Times = Callable[[Path], list[Fraction]]


def packet_times(path: Path, kind: str, number: int = 0) -> list[float]:
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[number]
        return [float(p.pts * p.time_base) for p in container.demux(stream) if p.size]


class TestEverySquareIsCovered:
    @pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi"])
    def test_in_every_frame_of_every_container(
        self, clip: Make, toy_job: MakeJob, open_frames: Frames, times_of: Times, tmp_path: Path, suffix: str
    ) -> None:
        source, target = clip("in.mp4"), tmp_path / f"out{suffix}"
        assert len(open_frames(source)) == 24  # the check can fail
        outcome = redact_video_file(source, target, toy_job())
        assert open_frames(target) == []
        assert (outcome.width, outcome.height, outcome.frames) == (160, 96, 24)
        assert dict(outcome.regions) == {"face": 2}
        assert times_of(target) == pytest.approx(times_of(source), abs=0.001)

    def test_by_a_solid_cover(
        self, clip: Make, toy_job: MakeJob, open_frames: Frames, tmp_path: Path
    ) -> None:
        target = tmp_path / "out.mp4"
        redact_video_file(clip("in.mp4"), target, toy_job(cover="solid", every=4))
        assert open_frames(target) == []

    @pytest.mark.parametrize("seed", range(4))
    def test_where_the_detector_misses_frames_at_random(
        self, clip: Make, toy_job: MakeJob, open_frames: Frames, tmp_path: Path, seed: int
    ) -> None:
        # A third of the looks find nothing; never two in a row at the ends, where nothing can be known.
        drawn = random.Random(seed)
        missed = {call for call in range(2, 22) if drawn.random() < 0.34}
        target = tmp_path / "out.mp4"
        redact_video_file(clip("in.mp4"), target, toy_job(blind=missed.__contains__, every=1))
        assert open_frames(target) == []

    def test_where_every_other_look_finds_nothing(
        self, clip: Make, toy_job: MakeJob, open_frames: Frames, tmp_path: Path
    ) -> None:
        target = tmp_path / "out.mp4"
        redact_video_file(clip("in.mp4"), target, toy_job(blind=lambda call: call in (1, 3), every=5))
        assert open_frames(target) == []

    def test_and_a_twin_without_interpolation_leaves_frames_open(
        self,
        clip: Make,
        toy_job: MakeJob,
        open_frames: Frames,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def twin(sights: Any, **rest: Any) -> list[Track]:
            return [Track("face", f, box[None]) for f, boxes in sights.items() for box in boxes.xyxy]

        monkeypatch.setattr(videos, "follow", twin)
        target = tmp_path / "out.mp4"
        redact_video_file(clip("in.mp4"), target, toy_job(every=5))
        assert len(open_frames(target)) >= 10

    def test_a_square_that_comes_and_goes_between_looks_is_covered_from_end_to_end(
        self, clip: Make, toy_job: MakeJob, open_frames: Frames, tmp_path: Path
    ) -> None:
        def squares(index: int) -> list[tuple[int, int, int]]:
            return [(40 + index, 40, 16)] if 7 <= index <= 18 else []

        target = tmp_path / "out.mp4"
        redact_video_file(clip("in.mp4", squares=squares, frames=30), target, toy_job(every=5))
        assert open_frames(target) == []

    def test_on_both_sides_of_a_cut(
        self, clip: Make, toy_job: MakeJob, open_frames: Frames, tmp_path: Path
    ) -> None:
        def squares(index: int) -> list[tuple[int, int, int]]:
            return [(100, 30, 16)] if index < 13 else [(30, 60, 16)]

        source = clip("in.mp4", squares=squares, shade=lambda index: 60 if index < 13 else 0)
        target = tmp_path / "out.mp4"
        redact_video_file(source, target, toy_job(every=10))
        assert open_frames(target) == []


class TestFramesAndTimes:
    def test_gaps_and_uneven_times_are_kept(
        self, clip: Make, toy_job: MakeJob, times_of: Times, tmp_path: Path, open_frames: Frames
    ) -> None:
        times = [0, 31, 70, 99, 140, 1500, 1533, 1570, 1601, 1640, 1671, 1700]
        source = clip("in.mp4", times=times, time_base=Fraction(1, 1000), frames=12)
        for name in ("out.mp4", "out.mkv", "out.mov", "out.webm"):
            redact_video_file(source, tmp_path / name, toy_job())
            assert times_of(tmp_path / name) == pytest.approx([t / 1000 for t in times], abs=0.001)
            assert open_frames(tmp_path / name) == []

    def test_uneven_times_do_not_fit_avi(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        source = clip("in.mp4", times=[0, 31, 700], time_base=Fraction(1, 1000), frames=3)
        with pytest.raises(UnsupportedMedia, match="write to"):
            redact_video_file(source, tmp_path / "out.avi", toy_job())
        assert not (tmp_path / "out.avi").exists()

    @pytest.mark.parametrize("mode", ["copy", "mute"])
    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_a_late_video_starts_late_and_the_sound_does_not(
        self, clip: Make, toy_job: MakeJob, times_of: Times, tmp_path: Path, mode: str, suffix: str
    ) -> None:
        late = [3834 + 180 * n for n in range(12)]  # 0.852 s at 4500 ticks per second
        source = clip("in.mp4", times=late, time_base=Fraction(1, 4500), frames=12, audio=["aac"])
        target = tmp_path / f"out{suffix}"
        redact_video_file(source, target, toy_job(audio=mode))
        assert times_of(target) == pytest.approx([n / 4500 for n in late], abs=0.001)
        start, end = packet_times(target, "audio")[0], packet_times(target, "audio")[-1]
        was = packet_times(source, "audio")
        assert start == pytest.approx(was[0], abs=0.0225)  # an encoder may start one packet early
        assert end == pytest.approx(was[-1], abs=0.0225)

    def test_ticks_are_exact_in_mp4(
        self, clip: Make, toy_job: MakeJob, times_of: Times, tmp_path: Path
    ) -> None:
        base = Fraction(1, 90_000)
        source = clip("in.mp4", times=[7 + 3003 * n for n in range(10)], time_base=base, frames=10)
        redact_video_file(source, tmp_path / "out.mp4", toy_job())
        assert times_of(tmp_path / "out.mp4") == times_of(source)

    @pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi"])
    def test_odd_sizes_are_kept(
        self, clip: Make, toy_job: MakeJob, look: Any, open_frames: Frames, tmp_path: Path, suffix: str
    ) -> None:
        source = clip("in.mkv", size=(161, 91), codec="ffv1", options={})
        outcome = redact_video_file(source, tmp_path / f"out{suffix}", toy_job())
        assert (outcome.width, outcome.height) == (161, 91)
        assert {image.shape for image in look(tmp_path / f"out{suffix}")} == {(91, 161, 3)}
        assert open_frames(tmp_path / f"out{suffix}") == []

    @pytest.mark.parametrize("rotation", [90, 180, 270])
    def test_a_rotation_mark_is_carried_out(
        self, clip: Make, toy_job: MakeJob, look: Any, open_frames: Frames, tmp_path: Path, rotation: int
    ) -> None:
        def squares(index: int) -> list[tuple[int, int, int]]:
            return [(10 + 2 * index, 12, 16)]

        source = clip("in.mp4", rotation=rotation, squares=squares)
        target = tmp_path / "out.mp4"
        outcome = redact_video_file(source, target, toy_job(cover="solid", cover_options={}))
        size = (160, 96) if rotation == 180 else (96, 160)
        assert (outcome.width, outcome.height) == size
        with av.open(str(target)) as container:
            assert next(container.decode(video=0)).rotation == 0
        first = look(target)[0].astype(int)
        plain = squares(0)[0]
        assert open_frames(target) == []
        # The red of the picture grows to the right, its green downwards: upright.
        x, y, side = plain
        assert first[-8:, -8:, 0].mean() > first[-8:, :8, 0].mean() + 10
        assert first[-8:, -8:, 1].mean() > first[:8, -8:, 1].mean() + 8
        assert abs(first[y + side // 2, x + side // 2] - first[y + side // 2, x + 2 * side]).sum() > 40


class TestSamplesAndColour:
    @pytest.mark.parametrize(
        ("pix_fmt", "codec", "kept"),
        [
            ("yuv420p10le", "libx264", "yuv420p10le"),
            ("yuv422p", "libx264", "yuv422p"),
            ("yuv444p", "libx264", "yuv444p"),
            ("yuv422p10le", "libx264", "yuv422p10le"),
            ("yuvj420p", "mjpeg", "yuvj420p"),
            ("gray", "ffv1", "yuv420p"),
            ("yuva420p", "ffv1", "yuv420p"),
            ("yuv411p", "ffv1", "yuv422p"),
            ("bgr0", "ffv1", "yuv444p"),
        ],
    )
    def test_the_sample_format_is_kept_or_the_nearest_finer_one_taken(
        self,
        clip: Make,
        toy_job: MakeJob,
        open_frames: Frames,
        look: Any,
        tmp_path: Path,
        pix_fmt: str,
        codec: str,
        kept: str,
    ) -> None:
        options = {"crf": "10", "preset": "ultrafast"} if codec == "libx264" else {}
        source = clip("in.mkv", pix_fmt=pix_fmt, codec=codec, options=options, frames=8)
        target = tmp_path / "out.mp4"
        redact_video_file(source, target, toy_job())
        with av.open(str(target)) as container:
            assert container.streams.video[0].codec_context.pix_fmt == kept
        if pix_fmt != "gray":
            assert open_frames(source)
        assert open_frames(target) == []
        one, two = look(source)[3].astype(int), look(target)[3].astype(int)
        assert np.abs(one[:, 130:, :] - two[:, 130:, :])[70:].mean() < 4  # untouched parts look the same

    def test_pictures_stored_bottom_up_stay_upright(
        self, clip: Make, toy_job: MakeJob, open_frames: Frames, look: Any, tmp_path: Path
    ) -> None:
        source = clip("in.avi", pix_fmt="bgr24", codec="rawvideo", options={}, frames=6)
        redact_video_file(source, tmp_path / "out.mp4", toy_job())
        assert open_frames(tmp_path / "out.mp4") == []
        one, two = look(source)[3].astype(int), look(tmp_path / "out.mp4")[3].astype(int)
        assert np.abs(one - two)[80:].mean() < 4

    def test_ten_bits_for_an_encoder_of_eight_are_noted(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path
    ) -> None:
        source = clip("in.mp4", pix_fmt="yuv420p10le", frames=4)
        outcome = redact_video_file(source, tmp_path / "out.avi", toy_job())
        assert "10 bits per sample became 8" in outcome.notes

    def test_colour_tags_and_pixel_shape_are_kept(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        tags = {"color_range": 2, "colorspace": 1, "color_primaries": 1, "color_trc": 13}
        colour: dict[str, Any] = {**tags, "sample_aspect_ratio": Fraction(128, 117)}
        source = clip("in.mp4", frames=4, colour=colour)
        redact_video_file(source, tmp_path / "out.mp4", toy_job())
        with av.open(str(tmp_path / "out.mp4")) as container:
            stream: Any = container.streams.video[0]
            assert {name: int(getattr(stream.codec_context, name)) for name in tags} == tags
            assert stream.sample_aspect_ratio == Fraction(128, 117)


class TestWholeOrNotAtAll:
    @pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError, MemoryError])
    @pytest.mark.parametrize("at", [5, 35, 48])
    def test_a_stop_in_the_middle_leaves_nothing(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path, stop: type[BaseException], at: int
    ) -> None:
        source = clip("in.mp4", audio=["aac"])

        def progress(done: int, total: int | None) -> None:
            if done == at:
                raise stop

        with pytest.raises(stop):
            redact_video_file(source, tmp_path / "out.mp4", toy_job(), progress)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]

    def test_an_older_output_survives_a_failure(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        target = tmp_path / "out.mp4"
        target.write_bytes(b"older")
        bad = tmp_path / "in.mp4"
        bad.write_bytes(b"garbage")
        with pytest.raises(UnreadableMedia):
            redact_video_file(bad, target, toy_job())
        assert target.read_bytes() == b"older"

    def test_progress_rises_to_its_total_and_counts_both_passes(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path
    ) -> None:
        told: list[tuple[int, int | None]] = []
        redact_video_file(
            clip("in.mp4"), tmp_path / "out.mp4", toy_job(), lambda done, total: told.append((done, total))
        )
        assert [done for done, _ in told] == list(range(1, 49))
        assert {total for _, total in told} == {48}

    def test_the_same_input_gives_the_same_bytes(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        source = clip("in.mp4", audio=["aac"])
        for name in ("one.mp4", "two.mp4"):
            redact_video_file(source, tmp_path / name, toy_job())
        assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


class TestWhereItLooks:
    def looked(self, source: Path, job: Job, tmp_path: Path) -> int:
        redact_video_file(source, tmp_path / "out.mp4", job)
        detector: Any = job.finder._work[0][0]
        return int(detector.calls)

    def still(self, index: int) -> list[tuple[int, int, int]]:
        return [(40, 20, 18)]

    @pytest.mark.parametrize(("frames", "looks"), [(24, 6), (26, 6), (1, 1)])  # 0 5 10 15 20, and 23 or 25
    def test_every_kth_frame_and_the_last(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path, frames: int, looks: int
    ) -> None:
        source = clip("in.mp4", frames=frames, squares=self.still)
        assert self.looked(source, toy_job(every=5), tmp_path) == looks

    def test_more_often_where_something_is_fast(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        source = clip("in.mp4", frames=26, squares=lambda index: [(5 * index, 20, 18)])
        assert self.looked(source, toy_job(every=10), tmp_path) > 8

    def test_a_slow_video_is_looked_at_twice_a_second(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path
    ) -> None:
        source = clip("in.mp4", frames=8, time_base=Fraction(1, 2), times=None)
        assert self.looked(source, toy_job(every=5), tmp_path) == 8

    def test_both_sides_of_a_cut(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        source = clip("in.mp4", shade=lambda index: 60 if index < 13 else 0, squares=self.still)
        assert self.looked(source, toy_job(every=10), tmp_path) == 5  # 0 10 12 13 23


class TestRealClips:
    def test_vtest_reads_whole_and_keeps_its_times(
        self, testdata: Callable[[str], Path], toy_job: MakeJob, times_of: Times, tmp_path: Path
    ) -> None:
        source = testdata("video/vtest.avi")
        outcome = redact_video_file(source, tmp_path / "out.mp4", toy_job(every=50))
        assert (outcome.width, outcome.height, outcome.frames) == (768, 576, 795)
        assert times_of(tmp_path / "out.mp4") == times_of(source)

    @pytest.mark.parametrize("name", ["video/carphone.mp4", "video/bikes.mp4"])
    def test_size_shape_and_times_are_kept(
        self, testdata: Callable[[str], Path], toy_job: MakeJob, times_of: Times, tmp_path: Path, name: str
    ) -> None:
        source = testdata(name)
        redact_video_file(source, tmp_path / "out.mp4", toy_job(every=50))
        assert times_of(tmp_path / "out.mp4") == times_of(source)
        with av.open(str(source)) as one, av.open(str(tmp_path / "out.mp4")) as two:
            assert one.streams.video[0].sample_aspect_ratio == two.streams.video[0].sample_aspect_ratio


def test_between_the_passes_the_detector_rests_and_opencv_keeps_to_one_thread(
    clip: Callable[..., Path], toy_job: Callable[..., Any], tmp_path: Path
) -> None:
    import cv2

    seen: list[tuple[str, int]] = []

    class Resting(ToyDetector):
        def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Boxes:
            seen.append(("look", cv2.getNumThreads()))
            return super().detect(image, floor=floor)

        def rest(self) -> None:
            seen.append(("rest", cv2.getNumThreads()))

    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        job = dataclasses.replace(toy_job(), finder=Finder([Resting()]))
        redact_video_file(clip("in.mp4", frames=12), tmp_path / "out.mp4", job)
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)
    assert [what for what, _ in seen].count("rest") == 1
    assert seen[-1][0] == "rest"
    assert {threads for _, threads in seen} == {1}
