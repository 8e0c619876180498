"""Broken, odd and good files in one folder, by command line: nothing half done, nothing left open."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sfumato.cli.main import main
from sfumato.core.errors import UnreadableMedia
from sfumato.redaction.settings import Settings
from sfumato.redaction.videos import redact_video_file
from sfumato.vision.finder import Finder
from sfumato.vision.toy import MAGENTA, ToyDetector

Make = Callable[..., Path]
FRAMES = 24
AVI: dict[str, Any] = {"codec": "mpeg4", "options": {"b": "500k"}}
VP9: dict[str, Any] = {
    "codec": "libvpx-vp9",
    "options": {"cpu-used": "8", "deadline": "realtime", "b": "300k"},
}
FAST: dict[str, Any] = {"container_options": {"movflags": "+faststart"}}


def run(*arguments: str | Path) -> int:
    """Run in this process; return the exit code."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def scene(seed: int = 0) -> NDArray[np.uint8]:
    """Return a picture with texture, so that its coded data is long, and one magenta face."""
    drawn = np.random.default_rng(seed)
    y, x = np.mgrid[0:120, 0:160]
    picture = np.stack([80 + x // 4, 110 + y // 4, 90 + (x + y) // 8], axis=2) + drawn.integers(
        0, 12, (120, 160, 3)
    )
    picture[40:70, 60:95] = MAGENTA
    return picture.astype(np.uint8)


def coded(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(scene()).save(file, kind, **options)
    return file.getvalue()


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def dirty(data: bytes, seed: int, flips: int = 60) -> bytes:
    """Flip bits between the first and the last quarter."""
    spoilt, drawn = bytearray(data), random.Random(seed)
    for _ in range(flips):
        spoilt[drawn.randrange(len(data) // 4, len(data) * 3 // 4)] ^= 1 << drawn.randrange(8)
    return bytes(spoilt)


def hollow(data: bytes) -> bytes:
    """Take a fifth out of the middle, and keep the end."""
    return data[: len(data) * 2 // 5] + data[len(data) * 3 // 5 :]


def bomb() -> bytes:
    """Return a PNG of few bytes that declares 10,000 megapixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def sound_only(path: Path) -> bytes:
    with av.open(str(path), "w") as container:
        sound: Any = container.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path.read_bytes()


def broken_files(clip: Make, folder: Path) -> dict[str, bytes]:
    """Return what is broken, by name."""
    mp4, late = clip("a.mp4", **FAST).read_bytes(), clip("b.mp4").read_bytes()
    mkv, avi = clip("a.mkv").read_bytes(), clip("a.avi", **AVI).read_bytes()
    webm = clip("a.webm", **VP9).read_bytes()
    jpeg, png = coded("JPEG", quality=90), coded("PNG")
    noise = random.Random(7).randbytes(5000)
    return {
        "cut-early.mp4": cut(mp4, 0.3),
        "cut-late.mp4": cut(mp4, 0.95),
        "cut.mkv": cut(mkv, 0.5),
        "cut.webm": cut(webm, 0.6),
        "cut.avi": cut(avi, 0.5),
        "index-lost.mp4": late[: late.rindex(b"moov") - 4],
        "dirty-0.mp4": dirty(mp4, 0),
        "dirty-1.mp4": dirty(mp4, 1),
        "dirty-2.mp4": dirty(late, 2),
        "dirty.mkv": dirty(mkv, 3),
        "dirty.webm": dirty(webm, 4),
        "dirty.avi": dirty(avi, 5),
        "hollow.mkv": hollow(mkv),
        "garbage.mp4": noise,
        "garbage-after-a-start.mp4": mp4[:200] + noise,
        "empty.mp4": b"",
        "sound.mp4": sound_only(folder / "sound.mp4"),
        "text.mkv": b"this is not a video\n" * 50,
        "cut.jpg": cut(jpeg, 0.5),
        "cut-and-closed.jpg": cut(jpeg, 0.5) + b"\xff\xd9",
        "hollow.jpg": hollow(jpeg),
        "dirty.jpg": dirty(coded("JPEG", quality=90, progressive=True), 6),
        "cut.png": cut(png, 0.5),
        "dirty.png": dirty(png, 7, 1),
        "cut.webp": cut(coded("WEBP"), 0.5),
        "cut.tif": cut(coded("TIFF", compression="tiff_deflate"), 0.8),
        "dirty.tif": dirty(coded("TIFF", compression="tiff_deflate"), 8),
        "cut.gif": cut(coded("GIF"), 0.5),
        "garbage.jpg": noise,
        "empty.webp": b"",
        "bomb.png": bomb(),
    }


def good_files(clip: Make) -> dict[str, tuple[bytes, str]]:
    """Return what is whole, by name, and the name that its output gets."""
    return {
        "good.mp4": (clip("g.mp4").read_bytes(), "good.mp4"),
        "good.mkv": (clip("g.mkv").read_bytes(), "good.mkv"),
        "good.webm": (clip("g.webm", **VP9).read_bytes(), "good.webm"),
        "good.avi": (clip("g.avi", **AVI).read_bytes(), "good.avi"),
        "film": (clip("f.mp4").read_bytes(), "film.mp4"),
        "photo": (coded("JPEG"), "photo.jpg"),
        "really-a-png.mp4": (coded("PNG"), "really-a-png.png"),
        "really-a-film.jpg": (clip("h.mkv").read_bytes(), "really-a-film.mp4"),
        "good.png": (coded("PNG"), "good.png"),
        "good.tif": (coded("TIFF"), "good.tif"),
    }


def pictures(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Decode a file with a plain decoder: a picture, or every frame of a video."""
    try:
        with Image.open(path) as image:
            yield np.asarray(image.convert("RGB"))
    except OSError:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")


def left_open(path: Path) -> tuple[int, int]:
    """Return how many pictures a file has, and in how many a face still shows."""
    toy = ToyDetector()
    seen = [len(toy.detect(np.ascontiguousarray(picture))) > 0 for picture in pictures(path)]
    return len(seen), sum(seen)


def shown(path: Path) -> int:
    """Return how many frames a program gets that reads as far as it can and minds no error."""
    count = 0
    try:
        with av.open(str(path)) as container:
            for packet in container.demux(video=0):
                try:
                    count += len(packet.decode())
                except av.error.FFmpegError:
                    continue
    except (av.error.FFmpegError, IndexError):
        return count
    return count


@pytest.fixture
def folder(clip: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay all files into one folder, and put the toy in place of the catalogue's detectors."""
    work, source = tmp_path / "work", tmp_path / "in"
    work.mkdir()
    source.mkdir()
    files = {name: data for name, (data, _) in good_files(clip).items()} | broken_files(clip, work)
    for name, data in files.items():
        (source / name).write_bytes(data)
    (source / "notes.txt").write_text("no media")
    monkeypatch.setattr(
        "sfumato.redaction.plan.build_finder",
        lambda settings: Finder([ToyDetector()], settings.hide, thresholds=settings.thresholds),
    )
    monkeypatch.chdir(tmp_path)
    return source


def summary(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    return data


def test_broken_files_are_named_and_good_ones_done(
    folder: Path, clip: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = good_files(clip)
    broken = sorted({path.name for path in folder.iterdir()} - set(good) - {"notes.txt"})
    assert len(broken) >= 24
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    safe = tmp_path / "safe"

    assert run("redact", folder, "-o", safe, "--json") == 1
    told = summary(capsys)
    assert told["status"] == "incomplete"
    assert sorted(one["name"] for one in told["failures"]) == broken
    for one in told["failures"]:
        assert one["error"] in ("UnreadableMedia", "UnsupportedMedia", "MediaTooLarge"), one
        assert len(one["reason"]) > 20
    written = {path.name for path in safe.rglob("*") if path.is_file()} - {"receipt.json", "report.html"}
    assert {name for name in written if not name.startswith(".")} == {name for _, name in good.values()}
    assert not [path for path in safe.rglob(".*") if path.suffix in (".mp4", ".part", ".tmp")]
    for name, (_, output) in good.items():
        count, seen = left_open(safe / output)
        assert seen == 0, name
        assert count == (1 if count == 1 else FRAMES)
        assert left_open(folder / name) == (count, count)  # the check can fail
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    # Two are mended and a third is replaced: only those are done, and the rest stays as it is.
    done = {output: (safe / output).stat().st_mtime_ns for _, output in good.values()}
    (folder / "cut.jpg").write_bytes(coded("JPEG"))
    (folder / "cut.mkv").write_bytes(clip("m.mkv").read_bytes())
    (folder / "empty.mp4").write_bytes(clip("m.mp4").read_bytes())
    assert run("redact", folder, "-o", safe, "--json", "--resume") == 1
    again = summary(capsys)
    assert again["files"]["skipped"] == len(good)
    assert again["files"]["done"] in (3, 3 + len(good))
    mended = {"cut.jpg", "cut.mkv", "empty.mp4"}
    assert sorted(one["name"] for one in again["failures"]) == sorted(set(broken) - mended)
    assert all(left_open(safe / name)[1] == 0 for name in mended)
    assert {name: (safe / name).stat().st_mtime_ns for name in done} == done

    # Once the rest is taken away, the run is whole.
    for name in set(broken) - mended:
        (folder / name).unlink()
    assert run("redact", folder, "-o", safe, "--json", "--resume") == 0
    assert summary(capsys)["status"] == "done"


def test_a_reader_that_minds_no_error_loses_frames_in_silence(folder: Path) -> None:
    """What the refusals are for: read as far as it goes, these give fewer frames, and no error."""
    fewer = [
        path.name
        for path in sorted(folder.glob("*"))
        if path.suffix in (".mp4", ".mkv", ".webm", ".avi")
        and path.name.startswith(("cut", "dirty", "hollow"))
        and shown(path) < FRAMES
    ]
    assert len(fewer) >= 5
    with Image.open(folder / "cut-and-closed.jpg") as image:
        lower = np.asarray(image.convert("RGB"))[90:]
    assert lower.std() < 1  # half of it is plain grey, and no error was raised


def test_one_broken_file_alone(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cut-late.mp4", "hollow.jpg", "sound.mp4"):
        target = tmp_path / "alone" / name
        target.parent.mkdir(exist_ok=True)
        assert run("redact", folder / name, "-o", target) == 1
        assert name in capsys.readouterr().err
        assert [path.name for path in target.parent.iterdir() if name in path.name] == []


@pytest.mark.parametrize("seed", range(4))
def test_one_flipped_bit_in_matroska_is_noticed(clip: Make, toy_job: Any, tmp_path: Path, seed: int) -> None:
    source = clip("in.mkv")
    source.write_bytes(dirty(source.read_bytes(), seed, flips=1))
    with pytest.raises(UnreadableMedia, match=r"damaged|cut short"):
        redact_video_file(source, tmp_path / "out.mkv", toy_job())
    assert not (tmp_path / "out.mkv").exists()


def test_what_a_clip_is(clip: Make) -> None:
    assert Settings().hide == ("face",)
    assert left_open(clip("a.mp4")) == (FRAMES, FRAMES)
