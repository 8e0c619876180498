from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from sfumato.core.errors import (
    MediaError,
)
from sfumato.redaction.job import Job
from sfumato.redaction.videos import redact as videos
from sfumato.redaction.videos import redact_video_file
from sfumato.redaction.videos.audio import _vorbis_without_comments
from sfumato.redaction.videos.metadata import leftovers

Make = Callable[..., Path]
MakeJob = Callable[..., Job]


def streams(path: Path) -> list[tuple[str, str]]:
    with av.open(str(path)) as container:
        return [(s.type, s.codec_context.name if s.codec_context else "") for s in container.streams]


def packet_times(path: Path, kind: str, number: int = 0) -> list[float]:
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[number]
        return [float(p.pts * p.time_base) for p in container.demux(stream) if p.size]


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
