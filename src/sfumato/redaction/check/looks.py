"""How an output is looked at: which detectors, in which ways, and which of their hits count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest, MissingExtra, MissingModel, UnknownName
from sfumato.redaction.check.evidence import is_open
from sfumato.vision.boxes import Boxes, iou
from sfumato.vision.choice import expand, known_classes, unknown_class
from sfumato.vision.detectors import CATALOGUE, Detector
from sfumato.vision.opencv import opencv

Picture = NDArray[np.uint8]

#: Quick ones first, which look most often.
QUICK = ("yunet",)
#: Hits that share more than this of their union are one thing.
SAME = 0.3
#: Share of a detector's own threshold from which its hit may confirm another one's.
WEAK = 0.6
#: Share of it from which a quick hit is worth a second look.
FAINT = 0.35
#: A hit that no other detector confirms counts from this score on, by detector; "*": for all others.
ALONE: Mapping[str, float] = {"yunet": 0.8, "centerface": 0.6, "*": 0.6}
#: So much less is asked where it shows as it is and mirrored, and more where it shows only turned or scaled.
BOTH, ODD = -0.1, 0.1


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing seen: its class and score, (x1, y1, x2, y2) in pixels, and which look saw it."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    look: str


@dataclass(frozen=True, slots=True)
class Way:
    """A way to look at a picture: mirrored, then turned counter-clockwise by quarters, then scaled."""

    name: str
    mirror: bool = False
    quarters: int = 0
    scale: float = 1.0

    def show(self, picture: Picture) -> Picture:
        """Return the picture as it is looked at."""
        view = np.rot90(picture[:, ::-1] if self.mirror else picture, self.quarters)
        if self.scale != 1:
            cv2 = opencv()
            height, width = view.shape[:2]
            size = (max(1, round(width * self.scale)), max(1, round(height * self.scale)))
            way = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_CUBIC
            return np.asarray(cv2.resize(np.ascontiguousarray(view), size, interpolation=way))
        return np.ascontiguousarray(view)

    def back(self, boxes: Boxes, width: int, height: int) -> Boxes:
        """Return boxes found in what was shown, in pixels of the picture of this width and height."""
        wide, high = (height, width) if self.quarters % 2 else (width, height)
        x1, y1, x2, y2 = (boxes.xyxy / self.scale).T
        for _ in range(self.quarters):  # undo one counter-clockwise quarter
            x1, y1, x2, y2 = high - y2, x1, high - y1, x2
            wide, high = high, wide
        if self.mirror:
            x1, x2 = width - x2, width - x1
        return Boxes(np.stack([x1, y1, x2, y2], axis=1), boxes.scores, boxes.labels).clip(width, height)


PLAIN = Way("as it is")
MIRRORED = Way("mirrored", mirror=True)
TURNED = tuple(Way(f"turned by {90 * quarters} degrees", quarters=quarters) for quarters in (1, 2, 3))
SCALED = (Way("at half size", scale=0.5), Way("at 1.5 times its size", scale=1.5))
EVERY = (PLAIN, MIRRORED, *TURNED, *SCALED)


@dataclass(frozen=True, slots=True)
class Eye:
    """A detector and the classes that it is asked for."""

    detector: Detector
    labels: frozenset[str]

    def look(self, picture: Picture, way: Way, share: float) -> Boxes:
        """Return what scores at least `share` of the detector's threshold, in pixels of the picture."""
        table = self.detector.thresholds
        least = {label: share * table.get(label, table.get("*", 0.5)) for label in self.labels}
        found = self.detector.detect(way.show(picture), floor=min(least.values()))
        found = found.where(lambda label, score: label in least and score >= least[label])
        return way.back(found, picture.shape[1], picture.shape[0])


@dataclass(frozen=True, slots=True)
class _Hit:
    seen: Seen
    detector: str
    way: Way
    strong: bool


