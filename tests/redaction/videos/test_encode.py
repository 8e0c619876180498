"""Encoding: equal frames give equal bytes, whatever lies in memory."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from sfumato.redaction.videos.encode import Coder, Coding
from sfumato.redaction.videos.frames import Canvas, Turn, planes
from sfumato.redaction.videos.target import TARGETS

#: Bytes that fresh memory is filled with (glibc; elsewhere nothing is), each in a process of its own.
FILLINGS = (1, 200, 255)
CHILD = "from test_encode import digest; print(digest({suffix!r}, {options!r}))"


def digest(suffix: str, options: tuple[tuple[str, str], ...] = ()) -> str:
    """Encode a grey square that moves over a plain picture, four times; return the hash of the packets."""
    canvas = Canvas(
        width=160, height=96, pix_fmt="yuv420p", bits=8, cell=(2, 2), range=1, space=1, primaries=1,
        transfer=1, aspect=None, turn=Turn(),
    )  # fmt: skip
    coding = Coding(form=TARGETS[suffix], canvas=canvas, time_base=Fraction(1, 25), rate=Fraction(25))
    coding = replace(coding, options=options)
    data = hashlib.sha256()
    for run in range(4):
        coder = Coder(coding)
        for number in range(12):
            frame = av.VideoFrame(160, 96, "yuv420p")
            for plane in planes(frame):
                for row, pixels in enumerate(plane):
                    pixels[:] = [80 + column // 4 + row // 4 for column in range(len(pixels))]
            planes(frame)[0][40:58, 20 + 4 * number + 8 * run :][:, :18] = 128
            for coded in coder.write(frame, number, 1):
                data.update(coded.data)
        for coded in coder.finish():
            data.update(coded.data)
    return data.hexdigest()


def digests(suffix: str, options: tuple[tuple[str, str], ...] = ()) -> set[str]:
    """Return what `digest` gives where fresh memory holds one thing and another."""
    path = os.pathsep.join((str(Path(__file__).parent), *filter(None, sys.path)))
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD.format(suffix=suffix, options=options)],
            env={**os.environ, "MALLOC_PERTURB_": str(filling), "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        for filling in FILLINGS
    ]
    outputs = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0] * len(children)
    return set(outputs)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".mp4", (("crf", "28"),)), (".mp4", (("crf", "12"),)), (".webm", ()), (".avi", ())],
)
def test_equal_frames_give_equal_bytes_whatever_memory_holds(
    suffix: str, options: tuple[tuple[str, str], ...]
) -> None:
    assert len(digests(suffix, options)) == 1


def test_the_check_can_fail() -> None:
    own = TARGETS[".mp4"].options["x264-params"]
    assembly = own.replace("cpu-independent=1", "cpu-independent=0")
    assert assembly != own
    if len(digests(".mp4", (("crf", "28"), ("x264-params", assembly)))) == 1:
        pytest.skip("on this machine x264's own assembly reads nothing that nobody wrote to")
