"""How many faces a video is left with, and how much of it is hidden: ours and deface's, frame by frame.

    python benchmarks/_exposure.py [--cache FOLDER] [--json]

Clips: those with hand-made labels (`_labels.py`), as they are and as degraded copies made here, and a
portrait that moves fast along a known path. What the detectors find is kept in the cache folder, so that a
second run, with other rules for what is made of it, takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from _clips import write
from _labels import Box, exposed, labels

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SFUMATO_TESTDATA", ROOT.parent / "shared" / "data"))
#: Candidates are remembered from this share of the threshold on.
LOWEST = 0.2
#: The face of `skimage.data.astronaut()`, by the rule of the labels: hairline to chin, between the ears.
PORTRAIT = (178.0, 74.0, 266.0, 181.0)

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sample:
    """A clip, and where its faces are: boxes by frame, in pixels of `size` (width, height)."""

    name: str
    path: Path
    size: tuple[int, int]
    boxes: Mapping[int, Sequence[Box]]


# Clips.


def frames_of(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield every frame of a clip as (height, width, 3) uint8 RGB."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def degrade(source: Path, target: Path, *, width: int, noise: float, crf: int) -> None:
    """Write a copy of a clip, `width` pixels wide, with noise of a standard deviation in grey levels."""
    import cv2

    draw = np.random.default_rng(0)

    def worse() -> Iterator[NDArray[np.uint8]]:
        for pixels in frames_of(source):
            height = 2 * round(pixels.shape[0] * width / pixels.shape[1] / 2)
            small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
            yield np.clip(small + noise * draw.standard_normal(small.shape), 0, 255).astype(np.uint8)

    write(target, worse(), crf)


#: clip -> name of a copy -> how it is made.
COPIES: dict[str, dict[str, dict[str, Any]]] = {
    "bikes.mp4": {
        "320 noise crf28": {"width": 320, "noise": 9, "crf": 28},
        "240 crf30": {"width": 240, "noise": 0, "crf": 30},
        "240 noise crf30": {"width": 240, "noise": 9, "crf": 30},
    },
    "carphone.mp4": {
        "176 noise crf28": {"width": 176, "noise": 9, "crf": 28},
        "120 crf30": {"width": 120, "noise": 0, "crf": 30},
        "120 noise crf30": {"width": 120, "noise": 9, "crf": 30},
    },
}


def labelled(folder: Path) -> list[Sample]:
    """Return the labelled clips with faces and their degraded copies, which are made in `folder` once."""
    found = []
    for name, clip in labels("faces").items():
        path = DATA / "video" / name
        found.append(Sample(f"{path.stem} clean", path, clip.size, clip.boxes))
        for copy, how in COPIES.get(name, {}).items():
            target = folder / f"{path.stem}-{copy.replace(' ', '-')}.mp4"
            if not target.exists():
                degrade(path, target, **how)
            found.append(Sample(f"{path.stem} {copy}", target, clip.size, clip.boxes))
    return found


#: name -> (left edge, top edge, side) of the portrait in frame n of 640 x 360; a face is 0.17 sides wide.
PATHS: dict[str, Callable[[int], tuple[float, float, float]]] = {
    "walk": lambda n: (-200 + 9 * n, 40, 260),
    "run": lambda n: (-230 + 22 * n, 40, 260),
    "dash": lambda n: (-240 + 45 * n, 40, 260),
    "shake": lambda n: (220 + 110 * np.sin(2 * np.pi * n / 16), 50, 240),
    "jerk": lambda n: (60 + 400 * (n / 40) ** 4, 40 + 30 * np.cos(n / 3), 240),
    "zoom": lambda n: (240 - 5.5 * n, 60 - 4.5 * n, 150 + 11.0 * n),
}


def moving(folder: Path, frames: int = 40) -> list[Sample]:
    """Return clips of a portrait that moves along the known paths."""
    import cv2
    from skimage import data

    portrait = data.astronaut()
    found = []
    for name, way in PATHS.items():
        path = folder / f"moving-{name}.mp4"
        boxes: dict[int, list[Box]] = {}
        pictures = []
        for index in range(frames):
            x, y, side = way(index)
            scale = side / 512
            shift = np.array([[scale, 0, x], [0, scale, y]], np.float32)
            still = np.full((360, 640, 3), (70, 84, 96), np.uint8)
            cv2.warpAffine(
                portrait,
                shift,
                (640, 360),
                dst=still,
                flags=cv2.INTER_AREA,
                borderMode=cv2.BORDER_TRANSPARENT,
            )
            pictures.append(still)
            x1, y1, x2, y2 = (PORTRAIT[i] * scale + (x, y)[i % 2] for i in range(4))
            seen = (max(x1, 0.0), max(y1, 0.0), min(x2, 640.0), min(y2, 360.0))
            # A face of which less than half is in the picture is nobody's face yet.
            if min(seen[2] - seen[0], x2 - x1) > 0.5 * (x2 - x1) and seen[3] - seen[1] > 0.5 * (y2 - y1):
                boxes[index] = [seen]
        if not path.exists():
            write(path, iter(pictures), 20)
        found.append(Sample(f"moving {name}", path, (640, 360), boxes))
    return found


# What hides.


class Memory:
    """Remembers by the pixels of a picture what was found in it; kept as a file between runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Any] = pickle.loads(path.read_bytes()) if path.exists() else {}
        self.asked = 0
        self._new = 0

    def get(self, kind: str, pixels: NDArray[np.uint8], compute: Callable[[], Any]) -> Any:
        digest = hashlib.sha1(np.ascontiguousarray(pixels), usedforsecurity=False).hexdigest()
        key = f"{kind}{pixels.shape}{digest}"
        self.asked += 1
        if key not in self._known:
            self._known[key] = compute()
            self._new += 1
        return self._known[key]

    def save(self) -> None:
        if self._new:
            self._path.write_bytes(pickle.dumps(self._known))
            self._new = 0


