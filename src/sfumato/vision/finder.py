"""The finder: which detector looks for which class, and what they found."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.vision.boxes import Boxes
from sfumato.vision.choice import Bench, expand, known_classes, unknown_class
from sfumato.vision.detectors import Detector, Glancing, Resting, Weights


class Finder:
    """Finds the wanted classes in a picture, each detector running once.

    >>> import numpy as np
    >>> from sfumato.vision.toy import MAGENTA, ToyDetector
    >>> picture = np.zeros((48, 64, 3), np.uint8)
    >>> picture[10:20, 30:50] = MAGENTA
    >>> Finder([ToyDetector()], ("face",)).find(picture).labels
    ('face',)

    Args:
        detectors: the detectors to run.
        hide: the classes wanted; None: every class that the detectors find.
        thresholds: class -> least score; "*" stands for every class not named; absent: the detector's own.
        roles: detector name -> the classes it is asked for; absent: every wanted class that it finds.

    Raises:
        InvalidRequest: no class is wanted, a threshold lies outside 0..1.
        UnknownName: no detector given finds a wanted class.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        hide: Sequence[str] | None = None,
        *,
        thresholds: Mapping[str, float] | None = None,
        roles: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        finds = dict.fromkeys(label for one in detectors for label in one.finds)
        self.hide: tuple[str, ...] = tuple(dict.fromkeys(finds if hide is None else hide))
        if not self.hide and (detectors or hide is None):
            raise InvalidRequest("nothing to find: name at least one class, such as 'face'")
        for label in self.hide:
            if label not in finds:
                raise UnknownName("class", label, finds)
        self._own = dict(thresholds or {})
        for label, value in self._own.items():
            if not 0 < value < 1:
                raise InvalidRequest(f"the threshold of {label!r} must lie between 0 and 1, got {value}")
        asked = roles or {}
        self._work: list[tuple[Detector, dict[str, float]]] = []
        for one in detectors:
            wanted = [x for x in self.hide if x in one.finds and x in asked.get(one.name, self.hide)]
            if wanted:
                self._work.append((one, {label: self._least(one, label) for label in wanted}))
        self.weights: dict[str, Weights] = {one.name: one.weights for one, _ in self._work}
        self._seconds = 0.0
        self._lock = threading.Lock()

    def _least(self, detector: Detector, label: str) -> float:
        """Return the threshold of a class for one detector."""
        own = self._own.get(label, self._own.get("*"))
        table = detector.thresholds
        return float(own if own is not None else table.get(label, table.get("*", 0.5)))

    @property
    def seconds(self) -> float:
        """Time spent inside the detectors so far, in seconds, summed over threads."""
        return self._seconds

    def threshold(self, label: str) -> float:
        """Return the least score that hides a class; of several detectors for it, the lowest.

        Raises:
            UnknownName: the class is not among those wanted.
        """
        if label not in self.hide:
            raise UnknownName("class", label, self.hide)
        return min(table[label] for _, table in self._work if label in table)

    def default(self, label: str) -> float:
        """Return the threshold that the detectors themselves propose for a class; of several, the lowest."""
        tables = [one.thresholds for one, asked in self._work if label in asked]
        return min(float(table.get(label, table.get("*", 0.5))) for table in tables)

    def find(self, image: NDArray[np.uint8]) -> Boxes:
        """Return the wanted things scoring at or above their thresholds.

        Args:
            image: (height, width, 3) uint8 RGB, upright.

        Returns:
            Boxes in pixels, inside the picture.
        """
        return self._run(image, 1.0)

    def candidates(self, image: NDArray[np.uint8], factor: float = 0.5) -> Boxes:
        """Return the wanted things scoring at or above `factor` times their thresholds.

        In video, a weak box is believed where a strong one in a nearby frame vouches for it. All that `find`
        returns is among these.

        Args:
            image: (height, width, 3) uint8 RGB, upright.
            factor: in (0, 1].
        """
        _check_factor(factor)
        return self._run(image, factor)

    @property
    def glances(self) -> bool:
        """Whether all detectors can look at a size chosen by the caller: see `glance`."""
        return all(isinstance(detector, Glancing) for detector, _ in self._work)

    def glance(self, image: NDArray[np.uint8], factor: float = 0.5, *, length: int | None = None) -> Boxes:
        """Return `candidates`, looked for with little memory and at a size of the caller's.

        A detector that cannot do that looks as it always does.

        Args:
            image: (height, width, 3) uint8 RGB, upright.
            factor: in (0, 1].
            length: long side, in pixels, at which the picture is looked at; None: the usual one.
        """
        _check_factor(factor)
        return self._glance(image, factor, length)

    def rest(self) -> None:
        """Let go of memory that detectors keep for their next look: nobody looks for a while."""
        for detector, _ in self._work:
            if isinstance(detector, Resting):
                detector.rest()

    def _run(self, image: NDArray[np.uint8], factor: float) -> Boxes:
        return self._each(image, factor, lambda detector, floor: detector.detect(image, floor=floor))

    def _glance(self, image: NDArray[np.uint8], factor: float, length: int | None) -> Boxes:
        def look(detector: Detector, floor: float) -> Boxes:
            if isinstance(detector, Glancing):
                return detector.glance(image, floor=floor, length=length)
            return detector.detect(image, floor=floor)

        return self._each(image, factor, look)

    def _each(
        self, image: NDArray[np.uint8], factor: float, look: Callable[[Detector, float], Boxes]
    ) -> Boxes:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InvalidRequest(
                f"a picture must be (height, width, 3) uint8 RGB, got {image.shape} {image.dtype}"
            )
        height, width = image.shape[:2]
        parts = []
        for detector, table in self._work:
            least = {label: factor * value for label, value in table.items()}
            start = time.perf_counter()
            found = look(detector, min(least.values()))
            spent = time.perf_counter() - start
            with self._lock:
                self._seconds += spent
            parts.append(found.where(_at_least(least)).clip(width, height))
        return Boxes.concat(parts)


