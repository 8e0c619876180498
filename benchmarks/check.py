"""`sfumato check`: how many planted misses it finds, and how often it speaks where nothing is open.

Pictures and clips with hand-labelled faces (SFUMATO_TESTDATA, else ../shared/data) are redacted with the
defaults. Then one labelled face is put back in one picture or one frame, with the margin that hid it, and
the output is looked at as `sfumato check` does, without the original. A face counts as found when something
is seen there. A no-op is an original, given as if it were an output. Twice: with all face detectors, and
with the embedded one alone, which also hid.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from _bench import arguments, report
from _labels import labels
from sfumato.redaction.check.looks import Looker, Seen, make_looker
from sfumato.redaction.images import redact_pixels
from sfumato.redaction.plan import prepare
from sfumato.redaction.regions import regions_of
from sfumato.redaction.videos import redact_video_file
from sfumato.vision.boxes import Boxes

DATA = Path(os.environ.get("SFUMATO_TESTDATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
OTHER = DATA / "models" / "face_detection_yunet_2023mar.onnx"
#: Faces put back, one at a time, in one picture; frames between two plantings in a clip.
EACH, APART = 3, 4

Picture = NDArray[np.uint8]
Box = Sequence[float]


def there(seen: Sequence[Seen], box: Box) -> bool:
    """Return whether something was seen where the face is: a third of one of the two lies in the other."""
    for one in seen:
        low, high = np.maximum(one.box[:2], box[:2]), np.minimum(one.box[2:], box[2:])
        areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one.box, box)]
        if (high > low).all() and float((high - low).prod()) > min(areas) / 3:
            return True
    return False


def opened(before: Picture, after: Picture, box: Box) -> Picture:
    """Return the output with the region of one face as it was."""
    height, width = before.shape[:2]
    job = prepare(kinds=("image",)).jobs["image"]
    ((x1, y1, x2, y2),) = regions_of(Boxes([box], [1.0], ["face"]), job.settings, width, height)
    planted = after.copy()
    planted[y1:y2, x1:x2] = before[y1:y2, x1:x2]
    return planted


def pictures(quick: bool) -> Iterator[tuple[Picture, Picture, list[Box]]]:
    """Yield pictures with labelled faces: before, after, the boxes."""
    truth = json.loads((DATA / "labels" / "faces.json").read_text())
    names = [name for name in sorted(truth) if truth[name]["faces"]]
    job = prepare(kinds=("image",)).jobs["image"]
    for name in names[::4] if quick else names:
        before = np.array(Image.open(DATA / "images" / name).convert("RGB"))
        after, _ = redact_pixels(before, job)
        yield before, after, truth[name]["faces"]


def frames(path: Path) -> list[Picture]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def encoded(pictures: Sequence[Picture], path: Path) -> list[Picture]:
    """Return pictures as they look after encoding."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "18", "preset": "veryfast"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return frames(path)


def clips(quick: bool, folder: Path) -> Iterator[tuple[list[Picture], dict[int, Box]]]:
    """Yield outputs as frames, with a face open in some of them, and where; then the clean outputs."""
    job = prepare(kinds=("video",)).jobs["video"]
    for name, clip in labels("faces").items():
        target = folder / f"{name}.out.mp4"
        redact_video_file(DATA / "video" / name, target, job)
        before, after = frames(DATA / "video" / name), frames(target)
        wanted = [index for index, boxes in sorted(clip.boxes.items()) if boxes]
        wanted = wanted[:: 4 * APART if quick else APART]
        for index in wanted:
            after[index] = opened(before[index], after[index], clip.boxes[index][0])
        yield encoded(after, folder / f"{name}.planted.mp4"), {n: clip.boxes[n][0] for n in wanted}


class Tally:
    """What one looker saw."""

    def __init__(self, looker: Looker) -> None:
        self.looker = looker
        self.count: Counter[str] = Counter()

    def picture(self, before: Picture, after: Picture, planted: Sequence[tuple[Picture, Box]]) -> None:
        self.count["pictures"] += 1
        self.count["noops"] += bool(self.looker.closely(before))
        self.count["alarms"] += bool(self.looker.closely(after))
        for picture, box in planted:
            self.count["planted"] += 1
            self.count["found"] += there(self.looker.closely(picture), box)

    def frame(self, picture: Picture, box: Box | None) -> None:
        seen = self.looker.quickly(picture)
        if box is None:
            self.count["frames"] += 1
            self.count["spoke"] += bool(seen)
        else:
            self.count["planted"] += 1
            self.count["found"] += there(seen, box)

    def result(self) -> dict[str, object]:
        count = self.count
        return {
            "noop_found_share": count["noops"] / count["pictures"],
            "planted_found_share": count["found"] / count["planted"],
            "pictures_with_finds_after_redaction": count["alarms"] / count["pictures"],
            "frames_with_finds_after_redaction": count["spoke"] / max(count["frames"], 1),
        }


def main() -> None:
    options = arguments(__doc__ or "")
    if not (DATA / "labels" / "faces.json").exists():
        raise SystemExit("needs the labelled pictures and clips: set SFUMATO_TESTDATA")
    tallies = {"embedded_alone_": Tally(make_looker(["face"], threads=2)[0])}
    if OTHER.exists():
        both = make_looker(["face"], models={"yunet": OTHER}, threads=2)[0]
        tallies = {"": Tally(both), **tallies}
    for before, after, boxes in pictures(options.quick):
        some = [(opened(before, after, box), box) for box in boxes[:: max(1, -(-len(boxes) // EACH))]]
        for tally in tallies.values():
            tally.picture(before, after, some)
    with tempfile.TemporaryDirectory() as folder:
        for shown, where in clips(options.quick, Path(folder)):
            others = [index for index in range(len(shown)) if index not in where]
            for index in (*where, *others[:: 8 if options.quick else 1]):
                for tally in tallies.values():
                    tally.frame(shown[index], where.get(index))
    lines = [
        f"{', '.join(tally.looker.detectors)}: {tally.count['found']} of {tally.count['planted']} planted "
        f"faces, {tally.count['noops']} of {tally.count['pictures']} no-ops found"
        for tally in tallies.values()
    ]
    results = {f"{name}{key}": value for name, one in tallies.items() for key, value in one.result().items()}
    report(results, lines, options.json)


if __name__ == "__main__":
    main()
