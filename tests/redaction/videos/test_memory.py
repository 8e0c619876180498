"""Memory stays the same whatever the length of a video."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("resource", reason="peak memory is read through resource, which this system lacks")

WIDTH, HEIGHT = 640, 360
#: Megabytes that a video six times as long may take more: allocators are not exact.
SLACK = 24

CODE = """
import resource, sys
from pathlib import Path
from sfumato.redaction.covers import CATALOGUE
from sfumato.redaction.job import Job
from sfumato.redaction.settings import Settings
from sfumato.redaction.videos import redact_video_file
from sfumato.redaction.videos import looker
from sfumato.vision.finder import Finder
from sfumato.vision.toy import ToyDetector

class Glancer(ToyDetector):
    def glance(self, image, *, floor, length):
        return self.detect(image, floor=floor)

kept = []
if sys.argv[3] == "hoard":
    real = looker.Looker.see
    looker.Looker.see = lambda self, shot: (kept.append(shot), real(self, shot))[1]
job = Job(Settings(cover="solid"), Finder([Glancer()]), CATALOGUE.build("solid"))
redact_video_file(Path(sys.argv[1]), Path(sys.argv[2]), job)
try:  # ru_maxrss of a child begins with its parent's peak on Linux
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")))
except (OSError, StopIteration):
    scale = 2**20 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale)
"""


def clip(path: Path, frames: int) -> Path:
    """Write a clip with one magenta square that moves."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frames):
            image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
            image[100:160, index % 500 : index % 500 + 60] = (255, 0, 255)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def peak(source: Path, how: str = "as it is") -> float:
    """Return the peak memory, in megabytes, of a process that redacts one video."""
    command = [sys.executable, "-c", CODE, str(source), str(source.with_name("out.mp4")), how]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_a_video_six_times_as_long_takes_no_more(tmp_path: Path) -> None:
    short, long = clip(tmp_path / "short.mp4", 100), clip(tmp_path / "long.mp4", 600)
    base = peak(short)
    assert peak(long) < base + SLACK
    # A twin that keeps every frame is caught.
    assert peak(long, "hoard") > base + SLACK