class Remembering:
    """A finder that asks the real one once about each picture; it counts the pixels that are looked at."""

    def __init__(self, finder: Any, memory: Memory) -> None:
        self._finder, self._memory = finder, memory
        self.pixels = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)

    def candidates(self, image: NDArray[np.uint8], factor: float = 0.5) -> Any:
        kind = ",".join(self._finder.hide)
        self.pixels += image.shape[0] * image.shape[1]
        found = self._memory.get(kind, image, lambda: self._finder.candidates(image, LOWEST))
        least = {label: factor * self._finder.threshold(label) - 1e-7 for label in self._finder.hide}
        return found.where(lambda label, score: score >= least[label])

    def glance(self, image: NDArray[np.uint8], factor: float = 0.5, *, length: int | None = None) -> Any:
        if length is None:
            self.pixels += image.shape[0] * image.shape[1]
        else:
            self.pixels += round(length * length * min(image.shape[:2]) / max(image.shape[:2]))
        kind = f"glance {factor} {length} {','.join(self._finder.hide)}"
        return self._memory.get(kind, image, lambda: self._finder.glance(image, factor, length=length))

    def find(self, image: NDArray[np.uint8]) -> Any:
        return self.candidates(image, 1.0)


class Ours:
    """Sfumato with its defaults for video."""

    def __init__(self, memory: Memory, **settings: Any) -> None:
        from sfumato.redaction.plan import prepare
        from sfumato.redaction.settings import Settings

        job = prepare(Settings(**settings), kinds=("video",)).jobs["video"]
        self.finder = Remembering(job.finder, memory)
        self.job = replace(job, finder=self.finder)

    def masks(self, path: Path) -> Iterator[Mask]:
        """Yield what is hidden in each frame."""
        from sfumato.redaction.covers import widened
        from sfumato.redaction.layers import layers, places
        from sfumato.redaction.videos.follow import Timeline
        from sfumato.redaction.videos.redact import scan_video, tracks_of
        from sfumato.redaction.videos.target import target_of

        self.finder.pixels = 0
        scan = scan_video(path, self.job, target_of(Path("x.mp4")))
        self.scan, self.tracks = scan, tracks_of(scan, self.job)
        self.looks = self.finder.pixels / (scan.canvas.width * scan.canvas.height) / len(scan.times)
        timeline, canvas = Timeline(self.tracks), scan.canvas
        fixed = places(self.job, path, canvas.width, canvas.height)
        for frame in range(len(scan.times)):
            mask = np.zeros((canvas.height, canvas.width), bool)
            for _, regions in layers(self.job, timeline.at(frame), fixed, canvas.width, canvas.height):
                for x1, y1, x2, y2 in widened(regions, canvas.cell, (canvas.width, canvas.height)):
                    mask[y1:y2, x1:x2] = True
            yield mask


