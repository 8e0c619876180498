"""What a check found, as plain data."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

#: What "tested" does not say here.
LIMITS = (
    "Tested means that this attack was run on the outputs and found nothing; another detector, or a person, "
    "may find more.",
    "What neither detector knows as a face (backs of heads, tiny or masked faces) is not found by the check.",
    "People may be known by body, clothes, gait, place or company under a perfect cover as well.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """Something that an output still shows or tells.

    Args:
        file: the output, relative to what was checked, safe to print.
        kind: "seen" (a detector), "thumbnail" (seen in an embedded picture), "metadata", or "exposed" (the
            original shows through; only with the original).
        label: the class seen, or the name of the metadata.
        score: of the detector, 0..1; of an exposed thing, the share of it that is open.
        box: x1, y1, x2, y2 in pixels, where there is one.
        frame, seconds: in a video or a file of several pictures.
        look: which look found it.
        frames: frames in which it was found; `frame` is the first of them.
    """

    file: str
    kind: str
    label: str
    score: float | None = None
    box: tuple[float, float, float, float] | None = None
    frame: int | None = None
    seconds: float | None = None
    look: str = ""
    frames: int = 1

    def line(self) -> str:
        """Return one line for people."""
        if self.kind == "metadata":
            return f"{self.file}: {self.label}"
        where = "" if self.frame is None else f" frame {self.frame}"
        if self.seconds is not None:
            where += f" at {self.seconds:.2f} s"
        if self.frames > 1:
            where += f", {self.frames} frames"
        place = "" if self.box is None else f" at {', '.join(f'{value:.0f}' for value in self.box)}"
        score = "" if self.score is None else f" {self.score:.2f}"
        return f"{self.file}{where}: {self.kind} {self.label}{score}{place} ({self.look})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """How well one thing of the original is covered in the output.

    Args:
        file: the output.
        track: number of the thing in its file; in a video, of its track.
        label: its class.
        frames: frames in which it was compared.
        exposed: of these, frames in which less than 90 % of it is covered.
        least: the smallest share of it that is covered in any of them, 0..1.
    """

    file: str
    track: int
    label: str
    frames: int
    exposed: int
    least: float


@dataclass(slots=True, kw_only=True)
class Report:
    """What a check looked at, and what it found.

    >>> Report().ok
    True

    Args:
        finds: what the outputs still show or tell.
        coverage: per thing of the original; only where originals were given.
        failures: (file, reason) of outputs that could not be looked at: they were not checked.
        pictures, videos, frames: how much was looked at.
        detectors: that looked.
        classes: that were looked for.
        notes: sentences that the reader should know.
        limits: what "tested" does not say.
    """

    finds: list[Find] = field(default_factory=list)
    coverage: list[Covered] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    pictures: int = 0
    videos: int = 0
    frames: int = 0
    detectors: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    limits: tuple[str, ...] = LIMITS

    @property
    def ok(self) -> bool:
        """Whether everything was looked at, and nothing found."""
        return not self.finds and not self.failures

    @property
    def files(self) -> tuple[str, ...]:
        """The files with finds, in order."""
        return tuple(dict.fromkeys(find.file for find in self.finds))

    def take(self, other: Report) -> None:
        """Add what another report of the same check found."""
        self.finds += other.finds
        self.coverage += other.coverage
        self.failures += other.failures
        self.pictures += other.pictures
        self.videos += other.videos
        self.frames += other.frames

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "ok": self.ok,
            "finds": [asdict(find) for find in self.finds],
            "coverage": [asdict(one) for one in self.coverage],
            "failures": [{"file": name, "reason": reason} for name, reason in self.failures],
            "pictures": self.pictures,
            "videos": self.videos,
            "frames": self.frames,
            "detectors": list(self.detectors),
            "classes": list(self.classes),
            "notes": list(self.notes),
            "limits": list(self.limits),
        }

    def tested(self) -> dict[str, Any]:
        """Return what a receipt tells of this check: the attack, its result and its limits; no name."""
        return {
            "guarantee": "tested",
            "attack": f"detection of {', '.join(self.classes)} by {', '.join(self.detectors)}: upright, "
            "mirrored, turned and at other scales, in every picture and frame; embedded pictures; metadata "
            "against an allow-list",
            "result": dict(sorted(Counter(find.kind for find in self.finds).items())),
            "files_found": len(self.files),
            "pictures": self.pictures,
            "videos": self.videos,
            "frames": self.frames,
            "limits": list(self.limits),
        }
