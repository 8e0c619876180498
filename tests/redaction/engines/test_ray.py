"""Redaction on a real Ray cluster of this machine: the same bytes as here, whoever ends on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfumato.core.receipt import Receipt
from sfumato.vision.toy import MAGENTA

pytest.importorskip("ray", reason="the engine 'ray' needs Ray: pip install 'sfumato[ray]'")

PROGRAM = Path(__file__).parents[2] / "support" / "ray_run.py"


@pytest.fixture(scope="module")
def base() -> Any:
    """A folder with a short name, for the temporary files of Ray and its workers."""
    with tempfile.TemporaryDirectory(prefix="sr") as folder:
        yield Path(folder)


@pytest.fixture
def go(tmp_path: Path, base: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that redacts in a process of its own, and gives what came of it."""

    def run(source: Path, target: Path, engine: str, **wish: Any) -> dict[str, Any]:
        wish |= {"source": str(source), "target": str(target), "engine": engine}
        environment = os.environ | {"TMPDIR": str(base), "PYTHONWARNINGS": "error"}
        done = subprocess.run(
            [sys.executable, str(PROGRAM), json.dumps(wish)],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=1500,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        result: dict[str, Any] = json.loads(done.stdout)  # nothing else may be there
        return result | {"stderr": done.stderr}

    return run


def paint(path: Path, index: int, width: int = 80) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((60, width, 3), 40 + index * 7 % 200, np.uint8)
    pixels[20:40, 30:55] = MAGENTA
    Image.fromarray(pixels).save(path)


def outputs(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("receipt.json", ".sfumato-resume.jsonl")
    }


def assert_same(one: Path, two: Path, files: int) -> None:
    """Check that two runs released the same bytes, named by their receipts, and said the same of them."""
    first, second = outputs(one), outputs(two)
    assert len(first) == files
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    receipts = [Receipt.read(folder / "receipt.json") for folder in (one, two)]
    assert len(receipts[0].outputs) == files
    assert receipts[0].outputs == receipts[1].outputs
    assert receipts[0].body["facts"] == receipts[1].body["facts"]
    assert receipts[1].verify_files([two / name for name in second]) == ()


def test_the_same_bytes_though_a_worker_is_killed(
    go: Callable[..., dict[str, Any]], tmp_path: Path, clip: Callable[..., Path], base: Path
) -> None:
    source = tmp_path / "in"
    for index in range(24):
        paint(source / f"cam{index % 2}" / f"{index:02}.{('png', 'jpg', 'webp')[index % 3]}", index)
    (source / "cut.jpg").write_bytes((source / "cam0" / "04.jpg").read_bytes()[:200])
    short = clip("short.mp4", frames=12)
    long = clip("long.mp4", frames=620, options={"crf": "30", "preset": "ultrafast", "g": "50"})
    (source / "last").mkdir()  # so that there is work left when the worker is killed
    for video in (short, long):
        shutil.move(video, source / "last" / video.name)
    corner = {"name": "corner", "points": [[0, 0], [0.2, 0], [0.2, 0.2], [0, 0.2]], "files": "cam1/*"}
    here = go(source, tmp_path / "local", "local", zones=[corner])
    there = go(source, tmp_path / "ray", "ray", workers=2, zones=[corner], kill=4)
    assert there["killed"]
    assert any("a worker ended" in note for note in there["notes"])
    assert here["done"] == there["done"] == 26
    assert here["failures"] == there["failures"]
    assert list(there["failures"]) == ["cut.jpg"]
    assert there["detector_seconds"] > 0
    assert_same(tmp_path / "local", tmp_path / "ray", 26)
    facts = Receipt.read(tmp_path / "ray" / "receipt.json").body["facts"]
    assert facts["regions"]["zone corner"] == 12  # by the path there, under whatever name it travelled
    assert "cam0" not in there["stderr"]
    assert list(base.iterdir()) == []  # nothing of the cluster or of the dead worker is left


def test_a_file_that_kills_workers_fails_alone(go: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    for index in range(6):
        paint(tmp_path / "in" / f"{index}.png", index, width=333 if index == 2 else 80)
    run = go(tmp_path / "in", tmp_path / "out", "ray", workers=2, poison=333)
    assert list(run["failures"]) == ["2.png"]
    error, reason = run["failures"]["2.png"]
    assert error == "MediaError"
    assert "3 workers ended while they worked on it" in reason
    assert sorted(outputs(tmp_path / "out")) == [f"{index}.png" for index in (0, 1, 3, 4, 5)]
    again = go(tmp_path / "in", tmp_path / "whole", "local")
    assert again["done"] == 6  # the control: here nothing ends


@pytest.mark.slow
def test_nobody_else_gets_into_the_cluster_of_a_run(
    go: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    for index in range(3):
        paint(tmp_path / "in" / f"{index}.png", index)
    run = go(tmp_path / "in", tmp_path / "out", "ray", workers=1, stranger=True)
    assert run["strangers"] == [False]


@pytest.mark.slow
def test_an_interrupt_ends_it_soon_and_resume_does_the_rest(
    go: Callable[..., dict[str, Any]], tmp_path: Path, base: Path, clip: Callable[..., Path]
) -> None:
    (tmp_path / "in").mkdir()
    for index in range(40):
        paint(tmp_path / "in" / f"{index:02}.png", index)
    long = clip("zz.mp4", frames=3000, options={"crf": "30", "preset": "ultrafast", "g": "50"})
    shutil.move(long, tmp_path / "in" / "zz.mp4")
    run = go(tmp_path / "in", tmp_path / "out", "ray", workers=2, interrupt_after=20)
    assert "--resume" in run["stopped"]
    kept = outputs(tmp_path / "out")
    assert 20 <= len(kept) <= 40
    assert list(base.iterdir()) == []
    rest = go(tmp_path / "in", tmp_path / "out", "ray", workers=2, resume=True)
    assert rest["done"] == 41 - len(kept)
    go(tmp_path / "in", tmp_path / "local", "local")
    assert outputs(tmp_path / "local") == outputs(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_pictures_and_a_long_video(
    go: Callable[..., dict[str, Any]], tmp_path: Path, testdata: Callable[[str], Path], base: Path
) -> None:
    """With the real detector; one of two workers is killed by its pid in the middle of the pictures."""
    source = tmp_path / "in"
    source.mkdir()
    pictures = sorted(testdata("images").glob("coco_*.jpg"))
    for index in range(200):
        with Image.open(pictures[index % len(pictures)]) as image:
            left, top = index % 7 * 9, index % 5 * 11
            image.convert("RGB").crop((left, top, left + 320, top + 240)).save(source / f"{index:03}.jpg")
    _long_video(testdata("video/bikes.mp4"), source / "walk.mp4", seconds=60)
    there = go(source, tmp_path / "ray", "ray", workers=2, kill=100, real=True)
    here = go(source, tmp_path / "local", "local", real=True)
    assert there["killed"]
    assert any("a worker ended" in note for note in there["notes"])
    assert here["done"] == there["done"] == 201
    assert_same(tmp_path / "local", tmp_path / "ray", 201)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_long_video_whose_worker_is_killed(
    go: Callable[..., dict[str, Any]], tmp_path: Path, testdata: Callable[[str], Path]
) -> None:
    """A worker ends while it looks at a chunk; and, in a second run, while it makes one."""
    _long_video(testdata("video/bikes.mp4"), tmp_path / "walk.mp4", seconds=40)
    go(tmp_path / "walk.mp4", tmp_path / "local" / "walk.mp4", "local")
    kept = (tmp_path / "local" / "walk.mp4").read_bytes()
    for frame in (300, 1100):
        target = tmp_path / f"ray{frame}" / "walk.mp4"
        assert go(tmp_path / "walk.mp4", target, "ray", workers=2, kill_at_frame=frame)["killed"]
        assert target.read_bytes() == kept


def _long_video(source: Path, target: Path, seconds: int) -> None:
    """Write a video of that length with a key frame every four seconds, from a shorter one."""
    import av

    with av.open(str(source)) as container:
        frames = [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]
    with av.open(str(target), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "g": "100"})
        stream.width, stream.height, stream.pix_fmt = (
            frames[0].shape[1],
            frames[0].shape[0] * 2 // 3,
            "yuv420p",
        )
        for index in range(25 * seconds):
            frame = av.VideoFrame.from_ndarray(frames[index % len(frames)], format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