def _check_factor(factor: float) -> None:
    if not 0 < factor <= 1:
        raise InvalidRequest(f"factor must lie in (0, 1], got {factor}")


def _at_least(least: Mapping[str, float]) -> Callable[[str, float], bool]:
    """Return the rule that keeps wanted labels; half a float32 step is forgiven, 0.3 being no float."""
    return lambda label, score: label in least and score >= least[label] - 1e-7


def make_finder(
    hide: Sequence[str],
    *,
    detectors: Sequence[str] = (),
    models: Mapping[str, object] | None = None,
    thresholds: Mapping[str, float] | None = None,
    size: int | None = None,
    threads: int = 0,
) -> Finder:
    """Choose detectors for the classes to hide and build a finder; nothing else is touched.

    >>> make_finder(["faces"]).hide
    ('face',)

    Guarantee:
        Every class asked for has a detector, or there is an error: less than asked is never found quietly.

    Args:
        hide: class names or aliases ("people", "faces", "vehicle").
        detectors: names of detectors to use for all they find; other classes go to the best one installed.
        models: detector name -> weights file, in place of the embedded file or the cache. A detector whose
            weights are given is preferred for the classes that it is known for.
        thresholds: class or alias -> least score in 0..1; "*" stands for every class not named.
        size: long side of the detectors' input in pixels; None: each detector's default.
        threads: inference threads; 0: one per core.

    Raises:
        UnknownName: no detector could ever find a class (a typo), or no detector has a name.
        MissingModel: a detector for a class exists, but its weights are not on this machine.
        InvalidRequest: an empty list, a value outside its range, a detector forced that finds nothing asked.
    """
    words = (hide,) if isinstance(hide, str) else tuple(hide)
    if not words:
        raise InvalidRequest("hide is empty: name at least one class, such as 'face'")
    bench = Bench(tuple(detectors), models or {}, size, threads)
    roles = bench.roles(words)
    labels = dict.fromkeys(label for wanted in roles.values() for label in wanted)
    return Finder(
        [bench.build(name) for name in roles],
        tuple(labels),
        thresholds=_by_class(thresholds or {}, [*labels, *bench.own, *known_classes()]),
        roles=roles,
    )


def _by_class(thresholds: Mapping[str, float], known: Sequence[str]) -> dict[str, float]:
    """Spread thresholds given by alias over its classes; a name that nothing finds is a typo."""
    spread: dict[str, float] = {}
    for word, value in thresholds.items():
        if word == "*" or word in known:
            spread[word] = value
            continue
        labels = expand(word)
        if not labels:
            raise unknown_class(word, known, hint=f"It was given the threshold {value}.")
        for label in labels:
            spread.setdefault(label, value)
    return spread
