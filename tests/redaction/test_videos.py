from __future__ import annotations

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
    InvalidRequest,
    MediaError,
    MediaTooLarge,
    UnreadableMedia,
    UnsupportedMedia,
)
from sfumato.redaction import videos
from sfumato.redaction.job import Job
from sfumato.redaction.settings import Settings
from sfumato.redaction.video_audio import _vorbis_without_comments
from sfumato.redaction.video_metadata import leftovers
from sfumato.redaction.videos import redact_video_file
from sfumato.vision.tracks import Track

Make = Callable[..., Path]
MakeJob = Callable[..., Job]
Frames = Callable[[Path], list[int]]
Times = Callable[[Path], list[Fraction]]


def streams(path: Path) -> list[tuple[str, str]]:
    with av.open(str(path)) as container:
        return [(s.type, s.codec_context.name if s.codec_context else "") for s in container.streams]


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
        assert len(open_frames(target)) >= 15

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


class TestSound:
    def test_every_track_is_copied_bit_by_bit(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        source, target = clip("in.mp4", audio=["aac", "libmp3lame"]), tmp_path / "out.mp4"
        outcome = redact_video_file(source, target, toy_job())
        assert outcome.notes == ()

        def packets(path: Path, number: int) -> list[tuple[int | None, bytes]]:
            with av.open(str(path)) as container:
                chosen = container.streams.audio[number]
                return [(p.pts, bytes(p)) for p in container.demux(chosen) if p.size]

        for number in (0, 1):
            assert packets(target, number) == packets(source, number)

    @pytest.mark.parametrize(
        ("suffix", "codec"), [(".mp4", "aac"), (".mkv", "aac"), (".webm", "opus"), (".avi", "mp3float")]
    )
    def test_muted_sound_is_as_long_and_nothing_but_nought(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path, suffix: str, codec: str
    ) -> None:
        source = clip("in.mp4", audio=["aac", "aac"], audio_start=0.1, audio_seconds=0.8)
        target = tmp_path / f"out{suffix}"
        redact_video_file(source, target, toy_job(audio="mute"))
        assert [kind for kind, _ in streams(target)] == ["video", "audio", "audio"]
        for number in (0, 1):
            with av.open(str(target)) as container:
                loud = [
                    np.abs(frame.to_ndarray()).max()
                    for frame in container.decode(container.streams.audio[number])
                ]
            assert loud
            assert max(loud) == 0
            was, now = packet_times(source, "audio", number), packet_times(target, "audio", number)
            assert now[-1] == pytest.approx(was[-1], abs=0.05)

    def test_dropped_sound_is_gone(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        redact_video_file(clip("in.mp4", audio=["aac"]), tmp_path / "out.mp4", toy_job(audio="drop"))
        assert [kind for kind, _ in streams(tmp_path / "out.mp4")] == ["video"]

    def test_sound_that_the_container_cannot_hold_is_encoded_anew_and_noted(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path
    ) -> None:
        source, target = clip("in.mp4", audio=["aac"], audio_start=0.2), tmp_path / "out.webm"
        outcome = redact_video_file(source, target, toy_job())
        assert "an audio track was encoded anew, from aac to libopus" in outcome.notes
        with av.open(str(target)) as container:
            sound = list(container.decode(audio=0))
        heard = np.concatenate([frame.to_ndarray().reshape(-1) for frame in sound]).astype(float)
        assert np.abs(heard).max() > 0.1
        assert sound[0].time == pytest.approx(0.2, abs=0.03)
        assert sum(frame.samples for frame in sound) / 48_000 == pytest.approx(1.0, abs=0.05)

    def test_vorbis_comments_are_cut_out_of_the_codec_data(self) -> None:
        first, setup = b"\x01vorbis" + bytes(23), b"\x05vorbis" + bytes(300)
        comment = b"\x03vorbis" + b"PLANTED" * 60
        lacing = bytes([len(first)]) + bytes([255] * (len(comment) // 255)) + bytes([len(comment) % 255])
        clean = _vorbis_without_comments(b"\x02" + lacing + first + comment + setup)
        assert b"PLANTED" not in clean
        assert clean.startswith(b"\x02" + bytes([len(first), 16]) + first)
        assert clean.endswith(setup)


SECRET = "PLANTED"


class TestNothingElseIsInTheFile:
    def plant(self, container: Any) -> Callable[[], None]:
        """Add chapters, subtitles and a cover picture that say SECRET."""
        if not (hasattr(container, "set_chapters") and hasattr(container, "add_mux_stream")):
            pytest.skip("this PyAV cannot write chapters and subtitles")
        container.set_chapters(
            [{"id": 1, "start": 0, "end": 500, "time_base": Fraction(1, 1000), "metadata": {"title": SECRET}}]
        )
        matroska = container.format.name == "matroska"
        text = container.add_mux_stream("subrip" if matroska else "mov_text")
        text.time_base = Fraction(1, 1000)
        words = SECRET.encode()
        if matroska:
            container.add_attachment(f"{SECRET}.txt", "text/plain", words)
        else:
            cover = container.add_stream("mjpeg", rate=1)
            cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
            cover.disposition = 0x400

        def later() -> None:
            packet = av.Packet(words if matroska else len(words).to_bytes(2, "big") + words)
            packet.stream, packet.pts, packet.dts, packet.duration = text, 0, 0, 400
            packet.time_base = Fraction(1, 1000)
            container.mux(packet)
            if not matroska:
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 200, np.uint8), format="rgb24")
                frame.pts = 0
                container.mux(cover.encode(frame.reformat(format="yuvj420p")))
                container.mux(cover.encode())

        return later

    @pytest.mark.parametrize(
        ("suffix", "flags"), [(".mp4", ""), (".mp4", "use_metadata_tags"), (".mov", ""), (".mkv", "")]
    )
    def test_no_planted_word_survives_in_the_bytes(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path, suffix: str, flags: str
    ) -> None:
        tags = {
            name: f"{SECRET} {name}"
            for name in ("title", "comment", "artist", "copyright", "description", "synopsis", "album")
        }
        tags |= {
            "location": "+48.8577+002.2950/",
            "com.apple.quicktime.location.ISO6709": "+48.8577+002.2950/",
        }
        tags |= {"creation_time": "2024-05-06T07:08:09Z", "com.android.model": SECRET, "custom": SECRET}
        source = clip(
            f"in{suffix}",
            metadata=tags,
            stream_metadata={"handler_name": SECRET, "title": SECRET, "timecode": "01:02:03:04"},
            audio=["aac"],
            extras=self.plant,
            container_options={"movflags": flags} if flags else {},
        )
        data = source.read_bytes()
        assert data.count(SECRET.encode()) >= 8
        assert leftovers(source)
        target = tmp_path / f"out{suffix}"
        outcome = redact_video_file(source, target, toy_job())
        written = target.read_bytes()
        for word in (SECRET.encode(), b"48.8577", b"com.a", b"custom", b"Lavf6"):
            assert word not in written
        assert leftovers(target) == []
        assert [kind for kind, _ in streams(target)] == ["video", "audio"]
        with av.open(str(target)) as container:
            assert not container.chapters()
            assert "creation_time" not in container.metadata
        notes = " ".join(outcome.notes)
        assert "1 subtitle track" in notes
        assert "1 chapter" in notes
        if suffix == ".mkv":
            assert "1 attachment" in notes
        else:
            assert "data track" in notes  # time code and chapter titles
        if (suffix, flags) == (".mp4", ""):
            assert "1 attached picture" in notes

    def test_an_output_that_still_tells_something_is_not_written(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Chatty(videos.VideoWriter):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                self.container.metadata["title"] = SECRET

        monkeypatch.setattr(videos, "VideoWriter", Chatty)
        with pytest.raises(MediaError, match="'title' of the file"):
            redact_video_file(clip("in.mp4", frames=3), tmp_path / "out.mp4", toy_job())
        assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]


class TestBadInput:
    def refused(self, source: Path, target: Path, job: Job, error: type[MediaError], match: str) -> None:
        with pytest.raises(error, match=match):
            redact_video_file(source, target, job)
        assert [p for p in target.parent.iterdir() if p.name.startswith((".sfumato", "out"))] == []

    @pytest.mark.parametrize("name", ["in.mp4", "in.mov", "in.mkv", "in.webm", "in.avi"])
    @pytest.mark.parametrize("share", [0.5, 0.97])
    def test_a_cut_file(self, clip: Make, toy_job: MakeJob, tmp_path: Path, name: str, share: float) -> None:
        webm = {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}}
        avi = {"codec": "mpeg4", "options": {"b": "500k"}}
        what: dict[str, Any] = {"in.webm": webm, "in.avi": avi}.get(name, {})
        if name in ("in.mp4", "in.mov"):
            what = {"container_options": {"movflags": "+faststart"}}
        source = clip(name, **what)
        data = source.read_bytes()
        source.write_bytes(data[: int(len(data) * (share if name != "in.avi" else min(share, 0.9)))])
        self.refused(source, tmp_path / "out.mp4", toy_job(), UnreadableMedia, "cut short")

    def test_a_file_whose_index_is_lost(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        source = clip("in.mp4")
        data = source.read_bytes()
        source.write_bytes(data[: data.rindex(b"moov") - 4])
        self.refused(source, tmp_path / "out.mp4", toy_job(), UnreadableMedia, "not a video that can be read")

    @pytest.mark.parametrize("name", ["in.mp4", "in.mkv", "in.avi"])
    def test_damaged_pictures(self, clip: Make, toy_job: MakeJob, tmp_path: Path, name: str) -> None:
        source = clip(name, **({"codec": "mpeg4", "options": {"b": "500k"}} if name == "in.avi" else {}))
        data = bytearray(source.read_bytes())
        drawn = random.Random(0)
        for _ in range(60):
            data[drawn.randrange(len(data) // 4, len(data) * 3 // 4)] ^= 1 << drawn.randrange(8)
        source.write_bytes(data)
        self.refused(source, tmp_path / "out.mp4", toy_job(), UnreadableMedia, "damaged|cut short")

    @pytest.mark.parametrize(
        ("data", "match"),
        [(b"", "is empty"), (b"not a video at all" * 99, "not a video"), (b"\x00" * 999, "not")],
    )
    def test_garbage(self, toy_job: MakeJob, tmp_path: Path, data: bytes, match: str) -> None:
        source = tmp_path / "in.mp4"
        source.write_bytes(data)
        self.refused(source, tmp_path / "out.mp4", toy_job(), UnreadableMedia, match)

    def test_a_playlist_opens_no_other_file(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        clip("secret.mp4", frames=3)
        source = tmp_path / "in.mp4"
        source.write_text("ffconcat version 1.0\nfile secret.mp4\n")
        self.refused(source, tmp_path / "out.mp4", toy_job(), UnreadableMedia, "not a video")

    def test_a_missing_file(self, toy_job: MakeJob, tmp_path: Path) -> None:
        self.refused(tmp_path / "no.mp4", tmp_path / "out.mp4", toy_job(), UnreadableMedia, "cannot be read")

    def test_sound_only(self, toy_job: MakeJob, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "in.mp4"), "w") as container:
            sound: Any = container.add_stream("aac", rate=48_000)
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            frame.sample_rate, frame.pts = 48_000, 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode())
        self.refused(tmp_path / "in.mp4", tmp_path / "out.mp4", toy_job(), UnsupportedMedia, "holds no video")

    def test_too_many_pixels(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        job = toy_job(max_pixels=160 * 96 - 1)
        self.refused(clip("in.mp4"), tmp_path / "out.mp4", job, MediaTooLarge, "160x96 have more than 15359")

    def test_a_suffix_that_no_video_is_written_to(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        self.refused(clip("in.mp4"), tmp_path / "out.txt", toy_job(), UnsupportedMedia, ".mp4, .m4v")

    def test_an_encoder_that_is_not_installed(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(av, "codecs_available", {"aac"})
        self.refused(
            clip("in.mp4"), tmp_path / "out.mp4", toy_job(), UnsupportedMedia, "no encoder 'libx264'"
        )

    def test_the_source_is_never_written_over(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        source = clip("in.mp4")
        (tmp_path / "link.mp4").symlink_to(source)
        before = source.read_bytes()
        for target in (source, tmp_path / "link.mp4"):
            with pytest.raises(InvalidRequest, match="over itself"):
                redact_video_file(source, target, toy_job())
        assert source.read_bytes() == before

    def test_a_file_that_changes_between_the_passes(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path
    ) -> None:
        source = clip("in.mp4", frames=10)
        other = clip("other.mp4", frames=9)

        def swap(done: int, total: int | None) -> None:
            if done == 10:
                source.write_bytes(other.read_bytes())

        with pytest.raises(UnreadableMedia, match="read differently the second time"):
            redact_video_file(source, tmp_path / "out.mp4", toy_job(), swap)
        assert not (tmp_path / "out.mp4").exists()


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

    def test_every_kth_frame_and_the_last(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        assert self.looked(clip("in.mp4", frames=24), toy_job(every=5), tmp_path) == 6  # 0 5 10 15 20 23
        assert self.looked(clip("in.mp4", frames=26), toy_job(every=5), tmp_path) == 6  # 0 5 10 15 20 25
        assert self.looked(clip("in.mp4", frames=1), toy_job(every=5), tmp_path) == 1

    def test_a_slow_video_is_looked_at_twice_a_second(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path
    ) -> None:
        source = clip("in.mp4", frames=8, time_base=Fraction(1, 2), times=None)
        assert self.looked(source, toy_job(every=5), tmp_path) == 8

    def test_both_sides_of_a_cut(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        source = clip("in.mp4", shade=lambda index: 60 if index < 13 else 0)
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


def test_settings_reach_the_job(toy_job: MakeJob) -> None:
    assert toy_job(every=3).settings == Settings(every=3)


def test_frames_are_arrays(clip: Make, look: Callable[[Path], list[NDArray[np.uint8]]]) -> None:
    assert look(clip("in.mp4", frames=2))[0].shape == (96, 160, 3)
