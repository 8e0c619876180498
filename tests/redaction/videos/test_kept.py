"""What a redacted video keeps of its source, figure by figure; and copies that keep less are caught."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from sfumato.core.policy import Policy
from sfumato.redaction.check.metadata import told
from sfumato.redaction.job import Job
from sfumato.redaction.request import Request, resolve
from sfumato.redaction.videos import redact_video_file
from sfumato.redaction.videos.metadata import leftovers
from sfumato.vision.toy import MAGENTA

MakeJob = Callable[..., Job]
RATE = 48_000
COLOUR = {"color_primaries": 1, "color_trc": 1, "colorspace": 1, "color_range": 1}


@dataclass
class Film:
    """What a source is made of; `times` are in units of `base`; a track is (codec, language, default)."""

    size: tuple[int, int] = (160, 96)
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    base: Fraction = Fraction(1, 12_800)
    times: Sequence[int] = tuple(512 * n for n in range(30))
    rotation: int = 0
    aspect: Fraction | None = None
    audio: Sequence[tuple[str, str, bool]] = ()
    subtitles: Sequence[tuple[str, str, int]] = ()
    options: dict[str, str] = field(default_factory=lambda: {"crf": "12", "preset": "ultrafast"})


CUES = [(200, 500, "Maria, come here!"), (600, 1000, "<i>Jan</i> & {both}\nof them"), (800, 1100, "At once")]
PLAIN = [(200, 500, "Maria, come here!"), (600, 1000, "Jan & {both}\nof them"), (800, 1100, "At once")]
#: One at a time, as MP4 holds them.
APART = [
    PLAIN[0],
    (600, 800, PLAIN[1][2]),
    (800, 1000, f"{PLAIN[1][2]}\n{PLAIN[2][2]}"),
    (1000, 1100, PLAIN[2][2]),
]


def burst(track: int) -> NDArray[np.float32]:
    """Return 1.2 s of near silence with a burst of noise, at another time in every track."""
    drawn = np.random.default_rng(track)
    wave = drawn.normal(0, 0.003, RATE * 6 // 5)
    start = round((0.4 + 0.2 * track) * RATE)
    wave[start : start + 4800] += drawn.normal(0, 0.2, 4800)
    return wave.astype(np.float32)


def shoot(path: Path, film: Film) -> Path:
    """Write a source."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(film.codec, rate=25, options=dict(film.options))
        video.width, video.height, video.pix_fmt = *film.size, film.pix_fmt
        video.codec_context.time_base = film.base
        for name, value in COLOUR.items():
            setattr(video.codec_context, name, value)
        if film.aspect:
            video.codec_context.sample_aspect_ratio = film.aspect
        if film.rotation:
            video.set_display_rotation(film.rotation)
        sounds = [_track(container, *what) for what in film.audio]
        texts = [_text(container, *what) for what in film.subtitles]
        for number, sound in enumerate(sounds):
            _play(container, sound, burst(number))
        for text in texts:
            _say(container, text)
        for index, time in enumerate(film.times):
            frame = av.VideoFrame.from_ndarray(_drawn(film, index), format="rgb24")
            frame = frame.reformat(format=film.pix_fmt, dst_colorspace="ITU709")
            frame.pts, frame.time_base = time, film.base
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


def _drawn(film: Film, index: int) -> NDArray[np.uint8]:
    width, height = film.size
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([60 + columns // 5, 90 + rows // 4, 80 + (rows + columns) // 9], axis=2)
    image = (image + 3 * (index % 7)).astype(np.uint8)
    image[20:40, 10 + 3 * index : 32 + 3 * index] = MAGENTA
    return image


def _track(container: Any, codec: str, language: str, default: bool) -> Any:
    sound = container.add_stream(codec, rate=RATE)
    sound.codec_context.layout = "mono"
    sound.metadata.update({"language": language, "title": f"PLANTED {language}"})
    sound.disposition = int(default)
    return sound


def _play(container: Any, sound: Any, wave: NDArray[np.float32]) -> None:
    for start in range(0, len(wave), 960):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 960], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), start
        container.mux(sound.encode(frame))
    container.mux(sound.encode())


def _text(container: Any, codec: str, language: str, marks: int) -> Any:
    text = container.add_mux_stream(codec)
    text.time_base = Fraction(1, 1000)
    text.metadata.update({"language": language, "title": "PLANTED"})
    text.disposition = marks
    return text


def _say(container: Any, text: Any) -> None:
    boxed = container.format.name in ("mp4", "mov")
    for start, end, words in APART if boxed else CUES:
        data = words.encode()
        packet = av.Packet(len(data).to_bytes(2, "big") + data if boxed else data)
        packet.stream, packet.time_base = text, Fraction(1, 1000)
        packet.pts, packet.dts, packet.duration = start, start, end - start
        container.mux(packet)


