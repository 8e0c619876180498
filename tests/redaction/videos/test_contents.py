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
from sfumato.redaction.videos import making, redact_video_file
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


def heard(path: Path, number: int) -> Any:
    """Return the samples of a track as floats, one channel."""
    with av.open(str(path)) as container:
        frames = list(container.decode(container.streams.audio[number]))
    whole = np.concatenate([frame.to_ndarray()[0].astype(np.float64) for frame in frames])
    scale = {"fltp": 1, "flt": 1, "s16": 2**15, "s16p": 2**15, "s32": 2**31, "s32p": 2**31}
    return whole / scale[frames[0].format.name]


class TestSound:
    @pytest.mark.parametrize(
        ("suffix", "codecs", "exact"),
        [
            (".mp4", ["aac", "libmp3lame"], False),
            (".mkv", ["ac3", "libopus"], False),
            (".mkv", ["flac", "pcm_s16le"], True),
            (".mov", ["alac", "pcm_s24le"], True),
            (".avi", ["libmp3lame", "pcm_s16le"], False),
        ],
    )
    def test_every_track_sounds_the_same_in_its_own_codec(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path, suffix: str, codecs: list[str], exact: bool
    ) -> None:
        source, target = clip("in.mkv", audio=codecs), tmp_path / f"out{suffix}"
        outcome = redact_video_file(source, target, toy_job())
        assert outcome.notes == ()
        assert streams(target)[1:] == streams(source)[1:]
        for number in (0, 1):
            one, two = heard(source, number), heard(target, number)
            if exact:
                assert np.array_equal(one[: len(two)], two[: len(one)])
            assert abs(len(one) - len(two)) <= 3000
            pitches = [
                np.abs(np.fft.rfft(wave[4800:43200])).argmax() * 48_000 / 38_400 for wave in (one, two)
            ]
            assert pitches[0] == pytest.approx(440 * (number + 1), abs=3)  # the check can fail
            assert pitches[1] == pytest.approx(pitches[0], abs=3)
            assert np.abs(two).std() == pytest.approx(np.abs(one).std(), rel=0.1)

    def test_more_channels_than_two_are_kept(self, toy_job: MakeJob, tmp_path: Path, clip: Make) -> None:
        source = tmp_path / "in.mkv"
        with av.open(str(clip("plain.mp4"))) as plain, av.open(str(source), "w") as container:
            video = container.add_stream_from_template(plain.streams.video[0])
            sound: Any = container.add_stream("aac", rate=48_000)
            sound.codec_context.layout = "5.1"
            for packet in plain.demux(video=0):
                if packet.size:
                    packet.stream = video
                    container.mux(packet)
            frame = av.AudioFrame.from_ndarray(np.zeros((6, 4096), np.float32), "fltp", "5.1")
            frame.sample_rate, frame.pts = 48_000, 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode())
        redact_video_file(source, tmp_path / "out.mp4", toy_job())
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert container.streams.audio[0].codec_context.layout.name == "5.1"

    def test_silence_ends_with_the_pictures(self, clip: Make, toy_job: MakeJob, tmp_path: Path) -> None:
        source = clip("in.mkv", audio=["aac"], audio_seconds=60.0)  # the pictures last 0.96 s
        redact_video_file(source, tmp_path / "out.mkv", toy_job(audio="mute"))
        assert packet_times(source, "audio")[-1] > 59
        assert packet_times(tmp_path / "out.mkv", "audio")[-1] == pytest.approx(0.96, abs=0.05)
        late = clip("late.mkv", audio=["aac"], audio_start=400_000.0, audio_seconds=0.1)
        outcome = redact_video_file(late, tmp_path / "late-out.mkv", toy_job(audio="mute"))
        assert "an audio track without sound was dropped" in outcome.notes

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
        class Chatty(making.VideoWriter):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                self.container.metadata["title"] = SECRET

        monkeypatch.setattr(making, "VideoWriter", Chatty)
        with pytest.raises(MediaError, match="'title' of the file"):
            redact_video_file(clip("in.mp4", frames=3), tmp_path / "out.mp4", toy_job())
        assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]

    @pytest.mark.parametrize(
        ("suffix", "codec", "place"),
        [
            (".mkv", "aac", "header"),
            (".mp4", "aac", "header"),
            (".mkv", "libopus", "header"),
            (".mp4", "alac", "header"),
            (".mkv", "libmp3lame", "before"),
            (".mkv", "aac", "after"),
            (".mkv", "ac3", "after"),
        ],
    )
    def test_no_word_in_the_sound_survives(
        self, clip: Make, toy_job: MakeJob, tmp_path: Path, suffix: str, codec: str, place: str
    ) -> None:
        source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
        with av.open(str(clip("plain.mkv", audio=[codec]))) as plain, av.open(str(source), "w") as container:
            out = {stream.index: container.add_stream_from_template(stream) for stream in plain.streams}
            if place == "header":
                context = out[1].codec_context
                context.extradata = bytes(context.extradata or b"") + SECRET.encode()
            for number, packet in enumerate(plain.demux()):
                if packet.size and packet.stream_index == 1 and number % 9 == 4 and place != "header":
                    word = b"ID3" + SECRET.encode() if place == "before" else SECRET.encode()
                    parts = (word, bytes(packet)) if place == "before" else (bytes(packet), word)
                    other = av.Packet(b"".join(parts))
                    other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
                    other.stream = out[1]
                    container.mux(other)
                elif packet.size:
                    packet.stream = out[packet.stream_index]
                    container.mux(packet)
        assert SECRET.encode() in source.read_bytes()  # the check can fail
        redact_video_file(source, target, toy_job())
        assert SECRET.encode() not in target.read_bytes()
        assert [kind for kind, _ in streams(target)] == ["video", "audio"]
