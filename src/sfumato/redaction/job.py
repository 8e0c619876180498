"""What one file's redaction needs, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from sfumato.redaction.covers import Cover
from sfumato.redaction.settings import Settings
from sfumato.vision.finder import Finder

#: Called with (frames done, frames in all or None when not known); may be called from any thread.
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Job:
    """The parts that stay the same from file to file: built once, used for a whole batch."""

    settings: Settings
    finder: Finder
    cover: Cover
    covers: Mapping[str, Cover] = field(default_factory=dict)
    """Class or zone -> its cover, where it is another."""

    def cover_of(self, label: str) -> Cover:
        """Return the cover of a class or zone."""
        return self.covers.get(label, self.cover)

    def with_covers(self, change: Callable[[Cover], Cover]) -> Job:
        """Return the job with other covers in place of its own."""
        changed = {id(one): change(one) for one in (self.cover, *self.covers.values())}
        covers = {label: changed[id(cover)] for label, cover in self.covers.items()}
        return replace(self, cover=changed[id(self.cover)], covers=covers)

    @property
    def all_covers(self) -> tuple[Cover, ...]:
        """Every cover that may be used."""
        labels = (*self.settings.hide, *(zone.label for zone in self.settings.zones))
        used = {id(one): one for one in map(self.cover_of, labels)}
        return tuple(used.values()) or (self.cover,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one file, without its name and without personal data.

    Args:
        kind: "image" or "video".
        regions: class -> regions hidden (image) or tracks hidden (video).
        width, height: of the output, in pixels.
        frames: pictures or video frames written.
        notes: plain sentences a reader of the receipt should know ("subtitles were dropped").
    """

    kind: Literal["image", "video"]
    regions: Mapping[str, int]
    width: int
    height: int
    frames: int = 1
    notes: tuple[str, ...] = field(default=())
