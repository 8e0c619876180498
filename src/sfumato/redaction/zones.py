"""Fixed places of a picture: zones that are always covered, and zones that never are.

A zone is a polygon in the upright picture. What it covers is made of whole pixels: at least the polygon where
it hides, at most the polygon where it keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.vision.opencv import opencv

#: How zones are called in tables of covers and in counts.
PREFIX = "zone "


@dataclass(frozen=True, slots=True)
class Zone:
    """A named polygon.

    >>> Zone("clock", ((0.8, 0.0), (1.0, 0.0), (1.0, 0.1), (0.8, 0.1))).label
    'zone clock'

    Args:
        name: how it is called.
        points: three corners or more (x, y): shares, 0..1, of the picture's sides; or, where `size` is given,
            pixels.
        size: (width, height) of the pictures that it is for, in pixels; None: pictures of every size.
        files: pattern of the files that it is for, such as "cam1/*.jpg", matched from the right.
        cover: the cover to use; empty: that of the run.

    Raises:
        InvalidRequest: no name, too few corners, or corners outside their range.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    size: tuple[int, int] | None = None
    files: str = "*"
    cover: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip() or "@" in self.name or "," in self.name:
            raise InvalidRequest(f"a zone needs a name without '@' and ',', got {self.name!r}")
        points = np.asarray(self.points, np.float64)
        if points.ndim != 2 or points.shape[0] < 3 or points.shape[1] != 2:
            raise InvalidRequest(
                f"the zone {self.name!r} needs three corners (x, y) or more: {self.points!r}"
            )
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise InvalidRequest(f"the size of the zone {self.name!r} must be (width, height): {self.size!r}")
        most = np.array(self.size or (1, 1))
        if not (np.isfinite(points).all() and (points >= 0).all() and (points <= most).all()):
            unit = f"pixels of {self.size}" if self.size else "shares in 0..1; pixels need `size` as well"
            raise InvalidRequest(f"the corners of the zone {self.name!r} must be {unit}: {self.points!r}")
        object.__setattr__(self, "points", tuple((float(x), float(y)) for x, y in points.tolist()))
        object.__setattr__(self, "size", None if self.size is None else tuple(map(int, self.size)))

    @property
    def label(self) -> str:
        """The zone's name among classes."""
        return PREFIX + self.name

    def is_for(self, path: Path | None) -> bool:
        """Say whether the zone is meant for a file; one without a name has only zones for all files."""
        return self.files == "*" or (path is not None and path.match(self.files))

    def fits(self, width: int, height: int) -> bool:
        """Say whether the zone is meant for pictures of this size."""
        return self.size is None or self.size == (width, height)

    def rectangles(self, width: int, height: int, *, inner: bool = False) -> NDArray[np.int32]:
        """Return rectangles, (n, 4) int32, half open, that make up the zone in a picture of this size.

        Guarantee:
            Together they hold every pixel that the polygon touches; or, where `inner`, only pixels that lie
            wholly inside it.
        """
        scale = (1, 1) if self.size else (width, height)
        points = np.array(self.points) * scale
        if _upright(points):
            low, high = points.min(axis=0), points.max(axis=0)
            round_low, round_high = (np.ceil, np.floor) if inner else (np.floor, np.ceil)
            # 0.3 * 100 is a little more than 30: a millionth of a pixel is no pixel.
            slack = -1e-6 if inner else 1e-6
            one = np.concatenate([round_low(low + slack), round_high(high - slack)])
            x1, y1, x2, y2 = one.clip(0, [width, height] * 2).astype(np.int32)
            return np.array([[x1, y1, x2, y2]] if x1 < x2 and y1 < y2 else [], np.int32).reshape(-1, 4)
        return _runs(_raster(points, width, height, inner))


def _upright(points: NDArray[np.float64]) -> bool:
    """Say whether a polygon is a rectangle with sides along the picture's."""
    if len(points) != 4:
        return False
    steps = np.roll(points, -1, axis=0) - points
    flat = np.abs(steps) < 1e-12
    turns = (flat.sum(axis=1) == 1).all() and (flat[0] == flat[2]).all() and (flat[0] != flat[1]).all()
    return bool(turns and (flat[1] == flat[3]).all())


def _raster(points: NDArray[np.float64], width: int, height: int, inner: bool) -> NDArray[np.bool_]:
    """Return a mask of the polygon: its edges, two pixels wide, belong to it or not."""
    cv2 = opencv()
    corners = [np.rint(points * 16 - 8).astype(np.int32)]
    body = np.zeros((height, width), np.uint8)
    edge = np.zeros((height, width), np.uint8)
    cv2.fillPoly(body, corners, 1, shift=4)
    cv2.polylines(edge, corners, True, 1, thickness=3, shift=4)
    mask = (body > 0) & (edge == 0) if inner else (body > 0) | (edge > 0)
    return np.asarray(mask, bool)


