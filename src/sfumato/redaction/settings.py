"""What a redaction run was asked to do: one frozen object, with a digest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

from sfumato.core.errors import InvalidRequest
from sfumato.core.files import digest_of

Audio = Literal["copy", "mute", "drop"]

#: A region reaches past the box by this share of the box's side, on every side. A face box ends at brow and
#: chin, and ears, hair and outline identify too. For 137 of 139 labelled faces the region holds the box and
#: 35 % of its height above it (docs/guarantees/redaction.md); the back of a head seen from the side, long
#: hair and hats reach out of it.
MARGINS: Mapping[str, float] = {"face": 0.4, "plate": 0.25, "text": 0.15, "*": 0.1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one redaction run; everything that changes a pixel of the output is here.

    >>> Settings(hide=("face", "person")).cover
    'fill'

    Args:
        hide: class names to hide.
        cover: name of a cover in the catalogue.
        cover_options: keyword settings of that cover.
        thresholds: class -> least score that is hidden; absent: the detector's default.
        margins: class -> share of the box's side added on every side (above a face, half as much again);
            "*" is the default.
        models: detector name -> weights file, overriding the embedded file or the cache.
        detectors: detectors to use by name; empty: the best installed one for each class.
        size: long side of the detector's input in pixels; None: the detector's default.
        threads: inference threads; 0: one per core.
        every: in video, run the detector on every k-th frame and at scene cuts.
        audio: "copy", "mute" (same length, silent) or "drop".
        max_pixels: a picture or frame with more pixels is refused before it is decoded.

    Raises:
        InvalidRequest: a value outside its range.
    """

    hide: tuple[str, ...] = ("face",)
    cover: str = "fill"
    cover_options: Mapping[str, Any] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    margins: Mapping[str, float] = field(default_factory=lambda: dict(MARGINS))
    models: Mapping[str, Path] = field(default_factory=dict)
    detectors: tuple[str, ...] = ()
    size: int | None = None
    threads: int = 0
    every: int = 5
    audio: Audio = "copy"
    max_pixels: int = 200_000_000

    def __post_init__(self) -> None:
        if not self.hide:
            raise InvalidRequest("hide is empty: name at least one class, such as 'face'")
        check_kinds(self)
        for name, value in self.thresholds.items():
            if not 0 < value < 1:
                raise InvalidRequest(f"the threshold of {name!r} must lie between 0 and 1, got {value}")
        for name, value in self.margins.items():
            if not 0 <= value <= 2:
                raise InvalidRequest(f"the margin of {name!r} must lie in 0..2, got {value}")
        for name, number in (("every", self.every), ("max_pixels", self.max_pixels)):
            if number < 1:
                raise InvalidRequest(f"{name} must be at least 1, got {number}")
        if self.threads < 0 or (self.size is not None and self.size < 32):
            raise InvalidRequest(f"threads must be >= 0 and size >= 32, got {self.threads} and {self.size}")
        if self.audio not in ("copy", "mute", "drop"):
            raise InvalidRequest(f"audio must be 'copy', 'mute' or 'drop', got {self.audio!r}")

    def margin(self, label: str) -> float:
        """Return the margin of a class."""
        return self.margins.get(label, self.margins.get("*", MARGINS["*"]))

    def describe(self) -> dict[str, Any]:
        """Return the settings as plain data for a receipt: no path of this machine, no thread count."""
        data = asdict(self)
        for name in ("models", "threads"):
            del data[name]
        return data | {"hide": list(self.hide), "detectors": list(self.detectors)}

    def digest(self, weights: Mapping[str, str]) -> str:
        """Return a hash of all that decides the output: these settings and the models' sha256 by name."""
        return digest_of({"settings": self.describe(), "weights": dict(weights)})


_TABLES = {"thresholds": "class to score", "margins": "class to share", "models": "detector to file"}
_NUMBERS = ("size", "threads", "every", "max_pixels")


def check_kinds(wishes: Any) -> None:
    """Refuse values of the wrong kind in `Settings` or in a `Request`, where None is a wish unsaid.

    Raises:
        InvalidRequest: it names the setting, the value, and what would pass.
    """
    for name in ("hide", "detectors"):
        words = getattr(wishes, name)
        if words is not None and not (isinstance(words, tuple) and all(isinstance(w, str) for w in words)):
            raise InvalidRequest(f"{name} must be names, such as ('face',), got {words!r}")
    if not isinstance(cover := getattr(wishes, "cover", None), str | None):
        raise InvalidRequest(f"cover must be the name of a cover, such as 'fill', got {cover!r}")
    for name, what in {**_TABLES, "cover_options": "option to value"}.items():
        table = getattr(wishes, name)
        if not isinstance(table, Mapping) or not all(isinstance(key, str) for key in table):
            raise InvalidRequest(f"{name} must be a table from {what}, such as {{...: ...}}, got {table!r}")
    for name in ("thresholds", "margins"):
        for key, value in getattr(wishes, name).items():
            if isinstance(value, bool) or not isinstance(value, Real):
                raise InvalidRequest(f"the {name[:-1]} of {key!r} must be a number, got {value!r}")
    for key, path in wishes.models.items():
        if not isinstance(path, str | os.PathLike):
            raise InvalidRequest(f"the model of {key!r} must be a file, got {path!r}")
    for name in _NUMBERS:
        number = getattr(wishes, name)
        if number is not None and (isinstance(number, bool) or not isinstance(number, Integral)):
            raise InvalidRequest(f"{name} must be a whole number, got {number!r}")