@dataclass
class Facts:
    """What a player sees of a file."""

    picture: dict[str, Any]
    tick: Fraction
    times: list[Fraction]
    tracks: list[tuple[str, bool]]
    waves: list[NDArray[np.float64]]


def facts(path: Path) -> Facts:
    """Read a file with a plain decoder."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        first, context = frames[0], stream.codec_context
        sides = (first.width, first.height)
        picture = {
            "size": sides if first.rotation % 180 == 0 else sides[::-1],
            "aspect": stream.sample_aspect_ratio or Fraction(1),
            "depth": context.format.components[0].bits,
            "colour": (
                context.color_range, context.colorspace, context.color_primaries, context.color_trc
            ),
        }  # fmt: skip
        times = [frame.pts * stream.time_base for frame in frames]
        tick = stream.time_base
        tracks = [
            (s.metadata.get("language", "und"), bool(s.disposition.value & 1))
            for s in container.streams.audio
        ]
        count = len(tracks)
    return Facts(picture, tick, times, tracks, [heard(path, number) for number in range(count)])


def heard(path: Path, number: int) -> NDArray[np.float64]:
    """Return a track as a player plays it: sample n sounds at n / 48000 s of the file's time."""
    wave = np.zeros(4 * RATE)
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.audio[number]):
            samples = frame.to_ndarray()[0].astype(np.float64)
            start = round(frame.pts * frame.time_base * RATE)
            low = max(-start, 0)
            wave[start + low : start + len(samples)] += samples[low:]
    return wave