class Looker:
    """All eyes of one check.

    Args:
        eyes: the detectors, those that look first at the front.

    Raises:
        InvalidRequest: there is none.
    """

    def __init__(self, eyes: Sequence[Eye]) -> None:
        if not eyes:
            raise InvalidRequest("nothing to look for: name at least one class, such as 'face'")
        self.eyes = tuple(eyes)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes looked for."""
        return tuple(sorted({label for eye in self.eyes for label in eye.labels}))

    @property
    def detectors(self) -> tuple[str, ...]:
        """The names of the detectors."""
        return tuple(eye.detector.name for eye in self.eyes)

    def _first(self) -> list[Eye]:
        """Return the first eye for each class."""
        first: dict[str, Eye] = {}
        for eye in self.eyes:
            for label in eye.labels:
                first.setdefault(label, eye)
        return list({id(eye): eye for eye in first.values()}.values())

    def closely(self, picture: Picture, *, thorough: bool = False) -> list[Seen]:
        """Look in every way: the first detector of a class in all of them, the others in the usual two.

        Args:
            picture: (height, width, 3) uint8 RGB, upright.
            thorough: all detectors look in all ways.
        """
        first = {id(eye) for eye in self._first()}
        looks = [
            (eye, way)
            for eye in self.eyes
            for way in (EVERY if thorough or id(eye) in first else (PLAIN, MIRRORED))
        ]
        return self._believed(picture, looks, confirm=True)

    def quickly(self, picture: Picture) -> list[Seen]:
        """Look once with the first detector of each class; only what it sees is looked at again."""
        hits = [eye.look(picture, PLAIN, FAINT) for eye in self._first()]
        if not sum(map(len, hits)) or not _any_open(picture, hits):
            return []
        return self._believed(picture, [(eye, way) for eye in self.eyes for way in (PLAIN, MIRRORED)])

    def _believed(
        self, picture: Picture, looks: Iterable[tuple[Eye, Way]], *, confirm: bool = False
    ) -> list[Seen]:
        """Return what is open to see, once for each thing, the best hit of each.

        Args:
            picture: as for `closely`.
            looks: who looks in which way.
            confirm: where one detector is sure in a way, let the others look in that way too.
        """
        looks = list(looks)
        hits = self._hits(picture, looks)
        if confirm:
            sure = {hit.way for hit in hits if hit.strong}
            more = [
                (eye, way) for way in EVERY if way in sure for eye in self.eyes if (eye, way) not in looks
            ]
            hits += self._hits(picture, more)
        return _merge(picture, hits)

    def _hits(self, picture: Picture, looks: Iterable[tuple[Eye, Way]]) -> list[_Hit]:
        hits: list[_Hit] = []
        for eye, way in looks:
            name = eye.detector.name
            found = eye.look(picture, way, WEAK)
            table = eye.detector.thresholds
            for box, score, label in zip(found.xyxy, found.scores, found.labels, strict=True):
                x1, y1, x2, y2 = (float(value) for value in box)
                seen = Seen(label, float(score), (x1, y1, x2, y2), f"{name}, {way.name}")
                own = table.get(label, table.get("*", 0.5))
                hits.append(_Hit(seen, name, way, bool(score >= own)))
        return hits


def _any_open(picture: Picture, found: Iterable[Boxes]) -> bool:
    return any(is_open(picture, box) for boxes in found for box in boxes.xyxy)


def _merge(picture: Picture, hits: list[_Hit]) -> list[Seen]:
    """Group hits of one thing; a group counts by two detectors, or by one that is very sure."""
    hits = sorted(hits, key=lambda hit: (-hit.strong, -hit.seen.score))
    result: list[Seen] = []
    left = hits
    while left:
        best = left[0]
        spots = np.array([hit.seen.box for hit in left])
        near = iou(spots[:1], spots)[0] > SAME
        group = [
            hit for hit, one in zip(left, near, strict=True) if one and hit.seen.label == best.seen.label
        ]
        left = [hit for hit in left if hit not in group]
        if _counts(group) and (shown := _open(picture, group)) is not None:
            result.append(shown.seen)
    return result


def _open(picture: Picture, group: list[_Hit]) -> _Hit | None:
    """Return the best sure hit of one thing whose box holds detail: boxes of one face differ somewhat."""
    sure = [hit for hit in group if hit.strong] or group[:1]
    return next((hit for hit in sure if is_open(picture, np.array(hit.seen.box))), None)


def _counts(group: list[_Hit]) -> bool:
    """Return whether hits of one thing are enough to say that it is there."""
    if len({hit.detector for hit in group}) > 1:
        return any(hit.strong for hit in group)
    ways = {hit.way for hit in group}
    plain = bool(ways & {PLAIN, MIRRORED})
    least = ALONE.get(group[0].detector, ALONE["*"])
    least += BOTH if {PLAIN, MIRRORED} <= ways else 0.0 if plain else ODD
    return max(hit.seen.score for hit in group) >= least


def make_looker(
    classes: Sequence[str] = ("face",),
    *,
    models: Mapping[str, Path] | None = None,
    hid: Sequence[str] = (),
    threads: int = 0,
) -> tuple[Looker, list[str]]:
    """Return a looker with every installed detector for the classes, and sentences on what is missing.

    Args:
        classes: class names or aliases.
        models: detector name -> weights file, in place of the cache.
        hid: names of models that hid; others are looked with first.
        threads: inference threads; 0: one per core.

    Raises:
        UnknownName: a class that nothing could find.
        MissingModel: none of the detectors for a class is on this machine.
    """
    models, notes = dict(models or {}), []
    for name in models:
        if name not in CATALOGUE.names:
            raise UnknownName("detector", name, CATALOGUE.names)
    wanted: list[str] = []
    for word in classes:
        labels = expand(word) or (word,)
        if not models and not set(labels) & set(known_classes()):
            raise unknown_class(word)
        wanted += labels
    eyes: list[Eye] = []
    for name in CATALOGUE.names:
        states = getattr(CATALOGUE.load(name).module, "FINDS", None)
        if name not in models and states is not None and not set(states) & set(wanted):
            continue
        try:
            detector: Detector = CATALOGUE.build(name, model=models.get(name), threads=threads)
        except (MissingModel, MissingExtra) as error:
            if name in models:
                raise
            notes.append(f"the detector {name} did not look: {error}")
            continue
        if asked := frozenset(wanted) & frozenset(detector.finds):
            eyes.append(Eye(detector, asked))
    for label in wanted:
        if not any(label in eye.labels for eye in eyes):
            reasons = " ".join(notes)
            raise MissingModel(f"nothing on this machine can look for {label!r}. {reasons}".strip())

    def rank(eye: Eye) -> tuple[bool, bool, str]:
        used = eye.detector.weights.name in hid or eye.detector.name in hid
        return (eye.detector.name not in QUICK, used, eye.detector.name)

    return Looker(sorted(eyes, key=rank)), notes


#: Builds a looker for some classes; tests pass their own.
LookerFactory = Callable[[Sequence[str]], Looker]