def _runs(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Cut a mask into rectangles: runs of each row, joined with equal runs of the row above."""
    done: list[tuple[int, int, int, int]] = []
    open_: dict[tuple[int, int], int] = {}
    for y in range(mask.shape[0] + 1):
        row = mask[y] if y < mask.shape[0] else np.zeros(mask.shape[1], bool)
        turns = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(np.int8)))
        here = set(zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True))
        for run in [run for run in open_ if run not in here]:
            done.append((run[0], open_.pop(run), run[1], y))
        for run in here:
            open_.setdefault(run, y)
    return np.array(sorted(done), np.int32).reshape(-1, 4)


def coarse(rectangles: NDArray[np.int32], least: int = 8) -> NDArray[np.int32]:
    """Return fewer rectangles that hold at least the same pixels: rows are put together by `least`."""
    if len(rectangles) <= 16:
        return rectangles
    first = int(rectangles[:, 1].min())
    bands: dict[int, list[int]] = {}
    for x1, y1, x2, y2 in rectangles.tolist():
        for band in range((y1 - first) // least, (y2 - 1 - first) // least + 1):
            top, bottom = first + band * least, first + (band + 1) * least
            box = bands.setdefault(band, [x1, bottom, x2, top])
            box[0], box[2] = min(box[0], x1), max(box[2], x2)
            box[1], box[3] = min(box[1], max(y1, top)), max(box[3], min(y2, bottom))
    return np.array([bands[band] for band in sorted(bands)], np.int32)


def without(regions: NDArray[np.int32], holes: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return rectangles that hold the pixels of `regions` outside `holes`, and no others."""
    left = [tuple(region) for region in regions.tolist()]
    for hx1, hy1, hx2, hy2 in holes.tolist():
        pieces = []
        for x1, y1, x2, y2 in left:
            ax, ay, bx, by = max(x1, hx1), max(y1, hy1), min(x2, hx2), min(y2, hy2)
            if ax >= bx or ay >= by:
                pieces.append((x1, y1, x2, y2))
                continue
            parts = ((x1, y1, x2, ay), (x1, by, x2, y2), (x1, ay, ax, by), (bx, ay, x2, by))
            pieces += [part for part in parts if part[0] < part[2] and part[1] < part[3]]
        left = pieces
    return np.array(left, np.int32).reshape(-1, 4)


@dataclass(frozen=True, slots=True)
class Pick:
    """One thing to be kept: of a class, at a place, in video at a time.

    Args:
        label: its class.
        x, y: a point of it, as shares of the upright picture's sides.
        seconds: in video, when it is there; None: at the first frame.
    """

    label: str
    x: float
    y: float
    seconds: float | None = None

    def marks(self, label: str, box: Sequence[float], width: int, height: int) -> bool:
        """Say whether a box is the one that is meant."""
        x, y = self.x * width, self.y * height
        return label == self.label and box[0] <= x <= box[2] and box[1] <= y <= box[3]


def picks(keep: Iterable[str]) -> list[Pick]:
    """Return the things to be kept among wishes such as "face@0.4,0.3@2.5"; the others are names of zones.

    Raises:
        InvalidRequest: it is not written so, or the place lies outside the picture.
    """
    found = []
    for wish in keep:
        label, at, rest = wish.partition("@")
        if not at:
            continue
        place, _, time = rest.partition("@")
        try:
            x, y = (float(value) for value in place.split(","))
            seconds = float(time) if time else None
        except ValueError:
            x = y = -1.0
            seconds = None
        if not (label and 0 <= x <= 1 and 0 <= y <= 1 and (seconds is None or 0 <= seconds < 1e7)):
            raise InvalidRequest(
                f"what is kept is a zone's name or CLASS@X,Y (in video CLASS@X,Y@SECONDS) with X and Y as "
                f"shares of the picture's sides, such as face@0.4,0.3@2.5; got {wish!r}"
            )
        found.append(Pick(label, x, y, seconds))
    return found


def zones_of(zones: Iterable[Mapping[str, object] | Zone]) -> tuple[Zone, ...]:
    """Return zones given as objects or as tables, checked for equal names.

    Raises:
        InvalidRequest: two have one name, or a key or value cannot be.
    """
    made = []
    for one in zones:
        if not isinstance(one, Zone):
            try:
                one = Zone(**one)  # type: ignore[arg-type]
            except TypeError as error:
                raise InvalidRequest(
                    f"a zone has name, points, size, files and cover, got {one!r}"
                ) from error
        made.append(one)
    names = [zone.name for zone in made]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidRequest(f"two zones are called {twice[0]!r}: give each a name of its own")
    return tuple(made)