def shift(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    """Return by how many seconds the second sounds later than the first."""
    product = np.fft.irfft(np.conj(np.fft.rfft(one)) * np.fft.rfft(two))
    peak = int(product.argmax())
    return (peak if peak < len(one) // 2 else peak - len(one)) / RATE


def lost(source: Path, target: Path) -> list[str]:
    """Return what the second file does not keep of the first."""
    one, two = facts(source), facts(target)
    found = [f"{name}: {two.picture[name]} for {value}" for name, value in one.picture.items()
             if two.picture[name] != value]  # fmt: skip
    if len(one.times) != len(two.times):
        found.append(f"frames: {len(two.times)} for {len(one.times)}")
    else:
        furthest = max(abs(a - b) for a, b in zip(one.times, two.times, strict=True))
        if furthest > max(one.tick, two.tick):
            found.append(f"times: off by {float(furthest):.4f} s")
    if one.tracks != two.tracks:
        found.append(f"tracks: {two.tracks} for {one.tracks}")
    moved = [shift(a, b) for a, b in zip(one.waves, two.waves, strict=False)]
    if any(abs(seconds) > 1.5 / RATE for seconds in moved):
        found.append(f"sound: moved by {moved} s")
    return found


def cues(path: Path, number: int) -> list[tuple[int, int, str]]:
    """Return the subtitles of a track: start and end in milliseconds, and words."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[number]
        boxed = stream.codec_context.name == "mov_text"
        for packet in container.demux(stream):
            data = bytes(packet)
            words = data[2 : 2 + int.from_bytes(data[:2], "big")].decode() if boxed else data.decode()
            if packet.size and words:
                start = packet.pts * packet.time_base * 1000
                found.append((round(start), round(start + packet.duration * packet.time_base * 1000), words))
    return found


TWO = (("aac", "deu", False), ("aac", "fra", True))
GAP = [512 * n + (8960 if n >= 15 else 0) + 7 * (n % 3) for n in range(30)]
VP9 = {"crf": "20", "b": "0", "deadline": "realtime", "cpu-used": "8"}
FILMS = {
    "uneven times with a gap of 0.7 s": (".mp4", Film(times=GAP, audio=TWO[:1])),
    "pictures 0.85 s later than sound": (
        ".mp4", Film(times=[10_880 + 512 * n for n in range(30)], audio=TWO[:1])
    ),
    "turned by 90 degrees": (".mp4", Film(rotation=90, audio=TWO[:1])),
    "10 bits, HEVC": (
        ".mp4",
        Film(
            codec="libx265", pix_fmt="yuv420p10le", audio=TWO[:1],
            options={"preset": "ultrafast", "crf": "14", "x265-params": "log-level=none:pools=1"},
        ),
    ),
    "odd sides": (".mkv", Film(size=(641, 359), pix_fmt="yuv444p", audio=TWO[:1])),
    "odd sides, VP9": (
        ".webm",
        Film(size=(641, 359), codec="libvpx-vp9", base=Fraction(1, 1000), times=[40 * n for n in range(12)],
             options=VP9, audio=[("libopus", "deu", True)]),
    ),
    "samples that are no squares": (".mp4", Film(aspect=Fraction(16, 11), audio=TWO[:1])),
    "two tracks of sound": (".mp4", Film(audio=TWO)),
    "two tracks of sound, Matroska": (".mkv", Film(audio=TWO, base=Fraction(1, 1000),
                                                   times=[40 * n for n in range(30)])),
}  # fmt: skip


@pytest.mark.parametrize("name", FILMS)
def test_every_figure_is_kept(toy_job: MakeJob, tmp_path: Path, name: str) -> None:
    suffix, film = FILMS[name]
    if film.codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {film.codec}: install the wheel from PyPI")
    source, target = shoot(tmp_path / f"in{suffix}", film), tmp_path / f"out{suffix}"
    outcome = redact_video_file(source, target, toy_job())
    assert outcome.regions["face"] >= 1
    assert lost(source, target) == []
    assert b"PLANTED" not in target.read_bytes()
    assert leftovers(target) == []


def test_the_films_are_what_they_are_called(tmp_path: Path) -> None:
    """A gap that is no gap would be kept by anything."""
    gap, late, turned = (
        facts(shoot(tmp_path / f"{n}.mp4", FILMS[name][1])) for n, name in enumerate(list(FILMS)[:3])
    )
    assert max(np.diff([float(t) for t in gap.times])) == pytest.approx(0.74, abs=0.01)
    assert late.times[0] == Fraction(85, 100)
    assert np.abs(late.waves[0][: RATE // 10]).max() > 0
    assert turned.picture["size"] == (96, 160)


def _copied(source: Path, target: Path, change: Callable[[Any, int], None], **what: Any) -> Path:
    """Write a copy as simple tools do, through frames; `change` sets the time of each frame."""
    with av.open(str(source)) as plain, av.open(str(target), "w") as container:
        video: Any = container.add_stream("libx264", rate=25, options={"crf": "12", "preset": "ultrafast"})
        stream = plain.streams.video[0]
        video.width, video.height = stream.codec_context.width, stream.codec_context.height
        video.pix_fmt = what.get("pix_fmt", stream.codec_context.pix_fmt)
        video.codec_context.time_base = stream.time_base
        if what.get("colour", True):
            for name, value in COLOUR.items():
                setattr(video.codec_context, name, value)
        sounds = {s.index: _track(container, "aac", what.get("language", "deu"), False)
                  for s in plain.streams.audio}  # fmt: skip
        for number in range(len(sounds)):
            ahead = np.zeros(what.get("silence", 0), np.float32)
            _play(container, list(sounds.values())[number], np.concatenate([ahead, burst(number)]))
        for index, frame in enumerate(plain.decode(stream)):
            frame = frame.reformat(format=video.pix_fmt)
            change(frame, index)
            frame.pict_type = 0
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return target


def test_copies_that_keep_less_are_caught(tmp_path: Path) -> None:
    def steady(frame: Any, index: int) -> None:
        frame.pts = 512 * index

    def same(frame: Any, index: int) -> None:
        """Keep the time."""

    gap = shoot(tmp_path / "gap.mp4", FILMS["uneven times with a gap of 0.7 s"][1])
    assert lost(gap, _copied(gap, tmp_path / "same.mp4", same)) == []
    assert "times" in str(lost(gap, _copied(gap, tmp_path / "steady.mp4", steady)))
    assert "colour" in str(lost(gap, _copied(gap, tmp_path / "grey.mp4", same, colour=False)))
    assert "tracks" in str(lost(gap, _copied(gap, tmp_path / "english.mp4", same, language="eng")))
    assert "sound" in str(lost(gap, _copied(gap, tmp_path / "shifted.mp4", same, silence=48)))
    turned = shoot(tmp_path / "turned.mp4", FILMS["turned by 90 degrees"][1])
    assert "size" in str(lost(turned, _copied(turned, tmp_path / "lying.mp4", same)))
    if "libx265" in av.codecs_available:
        deep = shoot(tmp_path / "deep.mp4", FILMS["10 bits, HEVC"][1])
        assert "depth" in str(lost(deep, _copied(deep, tmp_path / "flat.mp4", same, pix_fmt="yuv420p")))


# --- subtitles


def subtitled(path: Path) -> Path:
    if not hasattr(av.container.OutputContainer, "add_mux_stream"):
        pytest.skip("this PyAV cannot write subtitles: pip install --upgrade av")
    codec = {".mp4": "mov_text", ".mov": "mov_text", ".mkv": "subrip", ".webm": "webvtt"}[path.suffix]
    film = Film(
        audio=[("libopus", "deu", True), ("libopus", "fra", False)] if path.suffix == ".webm" else TWO,
        subtitles=[(codec, "deu", 1), (codec, "pol", 0x40)],
        base=Fraction(1, 1000),
        times=[40 * n for n in range(30)],
    )
    if path.suffix == ".webm":
        film.codec, film.options = "libvpx-vp9", VP9
    return shoot(path, film)


@pytest.mark.parametrize(
    ("one", "two"),
    [(".mp4", ".mp4"), (".mkv", ".mkv"), (".webm", ".webm"), (".mp4", ".mkv"), (".mkv", ".mp4"),
     (".mkv", ".mov"), (".mkv", ".webm")],
)  # fmt: skip
def test_subtitles_are_kept_where_they_are_wanted(
    toy_job: MakeJob, tmp_path: Path, one: str, two: str
) -> None:
    source, target = subtitled(tmp_path / f"in{one}"), tmp_path / f"out{two}"
    outcome = redact_video_file(source, target, toy_job(subtitles="copy"))
    assert not any("subtitle" in note for note in outcome.notes)
    wanted = APART if two in (".mp4", ".mov") or one == ".mp4" else PLAIN
    words = [(a, b, text.replace("&", "&amp;") if two == ".webm" else text) for a, b, text in wanted]
    for number in (0, 1):
        assert cues(target, number) == words
    with av.open(str(target)) as container:
        tracks = container.streams.subtitles
        language = "ger" if two == ".mov" else "deu"
        assert [s.metadata["language"] for s in tracks] == [language, "pol"]
        if two != ".mov":
            assert [s.disposition.value & 0x41 for s in tracks] == [1, 0x40]
        assert len(container.streams.audio) == 2
    assert b"PLANTED" not in target.read_bytes()
    assert leftovers(target, subtitles=True) == []
    assert len(leftovers(target)) == 2
    assert list(told(target, "video", "out", subtitles=True)) == []
    assert len(list(told(target, "video", "out"))) == 2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_subtitles_are_dropped_unless_wanted(toy_job: MakeJob, tmp_path: Path, suffix: str) -> None:
    source, target = subtitled(tmp_path / f"in{suffix}"), tmp_path / f"out{suffix}"
    outcome = redact_video_file(source, target, toy_job())
    assert "dropped: 2 subtitle tracks" in outcome.notes
    assert b"Maria" in source.read_bytes()
    assert b"Maria" not in target.read_bytes()
    assert leftovers(target) == []


def test_a_container_without_subtitles_says_so(toy_job: MakeJob, tmp_path: Path) -> None:
    source, target = subtitled(tmp_path / "in.mkv"), tmp_path / "out.avi"
    outcome = redact_video_file(source, target, toy_job(subtitles="copy", audio="drop"))
    assert "dropped: 2 subtitle tracks, which .avi cannot hold: use .mkv or .mp4" in outcome.notes
    assert b"Maria" not in target.read_bytes()


def test_words_in_the_style_of_a_subtitle_do_not_come_along(toy_job: MakeJob, tmp_path: Path) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    with av.open(str(shoot(tmp_path / "plain.mp4", Film()))) as plain, av.open(str(source), "w") as container:
        video = container.add_stream_from_template(plain.streams.video[0])
        text = _text(container, "mov_text", "deu", 1)
        for packet in plain.demux(video=0):
            if packet.size:
                packet.stream = video
                container.mux(packet)
        packet = av.Packet(b"\x00\x05Hello\x00\x00\x00\x0fPLNTPLANTED")  # a box of an unknown kind
        packet.stream, packet.time_base, packet.pts, packet.dts = text, Fraction(1, 1000), 0, 0
        packet.duration = 500
        container.mux(packet)
    assert b"PLNTPLANTED" in source.read_bytes()
    redact_video_file(source, target, toy_job(subtitles="copy"))
    assert cues(target, 0) == [(0, 500, "Hello")]
    assert b"PLANTED" not in target.read_bytes()


def test_the_policy_decides_about_subtitles() -> None:
    def ruled(text: str) -> Policy:
        return Policy.parse(
            f"[project]\nname = 'a'\n[purposes.p]\ndescription = 'd'\nactions = ['redact']\n{text}"
        )

    wish = Request(subtitles="copy")
    assert resolve(Request()).settings.subtitles == "drop"
    assert resolve(wish).settings.subtitles == "copy"
    for silent in ("", "[redact]\nsubtitles = 'drop'\n"):
        told_no = resolve(wish, ruled(silent))
        assert told_no.settings.subtitles == "drop"
        assert "subtitles are not kept" in " ".join(told_no.notes)
    free = ruled("[redact]\nsubtitles = 'copy'\n")
    assert resolve(wish, free).settings.subtitles == "copy"
    assert resolve(Request(), free).settings.subtitles == "copy"
    assert resolve(Request(subtitles="drop"), free).settings.subtitles == "drop"
