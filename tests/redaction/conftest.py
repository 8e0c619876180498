"""Small clips made on the spot: magenta squares that move over a plain picture, and ways to look at them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from sfumato.redaction.covers import CATALOGUE
from sfumato.redaction.job import Job
from sfumato.redaction.settings import Settings
from sfumato.vision.boxes import Boxes
from sfumato.vision.finder import Finder
from sfumato.vision.toy import MAGENTA, ToyDetector


@dataclass
class Clip:
    """What a clip is made of; `times` are in units of `time_base`."""

    frames: int = 24
    size: tuple[int, int] = (160, 96)
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    time_base: Fraction = Fraction(1, 25)
    times: Sequence[int] | None = None
    audio: Sequence[str] = ()
    audio_start: float = 0.0
    audio_seconds: float = 1.0
    rotation: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    stream_metadata: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=lambda: {"crf": "10", "preset": "ultrafast"})
    container_options: dict[str, str] = field(default_factory=dict)
    squares: Callable[[int], list[tuple[int, int, int]]] | None = None
    shade: Callable[[int], int] = lambda index: 0
    extras: Callable[[Any], Callable[[], None] | None] | None = None
    colour: dict[str, int] = field(default_factory=dict)


def two_squares(index: int) -> list[tuple[int, int, int]]:
    """Return (x, y, side) of two squares that move in opposite ways."""
    return [(8 + 4 * index, 20, 18), (124 - 3 * index, 60, 14)]


def picture(clip: Clip, index: int) -> NDArray[np.uint8]:
    """Draw one upright frame."""
    width, height = clip.size
    if clip.rotation in (90, 270):
        width, height = height, width
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([80 + columns // 4, 110 + rows // 4, 90 + (rows + columns) // 8], axis=2)
    image = (image + clip.shade(index)).astype(np.uint8)
    for x, y, side in (clip.squares or two_squares)(index):
        image[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)] = MAGENTA
    return image


def make_clip(path: Path, clip: Clip) -> Path:
    """Write a clip."""
    with av.open(str(path), "w", container_options=clip.container_options) as container:
        container.metadata.update(clip.metadata)
        stream: Any = container.add_stream(clip.codec, rate=1 / clip.time_base, options=dict(clip.options))
        stream.width, stream.height, stream.pix_fmt = *clip.size, clip.pix_fmt
        stream.codec_context.time_base = clip.time_base
        for name, value in clip.colour.items():
            setattr(stream.codec_context, name, value)
        stream.metadata.update(clip.stream_metadata)
        if clip.rotation:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write a rotation mark")
            stream.set_display_rotation(clip.rotation)
        sounds = [_add_sound(container, codec) for codec in clip.audio]
        later = clip.extras(container) if clip.extras else None
        for number, sound in enumerate(sounds):
            _write_sound(container, sound, clip, 440 * (number + 1))
        if later:
            later()
        for index in range(clip.frames):
            image = picture(clip, index)
            if clip.rotation:  # stored so that turning it counter-clockwise by `rotation` shows it upright
                image = np.rot90(image, -clip.rotation // 90)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(format=clip.pix_fmt, dst_colorspace="ITU601")
            frame.pts = clip.times[index] if clip.times else index
            frame.time_base = clip.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _add_sound(container: Any, codec: str) -> Any:
    sound = container.add_stream(codec, rate=48_000)
    sound.codec_context.layout = "mono"
    return sound


def _write_sound(container: Any, sound: Any, clip: Clip, pitch: int) -> None:
    samples = round(clip.audio_seconds * 48_000)
    wave = np.sin(np.arange(samples) * 2 * np.pi * pitch / 48_000) * 8000
    for start in range(0, samples, 960):
        piece = wave[start : start + 960].astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
        frame.sample_rate, frame.time_base = 48_000, Fraction(1, 48_000)
        frame.pts = start + round(clip.audio_start * 48_000)
        container.mux(sound.encode(frame))
    container.mux(sound.encode())


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a clip: `clip("a.mp4", frames=12)`."""
    return lambda name, **what: make_clip(tmp_path / name, Clip(**what))


class Forgetful(ToyDetector):
    """Finds nothing at some of its calls, counted from 0."""

    def __init__(self, blind: Callable[[int], bool], **settings: Any) -> None:
        super().__init__(**settings)
        self.blind, self.calls = blind, 0

    def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Boxes:
        self.calls += 1
        return Boxes.empty() if self.blind(self.calls - 1) else super().detect(image, floor=floor)


@pytest.fixture
def toy_job() -> Callable[..., Job]:
    """Return a function that makes a job with the toy detector: `toy_job(every=3, audio="mute")`."""

    def make(blind: Callable[[int], bool] = lambda call: False, **settings: Any) -> Job:
        chosen = Settings(**settings)
        cover = CATALOGUE.build(chosen.cover, **chosen.cover_options)
        return Job(chosen, Finder([Forgetful(blind)]), cover)

    return make


@pytest.fixture(scope="session")
def look() -> Callable[[Path], list[NDArray[np.uint8]]]:
    """Return a function that gives every frame of a video as RGB."""

    def read(path: Path) -> list[NDArray[np.uint8]]:
        with av.open(str(path)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    return read


@pytest.fixture(scope="session")
def times_of() -> Callable[[Path], list[Fraction]]:
    """Return a function that gives the time of every video frame, in seconds."""

    def read(path: Path) -> list[Fraction]:
        with av.open(str(path)) as container:
            return [frame.pts * frame.time_base for frame in container.decode(video=0)]

    return read


@pytest.fixture(scope="session")
def open_frames(look: Callable[[Path], list[NDArray[np.uint8]]]) -> Callable[[Path], list[int]]:
    """Return a function that gives the frames in which the toy detector still finds a square."""
    toy = ToyDetector()
    return lambda path: [index for index, image in enumerate(look(path)) if len(toy.detect(image))]


@pytest.fixture(scope="session")
def video_labels() -> Callable[[str], dict[str, Any]]:
    """Return a function that reads a file under labels/, anew at every call; see the README there."""
    folder = Path(__file__).parent / "labels"
    return lambda name: json.loads((folder / name).read_text(encoding="utf-8"))