class Deface:
    """deface's own code with its defaults: every frame, threshold 0.2, ellipses at mask scale 1.3."""

    looks = 1.0

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._net: Any = None

    def _find(self, pixels: NDArray[np.uint8]) -> Any:
        if self._net is None:
            from deface.centerface import CenterFace

            with contextlib.redirect_stdout(sys.stderr):  # it greets
                self._net = CenterFace(in_shape=None, backend="auto")
        return self._net(pixels, threshold=0.2)[0]

    def masks(self, path: Path) -> Iterator[Mask]:
        """Yield what is hidden in each frame."""
        from deface.deface import scale_bb
        from skimage.draw import ellipse

        for pixels in frames_of(path):
            height, width = pixels.shape[:2]
            mask = np.zeros((height, width), bool)
            for det in self._memory.get("deface", pixels, lambda pixels=pixels: self._find(pixels)):
                x1, y1, x2, y2 = scale_bb(*det[:4].astype(int), 1.3)
                y1, y2, x1, x2 = max(0, y1), min(height - 1, y2), max(0, x1), min(width - 1, x2)
                rows, columns = ellipse((y2 - y1) // 2, (x2 - x1) // 2, (y2 - y1) // 2, (x2 - x1) // 2)
                mask[rows + y1, columns + x1] = True
            yield mask


@dataclass(frozen=True, slots=True)
class Figure:
    """What one of the two left open in a clip: faces, of how many, the share of the picture hidden, looks."""

    exposed: int
    total: int
    area: float
    looks: float
    where: tuple[int, ...] = ()


def figure(sample: Sample, one: Ours | Deface) -> Figure:
    """Measure one clip; the area is over all frames, `looks` in whole frames' pixels per frame."""
    areas, where, count, total = [], [], 0, 0
    for frame, mask in enumerate(one.masks(sample.path)):
        areas.append(float(mask.mean()))
        open_here, here = exposed({frame: sample.boxes.get(frame, ())}, {frame: mask}, size=sample.size)
        count, total = count + open_here, total + here
        where += [frame] * bool(open_here)
    return Figure(count, total, float(np.mean(areas)), one.looks, tuple(where))


def measure(
    samples: Sequence[Sample], ours: Ours, peer: Deface, said: Callable[[str], None]
) -> dict[str, tuple[Figure, Figure]]:
    """Measure clips with both, one line each."""
    found = {}
    for sample in samples:
        a, b = found[sample.name] = figure(sample, ours), figure(sample, peer)
        ratio = a.area / b.area if b.area else float("inf")
        said(
            f"{sample.name:28} exposed {a.exposed:3} / deface {b.exposed:3} of {a.total:3}; "
            f"area {100 * a.area:5.2f} % / {100 * b.area:5.2f} % = {ratio:.2f}; looks {a.looks:.2f}"
            + (f"; open in {', '.join(map(str, a.where[:12]))}" if a.where else "")
        )
    return found


def summary(found: Mapping[str, tuple[Figure, Figure]]) -> dict[str, float]:
    """Return the shares exposed and the ratio of areas: clean, degraded, and fast clips apart."""
    groups = {
        "clean": [pair for name, pair in found.items() if name.endswith("clean")],
        "degraded": [pair for name, pair in found.items() if "crf" in name],
        "fast": [pair for name, pair in found.items() if name.startswith("moving")],
    }
    result = {}
    for group, pairs in groups.items():
        for who, index in (("", 0), ("_deface", 1)):
            total = sum(pair[index].total for pair in pairs)
            if total:
                result[f"exposed_share_{group}{who}"] = sum(pair[index].exposed for pair in pairs) / total
        if deface := sum(pair[1].area for pair in pairs):
            result[f"masked_area_over_deface_{group}"] = sum(pair[0].area for pair in pairs) / deface
    return result


def persons(model: Path, folder: Path) -> None:
    """Print what is left open of the persons of vtest.avi; deface hides faces alone."""
    memory = Memory(folder / "persons.pickle")
    clip = labels("persons")["vtest.avi"]
    sample = Sample("vtest persons", DATA / "video" / "vtest.avi", clip.size, clip.boxes)
    try:
        ours = figure(sample, Ours(memory, hide=("person",), models={"yolo26": model}))
    finally:
        memory.save()
    print(
        f"{sample.name}: exposed {ours.exposed} of {ours.total}; area {100 * ours.area:.2f} %; "
        f"looks {ours.looks:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, help="folder to keep copies and findings in")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", default="", help="clips whose name holds this")
    parser.add_argument("--persons", metavar="MODEL", help="persons in vtest.avi, by a YOLO26 file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.cache or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        if options.persons:
            persons(Path(options.persons), folder)
            return
        memory = Memory(folder / "found.pickle")
        samples = [one for one in (*labelled(folder), *moving(folder)) if options.only in one.name]
        said = (lambda line: print(line, file=sys.stderr)) if options.json else print
        try:
            result = summary(measure(samples, Ours(memory), Deface(memory), said))
        finally:
            memory.save()
    if options.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key}: {value:.4g}")


if __name__ == "__main__":
    main()
