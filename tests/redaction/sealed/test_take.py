"""Whatever a brush changes was kept before: the tripwire for covers and regions to come."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sfumato.redaction.layers import places
from sfumato.redaction.sealed.pack import unpack
from sfumato.redaction.sealed.sealer import Sealer
from sfumato.redaction.sealed.take import FrameSeal
from sfumato.redaction.videos.brush import Brush
from sfumato.redaction.videos.frames import Canvas, Turn, planes
from sfumato.redaction.zones import Zone
from sfumato.vision.tracks import Track

CANVAS = Canvas(
    width=160, height=96, pix_fmt="yuv420p", bits=8, cell=(2, 2), range=1, space=1, primaries=1, transfer=1,
    aspect=Fraction(1), turn=Turn(),
)  # fmt: skip


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    "settings",
    [{"cover": "fill"}, {"cover_options": {"feather": 0.2}}, {"cover": "replace"}, {"cover": "blur"}],
)
def test_what_a_brush_changes_was_kept(toy_job, tmp_path: Path, settings, interlaced: bool) -> None:
    zone = Zone("corner", ((0.7, 0.6), (1.0, 0.6), (1.0, 1.0)))
    job = toy_job(zones=(zone,), **settings)
    tracks = [Track("face", 0, [[31, 20, 55, 47]] * 3), Track("face", 1, [[47, 33, 71, 60]] * 2)]
    fixed = places(job, None, CANVAS.width, CANVAS.height)
    sealer = Sealer.new(tmp_path)
    part = sealer.part()
    taken: dict[int, dict[tuple[int, int], list]] = {}
    seal = FrameSeal(part, job, CANVAS, fixed)
    pack = seal._pack

    def listen(pieces) -> bytes:
        data = pack(pieces)
        for piece in unpack(data):
            for rect, crops in zip(piece.rects, piece.crops, strict=True):
                taken.setdefault(piece.index, {})[rect] = crops
        return data

    seal._pack = listen
    brush = Brush(job, CANVAS, tracks, fixed, seal=seal)
    rng = np.random.default_rng(8)
    frames = []
    for index in range(3):
        frame = av.VideoFrame(CANVAS.width, CANVAS.height, CANVAS.pix_fmt)
        for plane in planes(frame):
            plane[:] = rng.integers(20, 230, plane.shape)
        before = [plane.copy() for plane in planes(frame)]
        brush.paint(frame, index, interlaced=interlaced)
        frames.append((before, [plane.copy() for plane in planes(frame)]))
    part.finish()
    for index, (before, after) in enumerate(frames):
        assert any((one != two).any() for one, two in zip(before, after, strict=True))
        for (x1, y1, x2, y2), crops in taken[index].items():
            for number, (plane, own) in enumerate(zip(after, crops, strict=True)):
                step = 1 if number == 0 else 2
                plane[y1 // step : -(-y2 // step), x1 // step : -(-x2 // step)] = own
        assert all((one == two).all() for one, two in zip(before, after, strict=True)), index
