from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from sfumato.core.errors import (
    InvalidRequest,
    MediaError,
    MediaTooLarge,
    UnreadableMedia,
    UnsupportedMedia,
)
from sfumato.redaction.job import Job
from sfumato.redaction.videos import redact_video_file

Make = Callable[..., Path]
MakeJob = Callable[..., Job]


class TestBadInput:
    def refused(self, source: Path, target: Path, job: Job, error: type[MediaError], match: str) -> None:
        with pytest.raises(error, match=match):
            redact_video_file(source, target, job)
        assert [p for p in target.parent.iterdir() if p.name.startswith((".sfumato", target.stem))] == []

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

    @pytest.mark.parametrize("codec", ["mjpeg", "mpeg4"])
    @pytest.mark.parametrize("suffix", [".mp4", ".avi"])
    def test_frames_that_a_camera_dropped_are_no_damage(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path, codec: str, suffix: str
    ) -> None:
        times = [*range(10), *range(12, 30)]
        what = {"pix_fmt": "yuvj420p"} if codec == "mjpeg" else {}
        source = clip("in.avi", codec=codec, options={}, times=times, frames=28, **what)
        target = tmp_path / f"out{suffix}"
        assert redact_video_file(source, target, toy_job()).frames == 28
        with av.open(str(target)) as container:
            shown = [p.pts * p.time_base for p in container.demux(video=0) if p.size]
        assert [round(float(at) * 25) for at in sorted(shown)] == times
        data = source.read_bytes()
        source.write_bytes(data[: int(len(data) * 0.8)])
        self.refused(source, tmp_path / "out-cut.mp4", toy_job(), UnreadableMedia, "cut short")

    def test_a_live_recording_that_declares_no_lengths_reads_whole(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path
    ) -> None:
        source = clip("in.mkv", container_options={"live": "1"})
        assert redact_video_file(source, tmp_path / "out.mp4", toy_job()).frames == 24

    def test_frames_that_no_player_can_show_are_noted(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path
    ) -> None:
        options = {"preset": "ultrafast", "x264-params": "keyint=8:min-keyint=8:bframes=0:scenecut=0"}
        source = clip("in.ts", options=options)
        packets = [source.read_bytes()[at : at + 188] for at in range(0, source.stat().st_size, 188)]
        starts = [n for n, p in enumerate(packets) if p[1] & 0x5F == 0x41 and p[2] == 0x00]  # pictures begin
        source.write_bytes(b"".join(packets[: starts[0]] + packets[starts[5] :]))
        outcome = redact_video_file(source, tmp_path / "out.mp4", toy_job())
        assert outcome.frames == 16
        assert "3 frames before the first key frame" in " ".join(outcome.notes)

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
