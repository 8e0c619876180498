"""What a redaction run was asked to do: one frozen object, with a digest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.core.files import digest_of
from sfumato.redaction.zones import Zone, picks, zones_of

Audio = Literal["copy", "mute", "drop"]
Subtitles = Literal["drop", "copy"]

#: The parts of writing that a blur or mosaic leaves are read back by a model of it (Hill et al. 2016, "On the
#: (In)effectiveness of Mosaicing and Blurring as Tools for Document Redaction", PoPETs 2016/4).
WRITTEN = ("text", "plate", "qr code", "barcode")
#: What may cover writing.
OPAQUE = ("solid", "fill", "replace")

#: A region reaches past the box by this share of the box's side, on every side; above a face by 1.85 times as
#: much, below it by half (regions.py). A face box ends at brow and chin, and ears, hair and outline identify
#: too. For 137 of 139 labelled faces the outline holds the ellipse of the head, whose box is the face's and
#: 35 % of its height above (docs/guarantees/redaction.md); the back of a head seen from the side, long hair
#: and hats reach out of it.
MARGINS: Mapping[str, float] = {"face": 0.3, "plate": 0.25, "text": 0.15, "*": 0.1}


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
        margins: class -> share of the box's side added on every side (above a face 1.85 times as
            much, below it half); "*" is the default.
        models: detector name -> weights file, overriding the embedded file or the cache.
        detectors: detectors to use by name; empty: the best installed one for each class.
        size: long side of the detector's input in pixels; None: the detector's default.
        threads: inference threads; 0: one per core.
        every: in video, run the detector on every k-th frame and at scene cuts.
        audio: "copy", "mute" (same length, silent) or "drop".
        max_pixels: a picture or frame with more pixels is refused before it is decoded.
        covers: class, or "zone NAME", -> name of its cover; absent: `cover`, or "solid" for writing that
            `cover` would leave readable.
        zones: fixed places that are covered in every picture and frame.
        keep: names of zones, and things such as "face@0.4,0.3@2.5", that are never covered.
        subtitles: "drop" (they speak names) or "copy" (their plain words, written anew).

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
    covers: Mapping[str, str] = field(default_factory=dict)
    zones: tuple[Zone, ...] = ()
    keep: tuple[str, ...] = ()
    subtitles: Subtitles = "drop"

    def __post_init__(self) -> None:
        object.__setattr__(self, "zones", zones_of(self.zones))
        if not self.hide and not any(zone.name not in self.keep for zone in self.zones):
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
        if self.subtitles not in ("drop", "copy"):
            raise InvalidRequest(f"subtitles must be 'drop' or 'copy', got {self.subtitles!r}")
        _check_covers(self.covers)
        picks(self.keep)
        names = [zone.name for zone in self.zones]
        for wish in self.keep:
            if "@" not in wish and wish not in names:
                raise UnknownName("zone", wish, names, hint="A thing is kept by CLASS@X,Y")

    def cover_of(self, label: str) -> str:
        """Return the name of the cover of a class, or of a zone by its label."""
        for zone in self.zones:
            if zone.label == label and zone.cover:
                return zone.cover
        named = self.covers.get(label, self.covers.get("*", self.cover))
        return "solid" if label in WRITTEN and named not in OPAQUE else named

    def margin(self, label: str) -> float:
        """Return the margin of a class."""
        return self.margins.get(label, self.margins.get("*", MARGINS["*"]))

    def describe(self) -> dict[str, Any]:
        """Return the settings as plain data for a receipt: no path of this machine, no thread count."""
        data = asdict(self)
        for name in ("models", "threads"):
            del data[name]
        zones = [asdict(zone) for zone in self.zones]
        for zone in zones:
            zone["points"] = [list(point) for point in zone["points"]]
            zone["size"] = None if zone["size"] is None else list(zone["size"])
        names = ("hide", "detectors", "keep")
        return data | {name: list(getattr(self, name)) for name in names} | {"zones": zones}

    def digest(self, weights: Mapping[str, str]) -> str:
        """Return a hash of all that decides the output: these settings and the models' sha256 by name."""
        return digest_of({"settings": self.describe(), "weights": dict(weights)})


def _check_covers(covers: Mapping[str, str]) -> None:
    for label, name in covers.items():
        if label in WRITTEN and name not in OPAQUE:
            raise InvalidRequest(
                f"{label} cannot be covered by {name!r}: what it leaves of writing can be read back (Hill et "
                f"al. 2016, PoPETs). Use one of: {', '.join(OPAQUE)}"
            )


_TABLES = {
    "thresholds": "class to score",
    "margins": "class to share",
    "models": "detector to file",
    "covers": "class to cover",
}
_NUMBERS = ("size", "threads", "every", "max_pixels")


def check_kinds(wishes: Any) -> None:
    """Refuse values of the wrong kind in `Settings` or in a `Request`, where None is a wish unsaid.

    Raises:
        InvalidRequest: it names the setting, the value, and what would pass.
    """
    for name in ("hide", "detectors", "keep"):
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
    for key, cover in wishes.covers.items():
        if not isinstance(cover, str):
            raise InvalidRequest(f"the cover of {key!r} must be the name of a cover, got {cover!r}")
    for key, path in wishes.models.items():
        if not isinstance(path, str | os.PathLike):
            raise InvalidRequest(f"the model of {key!r} must be a file, got {path!r}")
    for name in _NUMBERS:
        number = getattr(wishes, name)
        if number is not None and (isinstance(number, bool) or not isinstance(number, Integral)):
            raise InvalidRequest(f"{name} must be a whole number, got {number!r}")
