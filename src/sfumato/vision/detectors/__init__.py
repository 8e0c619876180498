"""Detectors: one file each, found by name.

`build(**settings)` of a detector takes, all optional and by keyword:

    model: Path | None     the weights; None: the embedded file or the model cache
    size: int | None       long side of the input in pixels; None: the detector's own default
    threads: int           onnxruntime threads; 0: one per core

and returns a `Detector`. A module that states `USES`, names of other detectors, also takes

    others: Mapping[str, Path]   detector name -> weights given for it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sfumato.core.plugins import Catalogue
from sfumato.vision.boxes import Boxes

CATALOGUE = Catalogue("detector", "sfumato.vision.detectors", "sfumato.detectors")


@dataclass(frozen=True, slots=True)
class Weights:
    """What a receipt says about a model: never a path of this machine."""

    name: str
    sha256: str
    licence: str


@runtime_checkable
class Detector(Protocol):
    """Finds things in a picture."""

    name: str
    weights: Weights
    finds: tuple[str, ...]
    """Class names that this detector can return."""
    thresholds: dict[str, float]
    """Default score threshold per class; a class not named here uses the entry "*"."""

    def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Boxes:
        """Return every box scoring at least `floor` in an upright (height, width, 3) uint8 RGB picture.

        Boxes are in pixels of `image` and lie inside it. The same picture gives the same boxes.
        """
        ...


@runtime_checkable
class Glancing(Protocol):
    """A detector that can also look at a chosen size: what it takes for a frame of a video."""

    def glance(self, image: NDArray[np.uint8], *, floor: float, length: int | None) -> Boxes:
        """Return boxes as `Detector.detect` does, with little memory.

        Args:
            image: (height, width, 3) uint8 RGB, upright.
            floor: least score.
            length: long side, in pixels, to which the picture is scaled; None: as `detect` would.
        """
        ...


@runtime_checkable
class Resting(Protocol):
    """A detector that can let go of memory between looks."""

    def rest(self) -> None:
        """Let go of the memory kept for the next look, which will take a little longer."""
        ...
